"""How long one step of each network takes on this processor, at its own input size.

    python -m benchmarks.bench_networks [names] [--threads N]

Random inputs and weights: the time of a step does not depend on them. The figure is the network
alone, with its state carried; scaling to the network and back is part of `estimate` and listed
beside it for a 260x346 sensor. Medians over the steps, after three for warming up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from benchmarks.record import record
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.untrained import untrained
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting

SENSOR = (260, 346)
NETWORKS = ("micro", "micro_frames", "vitt", "vits", "e2depth")
WARM_UP, STEPS = 3, 15


def milliseconds(step: Callable[[], object]) -> float:
    """Return the median time of a step in ms."""
    times_ns = []
    for index in range(WARM_UP + STEPS):
        begin_ns = time.perf_counter_ns()
        step()
        if index >= WARM_UP:
            times_ns.append(time.perf_counter_ns() - begin_ns)
    return median(times_ns) / 1e6


def measure(model: LoadedModel) -> dict[str, object]:
    """Return one row of the result."""
    network = model.network
    channels = model.config.input_format.channels
    fitting = Fitting(model.config, network.multiple, torch.device("cpu"))
    height, width = fitting.network_size(*SENSOR)
    image = torch.rand(1, channels, height, width)
    state = network.initial_state(1, height, width)

    def step() -> None:
        nonlocal state
        with torch.inference_mode():
            _, state = network(image, state)

    estimator = TorchEstimator(model)
    sensor_image = np.random.default_rng(0).random((channels, *SENSOR), dtype=np.float32)
    return {
        "network": model.name.removeprefix("untrained:"),
        "weights_million": round(sum(w.numel() for w in network.parameters()) / 1e6, 2),
        "input_px": [height, width],
        "step_ms": round(milliseconds(step), 2),
        "estimate_260x346_ms": round(milliseconds(lambda: estimator.estimate(sensor_image)), 2),
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description="time of one step of each network")
    parser.add_argument("names", nargs="*", default=NETWORKS, metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.names:
        rows.append(measure(untrained(name)))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(record("networks", {"threads": arguments.threads, "rows": rows}))


if __name__ == "__main__":
    main()
