"""Event images with exact depth, straight from the simulator: what students are trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.representation.tencode import FloatImage, tencode
from dae_ros.simulation.simulation import START_NS, DepthTruth, Simulation
from dae_ros.simulation.worlds import World

WINDOW_S = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class ClipWindow:
    """One window [end - length, end) and what was there at its end.

    Attributes:
        end_ns: since the start of the simulation.
        events: of the window, times since the start of the simulation.
        image: float32[3, H, W], their Tencode.
        depth: float32[H, W], m, at `end_ns`; NaN for the sky.
        frame: the frame whose exposure has its middle at `end_ns`, None where there is none.
    """

    end_ns: int
    events: Events
    image: FloatImage
    depth: NDArray[np.float32]
    frame: Frame | None


def clip_windows(
    parameters: SimulatorParameters, world: World | None = None, window_s: float = WINDOW_S
) -> Iterator[ClipWindow]:
    """Yield every window of a simulation, in order, from the first that is whole.

    The windows are those that the live pipeline would cut from the same events; a window without
    events is black. Frames come with windows when `frame_hz` divides 1 / `window_s`, as 20 Hz do.

    Args:
        parameters: what to simulate; `packet_s` and `depth_hz` are chosen here.
        world: see `Simulation`.
        window_s: length of a window and distance of their ends, a whole number of ms.

    Raises:
        ConfigurationError: parameters or a window that are not allowed.
    """
    window_ns = round(window_s * 1e9)
    if window_ns <= 0 or window_ns % 1_000_000:
        raise ConfigurationError(
            f"window_s must be a whole number of milliseconds, not {window_s!r}.", window_s=window_s
        )
    # Packets that end where windows do, so that none has to be cut.
    packets_per_window = -(-window_ns // 100_000_000)
    while window_ns % (packets_per_window * 1000):
        packets_per_window += 1
    simulation = Simulation(
        dataclasses.replace(
            parameters, depth_hz=1e9 / window_ns, packet_s=window_ns / packets_per_window / 1e9
        ),
        world,
    )
    height, width = simulation.camera.height, simulation.camera.width
    events: list[Events] = []
    frames: dict[int, Frame] = {}
    truths: list[DepthTruth] = []

    def windows(until_ns: int) -> Iterator[ClipWindow]:
        """Yield the windows for which nothing stamped later than `until_ns` is missing."""
        while truths and truths[0].stamp_ns - START_NS < until_ns:
            truth = truths.pop(0)
            end_ns = truth.stamp_ns - START_NS
            everything = Events.concatenate(events)
            cut = int(np.searchsorted(everything.t, end_ns))
            inside, rest = everything.slice(0, cut), everything.slice(cut, len(everything))
            events[:] = [rest] if len(rest) else []
            frame = frames.pop(end_ns, None)
            for stamp_ns in [stamp_ns for stamp_ns in frames if stamp_ns < end_ns]:
                del frames[stamp_ns]
            yield ClipWindow(end_ns, inside, tencode(inside, height, width), truth.depth, frame)

    for item in simulation.items():
        if isinstance(item, Events):
            since_start = item.t - simulation.event_start_ns
            yield from windows(int(since_start[0]))
            events.append(Events(since_start, item.x, item.y, item.p))
        else:
            stamp_ns = item.stamp_ns - START_NS
            yield from windows(stamp_ns)
            if isinstance(item, Frame):
                frames[stamp_ns] = item
            elif stamp_ns > 0:
                truths.append(item)
    yield from windows(2**62)
