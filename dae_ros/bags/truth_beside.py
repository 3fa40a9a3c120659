"""Recordings in two files, as of MVSEC: `NAME_gt.EXT` has the true depth of `NAME_data.EXT`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_DATA, _TRUTH = "_data", "_gt"


def truth_beside(path: Path) -> Path | None:
    """Return where the truth of a file would lie, there or not; None for another kind of name."""
    if not path.stem.endswith(_DATA):
        return None
    return path.with_name(f"{name_of(path)}{_TRUTH}{path.suffix}")


def name_of(path: Path) -> str:
    """Return a file's name without its ending and without `_data`."""
    return path.stem.removesuffix(_DATA)


def with_truth(path: Path) -> tuple[Path, ...]:
    """Return a file with the truth that lies beside it, or alone where there is none."""
    truth = truth_beside(path)
    return (path,) if truth is None or not truth.exists() else (path, truth)


def pairs_of(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return each file with its truth; what is the truth of another one is not given again."""
    groups = [with_truth(path) for path in paths]
    truths = {part for group in groups for part in group[1:]}
    return [group for group in groups if group[0] not in truths]
