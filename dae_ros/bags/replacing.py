"""A recording grows as `.partial`; an earlier one of its name stays until the new one is whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dae_ros.errors import RecordingError


def require_name(path: Path) -> None:
    """Make sure that something can grow beside a path, under a name made of its own.

    Raises:
        RecordingError: the path is `.`, `..` or a root.
    """
    if path.name in ("", ".."):
        raise RecordingError(
            f"{path} has no name of its own for what is to be written; give one, such as "
            f"{path / 'walk'}",
            path=str(path),
        )


def require_free(paths: Sequence[Path], replace: bool) -> tuple[Path, ...]:
    """Return the `.partial` paths of what will be written, of which nothing is there yet.

    Args:
        paths: final names.
        replace: whether something may have a final name already.

    Raises:
        RecordingError: something is in the way, or a path has no name.
    """
    for path in paths:
        require_name(path)
    partial = tuple(path.with_name(f"{path.name}.partial") for path in paths)
    remains = "is what a run left that did not end, unless one is writing it now; remove it"
    for path, part in zip(paths, partial, strict=True):
        before = _aside(path)
        was = f"is what {path} was before, of a run that did not end; give it a name of its own"
        for taken, what in ((path, "exists already; remove it"), (part, remains), (before, was)):
            if taken.exists() and not (replace and taken == path):
                raise RecordingError(f"{taken} {what} or write somewhere else", path=str(taken))
    return partial


def give_name(partial: Path, path: Path) -> None:
    """Give what is whole its final name, and then remove what had that name before.

    Raises:
        OSError: the system refuses; what had the name before has it still.
    """
    if not path.is_dir():
        partial.replace(path)
        return
    # No folder can be renamed over another one that holds something.
    aside = _aside(path)
    path.rename(aside)
    try:
        partial.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.replaced")
