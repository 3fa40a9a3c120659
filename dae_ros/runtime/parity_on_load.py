"""Whether a graph computes what PyTorch computes on the very runtime that is to run it.

An export compares its graph with PyTorch on one runtime, onnxruntime on the CPU. Others have
kernels and fusions of their own, so a graph is compared again when a runtime first opens it, with
what the export kept of PyTorch's output (`ParityReference`). What was measured is kept, so that it
is done once for each graph, runtime, version, GPU and precision.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import tempfile
from pathlib import Path

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.fetch import digest_of
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import OnnxDescription
from dae_ros.runtime.onnx_parity import digest_of_events, images_of, moving_events
from dae_ros.runtime.parity_reference import Deviation

# Largest root mean square difference where the output's standard deviation is 1. On the CPU, over
# networks of this project, OpenVINO is off by 2e-5 in float32 and by 3e-2 in bfloat16
# (benchmarks/results/backends.json).
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


def require_parity(
    estimator: GraphEstimator,
    path: Path,
    description: OnnxDescription,
    *,
    runtime: str,
    precision: str,
    folder: Path | None,
) -> None:
    """Refuse a graph that is off PyTorch on this runtime; leaves the state as after a reset.

    Args:
        estimator: the graph, opened.
        path: of its file.
        description: of it; int8 has its accuracy report instead.
        runtime: what runs it, with versions and GPU: part of a file name.
        precision: of the arithmetic, `float32`, `bfloat16` or `float16`.
        folder: for what was measured; None keeps nothing.

    Raises:
        ConfigurationError: the graph is further off than `TOLERANCE`, or fails in its first steps.
        WeightsError: the file holds nothing that can be compared with.
    """
    kept = None if folder is None else kept_parity(path, runtime, precision, folder)
    deviation = None if kept is None else _read(kept)
    if deviation is None:
        deviation = _measured(estimator, path, description, runtime, precision)
        if kept is not None:
            _write(kept, deviation)
    tolerance = max(TOLERANCE[precision], TOLERANCE[description.precision])
    # Written so that NaN is refused too.
    if not deviation.root_mean_square <= tolerance:
        raise ConfigurationError(
            f"{path.name} on {runtime} in {precision} is off PyTorch by "
            f"{deviation.root_mean_square:.1e} of the output's standard deviation over "
            f"{deviation.steps} steps, allowed is {tolerance:g}; use another backend or precision, "
            "or the checkpoint with backend torch",
            parameter="backend",
            root_mean_square=deviation.root_mean_square,
            tolerance=tolerance,
        )


def kept_parity(path: Path, runtime: str, precision: str, folder: Path) -> Path:
    """Return where `require_parity` keeps what it measured."""
    return folder / f"{digest_of(path)[:16]}-{runtime}-{precision}.parity.json"


def _measured(
    estimator: GraphEstimator,
    path: Path,
    description: OnnxDescription,
    runtime: str,
    precision: str,
) -> Deviation:
    reference = description.parity
    height, width = description.height, description.width
    events = [] if reference is None else moving_events(height, width, reference.steps)
    if reference is None or digest_of_events(events) != reference.events_sha256:
        raise WeightsError(
            f"{path} holds nothing to compare {runtime} with, or NumPy draws other events here "
            "than where it was exported; export it again on this machine",
            path=str(path),
        )
    encoder = description.meaning.event_encoder
    try:
        predictions = [
            estimator.estimate(image)
            for image in images_of(events, encoder, description.channels, height, width)
        ]
    except InferenceError as error:
        raise ConfigurationError(
            f"{path.name} fails in its first steps on {runtime} in {precision} ({error.message}); "
            "use another backend or precision, or the checkpoint with backend torch",
            parameter="backend",
        ) from error
    finally:
        estimator.reset()
    return reference.deviation_of(predictions)


def _read(path: Path) -> Deviation | None:
    """Return what was measured before; None where nothing was, or the file is damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        found = Deviation(
            float(facts["root_mean_square"]), float(facts["largest"]), int(facts["steps"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if math.isnan(found.root_mean_square) else found


def _write(path: Path, deviation: Deviation) -> None:
    """Keep what was measured; complete or not at all."""
    # Without room on the disk it is measured again the next time: no reason not to run.
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(prefix=".parity-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(dataclasses.asdict(deviation), stream)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
