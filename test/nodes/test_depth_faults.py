"""What a depth node does with bad input, gaps, failing networks, and repeated lifecycles."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from dae_ros.errors import InferenceError, NonFiniteState
from dae_ros.events.cdr import write_packet
from dae_ros.nodes.depth_worker import FAILURES_IN_A_ROW


@pytest.fixture
def running(graph, depth):
    """Return an active depth node that keeps every window, and a matched publisher."""
    node = depth(overload="queue")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    publisher = graph.publisher(EventPacket, "events")
    graph.until(lambda: publisher.get_subscription_count() == 1)
    return node, publisher


def send(publisher, camera, count):
    """Publish some packets of a camera."""
    for _ in range(count):
        publisher.publish(write_packet(camera.packet()))


def pipeline_of(node):
    """Return the latest counters of a node's pipeline."""
    return node._worker.snapshot.pipeline


def test_damaged_messages_are_counted_and_the_stream_goes_on(graph, camera, running, capfd):
    """Unknown encodings, false lengths and empty payloads cost nothing but themselves."""
    node, publisher = running
    images = graph.listen(Image, "depth/relative")
    send(publisher, camera, 15)
    publisher.publish(write_packet(dataclasses.replace(camera.packet(), encoding="evt9")))
    whole = write_packet(camera.packet())
    payload_bytes = int.from_bytes(whole[length_at(whole) :][:4], "little")
    for claimed in (payload_bytes + 1, 2**31):
        # DDS carries whole messages only; a length that lies is what truncation looks like.
        publisher.publish(
            whole[: length_at(whole)]
            + claimed.to_bytes(4, "little")
            + whole[length_at(whole) + 4 :]
        )
    publisher.publish(whole)
    publisher.publish(write_packet(dataclasses.replace(camera.packet(), payload=b"")))
    send(publisher, camera, 30)
    graph.until(lambda: len(images) >= 2)
    graph.until(lambda: node._worker.snapshot.errors.get("malformed_packet") == 2)
    assert pipeline_of(node).errors == {"unsupported_encoding": 1}
    assert "evt9" in capfd.readouterr().err
    graph.until(lambda: pipeline_of(node).events == 46 * camera.count)


def length_at(message):
    """Return where the length of the payload stands in a packet with the camera's frame_id."""
    # after the encapsulation: stamp 8, frame_id 4 + 21 + padding 3, height and width 8, padding
    # 4, seq and time base 16, encoding 4 + 5, is_bigendian 1, padding 2
    found = 4 + 8 + 28 + 8 + 4 + 16 + 9 + 1 + 2
    assert int.from_bytes(message[found : found + 4], "little") == len(message) - found - 4
    return found


def test_lost_messages_and_restarts_are_gaps(graph, camera, running):
    """A jump in seq is counted as lost; a counter that falls resets the state."""
    node, publisher = running
    send(publisher, camera, 10)
    camera.packet()
    camera.packet()
    send(publisher, camera, 10)
    graph.until(lambda: pipeline_of(node).gaps.get("lost") == 1)
    assert pipeline_of(node).drops["lost_packets"] == 2
    camera.seq = 1
    send(publisher, camera, 10)
    graph.until(lambda: pipeline_of(node).resets.get("restart") == 1)


def test_a_change_of_resolution_goes_on_at_the_new_size(graph, camera, running):
    """After a change of size the images have the new size, and the reset has its cause."""
    node, publisher = running
    images = graph.listen(Image, "depth/relative")
    send(publisher, camera, 25)
    graph.until(lambda: images)
    other = type(camera)(height=32, width=80)
    other.seq, other.time_us = camera.seq, camera.time_us
    send(publisher, other, 25)
    graph.until(lambda: (images[-1].height, images[-1].width) == (32, 80))
    graph.until(lambda: pipeline_of(node).resets.get("resolution") == 1)


def test_ten_failures_in_a_row_end_in_inactive_with_an_error(graph, camera, running, capfd):
    """A backend that keeps failing stops depth, keeps the process, and shows in diagnostics."""
    node, publisher = running
    reports = graph.listen(DiagnosticArray, "/diagnostics")

    def failing(_):
        raise InferenceError("out of memory")

    node._worker.estimator.estimate = failing
    send(publisher, camera, 10 * FAILURES_IN_A_ROW + 30)
    graph.until(lambda: publisher.get_subscription_count() == 0)
    graph.until(
        lambda: any(
            status.level == b"\x02" and "windows in a row failed" in status.message
            for report in reports
            for status in report.status
        )
    )
    assert "out of memory" in capfd.readouterr().err
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize("error", [InferenceError, NonFiniteState])
def test_after_ten_failures_activate_tries_again(graph, camera, depth, capfd, error):
    """Once the cause has passed, activate is enough; what was set meanwhile holds."""
    node = depth(overload="queue", orientation="depth")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    publisher = graph.publisher(EventPacket, "events")
    graph.until(lambda: publisher.get_subscription_count() == 1)
    estimator = node._worker.estimator
    working = estimator.estimate

    def failing(_):
        raise error("no memory")

    for _ in range(2):
        estimator.estimate = failing
        graph.until(lambda: send(publisher, camera, 1) or not node._inputs)
        assert "`ros2 lifecycle set /depth activate`" in capfd.readouterr().err
        assert "`ros2 lifecycle set /depth activate`" in node._fault.message
        graph.until(lambda: publisher.get_subscription_count() == 0)
        estimator.estimate = working
        (accepted,) = node.set_parameters([Parameter("scale", value=2.0)])
        assert accepted.successful
        images = graph.listen(Image, "depth/image")
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert node._fault is None
        graph.until(lambda: publisher.get_subscription_count() == 1)

        def seen(found=images):
            # Until the new topic and its subscriber have found each other images are lost.
            send(publisher, camera, 1)
            return len(found) >= 2

        graph.until(seen)


def test_single_failures_cost_one_window(graph, camera, running):
    """Fewer failures than the limit drop their windows only; diagnostics say how many."""
    node, publisher = running
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    images = graph.listen(Image, "depth/relative")
    estimate, calls = node._worker.estimator.estimate, []

    def sometimes(image):
        calls.append(1)
        if len(calls) % 2:
            raise InferenceError("now and then")
        return estimate(image)

    node._worker.estimator.estimate = sometimes
    send(publisher, camera, 70)
    graph.until(lambda: len(images) >= 2)
    graph.until(lambda: pipeline_of(node).errors.get("inference", 0) >= 3)
    assert publisher.get_subscription_count() == 1
    graph.until(
        lambda: any(
            item.key == "failed" and int(item.value) >= 3
            for report in reports
            for status in report.status
            if status.name.endswith(": windows")
            for item in status.values
        )
    )


def test_a_network_that_only_gives_nan_is_stopped(graph, camera, running):
    """Non-finite output in every window is a fault too, not an endless row of resets."""
    node, publisher = running
    node._worker.estimator._network.register_forward_hook(
        lambda module, inputs, output: (output[0] * float("nan"), output[1])
    )
    for _ in range(40):
        send(publisher, camera, 10)
        graph.spin(0.05)
        if publisher.get_subscription_count() == 0:
            break
    graph.until(lambda: publisher.get_subscription_count() == 0)
    assert "NaN" in node._fault.message


def test_an_error_of_the_program_leads_to_unconfigured(graph, camera, running, capfd):
    """A bug in the worker is logged with its traceback; the node can be configured again."""
    node, publisher = running

    def broken(_):
        raise ZeroDivisionError("a bug")

    node._worker.estimator.estimate = broken
    send(publisher, camera, 30)
    graph.until(lambda: node._worker is None)
    logged = capfd.readouterr().err
    assert "ZeroDivisionError: a bug" in logged
    assert "Traceback" in logged
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_deactivation_forgets_what_was_received_and_keeps_the_model(graph, camera, running):
    """After a pause depth goes on with the same model, a new state, and nothing of before."""
    node, publisher = running
    images = graph.listen(Image, "depth/relative")
    send(publisher, camera, 25)
    graph.until(lambda: len(images) >= 1)
    estimator = node._worker.estimator
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    graph.until(lambda: publisher.get_subscription_count() == 0)
    before = len(images)
    camera.time_us += 50_000
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    graph.until(lambda: publisher.get_subscription_count() == 1)
    resumed_us = camera.time_us
    send(publisher, camera, 25)
    graph.until(lambda: len(images) > before)
    assert node._worker.estimator is estimator
    graph.until(lambda: pipeline_of(node).resets.get("deactivated") == 1)
    stamp = images[before].header.stamp
    end_us = (stamp.sec * 10**9 + stamp.nanosec - 1_700_000_000_000_000_000) // 1000
    assert end_us >= resumed_us + 50_000, "a window reached back into what was before the pause"


def test_rates_count_nothing_of_before_a_pause_or_another_worker(graph, camera, running):
    """After a pause, and after cleanup and configure, rates begin anew instead of being made up."""
    node, publisher = running
    reports = graph.listen(DiagnosticArray, "/diagnostics")

    def values(part):
        """Return what the reports say of one part, newest last."""
        return [
            {item.key: item.value for item in status.values}
            for report in reports
            for status in report.status
            if status.name == f"/depth: {part}"
        ]

    send(publisher, camera, 60)
    graph.until(lambda: pipeline_of(node).windows >= 2)
    graph.until(lambda: values("windows") and int(values("windows")[-1]["windows"]) >= 2)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    reports.clear()
    graph.until(lambda: len(reports) >= 2)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    reports.clear()
    graph.until(lambda: len(values("events")) >= 2)
    for found in values("events"):
        assert (found["messages_per_s"], found["megabytes_per_s"]) == ("0.0", "0.000")
        assert found["mega_events_per_s"] == "0.000"
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    reports.clear()
    graph.until(lambda: len(values("windows")) >= 2)
    assert {found["windows_per_s"] for found in values("windows")} == {"0.0"}


def test_depth_of_before_a_pause_does_not_come_out_after_it(graph, camera, depth):
    """A backlog of a slow network is dropped by deactivate, also with `overload: queue`."""
    node = depth(overload="queue")
    images = graph.listen(Image, "depth/relative")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    estimator = node._worker.estimator
    step = estimator.estimate

    def slow(image):
        time.sleep(0.1)
        return step(image)

    estimator.estimate = slow
    publisher = graph.publisher(EventPacket, "events")
    graph.until(lambda: publisher.get_subscription_count() == 1)
    send(publisher, camera, 200)
    graph.until(lambda: len(images) >= 1)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    graph.spin(0.5)
    before = len(images)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    graph.spin(1.5)
    assert len(images) == before


def resident_bytes():
    """Return the resident memory of this process, without what the allocator keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_fifty_lifecycles_leave_no_thread_subscription_or_memory(
    graph, camera, depth, tmp_path, monkeypatch, backend
):
    """configure, activate, depth, deactivate, cleanup: fifty times, with nothing left behind.

    With `auto` as live an export is under way whenever it ends.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    overload = "latest" if backend == "auto" else "queue"
    node = depth(overload=overload, backend=backend, color_far_m=10.0)
    publisher = graph.publisher(EventPacket, "events")
    images = graph.listen(Image, "depth/relative")
    threads = threading.active_count()
    entities = None
    memory = []
    for cycle in range(50):
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        if cycle % 10 == 0:
            graph.until(lambda: publisher.get_subscription_count() == 1)
            before = len(images)
            camera.time_us += 1_000_000
            send(publisher, camera, 25)
            graph.until(lambda count=before: len(images) > count)
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        counts = [
            len(list(found))
            for found in (
                node.publishers,
                node.subscriptions,
                node.timers,
                node.guards,
                node.services,
            )
        ]
        entities = entities or counts
        assert counts == entities
        assert threading.active_count() == threads
        if cycle >= 19:
            images.clear()
            gc.collect()
            memory.append(resident_bytes())
    graph.until(lambda: publisher.get_subscription_count() == 0)
    slope = np.polyfit(np.arange(len(memory)), memory, 1)[0]
    assert slope < 200_000, f"memory grows by {slope / 1e3:.0f} kB in each cycle"
