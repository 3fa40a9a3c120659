"""What `bench_gpu` measures of training: whole updates of `dae-ros train`, and their floor."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.clock import DeviceClock
from benchmarks.gpu.steps import Row, told
from benchmarks.gpu.work import floor_of, update_work
from dae_ros.distillation.clip_build import build_clips
from dae_ros.distillation.clip_recipe import Recipe
from dae_ros.distillation.clip_sources import Sample
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.runs import train
from dae_ros.model.weights import load_weights
from dae_ros.runtime.onnx_parity import moving_edges

# The first updates find nothing allocated and no kernel chosen.
UNTIMED = 3
_DISTINCT = 8


@dataclass(frozen=True)
class EdgeSource:
    """Moving edges over a slope of depth: the time of an update does not depend on the scene.

    Attributes:
        height, width: in px.
        windows: how many.
    """

    height: int
    width: int
    windows: int
    label: str = "edges"
    place: str = "edges"

    def facts(self) -> dict[str, Any]:
        """Return what the windows depend on."""
        return {"edges": [self.height, self.width, self.windows]}

    def samples(
        self, event_encoder: str, window_ns: int, left_out: Counter[str]
    ) -> Iterator[Sample]:
        """Yield the windows."""
        del left_out  # nothing is
        images = moving_edges(event_encoder, 3, self.height, self.width, _DISTINCT)
        slope = np.linspace(2.0, 20.0, self.height, dtype=np.float32)
        depth = np.repeat(slope[:, None], self.width, axis=1)
        for index in range(self.windows):
            image = images[index % _DISTINCT]
            yield Sample(image, depth, None, 0, (index + 1) * window_ns, index == 0)


def measure_training(
    weights: Path,
    size: tuple[int, int],
    clock: DeviceClock,
    peaks: Row,
    *,
    precision: str,
    batch: int,
    seconds: float,
) -> Row:
    """Train on clips from the disk for a while, as `dae-ros train` does, and time its updates.

    An update is from one report of the trainer to the next: each reads its norm back, and so
    waits for the device.

    Args:
        weights: a checkpoint.
        size: (height, width) of the clips in px, which is the network's input.
        clock: of the device.
        peaks: of it.
        precision: of the arithmetic.
        batch: clips of an update.
        seconds: after which no update begins any more.
    """
    folder = weights.with_name(f"training_{weights.stem}_{precision}")
    store = folder / "clips"
    burn_in, unroll = (TrainingParameters.burn_in, TrainingParameters.unroll)
    source = EdgeSource(*size, windows=4 * (burn_in + unroll))
    build_clips(Recipe("tencode", 50_000_000, {"train/0000_edges": source}), store)
    settings = TrainingParameters.from_mapping(
        {
            "weights": str(weights), "clips": str(store), "batch": batch, "precision": precision,
            "device": str(clock.device), "cold_start": 0.0, "steps": 1_000_000,
            "save_every": 1_000_000, "evaluate_every": 1_000_000,
        }
    )  # fmt: skip
    reported_s: list[float] = []

    def report(_part: float, _detail: str) -> None:
        reported_s.append(time.monotonic())

    begin_s = time.monotonic()

    def stopped() -> bool:
        return len(reported_s) > UNTIMED + 1 and time.monotonic() - begin_s > seconds

    with _memory_measured(clock) as memory:
        result = train(settings, folder / "run", stopped=stopped, report=report)
    taken_ms = 1e3 * np.diff(reported_s)[UNTIMED:]
    loaded = load_weights(str(weights))
    work = update_work(
        loaded, size, getattr(torch, precision), clips=batch, burn_in=burn_in, unroll=unroll
    )
    floor = floor_of(work, peaks["operations_per_s"][precision], peaks["bytes_per_s"])
    return {
        "precision": precision,
        "clips": batch,
        "windows": [burn_in, unroll],
        "updates": len(taken_ms),
        # Those leave the optimizer out, and so are faster than what they stand for.
        "updates_refused": result.counters["updates_refused"],
        "update_p50_ms": round(median(taken_ms.tolist()), 3),
        "largest_memory_bytes": memory[0] if memory else None,
        "floor": told(work, floor),
    }


@contextlib.contextmanager
def _memory_measured(clock: DeviceClock) -> Iterator[list[int]]:
    """Give a list that holds, at the end, how much of a GPU's memory tensors took at once."""
    found: list[int] = []
    if clock.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(clock.device)
    yield found
    if clock.device.type == "cuda":
        found.append(torch.cuda.max_memory_allocated(clock.device))
