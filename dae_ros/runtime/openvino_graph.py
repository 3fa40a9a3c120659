"""An exported graph on OpenVINO, for CPUs; its state never leaves OpenVINO's tensors."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.onnx_description import CHECK, IMAGE, PREDICTION, OnnxDescription

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Of a state (1, C, h, w): how convolutions on CPUs read and write it, and the way back.
_TO_CHANNELS_LAST, _FROM_CHANNELS_LAST = (0, 2, 3, 1), (0, 3, 1, 2)
# Of keys (1, N, heads, d): as columns of each head's product, and as its rows.
_TO_COLUMNS, _TO_ROWS = (0, 2, 3, 1), (0, 2, 1, 3)


def load_openvino() -> Any:
    """Import OpenVINO, whose types say little.

    Raises:
        ConfigurationError: it is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("openvino") is None:
        raise ConfigurationError(
            "backend openvino is not installed here; install the extra `openvino`",
            package="openvino",
        )
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ConfigurationError(
            f"OpenVINO is installed and cannot be imported ({error}); install it again, with the "
            "extra `openvino`",
            package="openvino",
        ) from error


@functools.cache
def openvino_core() -> Any:
    """Return the one core of this process.

    On processors with AMX, a core's CPU plugin gives the thread a signal stack of its own and takes
    it back when the core goes. Of two cores that go in the order in which they came, the second
    puts the freed stack of the first back, and the next signal ends the process.

    Raises:
        ConfigurationError: OpenVINO is not installed.
    """
    return load_openvino().Core()


def has_bfloat16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor.

    Raises:
        ConfigurationError: OpenVINO is not installed.
    """
    return "BF16" in _abilities()


def _abilities() -> list[str]:
    return list(openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


class OpenVinoGraph:
    """A `RecurrentGraph` on OpenVINO's CPU plugin.

    Between two steps the state lies with its channels last, as convolutions take it: a step would
    otherwise turn it around twice.

    Args:
        path: of the file; a float16 file is computed in `precision` all the same, an int8 file
            where it is not int8.
        description: of it.
        precision: `float32`, or `bfloat16` where the processor has it.
        threads: CPU threads.

    Raises:
        ConfigurationError: OpenVINO is missing, or the processor does not have the precision.
        WeightsError: OpenVINO does not take the file.
    """

    def __init__(
        self,
        path: Path,
        description: OnnxDescription,
        *,
        precision: str = "float32",
        threads: int = 1,
    ) -> None:
        openvino, core = load_openvino(), openvino_core()
        if precision not in _HINTS:
            raise ConfigurationError(
                f"backend openvino computes in {' or '.join(_HINTS)}, not in {precision}",
                parameter="precision",
            )
        if precision == "bfloat16" and not has_bfloat16():
            raise ConfigurationError(
                f"this processor has no bfloat16 (OpenVINO finds {', '.join(_abilities())}); use "
                "precision float32",
                parameter="precision",
                abilities=_abilities(),
            )
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Decoder, ROS and a second set of weights run on these cores as well.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            # The request keeps what it was made from.
            model = core.read_model(str(path))
            keep_keys_as_rows(model)
            model = _with_channels_last(openvino, model, len(description.states))
            self._request = core.compile_model(model, "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise WeightsError(f"OpenVINO does not take {path}: {error}", path=str(path)) from error

        def tensor(*shape: int) -> Any:
            return openvino.Tensor(openvino.Type.f32, openvino.Shape(shape))

        height, width = description.height, description.width
        self._image = tensor(1, description.channels, height, width)
        self._prediction, self._check = tensor(height, width), tensor()
        self._states = tuple(
            tuple(tensor(*(shape[k] for k in _TO_CHANNELS_LAST)) for shape in description.states)
            for _ in ("in", "out")
        )
        for name, value in (
            (IMAGE, self._image),
            (PREDICTION, self._prediction),
            (CHECK, self._check),
        ):
            self._request.set_tensor(name, value)
        self.reset()

    def step(self, image: FloatImage) -> tuple[FloatImage, float]:
        """See `RecurrentGraph`."""
        before, after = self._states
        self._image.data[0] = image
        try:
            for index, (old, new) in enumerate(zip(before, after, strict=True)):
                self._request.set_tensor(f"state_{index}_in", old)
                self._request.set_tensor(f"state_{index}_out", new)
            self._request.infer()
        except RuntimeError as error:
            raise InferenceError(f"OpenVINO failed: {error}", device="cpu") from error
        self._states = (after, before)
        prediction: FloatImage = self._prediction.data.copy()
        return prediction, float(self._check.data)

    def reset(self) -> None:
        """See `RecurrentGraph`."""
        for value in self._states[0]:
            value.data[:] = 0.0

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """See `RecurrentGraph`."""
        return tuple(
            value.data.transpose(_FROM_CHANNELS_LAST).copy(order="C") for value in self._states[0]
        )

    def set_state(self, state: Sequence[NDArray[np.float32]]) -> None:
        """See `RecurrentGraph`."""
        for value, array in zip(self._states[0], state, strict=True):
            value.data[:] = array.transpose(_TO_CHANNELS_LAST)


def _with_channels_last(openvino: Any, model: Any, states: int) -> Any:
    """Return the model with its states, in and out, as (1, h, w, C)."""
    processor = openvino.preprocess.PrePostProcessor(model)
    for index in range(states):
        for end in (processor.input(f"state_{index}_in"), processor.output(f"state_{index}_out")):
            end.tensor().set_layout(openvino.Layout("NHWC"))
            end.model().set_layout(openvino.Layout("NCHW"))
    return processor.build()


def keep_keys_as_rows(model: Any) -> None:
    """Let the products of attention turn their keys around, in place of a step before each.

    ONNX has no product with a transposed matrix. OpenVINO has, and makes that one node with softmax
    and the next product; a permutation of all four axes it does not take in.
    """
    operators = importlib.import_module("openvino.opset13")
    for product in model.get_ops():
        if product.get_type_name() != "MatMul" or product.get_attributes()["transpose_b"]:
            continue
        keys = product.input_value(1).get_node()
        if keys.get_type_name() != "Transpose":
            continue
        order = keys.input_value(1).get_node()
        if order.get_type_name() != "Constant" or tuple(order.data) != _TO_COLUMNS:
            continue
        rows = operators.transpose(keys.input_value(0), np.array(_TO_ROWS))
        queries, transposed = product.input_value(0), product.get_attributes()["transpose_a"]
        replacement = operators.matmul(queries, rows, transposed, True)
        for user in product.output(0).get_target_inputs():
            user.replace_source_output(replacement.output(0))
