"""The folder that a run writes into: made, or emptied of an earlier run, and of nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from dae_ros.errors import ConfigurationError


@contextlib.contextmanager
def output_folder(out: Path, overwrite: bool, outputs: Collection[str]) -> Iterator[None]:
    """Make room for the outputs of a run; where the run fails, leave no empty folder behind.

    Args:
        out: made if it is not there, with the folders above it.
        overwrite: whether outputs of an earlier run may be removed; nothing else ever is.
        outputs: names of what such a run leaves.

    Raises:
        ConfigurationError: something is there that may not be removed, or nothing can be written
            there.
    """
    made: list[Path] = []
    try:
        _make_room(out, overwrite, outputs)
        _make(out, made)
    except OSError as error:
        _remove_empty(made)
        raise ConfigurationError(
            f"{out} cannot be written: {error.strerror or error}; give another --out",
            path=str(out),
        ) from error
    try:
        yield
    except BaseException:
        _remove_empty(made)
        raise


def _make_room(out: Path, overwrite: bool, outputs: Collection[str]) -> None:
    present = sorted(item.name for item in out.iterdir()) if out.is_dir() else []
    leftovers = {f"{name}.partial" for name in outputs}
    foreign = [name for name in present if name not in outputs and name not in leftovers]
    if out.exists() and (not out.is_dir() or foreign or (present and not overwrite)):
        what = f"holds {', '.join(foreign)}" if overwrite and foreign else "is there already"
        raise ConfigurationError(
            f"{out} {what}; give another --out"
            + ("" if foreign or overwrite else ", or --overwrite to replace an earlier run"),
            path=str(out),
        )
    for name in present:
        _remove(out / name)


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it, noting them innermost first."""
    if folder.is_dir():
        return
    _make(folder.parent, made)
    folder.mkdir()
    made.insert(0, folder)


def _remove_empty(made: list[Path]) -> None:
    for folder in made:
        if any(folder.iterdir()):
            return
        folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for item in path.iterdir():
            _remove(item)
        path.rmdir()
    else:
        path.unlink()


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
