"""Shared memory that killed processes leave: what they held, and what nobody holds any more.

Fast DDS makes files in /dev/shm (`fastdds_*`, `fastrtps_*` in older releases, and the semaphores
`sem.*` of these). A process that is killed leaves its own, 32 MB each with the profile of this
project, until the next participant that meets them, or nobody, cleans up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SHARED = Path("/dev/shm")
_NAME = re.compile(r"(?:sem\.)?fast(?:dds|rtps)_\w+")


def held_by(pid: int) -> set[str]:
    """Return the names of the segments that a process maps or has open; none of a dead one."""
    process = Path("/proc") / str(pid)
    found: set[str] = set()
    try:
        for line in (process / "maps").read_text().splitlines():
            found.add(line.partition(f"{SHARED}/")[2].removesuffix(" (deleted)"))
        for descriptor in (process / "fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except FileNotFoundError:
                continue  # closed meanwhile
            found.add(target.partition(f"{SHARED}/")[2].removesuffix(" (deleted)"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # It has ended; or is another user's, who does not share memory with a private domain.
        return {name for name in found if _NAME.fullmatch(name)}
    return {name for name in found if _NAME.fullmatch(name)}


def remove_orphans(names: Iterable[str], *, own: bool = True) -> list[str]:
    """Remove those segments that no living process holds; return their names, sorted.

    Args:
        names: what killed processes held (`held_by`, before they were killed). No other name is
            ever touched: segments that nobody seems to hold may be about to be opened.
        own: whether this process counts. It may keep what it does not use any more.
    """
    candidates = {name for name in names if (SHARED / name).exists()}
    if not candidates:
        return []
    for pid in _living():
        if own or pid != os.getpid():
            candidates -= held_by(pid)
    removed = []
    for name in sorted(candidates):
        try:
            (SHARED / name).unlink()
        except FileNotFoundError:
            continue
        removed.append(name)
    return removed


def _living() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
