"""How long one step takes on each backend of the CPU, and how far it is from PyTorch in float32.

    python -m benchmarks.bench_backends [names] [--threads 1 2]

Untrained weights: the time of a step does not depend on them. A step is `estimate`, from an image
of the sensor's size to a prediction of that size, the state carried. Contenders take turns in
blocks; figures are medians over all blocks, of CPU time and of wall time, and ratios of these to
PyTorch in float32. What is not installed, or not in the processor, is left out and named. int8 is
calibrated on the images that it is timed with and has no accuracy report: it is here for its speed.
What is not int8 in it is bfloat16 where the processor has that, as in a file of `dae-ros export`.
What int8 costs in depth, with trained weights, is what `dae-ros export --precision int8` says.

Goals are for the wall time of a step of `vits`, at each number of threads. It exits with 1 where
one is missed; bfloat16 is not measured where the processor has none, whose flags are printed then.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.goals import Goal, at_least, conclude
from benchmarks.record import RESULTS, record
from dae_ros.errors import ConfigurationError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.untrained import untrained
from dae_ros.runtime.benchmark.network_steps import times_of_steps
from dae_ros.runtime.estimator import DepthEstimator
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import read_description
from dae_ros.runtime.onnx_export import export_onnx, write_graph
from dae_ros.runtime.onnx_parity import measure_deviation, moving_edges
from dae_ros.runtime.onnx_quantisation import CalibrationPairs, quantised
from dae_ros.runtime.onnxruntime_graph import OnnxRuntimeGraph
from dae_ros.runtime.openvino_graph import OpenVinoGraph, has_bfloat16
from dae_ros.runtime.processor import bfloat16_obstacle, processor_flags, said_of
from dae_ros.runtime.torch_estimator import TorchEstimator

SENSOR = (266, 350)
NETWORKS = ("micro", "vits")
BASELINE = "torch float32"
# Times as fast as PyTorch in float32.
JUDGED, TIMES_PYTORCH = "vits", {"openvino bfloat16": 3.5, "openvino int8": 6.0}
THREADS = (1, 2)
# The first step of a block finds the caches of another contender.
ROUNDS, BLOCK = 5, 4


def contenders(
    loaded: LoadedModel, file: Path, threads: int
) -> tuple[dict[str, DepthEstimator], dict[str, str]]:
    """Return the estimators by name, and why others are left out."""
    said = read_description(file)
    makers = {
        BASELINE: lambda: TorchEstimator(loaded),
        "torch bfloat16": lambda: TorchEstimator(loaded, precision="bfloat16"),
        "onnxruntime float32": lambda: GraphEstimator(
            OnnxRuntimeGraph(file, said, threads=threads), said
        ),
        **{
            f"openvino {precision}": lambda precision=precision: GraphEstimator(
                OpenVinoGraph(file, said, precision=precision, threads=threads), said
            )
            for precision in ("float32", "bfloat16")
        },
        "openvino int8": lambda: in_int8(file, threads),
    }
    there: dict[str, DepthEstimator] = {}
    absent = {}
    obstacle = bfloat16_obstacle(processor_flags())
    for name, make in makers.items():
        if name.endswith("bfloat16") and obstacle is not None:
            absent[name] = obstacle
            continue
        try:
            there[name] = make()
        except ConfigurationError as error:
            absent[name] = error.message
    return there, absent


def in_int8(file: Path, threads: int) -> DepthEstimator:
    """Return the int8 version of an exported file, which is made beside it once.

    Raises:
        ConfigurationError: NNCF or OpenVINO is not installed.
    """
    said = read_description(file)
    beside = file.with_suffix(".int8.onnx")
    if not beside.exists():
        original = GraphEstimator(OpenVinoGraph(file, said, threads=threads), said)
        images = moving_edges("tencode", said.channels, said.height, said.width)
        model = quantised(file, CalibrationPairs(original, lambda: [images]), len(images))
        write_graph(beside, model, replace(said, precision="int8"))
    said = replace(said, precision="int8")
    remainder = "bfloat16" if has_bfloat16() else "float32"
    return GraphEstimator(OpenVinoGraph(beside, said, precision=remainder, threads=threads), said)


def times(estimators: Mapping[str, DepthEstimator]) -> dict[str, tuple[float, float]]:
    """Return the median CPU and wall time of a step in ms, contender by contender."""
    some = next(iter(estimators.values()))
    images = moving_edges("tencode", some.input_channels, *SENSOR, steps=BLOCK)
    cpu_ns, wall_ns = times_of_steps(estimators, images, range(ROUNDS))
    return {name: (median(cpu_ns[name]) / 1e6, median(wall_ns[name]) / 1e6) for name in estimators}


def measure(name: str, threads: int, folder: Path) -> dict[str, object]:
    """Return the result of one network; `folder` keeps its graphs for the next call."""
    loaded = untrained(name)
    file = folder / f"{name}.onnx"
    if not file.exists():
        export_onnx(loaded, file, *SENSOR)
    estimators, absent = contenders(loaded, file, threads)
    images = moving_edges("tencode", 3, *SENSOR)
    deviations = {
        contender: measure_deviation(estimators[BASELINE], estimator, images).root_mean_square
        for contender, estimator in estimators.items()
        if contender != BASELINE
    }
    measured = times(estimators)
    base_cpu_ms, base_wall_ms = measured[BASELINE]
    rows = [
        {
            "backend": contender,
            "step_cpu_ms": round(cpu_ms, 2),
            "step_wall_ms": round(wall_ms, 2),
            "speed_up_cpu": round(base_cpu_ms / cpu_ms, 2),
            "speed_up_wall": round(base_wall_ms / wall_ms, 2),
            "deviation_rms": deviations.get(contender, 0.0),
        }
        for contender, (cpu_ms, wall_ms) in measured.items()
    ]
    print(f"\n{name}, sensor {SENSOR[0]}x{SENSOR[1]}, {threads} thread(s)")
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    for contender, reason in absent.items():
        print(f"{contender}: not measured ({reason})")
    return {"network": name, "rows": rows, "not_measured": absent}


def goals(runs: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Compare runs, one for each number of threads, with the goals; see `decode_goals`."""
    found = []
    for one in runs:
        for network in one["networks"]:
            if network["network"] != JUDGED:
                continue
            ratios = {row["backend"]: row["speed_up_wall"] for row in network["rows"]}
            said = f"{JUDGED} at {SENSOR[0]}x{SENSOR[1]}, {one['threads']} thread(s)"
            found += [
                at_least(f"{said}, {name}: times PyTorch in float32", ratios.get(name), bound)
                for name, bound in TIMES_PYTORCH.items()
            ]
    return found


def main(args: list[str] | None = None) -> int:
    """Measure, print and record; return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description="time of one step on each backend")
    parser.add_argument("names", nargs="*", default=NETWORKS, metavar="NAME")
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS, metavar="N",
                        help="one run with each (default: 1 2)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    given = parser.parse_args(args)
    load = os.getloadavg()[0]
    print(f"flags that matter to networks: {said_of(processor_flags())}")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in given.threads:
            torch.set_num_threads(threads)
            networks = [measure(name, threads, Path(folder)) for name in given.names]
            runs.append({"threads": threads, "networks": networks})
    results: dict[str, Any] = {"sensor_px": list(SENSOR), "runs": runs}
    conclude(results, goals(runs), load)
    print(f"-> {record('backends', results, given.out)}")
    return 1 if any(goal["met"] is False for goal in results["goals"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
