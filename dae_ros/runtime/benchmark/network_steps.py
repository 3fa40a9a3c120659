"""One step of a network on every backend that is installed, in turns."""

from __future__ import annotations

import dataclasses
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.device import device_of
from dae_ros.parameters import DepthParameters
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.representation.tencode_code import pack_tencode
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.estimator import DepthEstimator, FloatImage
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.gpus import onnxruntime_obstacle
from dae_ros.runtime.graph_backends import GraphRuntime, runtime_device
from dae_ros.runtime.onnx_parity import measure_deviation, moving_edges
from dae_ros.runtime.processor import bfloat16_obstacle, processor_flags

# Backend and precision; the first is what the others are compared with.
ON_A_CPU = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
)
ON_A_GPU = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("torch", "float16"),
    ("onnxruntime", "float16"),
    ("tensorrt", "float16"),
)
INSTALL = {
    "onnxruntime": "pip install '.[onnx]'",
    "openvino": "pip install '.[openvino]'",
    "tensorrt": "onnxruntime-gpu in the place of onnxruntime, and TensorRT",
}
# The first step of a block finds the caches of another contender.
BLOCK = 4
# Of each contender: the comparison with the first, two rounds, and windows of the whole chain.
LEAST_STEPS = 4 * BLOCK
# What TensorRT may take to build an engine, in s.
ENGINE_S = 1200
Contender: TypeAlias = "tuple[str, str]"
Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class StepRow:
    """How long one step takes, from event image to prediction at the sensor's size.

    Attributes:
        backend, precision: that ran it.
        p50_ms, p95_ms: wall time of a step.
        cpu_ms: median CPU time of a step, over all threads.
        deviation: largest root mean square difference from the first contender over the steps of
            a comparison, where the output's standard deviation is 1; 0 for the first.
    """

    backend: str
    precision: str
    p50_ms: float
    p95_ms: float
    cpu_ms: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Contenders:
    """What can run a network here.

    Attributes:
        there: estimators that have stepped once.
        absent: why others cannot, with what to install where that is it.
        late: why there was no time to find out about the rest, with what to do about it.
    """

    there: Mapping[Contender, DepthEstimator]
    absent: Mapping[Contender, str]
    late: Mapping[Contender, str] = field(default_factory=dict)


def parameters_of(parameters: DepthParameters, contender: Contender) -> DepthParameters:
    """Return the parameters with the backend and precision of a contender."""
    backend, precision = contender
    return dataclasses.replace(parameters, backend=backend, precision=precision)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Until when what may be done; of the clock `time.monotonic`, in s.

    Attributes:
        exports_s: exports that are not done by then are ended.
        steps_s: all that is found has to have been measured by then.
    """

    exports_s: float = math.inf
    steps_s: float = math.inf


def find_contenders(
    parameters: DepthParameters,
    height: int,
    width: int,
    report: Callable[[float, str], None],
    deadlines: Deadlines = Deadlines(),
) -> Contenders:
    """Load the weights on every backend and step once; an export happens here.

    Args:
        parameters: weights, device and threads; its backend and precision are not used.
        height, width: of the sensor in px.
        report: called with the part that is done, 0 to 1, and what is in hand.
        deadlines: what does not fit is late; the first contender is always there.

    Raises:
        WeightsError, ConfigurationError: the weights cannot be loaded at all.
    """
    there: dict[Contender, DepthEstimator] = {}
    absent: dict[Contender, str] = {}
    late: dict[Contender, str] = {}
    device = device_of(parameters.device)
    on_cpu = device.type == "cpu"
    # The same for all: onnxruntime may see a GPU where PyTorch sees none, and the other way round.
    parameters = dataclasses.replace(parameters, device=str(device))
    gpu_obstacle = None if on_cpu else onnxruntime_obstacle()
    wanted = ON_A_CPU if on_cpu else ON_A_GPU
    obstacle = bfloat16_obstacle(processor_flags()) if on_cpu else None
    planned_s = 0.0
    for number, contender in enumerate(wanted):
        backend, precision = contender
        report(number / len(wanted), f"{parameters.weights}: loading {backend} {precision}")
        if precision == "bfloat16" and obstacle is not None:
            absent[contender] = obstacle
            continue
        if backend != "torch" and gpu_obstacle is not None:
            # Said before an export that would be for nothing.
            absent[contender] = gpu_obstacle
            continue
        try:
            wanted_parameters = parameters_of(parameters, contender)
            estimator = create_estimator(wanted_parameters)
            if deadlines.exports_s < time.monotonic() + ENGINE_S:
                _refuse_engine_builds(wanted_parameters, estimator, height, width)
            step_s = _first_steps(estimator, height, width, deadlines.exports_s)
        except (ConfigurationError, WeightsError, InferenceError) as error:
            if number == 0:
                raise
            install = f"; {INSTALL[backend]}" if "package" in error.data else ""
            found = late if "late" in error.data else absent
            found[contender] = f"{error.message}{install}"
            continue
        planned_s += LEAST_STEPS * step_s
        if number and time.monotonic() + planned_s > deadlines.steps_s:
            planned_s -= LEAST_STEPS * step_s
            late[contender] = f"a step takes {step_s:.1f} s; give it more time with --within"
        else:
            there[contender] = estimator
    return Contenders(there, absent, late)


def _refuse_engine_builds(
    parameters: DepthParameters, estimator: DepthEstimator, height: int, width: int
) -> None:
    """Leave TensorRT out where it would have to build an engine first, which nothing can end.

    Raises:
        InferenceError: it would.
    """
    if parameters.backend != "tensorrt" or not isinstance(estimator, ExportedEstimator):
        return
    device = runtime_device(parameters.device, parameters.backend)
    runtime = GraphRuntime(parameters.backend, device, parameters.precision, parameters.threads)
    path = estimator.graph_path(height, width)
    if not runtime.has_opened(path, parameters.precision, path.parent):
        weights = shlex.quote(parameters.weights)
        raise InferenceError(
            "its engine is not built yet, which takes minutes and cannot be ended; give it the "
            f"time once, with: dae-ros bench --weights {weights} --size {width}x{height} "
            f"--within {ENGINE_S * 3 // 2}",
            late=True,
        )


def _first_steps(estimator: DepthEstimator, height: int, width: int, exports_s: float) -> float:
    """Step twice, the first time perhaps with an export; return what the second one took, in s.

    Raises:
        InferenceError: the backend failed, or the export was not done in time.
    """
    image = np.zeros((estimator.input_channels, height, width), np.float32)
    late = threading.Event()
    if isinstance(estimator, ExportedEstimator) and exports_s < math.inf:

        def stop() -> None:
            late.set()
            estimator.close()

        timer = threading.Timer(max(0.0, exports_s - time.monotonic()), stop)
        timer.start()
        try:
            estimator.estimate(image)
        except InferenceError as error:
            if not late.is_set():
                raise
            raise InferenceError(
                "there was no time for its export (--within); do it once, with: "
                f"{estimator.export_command(height, width)}",
                late=True,
            ) from error
        finally:
            timer.cancel()
    else:
        estimator.estimate(image)
    begin_s = time.monotonic()
    estimator.estimate(image)
    return time.monotonic() - begin_s


def measure_steps(
    contenders: Contenders,
    height: int,
    width: int,
    seconds: float,
    report: Callable[[float, str], None],
) -> list[StepRow]:
    """Let all contenders step in turns for about so many seconds; two rounds at least."""
    there = contenders.there
    first = next(iter(there.values()))
    images = moving_edges(first.meaning.event_encoder, first.input_channels, height, width, BLOCK)
    deviations = {
        contender: 0.0
        if estimator is first
        else measure_deviation(first, estimator, images).root_mean_square
        for contender, estimator in there.items()
    }

    def rounds() -> Iterator[None]:
        for part in _rounds(seconds):
            report(part, f"{first.name}: one step on {len(there)} backends")
            yield

    windows = [_handed_on(image, first.meaning.event_encoder) for image in images]
    cpu_ns, wall_ns = times_of_steps(there, windows, rounds())
    rows = []
    for (backend, precision), times_ns in wall_ns.items():
        p50, p95 = np.quantile(times_ns, (0.5, 0.95)) / 1e6
        cpu_ms = float(np.median(cpu_ns[backend, precision])) / 1e6
        deviation = deviations[backend, precision]
        rows.append(StepRow(backend, precision, float(p50), float(p95), cpu_ms, deviation))
    return rows


def times_of_steps(
    estimators: Mapping[Name, DepthEstimator],
    images: Sequence[EventImage],
    rounds: Iterable[object],
) -> tuple[dict[Name, list[int]], dict[Name, list[int]]]:
    """Return CPU and wall time of steps in ns, contender by contender, which take turns.

    Args:
        estimators: name -> contender.
        images: of a block of steps; its first step finds cold caches and does not count.
        rounds: one for each turn of all of them.
    """
    cpu_ns: dict[Name, list[int]] = {name: [] for name in estimators}
    wall_ns: dict[Name, list[int]] = {name: [] for name in estimators}
    for _ in rounds:
        for name, estimator in estimators.items():
            for index, image in enumerate(images):
                begin_cpu_ns, begin_ns = time.process_time_ns(), time.perf_counter_ns()
                estimator.estimate(image)
                if index:
                    wall_ns[name].append(time.perf_counter_ns() - begin_ns)
                    cpu_ns[name].append(time.process_time_ns() - begin_cpu_ns)
    return cpu_ns, wall_ns


def _handed_on(image: FloatImage, event_encoder: str) -> EventImage:
    """Return an image as the pipeline has it: a Tencode as its code."""
    code = np.empty(size_of(image), np.uint16)
    return code if event_encoder == "tencode" and pack_tencode(image, code) else image


def _rounds(seconds: float) -> Iterator[float]:
    """Yield the part that is done until so many seconds have passed, twice at least."""
    begin_s, count = time.monotonic(), 0
    while count < 2 or time.monotonic() - begin_s < seconds:
        yield min(1.0, (time.monotonic() - begin_s) / max(seconds, 1e-9))
        count += 1
