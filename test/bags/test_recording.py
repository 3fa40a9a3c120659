"""Reading recordings: what is delivered is what was written."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dae_ros.bags.calibration import read_calibration, recorded_calibration
from dae_ros.bags.images import depth_image, grey_image
from dae_ros.bags.message_types import CAMERA_INFO
from dae_ros.bags.messages import CameraInfo, read_camera_info, read_depth, write_camera_info
from dae_ros.bags.recording import open_recording
from dae_ros.bags.topics import (
    choose_camera_info_topic,
    choose_events_topic,
    choose_image_topic,
)
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import RecordingError
from dae_ros.events.codecs import create_decoder
from test.reference.mvsec_bag import HEIGHT, PACKET_NS, WIDTH, write_data_bag, write_truth_bag


def decoded(recording, topic=None, start_ns=None):
    """All events of a recording as rows t, x, y, p."""
    decoder, rows = None, []
    for packet in recording.event_packets(topic, start_ns):
        decoder = decoder or create_decoder(packet.encoding, packet.width, packet.height)
        for part in decoder.decode_packet(packet.payload, packet.time_base_ns).segments:
            rows += zip(
                part.t.tolist(), part.x.tolist(), part.y.tolist(), part.p.tolist(), strict=True
            )
    return rows


@pytest.mark.parametrize("compression", [None, "BZ2", "LZ4"])
def test_a_ros1_bag_gives_back_every_event_to_the_nanosecond(tmp_path, compression):
    """Every event of an MVSEC-like bag comes out as it went in, in order."""
    written = write_data_bag(tmp_path / "data.bag", compression=compression)
    with open_recording(tmp_path / "data.bag") as recording:
        assert decoded(recording) == written.all_events
        topic = recording.topics["/davis/left/events"]
        assert (topic.type, topic.count) == ("dvs_msgs/msg/EventArray", 30)
        times = [message.time_ns for message in recording.messages(["/davis/left/events"])]
        assert times == written.event_times_ns


def test_mvsec_topics_are_known_by_name(tmp_path):
    """Among two cameras the left one is taken, with the frames and calibration beside it."""
    write_data_bag(tmp_path / "data.bag")
    with open_recording(tmp_path / "data.bag") as recording:
        topics = recording.topics
        assert choose_events_topic(topics, None) == "/davis/left/events"
        assert choose_image_topic(topics, "/davis/left/events") == "/davis/left/image_raw"
        info = choose_camera_info_topic(topics, "/davis/left/events")
        assert info == "/davis/left/camera_info"
        camera = read_camera_info(recording.to_cdr(recording.first(info)))
    assert (camera.height, camera.width, camera.distortion_model) == (HEIGHT, WIDTH, "equidistant")
    assert camera.k == (22.0, 0, 17, 0, 22.5, 13, 0, 0, 1)
    assert camera.d == (0.1, 0.2, 0.3, 0.4)
    assert camera.frame_id == "cam"


def test_frames_are_delivered_with_their_stamps(tmp_path):
    """Grey frames keep their pixels and header stamps."""
    written = write_data_bag(tmp_path / "data.bag")
    with open_recording(tmp_path / "data.bag") as recording:
        frames = list(recording.frames())
    assert [frame.stamp_ns for frame in frames] == [stamp for stamp, _ in written.frames]
    for frame, (_, picture) in zip(frames, written.frames, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
        assert (frame.frame_id, frame.exposure_ns) == ("cam", 0)


def test_two_bags_are_read_as_one_by_record_time(tmp_path):
    """Data and ground truth come merged in the order of their record times."""
    write_data_bag(tmp_path / "data.bag")
    truth = write_truth_bag(tmp_path / "gt.bag")
    with open_recording([tmp_path / "data.bag", tmp_path / "gt.bag"]) as recording:
        messages = list(recording.messages())
        times = [message.time_ns for message in messages]
        assert times == sorted(times)
        assert len(messages) == sum(info.count for info in recording.topics.values())
        depths = [
            read_depth(recording.to_cdr(message))
            for message in messages
            if message.topic == "/davis/left/depth_image_raw"
        ]
        # Depth images are no camera frames.
        assert choose_image_topic(recording.topics, "/davis/left/events").endswith("image_raw")
    for depth, (stamp_ns, expected) in zip(depths, truth.depths, strict=True):
        assert depth.stamp_ns == stamp_ns
        np.testing.assert_array_equal(depth.depth, expected)


def test_a_start_time_skips_what_was_recorded_before(tmp_path):
    """Reading from a time on gives exactly the messages recorded then or later."""
    written = write_data_bag(tmp_path / "data.bag")
    with open_recording(tmp_path / "data.bag") as recording:
        start_ns = recording.start_ns + 10 * PACKET_NS
        times = [m.time_ns for m in recording.messages(["/davis/left/events"], start_ns)]
    assert times == [time_ns for time_ns in written.event_times_ns if time_ns >= start_ns]


def test_a_missing_topic_is_answered_with_what_is_there(tmp_path):
    """The error for an absent topic lists the topics with types; so do wrong types."""
    write_data_bag(tmp_path / "data.bag")
    write_truth_bag(tmp_path / "gt.bag")
    with open_recording(tmp_path / "data.bag") as recording:
        for reading in (
            lambda: list(recording.messages(["/nope"])),
            lambda: list(recording.event_packets("/nope")),
        ):
            with pytest.raises(RecordingError, match=r"no topic /nope.*msg/EventArray, 30"):
                reading()
        with pytest.raises(RecordingError, match="no events"):
            list(recording.event_packets("/davis/left/image_raw"))
    with (
        open_recording(tmp_path / "gt.bag") as recording,
        pytest.raises(RecordingError, match=r"no events topic; it has /davis/left/depth_image_raw"),
    ):
        list(recording.event_packets())


def test_what_is_no_recording_is_refused_with_a_reason(tmp_path):
    """Missing, empty and foreign files and folders each get their own sentence."""
    (tmp_path / "empty.bag").touch()
    (tmp_path / "text.mcap").write_text("not a recording")
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("missing.bag", "No such file"),
        ("empty.bag", "is empty"),
        ("text.mcap", "no known format"),
        ("folder", "neither a rosbag2 folder nor .* and no recording lies in it"),
    ):
        with pytest.raises(RecordingError, match=reason):
            open_recording(tmp_path / name)


def test_a_folder_of_recordings_names_them(tmp_path):
    """Files are listed by what they begin with and folders by what is in them; nothing else is."""
    write_data_bag(tmp_path / "b.bag")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metadata.yaml").touch()
    (tmp_path / "dsec" / "events" / "left").mkdir(parents=True)
    (tmp_path / "dsec" / "events" / "left" / "events.h5").touch()
    (tmp_path / "c.raw").write_bytes(b"% evt 3.0\n")
    (tmp_path / "notes.tex").write_text("% evt 3.0 is a format")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    with pytest.raises(RecordingError, match="is no recording, but holds recordings") as caught:
        open_recording(tmp_path)
    assert caught.value.data["found"] == ["a", "b.bag", "c.raw", "dsec"]
    assert "(a, b.bag, c.raw, dsec)" in caught.value.message
    for number in range(6):
        (tmp_path / f"z{number}.raw").write_bytes(b"% evt 3.0\n")
    with pytest.raises(RecordingError, match=r"z0\.raw, .* and 2 more\)"):
        open_recording(tmp_path)


def test_image_encodings_become_grey():
    """Each supported encoding gives the grey value that its definition says."""

    def grey(values, encoding, step=None, big_endian=False):
        data = np.ascontiguousarray(values)
        step = step or data.strides[0]
        return grey_image(
            data.reshape(-1).view(np.uint8),
            data.shape[0],
            data.shape[1],
            encoding,
            step,
            big_endian,
        )

    mono = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(grey(mono, "mono8"), mono)
    left_justified = (mono.astype(np.uint16) << 8) | 0x5A
    np.testing.assert_array_equal(grey(left_justified, "mono16"), mono)
    np.testing.assert_array_equal(
        grey(left_justified.astype(">u2"), "mono16", big_endian=True), mono
    )
    # ITU-R BT.601 weights of a pure red picture, whichever way it is stored.
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 200
    expected = round(0.299 * 200)
    assert abs(int(grey(red, "rgb8").max()) - expected) <= 1
    assert abs(int(grey(np.ascontiguousarray(red[..., ::-1]), "bgr8").min()) - expected) <= 1
    assert abs(int(grey(red.astype(np.uint16) << 8, "rgb16").max()) - expected) <= 1
    # A Bayer mosaic that sees pure red: red pixels at the place that the pattern names.
    for pattern, (row, column) in {
        "rggb": (0, 0),
        "grbg": (0, 1),
        "gbrg": (1, 0),
        "bggr": (1, 1),
    }.items():
        mosaic = np.zeros((8, 8), np.uint8)
        mosaic[row::2, column::2] = 200
        middle = grey(mosaic, f"bayer_{pattern}8")[2:-2, 2:-2]
        assert abs(float(middle.mean()) - expected) <= 2, pattern
    # Rows may be padded.
    padded = np.zeros((4, 10), np.uint8)
    padded[:, :6] = mono
    np.testing.assert_array_equal(grey_image(padded.reshape(-1), 4, 6, "mono8", 10, False), mono)


def test_images_that_contradict_themselves_are_refused():
    """Too few bytes, an unknown encoding and depth as a frame are errors, not pictures."""
    data = np.zeros(20, np.uint8)
    for encoding, step, reason in (
        ("mono8", 6, "damaged"),
        ("mono8", 3, "damaged"),
        ("yuv422", 12, "cannot be read"),
        ("32FC1", 4, "damaged"),
    ):
        with pytest.raises(RecordingError, match=reason):
            grey_image(data, 4, 6, encoding, step, False)
    millimetres = np.array([[1500, 0]], np.uint16)
    metres = depth_image(millimetres.reshape(-1).view(np.uint8), 1, 2, "16UC1", 4, False)
    np.testing.assert_array_equal(metres, np.array([[1.5, np.nan]], np.float32))


def test_a_kalibr_chain_gives_the_calibration_of_the_events_camera(tmp_path):
    """The camera in the namespace of the events is taken, cam0 where none is named."""
    path = tmp_path / "camchain.yaml"
    camera = """cam{n}:
  camera_model: pinhole
  intrinsics: [{f}, {f}, 170.7, 128.1]
  distortion_model: equidistant
  distortion_coeffs: [-0.03, 0.01, -0.02, 0.005]
  resolution: [346, 260]
  rostopic: /davis/{side}/image_raw
"""
    path.write_text(
        camera.format(n=0, f=226.3, side="left") + camera.format(n=1, f=225.7, side="right")
    )
    left = read_calibration(path, "/davis/left/events")
    assert (left.height, left.width, left.distortion_model) == (260, 346, "equidistant")
    assert left.k == (226.3, 0, 170.7, 0, 226.3, 128.1, 0, 0, 1)
    assert left.d == (-0.03, 0.01, -0.02, 0.005)
    assert read_calibration(path, "/davis/right/events").k[0] == 225.7
    assert read_calibration(path, "/events").k[0] == 226.3
    path.write_text("cam0: {intrinsics: [1, 2]}")
    with pytest.raises(RecordingError, match=r"no readable calibration .*: neither a Kalibr"):
        read_calibration(path, "/events")


def test_a_file_of_camera_calibration_is_the_message_that_drivers_make_of_it(tmp_path):
    """camera_info as YAML, which camera drivers load: every number is taken as it stands."""
    path = tmp_path / "event_camera.yaml"
    text = """image_width: 640
image_height: 480
camera_name: event_camera
camera_matrix: {rows: 3, cols: 3, data: [500.5, 0, 320, 0, 501.5, 240, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [490, 0, 321, 0, 0, 491, 241, 0, 0, 0, 1, 0]}
"""
    path.write_text(text)
    camera = read_calibration(path, "/event_camera/events")
    assert (camera.width, camera.height, camera.distortion_model) == (640, 480, "plumb_bob")
    assert camera.d == (0.1, -0.2, 0.001, 0.002, 0)
    assert camera.k == (500.5, 0, 320, 0, 501.5, 240, 0, 0, 1)
    assert camera.r == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert camera.p == (490, 0, 321, 0, 0, 491, 241, 0, 0, 0, 1, 0)
    path.write_text(text.replace("241, 0, 0, 0, 1, 0]", "241]"))
    with pytest.raises(RecordingError, match="projection_matrix has 7 numbers, not 12"):
        read_calibration(path, "/event_camera/events")


@pytest.mark.parametrize("known", [True, False], ids=["index", "unindexed"])
def test_an_offset_past_the_end_says_how_long_the_recording_is(tmp_path, known):
    """The record time of an offset counts from the beginning; past the end it is refused."""
    written = write_data_bag(tmp_path / "data.bag", arrays=10)
    events = "/davis/left/events"
    with open_recording(tmp_path / "data.bag") as recording:
        if not known:
            # As in .aedat4 and .raw, where only reading tells.
            recording.start_ns = recording.end_ns = None
        begin_ns = recording.start_ns or written.event_times_ns[0]
        assert recording.record_time_at(0.0, [events]) == begin_ns
        assert recording.record_time_at(0.05, [events]) == begin_ns + 50_000_000
        length_s = (written.event_times_ns[-1] - begin_ns) / 1e9
        with pytest.raises(RecordingError, match=rf"start at 100 s.*after {length_s:.3f} s"):
            recording.record_time_at(100.0, [events])


def test_the_first_calibration_that_can_be_read_is_taken(tmp_path):
    """A damaged camera_info is named and passed over; the next whole one counts."""
    whole = write_camera_info(CameraInfo(4, 6, "plumb_bob"), 5, "camera")
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/camera_info", CAMERA_INFO, 1, whole[:40])
        bag.write("/camera_info", CAMERA_INFO, 2, whole)
    notes = []
    with open_recording(tmp_path / "bag") as recording:
        found = recorded_calibration(recording, "/camera_info", notes.append)
    assert (found.height, found.width, found.distortion_model) == (4, 6, "plumb_bob")
    assert len(notes) == 1
    assert "/camera_info" in notes[0]
