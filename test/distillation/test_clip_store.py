"""Clips on disk: codes, one-command building, resuming, splits, damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.bags.messages import write_image
from dae_ros.bags.writer import BagWriter
from dae_ros.cli.main import main
from dae_ros.distillation.batches import ClipSampler
from dae_ros.distillation.clip_build import build_clips
from dae_ros.distillation.clip_codes import code_of_tencode, tencode_of_code
from dae_ros.distillation.clip_recipe import read_recipe
from dae_ros.distillation.clip_sources import Sample
from dae_ros.distillation.clip_store import NO_FRAME_US, open_clip_store
from dae_ros.distillation.clip_writer import SequenceWriter
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket, Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.clips import clip_windows
from dae_ros.simulation.encoders import create_encoder
from test.reference.clip_recipes import RECIPE, write_recipe
from test.reference.full_disk import no_room_beyond


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips of RECIPE, made in one process; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    build_clips(read_recipe(write_recipe(folder)), folder / "store")
    return folder / "store"


def every_file(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sample(value: float, **known: object) -> Sample:
    image = np.zeros((3, 4, 5), np.float32)
    image[:2, 1, 2] = 1.0
    defaults: dict[str, object] = {
        "image": image, "depth": np.full((4, 5), value, np.float32), "frame": None,
        "frame_offset_us": 0, "end_ns": round(value), "restarts": False,
    }  # fmt: skip
    return Sample(**{**defaults, **known})


def write_many(folder: Path) -> None:
    with SequenceWriter(folder, "tencode") as writer:
        for value in range(1000):
            writer.append(sample(float(value)))


def test_codes_by_hand() -> None:
    """Black is 0; polarity is the lowest bit; the newest and the oldest age are exact."""
    image = np.array([[[0, 1, 0, 1, 0]], [[0, 1, 0, 0.5, 1]], [[0, 0, 1, 0, 1]]], np.float32)
    code = code_of_tencode(image)
    assert code.tolist() == [[0, 254, 1, 128, 253]]
    np.testing.assert_array_equal(tencode_of_code(torch.from_numpy(code)), image)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=64))
@settings(max_examples=50, deadline=None)
def test_codes_keep_tencode(pixels: list[tuple[bool, float]]) -> None:
    """Any Tencode image comes back with its polarities, and ages within 1/252."""
    image = np.array([[[float(on), green, float(not on)] for on, green in pixels]], np.float32)
    image = np.ascontiguousarray(image.transpose(2, 0, 1))
    back = tencode_of_code(torch.from_numpy(code_of_tencode(image))).numpy()
    np.testing.assert_array_equal(back[::2], image[::2])
    assert np.abs(back[1] - image[1]).max() <= 1 / 252 + 1e-6


def test_a_store_holds_what_the_simulator_gives(built: Path) -> None:
    """Windows, depth and frames of a store equal the simulator's, window by window."""
    store = open_clip_store(built)
    assert [item.name for item in store.sequences] == [
        "train/0000_room_1",
        "train/0001_room_2",
        "heldout/0000_corridor_1000",
    ]
    assert (store.height, store.width, store.event_encoder) == (40, 56, "tencode")
    assert [item.name for item in store.split("heldout")] == ["heldout/0000_corridor_1000"]
    sequence = store.sequences[2]
    parameters = SimulatorParameters.from_mapping(sequence.facts["source"]["world"])
    assert 0.15 <= parameters.contrast_threshold <= 0.4
    truth = list(clip_windows(parameters))
    assert len(truth) == len(sequence) == 3
    for index, window in enumerate(truth):
        np.testing.assert_array_equal(sequence.windows[index], code_of_tencode(window.image))
        np.testing.assert_array_equal(sequence.depth[index], window.depth.astype(np.float16))
        assert sequence.has_frame(index, index + 1)[0] == (window.frame is not None)
        if window.frame is not None:
            np.testing.assert_array_equal(sequence.frames[index], window.frame.image)
    assert list(sequence.runs()) == [(0, 3)]
    store.verify()


def test_a_recipe_gives_the_same_bytes_however_it_is_made(tmp_path: Path, built: Path) -> None:
    """Two processes give the files of one; a second build changes nothing."""
    recipe = read_recipe(write_recipe(tmp_path))
    seen: list[float] = []
    build_clips(recipe, tmp_path / "two", processes=2, report=lambda done, _: seen.append(done))
    assert every_file(built) == every_file(tmp_path / "two")
    assert seen and seen == sorted(seen) and seen[0] >= 0 and seen[-1] <= 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.npy")}
    build_clips(recipe, tmp_path / "two")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_killed_build_goes_on(tmp_path: Path, built: Path) -> None:
    """After kill -9 finished sequences stay, half ones are never seen, and the end is the same."""
    recipe_path, store = write_recipe(tmp_path), tmp_path / "store"
    command = [sys.executable, "-m", "dae_ros.cli", "clips", str(recipe_path), "--out", str(store)]
    process = subprocess.Popen([*command, "--processes", "2"], start_new_session=True)
    while not list(store.glob("*/*/sequence.json")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(RecordingError, match="no finished clips"):
        open_clip_store(store)
    build_clips(read_recipe(recipe_path), store)
    assert every_file(store) == every_file(built)


def test_stopping_keeps_what_is_finished(tmp_path: Path) -> None:
    """A stop between windows leaves whole sequences only."""
    asked = iter([False] * 4 + [True] * 100)
    result = build_clips(
        read_recipe(write_recipe(tmp_path)), tmp_path / "store", stopped=lambda: next(asked)
    )
    assert result.store is None and result.windows == 3
    assert {p.name for p in (tmp_path / "store" / "train").iterdir()} == {"0000_room_1"}


def test_another_recipe_does_not_mix_in(tmp_path: Path, built: Path) -> None:
    """A folder made of one recipe refuses another."""
    other = RECIPE.replace("duration_s: 0.15", "duration_s: 0.2")
    with pytest.raises(ConfigurationError, match="another recipe"):
        build_clips(read_recipe(write_recipe(tmp_path, other)), built)


def test_damage_is_found(tmp_path: Path, built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cut array is refused on opening, a flipped bit by --verify, a foreign folder by name."""
    store = tmp_path / "store"
    shutil.copytree(built, store)
    # Whole already: nothing is made again.
    assert main(["clips", str(write_recipe(tmp_path)), "--out", str(store)]) == 0
    assert main(["clips", "--verify", str(store)]) == 0
    assert "6 windows in 2 sequences, 2 with depth, 2 with frames" in capsys.readouterr().out
    path = store / "train" / "0001_room_2" / "depth.npy"
    whole = bytearray(path.read_bytes())
    whole[-7] ^= 1
    path.write_bytes(whole)
    open_clip_store(store)
    assert main(["clips", "--verify", str(store)]) == 1
    assert "sha256 differs" in capsys.readouterr().err
    path.write_bytes(whole[:-100])
    with pytest.raises(RecordingError, match=r"depth\.npy is missing or damaged"):
        open_clip_store(store)
    with pytest.raises(RecordingError, match="dae-ros clips RECIPE"):
        open_clip_store(tmp_path)


def test_sparse_frames_and_restarts(tmp_path: Path) -> None:
    """Windows before the first frame are marked as without; a restart begins a new run."""
    frame = np.arange(20, dtype=np.uint8).reshape(4, 5)
    folder = tmp_path / "train" / "x"
    with SequenceWriter(folder, "tencode") as writer:
        writer.append(sample(1.0, restarts=True))
        writer.append(sample(2.0, frame=frame, frame_offset_us=-4000))
        writer.append(sample(3.0, frame=frame, frame_offset_us=-5001, restarts=True))
        writer.append(sample(4.0, depth=None))
        writer.finish({"event_encoder": "tencode"}, Counter())
    times = np.load(folder / "times.npy")
    assert times[:, 1].tolist() == [NO_FRAME_US, -4000, -5001, NO_FRAME_US]
    assert np.load(folder / "frames.npy")[:, 1, 1].tolist() == [0, 6, 6, 0]
    depth = np.load(folder / "depth.npy")
    assert depth[:3, 0, 0].tolist() == [1, 2, 3] and np.isnan(depth[3]).all()
    (tmp_path / "store.json").write_text(
        json.dumps(
            {"format": 1, "event_encoder": "tencode", "height": 4, "width": 5, "digest": "",
             "sequences": ["train/x"]}
        )
    )  # fmt: skip
    with pytest.raises(RecordingError, match="not those of its store"):
        open_clip_store(tmp_path)


def test_a_hole_in_the_labels_begins_a_new_run(
    tmp_path: Path, settings: Callable[..., TrainingParameters]
) -> None:
    """No clip spans more than a second without a label, though events went on all the while."""
    encoder = create_encoder("mono", 56, 40)
    labels_ms = [*range(100, 1100, 100), *range(2000, 2900, 100), *range(3801, 4500, 100)]
    with BagWriter(tmp_path / "drive") as bag:
        for topic, kind in (("/events", EVENT_PACKET), ("/depth_truth", IMAGE)):
            bag.add_topic(topic, kind)
        for k, ms in enumerate(range(0, 4600, 50)):
            t = (np.arange(50, dtype=np.int64) + ms) * 1_000_000
            x = (np.arange(50) % 56).astype(np.uint16)
            payload, base_ns = encoder.encode(Events(t, x, x % 40, np.ones(50, np.uint8)))
            packet = EventPacket("mono", 40, 56, payload, base_ns, int(t[0]), k)
            bag.write("/events", EVENT_PACKET, int(t[-1]), write_packet(packet))
            for label_ms in (label for label in labels_ms if ms <= label < ms + 50):
                stamp_ns = label_ms * 1_000_000
                depth = np.ones((40, 56), np.float32)
                bag.write("/depth_truth", IMAGE, int(t[-1]), write_image(depth, stamp_ns, ""))
    recipe = read_recipe(write_recipe(tmp_path, "train: [{recordings: [drive]}]"), tmp_path)
    store = build_clips(recipe, tmp_path / "store").store
    assert store is not None
    (sequence,) = store.sequences
    assert len(sequence) == len(labels_ms)
    # 1000 to 2000 ms is a second and no more, 2800 to 3801 ms is a ms more.
    assert list(sequence.runs()) == [(0, 19), (19, 26)]
    some = settings(clips=str(store.folder), burn_in=0, unroll=7)
    assert ClipSampler((store,), some).clips == 13 + 1


def test_a_full_disk_keeps_the_rest(tmp_path: Path) -> None:
    """Where no more can be written the sentence says so, and no half sequence is left."""
    with no_room_beyond(10_000), pytest.raises(RecordingError, match="cannot be written"):
        write_many(tmp_path / "train" / "x")
    assert list((tmp_path / "train").iterdir()) == []


@pytest.mark.parametrize("place", ["file/clips", "/proc/clips"])
def test_a_place_that_takes_nothing_is_said(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below a file, or where the system makes no folder: the sentence says so, and where."""
    (tmp_path / "file").touch()
    recipe = write_recipe(tmp_path)
    assert main(["clips", str(recipe), "--out", str(tmp_path / place)]) == 1
    said = capsys.readouterr().err
    assert f"{place}/train/.part_0000_room_1 cannot be written: " in said
    assert "choose another --out" in said


def test_a_disk_that_is_full_at_the_end_keeps_every_sequence(tmp_path: Path, built: Path) -> None:
    """Where only the list of the store has no room, nothing has to be made again."""
    shutil.copytree(built, tmp_path / "store")
    (tmp_path / "store" / "store.json").unlink()
    recipe = read_recipe(write_recipe(tmp_path))
    before = every_file(tmp_path / "store")
    with no_room_beyond(10), pytest.raises(RecordingError, match=r"store\.json cannot be written"):
        build_clips(recipe, tmp_path / "store")
    assert every_file(tmp_path / "store") == before
    build_clips(recipe, tmp_path / "store")
    assert every_file(tmp_path / "store") == every_file(built)


def test_recordings_become_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recorded simulation gives the windows, depth and frames that lie in the recording."""
    bag = ["--height", "40", "--width", "56", "--duration", "0.2", "--scene", "room"]
    for name, seed in (("a", "1"), ("b", "2")):
        assert main(["simulate", "--out", str(tmp_path / name), "--seed", seed, *bag]) == 0
    text = "train: [{recordings: [a], rows: [8, 36]}]\nheldout: [{recordings: [b], ends: frame}]"
    with pytest.raises(RecordingError, match="different sizes"):
        build_clips(read_recipe(write_recipe(tmp_path, text), tmp_path), tmp_path / "cropped")
    beyond = text.replace("[8, 36]", "[32, 41]")
    with pytest.raises(RecordingError, match="go beyond the 40 rows of a"):
        build_clips(read_recipe(write_recipe(tmp_path, beyond), tmp_path), tmp_path / "beyond")
    # A pattern that begins at / needs no root.
    text = text.replace(", rows: [8, 36]", "").replace("[a]", f"[{tmp_path}/a]")
    store = build_clips(read_recipe(write_recipe(tmp_path, text), tmp_path), tmp_path / "s").store
    assert store is not None
    train, heldout = store.sequences
    assert heldout.depth is None and heldout.has_frame(0, len(heldout)).all()
    assert train.depth is not None and train.frames is not None
    world = {"scene": "room", "seed": 1, "height": 40, "width": 56, "duration_s": 0.2}
    windows = list(clip_windows(SimulatorParameters.from_mapping(world)))
    cut = np.load(tmp_path / "cropped" / "train" / "0000_a" / "windows.npy")
    by_depth = {window.depth.astype(np.float16).tobytes(): window for window in windows}
    for index in range(len(train)):
        window = by_depth[train.depth[index].tobytes()]
        np.testing.assert_array_equal(train.windows[index], code_of_tencode(window.image))
        np.testing.assert_array_equal(cut[index], train.windows[index][8:36])
    assert len(train) >= 2
    capsys.readouterr()
    assert main(["clips", "--show", str(tmp_path / "s")]) == 0
    # Depth at 0 s, and the window that would begin before the first event.
    assert "left out: 2 before_events\n" in capsys.readouterr().out
