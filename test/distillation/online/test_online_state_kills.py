"""The learner's state between damage and kills: one that is whole is always there."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from dae_ros.distillation.online.persistence import PREVIOUS_FILE, STATE_FILE, OnlineStore

ROOT = Path(__file__).resolve().parents[3]

# Each save is a fork that kills itself before one of its file operations, all of which Python
# tells (PEP 578).
DRIVER = """
import os, random, signal, sys, types
sys.modules["test"] = package = types.ModuleType("test")  # the standard library has one as well
package.__path__ = ["test"]
from pathlib import Path
import torch
from dae_ros.distillation.online.persistence import OnlineStore
from test.reference.online_clips import small_clip

top, kind, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
OPERATIONS = {"open", "os.rename", "os.remove", "os.truncate"}

def save(folder, step, operation=None):
    # Return whether the save ended.
    child = os.fork()
    if child == 0:
        left = [operation]
        def told(event, arguments):
            if event in OPERATIONS and str(arguments[0]).startswith(str(folder)):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
        with OnlineStore(folder) as store:
            if operation is not None:
                sys.addaudithook(told)
            store.load()
            store.append("clip", step, small_clip(10**9 * step))
            store.save({"step": step}, [("clip", step)])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True

def found(folder):
    with OnlineStore(folder) as store:
        state = store.load()
        if state is None:
            return None
        store.read("clip", state["step"])  # what it refers to is there
        return state["step"]

def damage(path, random):
    content = path.read_bytes()
    at = random.randrange(len(content))
    cut = content[:at]
    path.write_bytes(random.choice([cut, cut + bytes([content[at] ^ 1]) + content[at + 1 :], b""]))

def begin(name):
    folder = top / name
    for step in (1, 2):
        assert save(folder, step)
    return folder

def check(before, after, step, ended, what):
    wanted = {step} if ended else {before, step}
    if after not in wanted:
        print(f"{what}: found {after}, not one of {wanted}")
        sys.exit(1)

chance = random.Random(seed)
if kind == "every_place":
    for damaged in (False, True):
        operation, ended = 0, False
        while not ended:
            folder = begin(f"{damaged}_{operation}")
            if damaged:
                damage(folder / "state.bin", chance)
            before = found(folder)
            assert before == (1 if damaged else 2)
            ended = save(folder, 3, operation)
            check(before, found(folder), 3, ended, f"damaged {damaged}, operation {operation}")
            operation += 1
        assert operation > 5, operation
else:
    folder = begin("sequence")
    for step in range(3, 40):
        state = folder / "state.bin"
        if state.exists() and chance.random() < 0.5:
            damage(state, chance)
        before = found(folder)
        ended = save(folder, step, chance.randrange(12))
        check(before, found(folder), step, ended, f"step {step}")
"""


@pytest.mark.parametrize(("kind", "seed"), [("every_place", 0), ("sequence", 1), ("sequence", 2)])
def test_no_kill_and_no_damage_of_one_file_costs_every_state(
    tmp_path: Path, kind: str, seed: int
) -> None:
    """Killed before each file operation of a save, after the newest state was damaged or not.

    What is found is the state that was found before, or the one that was being saved, with its
    clips.
    """
    command = [sys.executable, "-c", DRIVER, str(tmp_path), kind, str(seed)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_state_that_is_damaged_is_told_and_never_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before it is taken and stays; a log line and a count say so, once for each file."""
    path, previous = tmp_path / STATE_FILE, tmp_path / PREVIOUS_FILE
    with OnlineStore(tmp_path) as store:
        for step in (1, 2):
            store.save({"step": step}, [])
        assert store.load() == {"step": 2} and not store.losses
    whole = previous.read_bytes()
    path.write_bytes(b"DAEONL04 and nothing that belongs to it")
    with caplog.at_level(logging.WARNING), OnlineStore(tmp_path) as store:
        assert store.load() == {"step": 1}
        assert store.losses == {"state_damaged": 1}
        assert [record.getMessage() for record in caplog.records] == [
            f"{path} is damaged and is left out; what was saved before it is looked for"
        ]
        store.save({"step": 3}, [])
        assert previous.read_bytes() == whole
        store.save({"step": 4}, [])
        assert previous.read_bytes() != whole
        path.write_bytes(b"")
        assert store.load() == {"step": 3}
        previous.write_bytes(b"")
        assert store.load() is None and store.losses["state_damaged"] == 4
