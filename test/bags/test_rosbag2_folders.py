"""rosbag2 folders: what their files hold is read, whatever metadata.yaml and the names say."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from dae_ros.bags.message_types import EVENT_PACKET, known_types
from dae_ros.bags.recording import open_recording
from dae_ros.cli.main import main
from dae_ros.errors import RecordingError
from test.reference.rosbag2_database import START_NS, STEP_NS, message, write_database
from test.reference.unchunked_mcap import write_unchunked

STORAGES = {"mcap": StoragePlugin.MCAP, "db3": StoragePlugin.SQLITE3}
both_storages = pytest.mark.parametrize("suffix", ["mcap", "db3"])


def write_part(folder, suffix, numbers, compression=None):
    """A rosbag2 folder with one message of /events for each number."""
    writer = Writer(folder, version=8, storage_plugin=STORAGES[suffix])
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        topic = writer.add_connection("/events", EVENT_PACKET, typestore=known_types())
        for number in numbers:
            writer.write(topic, START_NS + number * STEP_NS, message(number))


def write_split(folder, suffix, parts=((0, 1, 2), (3, 4, 5))):
    """A folder `bag` of several storage files and its metadata.yaml; returns the files."""
    files = []
    for index, numbers in enumerate(parts):
        write_part(folder / f"part{index}", suffix, numbers)
        files.append(folder / "bag" / f"bag_{index}.{suffix}")
        files[-1].parent.mkdir(exist_ok=True)
        (folder / f"part{index}" / f"part{index}.{suffix}").rename(files[-1])
    text = (folder / "part0" / "metadata.yaml").read_text()
    (folder / "bag" / "metadata.yaml").write_text(text)
    numbers = [number for part in parts for number in part]
    change_metadata(
        folder / "bag",
        relative_file_paths=[file.name for file in files],
        message_count=len(numbers),
        duration={"nanoseconds": (numbers[-1] - numbers[0]) * STEP_NS},
    )
    return files


def change_metadata(folder, **values):
    """Replace values of metadata.yaml."""
    path = folder / "metadata.yaml"
    content = yaml.safe_load(path.read_text())
    content["rosbag2_bagfile_information"].update(values)
    path.write_text(yaml.safe_dump(content))


def read(path):
    """The numbers of the messages that come out, and what the error that ends them says."""
    numbers = []
    try:
        with open_recording(path) as recording:
            for item in recording.messages():
                number = (item.time_ns - START_NS) // STEP_NS
                assert bytes(item.data) == message(number)
                numbers.append(number)
    except RecordingError as error:
        return numbers, str(error)
    return numbers, ""


def contents(folder):
    """Name -> digest and time of change of everything in a folder, and of the folder."""
    found = {
        item.name: (hashlib.sha256(item.read_bytes()).hexdigest(), item.stat().st_mtime_ns)
        for item in folder.iterdir()
    }
    return found, folder.stat().st_mtime_ns


@both_storages
@pytest.mark.parametrize("size", [0, 5, 60])
@pytest.mark.parametrize("named", [True, False])
def test_a_part_without_content_does_not_hide_the_others(tmp_path, suffix, size, named):
    """A last file of no use costs nothing but itself, and the error at the end names it."""
    files = write_split(tmp_path, suffix)
    files[1].write_bytes(files[1].read_bytes()[:size])
    if not named:
        (tmp_path / "bag" / "metadata.yaml").unlink()
    numbers, error = read(tmp_path / "bag")
    assert numbers == [0, 1, 2]
    assert str(files[1]) in error
    assert str(files[0]) not in error


def test_every_damaged_part_is_named(tmp_path):
    """Two bad files are both in the error; a folder of nothing but such is refused with both."""
    files = write_split(tmp_path, "mcap", ((0, 1), (2,), (3, 4)))
    files[0].write_bytes(b"")
    files[1].write_bytes(b"\x89MCAP")
    numbers, error = read(tmp_path / "bag")
    assert numbers == [3, 4]
    assert str(files[0]) in error
    assert str(files[1]) in error
    files[2].unlink()
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with pytest.raises(RecordingError, match=r"bag_0.mcap is empty.*bag_1.mcap holds nothing"):
        open_recording(tmp_path / "bag")


def test_convert_delivers_the_whole_part_and_exits_with_1(tmp_path, capsys):
    """The verb writes what can be read, then says which file is empty."""
    files = write_split(tmp_path, "mcap")
    files[1].write_bytes(b"")
    assert main(["convert", str(tmp_path / "bag"), str(tmp_path / "out")]) == 1
    assert "bag_1.mcap is empty" in capsys.readouterr().err
    assert read(tmp_path / "out") == ([0, 1, 2], "")


@both_storages
def test_a_part_that_is_missing_is_reported(tmp_path, suffix):
    """Of a part that was not copied, the messages are missing, and that is said."""
    files = write_split(tmp_path, suffix)
    files[0].unlink()
    numbers, error = read(tmp_path / "bag")
    assert numbers == [3, 4, 5]
    assert f"{files[0]} is missing" in error


@both_storages
def test_renamed_and_further_parts_are_read(tmp_path, suffix):
    """A renamed file is none that is missing; a part that metadata.yaml does not know is read."""
    files = write_split(tmp_path, suffix)
    files[0].rename(files[0].with_name(f"drive.{suffix}"))
    assert read(tmp_path / "bag") == ([0, 1, 2, 3, 4, 5], "")
    files[0].with_name(f"drive.{suffix}").rename(files[0])
    change_metadata(tmp_path / "bag", relative_file_paths=[files[0].name])
    assert read(tmp_path / "bag") == ([0, 1, 2, 3, 4, 5], "")


def test_a_file_of_another_series_is_not_mixed_in(tmp_path):
    """A copy in the other storage beside the recording does not double its messages."""
    write_split(tmp_path, "mcap")
    write_part(tmp_path / "copy", "db3", range(6))
    shutil.copy(tmp_path / "copy" / "copy.db3", tmp_path / "bag")
    assert read(tmp_path / "bag") == ([0, 1, 2, 3, 4, 5], "")


@both_storages
def test_parts_that_overlap_come_in_the_order_of_time(tmp_path, suffix):
    """Record times never run back where one part ends and the next begins."""
    write_split(tmp_path, suffix, ((0, 1, 4, 6), (2, 3, 5, 7)))
    assert read(tmp_path / "bag") == (list(range(8)), "")


@both_storages
def test_topics_and_counts_are_those_of_the_files(tmp_path, suffix):
    """A metadata.yaml without topics and with zero counts hides nothing."""
    write_split(tmp_path, suffix)
    change_metadata(tmp_path / "bag", topics_with_message_count=[], message_count=0)
    with open_recording(tmp_path / "bag") as recording:
        assert {name: (info.type, info.count) for name, info in recording.topics.items()} == {
            "/events": (EVENT_PACKET, 6)
        }
    assert read(tmp_path / "bag") == ([0, 1, 2, 3, 4, 5], "")


@both_storages
@pytest.mark.parametrize("shift_s", [-3600, 3600])
def test_times_are_those_of_the_files(tmp_path, suffix, shift_s):
    """Wrong times in metadata.yaml move neither the beginning nor the end of the recording."""
    write_split(tmp_path, suffix)
    change_metadata(
        tmp_path / "bag",
        starting_time={"nanoseconds_since_epoch": START_NS + shift_s * 1_000_000_000},
        duration={"nanoseconds": 1},
    )
    with open_recording(tmp_path / "bag") as recording:
        assert (recording.start_ns, recording.end_ns) == (START_NS, START_NS + 5 * STEP_NS)
        start_ns = recording.record_time_at(0.03, ["/events"])
        assert start_ns == START_NS + 3 * STEP_NS
        assert len(list(recording.messages(["/events"], start_ns))) == 3


@both_storages
@pytest.mark.parametrize("metadata", ["whole", "none"])
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read_with_and_without_metadata(tmp_path, suffix, mode, metadata):
    """Files and messages that rosbag2 compressed come out plain."""
    write_part(tmp_path / "bag", suffix, range(5), mode)
    if metadata == "none":
        (tmp_path / "bag" / "metadata.yaml").unlink()
    assert read(tmp_path / "bag") == ([0, 1, 2, 3, 4], "")
    (file,) = (tmp_path / "bag").glob(f"bag.{suffix}*")
    assert read(file) == ([0, 1, 2, 3, 4], "")


def test_a_packed_file_that_was_cut_gives_what_can_be_unpacked(tmp_path, monkeypatch):
    """Of a cut `.mcap.zstd` the beginning is read, and nothing of it stays behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    write_part(tmp_path / "bag", "mcap", range(100), CompressionMode.FILE)
    (packed,) = (tmp_path / "bag").glob("*.zstd")
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    numbers, error = read(tmp_path / "bag")
    assert numbers == list(range(len(numbers)))
    assert str(packed) in error
    assert str(tmp_path / "tmp") not in error
    assert list((tmp_path / "tmp").iterdir()) == []


@both_storages
@pytest.mark.parametrize("name", ["run#1", "50%20", "what?", "a b"])
def test_any_name_of_a_folder_will_do(tmp_path, suffix, name):
    """Signs that mean something in the address of a database are part of a name here."""
    write_split(tmp_path, suffix)
    (tmp_path / "bag").rename(tmp_path / name)
    assert read(tmp_path / name) == ([0, 1, 2, 3, 4, 5], "")


@both_storages
def test_a_storage_file_of_any_name_is_read(tmp_path, suffix):
    """A file is told by what it begins with, whatever it is called."""
    files = write_split(tmp_path, suffix)
    files[0].rename(tmp_path / "drive.bin")
    assert read(tmp_path / "drive.bin") == ([0, 1, 2], "")


@pytest.mark.parametrize("checkpoint", [0, 1, 2, 3])
def test_a_write_ahead_log_is_read_and_left_alone(tmp_path, checkpoint):
    """What was committed is read from the log, in a folder where nothing can be written."""
    folder = tmp_path / "bag"
    folder.mkdir()
    write_database(folder / "bag_0.db3", "wal", [[0, 1], [2, 3, 4], [5]], checkpoint)
    assert (folder / "bag_0.db3-wal").stat().st_size > 0
    before = contents(folder)
    folder.chmod(0o555)
    try:
        assert read(folder) == ([0, 1, 2, 3, 4, 5], "")
        with open_recording(folder / "bag_0.db3") as recording:
            assert recording.topics["/events"].count == 6
            assert (recording.start_ns, recording.end_ns) == (START_NS, START_NS + 5 * STEP_NS)
            start_ns = recording.record_time_at(0.04, ["/events"])
            assert len(list(recording.messages(["/events"], start_ns))) == 2
    finally:
        folder.chmod(0o755)
    assert contents(folder) == before


@settings(max_examples=15, deadline=None)
@given(part=st.floats(0.0, 0.999), flipped=st.booleans())
def test_of_a_damaged_log_nothing_is_lost_in_silence(part, flipped):
    """Cut or with a flipped byte, a log gives whole transactions, and what is missing is said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_database(folder / "bag.db3", "wal", [[0, 1], [2, 3, 4], [5], [6, 7]], 1)
        log = folder / "bag.db3-wal"
        data = bytearray(log.read_bytes())
        place = int(len(data) * part)
        if flipped:
            data[place] ^= 0x10
        else:
            del data[place:]
        log.write_bytes(data)
        numbers, error = read(folder / "bag.db3")
        assert len(numbers) in (2, 5, 6, 8)
        assert numbers == list(range(len(numbers)))
        if len(numbers) < 8 and place > 0:
            assert "bag.db3-wal" in error


def test_a_transaction_that_was_never_finished_is_reported(tmp_path):
    """Beside a hot rollback journal nothing is written, and the error says what to do with it."""
    write_database(tmp_path / "bag.db3", "delete", [[0, 1], [2, 3], [4, 5, 6, 7]], 9)
    assert (tmp_path / "bag.db3-journal").stat().st_size > 0
    before = contents(tmp_path)
    numbers, error = read(tmp_path / "bag.db3")
    assert numbers[:4] == [0, 1, 2, 3]
    assert "bag.db3-journal" in error
    assert "open the copy with sqlite3" in error
    assert contents(tmp_path) == before
    # A journal that was finished, as the mode `persist` leaves it, is nothing.
    (tmp_path / "bag.db3-journal").write_bytes(b"")
    assert "journal" not in read(tmp_path / "bag.db3")[1]


def test_an_unfinished_end_of_a_log_is_reported(tmp_path):
    """Pages behind the last commit, as a killed recorder leaves them, are said to be unread."""
    write_database(tmp_path / "bag.db3", "wal", [[0, 1], [2, 3, 4, 5, 6, 7]], 0)
    log = tmp_path / "bag.db3-wal"
    frame = 24 + 4096
    assert (log.stat().st_size - 32) % frame == 0
    log.write_bytes(log.read_bytes()[:-frame])
    numbers, error = read(tmp_path / "bag.db3")
    assert numbers == [0, 1]
    assert "was never finished" in error


@pytest.mark.parametrize("cut", [False, True])
def test_messages_without_an_index_come_in_the_order_of_time(tmp_path, cut):
    """An MCAP without chunks, recorded a little out of order, is sorted and not refused."""
    written = [0, 1, 4, 2, 3, 6, 5, 7, 9, 8]
    path = tmp_path / "fast.mcap"
    messages = [(START_NS + number * STEP_NS, message(number)) for number in written]
    write_unchunked(path, "/events", EVENT_PACKET, messages)
    if cut:
        path.write_bytes(path.read_bytes()[:-1500])
    numbers, error = read(path)
    assert numbers == ([0, 1, 2, 3, 4, 5, 6, 7, 9] if cut else list(range(10)))
    assert ("was cut" in error) is cut
