"""Results as JSON beside the benchmarks, with everything that is needed to judge them."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from dae_ros.runtime.benchmark.machine import machine, versions

RESULTS = Path(__file__).resolve().parent / "results"
# What other benchmarks have just recorded changes no figure.
_CODE = ("--", ":(top)", ":(top,exclude)benchmarks/results")
PACKAGES = (
    "numpy", "numba", "torch", "onnxruntime", "openvino", "rosbags", "av", "opencv-python-headless",
    "expelliarmus", "faery", "evlib", "tonic", "timm", "ros-rclpy",
)  # fmt: skip


def _git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def provenance() -> dict[str, Any]:
    """Return what made a figure: `date`, `commit`, `uncommitted_changes`, `machine`, `packages`."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", *_CODE)),
        "machine": machine(),
        "packages": versions(PACKAGES),
    }


def record(name: str, results: Any, folder: Path = RESULTS) -> Path:
    """Write `results` with machine, versions, commit and date; return the file's path.

    Args:
        name: file name without suffix.
        results: anything that JSON can hold. Units belong into the keys.
        folder: for the file; it is made.
    """
    document = {"benchmark": name, **provenance(), "results": results}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
