"""How many cores this process may use: fewer than there are under taskset or in a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self")


def usable_cores() -> int:
    """Return how many cores there is time for: of the affinity, and of the cgroups' quotas.

    A container with a quota (`docker run --cpus`) sees all cores, and is stopped for the rest of
    each period once its threads have used up what it may. Part of a core counts as one.
    """
    # Not every system can tell.
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min([affinity or 1, *_quotas()])


def _quotas() -> Iterator[int]:
    """Yield the cores that each cgroup of this process may use, where it has a quota."""
    for folder in _groups():
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
        except OSError:
            # The root of a machine has neither, and a group that cannot be seen is none to obey.
            continue
        # "max" and -1: without a quota.
        if quota != "max" and int(quota) > 0:
            yield -(-int(quota) // int(period))


def _groups() -> Iterator[Path]:
    """Yield the folders of what limits the time of this process, up to where they are mounted."""
    if not (_PROCESS / "cgroup").exists():
        return
    # Of version 1 by the name of its controller; version 2 names none.
    paths = {
        controller: PurePosixPath(path)
        for line in (_PROCESS / "cgroup").read_text().splitlines()
        for _, controllers, path in [line.split(":", 2)]
        for controller in controllers.split(",")
    }
    for line in (_PROCESS / "mountinfo").read_text().splitlines():
        mount, _, system = line.partition(" - ")
        root, point = mount.split()[3:5]
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "cpu" in options.split(","):
            path = paths.get("cpu")
        else:
            continue
        # A container sees the part of the tree that is mounted there, by the host's names.
        if path is not None and path.is_relative_to(root) and ".." not in path.parts:
            inside = path.relative_to(root)
            yield from (Path(point) / part for part in (inside, *inside.parents))
