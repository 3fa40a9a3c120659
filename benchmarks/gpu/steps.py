"""What `bench_gpu` measures of steps: every contender, several cameras, changes of weights."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.clock import DeviceClock, round_trip_ms, turns
from benchmarks.gpu.contenders import REFERENCE, find
from benchmarks.gpu.frames import frames
from benchmarks.gpu.work import Floor, Work, floor_of, step_work
from dae_ros.errors import DaeError
from dae_ros.model.checkpoint import LoadedModel, save_checkpoint
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.benchmark.network_steps import times_of_steps
from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.onnx_parity import measure_deviation
from dae_ros.runtime.torch_cameras import CameraBatch
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.weight_swap import WeightSwap

Row = dict[str, Any]
# Windows of a turn; the first finds the caches of another contender and does not count.
BLOCK = 8
DEVICE_BATCH, DEVICE_SAMPLES = 20, 5
# New weights differ by so much, as after a few steps of learning.
NOISE = 0.005
# Of the steps while weights change: a camera of 100 Hz.
PACE_S = 0.01


def checkpoint_at(name: str, height: int, width: int, folder: Path) -> Path:
    """Write an untrained network whose input has this size, and return the file.

    By itself a network scales a sensor to its own input; here each size is stepped as it is.

    Args:
        name: of `untrained`.
        height, width: of the input in px, multiples of 14.
        folder: for the file.
    """
    loaded = untrained(name)
    config = dataclasses.replace(loaded.config, input_height=height, input_width=width)
    network = build_network(config)
    network.load_state_dict(loaded.network.state_dict())
    path = folder / f"{name}_{height}x{width}.safetensors"
    save_checkpoint(path, network, loaded.meaning)
    return path


def floors(loaded: LoadedModel, size: tuple[int, int], peaks: Row, cameras: int = 1) -> Row:
    """Return work and floors of one step, by precision."""
    found = {}
    for precision, rate in peaks["operations_per_s"].items():
        work = step_work(loaded, *size, getattr(torch, precision), cameras)
        found[precision] = told(work, floor_of(work, rate, peaks["bytes_per_s"]))
    return found


def told(work: Work, floor: Floor) -> Row:
    """Return work and floor as JSON."""
    return {
        **dataclasses.asdict(work),
        "traffic_bytes": work.traffic_bytes,
        **{name: round(value, 6) for name, value in dataclasses.asdict(floor).items()},
        "roofline_ms": round(floor.roofline_ms, 6),
    }


def measure_contenders(
    names: Sequence[str],
    weights: Path,
    size: tuple[int, int],
    clock: DeviceClock,
    seconds: float,
    limit_s: Callable[[], float],
) -> Row:
    """Let contenders step one network in turns: host to host, and on the device alone.

    Args:
        names: of `gpu/contenders.EVERYONE`.
        weights: a checkpoint for this size.
        size: (height, width) of the sensor in px.
        clock: of the device.
        seconds: for the turns from host to host.
        limit_s: asked for the time that is left for building graphs.
    """
    images = frames(*size, BLOCK, pinned=clock.device.type == "cuda")
    found = find(names, weights, size, clock.device, images[0], limit_s)
    reference = found.there.get(REFERENCE)
    there, absent, deviations = dict(found.there), dict(found.absent), {}
    for name, one in found.there.items():
        if reference is None or one is reference:
            continue
        try:
            deviations[name] = measure_deviation(reference, one, images).root_mean_square
        except (DaeError, RuntimeError) as error:  # of PyTorch: memory, and what a graph raises
            del there[name]
            absent[name] = f"it failed after its first step: {error}"
    clock.warm_up(min(1.0, seconds))
    _, wall_ns = times_of_steps(there, images, turns(seconds))
    alone, cold = _on_the_device(there, clock, seconds)
    rows = []
    for name, one in there.items():
        p50, p95 = np.quantile(wall_ns[name], (0.5, 0.95)) / 1e6
        rows.append(
            {
                "contender": name,
                "step_p50_ms": round(float(p50), 4),
                "step_p95_ms": round(float(p95), 4),
                "device_ms": _middle(alone[name]),
                "device_cold_ms": _middle(cold[name]),
                "deviation_rms": deviations.get(name, 0.0),
                "ready_s": round(found.ready_s[name], 2),
                "note": one.note,
            }
        )
    return {
        "rows": rows,
        "not_measured": absent,
        "round_trip_ms": round(round_trip_ms(clock, *size), 4),
    }


def _on_the_device(
    there: Any, clock: DeviceClock, seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return times in ms with the caches that the last step left, and with empty ones."""
    alone: dict[str, list[float]] = {name: [] for name in there}
    cold: dict[str, list[float]] = {name: [] for name in there}
    for _ in turns(seconds / 2):
        for name, one in there.items():
            if one.queue is None:
                continue
            alone[name] += clock.times_ms(
                one.queue, one.stream, samples=DEVICE_SAMPLES, batch=DEVICE_BATCH
            )
            cold[name] += clock.times_ms(
                one.queue, one.stream, samples=2 * DEVICE_SAMPLES, cold=True
            )
    return alone, cold


def measure_cameras(
    weights: Path,
    size: tuple[int, int],
    counts: Sequence[int],
    clock: DeviceClock,
    peaks: Row,
    seconds: float,
) -> list[Row]:
    """Step several cameras at once in bfloat16, the numbers of cameras in turns.

    Returns:
        For each number the median step from host to host and its share for each camera, in ms,
        and the floor for each camera.
    """
    loaded = load_weights(str(weights))
    image = frames(*size, 1, pinned=clock.device.type == "cuda")[0].code
    batches = {
        count: CameraBatch(loaded, count, device=str(clock.device), precision="bfloat16")
        for count in counts
    }
    for count, batch in batches.items():
        batch.estimate([image] * count)
    clock.warm_up(min(1.0, seconds))
    taken_ms: dict[int, list[float]] = {count: [] for count in counts}
    for _ in turns(seconds):
        for count, batch in batches.items():
            for index in range(BLOCK):
                begin_ns = time.perf_counter_ns()
                batch.estimate([image] * count)
                if index:
                    taken_ms[count].append((time.perf_counter_ns() - begin_ns) / 1e6)
    rows = []
    for count in counts:
        step_ms = median(taken_ms[count])
        floor = floors(loaded, size, peaks, count)["bfloat16"]["roofline_ms"]
        rows.append(
            {
                "cameras": count,
                "step_p50_ms": round(step_ms, 4),
                "per_camera_ms": round(step_ms / count, 4),
                "floor_per_camera_ms": round(floor / count, 6),
            }
        )
    return rows


def measure_swaps(
    weights: Path, size: tuple[int, int], clock: DeviceClock, swaps: int, patience_s: float
) -> Row:
    """Change weights while a camera of 100 Hz is stepped, as a node does that follows a learner.

    The first change is the cold one: memory and graphs of its slot are made while steps go on.

    Args:
        weights: a checkpoint to begin with.
        size: (height, width) of the sensor in px.
        clock: of the device.
        swaps: how many, one after the other.
        patience_s: for each.

    Returns:
        Quiet steps and those of each change, in ms: median and longest; how long each change took
        from its announcement until the new weights stepped, in s, None where they never did.
    """
    images = frames(*size, BLOCK, pinned=clock.device.type == "cuda")
    estimator = TorchEstimator(
        load_weights(str(weights)), device=str(clock.device), precision="bfloat16"
    )
    verdicts: list[str] = []
    swap = WeightSwap(
        estimator,
        SwapRules(replay_windows=8, canary_windows=8),
        judged=lambda verdict: verdicts.append(f"{verdict.outcome}: {verdict.code}"),
        eager=False,
        clock_ns=time.monotonic_ns,
    )
    _paced(swap, images, 0.5, lambda: False)
    clock.warm_up(0.5)
    quiet = _summary(_paced(swap, images, min(3.0, patience_s), lambda: False))
    changes = []
    for number in range(1, swaps + 1):
        announcement = _version(weights, number)
        begin_s = time.monotonic()
        stepped_s: list[float] = []

        def over(
            number: int = number, begin_s: float = begin_s, stepped_s: list[float] = stepped_s
        ) -> bool:
            if swap.weight_version == number and not stepped_s:
                stepped_s.append(time.monotonic() - begin_s)
            # The canary is part of it: old weights step beside the new ones.
            return bool(stepped_s) and swap.phase == "steady"

        swap.announce(announcement)
        taken = _summary(_paced(swap, images, patience_s, over))
        took_s = round(stepped_s[0], 3) if stepped_s else None
        changes.append({"cold": number == 1, "took_s": took_s, **taken})
    return {"pace_hz": round(1 / PACE_S), "quiet": quiet, "changes": changes, "verdicts": verdicts}


def _version(weights: Path, number: int) -> Announcement:
    """Write weights that lie near others, and say where they are."""
    loaded = load_weights(str(weights))
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for weight in loaded.network.parameters():
            weight.mul_(1 + NOISE * torch.randn(weight.shape, generator=generator))
    path = weights.with_name(f"version_{number}.safetensors")
    save_checkpoint(path, loaded.network, loaded.meaning)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    # Confirmed: untrained depth need not stay as it was.
    return Announcement(number, path, digest, len(content), confirmed=True)


def _paced(
    swap: WeightSwap, images: Sequence[Any], seconds: float, done: Callable[[], bool]
) -> list[float]:
    """Step at the pace until the time is over, or it is done; return the steps' times in ms."""
    taken_ms = []
    begin_s = due_s = time.monotonic()
    while time.monotonic() - begin_s < seconds and not done():
        image = images[len(taken_ms) % len(images)].code
        begin_ns = time.perf_counter_ns()
        swap.estimate(image)
        taken_ms.append((time.perf_counter_ns() - begin_ns) / 1e6)
        due_s = max(due_s + PACE_S, time.monotonic())
        while swap.work(int(due_s * 1e9)):
            pass
        time.sleep(max(0.0, due_s - time.monotonic()))
    return taken_ms


def _summary(taken_ms: Sequence[float]) -> Row:
    if not taken_ms:
        return {"steps": 0, "p50_ms": None, "longest_ms": None}
    return {
        "steps": len(taken_ms),
        "p50_ms": round(median(taken_ms), 4),
        "longest_ms": round(max(taken_ms), 4),
    }


def _middle(values: Sequence[float]) -> float | None:
    return round(median(values), 4) if values else None
