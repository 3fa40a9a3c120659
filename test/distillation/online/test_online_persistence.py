"""The learner on disk: continued as if never stopped, whatever was cut, flipped or full."""

from __future__ import annotations

import hashlib
import io
import resource
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.distillation.online.persistence import (
    PREVIOUS_FILE,
    STATE_FILE,
    STATE_MAGIC,
    OnlineStore,
)
from dae_ros.distillation.online.records import (
    MAGIC,
    pack_record,
    unpack_record,
    whole_records,
)
from dae_ros.errors import DistillationError
from test.reference.online_clips import changed, same_clip, small_clip, wedge_clip

SEGMENT = "clips_000001.rec"


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Let no file of this process grow beyond a number of bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_a_clip_comes_back_with_every_bit() -> None:
    """Arrays, NaN, numbers, texts and the stored state survive a record."""
    clip = changed(
        wedge_clip(3, length=5),
        state=(np.full((1, 2, 3, 4), 0.1, np.float16), np.zeros((1, 1, 1, 1), np.float16)),
        state_version=12,
        teacher="größe",
        luminance=0.1,
    )
    back = unpack_record(pack_record(("anchor", 7), clip))
    assert back is not None and same_clip(clip, back)
    assert back.state[0].dtype == np.float16 and back.state_version == 12
    assert back.observation.luminance == 0.1 and np.isnan(back.observation.image_speed_px_s)
    np.testing.assert_array_equal(back.observation.windows, clip.observation.windows)
    np.testing.assert_array_equal(back.depth, clip.depth)
    assert not back.depth.flags.writeable


@settings(max_examples=30)
@given(st.data())
def test_one_damaged_record_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any flipped byte loses the record it is in, any cut those from there on; others are read."""
    path = tmp_path_factory.mktemp("records") / "r"
    records = [pack_record(("clip", key), small_clip(10**9 * (key + 1))) for key in range(4)]
    ends = np.cumsum([len(record) for record in records])
    content = bytearray(b"".join(records))
    at = data.draw(st.integers(0, len(content) - 1))
    hit = int(np.searchsorted(ends, at, side="right"))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
        expected = [key for key in range(4) if key != hit]
    else:
        del content[at:]
        expected = list(range(hit))
    path.write_bytes(content)
    found = list(whole_records(path))
    assert [key for _, _, (_, key) in found] == expected
    for offset, size, (_, key) in found:
        assert bytes(content[offset : offset + size]) == records[key]


def test_a_torn_record_is_dropped_and_writing_goes_on(tmp_path: Path) -> None:
    """What a kill left at the end is cut off, so that the next clips are found again."""
    clips = {key: small_clip(10**9 * (key + 1)) for key in range(4)}
    with OnlineStore(tmp_path) as store:
        for key in (0, 1, 2):
            store.append("clip", key, clips[key])
    path = tmp_path / SEGMENT
    path.write_bytes(path.read_bytes()[:-100])
    with OnlineStore(tmp_path) as store:
        assert store.keys("clip") == (0, 1) and store.damaged == 1
        store.append("clip", 3, clips[3])
        store.append("anchor", 0, clips[2])
        with pytest.raises(DistillationError, match="no whole clip 2"):
            store.read("clip", 2)
    with OnlineStore(tmp_path) as store:
        assert store.damaged == 0 and store.keys("anchor") == (0,)
        read = store.clips("clip")
        assert list(read) == [0, 1, 3] and all(same_clip(read[key], clips[key]) for key in read)


def test_the_newest_whole_state_is_read(tmp_path: Path) -> None:
    """Damage, a cut, or a kill between two renames: the state before is read; none is none."""
    with OnlineStore(tmp_path) as store:
        assert store.load() is None
        for step in (1, 2):
            store.save({"step": step, "weights": {"w": torch.full((3,), step / 7)}}, [])
        state = store.load()
        assert state is not None and state["step"] == 2
        assert torch.equal(state["weights"]["w"], torch.full((3,), 2 / 7))
        path = tmp_path / STATE_FILE
        content = path.read_bytes()
        for damaged in (content[:-1], content[:20], b"", content[:-5] + b"\0" + content[-4:]):
            path.write_bytes(damaged)
            state = store.load()
            assert state is not None and state["step"] == 1
        path.unlink()
        state = store.load()
        assert state is not None and state["step"] == 1
        (tmp_path / PREVIOUS_FILE).unlink()
        assert store.load() is None


def test_a_state_of_another_version_is_not_taken_for_damage(tmp_path: Path) -> None:
    """An older one is whole but holds other things: it is neither read nor written over."""
    with OnlineStore(tmp_path) as store:
        store.save({"step": 1}, [])
        path = tmp_path / STATE_FILE
        content = path.read_bytes()
        path.write_bytes(content.replace(STATE_MAGIC, b"DAEONL01", 1))
        with pytest.raises(
            DistillationError, match=r"another version .*DAEONL01.* move the folder"
        ):
            store.load()
        path.write_bytes(content)
        assert store.load() == {"step": 1}


def test_clips_of_another_version_stay_as_they_are(tmp_path: Path) -> None:
    """Its records are none to this version: they are not cut off like those of a kill."""
    with OnlineStore(tmp_path) as store:
        store.append("clip", 0, small_clip(10**9))
        store.save({"step": 1}, [("clip", 0)])
    for name, magic, other in (
        (SEGMENT, MAGIC, b"DAEREC01"),
        (STATE_FILE, STATE_MAGIC, b"DAEONL01"),
    ):
        path = tmp_path / name
        path.write_bytes(path.read_bytes().replace(magic, other, 1))
    clips = (tmp_path / SEGMENT).read_bytes()
    with OnlineStore(tmp_path) as store, pytest.raises(DistillationError, match="another version"):
        store.load()
    assert (tmp_path / SEGMENT).read_bytes() == clips


def test_what_was_learned_on_a_gpu_goes_on_without_one(tmp_path: Path) -> None:
    """Tensors remember the device that they were saved from; where it is gone they are read."""
    with OnlineStore(tmp_path) as store:
        store.save({"w": torch.arange(3.0)}, [])
        path = tmp_path / STATE_FILE
        content = path.read_bytes()
        begin = len(STATE_MAGIC) + hashlib.sha256().digest_size
        saved = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(content[begin:])) as source,
            zipfile.ZipFile(saved, "w") as target,
        ):
            for name in source.namelist():
                # A text of a pickle: how long it is, and its letters.
                data = source.read(name).replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:9")
                target.writestr(name, data)
        payload = saved.getvalue()
        assert b"cuda:9" in payload
        path.write_bytes(STATE_MAGIC + hashlib.sha256(payload).digest() + payload)
        state = store.load()
    assert state is not None and torch.equal(state["w"], torch.arange(3.0))


def test_clips_of_both_states_stay_readable(tmp_path: Path) -> None:
    """The disk holds a small multiple of what is live, and falling back finds every clip."""
    clips = [small_clip(10**9 * (key + 1)) for key in range(200)]
    size = len(pack_record(("clip", 0), clips[0]))
    with OnlineStore(tmp_path, segment_bytes=10 * size) as store:
        store.append("clip", 0, clips[0])  # one that stays for ever, in a file that does not
        for key in range(1, 200):
            store.append("clip", key, clips[key])
            if key % 5 == 0:
                store.save({"step": key}, [("clip", k) for k in (0, *range(key - 9, key + 1))])
        total = sum(path.stat().st_size for path in tmp_path.glob("clips_*.rec"))
        assert total < (2 * 16 + 2 * 10) * size
    (tmp_path / STATE_FILE).unlink()
    with OnlineStore(tmp_path, segment_bytes=10 * size) as store:
        state = store.load()
        assert state is not None and state["step"] == 190
        for key in (0, *range(181, 191)):
            assert same_clip(store.read("clip", key), clips[key])
        # And the first save after a restart still spares them.
        store.save({"step": 191}, [("clip", 195)])
        assert same_clip(store.read("clip", 0), clips[0])


def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    """Neither a clip nor a state that cannot be written hurts those before it."""
    clips = [small_clip(10**9 * (key + 1)) for key in range(3)]
    with OnlineStore(tmp_path) as store:
        store.append("clip", 0, clips[0])
        store.save({"step": 1}, [("clip", 0)])
        small_disk((tmp_path / SEGMENT).stat().st_size + 200)
        with pytest.raises(DistillationError, match="Make room"):
            store.append("clip", 1, clips[1])
        with pytest.raises(DistillationError, match="Make room"):
            store.save({"step": 2, "w": torch.zeros(100_000)}, [("clip", 0)])
        small_disk(10**9)
        assert store.load() == {"step": 1}
        store.append("clip", 2, clips[2])
        store.save({"step": 3}, [("clip", 0), ("clip", 2)])
    with OnlineStore(tmp_path) as store:
        assert store.load() == {"step": 3} and store.damaged == 0
        assert store.keys("clip") == (0, 2) and same_clip(store.read("clip", 2), clips[2])
    assert {path.name for path in tmp_path.iterdir()} == {
        "lock", STATE_FILE, PREVIOUS_FILE, SEGMENT,
    }  # fmt: skip


def test_a_state_that_can_be_neither_written_nor_removed_is_an_error_of_the_folder(
    tmp_path: Path,
) -> None:
    """As on a disk that has become read-only; what was saved before is whole."""
    with OnlineStore(tmp_path) as store:
        store.save({"step": 1}, [])
        strange = tmp_path / f".{STATE_FILE}.tmp"
        strange.mkdir()
        with pytest.raises(DistillationError, match="saved before is whole"):
            store.save({"step": 2}, [])
        assert store.load() == {"step": 1}
        strange.rmdir()
        store.save({"step": 3}, [])
        assert store.load() == {"step": 3}


def test_what_cannot_be_given_up_or_read_is_an_error_of_the_folder(tmp_path: Path) -> None:
    """Errors of the disk have a way out, the state is saved all the same, and the next one tidies.

    A folder in the place of a file can neither be read nor removed as one.
    """
    clips = [small_clip(10**9 * (key + 1)) for key in range(6)]
    size = len(pack_record(("clip", 0), clips[0]))
    strange = tmp_path / "clips_000000.rec"
    with OnlineStore(tmp_path, segment_bytes=2 * size) as store:
        for key in range(4):
            store.append("clip", key, clips[key])
        store.save({"step": 1}, [("clip", key) for key in range(4)])
        strange.mkdir()
        store.append("clip", 4, clips[4])
        with pytest.raises(DistillationError, match=r"cannot be given up .*is whole"):
            store.save({"step": 2}, [("clip", 4)])
        assert store.load() == {"step": 2}
        with pytest.raises(DistillationError, match="cannot be given up"):
            store.save({"step": 3}, [("clip", 4)])
        strange.rmdir()
        store.save({"step": 4}, [("clip", 4)])
        assert store.keys("clip") == (4,) and len(list(tmp_path.glob("*.rec"))) == 1
    strange.mkdir()
    for _ in range(2):  # the lock is free again
        with pytest.raises(DistillationError, match=r"cannot be read .*another folder"):
            OnlineStore(tmp_path)
    strange.rmdir()
    (tmp_path / STATE_FILE).unlink()
    (tmp_path / STATE_FILE).mkdir()
    with OnlineStore(tmp_path) as store:
        with pytest.raises(DistillationError, match=r"state\.bin cannot be read"):
            store.load()
        next(tmp_path.glob("*.rec")).unlink()
        with pytest.raises(DistillationError, match="no whole clip 4"):
            store.read("clip", 4)


def test_one_process_learns_in_a_folder(tmp_path: Path) -> None:
    """A second one is refused, until the first is gone; a folder that cannot be is refused too."""
    first = OnlineStore(tmp_path)
    with pytest.raises(DistillationError, match="another process learns"):
        OnlineStore(tmp_path)
    first.close()
    OnlineStore(tmp_path).close()
    (tmp_path / "file").write_text("")
    with pytest.raises(DistillationError, match="cannot be written"):
        OnlineStore(tmp_path / "file" / "below")
