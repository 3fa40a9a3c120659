"""Labelled recordings with breaks, silences and damage: what is left out is counted."""

from __future__ import annotations

import numpy as np
from rosbags.rosbag1 import Writer

from dae_ros.bags.labelled import open_labelled
from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.bags.messages import write_image
from dae_ros.bags.writer import BagWriter
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket, Events
from dae_ros.simulation.encoders import create_encoder
from test.reference import mvsec_bag

MS = 1_000_000


def test_labels_in_a_silence_and_after_the_end_are_counted(tmp_path):
    """Maps for which no events come are skipped by reason, and do not pile up."""
    with Writer(tmp_path / "quiet.bag") as writer:
        store = mvsec_bag.ROS1
        events = writer.add_connection(
            "/davis/left/events", "dvs_msgs/msg/EventArray", typestore=store
        )
        depth = writer.add_connection(
            "/davis/left/depth_image_raw", "sensor_msgs/msg/Image", typestore=store
        )
        start = mvsec_bag.START_NS // 1000 * 1000
        image = np.ones((mvsec_bag.HEIGHT, mvsec_bag.WIDTH), np.float32)
        for k in range(0, 6000, 100):
            t = start + k * MS
            writer.write(depth, t, mvsec_bag.image_bytes(image, t, "32FC1"))
            if k < 300 or 4000 <= k < 4300:
                data = mvsec_bag.event_array_bytes([(t + 1, 1, 1, 1), (t + 99 * MS, 2, 2, 0)], k, t)
                writer.write(events, t + 99 * MS, data)
    with open_labelled(tmp_path / "quiet.bag") as sequence:
        windows = list(sequence)
        skipped = dict(sequence.skipped)
    ends_ms = [(window.end_ns - start) // MS for window in windows]
    restarts = [(window.end_ns - start) // MS for window in windows if window.restarts]
    assert [len(window.events) for window in windows] == [1] * 3 + [0] * 9 + [1] * 3
    # Events end at 299 ms; for one more second windows are empty, as in the pipeline.
    assert ends_ms == [*range(100, 1300, 100), 4100, 4200, 4300]
    assert restarts == [100, 4100]
    # 1300 to 4000, then from 5300 on; a start in the silence is no window, 4400 to 5200 are over.
    assert skipped == {"before_events": 1, "in_silence": 28 + 7, "after_events": 9}


def test_breaks_restart_the_state_and_repeated_labels_are_skipped(tmp_path):
    """After lost packets and after time ran back a window restarts; a stamp counts once."""
    encoder = create_encoder("mono", 64, 48)
    seq = 0
    with BagWriter(tmp_path / "breaks") as bag:
        bag.add_topic("/events", EVENT_PACKET)
        bag.add_topic("/depth_truth", IMAGE)
        record_ns = 0
        # A healthy stretch, one after a loss of 300 ms, one that begins again at the start.
        for begin_ms, lost in ((1000, 0), (1600, 7), (1000, 0)):
            seq += lost
            for ms in range(begin_ms, begin_ms + 300, 10):
                t = np.arange(10, dtype=np.int64) * MS + ms * MS
                x = np.zeros(10, np.uint16)
                payload, base_ns = encoder.encode(Events(t, x, x.copy(), np.ones(10, np.uint8)))
                packet = EventPacket("mono", 48, 64, payload, base_ns, int(t[-1]), seq)
                bag.write("/events", EVENT_PACKET, record_ns, write_packet(packet))
                seq, record_ns = seq + 1, record_ns + 10 * MS
                if ms % 100 == 80:
                    image = write_image(np.ones((48, 64), np.float32), ms * MS, "")
                    bag.write("/depth_truth", IMAGE, record_ns, image)
                    bag.write("/depth_truth", IMAGE, record_ns + 1, image)
            if lost:
                # Its events never come; those of the next stretch must not wait behind it.
                image = write_image(np.ones((48, 64), np.float32), 1950 * MS, "")
                bag.write("/depth_truth", IMAGE, record_ns - 1, image)
    with open_labelled(tmp_path / "breaks") as sequence:
        restarts = [(window.end_ns // MS, window.restarts) for window in sequence]
        assert sequence.skipped == {"not_newer": 9, "after_events": 1}
    first = [(1080, True), (1180, False), (1280, False)]
    assert restarts == [*first, (1680, True), (1780, False), (1880, False), *first]


def test_a_frame_that_cannot_be_read_costs_itself_alone(tmp_path):
    """Its window keeps events and true depth, has no frame, and the frame is counted once."""
    with BagWriter(tmp_path / "frames") as bag:
        for topic, kind in (("events", EVENT_PACKET), ("depth_truth", IMAGE), ("image_raw", IMAGE)):
            bag.add_topic(f"/davis/{topic}", kind)
        encoder = create_encoder("mono", 64, 48)
        for k in range(12):
            t = (np.arange(10, dtype=np.int64) + 1000 + 10 * k) * MS
            x = np.zeros(10, np.uint16)
            payload, base_ns = encoder.encode(Events(t, x, x.copy(), np.ones(10, np.uint8)))
            stamp_ns = int(t[-1])
            packet = EventPacket("mono", 48, 64, payload, base_ns, stamp_ns, k)
            bag.write("/davis/events", EVENT_PACKET, stamp_ns, write_packet(packet))
            if k in (4, 7, 9):
                grey = write_image(np.full((48, 64), 7, np.uint8), stamp_ns, "")
                frame = {4: grey, 7: grey.replace(b"mono8", b"mono9"), 9: grey[:10]}[k]
                bag.write("/davis/image_raw", IMAGE, stamp_ns, frame)
            depth = write_image(np.full((48, 64), 2.0, np.float32), stamp_ns, "")
            bag.write("/davis/depth_truth", IMAGE, stamp_ns, depth)
    with open_labelled(tmp_path / "frames") as sequence:
        windows = list(sequence)
        skipped = dict(sequence.skipped)
    assert [window.frame is None for window in windows] == [False] * 2 + [True] * 5
    assert all((window.depth == 2.0).all() and len(window.events) == 50 for window in windows)
    assert skipped == {"before_events": 5, "unreadable_frames": 2}


def test_damaged_messages_are_counted_and_passed_over(tmp_path):
    """A damaged event array and an image that is no depth cost themselves alone."""
    with Writer(tmp_path / "damaged.bag") as writer:
        store = mvsec_bag.ROS1
        events = writer.add_connection(
            "/davis/left/events", "dvs_msgs/msg/EventArray", typestore=store
        )
        depth = writer.add_connection(
            "/davis/left/depth_image_raw", "sensor_msgs/msg/Image", typestore=store
        )
        metres = np.ones((mvsec_bag.HEIGHT, mvsec_bag.WIDTH), np.float32)
        for k in range(0, 500, 50):
            t = mvsec_bag.START_NS // 1000 * 1000 + k * MS
            data = mvsec_bag.event_array_bytes([(t + 1, 1, 1, 1), (t + 49 * MS, 2, 2, 0)], k, t)
            writer.write(events, t + 49 * MS, data[:-5] if k == 200 else data)
            picture = metres.astype(np.uint8) if k == 300 else metres
            encoding = "mono8" if k == 300 else "32FC1"
            writer.write(depth, t, mvsec_bag.image_bytes(picture, t, encoding))
    with open_labelled(tmp_path / "damaged.bag") as sequence:
        counts = [len(window.events) for window in sequence]
        skipped = dict(sequence.skipped)
    # Windows end at 100, 150, 200, 250 (without the array of 200), 350, 400 and 450 ms.
    assert counts == [2, 2, 2, 0, 2, 2, 2]
    assert skipped == {"before_events": 2, "unreadable_events": 1, "unreadable": 1}
