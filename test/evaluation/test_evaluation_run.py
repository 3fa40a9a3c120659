"""A whole evaluation: its numbers against plain arithmetic, and what it leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from dae_ros.bags.labelled import open_labelled
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.evaluation.evaluation_run import OUTPUTS, EvaluationPlan, run_evaluation
from dae_ros.evaluation.observation import Observation, ObservationRules
from dae_ros.evaluation.protocols import DSEC
from dae_ros.evaluation.scoring import PUBLISHED, STANDARD, STANDARD_METRIC
from dae_ros.evaluation.sequence_scorer import (
    SequenceScorer,
    TableChoice,
    default_scorings,
    require_scorable,
)
from dae_ros.evaluation.sources import recorded_source
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.estimator import OutputMeaning
from test.reference.dataset_layouts import write_dsec, write_eventscape, write_voxel_folder
from test.reference.full_disk import no_room_beyond
from test.reference.leaky_estimator import LeakyEstimator

PARAMETERS = DepthParameters(window="frame", overload="queue")
METRIC = OutputMeaning(orientation="depth", metric=True, scale=8.0, shift=2.0)


def evaluate(sources, out, *, scorings, rules=ObservationRules(), stopped=lambda: False):  # noqa: B008
    out.mkdir(exist_ok=True)
    notes: list[str] = []
    steps = []
    result = run_evaluation(
        sources,
        EvaluationPlan("recordings", PARAMETERS, rules, scorings),
        LeakyEstimator(METRIC),
        out,
        report=steps.append,
        note=notes.append,
        stopped=stopped,
    )
    return result, json.loads((out / "evaluation.json").read_text()), notes, steps


def leaky_predictions(path, size):
    """Yield (stamp, prediction in metres, truth, pixels with events), straight from the labels."""
    with open_labelled(path, size=size) as windows:
        state = None
        for window in windows:
            image = window.encode("tencode")
            total = image.sum(axis=0, dtype=np.float32)
            state = total if state is None else state / 2 + total
            seen = np.zeros(state.shape, bool)
            seen[window.events.y, window.events.x] = True
            yield window.stamp_ns, 8 * state + 2, window.depth, seen


def test_the_numbers_are_those_of_the_windows(tmp_path: Path) -> None:
    """Tables, list of frames and ranges of depth equal sums over pixels of labelled windows."""
    write_eventscape(tmp_path / "town")
    write_voxel_folder(tmp_path / "voxels")
    source = recorded_source(str(tmp_path / "town"), size=(24, 40))
    result, document, notes, steps = evaluate(
        [source], tmp_path / "out", scorings=(STANDARD_METRIC, STANDARD)
    )
    expected, with_events, pixels_near = [], [], 0
    for _, prediction, depth, seen in leaky_predictions(tmp_path / "town", (24, 40)):
        valid = (depth >= 1e-3) & (depth < 80)
        error = np.abs(depth - prediction)[valid] / depth[valid]
        expected.append(float(error.mean(dtype=np.float64)))
        both = valid & seen
        error = np.abs(depth - prediction)[both] / depth[both]
        with_events.append(float(error.mean(dtype=np.float64)))
        pixels_near += int(((depth >= 10) & (depth < 15)).sum())
    frames = list(csv.DictReader((tmp_path / "out" / "frames.csv").read_text().splitlines()))
    assert [float(row["abs_rel"]) for row in frames] == pytest.approx(expected, rel=1e-5)
    assert {row["scale"] for row in frames} == {"1.0"}
    tables = document["tables"]
    assert [(t["pixels"], t["scoring"]["alignment"]) for t in tables] == [
        ("with ground truth", "none"),
        ("with ground truth and events", "none"),
        ("with ground truth", "lstsq"),
        ("with ground truth and events", "lstsq"),
    ]
    means = [table["mean"]["abs_rel"] for table in tables]
    assert means[0] == pytest.approx(np.mean(expected), rel=1e-5)
    assert means[1] == pytest.approx(np.mean(with_events), rel=1e-5)
    best = [table["mean"]["best_constant_abs_rel"] for table in tables]
    assert best[0] == pytest.approx(best[2])
    assert 0 < best[0] < means[0]
    rows = list(csv.DictReader((tmp_path / "out" / "over_depth.csv").read_text().splitlines()))
    near = next(row for row in rows if row["from_m"] == "10.0")
    assert int(near["pixels"]) == pixels_near > 0
    assert document["dataset"] == "recordings"
    assert document["facts"]["left out of town"] == "1 without_window"
    assert notes == ["town: truths left out: 1 without_window"]
    assert steps[0].sequence == "town"
    assert not result.interrupted and result.damage is None


def test_everything_but_timing_is_the_same_every_time(tmp_path: Path) -> None:
    """Two runs over two sequences leave equal bytes, and the files that the list names."""
    write_eventscape(tmp_path / "a")
    write_eventscape(tmp_path / "b")
    contents = []
    for out in (tmp_path / "first", tmp_path / "second"):
        sources = [recorded_source(str(tmp_path / n), size=(24, 40)) for n in "ab"]
        _, document, _, _ = evaluate(sources, out, scorings=(STANDARD,))
        assert {item.name for item in out.iterdir()} == set(OUTPUTS)
        contents.append(
            {
                str(path.relative_to(out)): path.read_bytes()
                for path in sorted(out.rglob("*"))
                if path.is_file() and path.name != "timing.json"
            }
        )
    assert contents[0] == contents[1]
    markdown = contents[0]["evaluation.md"].decode()
    assert "| a | " in markdown and "| b | " in markdown
    for picture in document["pictures"]:
        assert f"]({picture['path']})" in markdown
        assert picture["path"] in contents[0]
    # The state does not leak from one sequence into the next: both are the same data.
    one, two = document["tables"][0]["sequences"]
    assert one["metrics"] == two["metrics"]


def test_rows_of_a_protocol_are_scored_alone(tmp_path: Path) -> None:
    """The published table stands first, is of the protocol's rows, and is fully covered."""
    written = write_dsec(tmp_path / "dsec")
    protocol = dataclasses.replace(DSEC, height=48, width=64, rows=(8, 40))
    source = recorded_source(str(tmp_path / "dsec"), size=(48, 64))
    _, document, _, _ = evaluate(
        [source],
        tmp_path / "out",
        scorings=default_scorings("metric", published=True),
        rules=ObservationRules(protocol=protocol),
    )
    scorings = [table["scoring"] for table in document["tables"]]
    assert [(s["variant"], s["alignment"]) for s in scorings[::2]] == [
        ("published", "lstsq_published"), ("standard", "none"), ("standard", "lstsq"),
    ]  # fmt: skip
    sequence = document["tables"][2]["sequences"][0]
    counts = [int((depth[8:40] < 80).sum()) for _, depth in written.depths[1:]]
    assert (sequence["coverage"], sequence["frames"]) == (1.0, 5)
    assert sequence["metrics"]["valid_pixels"] == pytest.approx(np.mean(counts))
    assert "rows 8 to 39" in document["facts"]["protocol"]
    assert "best_constant_abs_rel" not in document["tables"][0]["mean"]


def test_strips_show_the_rows_of_the_protocol(tmp_path: Path) -> None:
    """Events, frame and truth of a picture are of the same rows; a frame of another size whole."""
    scorer = SequenceScorer("s", (TableChoice("all", STANDARD_METRIC),), (64, 128))
    frame = np.zeros((192, 40), np.uint8)
    frame[64:128] = 200
    image = np.zeros((3, 192, 40), np.float32)
    image[2, 64:128] = 1
    depth = np.full((192, 40), 5, np.float32)
    for shown in (frame, np.full((10, 10), 90, np.uint8)):
        scorer.add(Observation(0, 0, depth, depth, image, shown, 0))
    scorer.save_strips(tmp_path / "s.png")
    picture = cv2.imread(str(tmp_path / "s.png"))[..., ::-1]
    # 64 rows are shown as 192: 120 columns for each panel, 4 between, 8 around, 20 of title.
    for top, grey in ((8 + 20, 200), (8 + 20 + 192 + 8 + 20, 90)):
        panels = picture[top : top + 192]
        assert (panels[:, 8 : 8 + 120] == (70, 150, 255)).all()
        assert (panels[:, 8 + 124 : 8 + 244] == grey).all()


def test_a_full_disk_costs_pictures_before_numbers(tmp_path: Path) -> None:
    """Tables are written first, and what cannot be written is named."""
    write_eventscape(tmp_path / "town")
    out = tmp_path / "out"
    for room, file in ((20_000, r"over_time\.png|over_depth\.png|town\.png"), (300, "frames.csv")):
        source = recorded_source(str(tmp_path / "town"), size=(24, 40))
        with no_room_beyond(room), pytest.raises(RecordingError, match=file):
            evaluate([source], out, scorings=(STANDARD,))
        left = {path.name for path in out.iterdir()}
        assert {"evaluation.json", "evaluation.md", "frames.csv"} <= left
        assert not [name for name in left if name.endswith(".partial")]
        assert json.loads((out / "evaluation.json").read_text())["tables"]


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    """What was scored until then is written whole."""
    write_eventscape(tmp_path / "town")
    source = recorded_source(str(tmp_path / "town"), size=(24, 40))
    result, document, _, _ = evaluate(
        [source], tmp_path / "out", scorings=(STANDARD,), stopped=lambda: True
    )
    assert result.interrupted
    assert document["tables"][0]["sequences"][0]["frames"] == 1
    assert "interrupted" in document["facts"]


def test_what_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    """Numbers of unknown direction, relative depth without alignment, windows of another kind."""
    with pytest.raises(ConfigurationError, match="do not say which"):
        require_scorable("relative", "unknown", (STANDARD,))
    with pytest.raises(ConfigurationError, match="grows with inverse depth"):
        require_scorable("relative", "inverse_depth", (STANDARD,))
    with pytest.raises(ConfigurationError, match="without alignment"):
        require_scorable("relative", "depth", (STANDARD, STANDARD_METRIC))
    require_scorable("metric", "inverse_depth", (STANDARD_METRIC, PUBLISHED))
    assert default_scorings("relative", published=False) == (STANDARD,)
    write_eventscape(tmp_path / "town")
    source = recorded_source(str(tmp_path / "town"), size=(24, 40))
    with pytest.raises(ConfigurationError, match="Two sequences are named town"):
        evaluate([source, source], tmp_path / "out", scorings=(STANDARD,))
    with pytest.raises(ConfigurationError, match="nothing to evaluate"):
        evaluate([], tmp_path / "out", scorings=(STANDARD,))
    plan = EvaluationPlan("x", DepthParameters(), ObservationRules(), (STANDARD_METRIC,))
    with pytest.raises(ConfigurationError, match="'window' must be frame"):
        run_evaluation(
            [source], plan, LeakyEstimator(METRIC), tmp_path, report=print, note=print,
            stopped=lambda: False,
        )  # fmt: skip


def test_a_sequence_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    """One is not there, one has truth of another size: the third is scored, and both are said."""
    write_eventscape(tmp_path / "town")
    write_eventscape(tmp_path / "other")
    for path in (tmp_path / "other" / "depth" / "data").glob("*.npy"):
        np.save(path, np.load(path)[:-2])
    sources = [recorded_source(str(tmp_path / name), size=(24, 40)) for name in ("gone", "other")]
    sources.append(recorded_source(str(tmp_path / "town"), size=(24, 40)))
    result, document, notes, _ = evaluate(sources, tmp_path / "out", scorings=(STANDARD,))
    assert result.damage is not None and "gone" in result.damage.message
    assert "gone" in document["facts"]["damage"]
    assert [row["name"] for row in document["tables"][0]["sequences"]] == ["town"]
    assert any(note.startswith("gone: ") for note in notes)
    assert any(note.startswith("other: ") and "40x22" in note for note in notes)


def test_truth_that_is_unknown_everywhere_is_an_error(tmp_path: Path) -> None:
    """Depth of nothing but NaN gives no table of NaN."""
    write_eventscape(tmp_path / "town")
    for path in (tmp_path / "town" / "depth" / "data").glob("*.npy"):
        np.save(path, np.full_like(np.load(path), np.nan))
    source = recorded_source(str(tmp_path / "town"), size=(24, 40))
    with pytest.raises(RecordingError, match="not one pixel of"):
        evaluate([source], tmp_path / "out", scorings=(STANDARD,))
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_truth_of_another_time_is_an_error(tmp_path: Path) -> None:
    """A recording whose depth lies hours from its events scores nothing and says so."""
    written = write_eventscape(tmp_path / "town")
    file = tmp_path / "town" / "depth" / "data" / "timestamps.txt"
    lines = [f"{k} {stamp_ns / 1e9 + 3600!r}\n" for k, (stamp_ns, _) in enumerate(written.depths)]
    file.write_text("".join(lines))
    source = recorded_source(str(tmp_path / "town"), size=(24, 40))
    with pytest.raises(RecordingError, match="no window had ground truth"):
        evaluate([source], tmp_path / "out", scorings=(STANDARD,))
    assert math.isclose(source.skipped["without_window"], 10)
