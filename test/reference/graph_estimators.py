"""Exported graphs as estimators, and images to step them with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.graph_estimator import GraphEstimator

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
Images = list[NDArray[np.float32]]


def estimator_of(path: Path, backend: str = "onnxruntime", **others: str) -> GraphEstimator:
    parameters = DepthParameters(
        weights=str(path), backend=backend, device="cpu", threads=1, **others
    )
    estimator = create_estimator(parameters)
    assert isinstance(estimator, GraphEstimator)
    return estimator


def noise(count: int, channels: int, height: int, width: int) -> Images:
    """Other images than those that an export compares on."""
    rng = np.random.default_rng(3)
    return [rng.random((channels, height, width), dtype=np.float32) for _ in range(count)]
