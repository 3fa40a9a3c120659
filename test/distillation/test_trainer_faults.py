"""Kills, damage and full disks: a run goes on as if nothing had been, and keeps what it had."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dae_ros.distillation.checkpointing import STATE_FILE
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.journal import Journal
from dae_ros.distillation.runs import train
from dae_ros.errors import DistillationError
from test.reference.full_disk import no_room_beyond
from test.reference.training_runs import rows, weights, write_settings

ROOT = Path(__file__).resolve().parents[2]
Settings = Callable[..., TrainingParameters]
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
