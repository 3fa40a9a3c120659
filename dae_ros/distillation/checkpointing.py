"""The state of a run on disk: whole at every instant, so that kill -9 costs seconds, not weights.

Everything that a run draws depends on (seed, step), so the state is the step, the weights, their
average, the optimizer's moments and a few counters.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dae_ros.distillation.clip_writer import sync_folder
from dae_ros.errors import ConfigurationError, DistillationError

STATE_FILE = "state.pt"
FORMAT = 1


@dataclass
class RunState:
    """What the next update needs.

    Attributes:
        identity: settings and data that a continuation must share.
        step: of the next update.
        updates: of `Updates.state`: weights, their average, moments.
        counters: name -> count since the start of the run.
        best, best_step: lowest score so far, and of which update; None before the first.
    """

    identity: dict[str, Any]
    step: int = 0
    updates: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None


def save_state(folder: Path, state: RunState) -> None:
    """Replace the state file, atomically and durably.

    Raises:
        DistillationError: it cannot be written; the state that was there before still is.
    """
    path = folder / STATE_FILE
    temporary = folder / f".{STATE_FILE}.tmp"
    content = {
        "format": FORMAT,
        **{item.name: getattr(state, item.name) for item in dataclasses.fields(state)},
    }
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)
    # PyTorch wraps what the file says into a RuntimeError.
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise DistillationError(
            f"{path} cannot be written ({error}); the state saved before is whole. Make room and "
            "run the same command again",
            path=str(path),
            step=state.step,
        ) from error


def load_state(folder: Path, identity: dict[str, Any]) -> RunState | None:
    """Read the state of a run that was stopped or killed; None where there is none.

    Args:
        folder: of the run.
        identity: of what is to go on.

    Raises:
        ConfigurationError: the folder holds a run of other settings or data.
        DistillationError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("format") != FORMAT:
            raise ValueError("of another version")
        state = RunState(**content)
    except (
        RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise DistillationError(
            f"{path} is damaged ({type(error).__name__}: {str(error)[:100]}). Remove it to begin "
            "anew; last.safetensors and best.safetensors beside it are as they were",
            path=str(path),
        ) from error
    other = sorted(
        name
        for name in {*identity, *state.identity}
        if identity.get(name) != state.identity.get(name)
    )
    if other:
        differences = ", ".join(
            f"{name} ({state.identity.get(name)!r}, now {identity.get(name)!r})" for name in other
        )
        raise ConfigurationError(
            f"{folder} holds a run with other settings: {differences}. Choose another --out",
            path=str(folder),
            differences=other,
        )
    return state
