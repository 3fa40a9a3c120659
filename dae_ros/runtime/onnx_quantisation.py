"""Post-training quantisation of an exported graph to int8, calibrated with carried states.

NNCF (github.com/openvinotoolkit/nncf, Apache-2.0) writes pairs of QuantizeLinear and
DequantizeLinear around what it quantises, which OpenVINO turns into int8 arithmetic on reading.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import IMAGE
from dae_ros.runtime.onnxruntime_loading import load_onnxruntime

GraphInputs: TypeAlias = "dict[str, NDArray[np.float32]]"
# All else stays float: NNCF would also round the depth map before it is resized (a step of 8 bits
# of 80 m is 0.3 m; aligned Abs Rel of `micro` rose by 35 %), the cells of the recurrence, which sum
# over time, and the sums of `check`, where rounding turns NaN into a number.
_QUANTISED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
# Of these only the products with weights. Those of attention, of one activation with another, stay
# float: what softmax gives is then not rounded, and softmax itself takes the time (in int8 a step
# of `vits` was faster by 3 % at most, on a processor with AMX).
_PRODUCTS = frozenset({"MatMul"})
_TELEMETRY = "openvino_telemetry"


class CalibrationPairs:
    """What a graph takes in use: windows, each with the state that the float graph has by then.

    Iterating steps the graph through the sequences anew, so that no states are kept.

    Args:
        graph: of float32; its state is lost.
        sequences: images of each sequence in their order, float32[C, H, W]; may be called again.
        every: one window of so many is yielded, the first of each sequence included; all are
            stepped.
    """

    def __init__(
        self,
        graph: GraphEstimator,
        sequences: Callable[[], Iterable[Iterable[FloatImage]]],
        every: int = 1,
    ) -> None:
        self._graph = graph
        self._sequences = sequences
        self._every = every

    def __iter__(self) -> Iterator[GraphInputs]:
        """Yield `image` float32[1, C, H, W] and `state_<k>_in` by name.

        Raises:
            InferenceError: the graph failed, or gave what is not finite.
        """
        for images in self._sequences():
            self._graph.reset()
            for index, image in enumerate(images):
                if index % self._every == 0:
                    states = enumerate(self._graph.state_arrays())
                    yield {IMAGE: image[None], **{f"state_{k}_in": state for k, state in states}}
                self._graph.estimate(image)


def quantised(model: Path, pairs: Iterable[Mapping[str, NDArray[np.float32]]], count: int) -> bytes:
    """Return an exported float32 graph with int8 convolutions and products with weights.

    Args:
        model: the file.
        pairs: inputs of the graph by name; iterated more than once.
        count: how many there are.

    Returns:
        The serialized model, without meta-data.

    Raises:
        ConfigurationError: NNCF is not installed.
        WeightsError: NNCF cannot quantise the graph.
    """
    nncf = load_nncf()
    onnx = importlib.import_module("onnx")
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    proto = onnx.load(str(model))
    proto.ClearField("metadata_props")
    transformer = any(node.op_type == "LayerNormalization" for node in proto.graph.node)
    weights = {tensor.name for tensor in proto.graph.initializer}

    def quantisable(node: Any) -> bool:
        if node.op_type in _PRODUCTS:
            return not weights.isdisjoint(node.input)
        return node.op_type in _QUANTISED

    try:
        # Its progress bars are no result.
        with contextlib.redirect_stdout(sys.stderr):
            result: Any = nncf.quantize(
                proto,
                nncf.Dataset(pairs),
                subset_size=count,
                # Attention and normalisations have patterns of their own.
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                # Symmetric also for transformers: OpenVINO leaves convolutions whose input has a
                # zero point in float, and then int8 is as slow as float32.
                preset=nncf.QuantizationPreset.PERFORMANCE,
                # The largest value of all windows, not the mean of each window's: that mean clips
                # what is far away, and with it aligned Abs Rel of `micro` rose by 12 %.
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
                ),
                ignored_scope=nncf.IgnoredScope(
                    names=[node.name for node in proto.graph.node if not quantisable(node)]
                ),
            )
    except (nncf.ValidationError, nncf.InternalError, nncf.UnsupportedModelError) as error:
        raise WeightsError(
            f"NNCF cannot quantise {model.name} ({error}); use float32 or bfloat16",
            path=str(model),
        ) from error
    result.ClearField("metadata_props")
    serialized: bytes = result.SerializeToString()
    return serialized


def load_nncf() -> Any:
    """Import NNCF, which has no types, with its telemetry off.

    NNCF reports to its makers what is quantised, without asking, through a package that it does
    without where it finds none.

    Raises:
        ConfigurationError: it is not installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise ConfigurationError(
            "int8 needs NNCF, which is not installed here; install the extra `int8`",
            package="nncf",
        )
    # NNCF imports onnxruntime too; first come decides about its telemetry.
    load_onnxruntime("int8")
    with _absent(_TELEMETRY):
        nncf = importlib.import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _absent(package: str) -> Iterator[None]:
    """Let imports find no such package."""
    before = sys.modules.get(package)
    # Python's own way to say that there is none (docs.python.org, The module cache).
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if before is not None:
            sys.modules[package] = before
