"""The depth node on real rclpy and DDS: event messages in, depth images out."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from dvs_msgs.msg import EventArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from dae_ros.events.cdr import read_packet, write_event_array, write_packet
from dae_ros.events.packet import EventPacket as Packet
from dae_ros.events.packet import Events
from dae_ros.runtime.stage_times import STAGES
from dae_ros.simulation.encoders import create_encoder
from test.reference.depth_node_runs import (
    check_images,
    connect,
    offline,
    stamp_ns,
    start,
    values_of,
)


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best_effort"])
def test_event_packets_become_the_depth_of_the_same_pipeline(graph, depth, camera, reliable):
    """Whatever the publisher's QoS, each window's image equals the pipeline's own, to the bit."""
    images = graph.listen(Image, "depth/relative")
    statuses = graph.listen(DiagnosticArray, "depth/status")
    packets = [camera.packet() for _ in range(60)]
    start(graph, depth)
    publisher = connect(graph, reliable=reliable)
    expected = offline(packets)
    assert len(expected) == 4
    for packet in packets:
        publisher.publish(write_packet(packet))
        graph.spin(0.001)
    graph.until(lambda: len(images) >= 4 and len(statuses) >= 4)
    check_images(images, expected)
    assert images[0].encoding == "32FC1"
    for status, frame in zip(statuses, expected, strict=True):
        values = values_of(status, "depth")
        assert status.header.stamp == images[expected.index(frame)].header.stamp
        assert int(values["event_count"]) == frame.event_count
        assert int(values["state_age"]) == frame.state_age
        assert int(values["window_end_ns"]) - int(values["window_start_ns"]) == 50_000_000
        assert values["sha256"] == frame.digest
        assert (values["kind"], values["orientation"]) == ("relative", "unknown")
        assert values["weight_version"] == "0"


def test_event_arrays_of_dvs_msgs_become_depth_images(graph, depth, camera):
    """A topic of dvs_msgs/EventArray is found by its type and read from its raw bytes."""
    images = graph.listen(Image, "depth/relative")
    start(graph, depth)
    publisher = connect(graph, EventArray)
    arrays = []
    for _ in range(40):
        events = camera.events()
        arrays.append(write_event_array(events, 48, 64, int(events.t[-1]), "dvs"))
    expected = offline([read_packet("dvs_msgs/msg/EventArray", data) for data in arrays])
    for data in arrays:
        publisher.publish(data)
    graph.until(lambda: len(images) >= len(expected) > 0)
    check_images(images, expected)


def test_metres_need_a_scale_and_an_orientation(graph, depth, camera):
    """With scale, shift and orientation the node publishes depth/image in metres."""
    images = graph.listen(Image, "depth/image")
    options = {"orientation": "depth", "scale": 2.0, "shift": 3.0}
    start(graph, depth, **options)
    assert "/depth/relative" not in dict(graph.peer.get_topic_names_and_types())
    publisher = connect(graph)
    packets = [camera.packet() for _ in range(40)]
    expected = offline(packets, **options)
    assert expected[0].kind == "metric"
    for packet in packets:
        publisher.publish(write_packet(packet))
    graph.until(lambda: len(images) >= len(expected) > 0)
    check_images(images, expected)


def test_frame_windows_end_at_the_camera_frames(graph, depth, camera):
    """With window: frame each image's stamp ends a window, and depth carries that stamp."""
    images = graph.listen(Image, "depth/relative")
    frames = graph.publisher(Image, "image")
    start(graph, depth, window="frame", stamp_clock="sensor")
    publisher = graph.publisher(EventArray, "events")
    graph.until(lambda: publisher.get_subscription_count() == frames.get_subscription_count() == 1)
    stamps = [1_100_000_000, 1_130_000_000]
    for index in range(40):
        events = camera.events()
        publisher.publish(write_event_array(events, 48, 64, int(events.t[-1]), "dvs"))
        graph.spin(0.002)
        if index in (19, 25):
            stamp = stamps[index == 25]
            message = Image(height=48, width=64, encoding="mono8", step=64, data=bytes(48 * 64))
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            frames.publish(message)
            graph.spin(0.02)
    graph.until(lambda: len(images) >= 2)
    assert [stamp_ns(message) for message in images] == stamps


def test_a_sensor_of_1280_x_720_publishes_its_depth_reliably(graph, depth):
    """Depth images of 3.7 MB arrive, every one."""
    images = graph.listen(Image, "depth/relative")
    start(graph, depth, overload="queue")
    publisher = connect(graph)
    encoder = create_encoder("evt3", 1280, 720)
    count = 4000
    t = np.linspace(1_000_000, 1_160_000, count).astype(np.int64) * 1000
    events = Events(
        t,
        (np.arange(count) * 7 % 1280).astype(np.uint16),
        (np.arange(count) * 3 % 720).astype(np.uint16),
        np.ones(count, np.uint8),
    )
    payload, _ = encoder.encode(events)
    packet = Packet("evt3", 720, 1280, payload, 0, 10**18, 1)
    publisher.publish(write_packet(packet))
    publisher.publish(write_packet(dataclasses.replace(packet, payload=b"", seq=2)))
    expected = offline([packet])
    assert len(expected) == 3
    assert expected[0].depth.nbytes == 3_686_400
    graph.until(lambda: len(images) >= 3)
    check_images(images, expected)


def test_the_state_is_reset_on_request(graph, depth, camera):
    """~/reset_state answers, the next window begins a new state, and the cause is counted."""
    statuses = graph.listen(DiagnosticArray, "depth/status")
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    start(graph, depth)
    publisher = connect(graph)
    packets = [camera.packet() for _ in range(30)]
    for packet in packets:
        publisher.publish(write_packet(packet))
    before = len(offline(packets))
    graph.until(lambda: len(statuses) >= before)
    client = graph.peer.create_client(Trigger, "/depth/reset_state")
    assert graph.call(client, Trigger.Request()).success
    for _ in range(20):
        publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: len(statuses) > before)
    assert values_of(statuses[before], "depth")["state_age"] == "1"
    graph.until(
        lambda: any(
            "reset.service" in values_of(item, ": windows")
            for item in reports
            if any(s.name.endswith(": windows") for s in item.status)
        )
    )


def test_a_clock_that_jumps_backward_resets_the_state(graph, depth):
    """With simulated time a jump back on /clock is counted as reset.clock_jump."""
    clock = graph.publisher(Clock, "/clock")
    node = start(graph, depth, use_sim_time=True)
    graph.until(lambda: clock.get_subscription_count() >= 1)

    def publish(seconds):
        message = Clock()
        message.clock.sec = seconds
        clock.publish(message)
        graph.until(lambda: node.get_clock().now().nanoseconds == seconds * 10**9)

    publish(100)
    publish(50)
    graph.until(lambda: node._worker.snapshot.pipeline.resets.get("clock_jump") == 1)


def test_parameters_change_at_run_time_and_bad_ones_are_refused(graph, depth, camera):
    """A scale and an orientation turn the output to metres; a bad range is refused."""
    images = graph.listen(Image, "depth/image")
    node = start(graph, depth, orientation="depth")
    publisher = connect(graph)
    refused = node.set_parameters([Parameter("color_near_m", value=25.0)])[0]
    assert not refused.successful
    assert "must be below 'color_far_m'" in refused.reason
    refused = node.set_parameters([Parameter("window_s", value=0.1)])[0]
    assert "'window_s' is read when the node is configured" in refused.reason
    assert node.set_parameters([Parameter("scale", value=1.0)])[0].successful
    packets = [camera.packet() for _ in range(40)]
    for packet in packets:
        publisher.publish(write_packet(packet))
    expected = offline(packets, orientation="depth", scale=1.0)
    graph.until(lambda: len(images) >= len(expected) > 0)
    check_images(images, expected)


def test_after_a_change_of_scale_the_other_topic_is_gone(graph, depth, camera):
    """Metres, the network's number and back: one topic each time, once nothing is on its way."""
    node = start(graph, depth, overload="queue", orientation="depth")
    publisher = connect(graph)
    topics = ("depth/relative", "depth/image")

    def there():
        return tuple(topic for topic in topics if node.count_publishers(topic))

    def more(images):
        publisher.publish(write_packet(camera.packet()))
        return images

    for scale, topic in ((0.0, topics[0]), (1.0, topics[1]), (0.0, topics[0]), (2.0, topics[1])):
        assert node.set_parameters([Parameter("scale", value=scale)])[0].successful
        images = graph.listen(Image, topic)
        graph.until(lambda found=images: more(found))
        graph.until(lambda wanted=topic: there() == (wanted,), 20.0)


def test_a_scale_that_changes_and_changes_back_at_once_costs_no_depth(graph, depth, camera):
    """Packets between the two changes still find the topic of their kind."""
    node = start(graph, depth, overload="queue", orientation="depth")
    publisher = connect(graph)
    images = graph.listen(Image, "depth/relative")
    for _ in range(5):
        for scale in (1.0, 0.0):
            assert node.set_parameters([Parameter("scale", value=scale)])[0].successful
            for _ in range(20):
                publisher.publish(write_packet(camera.packet()))
            graph.spin(0.05)
    graph.until(lambda: len(images) >= 5)
    assert node._fault is None
    graph.until(lambda: not node.count_publishers("depth/image"), 20.0)


def test_missing_weights_leave_the_node_unconfigured_with_the_sentence(graph, depth, capfd):
    """Without weights, and with a file that is not there, configuring fails and says so."""
    node = depth(weights="")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "no weights: set 'weights'" in capfd.readouterr().err
    assert node.set_parameters([Parameter("weights", value="/nowhere/vits.pth")])[0].successful
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "/nowhere/vits.pth" in capfd.readouterr().err
    assert not any(t.name == "depth_worker" for t in threading.enumerate())
    node.set_parameters([Parameter("weights", value="untrained:tiny")])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert "untrained:tiny: the network is untrained" in capfd.readouterr().err


def test_diagnostics_report_rates_latencies_weights_and_the_clock(graph, depth, camera):
    """Once a second /diagnostics names what a maintainer asks for first."""
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    start(graph, depth)
    publisher = connect(graph)
    for _ in range(60):
        publisher.publish(write_packet(camera.packet()))
        graph.spin(0.005)

    def complete():
        return (
            reports
            and any(s.name.endswith(": windows") for s in reports[-1].status)
            and ("total_p95_ms" in values_of(reports[-1], ": windows"))
            and (values_of(reports[-1], ": events")["events"] == str(60 * 200))
        )

    graph.until(complete)
    events = values_of(reports[-1], ": events")
    assert events["messages"] == "60"
    assert events["type"] == "event_camera_msgs/msg/EventPacket"
    assert events["events"] == str(60 * 200)
    assert events["reliability"] == "reliable"
    assert float(events["clock_offset_ms"]) == pytest.approx(1.7e12, rel=1e-6)
    windows = values_of(reports[-1], ": windows")
    for stage in (*STAGES, "total"):
        quantiles = [float(windows[f"{stage}_{name}_ms"]) for name in ("p50", "p95", "p99", "max")]
        assert quantiles == sorted(quantiles) and quantiles[0] > 0.0, stage
    assert float(windows["total_max_ms"]) >= float(windows["infer_max_ms"])
    assert {"messages_per_s", "mega_events_per_s", "inbox_bytes", "clock_jitter_ms"} <= set(events)
    network = values_of(reports[-1], ": network")
    assert network["weights"] == "untrained:tiny"
    assert len(network["sha256"]) == 64
    assert network["backend"] == "torch" and "'backend' says so" in network["backend_reason"]
    level = {s.name.split(": ")[1]: s.level for s in reports[-1].status}
    assert level["network"] == b"\x01", "an unknown orientation is a warning"
