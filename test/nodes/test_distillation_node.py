"""The learning node over real DDS, alone and beside a real depth node."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from event_camera_msgs.msg import EventPacket as EventPacketMessage
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String, UInt8MultiArray
from std_srvs.srv import Trigger

from dae_ros.bags.messages import write_image
from dae_ros.events.cdr import write_packet
from dae_ros.events.frame import Frame
from dae_ros.model.fetch import digest_of
from dae_ros.nodes.distillation_node import DistillationNode
from dae_ros.nodes.qos import latched_qos
from dae_ros.runtime.snapshots import read_latest
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.prepared_learner import moved, prepare, write_files
from test.reference.wall_deployment import items

pytestmark = pytest.mark.ros
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
SEEN = items(1, 1000)
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """Parameters with a student, and a teacher that says 1.2 times what it says."""
    return write_files(tmp_path_factory.mktemp("files"), SEEN)


@pytest.fixture(scope="module")
def learned(values, tmp_path_factory):
    """A folder with clips to learn from and to judge by."""
    folder = tmp_path_factory.mktemp("learned")
    prepare(values, SEEN, folder)
    return folder


class Learner:
    """A distillation node, its camera, and everything that it says."""

    def __init__(self, graph, values, folder, **changes):
        self.graph = graph
        self.statuses = graph.listen(DiagnosticArray, "distill/status")
        self.metrics = graph.listen(DiagnosticArray, "distill/metrics")
        self.announced = self._latched("distill/snapshot")
        self.judged = self._latched("distill/verdict")
        self.events = graph.publisher(EventPacketMessage, "events")
        self.images = graph.publisher(Image, "image")
        chosen = {**values, "folder": str(folder), "autostart": False, **changes}
        self.node = graph.add(
            DistillationNode(
                cli_args=["--ros-args"],
                parameter_overrides=[Parameter(key, value=value) for key, value in chosen.items()],
            )
        )

    def _latched(self, topic):
        found = []
        self.graph.peer.create_subscription(
            String, topic, lambda message: found.append(json.loads(message.data)), latched_qos(10)
        )
        return found

    def activate(self):
        assert self.node.trigger_configure() == SUCCESS
        assert self.node.trigger_activate() == SUCCESS
        for publisher in (self.events, self.images):
            self.graph.until(lambda sink=publisher: sink.get_subscription_count() >= 1)
        return self

    def see(self, offset_ns=0):
        """Publish all that the camera saw, moved in time, as fast as the nodes take it."""
        for item in SEEN:
            now = moved(item, offset_ns)
            if isinstance(now, Frame):
                self.images.publish(write_image(now.image, now.stamp_ns, "camera"))
            else:
                self.events.publish(write_packet(now))
            self.graph.spin(0.004)

    def values(self, name="learning"):
        """Return what the last status says under a name."""
        found = next((one for one in self.statuses[-1].status if one.name == name), None)
        return {} if found is None else {item.key: item.value for item in found.values}

    def until_state(self, state):
        self.graph.until(lambda: self.statuses and self.values()["state"] == state)

    def ask(self, service):
        client = self.graph.peer.create_client(Trigger, f"/distillation/{service}")
        return self.graph.call(client, Trigger.Request())


def test_events_and_frames_become_labels_steps_and_a_status(graph, values, learned, tmp_path):
    """Topics, latched announcement, pseudo-label with its frame's stamp, services, diagnostics."""
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    learner = Learner(graph, values, tmp_path, judge_every_s=1e9, judge_every_steps=100_000)
    labels = graph.listen(Image, "distill/pseudo_label")
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    learner.activate()
    graph.until(lambda: learner.announced)
    assert learner.announced[0]["version"] == 1
    assert digest_of(Path(learner.announced[0]["path"])) == learner.announced[0]["sha256"]
    for again in range(20):
        learner.see(again * SECOND)
        done = {message.status[0].name for message in learner.metrics}
        if labels and done >= {"labelled", "learned"}:
            break
    learner.until_state("active")
    assert int(learner.values()["accepted_steps"]) > 0
    assert int(learner.values("counts")["received.frames"]) >= 10
    first = next(item for item in SEEN if isinstance(item, Frame))
    stamp_ns = labels[0].header.stamp.sec * SECOND + labels[0].header.stamp.nanosec
    assert (stamp_ns - first.stamp_ns) % (SECOND // 20) == 0 and labels[0].encoding == "32FC1"
    depth = np.frombuffer(labels[0].data, np.float32).reshape(labels[0].height, labels[0].width)
    assert depth.shape == first.image.shape and np.isfinite(depth).mean() > 0.5

    answer = learner.ask("stop")
    assert answer.success and answer.message.startswith("stopped, all is in ")
    learner.until_state("holding:stopped")
    answer = learner.ask("rollback")
    assert (answer.success, answer.message) == (False, "there is nothing before version 1")
    assert learner.ask("start").success and learner.ask("save").success
    assert learner.ask("reset_to_anchor").success
    graph.until(lambda: len(learner.announced) == 2)
    assert (learner.announced[1]["version"], learner.announced[1]["rollback"]) == (1, True)
    names = {one.name for message in reports for one in message.status}
    assert {"/distillation: learning", "/distillation: budget", "/distillation: depth"} <= names

    assert learner.node.trigger_deactivate() == SUCCESS
    learner.until_state("holding:inactive")
    assert learner.node.trigger_cleanup() == SUCCESS
    steps = int(learner.values()["accepted_steps"])
    answer = learner.ask("save")
    assert (answer.success, answer.message) == (False, "not configured: nothing learns yet")
    # What was learned is there again.
    del learner.statuses[:]
    learner.activate()
    graph.until(lambda: learner.statuses and learner.values().get("accepted_steps"))
    assert int(learner.values()["accepted_steps"]) >= steps > 0


def test_without_a_teacher_it_holds_and_without_weights_it_is_refused(graph, values, tmp_path):
    """The status and diagnostics name the missing file; the refusal says what to set."""
    learner = Learner(graph, values, tmp_path, teacher=str(tmp_path / "none.yaml"))
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    learner.activate()
    learner.until_state("holding:no_teacher")
    assert "none.yaml" in learner.values()["detail"] and learner.announced == []
    found = lambda: [  # noqa: E731 - asked again and again
        one
        for message in reports
        for one in message.status
        if one.name == "/distillation: learning"
    ]
    graph.until(found)
    assert found()[-1].level == DiagnosticStatus.WARN
    assert not learner.ask("save").success
    graph.remove(learner.node)
    assert Learner(graph, values, tmp_path, weights="").node.trigger_configure() == FAILURE


def test_places_from_before_hold_and_measure(graph, values, learned, tmp_path):
    """A clip store beside the pinned clips; what has no place that is long enough is refused."""
    shutil.copytree(learned, tmp_path / "learner", dirs_exist_ok=True)
    train = [WedgeSource(seed, 28, 42, windows=9) for seed in (1, 2, 3)]
    held = [WedgeSource(seed, 28, 42, windows=6) for seed in (4, 5)]
    store = wedge_clips(tmp_path / "anchors", train, held)
    learner = Learner(
        graph, values, tmp_path / "learner", anchors=str(store), measured_windows=6
    ).activate()
    graph.until(lambda: learner.statuses and learner.values("counts").get("resumed") == "1")
    assert int(learner.values()["anchors"]) == 3 + 2 + 2
    for again in range(20):
        learner.see(again * SECOND)
        if learner.judged:
            break
    numbers = learner.judged[0]["numbers"]
    assert numbers["anchor_clips"] == 2 + 1
    assert np.isfinite(numbers["anchor_true_worst"])
    graph.remove(learner.node)
    again = Learner(graph, values, tmp_path / "again", anchors=str(store), measured_windows=7)
    assert again.node.trigger_configure() == FAILURE


def test_a_depth_node_elsewhere_gets_the_weights_in_pieces(graph, values, tmp_path):
    """A late subscriber puts the file together that was announced; what is announced again comes
    again.
    """
    learner = Learner(graph, values, tmp_path, chunks=True).activate()
    graph.until(lambda: learner.announced)
    pieces = {}
    graph.peer.create_subscription(
        UInt8MultiArray,
        "distill/snapshot_chunk",
        lambda message: pieces.update({message.layout.dim[0].label: bytes(message.data)}),
        latched_qos(1000),
    )
    announced = learner.announced[-1]
    graph.until(lambda: sum(map(len, pieces.values())) == announced["size"])
    ordered = sorted(pieces, key=lambda label: int(label.split("/")[1]))
    assert b"".join(pieces[label] for label in ordered) == Path(announced["path"]).read_bytes()
    sent = dict(pieces)
    pieces.clear()
    assert learner.ask("reset_to_anchor").success
    graph.until(lambda: pieces == sent)


def test_depth_takes_a_better_version_and_its_rollback_is_followed(
    graph, depth, values, learned, tmp_path
):
    """Announced, in use, named with every image; taken back by depth, it is given up here too."""
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    node = depth(
        weights=values["weights"], follow_snapshots=True, canary_latency=1e6, canary_flicker=100.0,
        canary_windows=8, replay_windows=4,
    )  # fmt: skip
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    images = graph.listen(DiagnosticArray, "depth/status")
    learner = Learner(graph, values, tmp_path).activate()
    graph.until(lambda: learner.events.get_subscription_count() == 2)
    graph.until(lambda: learner.statuses and learner.values("counts").get("resumed") == "1")
    stopped = False

    def version():
        found = {item.key: item.value for item in images[-1].status[0].values} if images else {}
        return int(found.get("weight_version", 0))

    for again in range(20):
        learner.see(again * SECOND)
        if learner.announced[-1]["version"] > 1 and not stopped:
            stopped = learner.ask("stop").success
        if version() > 1:
            break
    accepted = [one for one in learner.judged if one["accepted"]]
    taken = version()
    assert taken == accepted[-1]["version"] > 1
    numbers = accepted[0]["numbers"]
    before, after = (numbers[f"heldout_metric_abs_rel_{who}"] for who in ("published", "candidate"))
    assert after < before
    client = graph.peer.create_client(Trigger, "/depth/rollback")
    assert graph.call(client, Trigger.Request()).success
    for again in range(20, 40):
        learner.see(again * SECOND)
        if learner.announced[-1]["rollback"]:
            break
    assert learner.announced[-1]["rollback"] and learner.announced[-1]["version"] < taken
    graph.until(lambda: learner.values("counts").get("rejected") == "1")
    assert read_latest(tmp_path / "snapshots").version == learner.announced[-1]["version"]
    assert version() < taken
