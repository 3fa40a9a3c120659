"""Writes a network, its weights and the fitting to a sensor as one ONNX graph of fixed size."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.installation import version
from dae_ros.model.backbone import VisionTransformer
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.graph_form import to_graph_form
from dae_ros.model.networks import config_to_dict
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import (
    CHECK,
    IMAGE,
    PREDICTION,
    OnnxDescription,
    graph_of,
    metadata_bytes,
)
from dae_ros.runtime.onnx_parity import (
    TOLERANCE,
    digest_of_events,
    images_of,
    measure_deviation,
    moving_events,
)
from dae_ros.runtime.onnxruntime_graph import OnnxRuntimeGraph
from dae_ros.runtime.parity_reference import Deviation, ParityReference
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting

# PyTorch's exporter writes 18 natively, which has LayerNormalization as one operator.
OPSET = 18
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


class _Step(nn.Module):
    """Image of the sensor's size and state -> prediction of that size, new state, and a check."""

    def __init__(self, loaded: LoadedModel, height: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        network = copy.deepcopy(loaded.network)
        to_graph_form(network)
        self.network = network.requires_grad_(False).to(dtype)
        self._fitting = Fitting(loaded.config, self.network.multiple, torch.device("cpu"))
        self._height, self._width, self._dtype = height, width, dtype
        self.size = self._fitting.network_size(height, width)
        for module in self.network.modules():
            if isinstance(module, VisionTransformer):
                _fix_positions(module, *self.size)

    def forward(self, image: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        pixels = self._fitting.prepare(image).to(self._dtype)
        prediction, new_state = self.network(pixels, state)
        shape = (self._height, self._width)
        # No runtime notices that resizing to the same size does nothing.
        if prediction.shape[2:] == shape:
            restored = prediction.float().reshape(shape)
        else:
            restored = self._fitting.restore(prediction, *shape).reshape(shape)
        # Infinity and NaN survive every sum, though not every runtime's relu; states need not leave
        # their device to be checked.
        check = torch.stack([tensor.sum() for tensor in (image, restored, *new_state)]).sum()
        return restored, *new_state, check


def _fix_positions(encoder: VisionTransformer, height: int, width: int) -> None:
    """Make the positions of one size constants: no runtime resizes exactly as PyTorch does."""
    patch = encoder.size.patch_px
    with torch.no_grad():
        fixed = encoder.positions(height // patch, width // patch).clone()
    encoder.register_buffer("fixed_positions", fixed)
    vars(encoder)["positions"] = lambda _rows, _columns: encoder.fixed_positions


def export_onnx(
    loaded: LoadedModel,
    path: Path,
    height: int,
    width: int,
    *,
    precision: str = "float32",
    opset: int = OPSET,
) -> Deviation:
    """Write weights as an ONNX graph, after comparing it with PyTorch; complete or not at all.

    Args:
        loaded: the weights, left as they are.
        path: the file, replaced atomically.
        height, width: of the sensor in px.
        precision: `float32`, or `float16` for weights and arithmetic in half precision; image,
            state and prediction are float32 in either case.
        opset: version of the ONNX operators, from 18 on.

    Returns:
        How far the graph, run by onnxruntime on the CPU, is from PyTorch in float32.

    Raises:
        ConfigurationError: a package of the extra `onnx` is missing, or there is no such
            precision or opset, or the sensor is too small for the network.
        WeightsError: the network cannot be exported, or the graph is further from PyTorch than
            `TOLERANCE`; then nothing is written.
    """
    if precision not in TOLERANCE:
        raise ConfigurationError(
            f"there is no precision '{precision}' to export; use {' or '.join(TOLERANCE)}"
        )
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"an export needs {', '.join(missing)}, not installed here; install the extra `onnx`",
            packages=missing,
        )
    reference = TorchEstimator(loaded)
    step = _Step(loaded, height, width, getattr(torch, precision)).eval()
    state = step.network.initial_state(1, *step.size)
    channels = loaded.config.input_format.channels
    model = _traced(loaded, step, (torch.zeros(1, channels, height, width), *state), opset)
    description = OnnxDescription(
        name=loaded.name,
        digest=loaded.digest,
        notes=loaded.notes,
        meaning=loaded.meaning,
        config=config_to_dict(loaded.config),
        height=height,
        width=width,
        channels=channels,
        states=tuple(tuple(tensor.shape) for tensor in state),
        precision=precision,
        opset=opset,
        deviation=0.0,
        version=version(),
    )
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        file = Path(folder) / path.name
        write_graph(file, model, description)
        graph = OnnxRuntimeGraph(file, description, threads=torch.get_num_threads())
        events = moving_events(height, width)
        images = images_of(events, loaded.meaning.event_encoder, channels, height, width)
        predictions: list[FloatImage] = []
        deviation = measure_deviation(
            reference, GraphEstimator(graph, description), images, predictions.append
        )
        tolerance = TOLERANCE[precision]
        # Written so that NaN is refused too.
        if not deviation.root_mean_square <= tolerance:
            raise WeightsError(
                f"{path} is not written: over {deviation.steps} steps the graph of {loaded.name} "
                f"is off PyTorch by {deviation.root_mean_square:.1e} of the output's standard "
                f"deviation (one pixel by {deviation.largest:.1e}), allowed is {tolerance:g}. "
                + ("Export it in float32" if precision != "float32" else "Run it with PyTorch"),
                path=str(path),
                root_mean_square=deviation.root_mean_square,
                largest=deviation.largest,
                tolerance=tolerance,
            )
        parity = ParityReference.of(digest_of_events(events), predictions)
        description = replace(description, deviation=deviation.root_mean_square, parity=parity)
        write_graph(file, model, description)
        file.replace(path)
    return deviation


def write_graph(path: Path, model: bytes, description: OnnxDescription) -> None:
    """Write a serialized model that has no meta-data, with what it says about itself."""
    with path.open("wb") as stream:
        stream.write(model)
        stream.write(metadata_bytes(graph_of(model), description))
        stream.flush()
        os.fsync(stream.fileno())


def _traced(loaded: LoadedModel, step: _Step, inputs: tuple[Tensor, ...], opset: int) -> bytes:
    """Return the serialized model, without meta-data."""
    states = range(len(inputs) - 1)
    try:
        with torch.inference_mode(False), _quiet():
            program = torch.onnx.export(
                step,
                inputs,
                dynamo=True,
                opset_version=opset,
                input_names=[IMAGE, *(f"state_{k}_in" for k in states)],
                output_names=[PREDICTION, *(f"state_{k}_out" for k in states), CHECK],
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise WeightsError(
            f"{loaded.name} ({type(loaded.network).__name__}) cannot be exported: PyTorch has no "
            f"ONNX operators for a part of it ({_reason(error)}); run it with PyTorch",
            weights=loaded.name,
        ) from error
    # Untyped in PyTorch, which returns None only for the exporter of old.
    model: Any = program.model_proto if program is not None else None
    versions = {item.domain: item.version for item in model.opset_import}
    if versions != {"": opset}:
        raise ConfigurationError(
            f"PyTorch {torch.__version__} exports {loaded.name} with opset {versions}, not with "
            f"{opset}; use opset {OPSET}",
            opset=opset,
        )
    # The exporter leaves a trace of source files at every node.
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for item in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        item.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.graph.name = "dae_ros"
    model.producer_name, model.producer_version = "dae_ros", version()
    serialized: bytes = model.SerializeToString()
    return serialized


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says about itself and about packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
