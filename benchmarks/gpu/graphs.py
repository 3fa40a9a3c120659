"""Graphs on other runtimes in `bench_gpu`: onnxruntime's CUDA, and TensorRT.

    python -m benchmarks.gpu.graphs BACKEND WEIGHTS HEIGHT WIDTH DEVICE FOLDER

makes what a runtime of graphs needs (an export, an engine of TensorRT, the comparison with PyTorch)
in a process of its own, which can be ended when it takes too long.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.frames import Frame
from dae_ros.errors import DaeError
from dae_ros.model.weights import load_weights
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.gpus import onnxruntime_obstacle, tensorrt_version
from dae_ros.runtime.graph_backends import GraphRuntime


class GraphSteps:
    """An exported graph on onnxruntime, with bound memory: CUDA, or TensorRT.

    Its streams are its own, so that only host to host can be timed: `queue` is not there.

    Args:
        backend, weights, device, folder: see `open_graph`.
        first: the image of the first step.
    """

    queue = None
    stream = None

    def __init__(
        self,
        backend: str,
        weights: str,
        device: str,
        folder: Path,
        first: Frame,
    ) -> None:
        self._estimator = open_graph(backend, weights, device, folder)
        self.name, self.note = self._estimator.name, ""
        self.estimate(first)

    def estimate(self, image: Frame) -> NDArray[np.float32]:
        """See `Contender`; a graph takes floats."""
        return self._estimator.estimate(image.planes)

    def reset(self) -> None:
        """See `Contender`."""
        self._estimator.reset()


def open_graph(backend: str, weights: str, device: str, folder: Path) -> ExportedEstimator:
    """Return weights on a runtime of graphs, in float16; the first step exports and builds.

    Args:
        backend: `onnxruntime` or `tensorrt`.
        weights: a checkpoint.
        device: `cuda` or `cuda:N`.
        folder: for the graph, and for what the runtime makes of it.
    """
    runtime = GraphRuntime(backend, device, "float16", 1)
    loaded = load_weights(weights)
    return ExportedEstimator(weights, loaded, runtime.open, precision="float16", folder=folder)


def graph_obstacle(backend: str) -> str | None:
    """Return why a runtime of graphs cannot use the GPU here, a clause; None where it may."""
    obstacle = onnxruntime_obstacle()
    if obstacle is None and backend == "tensorrt" and tensorrt_version() is None:
        return "the loader finds no library of TensorRT (libnvinfer)"
    return obstacle


def build_beside(
    backend: str, weights: Path, size: tuple[int, int], device: str, folder: Path, limit_s: float
) -> str | None:
    """Make what a graph needs in a process of its own; return why not, None where it is there."""
    obstacle = graph_obstacle(backend)
    if obstacle is not None:
        return obstacle
    if limit_s <= 0:
        return "there is no time left to build it; give more with --within"
    arguments = [backend, str(weights), *map(str, size), device, str(folder)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu.graphs", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said = process.communicate(timeout=limit_s)[1]
        except subprocess.TimeoutExpired:
            return f"it was not built within {limit_s:.0f} s; give more with --within"
        finally:
            # With the `dae-ros export` that it has begun, also where this one is interrupted.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    return None if process.returncode == 0 else (said.strip() or "it failed")[-600:]


def _main(arguments: Sequence[str]) -> int:
    """Build a graph and step it twice; the reason goes to stderr where that fails."""
    backend, weights, height, width, device, folder = arguments
    image = np.zeros((3, int(height), int(width)), np.float32)
    try:
        estimator = open_graph(backend, weights, device, Path(folder))
        for _ in range(2):
            estimator.estimate(image)
    except DaeError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
