"""What skipped windows do to the recurrent state.

    python -m benchmarks.bench_skipping [--weights NAME] [--seconds S]

The same simulated recording is stepped whole, with windows left out as `overload: latest` leaves
them out, and with the state reset at every step. At the windows that all of them stepped, the
difference of the output from the whole run is divided by that of the run without any memory: 0
means that skipping changes nothing, 1 that it costs as much as forgetting everything.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from benchmarks.record import record
from dae_ros.events.packet import EventPacket
from dae_ros.parameters import DepthParameters, SimulatorParameters
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.estimator import FloatImage, OutputMeaning
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.simulation.simulation import Simulation

# Steps that the state takes to fill; they are not compared.
SETTLE = 10
KEEP_EVERY = (2, 3, 5, 10)


def event_images(seconds: float) -> list[EventImage]:
    """Return the Tencode image of every window of a simulated recording."""

    class Images:
        """An estimator that only looks."""

        name, digest, weight_version, state_age, input_channels = "images", "", 0, 0, 3
        warming = False

        def __init__(self) -> None:
            self.meaning = OutputMeaning()
            self.seen: list[EventImage] = []

        def estimate(self, image: EventImage) -> FloatImage:
            self.seen.append(image)
            return np.zeros(size_of(image), np.float32)

        def reset(self) -> None:
            """Nothing to forget."""

    parameters = DepthParameters(overload="queue")
    images = Images()
    pipeline = DepthPipeline(parameters, images)
    for item in Simulation(SimulatorParameters(duration_s=seconds, seed=5)).run():
        if isinstance(item, EventPacket):
            pipeline.feed(item)
            while pipeline.step() is not None:
                pass
    return images.seen


def main() -> None:
    """Measure, print the table, record the JSON."""
    parser = argparse.ArgumentParser(description="skipped windows and the recurrent state")
    parser.add_argument("--weights", default="untrained:micro")
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = event_images(arguments.seconds)
    estimator = create_estimator(
        DepthParameters(weights=arguments.weights, threads=1, overload="queue")
    )

    def run(keep_every: int, reset: bool) -> dict[int, FloatImage]:
        estimator.reset()
        found = {}
        for index in range(0, len(images), keep_every):
            if reset:
                estimator.reset()
            found[index] = estimator.estimate(images[index])
        return found

    whole, forgetful = run(1, reset=False), run(1, reset=True)
    rows = []
    for keep_every in KEEP_EVERY:
        kept = {
            index: depth
            for index, depth in run(keep_every, reset=False).items()
            if index >= SETTLE * keep_every or index >= len(images) // 2
        }
        changed = np.mean([np.abs(depth - whole[index]).mean() for index, depth in kept.items()])
        lost = np.mean([np.abs(forgetful[index] - whole[index]).mean() for index in kept])
        rows.append(
            {
                "steps_one_window_in": keep_every,
                "compared_windows": len(kept),
                "difference_relative_to_no_memory": round(float(changed / lost), 3),
            }
        )
    print("| one window stepped in | windows compared | difference / difference without memory |")
    print("|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(f"-> {record('skipping', {'weights': arguments.weights, 'rows': rows})}")


if __name__ == "__main__":
    main()
