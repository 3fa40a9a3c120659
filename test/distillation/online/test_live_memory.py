"""Memory of live learning, of the machine and of a GPU: held, given back and waited for."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from dae_ros.distillation.online.live import (
    RETRY_NS,
)
from dae_ros.distillation.online.opening import Student
from dae_ros.nodes.processes import transport_environment
from dae_ros.runtime.torch_process import release_unused, used_bytes
from test.reference.running_learner import SECOND, Make


def test_memory_that_is_held_for_later_is_given_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the hold would never end where PyTorch keeps what it has: once, when it begins."""
    given_back: list[str] = []
    monkeypatch.setattr(
        "dae_ros.distillation.online.live.release_unused",
        lambda device: given_back.append(device.type),
    )
    running = make()
    running.see()
    distiller = running.live._distiller
    assert distiller is not None
    cache = distiller._learner._lessons._cache
    assert cache.byte_count > 0
    before = running.live._parameters
    running.live.apply(dataclasses.replace(before, memory_mb=1))
    running.now_ns += SECOND
    assert running.turns(1) == [] and running.live.health.reason == "memory"
    assert (cache.byte_count, given_back) == (0, ["cpu"])
    running.now_ns += SECOND
    running.turns(1)
    assert given_back == ["cpu"]
    running.live.apply(before)
    running.now_ns += SECOND
    assert running.turns(1) and running.live.health.state == "active"


def test_memory_of_work_that_failed_for_want_of_it_is_given_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when nothing holds it any more: an error that is handled holds what was in hand."""
    running = make()
    running.see()
    distiller = running.live._distiller
    assert distiller is not None
    in_hand: list[weakref.ref[torch.Tensor]] = []
    held: list[bool] = []

    def no_room(*_: object, **__: object) -> None:
        activations = torch.zeros(3)
        in_hand.append(weakref.ref(activations))
        raise torch.cuda.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(distiller, "work", no_room)
    monkeypatch.setattr(
        "dae_ros.distillation.online.live.release_unused",
        lambda device: held.append(in_hand[-1]() is not None),
    )
    running.now_ns += SECOND
    assert running.turns(1) == [] and running.live.health.text == "holding:memory"
    assert held == [False]


@pytest.mark.parametrize("loaded", ["teacher", "learn"])
def test_a_gpu_that_is_full_is_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch, loaded: str
) -> None:
    """Where teacher or student find no room, it is tried again, as where a file is missing."""

    def no_room(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("tried to allocate")

    with monkeypatch.context() as full:
        full.setattr(Student, loaded, no_room)
        running = make()
        assert running.live.health.text == "holding:memory" and running.announced == []
    running.now_ns += RETRY_NS
    running.turns(1)
    assert running.live.health.reason != "memory"
    assert [one.version for one in running.announced] == [1]


def test_unused_memory_of_the_machine_is_given_back() -> None:
    """Also where the launch files make glibc keep it, in a process of its own."""
    program = """
import torch
from dae_ros.runtime.torch_process import release_unused, used_bytes
cpu = torch.device("cpu")
taken = [torch.ones(250_000) for _ in range(300)]
print(used_bytes(cpu))
del taken
release_unused(cpu)
print(used_bytes(cpu))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **transport_environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, done.stdout.split())
    assert before - after > 250e6


def test_clips_that_are_mapped_take_no_memory(tmp_path: Path) -> None:
    """What was read of a large store stays in the page cache, which is nobody's."""
    path, cpu = tmp_path / "clips.npy", torch.device("cpu")
    np.save(path, np.ones((300, 1_000_000), np.uint8))
    before = used_bytes(cpu)
    mapped = np.load(path, mmap_mode="r")
    assert int(mapped[:, ::4096].sum()) > 0
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    assert resident * os.sysconf("SC_PAGE_SIZE") > 300e6
    assert used_bytes(cpu) - before < 100e6


def test_unused_memory_of_a_gpu_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own cache is emptied, where the device is one."""
    emptied: list[None] = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: emptied.append(None))
    release_unused(torch.device("cpu"))
    assert not emptied
    release_unused(torch.device("cuda"))
    assert len(emptied) == 1
