"""The training loop: it learns, repeats itself, survives kills, and refuses what is broken."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dae_ros.cli.main import main
from dae_ros.distillation.batches import ClipSampler
from dae_ros.distillation.checkpointing import STATE_FILE
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.runs import train
from dae_ros.distillation.schedule import average_decay, learning_rate, update_average
from dae_ros.errors import ConfigurationError, DistillationError
from dae_ros.model.checkpoint import load_checkpoint
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.training_runs import rows, weights, write_settings

ROOT = Path(__file__).resolve().parents[2]
Settings = Callable[..., TrainingParameters]


def test_a_clip_is_learned_by_heart(overfitted: Path) -> None:
    """A student that sees one clip over and over reaches a metric Abs Rel below 0.02 on it."""
    scores = rows(overfitted / "heldout.csv")[-1]
    assert float(scores["metric_abs_rel"]) < 0.02
    assert float(scores["aligned_abs_rel"]) < 0.02
    assert float(scores["aligned_positive_scale"]) == 1.0
    updates = rows(overfitted / "updates.csv")
    assert [int(row["step"]) for row in updates] == list(range(260))
    assert float(updates[-1]["loss"]) < 0.1 * float(updates[0]["loss"])


def test_a_checkpoint_says_what_it_is(overfitted: Path, settings: Settings) -> None:
    """best.safetensors gives metric depth, loads strictly and names settings, clips and scores."""
    loaded = load_checkpoint(overfitted / "best.safetensors")
    assert (loaded.meaning.orientation, loaded.meaning.scale) == ("depth", "metric")
    assert loaded.meaning.event_encoder == "tencode"
    with safe_open(overfitted / "best.safetensors", "pt") as file:
        facts = file.metadata()
    assert facts["step"] == "260"
    assert json.loads(facts["settings"])["steps"] == 260
    assert json.loads(facts["heldout"])["metric_abs_rel"] < 0.02
    assert len(json.loads(facts["clips"])) == 1
    assert json.loads((overfitted / "report.json").read_text())["updates"] == 260


def test_equal_runs_are_equal(tmp_path: Path, settings: Settings) -> None:
    """Two runs give the same bytes; another seed gives others."""
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        train(settings(seed=seed), tmp_path / name)
    for name in ("last.safetensors", "best.safetensors"):
        assert weights(tmp_path / "first", name) == weights(tmp_path / "second", name)
    assert weights(tmp_path / "first") != weights(tmp_path / "third")


@pytest.mark.parametrize("muon_rate", [0.0, 0.01])
def test_a_stopped_run_goes_on(tmp_path: Path, settings: Settings, muon_rate: float) -> None:
    """Stopped after any update and taken up again, a run ends as if it had never stopped."""
    train(settings(muon_rate=muon_rate), tmp_path / "whole")
    asked = 0

    def stop_every_second() -> bool:
        nonlocal asked
        asked += 1
        return asked % 2 == 0

    results = []
    while not results or results[-1].interrupted:
        results.append(
            train(settings(muon_rate=muon_rate), tmp_path / "parts", stopped=stop_every_second)
        )
    assert [result.step for result in results] == [2, 4, 6]
    assert [result.interrupted for result in results] == [True, True, False]
    for name in ("last.safetensors", "best.safetensors"):
        assert weights(tmp_path / "whole", name) == weights(tmp_path / "parts", name)
    for name in ("updates.csv", "heldout.csv"):
        whole, parts = rows(tmp_path / "whole" / name), rows(tmp_path / "parts" / name)
        for row in (*whole, *parts):
            row.pop("seconds", None)
        assert whole == parts
    again = train(settings(muon_rate=muon_rate), tmp_path / "parts")
    assert again.step == 6 and weights(tmp_path / "whole") == weights(tmp_path / "parts")


def test_ctrl_c_leaves_a_whole_run(tmp_path: Path, settings: Settings) -> None:
    """SIGINT ends the verb with 130 and a state that ends like an undisturbed run."""
    config = write_settings(tmp_path, settings(steps=20, evaluate_every=20))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "dae_ros.cli", "train", str(config), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (out / STATE_FILE).exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130
    assert process.stderr is not None and "run the same command again" in process.stderr.read()
    process.stderr.close()
    step = json.loads((out / "report.json").read_text())["updates"]
    assert 0 < step < 20
    load_checkpoint(out / "last.safetensors")
    assert main(["train", str(config), "--out", str(out)]) == 0
    train(settings(steps=20, evaluate_every=20), tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")


def test_two_processes_learn_as_one(tmp_path: Path, settings: Settings) -> None:
    """torchrun with two processes gives the weights of one, where some clips have no label too."""
    store = wedge_clips(
        tmp_path / "clips", [WedgeSource(1), WedgeSource(2, depth=False), WedgeSource(3)], []
    )
    some = settings(clips=store, steps=3, batch=4, normalised_weight=0.25)
    config = write_settings(tmp_path, some)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "dae_ros.cli", "train", str(config), "--out", str(tmp_path / "two")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    train(some, tmp_path / "one")
    one = load_checkpoint(tmp_path / "one" / "last.safetensors").network.state_dict()
    two = load_checkpoint(tmp_path / "two" / "last.safetensors").network.state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    losses = [
        [float(row["loss"]) for row in rows(tmp_path / name / "updates.csv")]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    with pytest.raises(ConfigurationError, match="cannot be divided"):
        ClipSampler((), settings(batch=3), (0, 2))


# PyTorch lets a process wait 10 minutes for another on GPUs and 30 on CPUs; here 3 seconds.
LONG_SCORE = """
import sys, time
from datetime import timedelta
from torch.distributed import distributed_c10d
distributed_c10d.default_pg_timeout = timedelta(seconds=3)
from dae_ros.distillation.parallel import join_workers
with join_workers("cpu") as workers:
    if workers.first:
        time.sleep(8)
    workers.wait()
"""


def test_processes_wait_for_a_long_score(tmp_path: Path) -> None:
    """The others wait as long as the first process scores, whatever PyTorch's own patience is."""
    (tmp_path / "score.py").write_text(LONG_SCORE, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += [str(tmp_path / "score.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr


def test_gradients_that_are_not_finite_are_refused(tmp_path: Path, settings: Settings) -> None:
    """A broken window costs its updates, is counted, and never reaches the weights."""
    train_set = [WedgeSource(1), WedgeSource(2, windows=3, broken_at=1)]
    store = wedge_clips(tmp_path / "clips", train_set, [], "voxel_grid")
    some = settings(
        weights="untrained:tiny_e2depth", clips=store, steps=12, loss="silog", evaluate_every=12
    )
    result = train(some, tmp_path / "run")
    refused = result.counters["updates_refused"]
    assert 0 < refused < 12
    norms = [float(row["gradient_norm"]) for row in rows(tmp_path / "run" / "updates.csv")]
    assert sum(not math.isfinite(norm) for norm in norms) == refused
    for value in load_checkpoint(tmp_path / "run/last.safetensors").network.state_dict().values():
        assert torch.isfinite(value).all()


def test_a_run_that_cannot_learn_gives_up(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When every gradient is broken the run ends with a sentence, not after days."""
    monkeypatch.setattr("dae_ros.distillation.updates.REFUSED_IN_A_ROW", 4)
    store = wedge_clips(
        tmp_path / "clips", [WedgeSource(2, windows=3, broken_at=1)], [], "voxel_grid"
    )
    broken = settings(weights="untrained:tiny_e2depth", clips=store, steps=50, loss="silog")
    with pytest.raises(DistillationError, match="Lower 'learning_rate'"):
        train(broken, tmp_path / "run")


@pytest.mark.parametrize("loss", ["log_depth", "published"])
def test_depth_that_is_unknown_everywhere_teaches_nothing(
    tmp_path: Path, settings: Settings, loss: str
) -> None:
    """A loss of 0 because no pixel has a label ends the run; it is not perfection."""
    store = wedge_clips(tmp_path / "clips", [WedgeSource(1)], [])
    nowhere = settings(clips=store, steps=3, loss=loss, maximum_depth_m=0.1)
    with pytest.raises(DistillationError, match="3 updates in a row had no label on any pixel"):
        train(nowhere, tmp_path / "run")


def test_a_run_does_not_go_on_as_another(tmp_path: Path, settings: Settings) -> None:
    """Other settings in the same folder are refused by name and change nothing; free ones pass."""
    train(settings(steps=3), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigurationError, match=r"learning_rate \(0.003, now 0.1\)"):
        train(settings(steps=3, learning_rate=0.1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert train(settings(steps=3, save_every=1), tmp_path).step == 3


def test_a_run_that_has_ended_keeps_its_report(tmp_path: Path, settings: Settings) -> None:
    """The same command again changes no number; a report that a kill kept from the disk comes."""
    path = tmp_path / "report.json"
    train(settings(steps=3), tmp_path)
    before = path.read_bytes()
    assert train(settings(steps=3), tmp_path).updates_per_s is None
    assert path.read_bytes() == before
    facts = json.loads(before)
    for left in (None, "{", json.dumps({**facts, "updates": 2, "interrupted": True})):
        path.unlink() if left is None else path.write_text(left)
        train(settings(steps=3), tmp_path)
        assert json.loads(path.read_text()) == {**facts, "updates_per_s": None}


def test_schedule_by_hand() -> None:
    """The rate climbs linearly, is at its peak after warm-up, and ends at its final part."""
    rates = [learning_rate(step, peak=1.0, final=0.1, warm_up=3, steps=8) for step in range(8)]
    half = 0.1 + 0.9 * 0.5
    expected = [0.25, 0.5, 0.75, 1.0, 0.1 + 0.45 * (1 + math.sqrt(0.5)), half]
    expected += [0.1 + 0.45 * (1 - math.sqrt(0.5)), 0.1]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert learning_rate(5, peak=2.0, final=1.0, warm_up=0, steps=9) == 2.0


def test_average_by_hand() -> None:
    """The average moves by 1 - decay; the decay grows from 0.1."""
    average, weight = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}
    update_average(average, weight, 0.75)
    torch.testing.assert_close(average["w"], torch.tensor([1.5, 2.0]))
    assert [average_decay(step, 0.5) for step in (0, 5, 100)] == [0.1, 0.4, 0.5]


def test_tensorboard_on_demand(tmp_path: Path, settings: Settings) -> None:
    """With `tensorboard` a file of events is written beside the CSV."""
    pytest.importorskip("tensorboard")
    train(settings(steps=3, tensorboard=True), tmp_path)
    assert [path for path in (tmp_path / "tensorboard").iterdir() if path.stat().st_size > 0]


def test_half_precision_learns(tmp_path: Path, settings: Settings) -> None:
    """bfloat16 gives finite weights close to those of float32."""
    train(settings(steps=3), tmp_path / "full")
    train(settings(steps=3, precision="bfloat16"), tmp_path / "half")
    losses = [
        [float(row["loss"]) for row in rows(tmp_path / name / "updates.csv")]
        for name in ("full", "half")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_the_verbs_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    """--settings lists presets and every setting; without CONFIG the verb says what to give."""
    for verb in ("train", "distill"):
        assert main([verb, "--settings"]) == 0
        text = capsys.readouterr().out
        assert "learning_rate = " in text and "first_weights" in text
        assert main([verb]) == 2
        assert "give CONFIG and --out" in capsys.readouterr().err
