"""What one GPU does with a step of the network, with several cameras, and with training.

    python -m benchmarks.bench_gpu [--device cuda:N] [--within S] [--out FOLDER]

Untrained weights: times do not depend on them. All contenders of a size take turns in one process,
after the device was busy long enough for its clocks to be up, and are compared by medians.

* **Host to host**: from an image in pinned host memory to a prediction on the host. Ours takes a
  Tencode as its code, as the node hands it on; the others take floats. TensorRT runs through
  onnxruntime.
* **Device**: between two events of CUDA on the step's own stream, the image lying there; steps
  follow each other, so that caches are as the last step left them. **Cold cache**: each step after
  something four times as large as the GPU's last cache.
* **Floor**: the larger of what the products of the network take at the rate of a large matrix
  product, and what its weights, activations and states take at the bandwidth of a large copy, both
  measured here and now. A cache that keeps activations may be faster than the second.
* **Deviation**: root mean square from ours in float32, where the output's deviation is 1.

What is not installed, or does not compile, is named with its reason. The file is written anew after
every part, so that what was measured stays when a later part is ended. Exits with 1 where a goal is
missed or a part failed, with 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.goals import conclude
from benchmarks.gpu.clock import DeviceClock, device_facts, measure_peaks, readings
from benchmarks.gpu.contenders import EVERYONE
from benchmarks.gpu.report import goals, roofline, table
from benchmarks.gpu.steps import (
    checkpoint_at,
    floors,
    measure_cameras,
    measure_contenders,
    measure_swaps,
)
from benchmarks.gpu.training import measure_training
from benchmarks.record import RESULTS, record
from benchmarks.run import LEFT_OUT
from dae_ros.evaluation.strips import write_png
from dae_ros.model.device import device_of
from dae_ros.model.weights import load_weights
from dae_ros.runtime.benchmark.event_path import measure_event_path
from dae_ros.runtime.benchmark.machine import machine, versions

PACKAGES = ("onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "triton")
# No part is begun with less time than that, in s.
LEAST_LEFT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        device: where.
        networks: names of untrained ones, the most important first; batches of cameras and changes
            of weights are measured with it.
        sizes: (height, width) of sensor and network input in px.
        contenders: of `gpu/contenders.EVERYONE`.
        cameras: how many are stepped together.
        swaps: changes of weights.
        training: (precision, clips of an update) of each training.
        within_s: for everything.
        seconds: for the turns of one table.
        matrix_side, copy_bytes: see `measure_peaks`.
        flush_bytes: see `DeviceClock`.
    """

    device: str = "cuda"
    networks: tuple[str, ...] = ("vits", "micro")
    sizes: tuple[tuple[int, int], ...] = ((266, 350), (476, 644))
    contenders: tuple[str, ...] = EVERYONE
    cameras: tuple[int, ...] = (1, 2, 4, 8)
    swaps: int = 3
    training: tuple[tuple[str, int], ...] = (("bfloat16", 8), ("float32", 8))
    within_s: float = 540.0
    seconds: float = 5.0
    matrix_side: int = 8192
    copy_bytes: int = 1 << 31
    flush_bytes: int | None = None


class Bench:
    """Measures what a plan says, part by part; each part's results are in `results` at once.

    Args:
        plan: of it.
        folder: for checkpoints, clips and graphs.
        save: called after each part.
    """

    def __init__(self, plan: Plan, folder: Path, save: Callable[[dict[str, Any]], None]) -> None:
        self._plan, self._folder, self._save = plan, folder, save
        self._end_s = time.monotonic() + plan.within_s
        self._clock = DeviceClock(device_of(plan.device), plan.flush_bytes)
        self.results: dict[str, Any] = {
            "device": device_facts(self._clock.device),
            "packages": versions(PACKAGES),
            "plan": dataclasses.asdict(plan),
            "readings_before": readings(self._clock.device),
            "steps": [], "cameras": [], "swaps": [], "training": [], "host": [],
            "failed": {},
        }  # fmt: skip

    def run(self) -> None:
        """Measure everything; the most important first."""
        plan, clock = self._plan, self._clock
        clock.warm_up(min(1.0, plan.seconds))
        self.results["peaks"] = measure_peaks(
            clock, side=plan.matrix_side, copy_bytes=plan.copy_bytes
        )
        self.results["readings_busy"] = readings(clock.device)
        first, *others = plan.networks
        for size in plan.sizes:
            self._part("steps", self._steps, first, size)
        for size in plan.sizes:
            self._part("cameras", self._cameras, first, size)
            self._part("swaps", self._swaps, first, size)
        for network in reversed(plan.networks):
            for precision, clips in plan.training:
                self._part("training", self._training, network, plan.sizes[0], precision, clips)
        for size in plan.sizes:
            self._part("host", self._host, size)
        for network in others:
            for size in plan.sizes:
                self._part("steps", self._steps, network, size)
        self.results["readings_after"] = readings(clock.device)
        self._save(self.results)

    def _part(self, key: str, measure: Callable[..., Any], *given: Any) -> None:
        """Measure a part into `results[key]`; one that fails is named, and the others go on."""
        name = " ".join([key, *map(str, given)])
        left_s = self._end_s - time.monotonic()
        if left_s < LEAST_LEFT_S:
            self.results["failed"][name] = "there was no time left for it; give more with --within"
            return
        print(f"{name} ... ({left_s:.0f} s left)", flush=True)
        try:
            self.results[key] += measure(*given)
        # Such a machine is at hand for minutes: whatever one part runs into, others are measured.
        except Exception as error:  # noqa: BLE001
            said = " ".join(str(error).split())
            self.results["failed"][name] = f"{type(error).__name__}: {said[:600]}"
            print(f"failed: {self.results['failed'][name]}", flush=True)
        if self._clock.device.type == "cuda":
            # What a part has left would be in the way of the next one's memory.
            torch.cuda.empty_cache()
        self._save(self.results)

    def _weights(self, network: str, size: tuple[int, int]) -> Path:
        path = self._folder / f"{network}_{size[0]}x{size[1]}.safetensors"
        return path if path.exists() else checkpoint_at(network, *size, self._folder)

    def _steps(self, network: str, size: tuple[int, int]) -> list[dict[str, Any]]:
        plan, weights = self._plan, self._weights(network, size)
        # An engine may take a third of what is left: other parts matter as well.
        found = measure_contenders(
            plan.contenders, weights, size, self._clock, plan.seconds,
            lambda: (self._end_s - time.monotonic()) / 3,
        )  # fmt: skip
        loaded = load_weights(str(weights))
        return [
            {
                "network": network,
                "size_px": list(size),
                "floors": floors(loaded, size, self.results["peaks"]),
                **found,
            }
        ]

    def _cameras(self, network: str, size: tuple[int, int]) -> list[dict[str, Any]]:
        plan = self._plan
        rows = measure_cameras(
            self._weights(network, size), size, plan.cameras, self._clock,
            self.results["peaks"], plan.seconds,
        )  # fmt: skip
        return [{"network": network, "size_px": list(size), "rows": rows}]

    def _swaps(self, network: str, size: tuple[int, int]) -> list[dict[str, Any]]:
        found = measure_swaps(
            self._weights(network, size), size, self._clock, self._plan.swaps,
            patience_s=2 * self._plan.seconds,
        )  # fmt: skip
        return [{"network": network, "size_px": list(size), **found}]

    def _training(
        self, network: str, size: tuple[int, int], precision: str, clips: int
    ) -> list[dict[str, Any]]:
        found = measure_training(
            self._weights(network, size), size, self._clock, self.results["peaks"],
            precision=precision, batch=clips, seconds=2 * self._plan.seconds,
        )  # fmt: skip
        return [{"network": network, "size_px": list(size), **found}]

    def _host(self, size: tuple[int, int]) -> list[dict[str, Any]]:
        rows = measure_event_path(*size, self._plan.seconds / 2, lambda *_: None)
        return [{"size_px": list(size), **dataclasses.asdict(row)} for row in rows]


def measure(plan: Plan, out: Path, load_at_start: float) -> dict[str, Any]:
    """Measure a plan, write gpu.json, gpu.md and gpu.png, and return the results."""

    def save(results: dict[str, Any]) -> None:
        record("gpu", results, out)
        (out / "gpu.md").write_text(table(results))

    with tempfile.TemporaryDirectory(prefix="dae_ros_gpu_") as folder:
        bench = Bench(plan, Path(folder), save)
        bench.run()
    results = bench.results
    print(f"\n{table(results)}")
    conclude(results, goals(results), load_at_start)
    save(results)
    write_png(out / "gpu.png", roofline(results))
    return results


def main(args: list[str] | None = None) -> int:
    """Run it; return 1 where a goal is missed or a part failed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--within", type=float, default=540.0, metavar="S",
                        help="time for everything (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    given = parser.parse_args(args)
    if not given.device.startswith("cuda"):
        parser.error(f"'{given.device}' is no GPU; use cuda or cuda:N")
    if not torch.cuda.is_available():
        print(
            f"There is no GPU that PyTorch {torch.__version__} sees, and nothing else is measured "
            "here: run it on a machine with one, with a build of PyTorch for CUDA."
        )
        return LEFT_OUT
    load = machine()["load_1_minute"]
    torch.cuda.set_device(device_of(given.device))
    results = measure(Plan(device=given.device, within_s=given.within), given.out, load)
    missed = any(goal["met"] is False for goal in results["goals"])
    return 1 if missed or results["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
