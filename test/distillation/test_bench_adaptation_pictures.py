"""What the adaptation benchmark shows of places that nobody learned from, and of the way there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.adaptation import pictures
from benchmarks.adaptation.jobs import Job
from benchmarks.adaptation.pictures import places_picture
from benchmarks.adaptation.runs import Setting
from benchmarks.adaptation.safety import Course
from benchmarks.adaptation.scores import score_file
from benchmarks.adaptation.way import WAY_PARTS, run_way
from benchmarks.adaptation.worlds import Lengths
from benchmarks.heldout import depth_at, score_network
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.model.untrained import untrained
from test.reference.moving_wedge import WedgeSource, wedge_clips


def save(path: Path, factor: float) -> Path:
    """Write weights that differ by what their last layer but one is multiplied with."""
    loaded = untrained("micro")
    meaning = dataclasses.replace(loaded.meaning, orientation="depth", scale="metric")
    with torch.no_grad():
        loaded.network.depth_head.scratch.output_conv1.weight.mul_(factor)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, loaded.network, meaning)
    return path


def test_the_way_goes_on_to_what_was_learned(tmp_path: Path) -> None:
    """Published weights lie nine tenths of it; a seed that was refused or is elsewhere has none."""
    wedge_clips(tmp_path / "anchors", [WedgeSource(1, windows=2)], [WedgeSource(2, windows=2)])
    student = save(tmp_path / "student.safetensors", 1.0)
    setting = Setting(student, student, tmp_path / "anchors", 2.5, {}, (), Lengths(30.0, 10.0, 5.0))
    job = Job(setting, tmp_path, Course(), 1)
    held = [WedgeSource(3, windows=10), WedgeSource(4, windows=10)]
    for part in (job.worlds(0), job.worlds(0) / "known"):
        wedge_clips(part / "clips", [WedgeSource(5, windows=2)], held)
    run_way(job, 0)
    assert not job.way(0).exists(), "the seed is not finished"
    job.summary(0).parent.mkdir(parents=True, exist_ok=True)
    job.summary(0).write_text(json.dumps({"numbers": {}, "timeline": [[0.0, 1], [35.0, 2]]}))
    run_way(job, 0)
    assert not job.way(0).exists(), "its weights are elsewhere"
    # 1.9 is nine tenths of the way from 1 to 2.
    published = save(job.folder(0) / "online/snapshots/w_000002.safetensors", 1.9)
    whole = save(tmp_path / "whole.safetensors", 2.0)
    run_way(job, 0)
    facts = json.loads(job.way(0).read_text())
    assert (facts["version"], facts["candidate_part"]) == (2, 0.9)
    rows = {row["part"]: row for row in facts["rows"]}
    assert [*rows] == list(WAY_PARTS)
    first = score_file(student, job.worlds(0))
    for part, path in ((0.0, student), (0.9, published), (1.0, whole)):
        scores = score_file(path, job.worlds(0))
        for where in ("elsewhere", "known"):
            for error in ("aligned_abs_rel", "metric_abs_rel"):
                expected = scores[where][error] / first[where][error] - 1.0
                assert rows[part][where][error] == pytest.approx(expected, abs=1e-4)
        excesses = [
            own["metric_abs_rel"] / first["known"]["places"][place]["metric_abs_rel"] - 1.0
            for place, own in scores["known"]["places"].items()
        ]
        worst = rows[part]["known"]["worst_place"]["excess"]
        assert worst == pytest.approx(max(excesses), abs=1e-4)
    assert rows[1.0]["known"]["metric_abs_rel"] != 0.0


def test_each_seed_has_a_row_with_the_version_of_the_end_of_the_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the middle of its first place; without the weights of one there is no picture."""
    wedge_clips(tmp_path / "anchors", [WedgeSource(1, windows=2)], [WedgeSource(2, windows=2)])
    student = save(tmp_path / "student.safetensors", 1.0)
    setting = Setting(student, student, tmp_path / "anchors", 2.5, {}, (), Lengths(30.0, 10.0, 5.0))
    job = Job(setting, tmp_path, Course(), 1)
    seeds: list[dict[str, Any]] = [
        {"seed": 0, "numbers": {}, "timeline": [[0.0, 1], [20.0, 2], [35.0, 3]]},
        {"seed": 1},  # refused: nothing to gain
    ]
    held = [WedgeSource(3, windows=5), WedgeSource(4, windows=5)]
    wedge_clips(job.worlds(0) / "clips", [WedgeSource(5, windows=2)], held)
    learned = save(job.folder(0) / "online/snapshots/w_000002.safetensors", 1.5)
    assert places_picture(job, seeds) is None
    offline = save(setting.offline_folder(tmp_path, 0) / "last.safetensors", 2.0)

    drawn: list[tuple[str, int, dict[str, Any]]] = []
    row = pictures.depth_row

    def draw(sequence: Any, index: int, found: Any) -> Any:
        drawn.append((sequence.name, index, found))
        return row(sequence, index, found)

    monkeypatch.setattr(pictures, "depth_row", draw)
    picture = places_picture(job, seeds)
    assert picture is not None and picture.ndim == 3
    ((name, index, found),) = drawn
    store = open_clip_store(job.worlds(0) / "clips")
    assert (name, index) == (store.split("heldout")[0].name, 2)
    assert [*found] == ["frozen", "online, 30 s", "offline"]
    for path, depth in zip((student, learned, offline), found.values(), strict=True):
        kept = score_network(load_checkpoint(path), store, shown={name: index}).maps[name]
        np.testing.assert_array_equal(depth, kept)
    assert not np.array_equal(found["frozen"], found["online, 30 s"])
    assert places_picture(job, []) is None
    # The last window, whose state is the longest.
    sequence = store.split("heldout")[0]
    kept = score_network(load_checkpoint(student), store, shown={name: 4}).maps[name]
    np.testing.assert_array_equal(depth_at(load_checkpoint(student), store, sequence, 4), kept)
