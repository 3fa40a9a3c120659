"""Clips that are cut or have wrong bytes: opened, or refused with a sentence, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dae_ros.distillation.clip_sources import Sample
from dae_ros.distillation.clip_store import digest_of_facts, open_clip_store, read_facts
from dae_ros.distillation.clip_writer import SequenceWriter
from dae_ros.errors import RecordingError
from test.reference.damaging import surprises

# numpy tells of headers that Python 2 may have written.
pytestmark = pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file:UserWarning")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One sequence of two windows, with depth and frames."""
    with SequenceWriter(tmp_path / "train" / "x", "tencode") as writer:
        for end_ns in (0, 50_000_000):
            image = np.zeros((3, 4, 5), np.float32)
            depth, frame = np.ones((4, 5), np.float32), np.zeros((4, 5), np.uint8)
            writer.append(
                Sample(
                    image=image, depth=depth, frame=frame, frame_offset_us=0, end_ns=end_ns,
                    restarts=False,
                )
            )  # fmt: skip
        writer.finish({"event_encoder": "tencode"}, Counter())
    facts = read_facts(tmp_path / "train" / "x" / "sequence.json")
    assert facts is not None
    (tmp_path / "store.json").write_text(
        json.dumps(
            {"format": 1, "event_encoder": "tencode", "height": 4, "width": 5,
             "sequences": ["train/x"], "digest": digest_of_facts([facts])}
        )
    )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["store.json", "train/x/sequence.json", "train/x/windows.npy", "train/x/depth.npy",
     "train/x/frames.npy", "train/x/times.npy"],
)  # fmt: skip
def test_damaged_files(store: Path, name: str) -> None:
    """Every file of a store, cut and with changed bytes, ends in RecordingError at worst."""
    assert len(open_clip_store(store).split("train")[0]) == 2
    assert surprises(store / name, lambda: open_clip_store(store), cases=600) == []


def test_an_empty_array_names_the_file(store: Path) -> None:
    """A file of no bytes, as a full disk leaves it, is called damaged."""
    (store / "train" / "x" / "windows.npy").write_bytes(b"")
    with pytest.raises(RecordingError, match=r"windows\.npy is missing or damaged"):
        open_clip_store(store)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("store.json", '{"format": 1}', "lacks event_encoder, height, width, sequences, digest"),
        ("store.json", "[]", "not written by this version"),
        ("train/x/sequence.json", '{"format": 1}', "lacks source, windows, sha256"),
        (
            "train/x/sequence.json",
            '{"format": 1, "source": {}, "windows": 2, "sha256": {"windows": ""}}',
            "lacks the sha256 of times",
        ),
    ],
)
def test_facts_that_lack_something_name_it(
    store: Path, name: str, text: str, sentence: str
) -> None:
    """A file of facts that is JSON and not whole says what is missing and what to remove."""
    (store / name).write_text(text)
    with pytest.raises(RecordingError, match=sentence) as caught:
        open_clip_store(store)
    assert "Remove " in caught.value.message
