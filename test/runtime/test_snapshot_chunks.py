"""Weights in pieces: any order, twice, lost, late, contradictory; whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import resource
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dae_ros.errors import WeightsError
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshot_chunks import CHUNK_BYTES, SnapshotReceiver, chunks, comes_again

ELSEWHERE = Path("/another/w_000001.safetensors")


def file_of(folder: Path, size: int, version: int = 1) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the bytes and the pieces of a file of random bytes."""
    data = np.random.default_rng(version).bytes(size)
    path = folder / "sent"
    path.write_bytes(data)
    return data, list(chunks(path, version))


def announcement(data: bytes, version: int = 1) -> Announcement:
    """Announce bytes that lie on another machine."""
    return Announcement(version, ELSEWHERE, hashlib.sha256(data).hexdigest(), len(data))


def test_a_file_is_cut_as_its_labels_say(tmp_path: Path) -> None:
    """Pieces of 256 kB and a rest, numbered from 0, make the file again."""
    data, pieces = file_of(tmp_path, 2 * CHUNK_BYTES + 10, version=7)
    assert [label for label, _ in pieces] == ["7/0/3", "7/1/3", "7/2/3"]
    assert [len(piece) for _, piece in pieces] == [256_000, 256_000, 10]
    assert b"".join(piece for _, piece in pieces) == data
    assert [len(p) for _, p in file_of(tmp_path, CHUNK_BYTES)[1]] == [256_000]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations([0, 1, 2, 3, 0, 2]), turn=st.integers(0, 6))
def test_any_order_gives_the_file(tmp_path: Path, order: list[int], turn: int) -> None:
    """Whatever the order, whatever comes twice, and whenever it is announced, the file is whole."""
    data, pieces = file_of(tmp_path, 3 * CHUNK_BYTES + 1)
    receiver = SnapshotReceiver(tmp_path / "received")
    for number, index in enumerate(order):
        if number == turn:
            receiver.announced(announcement(data), 0.0)
        receiver.received(*pieces[index], 0.0)
    if turn == len(order):
        assert receiver.ready(0.0) is None
        receiver.announced(announcement(data), 0.0)
    ready = receiver.ready(0.0)
    assert ready is not None
    assert ready.path.read_bytes() == data
    assert (ready.version, ready.sha256) == (1, hashlib.sha256(data).hexdigest())
    assert receiver.ready(0.0) is None, "it is handed over once"
    receiver.close()
    assert list((tmp_path / "received").iterdir()) == []


def test_a_shared_disk_needs_no_pieces(tmp_path: Path) -> None:
    """A file that is where the announcement says is taken there at once."""
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    shared = Announcement(1, path, "0" * 64, 3)
    receiver = SnapshotReceiver(tmp_path / "received")
    receiver.announced(shared, 0.0)
    assert receiver.ready(0.0) == shared
    receiver.announced(Announcement(1, path, "0" * 64, 4), 0.0)
    assert receiver.ready(0.0) is None, "another size is another file"


@pytest.mark.parametrize("came", [1, 2])
def test_pieces_are_used_where_another_file_lies_at_the_announced_path(
    tmp_path: Path, came: int
) -> None:
    """Of the same size, as all versions are: it was refused, so the version is announced again."""
    data, pieces = file_of(tmp_path, CHUNK_BYTES + 5)
    own = tmp_path / "w_000001.safetensors"
    own.write_bytes(data[::-1])
    announced = Announcement(1, own, hashlib.sha256(data).hexdigest(), len(data))
    receiver = SnapshotReceiver(tmp_path / "received", timeout_s=5.0)
    receiver.announced(announced, 0.0)
    assert receiver.ready(0.0) == announced, "sizes tell nothing"
    for piece in pieces[:came]:
        receiver.received(*piece, 1.0)
    receiver.announced(announced, 4.0)
    assert receiver.ready(4.0) is None
    for piece in pieces:
        receiver.received(*piece, 4.0)
    ready = receiver.ready(4.0)
    assert ready is not None and ready.path.read_bytes() == data
    receiver.announced(announced, 8.0)
    assert receiver.ready(8.0) is None, "it stays elsewhere"
    assert receiver.ready(14.0) == announced, "and is refused in the end"
    receiver.announced(dataclasses.replace(announced, version=2), 20.0)
    assert receiver.ready(20.0) is not None, "another version may be here"


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_shared_disk_needs_no_pieces_when_it_is_announced_again(
    tmp_path: Path, confirmed: bool
) -> None:
    """Where none came, or what is in use is only confirmed, nothing is waited for."""
    data, pieces = file_of(tmp_path, CHUNK_BYTES)
    shared = dataclasses.replace(announcement(data), path=tmp_path / "sent")
    receiver = SnapshotReceiver(tmp_path / "received")
    receiver.announced(shared, 0.0)
    assert receiver.ready(0.0) == shared
    if confirmed:
        receiver.received(*pieces[0], 0.0)
    again = dataclasses.replace(shared, rollback=not confirmed, confirmed=confirmed)
    receiver.announced(again, 1.0)
    ready = receiver.ready(1.0)
    assert ready is not None and ready.path.read_bytes() == data


def test_lost_pieces_end_in_time(tmp_path: Path) -> None:
    """Without its last piece a file is given up, and the announcement goes on to be refused."""
    data, pieces = file_of(tmp_path, 2 * CHUNK_BYTES)
    receiver = SnapshotReceiver(tmp_path / "received", timeout_s=5.0)
    receiver.announced(announcement(data), 0.0)
    receiver.received(*pieces[0], 4.0)
    assert receiver.missing == 1
    assert receiver.ready(8.9) is None
    assert receiver.ready(9.1) == announcement(data)
    assert (receiver.missing, list((tmp_path / "received").iterdir())) == (None, [])


def test_what_is_announced_again_comes_again(tmp_path: Path) -> None:
    """A file that was given up half way, and one that was damaged on its way, are whole in the end.

    What is only confirmed has been taken, and stays.
    """
    data, pieces = file_of(tmp_path, 2 * CHUNK_BYTES + 5)
    receiver = SnapshotReceiver(tmp_path / "received", timeout_s=5.0)
    receiver.announced(announcement(data), 0.0)
    receiver.received(*pieces[0], 0.0)
    assert receiver.ready(6.0) == announcement(data), "given up"
    for piece in ((pieces[1][0], bytes(CHUNK_BYTES)), pieces[2]):  # the rest comes late, damaged
        receiver.received(*piece, 7.0)
    receiver.announced(announcement(data), 8.0)
    for piece in pieces:
        receiver.received(*piece, 8.0)
    damaged = receiver.ready(8.0)
    assert damaged is not None and damaged.path.read_bytes() != data
    receiver.announced(announcement(data), 9.0)
    assert receiver.ready(9.0) is None
    for piece in pieces:
        receiver.received(*piece, 9.0)
    ready = receiver.ready(9.0)
    assert ready is not None and ready.path.read_bytes() == data
    confirmed = dataclasses.replace(announcement(data), confirmed=True)
    assert not comes_again(confirmed, announcement(data))
    receiver.announced(confirmed, 10.0)
    assert receiver.ready(10.0) == dataclasses.replace(ready, confirmed=True)
    assert comes_again(confirmed, confirmed) and comes_again(confirmed, None)
    assert comes_again(dataclasses.replace(confirmed, rollback=True), announcement(data))


@pytest.mark.parametrize("other_size", [2 * CHUNK_BYTES, 2 * CHUNK_BYTES - 1, CHUNK_BYTES])
@pytest.mark.parametrize("received", [1, 2])
@pytest.mark.parametrize("announced", [True, False])
def test_another_trainers_file_of_the_same_number_is_another_file(
    tmp_path: Path, other_size: int, received: int, announced: bool
) -> None:
    """What was put together of the one before it, all or a part, is not handed out for it."""
    data, pieces = file_of(tmp_path, 2 * CHUNK_BYTES)
    receiver = SnapshotReceiver(tmp_path / "received")
    if announced:
        receiver.announced(announcement(data), 0.0)
    for piece in pieces[:received]:
        receiver.received(*piece, 0.0)
    receiver.ready(0.0)
    other = data[::-1][:other_size]
    (tmp_path / "other").write_bytes(other)
    for _ in range(1 if announced else 2):  # where nothing told the two apart, once more
        receiver.announced(announcement(other), 1.0)
        for piece in chunks(tmp_path / "other", 1):
            receiver.received(*piece, 1.0)
        ready = receiver.ready(1.0)
    assert ready is not None and ready.path.read_bytes() == other


def test_only_the_newest_version_is_put_together(tmp_path: Path) -> None:
    """A newer version replaces an unfinished and a finished one; older pieces are ignored."""
    old, old_pieces = file_of(tmp_path, 2 * CHUNK_BYTES, version=1)
    new, new_pieces = file_of(tmp_path, 2 * CHUNK_BYTES, version=2)
    receiver = SnapshotReceiver(tmp_path / "received")
    receiver.received(*old_pieces[0], 0.0)
    for piece in (new_pieces[0], old_pieces[1], new_pieces[1]):
        receiver.received(*piece, 0.0)
    receiver.announced(announcement(new, 2), 0.0)
    ready = receiver.ready(0.0)
    assert ready is not None
    assert ready.path.read_bytes() == new
    # A rollback: the older one is asked for, and comes again.
    receiver.announced(announcement(old, 1), 0.0)
    for piece in old_pieces:
        receiver.received(*piece, 0.0)
    back = receiver.ready(0.0)
    assert back is not None
    assert back.path.read_bytes() == old
    assert len(list((tmp_path / "received").iterdir())) == 1


@pytest.mark.parametrize(
    ("label", "size"),
    [
        ("", 10), ("1/0", 10), ("1/0/x", 10), ("1/1/1", 10), ("1/-1/1", 10), ("0/0/1", 10),
        ("1/0/1", 0), ("1/0/1", CHUNK_BYTES + 1), ("1/0/2", CHUNK_BYTES - 1),
        ("1/0/5", CHUNK_BYTES),
    ],
)  # fmt: skip
def test_contradictory_pieces_are_refused(tmp_path: Path, label: str, size: int) -> None:
    """Labels that are none, sizes that do not fit them, and files beyond the bound."""
    receiver = SnapshotReceiver(tmp_path / "received", most_bytes=4 * CHUNK_BYTES)
    with pytest.raises(WeightsError):
        receiver.received(label, bytes(size), 0.0)
    assert receiver.missing is None


def test_a_folder_of_its_own_is_made_with_the_first_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it; where it cannot be made, that is an error and later files work."""
    data, pieces = file_of(tmp_path, CHUNK_BYTES)
    place = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    receiver = SnapshotReceiver()
    with pytest.raises(WeightsError, match="a folder for temporary files"):
        receiver.received(*pieces[0], 0.0)
    place.mkdir()
    receiver.announced(announcement(data), 0.0)
    receiver.received(*pieces[0], 0.0)
    ready = receiver.ready(0.0)
    assert ready is not None and ready.path.read_bytes() == data
    receiver.close()
    assert list(place.iterdir()) == []


def test_a_full_disk_gives_the_file_up(tmp_path: Path) -> None:
    """A piece that cannot be written is an error that names the folder; later files work."""
    data, pieces = file_of(tmp_path, 2 * CHUNK_BYTES)
    receiver = SnapshotReceiver(tmp_path / "received")
    receiver.received(*pieces[0], 0.0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES + 10, limit[1]))
        with pytest.raises(WeightsError, match="make room"):
            receiver.received(*pieces[1], 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert list((tmp_path / "received").iterdir()) == []
    receiver.announced(announcement(data), 0.0)
    for piece in pieces:
        receiver.received(*piece, 0.0)
    assert receiver.ready(0.0) is not None
