"""From a replay to a recorder and to a depth node: between processes nothing is lost."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time

import numpy as np
import pytest

from dae_ros.bags.message_types import EVENT_ARRAY, EVENT_PACKET
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.events.cdr import write_event_array
from dae_ros.nodes.recorder_node import RecorderNode, without_message
from test.reference.replay_runs import START_NS, finish, output_of, overrides, write_bag


def test_the_recorder_writes_what_was_played_and_closes_whole(graph, process, camera, tmp_path):
    """Replay to recorder, flat out: the copy holds every message in order; SIGTERM gives 0."""
    messages = write_bag(tmp_path / "bag", camera, 2000, payload=bytes(8000))
    recorder = process("recorder_node", output=tmp_path / "copy", topics="/events,/never")
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0, clock_hz=0.0)
    assert finish(graph, child) == 0, output_of(child)
    time.sleep(0.5)
    recorder.send_signal(signal.SIGTERM)
    assert finish(graph, recorder) == 0, output_of(recorder)
    with open_recording(tmp_path / "copy") as copy:
        assert [bytes(item.data) for item in copy.messages()] == messages
        assert copy.topics["/events"].type == EVENT_PACKET
    assert "no message came on /never" in output_of(recorder)


def test_the_recorder_misses_depth_only_where_neither_kind_came():
    """Relative depth stands for metric depth of the same node and the other way round."""
    asked = ["/depth/image", "/depth/relative", "/cam0/depth/image", "/metrics", "/my_depth/image"]
    assert without_message(asked, {"/depth/relative", "/metrics"}) == [
        "/cam0/depth/image",
        "/my_depth/image",
    ]
    assert without_message(asked, {"/cam0/depth/image"}) == [
        "/depth/image",
        "/depth/relative",
        "/metrics",
        "/my_depth/image",
    ]


def test_the_recorder_refuses_an_existing_folder_and_missing_parameters(graph, tmp_path):
    """Nothing is overwritten, and an empty request is a sentence."""
    with pytest.raises(RecordingError, match="exists already"):
        RecorderNode(parameter_overrides=overrides(output=str(tmp_path), topics="/events"))
    with pytest.raises(ConfigurationError, match="nothing to record"):
        RecorderNode()


def test_two_million_events_per_second_of_dvs_msgs_all_arrive(
    graph, process, depth, tmp_path, camera
):
    """100 arrays of 20,000 events in one second reach the node and its decoder, every event."""
    random = np.random.default_rng(0)
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(100):
            camera.count, camera.time_us = 20_000, 1_000_000 + index * 10_000
            events = dataclasses.replace(camera.events())
            bag.write(
                "/events",
                EVENT_ARRAY,
                START_NS + index * 10_000_000,
                write_event_array(
                    events, 48, 64, int(events.t[-1]), f"camera_{random.integers(10)}"
                ),
            )
    node = depth(overload="latest")
    node.trigger_configure()
    node.trigger_activate()
    child = process("replay_node", bag=tmp_path / "bag", rate=1.0, clock_hz=0.0)
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: node._worker.snapshot.pipeline.events == 2_000_000)
    assert node._traffic.messages == 100
    assert node._worker.snapshot.inbox_dropped == 0


def test_a_node_that_must_lose_nothing_holds_the_replay_back(
    graph, process, depth, camera, tmp_path, monkeypatch
):
    """With overload: queue a node that is busy for a while still gets every message."""
    camera.count = 400
    write_bag(tmp_path / "bag", camera, 6_000, period_ns=1000)
    node = depth(overload="queue", hop_s=1.0, window_s=1.0, inbox_mb=1)
    node.trigger_configure()
    node.trigger_activate()
    free, take = threading.Event(), node._worker.inbox.take

    def take_when_free(*arguments):
        free.wait(60.0)
        return take(*arguments)

    monkeypatch.setattr(node._worker.inbox, "take", take_when_free)
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0)
    graph.until(lambda: node._traffic.messages > 0)
    graph.spin(2.0)
    assert child.poll() is None, "the replay went on without its subscriber"
    free.set()
    graph.until(lambda: node._worker.snapshot.pipeline.events == 6_000 * 400)
    assert finish(graph, child) == 0
    assert node._traffic.messages == 6_000
