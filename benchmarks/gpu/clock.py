"""Times on a device, and the peaks of it that a roofline is made of.

A host's clock says when work was queued, not when it was done. So work on a GPU is timed by events
of CUDA on the very stream that it is queued on; a step from host to host ends with its result on
the host, where the host's clock is right. On a CPU, where work is done when it returns, the host's
clock times all, which is how these lines are tested.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch

# Twice what the largest cache of a GPU holds now; what is read behind it comes from memory.
LEAST_FLUSH_BYTES = 1 << 27
_QUERY = (
    "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
)


class DeviceClock:
    """Times work that is queued on one device.

    Args:
        device: where it is queued.
        flush_bytes: to write before a step that is to find no cache filled; None: four times the
            GPU's last cache.
    """

    def __init__(self, device: torch.device, flush_bytes: int | None = None) -> None:
        self.device = device
        if flush_bytes is None:
            cache = 0
            if device.type == "cuda":
                cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
            flush_bytes = max(LEAST_FLUSH_BYTES, 4 * cache)
        self._flush = torch.ones(flush_bytes // 4, device=device)
        self.synchronize()

    def synchronize(self) -> None:
        """Wait for everything that is queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def times_ms(
        self,
        queue: Callable[[], object],
        stream: torch.cuda.Stream | None = None,
        *,
        samples: int,
        batch: int = 1,
        cold: bool = False,
    ) -> list[float]:
        """Return how long the device takes for work, in ms for each time that it is queued.

        What is queued first does not count: while the device does it the host gets ahead, so that
        the device does not wait for the host between the events unless the work itself makes it.

        Args:
            queue: queues the work once and does not wait.
            stream: that it queues on; None: the present one.
            samples: how many figures.
            batch: how often it is queued for one of them.
            cold: empty the device's cache before each figure.
        """
        self.synchronize()
        return [self._sample(queue, stream, batch, cold) / batch for _ in range(samples)]

    def _sample(
        self, queue: Callable[[], object], stream: torch.cuda.Stream | None, batch: int, cold: bool
    ) -> float:
        on_gpu = self.device.type == "cuda"
        queue()
        if cold:
            # On the same stream, or it would run beside the step.
            with torch.cuda.stream(stream) if on_gpu else contextlib.nullcontext():
                self._flush.add_(1.0)
        if not on_gpu:
            begin_ns = time.perf_counter_ns()
            for _ in range(batch):
                queue()
            return (time.perf_counter_ns() - begin_ns) / 1e6
        on = torch.cuda.current_stream(self.device) if stream is None else stream
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(on)
        for _ in range(batch):
            queue()
        end.record(on)
        end.synchronize()
        return float(begin.elapsed_time(end))

    def warm_up(self, seconds: float) -> None:
        """Keep the device busy until its clocks are up: idle ones run at a fifth."""
        side = 2048 if self.device.type == "cuda" else 64
        matrix = torch.randn(side, side, device=self.device)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for _ in range(10):
                torch.mm(matrix, matrix)
            self.synchronize()


def turns(seconds: float, least: int = 2) -> Iterator[int]:
    """Yield the number of the turn until so many seconds are over, `least` times at least."""
    begin_s, number = time.monotonic(), 0
    while number < least or time.monotonic() - begin_s < seconds:
        yield number
        number += 1


def measure_peaks(
    clock: DeviceClock,
    *,
    side: int = 8192,
    copy_bytes: int = 1 << 31,
    samples: int = 10,
) -> dict[str, Any]:
    """Measure what the device does at most: products of large matrices, and a large copy.

    Args:
        clock: of the device.
        side: of the square matrices, and half of it as well: the faster counts. Their numbers are
            random, since zeros draw less power and so run faster.
        copy_bytes: of the copy, far more than any cache.
        samples: of which the median counts.

    Returns:
        operations_per_s: precision -> multiplications and additions; bytes_per_s: read plus
        written.
    """
    rates: dict[str, float] = {}
    for name in ("bfloat16", "float16", "float32"):
        dtype = getattr(torch, name)
        found = []
        for n in (side, side // 2):
            left, right = (torch.randn(n, n, device=clock.device).to(dtype) for _ in range(2))
            out = torch.empty(n, n, dtype=dtype, device=clock.device)

            def multiply(a: Any = left, b: Any = right, c: Any = out) -> None:
                torch.mm(a, b, out=c)

            clock.times_ms(multiply, samples=3)
            taken_ms = median(clock.times_ms(multiply, samples=samples))
            found.append(2 * n**3 / taken_ms * 1e3)
        rates[name] = max(found)
    source = torch.randn(copy_bytes // 4, device=clock.device)
    target = torch.empty_like(source)
    clock.times_ms(lambda: target.copy_(source), samples=3)
    copied_ms = median(clock.times_ms(lambda: target.copy_(source), samples=samples))
    return {
        "operations_per_s": rates,
        "bytes_per_s": 2 * source.numel() * 4 / copied_ms * 1e3,
        "matrix_sides": [side, side // 2],
        "copy_bytes": source.numel() * 4,
    }


def round_trip_ms(clock: DeviceClock, height: int, width: int, samples: int = 50) -> float:
    """Return what an image over and a prediction back take, with nothing between; median in ms.

    16 bits a pixel over, a float32 a pixel back, in host memory that stays, and one wait: what a
    step from host to host costs on top of the device's own time.
    """
    pinned = clock.device.type == "cuda"
    going = torch.zeros(height, width, dtype=torch.int16, pin_memory=pinned)
    coming = torch.zeros(height, width, pin_memory=pinned)
    image = torch.zeros(height, width, dtype=torch.int16, device=clock.device)
    prediction = torch.zeros(height, width, device=clock.device)
    taken_ms = []
    for _ in range(samples):
        begin_ns = time.perf_counter_ns()
        image.copy_(going, non_blocking=True)
        coming.copy_(prediction, non_blocking=True)
        clock.synchronize()
        taken_ms.append((time.perf_counter_ns() - begin_ns) / 1e6)
    return median(taken_ms[samples // 5 :])


def device_facts(device: torch.device) -> dict[str, Any]:
    """Return what tells one device from another, as JSON."""
    if device.type != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "compute_capability": [properties.major, properties.minor],
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def readings(device: torch.device) -> str:
    """Return clocks, power and temperature as nvidia-smi says them now; why not where it does not.

    It only asks: no setting of the device is touched.
    """
    if device.type != "cuda":
        return "no GPU"
    # Its numbers are those of the machine, which CUDA_VISIBLE_DEVICES may have changed: the unique
    # name finds the right one.
    name = str(getattr(torch.cuda.get_device_properties(device), "uuid", "")).removeprefix("GPU-")
    which = [f"--id=GPU-{name}"] if name else []
    command = ["nvidia-smi", *which, f"--query-gpu={_QUERY}", "--format=csv"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi says nothing: {error}"
    return said.stdout.strip() or said.stderr.strip()
