"""Damaged recordings: everything before the cut is delivered, then an error says where it was."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from dae_ros.bags.message_types import EVENT_PACKET, known_types
from dae_ros.bags.recording import open_recording
from dae_ros.errors import RecordingError
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket
from test.reference.mvsec_bag import PACKET_NS, START_NS, write_data_bag, write_truth_bag

COUNT = 40
SIZE = 40_000


def payload(number):
    """Bytes that occur once in a file."""
    return np.random.default_rng(number).integers(0, 256, SIZE, np.uint8).tobytes()


def write_bag2(path, storage, zstd=False):
    """A rosbag2 folder with COUNT packets on one topic; returns its storage file."""
    writer = Writer(path, version=8, storage_plugin=storage)
    if zstd:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        topic = writer.add_connection("/events", EVENT_PACKET, typestore=known_types())
        for number in range(COUNT):
            packet = EventPacket("mono", 4, 4, payload(number), 0, number, number)
            writer.write(topic, START_NS + number * PACKET_NS, write_packet(packet))
    return next(path.glob(f"{path.name}.*"))


def read_until_error(path, topics=("/events",)):
    """The messages that come out, and the error that ends them or that refuses the file."""
    messages = []
    try:
        with open_recording(path) as recording:
            messages.extend(recording.messages(topics))
    except RecordingError as error:
        return messages, error
    return messages, None


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("container", ["mcap", "mcap zstd", "sqlite3"])
def test_a_cut_rosbag2_delivers_what_lies_before_the_cut(tmp_path, container, part):
    """No message whose bytes are all there is lost, none is invented, and the cut is reported."""
    storage = StoragePlugin.SQLITE3 if container == "sqlite3" else StoragePlugin.MCAP
    whole = write_bag2(tmp_path / "bag", storage, "zstd" in container)
    data = whole.read_bytes()
    cut = int(len(data) * part)
    broken = tmp_path / f"broken{whole.suffix}"
    broken.write_bytes(data[:cut])
    messages, error = read_until_error(broken)
    if not messages and container == "sqlite3" and part < 0.3:
        # The first pages of a small database lie behind the cut.
        assert "nothing readable" in str(error)
        return
    assert "was cut" in str(error)
    assert f"{len(messages)} messages" in str(error)
    found = [bytes(message.data) for message in messages]
    expected = [write_packet(EventPacket("mono", 4, 4, payload(n), 0, n, n)) for n in range(COUNT)]
    assert found == expected[: len(found)]
    assert [m.time_ns for m in messages] == [START_NS + n * PACKET_NS for n in range(len(found))]
    if container == "mcap":
        complete = [n for n in range(COUNT) if 0 <= data.find(payload(n)) <= cut - SIZE]
        assert len(found) == len(complete)
    else:
        # A block of zstd and the message that was being written are in pieces.
        assert len(found) >= COUNT * part - 5


def test_a_cut_inside_a_page_of_a_database_alters_nothing(tmp_path):
    """Of a page that begins but does not end nothing is used, whatever the page holds."""
    data = write_bag2(tmp_path / "bag", StoragePlugin.SQLITE3).read_bytes()
    broken = tmp_path / "broken.db3"
    page = int.from_bytes(data[16:18], "big")
    # The last leaf of the table of messages (page type 13) that has rows; its bytes 5 and 6 say
    # where the cells begin. A cut there leaves the beginning of a row.
    leaf = max(
        start
        for start in range(page, len(data), page)
        if data[start] == 13 and data[start + 3 : start + 5] != b"\0\0"
    )
    cells = leaf + int.from_bytes(data[leaf + 5 : leaf + 7], "big")
    cuts = [*range(cells, cells + 40), *range(leaf + page // 4, len(data), page)]
    for cut in cuts:
        broken.write_bytes(data[:cut])
        messages, error = read_until_error(broken)
        assert len(messages) >= COUNT // 2
        assert [(m.time_ns, bytes(m.data)[-SIZE:]) for m in messages] == [
            (START_NS + n * PACKET_NS, payload(n)) for n in range(len(messages))
        ]
        assert "cut" in str(error)


@pytest.mark.parametrize("compression", [None, "BZ2", "LZ4"])
@pytest.mark.parametrize("part", [0.4, 0.9])
def test_a_cut_ros1_bag_delivers_what_lies_before_the_cut(tmp_path, compression, part):
    """Every message of whole records comes out, also from a chunk of which the end is missing."""
    written = write_data_bag(tmp_path / "bag.bag", compression=compression)
    data = (tmp_path / "bag.bag").read_bytes()
    cut = int(len(data) * part)
    (tmp_path / "cut.bag").write_bytes(data[:cut])
    topic = "/davis/left/events"
    with open_recording(tmp_path / "bag.bag") as recording:
        whole = [(m.time_ns, bytes(m.data)) for m in recording.messages([topic])]
    messages, error = read_until_error(tmp_path / "cut.bag", [topic])
    if not messages and compression is not None:
        # One block of a compressed chunk may be everything that there was.
        assert "nothing readable" in str(error)
        return
    assert "was cut" in str(error)
    found = [(m.time_ns, bytes(m.data)) for m in messages]
    assert found == whole[: len(found)]
    if compression is None:
        complete = [item for item in whole if 0 <= data.find(item[1]) <= cut - len(item[1])]
        assert len(found) == len(complete) > 0
    assert len(whole) == len(written.events)


def test_a_ros1_bag_that_was_never_closed_is_read(tmp_path):
    """A bag whose recorder was killed has no index at all, and still gives its messages."""
    write_data_bag(tmp_path / "bag.bag")
    data = bytearray((tmp_path / "bag.bag").read_bytes())
    with open_recording(tmp_path / "bag.bag") as recording:
        whole = [bytes(m.data) for m in recording.messages()]
    # Zero the position of the index in the bag header, as before closing, and drop the index.
    field = data.index(b"index_pos=") + len(b"index_pos=")
    index = int.from_bytes(data[field : field + 8], "little")
    data[field : field + 8] = bytes(8)
    (tmp_path / "open.bag.active").write_bytes(data[:index])
    messages, error = read_until_error(tmp_path / "open.bag.active", None)
    assert sorted(bytes(m.data) for m in messages) == sorted(whole)
    assert "its end is missing" in str(error)


def test_a_cut_bag_does_not_end_the_other_one(tmp_path):
    """Of two bags read as one, the whole one is read to its end although the other was cut."""
    write_data_bag(tmp_path / "data.bag")
    truth = write_truth_bag(tmp_path / "gt.bag")
    data = (tmp_path / "data.bag").read_bytes()
    (tmp_path / "cut.bag").write_bytes(data[: len(data) // 3])
    messages, error = read_until_error([tmp_path / "cut.bag", tmp_path / "gt.bag"], None)
    depths = [m for m in messages if m.topic == "/davis/left/depth_image_raw"]
    assert len(depths) == len(truth.depths)
    assert "cut.bag was cut" in str(error)


def test_a_record_that_swallows_others_is_noticed(tmp_path):
    """A damaged length that ends a chunk early is an error, not a shorter recording."""
    whole = write_bag2(tmp_path / "bag", StoragePlugin.MCAP)
    data = bytearray(whole.read_bytes())
    start = data.find(write_packet(EventPacket("mono", 4, 4, payload(20), 0, 20, 20))) - 31
    assert data[start] == 0x05
    data[start : start + 9] = b"\x7f" + (2**40).to_bytes(8, "little")
    (tmp_path / "bad.mcap").write_bytes(data)
    messages, error = read_until_error(tmp_path / "bad.mcap")
    assert 20 <= len(messages) < COUNT
    assert f"only {len(messages)} of {COUNT}" in str(error)


def test_a_damaged_chunk_ends_the_recording_with_an_error(tmp_path):
    """Bytes overwritten in the middle are reported with how much was read before."""
    whole = write_bag2(tmp_path / "bag", StoragePlugin.MCAP)
    data = bytearray(whole.read_bytes())
    # The header of the record is some 90 bytes before the payload.
    middle = data.find(payload(20)) - 100
    data[middle : middle + 60] = b"\xff" * 60
    (tmp_path / "bad.mcap").write_bytes(data)
    _, error = read_until_error(tmp_path / "bad.mcap")
    assert "damaged" in str(error)


@pytest.mark.parametrize("metadata", [None, "storage_identifier: ''", "no: [yaml", ""])
@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_broken_metadata_is_worked_around(tmp_path, metadata, storage):
    """A folder with missing, partial or unreadable metadata.yaml is read from its storage file."""
    write_bag2(tmp_path / "bag", storage)
    path = tmp_path / "bag" / "metadata.yaml"
    if metadata is None:
        path.unlink()
    elif metadata.startswith("storage"):
        text = path.read_text()
        line = next(item for item in text.splitlines() if "storage_identifier" in item)
        path.write_text(text.replace(line, "  storage_identifier: ''"))
    else:
        path.write_text(metadata)
    messages, error = read_until_error(tmp_path / "bag")
    assert error is None
    assert [bytes(m.data)[-SIZE:] for m in messages] == [payload(n) for n in range(COUNT)]


def test_a_folder_with_a_cut_file_delivers_the_others(tmp_path):
    """In a folder of several storage files, a cut one costs only what was cut."""
    first = write_bag2(tmp_path / "bag", StoragePlugin.MCAP)
    shutil.copy(first, tmp_path / "bag" / "bag_1.mcap")
    first.write_bytes(first.read_bytes()[: len(first.read_bytes()) // 2])
    (tmp_path / "bag" / "metadata.yaml").unlink()
    messages, error = read_until_error(tmp_path / "bag")
    assert COUNT < len(messages) < 2 * COUNT
    assert "was cut" in str(error)


def test_any_cut_of_any_container_is_survived(tmp_path):
    """Cuts at many places end in messages and a RecordingError, never in another exception."""
    write_data_bag(tmp_path / "bag.bag", arrays=4, events_per_array=10)
    files = [
        tmp_path / "bag.bag",
        write_bag2(tmp_path / "m", StoragePlugin.MCAP),
        write_bag2(tmp_path / "z", StoragePlugin.MCAP, zstd=True),
    ]
    random = np.random.default_rng(1)
    for file in files:
        data = file.read_bytes()
        cuts = [*range(0, 700, 29), *random.integers(0, len(data), 40).tolist()]
        for cut in cuts:
            broken = tmp_path / f"cut{file.suffix}"
            broken.write_bytes(data[:cut])
            read_until_error(broken, None)


def test_flipped_bytes_never_crash_a_scan(tmp_path):
    """Byte mutations of a cut file end in a RecordingError or in messages, nothing else."""
    write_data_bag(tmp_path / "bag.bag", arrays=3, events_per_array=5)
    sources = {
        ".bag": (tmp_path / "bag.bag").read_bytes(),
        ".mcap": write_bag2(tmp_path / "m", StoragePlugin.MCAP).read_bytes(),
    }
    random = np.random.default_rng(2)
    for suffix, data in sources.items():
        for _ in range(60):
            broken = bytearray(data[: int(len(data) * 0.7)])
            for place in random.integers(16, min(len(broken), 6000), 3):
                broken[place] = random.integers(256)
            (tmp_path / f"bad{suffix}").write_bytes(broken)
            read_until_error(tmp_path / f"bad{suffix}", None)
