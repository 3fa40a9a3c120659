"""The folder that a run writes into; an earlier run goes when this one has ended."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from dae_ros.errors import ConfigurationError
from dae_ros.paths import whole_file

# Where a run writes that is to replace an earlier one, inside of the folder: beside it there may be
# another disk.
UNFINISHED = "unfinished"


@contextlib.contextmanager
def output_folder(out: Path, overwrite: bool, outputs: Collection[str]) -> Iterator[Path]:
    """Yield where a run writes; its outputs are in `out` when it has ended.

    Outputs of an earlier run stay until this one has ended without an error. Where it fails, what
    it wrote stays in `out/unfinished`, or in `out` where nothing was to be replaced; no empty
    folder is left behind.

    Args:
        out: made if it is not there, with the folders above it.
        overwrite: whether outputs of an earlier run may be replaced; nothing else ever is.
        outputs: names of what such a run leaves.

    Raises:
        ConfigurationError: something is there that may not be replaced, or nothing can be written
            there.
    """
    made: list[Path] = []
    with _writable(out, made):
        earlier = _earlier(out, overwrite, outputs)
        folder = out / UNFINISHED if earlier else out
        _make(folder, made)
    try:
        yield folder
    except BaseException:
        _remove_empty(made)
        raise
    if earlier:
        with _writable(out, made):
            _take_over(folder, out, earlier)


@contextlib.contextmanager
def _writable(out: Path, made: list[Path]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _remove_empty(made)
        raise ConfigurationError(
            f"{out} cannot be written: {error.strerror or error}; give another --out",
            path=str(out),
        ) from error


def _earlier(out: Path, overwrite: bool, outputs: Collection[str]) -> list[str]:
    """Return the names of an earlier run's outputs; what a failed run left is removed."""
    present = sorted(item.name for item in out.iterdir()) if out.is_dir() else []
    leftovers = {UNFINISHED, *(f"{name}.partial" for name in outputs)}
    foreign = [name for name in present if name not in outputs and name not in leftovers]
    if out.exists() and (not out.is_dir() or foreign or (present and not overwrite)):
        what = f"holds {', '.join(foreign)}" if overwrite and foreign else "is there already"
        raise ConfigurationError(
            f"{out} {what}; give another --out"
            + ("" if foreign or overwrite else ", or --overwrite to replace an earlier run"),
            path=str(out),
        )
    for name in leftovers.intersection(present):
        _remove(out / name)
    return [name for name in present if name in outputs]


def _take_over(folder: Path, out: Path, earlier: Collection[str]) -> None:
    """Put everything in a folder into `out`, in place of what an earlier run left there."""
    new = {item.name for item in folder.iterdir()}
    for name in new:
        if name in earlier:
            _remove(out / name)
        (folder / name).rename(out / name)
    for name in earlier:
        if name not in new:
            _remove(out / name)
    folder.rmdir()


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
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
