"""A learner that is killed at any instant goes on from the disk to the same bits."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import torch

from dae_ros.distillation.online.persistence import (
    OnlineStore,
)
from dae_ros.model.checkpoint import LoadedModel, save_checkpoint
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.online_clips import same_clip

ROOT = Path(__file__).resolve().parents[3]
# One process loads PyTorch once; each attempt is a fork of it that may be killed at any time.
DRIVER = """
import os, signal, sys, time, types
sys.modules["test"] = package = types.ModuleType("test")  # the standard library has one as well
package.__path__ = ["test"]
from pathlib import Path
import torch
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.anchor_streams import AnchorStreams
from dae_ros.distillation.online.learner import Learner
from dae_ros.distillation.online.persistence import OnlineStore
from dae_ros.distillation.online.replay import Admitted, ReplayBuffer
from dae_ros.model.checkpoint import load_checkpoint
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import wedge_clip

weights, folder, steps, delays = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
torch.set_num_threads(1)
loaded = load_checkpoint(weights)
places = open_clip_store(folder.parent / "places")
parameters = OnlineParameters.from_mapping(dict(
    lead=1, burn_in=1, unroll=2, labels_per_clip=1, replay_clips=8, heldout_every=0,
    learning_rate=1e-3, soft_reset_steps=5, cache_mb=0, largest_similarity=1.0, anchor_streams=2,
))

def learn():
    learner = Learner(loaded, parameters, torch.device("cpu"))
    buffer, begin = ReplayBuffer(parameters), 0
    streams = AnchorStreams(places.split("train"), places.digest, parameters)
    with OnlineStore(folder, segment_bytes=200_000) as store:
        state = store.load()
        if state is not None:
            begin = state["step"]
            learner.restore(state["learner"])
            streams.restore(state["streams"])
            missing = buffer.restore(state["replay"], store.clips("clip"))
            assert missing == 0, missing
        for step in range(begin, steps):
            clip = wedge_clip(step, length=4)
            clip = learner.remember(clip, learner.original.predict(clip.observation, learner.lead))
            result = buffer.admit(clip)
            if isinstance(result, Admitted):
                store.append("clip", result.key, clip)
            learner.step(buffer.draw(step, 2), streams.visit(1), step)
            state = {"step": step + 1, "learner": learner.state(), "replay": buffer.state(),
                     "streams": streams.state()}
            store.save(state, [("clip", key) for key in buffer.keys])

def saved():
    return max((path.stat().st_mtime_ns for path in folder.glob("state.bin")), default=0)

kills = 0
while True:
    before = saved()
    child = os.fork()
    if child == 0:
        learn()
        os._exit(0)
    if delays:
        # Not before a step of its own is on disk: what then goes on has something to go on from.
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while saved() == before and os.waitid(os.P_PID, child, look) is None:
            time.sleep(0.01)
        time.sleep(float(delays.pop(0)))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    elif os.waitstatus_to_exitcode(status) == 0:
        print(kills)
        break
    else:
        sys.exit(1)
"""


def test_kill_9_costs_nothing_but_time(tmp_path: Path, student: LoadedModel) -> None:
    """Killed three times at random instants, a learner ends with the state of another one."""
    save_checkpoint(tmp_path / "w.safetensors", student.network, student.meaning)
    wedge_clips(tmp_path / "places", [WedgeSource(1, 28, 42, windows=12)], [WedgeSource(2, 28, 42)])
    generator = random.Random(1)
    delays = [f"{generator.uniform(0.0, 0.3):.3f}" for _ in range(3)]
    states = []
    for name, kills in (("whole", []), ("killed", delays)):
        command = [
            sys.executable, "-c", DRIVER, str(tmp_path / "w.safetensors"), str(tmp_path / name),
            "12", *kills,
        ]  # fmt: skip
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800
        )
        assert result.returncode == 0, result.stderr
        assert int(result.stdout) <= len(kills)
        with OnlineStore(tmp_path / name) as store:
            states.append((store.load(), store.clips("clip")))
    (whole, clips), (killed, others) = states
    assert whole is not None and killed is not None
    assert flat(whole) == flat(killed)
    held = whole["replay"]["keys"]["train"]
    assert any(states for *_, states in whole["streams"]["streams"])
    assert len(held) == 8 and all(same_clip(clips[key], others[key]) for key in held)


def flat(value: object) -> object:
    """Return a state in which tensors are their bytes."""
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item) for item in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
