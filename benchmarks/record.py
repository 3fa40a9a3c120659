"""Results as JSON beside the benchmarks, with everything that is needed to judge them."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "numpy", "numba", "torch", "onnxruntime", "openvino", "rosbags", "av", "opencv-python-headless",
    "expelliarmus", "faery", "evlib", "tonic", "timm", "ros-rclpy",
)  # fmt: skip


def _cpu() -> dict[str, object]:
    names: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            names.setdefault(key.strip(), value.strip())
    return {
        "model": names.get("model name", platform.processor()),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "flags": sorted(
            flag
            for flag in names.get("flags", "").split()
            if flag.startswith(("avx", "amx", "sse4", "fma", "bmi"))
        ),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def record(name: str, results: Any, folder: Path = RESULTS) -> Path:
    """Write `results` with machine, versions, commit and date; return the file's path.

    Args:
        name: file name without suffix.
        results: anything that JSON can hold. Units belong into the keys.
        folder: for the file; it is made.
    """
    document = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "python": sys.version.split()[0],
            "cpu": _cpu(),
            # load of others disturbs medians: above 1 at the start the machine was shared
            "load_1_minute": round(os.getloadavg()[0], 2),
        },
        "packages": {package: _version(package) for package in PACKAGES},
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
