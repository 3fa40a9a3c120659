"""The benchmarks of weights: what they score, what they say about goals, what a table row is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from benchmarks import bench_distillation, bench_first_weights
from benchmarks.bench_distillation import ROWS, Plan, settings_of, subset
from benchmarks.first_weights.report import goals
from benchmarks.heldout import kind_of, score_best_constants, score_network
from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import TrainingParameters, changed
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.evaluation.scoring import STANDARD, score_frame
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.model.configuration import EventEncoder, Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_estimator import TorchEstimator
from test.reference.moving_wedge import WedgeSource, wedge_clips

Settings = Callable[..., TrainingParameters]
RUNS: dict[str, tuple[str, EventEncoder]] = {
    "micro": ("micro", "tencode"),
    "memoryless": ("micro_memoryless", "tencode"),
    "frames": ("micro_frames", "grey"),
    "distilled": ("micro", "tencode"),
    "micro_wider": ("micro", "tencode"),
    "memoryless_wider": ("micro_memoryless", "tencode"),
}


class Tower(WedgeSource):
    """A wedge by another name."""

    @property
    def label(self) -> str:
        return f"tower_{self.seed}"


class Yard(WedgeSource):
    """A wedge with the facts of a simulated world."""

    @property
    def label(self) -> str:
        return f"yard_{self.seed}"

    def facts(self) -> dict[str, Any]:
        world = {"scene": "yard", "light": "day", "motion": "car", "visibility_m": 60.0,
                 "distortion_k1": -0.2}  # fmt: skip
        return {**super().facts(), "world": world}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    """What scripts/train_first_weights.sh leaves, after two updates of small networks."""
    folder = tmp_path_factory.mktemp("first_weights")
    clips = wedge_clips(
        folder / "clips",
        [WedgeSource(1, windows=4), Tower(2, windows=4)],
        [WedgeSource(8, windows=4), Tower(9, windows=4)],
    )
    wider = wedge_clips(
        folder / "clips_wider",
        [Tower(3, windows=4)],
        [WedgeSource(8, windows=4), Tower(9, windows=4)],
    )
    wedge_clips(folder / "clips_unseen", [], [Yard(20, windows=3), WedgeSource(21, windows=3)])
    for run, (name, encoder) in RUNS.items():
        network = build_network(variant(name, input_height=56, input_width=84))
        network.load_state_dict(untrained(name).network.state_dict())
        start = folder / f"{run}.safetensors"
        save_checkpoint(start, network, Meaning(event_encoder=encoder))
        few = {"steps": 2, "warm_up": 0, "evaluate_every": 2, "batch": 1, "clips": clips}
        if run.endswith("_wider"):
            start, few["clips"] = folder / run.removesuffix("_wider") / "last.safetensors", wider
        train(changed(settings(), weights=str(start), **few), folder / run)
    return folder


def test_first_weights_are_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every contender has every score on every sequence; pictures and verdicts are written."""
    assert bench_first_weights.main(["--folder", str(folder), "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "first_weights.json").read_text())
    assert {"machine", "commit", "date", "results"} <= set(document)
    results = document["results"]
    assert results["clips"]["heldout_windows"] == 8
    names = {f"{p}{a}_{m}" for p in ("", "events_") for a in ("aligned", "metric")
             for m in ("abs_rel", "delta_1", "rmse")}  # fmt: skip
    assert results["clips_wider"]["train_windows"] == 4
    networks = {"micro", "micro_reset", "micro_first", "micro_memoryless", "micro_distilled",
                "micro_frames"}  # fmt: skip
    assert set(results["contenders"]) == {*networks, "training_mean", "best_constant"}
    for name, found in results["contenders"].items():
        assert set(found["sequences"]) == {"heldout/0000_wedge_8", "heldout/0001_tower_9"}
        mean = np.mean([v["aligned_abs_rel"] for v in found["sequences"].values()])
        assert found["scores"]["aligned_abs_rel"] == pytest.approx(mean, abs=1e-5)
        if name != "best_constant":
            assert names <= set(found["scores"])
        if name in networks:
            runs = found["runs"]
            assert (found["step"], runs[-1]["steps"], len(found["sha256"])) == (2, 2, 64)
            assert runs[-1]["sha256"] == found["sha256"]
    first, second = results["contenders"]["micro"]["runs"]
    assert [run["clips"] for run in (first, second)] == ["clips", "clips_wider"]
    assert second["started_from"] == first["sha256"]
    assert second["weights"] == "micro/last.safetensors"
    assert [first] == results["contenders"]["micro_first"]["runs"]
    assert {row["met"] for row in results["goals"]} <= {True, False}
    assert {row["pixels"] for row in results["goals"]} == {"all", "events"}
    printed = capsys.readouterr().out
    text = (tmp_path / "first_weights.md").read_text()
    assert "**missed**" in printed and text in printed
    unseen = results["unseen"]
    assert unseen["clips"]["heldout_windows"] == 6 and unseen["clips"]["train_sequences"] == 0
    assert unseen["worlds"] == {
        "heldout/0000_yard_20": "day, car, fog 60 m, another lens", "heldout/0001_wedge_21": "",
    }  # fmt: skip
    assert [row["goal"] for row in unseen["goals"]] == [row["goal"] for row in results["goals"]]
    micro = load_checkpoint(folder / "micro_wider" / "last.safetensors")
    half = micro.network.half().float().eval()
    again = score_network(replace(micro, network=half), open_clip_store(folder / "clips_unseen"))
    for name, found in unseen["contenders"].items():
        assert set(found["sequences"]) == set(unseen["worlds"])
        assert found["scores"].keys() == results["contenders"][name]["scores"].keys()
    assert unseen["contenders"]["micro"] == again.to_json()
    first, second = text.split("# First weights on worlds that decided nothing")
    assert "| 0000_yard_20 day, car, fog 60 m, another lens | " in second
    assert "0000_wedge_8" in first and "0000_yard_20" not in first
    for picture in ("curves", "worlds", "unseen"):
        assert cv2.imread(str(tmp_path / f"first_weights_{picture}.png")).std() > 5


def test_a_second_run_goes_on_from_the_first(folder: Path, tmp_path: Path) -> None:
    """One that began elsewhere is not scored as the two runs of one contender."""
    for item in folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "micro").unlink()
    (tmp_path / "micro").symlink_to(folder / "distilled")
    with pytest.raises(WeightsError, match=r"micro_wider did not start from micro/last\.safeten"):
        bench_first_weights._facts("micro", tmp_path, "last.safetensors")


def test_worlds_that_are_missing_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the worlds that decide nothing the benchmark ends and says how to make them."""
    for name in ("clips", "clips_wider"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(SystemExit, match="2"):
        bench_first_weights.main(["--folder", str(tmp_path), "--out", str(tmp_path / "results")])
    command = "dae-ros clips config/train/clips_unseen_worlds.yaml --out "
    assert f"{command}{tmp_path / 'clips_unseen'}" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_goals_by_hand() -> None:
    """A goal is met exactly up to its bound, over all pixels and over those with events."""
    names = ("aligned_abs_rel", "metric_abs_rel", "aligned_delta_1", "aligned_positive_scale")

    def scores(*values: float) -> dict[str, float]:
        return {f"{p}{name}": v for p in ("", "events_")
                for name, v in zip(names, values, strict=True)}  # fmt: skip

    rows = goals(
        {
            "micro": {**scores(0.2, 0.3, 0.7, 0.99), "events_aligned_abs_rel": 0.21},
            "micro_memoryless": scores(0.2, 0.29, 0.0, 0.0),
            "micro_distilled": scores(0.25, 0.376, 0.0, 0.0),
            "best_constant": scores(0.3, 0.0, 0.0, 0.0),
            "training_mean": scores(0.28, 0.43, 0.0, 0.0),
        }
    )
    missed = {row["goal"] for row in rows if row["pixels"] == "all" and not row["met"]}
    assert missed == {
        "Abs Rel <= 70 % of the mean depth map's, aligned",
        "Abs Rel <= that of micro_memoryless, in metres",
        "Abs Rel of micro_distilled <= 125 % of micro's, in metres",
    }
    first = {row["goal"]: row for row in rows if row["pixels"] == "events"}["Abs Rel <= 0.20"]
    assert first == {"goal": "Abs Rel <= 0.20", "pixels": "events", "value": 0.21, "bound": 0.2,
                     "wanted": 0.15, "met": False}  # fmt: skip


def test_a_network_without_its_memory(folder: Path) -> None:
    """Reset at every window scores as the live estimator that is reset before every step."""
    loaded = load_weights(str(folder / "micro" / "best.safetensors"))
    store = open_clip_store(folder / "clips")
    found = score_network(loaded, store, forgetful=True)
    assert found.mean != score_network(loaded, store).mean
    estimator = TorchEstimator(loaded)
    for sequence in store.split("heldout"):
        errors = []
        for index in range(len(sequence)):
            estimator.reset()
            image = tencode_of_code(torch.from_numpy(np.array(sequence.windows[index])))
            depth = sequence.depth[index].astype(np.float32)
            errors.append(score_frame(estimator.estimate(image.numpy()), depth, STANDARD))
        expected = np.mean([score.metrics["abs_rel"] for score in errors])
        score = found.sequences[sequence.name]["aligned_abs_rel"]
        assert score == pytest.approx(float(expected), rel=1e-4)


def test_the_best_constant_is_the_best(folder: Path) -> None:
    """No depth that occurs in a frame has a smaller Abs Rel as the answer everywhere."""
    store = open_clip_store(folder / "clips")
    found = score_best_constants(store, windows=2)
    sequence = store.split("heldout")[0]
    every, events = [], []
    for index in range(2):
        depth = sequence.depth[index].astype(np.float64)
        for errors, d in ((every, depth), (events, depth[sequence.windows[index] > 0])):
            errors.append(min(np.mean(np.abs(d - c) / d) for c in np.unique(d)))
    scores = found.sequences[sequence.name]
    assert scores["aligned_abs_rel"] == pytest.approx(np.mean(every), rel=1e-5)
    assert scores["events_aligned_abs_rel"] == pytest.approx(np.mean(events), rel=1e-5)


def plan_of(folder: Path) -> Plan:
    return Plan(folder, folder / "distillation_table", ("wedge",), 300, 600, (), 0)


def test_each_row_adds_one_idea(folder: Path) -> None:
    """From row to row only the settings of the new idea change, and seed 1 changes the seed."""
    found = [settings_of(plan_of(folder), row, 0).identity() for row in ROWS]
    changes = [
        {name for name in before if before[name] != after[name]}
        for before, after in itertools.pairwise(found)
    ]
    assert changes == [{"alpha"}, {"normalised_weight"}, {"local_global_share"}, {"teachers"}]
    assert (found[0]["alpha"], found[0]["normalised_weight"]) == (0.0, 0.0)
    assert found[-1]["normalisation"] == "hybrid"
    other = settings_of(plan_of(folder), "ssi", 1).identity()
    assert {name for name in other if other[name] != found[0][name]} == {"seed"}


def test_a_store_of_some_worlds(folder: Path, tmp_path: Path) -> None:
    """Linked sequences make a store that opens and verifies; all held-out ones stay."""
    assert kind_of("train/0041_street_301") == "street"
    for keep, expected in ((True, "train/0000_wedge_1"), (False, "train/0001_tower_2")):
        out = tmp_path / str(keep)
        for _ in range(2):
            subset(folder / "clips", out, ("wedge",), keep=keep)
        store = open_clip_store(out)
        store.verify()
        assert [item.name for item in store.split("train")] == [expected]
        assert len(store.split("heldout")) == 2
    with pytest.raises(ConfigurationError, match="it holds tower, wedge"):
        subset(folder / "clips", tmp_path / "none", ("room",), keep=True)


def test_the_distillation_table(folder: Path, tmp_path: Path) -> None:
    """Rows are trained, scored by kind of world and kept; a second call does only what is new."""
    command = ["--folder", str(folder), "--out", str(tmp_path), "--updates", "2"]
    command += ["--teacher-updates", "2", "--start", "wedge", "--windows", "2"]
    for setting in ("batch=1", "unroll=2", "burn_in=1", "evaluate_every=2", "heldout_windows=2"):
        command += ["--set", setting]
    assert bench_distillation.main([*command, "--rows", "ssi"]) == 0
    first = json.loads((tmp_path / "distillation.json").read_text())["results"]
    assert [entry["row"] for entry in first["rows"]] == ["none", "ssi"]
    assert list(first["teachers"]) == ["first"]
    state = folder / "distillation_table" / "ssi_0" / "scores.json"
    written_ns = state.stat().st_mtime_ns
    assert bench_distillation.main([*command, "--rows", "ssi,two_teachers"]) == 0
    assert state.stat().st_mtime_ns == written_ns
    table = json.loads((tmp_path / "distillation.json").read_text())["results"]
    assert [entry["row"] for entry in table["rows"]] == ["none", "ssi", "two_teachers"]
    assert table["teachers"]["second"]["seed"] == 1
    none, ssi = (entry["seeds"]["0"] for entry in table["rows"][:2])
    assert none["weights"] == table["start"] != ssi["weights"]
    for part, sequence in (("known", "heldout/0000_wedge_8"), ("new", "heldout/0001_tower_9")):
        for name in ("aligned_abs_rel", "events_aligned_delta_1"):
            assert ssi["parts"][part][name] == ssi["sequences"][sequence][name]
    assert "| two_teachers | 1 |" in (tmp_path / "distillation.md").read_text()
    assert cv2.imread(str(tmp_path / "distillation_curves.png")).std() > 5
