"""A checkpoint on a runtime of ONNX graphs: exported when the sensor's size is known."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.runtime.estimator import FloatImage, output_meaning
from dae_ros.runtime.graph_estimator import GraphEstimator, check_image
from dae_ros.runtime.onnx_cache import (
    cache_folder,
    export_arguments,
    exported_graph,
    graph_name,
)
from dae_ros.runtime.onnx_description import OnnxDescription
from dae_ros.runtime.successor import load_successor, weight_change

# File, what it says, and a folder for what belongs to this very graph and goes with it.
OpenGraph: TypeAlias = Callable[[Path, OnnxDescription, Path], GraphEstimator]


class ExportedEstimator:
    """Weights whose graph is made for the size of the first image; a `ReloadableEstimator`.

    The graph of the weights that it begins with is kept in the cache folder, so that the first
    image waits for it once per size. Other weights are exported as they are loaded.

    Args:
        weights: as `load_weights` takes them.
        loaded: what they are; kept, to compare other weights with them.
        open_graph: puts a graph onto the device, and refuses one that is off PyTorch there.
        precision: of the exported graph, `float32` or `float16`.
        folder: for the graph, and for what a runtime makes of it.
        weight_version: number of the weights.

    Attributes:
        name, digest, notes, meaning, input_channels, weight_version: see `DepthEstimator`.
        warming: never: it does not change its weights.
    """

    def __init__(
        self,
        weights: str,
        loaded: LoadedModel,
        open_graph: OpenGraph,
        *,
        precision: str,
        folder: Path,
        weight_version: int = 0,
    ) -> None:
        self._weights = weights
        self._loaded = loaded
        self._open_graph = open_graph
        self._precision = precision
        self._folder = folder
        self._graph: GraphEstimator | None = None
        self._closed = threading.Event()
        self._refused: dict[tuple[int, int], str] = {}
        self.weight_version = weight_version
        self.name = loaded.name
        self.digest = loaded.digest
        self.notes = loaded.notes
        self.meaning = output_meaning(loaded.meaning)
        self.input_channels = loaded.config.input_format.channels
        self.warming = False

    def close(self, timeout_s: float = 0.0) -> None:  # noqa: ARG002 - the step that exports waits
        """End an export that is under way, from any thread; no further one begins.

        Nor for successors, nor for what this one is a successor of.
        """
        self._closed.set()

    def export_command(self, height: int, width: int) -> str:
        """Return the command that makes the graph for a sensor, so that no step has to."""
        path = self.graph_path(height, width)
        words = export_arguments(self._weights, path, height, width, self._precision)
        return shlex.join(["dae-ros", *words])

    def graph_path(self, height: int, width: int) -> Path:
        """Return where the graph for a sensor is kept; what a runtime makes of it is beside it."""
        return self._folder / graph_name(self._loaded, height, width, self._precision)

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """(height, width) of the sensor that there is a graph for, None before the first image."""
        return None if self._graph is None else self._graph.sensor_size

    @property
    def state_age(self) -> int:
        """Steps since the state was zero."""
        return 0 if self._graph is None else self._graph.state_age

    def reset(self) -> None:
        """Forget the recurrent state."""
        if self._graph is not None:
            self._graph.reset()

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of the state; empty before a step."""
        return self._graph.state_arrays() if self._graph is not None and self.state_age else ()

    def estimate(self, image: EventImage) -> FloatImage:
        """Advance by one step; with another size than the last one the state begins anew.

        Raises:
            ConfigurationError: for another number of channels or dtype.
            InferenceError: if there is no graph for this size, or the runtime fails.
            NonFiniteState: if prediction or state holds NaN or infinity; `reset` before going on.
        """
        check_image(image, self.input_channels)
        return self._graph_for(*size_of(image)).estimate(image)

    def set_state(self, state: Sequence[NDArray[np.float32]], state_age: int) -> None:
        """Go on with a state that the same network has reached for the present size.

        Raises:
            ConfigurationError: there was no image yet, so that there is no size.
        """
        if self._graph is None:
            raise ConfigurationError("a state needs a size: let the estimator step once before")
        self._graph.set_state(state, state_age)

    def successor(self, path: Path, version: int) -> ExportedEstimator:
        """Load other weights of the same network, exported for the present size.

        See `ReloadableEstimator`. The export is a process of its own; where it is refused, or its
        graph is, `.data["refusal"]` is `backend`.
        """
        loaded = load_successor(path, self._loaded.config, self._loaded.meaning)
        # Versions come and go: no place in the cache, and gone with the weights.
        folder = tempfile.mkdtemp(prefix="dae_ros-")
        other = ExportedEstimator(
            str(path),
            loaded,
            self._open_graph,
            precision=self._precision,
            folder=Path(folder),
            weight_version=version,
        )
        other._closed = self._closed
        weakref.finalize(other, shutil.rmtree, folder, ignore_errors=True)
        if self.sensor_size is not None:
            try:
                other._graph_for(*self.sensor_size)
            except InferenceError as error:
                raise WeightsError(error.message, refusal="backend") from error
        return other

    def weight_change(self, other: ExportedEstimator) -> float:
        """Return |w - w_other| / |w_other| over all weights."""
        return weight_change(self._loaded.network, other._loaded.network)

    def adopt_state(self, other: ExportedEstimator) -> None:
        """Go on with the recurrent state of other weights."""
        if other.sensor_size is None:
            self.reset()
        else:
            graph = self._graph_for(*other.sensor_size)
            graph.set_state(other._graph_for(*other.sensor_size).state_arrays(), other.state_age)

    def _graph_for(self, height: int, width: int) -> GraphEstimator:
        size = (height, width)
        if self._graph is not None and self._graph.sensor_size == size:
            return self._graph
        if size in self._refused:
            raise InferenceError(self._refused[size], sensor=size)
        try:
            path, description = exported_graph(
                self._weights,
                self._loaded,
                height,
                width,
                self._precision,
                self._folder,
                stopped=self._closed.is_set,
            )
            self._graph = self._open_graph(path, description, self._folder)
        except (WeightsError, ConfigurationError) as error:
            # The next image is not to wait for the same answer.
            self._refused[size] = error.message
            raise InferenceError(error.message, sensor=size) from error
        return self._graph


def exported_estimator(
    weights: str, loaded: LoadedModel, open_graph: OpenGraph, precision: str
) -> ExportedEstimator:
    """Return an estimator whose graphs are kept in the cache folder.

    Raises:
        ConfigurationError: there can be no cache folder.
    """
    return ExportedEstimator(
        weights, loaded, open_graph, precision=precision, folder=cache_folder("onnx")
    )
