"""The state of a run on disk: whole at every instant, so that kill -9 costs seconds, not weights.

Everything that a run draws depends on (seed, step), so the state is the step, the weights, their
average, the optimizer's moments and a few counters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from dae_ros.errors import ConfigurationError, DistillationError, reason_of
from dae_ros.model.durable_files import sync

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
        upright: of `UprightWatch.state`.
    """

    identity: dict[str, Any]
    step: int = 0
    updates: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    upright: dict[str, float | None] = field(default_factory=dict)


@contextlib.contextmanager
def on_disk(path: Path, **data: object) -> Iterator[None]:
    """Say of a file of a run why it cannot be written, and what is left.

    Raises:
        DistillationError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        left = (
            f"{STATE_FILE} holds the run as it was saved last, and the same command goes on there"
            if (path.parent / STATE_FILE).exists()
            else "nothing of this run was saved before, and the same command begins it anew"
        )
        raise DistillationError(
            f"{path} cannot be written: {reason_of(error)}. Make room: {left}",
            path=str(path),
            **data,
        ) from error


def save_state(folder: Path, state: RunState) -> None:
    """Replace the state file, atomically and durably.

    Raises:
        DistillationError: it cannot be written; a state that was there before still is.
    """
    path = folder / STATE_FILE
    temporary = folder / f".{STATE_FILE}.tmp"
    content = {
        "format": FORMAT,
        **{item.name: getattr(state, item.name) for item in dataclasses.fields(state)},
    }
    try:
        with on_disk(path, step=state.step):
            with temporary.open("wb") as file:
                _save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(folder)
    except DistillationError:
        temporary.unlink(missing_ok=True)
        raise


def _save(content: dict[str, Any], file: BinaryIO) -> None:
    """Save, and raise what the file said: PyTorch says only that it could not write."""
    watched = _Watched(file)
    try:
        torch.save(content, cast("IO[bytes]", watched))
    except RuntimeError as error:
        if watched.error is None:
            raise
        raise watched.error from error


class _Watched:
    """A binary file for PyTorch that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


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
