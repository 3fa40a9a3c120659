"""How fast the simulator runs, and what it gives: every preset at 173x130 px, some at 346x260.

    python -m benchmarks.bench_simulator [--quick]

A simulation runs on one thread, so that on two cores the other one is free; speed is simulated
seconds per second of wall time, beside it per second of CPU time, which a machine that does other
work changes less. Events, frames and depth are made and left where they are; nothing is encoded or
written. Pictures are what is rendered between two instants; their time is `look` and `radiance`.
Worlds of seed 0 from their beginning, presets in turn, medians over the rounds. The first run of a
machine compiles the kernels: that is measured in a process with an empty cache of numba.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from dae_ros.events.packet import Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.camera import Camera, Pose
from dae_ros.simulation.presets import PRESETS, preset
from dae_ros.simulation.simulation import Simulation
from dae_ros.simulation.worlds import View, World, create_world

SMALL, LARGE = (130, 173), (260, 346)
LARGE_PRESETS = ("room", "warehouse", "street_day", "street_night")
GOAL = 0.25
Row = dict[str, Any]


@dataclass
class Pictures:
    """What the pictures of one run cost."""

    count: int = 0
    cpu_s: float = 0.0


@dataclass
class TimedView:
    """A view that counts its pictures; see `simulation.worlds.View`."""

    view: View
    pictures: Pictures

    def look(self, time_us: int) -> None:
        """Count and time it."""
        begin_s = time.process_time()
        self.view.look(time_us)
        self.pictures.count += 1
        self.pictures.cpu_s += time.process_time() - begin_s

    def radiance(self) -> NDArray[np.float32]:
        """Time it."""
        begin_s = time.process_time()
        radiance = self.view.radiance()
        self.pictures.cpu_s += time.process_time() - begin_s
        return radiance

    def depth(self) -> NDArray[np.float32]:
        """Pass it on."""
        return self.view.depth()

    def greatest_flow(self) -> float:
        """Pass it on."""
        return self.view.greatest_flow()

    def pose(self) -> Pose:
        """Pass it on."""
        return self.view.pose()


@dataclass
class TimedWorld:
    """A world whose views count their pictures; see `simulation.worlds.World`."""

    world: World
    pictures: Pictures = field(default_factory=Pictures)

    @property
    def camera(self) -> Camera:
        """Pass it on."""
        return self.world.camera

    @property
    def longest_step_us(self) -> int:
        """Pass it on."""
        return self.world.longest_step_us

    @property
    def end_us(self) -> int | None:
        """Pass it on."""
        return self.world.end_us

    def view(self) -> TimedView:
        """Return a view that counts."""
        return TimedView(self.world.view(), self.pictures)


def run_once(parameters: SimulatorParameters) -> Row:
    """Build the world and run it; return one row of figures."""
    begin_s = time.perf_counter()
    world = TimedWorld(create_world(parameters))
    simulation = Simulation(parameters, world)
    built_s = time.perf_counter()
    begin_cpu_s = time.process_time()
    count = brighter = 0
    for item in simulation.items():
        if isinstance(item, Events):
            count += len(item)
            brighter += int(item.p.sum())
    wall_s = time.perf_counter() - built_s
    cpu_s = time.process_time() - begin_cpu_s
    pixel_s = parameters.height * parameters.width * parameters.duration_s
    return {
        "times_real_time": parameters.duration_s / wall_s,
        "times_real_time_of_cpu": parameters.duration_s / cpu_s,
        "build_s": built_s - begin_s,
        "pictures_per_simulated_s": world.pictures.count / parameters.duration_s,
        "cpu_ms_per_picture": 1000.0 * world.pictures.cpu_s / world.pictures.count,
        "share_of_cpu_in_pictures": world.pictures.cpu_s / cpu_s,
        "events_per_pixel_s": count / pixel_s,
        "on_to_off": brighter / max(count - brighter, 1),
    }


def measure(
    names: tuple[str, ...], size: tuple[int, int], seconds: float, rounds: int
) -> list[Row]:
    """Run presets in turn; return a row of medians for each."""
    height, width = size
    found: dict[str, list[Row]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            parameters = preset(name, height=height, width=width, duration_s=seconds, seed=0)
            found[name].append(run_once(parameters))
    return [
        {
            "preset": name,
            "height": height,
            "width": width,
            "simulated_s": seconds,
            **{key: float(f"{statistics.median(row[key] for row in rows):.4g}") for key in rows[0]},
            "slowest_times_real_time": float(f"{min(r['times_real_time'] for r in rows):.4g}"),
        }
        for name, rows in found.items()
    ]


def first_run_s() -> float:
    """Return what a process with an empty cache of numba needs more than the next one, in s."""
    code = (
        "from dae_ros.simulation.presets import preset;"
        "from dae_ros.simulation.simulation import Simulation;"
        "list(Simulation(preset('street_night', height=130, width=173, duration_s=0.05)).run())"
    )
    walls_s = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            begin_s = time.perf_counter()
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
            walls_s.append(time.perf_counter() - begin_s)
    return round(walls_s[0] - walls_s[1], 1)


def table(rows: list[Row]) -> str:
    """Return the markdown table that `docs/simulator.md` quotes."""
    columns = (
        "preset", "x real time", "pictures per simulated s", "ms per picture",
        "events per px and s", "ON to OFF",
    )  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append(
            f"| `{row['preset']}` | {row['times_real_time']:.2g} | "
            f"{row['pictures_per_simulated_s']:.0f} | {row['cpu_ms_per_picture']:.2g} | "
            f"{row['events_per_pixel_s']:.2g} | {row['on_to_off']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run everything, print the tables and write `results/simulator.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="0.2 s of each, once")
    parser.add_argument("--no-record", action="store_true", help="print only")
    arguments = parser.parse_args()
    seconds, large_seconds, rounds = (0.2, 0.1, 1) if arguments.quick else (4.0, 2.0, 3)
    compile_s = first_run_s()
    measure(tuple(PRESETS), SMALL, 0.05, 1)  # compiled or loaded, and in the caches
    small = measure(tuple(PRESETS), SMALL, seconds, rounds)
    large = measure(LARGE_PRESETS, LARGE, large_seconds, rounds)
    slowest = min(small, key=lambda row: float(row["times_real_time"]))
    print(f"173 x 130 px, {seconds:g} s\n\n{table(small)}\n")
    print(f"346 x 260 px, {large_seconds:g} s\n\n{table(large)}\n")
    builds_s = [row["build_s"] for row in small]
    print(
        f"slowest at 173 x 130 px: {slowest['preset']}, {slowest['times_real_time']:.2f} x real "
        f"time (goal {GOAL}); a world is built in {min(builds_s):.2f} to {max(builds_s):.2f} s; "
        f"compiling takes {compile_s:.0f} s more"
    )
    if not arguments.no_record:
        results = {
            "rounds": rounds,
            "goal_times_real_time_at_173x130": GOAL,
            "goal_met_by_all_presets": slowest["times_real_time"] >= GOAL,
            "compile_s": compile_s,
            "speed": small + large,
        }
        print(f"-> {record('simulator', results)}")


if __name__ == "__main__":
    main()
