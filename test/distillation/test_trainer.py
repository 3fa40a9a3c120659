"""The training loop: it learns, repeats itself, survives kills, and refuses what is broken."""

from __future__ import annotations

import csv
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
from dae_ros.distillation.configuration import TrainingParameters, to_yaml
from dae_ros.distillation.journal import Journal
from dae_ros.distillation.runs import train
from dae_ros.distillation.schedule import average_decay, learning_rate, update_average
from dae_ros.errors import ConfigurationError, DistillationError
from dae_ros.model.checkpoint import load_checkpoint
from test.reference.full_disk import no_room_beyond
from test.reference.moving_wedge import WedgeSource, wedge_clips

ROOT = Path(__file__).resolve().parents[2]
Settings = Callable[..., TrainingParameters]


def weights(folder: Path, name: str = "last.safetensors") -> dict[str, object]:
    """Return every bit of a checkpoint: safetensors orders its meta-data as it likes."""
    with safe_open(folder / name, "pt") as file:
        tensors = {key: file.get_tensor(key).numpy().tobytes() for key in file.keys()}  # noqa: SIM118 - no dict
        return {**tensors, **file.metadata()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_settings(folder: Path, settings: TrainingParameters) -> Path:
    path = folder / "settings.yaml"
    path.write_text(to_yaml(settings), encoding="utf-8")
    return path


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


# One process loads PyTorch once; each attempt is a fork of it. A kill comes when so many updates
# are done, drawn at random over the whole run, and a random part of an update later: while the
# state is being saved, in the midst of an update, or before the first one after a start.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
from dae_ros.distillation.configuration import TrainingParameters, load_settings
from dae_ros.distillation.journal import Journal
from dae_ros.distillation.runs import train
path, folder, kills, update_s = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
settings = load_settings(TrainingParameters, path)
draw = random.Random(1)
instants = sorted(draw.randrange(1, settings.steps - 5) for _ in range(kills))
hit = []

def updates():
    file = folder / "updates.csv"
    return file.read_bytes().count(b"\\n") - 1 if file.exists() else 0

while True:
    child = os.fork()
    if child == 0:
        train(settings, folder)
        os._exit(0)
    if len(hit) < kills:
        while updates() < instants[len(hit)] and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, update_s))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        hit.append(updates())
    elif os.waitstatus_to_exitcode(status) == 0:
        print(json.dumps(hit))
        break
    else:
        sys.exit(1)
"""


def kill_and_finish(tmp_path: Path, settings: TrainingParameters, kills: int) -> list[int]:
    """Kill a run at random instants, let it finish; return how many updates each kill found."""
    begin_s = time.perf_counter()
    train(settings, tmp_path / "whole")
    update_s = (time.perf_counter() - begin_s) / settings.steps
    path = write_settings(tmp_path, settings)
    command = [sys.executable, "-c", DRIVER, str(path), str(tmp_path / "killed")]
    command += [str(kills), f"{update_s:.4f}"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800
    )
    assert result.returncode == 0, result.stderr
    for name in ("last.safetensors", "best.safetensors"):
        assert weights(tmp_path / "whole", name) == weights(tmp_path / "killed", name)
    found: list[int] = json.loads(result.stdout)
    assert len(found) == kills
    return found


def test_kill_9_costs_nothing_but_time(tmp_path: Path, settings: Settings) -> None:
    """Killed twice at random instants, a run ends with the bytes of an undisturbed one."""
    few = settings(steps=12, save_every=1, evaluate_every=4)
    kill_and_finish(tmp_path, few, 2)
    steps = [int(row["step"]) for row in rows(tmp_path / "killed" / "updates.csv")]
    assert steps == list(range(12))


@pytest.mark.slow
def test_kill_9_twenty_times(tmp_path: Path, settings: Settings) -> None:
    """Killed twenty times all along its way, a run ends with the same bytes."""
    many = settings(steps=40, save_every=2, evaluate_every=10)
    found = kill_and_finish(tmp_path, many, 20)
    assert len(set(found)) >= 10 and max(found) - min(found) >= 20


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


def test_rows_that_come_again_are_cut_off(tmp_path: Path) -> None:
    """Rows from the next update on, and half a row at the end, leave the journal."""
    path = tmp_path / "updates.csv"
    path.write_text("step,loss\n0,0.5\n1,0.25\n2,0.125\n3,0.0")
    heldout = tmp_path / "heldout.csv"
    heldout.write_text("step,abs_rel\n2,0.5\n4,0.4\n")
    with Journal(tmp_path, 2, tensorboard=False) as journal:
        journal.update(2, {"learning_rate": 0.1, "loss": 0.25})
        journal.score(4, {"abs_rel": 0.3})
    # The columns are those of the file, which an earlier version may have begun.
    assert path.read_text().splitlines() == ["step,loss", "0,0.5", "1,0.25", "2,0.25"]
    assert heldout.read_text().splitlines() == ["step,abs_rel", "2,0.5", "4,0.3"]


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


def test_damage_and_a_full_disk_lose_nothing(tmp_path: Path, settings: Settings) -> None:
    """A cut state is refused; where nothing fits on the disk, the state before stays whole."""
    stops = iter([False, True, True])
    train(settings(), tmp_path, stopped=lambda: next(stops))
    before = (tmp_path / STATE_FILE).read_bytes()
    said = r"cannot be written: File too large\. Make room: state.pt holds the run as it was saved"
    with no_room_beyond(1_000_000), pytest.raises(DistillationError, match=said):
        train(settings(), tmp_path)
    assert (tmp_path / STATE_FILE).read_bytes() == before
    assert not [path.name for path in tmp_path.iterdir() if ".tmp" in path.name]
    train(settings(), tmp_path)
    train(settings(), tmp_path.with_name("whole"))
    assert weights(tmp_path) == weights(tmp_path.with_name("whole"))
    (tmp_path / STATE_FILE).write_bytes(before[: len(before) // 2])
    with pytest.raises(DistillationError, match="is damaged"):
        train(settings(), tmp_path)


@pytest.mark.parametrize(("room", "file"), [(100, "settings.yaml"), (1_000_000, "state.pt")])
def test_a_disk_that_was_full_from_the_beginning(
    tmp_path: Path, settings: Settings, room: int, file: str
) -> None:
    """When nothing was saved before the sentence says so, and no half file stays behind."""
    said = f"{file} cannot be written: File too large.*nothing of this run was saved before"
    with no_room_beyond(room), pytest.raises(DistillationError, match=said):
        train(settings(steps=3, save_every=2, evaluate_every=3), tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if ".tmp" in path.name]
    assert not (tmp_path / "last.safetensors").exists()


def write_rows(folder: Path, losses: dict[int, float]) -> None:
    with Journal(folder, min(losses), tensorboard=False) as journal:
        for step, loss in losses.items():
            journal.update(step, {"loss": loss})


def test_a_row_that_does_not_fit_ends_the_run(tmp_path: Path) -> None:
    """The journal says which file is full; the rows before stay, and half a row is cut off next."""
    path = tmp_path / "updates.csv"
    write_rows(tmp_path, {0: 0.5})
    full = path.stat().st_size + 3
    with no_room_beyond(full), pytest.raises(DistillationError, match=r"updates\.csv cannot be"):
        write_rows(tmp_path, {1: 0.25})
    assert path.stat().st_size == full
    write_rows(tmp_path, {1: 0.125})
    assert [row["loss"] for row in rows(path)] == ["0.5", "0.125"]


def test_weights_that_a_kill_kept_from_the_disk_come_again(
    tmp_path: Path, settings: Settings
) -> None:
    """The state is saved before the weights, so a run that has ended writes them if they lack."""
    train(settings(steps=3), tmp_path)
    whole = weights(tmp_path)
    (tmp_path / "last.safetensors").unlink()
    assert train(settings(steps=3), tmp_path).step == 3
    assert weights(tmp_path) == whole


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
