"""What accompanies depth: calibration, colours, and the picture of the events, by their stamps."""

from __future__ import annotations

import threading

import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket as Packet
from dae_ros.events.packet import Events
from dae_ros.nodes.taker import Taker
from dae_ros.representation.render import METRES, depth_color, events_image
from test.nodes.conftest import TIMEOUT_S
from test.reference.depth_node_runs import connect, offline, stamp_ns, start
from test.reference.packed_tencode import packed_tencode


def test_camera_info_accompanies_depth_scaled_and_with_its_stamp(graph, depth, camera):
    """A calibration of twice the size is published at the depth's size, with the same header."""
    images = graph.listen(Image, "depth/relative")
    infos = graph.listen(CameraInfo, "depth/camera_info")
    calibration = graph.publisher(CameraInfo, "camera_info")
    node = start(graph, depth)
    graph.until(lambda: calibration.get_subscription_count() == 1)
    message = CameraInfo(
        height=96, width=128, distortion_model="equidistant", d=[0.1, 0.2, 0.3, 0.4]
    )
    message.k = [100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]
    calibration.publish(message)
    graph.until(lambda: node._calibration._camera is not None)
    publisher = connect(graph)
    for _ in range(30):
        publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: images and infos)
    assert infos[0].header == images[0].header
    assert (infos[0].height, infos[0].width) == (48, 64)
    assert infos[0].distortion_model == "equidistant"
    np.testing.assert_allclose(infos[0].k, [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1])


def test_a_calibration_that_came_before_events_goes_with_the_first_depth(
    graph, depth, camera, monkeypatch
):
    """However late its thread gets a turn: here it has none before depth is out."""
    out = threading.Event()
    turn = Taker._turn

    def late(taker):
        if taker._subscription.topic_name == "/camera_info":
            out.wait(TIMEOUT_S)
        turn(taker)

    monkeypatch.setattr(Taker, "_turn", late)
    infos = graph.listen(CameraInfo, "depth/camera_info")
    calibration = graph.publisher(CameraInfo, "camera_info")
    start(graph, depth)
    publisher = connect(graph)
    graph.until(lambda: calibration.get_subscription_count() == 1)
    calibration.publish(CameraInfo(height=48, width=64, k=[45.0, *[0.0] * 7, 1.0]))
    for _ in range(30):
        publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: infos)
    out.set()
    assert infos[0].k[0] == 45.0


def test_a_calibration_of_another_shape_is_refused(graph, depth, camera, capfd):
    """A camera_info whose sides have another ratio is not this camera's: ours is all zero."""
    images = graph.listen(Image, "depth/relative")
    infos = graph.listen(CameraInfo, "depth/camera_info")
    calibration = graph.publisher(CameraInfo, "camera_info")
    node = start(graph, depth)
    graph.until(lambda: calibration.get_subscription_count() == 1)
    calibration.publish(CameraInfo(height=480, width=480))
    graph.until(lambda: node._calibration._camera is not None)
    publisher = connect(graph)
    for _ in range(40):
        publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: len(images) >= 2 and len(infos) >= 2)
    assert (infos[0].height, infos[0].width) == (48, 64)
    assert not np.any(infos[0].k)
    assert "480x480 px and cannot be of the event camera of 64x48 px" in capfd.readouterr().err


def test_pictures_are_published_only_while_somebody_looks(graph, depth, camera):
    """depth/color and events/image appear with their subscribers and show this window."""
    images = graph.listen(Image, "depth/relative")
    node = start(graph, depth)
    publisher = connect(graph)
    drawn = []
    original = node._outputs._colored
    node._outputs._colored = lambda frame: drawn.append(frame.index) or original(frame)
    packets = [camera.packet() for _ in range(30)]
    for packet in packets:
        publisher.publish(write_packet(packet))
    graph.until(lambda: len(images) >= 1)
    assert drawn == []
    colors, events = graph.listen(Image, "depth/color"), graph.listen(Image, "events/image")
    graph.until(
        lambda: (
            node._outputs._color.get_subscription_count() == 1
            and node._outputs._events.get_subscription_count() == 1
        )
    )
    more = [camera.packet() for _ in range(20)]
    for packet in more:
        publisher.publish(write_packet(packet))
    graph.until(lambda: colors and events)
    assert (colors[0].encoding, colors[0].height, colors[0].width) == ("rgb8", 48, 64)
    frame = next(item for item in offline(packets + more) if item.stamp_ns == stamp_ns(events[0]))
    shown = np.frombuffer(events[0].data, np.uint8).reshape(48, 64, 3)
    np.testing.assert_array_equal(shown, events_image(frame.image))


def test_the_colours_follow_their_range_at_run_time(graph, depth, camera):
    """What `ros2 param set /depth color_far_m 2.0` calls: the next pictures have the new range."""
    images, colors = graph.listen(Image, "depth/image"), graph.listen(Image, "depth/color")
    node = start(graph, depth, orientation="depth", scale=1.0, shift=1.0)
    publisher = connect(graph)
    graph.until(lambda: node._outputs._color.get_subscription_count() == 1)

    def picture():
        images.clear()
        colors.clear()
        for _ in range(40):
            publisher.publish(write_packet(camera.packet()))
        graph.until(lambda: images and colors)
        metres = np.frombuffer(images[0].data, np.float32).reshape(48, 64)
        assert stamp_ns(images[0]) == stamp_ns(colors[0])
        return metres, np.frombuffer(colors[0].data, np.uint8).reshape(48, 64, 3)

    metres, before = picture()
    np.testing.assert_array_equal(before, depth_color(metres, 0.5, 20.0, METRES))
    request = SetParameters.Request(
        parameters=[Parameter("color_far_m", value=2.0).to_parameter_msg()]
    )
    service = graph.peer.create_client(SetParameters, "/depth/set_parameters")
    assert graph.call(service, request).results[0].successful
    graph.spin(0.5)
    metres, after = picture()
    np.testing.assert_array_equal(after, depth_color(metres, 0.5, 2.0, METRES))
    assert np.ptp(after.astype(int)) > 0


def test_a_window_shows_the_events_that_were_sent(graph, depth, camera):
    """events/image is the Tencode of exactly the events inside of the window."""
    events_images = graph.listen(Image, "events/image")
    start(graph, depth, stamp_clock="sensor")
    publisher = connect(graph)
    sent = []
    for _ in range(30):
        events = camera.events()
        sent.append(events)
        payload, base_ns = camera.encoder.encode(events)
        publisher.publish(
            write_packet(
                Packet("evt3", 48, 64, payload, base_ns, 10**18 + camera.time_us * 1000, len(sent))
            )
        )
    graph.until(lambda: events_images)
    end_ns = stamp_ns(events_images[0])
    every = Events.concatenate(sent)
    start_at, stop_at = np.searchsorted(every.t, [end_ns - 50_000_000, end_ns])
    expected = events_image(packed_tencode(every.slice(int(start_at), int(stop_at)), 48, 64))
    shown = np.frombuffer(events_images[0].data, np.uint8).reshape(48, 64, 3)
    np.testing.assert_array_equal(shown, expected)
