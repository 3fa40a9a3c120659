"""The folder that a run writes into: made, or emptied of an earlier run, and of nothing else."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dae_ros.errors import ConfigurationError


def prepare_folder(out: Path, overwrite: bool, outputs: Collection[str]) -> None:
    """Make room for the outputs of a run.

    Args:
        out: made if it is not there.
        overwrite: whether outputs of an earlier run may be removed; nothing else ever is.
        outputs: names of what such a run leaves.

    Raises:
        ConfigurationError: something is there that may not be removed.
    """
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
    out.mkdir(parents=True, exist_ok=True)
    for name in present:
        _remove(out / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for item in path.iterdir():
            _remove(item)
        path.rmdir()
    else:
        path.unlink()
