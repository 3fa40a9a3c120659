"""A trainer that announces weights on ROS, and a depth node that follows them."""

from __future__ import annotations

import copy
import json
import time

import torch
from diagnostic_msgs.msg import DiagnosticArray
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import MultiArrayDimension, MultiArrayLayout, String, UInt8MultiArray

from dae_ros.events.cdr import write_packet
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.nodes.qos import latched_qos
from dae_ros.runtime.snapshot_chunks import chunks
from dae_ros.runtime.snapshots import SnapshotStore

SUCCESS = TransitionCallbackReturn.SUCCESS


def write_changed(path, share, seed=3):
    """Write the tiny network with its weights changed by a share of their size."""
    tiny = untrained("tiny")
    network = copy.deepcopy(tiny.network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += share * parameter.norm() * noise / noise.norm()
    save_checkpoint(path, network, tiny.meaning)


class Trainer:
    """What a trainer does on ROS: versions in a folder, announced on a latched topic."""

    def __init__(self, graph, folder):
        self.store = SnapshotStore(folder)
        self.announcements = graph.peer.create_publisher(String, "distill/snapshot", latched_qos())
        self.pieces = graph.peer.create_publisher(
            UInt8MultiArray, "distill/snapshot_chunk", latched_qos(1000)
        )

    def make(self, share=1e-3, seed=3):
        """Write the next version."""
        return self.store.publish(
            lambda path: write_changed(path, share, seed), step=0, score=1.0
        ).announcement

    def announce(self, announcement):
        """Publish an announcement."""
        self.announcements.publish(String(data=announcement.to_json()))

    def send(self, announcement, label=None):
        """Publish the pieces of a file."""
        for piece_label, data in chunks(announcement.path, announcement.version):
            layout = MultiArrayLayout(dim=[MultiArrayDimension(label=label or piece_label)])
            self.pieces.publish(UInt8MultiArray(layout=layout, data=data))


class Follower:
    """An active depth node that follows weights, its camera, and everything that it says."""

    def __init__(self, graph, depth, camera, **parameters):
        self.graph, self.camera = graph, camera
        self.statuses = graph.listen(DiagnosticArray, "depth/status")
        self.verdicts = []
        graph.peer.create_subscription(
            String,
            "depth/weights",
            lambda message: self.verdicts.append(json.loads(message.data)),
            latched_qos(10),
        )
        self.node = depth(
            **{
                "overload": "queue",
                "follow_snapshots": True,
                "replay_windows": 8,
                "canary_windows": 8,
                # A busy machine must not decide here.
                "canary_latency": 1e6,
                **parameters,
            }
        )
        assert self.node.trigger_configure() == SUCCESS
        assert self.node.trigger_activate() == SUCCESS
        self.publisher = graph.publisher(EventPacket, "events")
        graph.until(lambda: self.publisher.get_subscription_count() == 1)
        graph.until(lambda: self.verdicts)
        assert (self.verdicts[0]["verdict"], self.verdicts[0]["code"]) == ("kept", "start")

    def run(self, windows):
        """Let the camera see so many windows, and wait for their depth."""
        target = len(self.statuses) + windows
        while len(self.statuses) < target:
            for _ in range(10):
                self.publisher.publish(write_packet(self.camera.packet()))
            self.graph.spin(0.02)

    def until_verdict(self, verdict, version):
        """Let windows pass until a verdict is out; return it."""
        deadline_s = time.monotonic() + 120.0
        while True:
            for found in self.verdicts:
                if (found["verdict"], found["version"]) == (verdict, version):
                    return found
            assert time.monotonic() < deadline_s, self.verdicts
            self.run(1)

    def values(self, index):
        """Return what `depth/status` says of one image."""
        return {item.key: item.value for item in self.statuses[index].status[0].values}

    def check_no_window_is_missing(self):
        """Every window came out once, in order, and none was skipped or dropped."""
        found = [int(self.values(index)["index"]) for index in range(len(self.statuses))]
        assert found == list(range(found[0], found[0] + len(found)))
