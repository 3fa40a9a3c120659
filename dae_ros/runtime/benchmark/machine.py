"""The machine that figures are of, and the versions of what ran on it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from dae_ros.runtime.cores import usable_cores
from dae_ros.runtime.processor import OF_NETWORKS, processor_flags


def machine() -> dict[str, Any]:
    """Return system, interpreter, processor and load, as JSON."""
    names: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            names.setdefault(key.strip(), value.strip())
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": sys.version.split()[0],
        "cpu": {
            "model": names.get("model name", platform.processor()),
            "logical_cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "flags": sorted(
                flag
                for flag in processor_flags()
                if flag in OF_NETWORKS or flag.startswith(("avx", "amx", "sse4", "bmi"))
            ),
        },
        # load of others disturbs medians: above 1 at the start the machine was shared
        "load_1_minute": round(os.getloadavg()[0], 2),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package, or `not installed`."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
