"""What may be set of `simulator_node` and of `dae-ros simulate`."""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class SimulatorParameters(NodeParameters):
    """Parameters of `simulator_node` and of `dae-ros simulate`."""

    scene: str = declare(
        "room",
        "World to move through.",
        choices=("room", "corridor", "street", "warehouse", "park", "yard"),
    )
    light: str = declare("day", "Time of day.", choices=("day", "dusk", "night"))
    visibility_m: float = declare(
        0.0,
        "Distance in metres at which fog leaves 2 % of the contrast; 0 is clear air.",
        minimum=0.0,
        maximum=10_000.0,
    )
    flicker: float = declare(
        0.0, "Depth of the 100 Hz flicker of what glows, 0 to 1.", minimum=0.0, maximum=1.0
    )
    motion: str = declare(
        "auto",
        "How the camera moves; auto is the scene's usual motion.",
        choices=("auto", "walk", "car", "drone"),
    )
    speed: float = declare(
        1.0, "Factor on the usual speed of the motion.", minimum=0.1, maximum=5.0
    )
    stop_every_s: float = declare(
        0.0, "Seconds from one stop of the camera to the next; 0 is no stops.", minimum=0.0
    )
    stop_s: float = declare(2.0, "Length of a stop in seconds.", minimum=0.1, maximum=60.0)
    seed: int = declare(0, "Seed of textures, things, path and noise.", minimum=0)
    height: int = declare(260, "Sensor rows in px.", minimum=32, maximum=1080)
    width: int = declare(346, "Sensor columns in px.", minimum=32, maximum=1920)
    field_of_view_deg: float = declare(
        75.1,
        "Horizontal field of view in degrees; the default is that of a DAVIS346 with 4.2 mm.",
        minimum=20.0,
        maximum=120.0,
    )
    distortion_k1: float = declare(
        0.0, "First radial coefficient of the lens (plumb_bob).", minimum=-0.5, maximum=0.5
    )
    distortion_k2: float = declare(
        0.0, "Second radial coefficient of the lens (plumb_bob).", minimum=-0.5, maximum=0.5
    )
    encoding: str = declare(
        "evt3",
        "How events are sent: an EventPacket encoding, or dvs_msgs for EventArray.",
        choices=("evt3", "libcaer", "libcaer_cmp", "mono", "dvs_msgs"),
    )
    duration_s: float = declare(
        0.0, "Simulated seconds after which the node ends; 0 goes on.", minimum=0.0
    )
    rate: float = declare(
        1.0,
        "Simulated seconds per second of wall time at most; slower where the machine is.",
        minimum=0.01,
        maximum=100.0,
    )
    packet_s: float = declare(
        0.005, "Length of an event packet in seconds.", minimum=0.0005, maximum=0.1
    )
    frame_hz: float = declare(20.0, "Rate of grey frames in Hz.", minimum=0.1, maximum=200.0)
    exposure_s: float = declare(
        0.01,
        "Exposure time of the grey frames in seconds, with auto_exposure the longest; their "
        "stamp is its middle.",
        minimum=0.0001,
        maximum=1.0,
    )
    auto_exposure: bool = declare(
        True, "Shorten the exposure where frames would be too bright, five frames late."
    )
    depth_hz: float = declare(20.0, "Rate of ground-truth depth in Hz.", minimum=0.1, maximum=200.0)
    contrast_threshold: float = declare(
        0.2, "Step of log intensity that makes an event.", minimum=0.02, maximum=2.0
    )
    threshold_spread: float = declare(
        0.1,
        "Standard deviation of that step over the pixels, relative to it.",
        minimum=0.0,
        maximum=0.5,
    )
    off_ratio: float = declare(
        1.0, "Threshold of OFF events relative to that of ON events.", minimum=0.5, maximum=2.0
    )
    bandwidth_hz: float = declare(
        1000.0,
        "Cut-off of the photoreceptor of a pixel that sees white paper by day, in Hz; it falls "
        "with the light. 0 is without limit.",
        minimum=0.0,
        maximum=100_000.0,
    )
    leak_hz: float = declare(
        0.1, "Rate of ON events per pixel by leakage in Hz.", minimum=0.0, maximum=10.0
    )
    refractory_s: float = declare(
        0.0002,
        "Least time between two events of a pixel in seconds.",
        minimum=0.000001,
        maximum=0.1,
    )
    noise_hz: float = declare(
        0.2,
        "Rate of shot noise events of a pixel in the dark in Hz; a quarter of it in full light.",
        minimum=0.0,
        maximum=100.0,
    )
    hot_pixels: float = declare(
        0.0003,
        "Share of pixels that fire by themselves, at 20 to 200 Hz.",
        minimum=0.0,
        maximum=0.05,
    )
    readout_hz: float = declare(
        12e6,
        "Events per second that the sensor can read out; 0 is without limit.",
        minimum=0.0,
        maximum=1e9,
    )
    publish_clock: bool = declare(False, "Publish simulated time on /clock.")
    wait_subscribers: int = declare(
        1,
        "Wait until each of wait_topics has this many subscribers before the first packet; 0 "
        "waits for nobody.",
        minimum=0,
        maximum=100,
    )
    wait_topics: str = declare(
        "events",
        "Comma-separated topics that somebody must receive whole; NAME:N has N subscribers at "
        "least.",
    )
    wait_timeout_s: float = declare(
        30.0, "Start without subscribers after this many seconds.", minimum=0.0
    )

    def rules(self) -> list[str]:
        """One exposure ends before the next, stops leave time to move, times are whole us."""
        problems = []
        if self.motion == "car" and self.scene in ("room", "corridor"):
            problems.append(
                f"'motion' car does not fit into the {self.scene}; choose walk or drone, or "
                "another 'scene'"
            )
        if self.stop_every_s > 0.0 and self.stop_every_s < self.stop_s + 3.0:
            problems.append(
                f"'stop_every_s' ({self.stop_every_s:g}) must be at least 'stop_s' and 3 s to "
                f"slow down, move and stop again ({self.stop_s + 3.0:g})"
            )
        if self.exposure_s >= 1.0 / self.frame_hz:
            problems.append(
                f"'exposure_s' ({self.exposure_s:g}) must be shorter than the "
                f"distance of frames, 1 / 'frame_hz' ({1.0 / self.frame_hz:g})"
            )
        for name in ("packet_s", "exposure_s", "refractory_s", "duration_s"):
            microseconds = getattr(self, name) * 1e6
            if abs(microseconds - round(microseconds)) > 1e-3:
                problems.append(
                    f"'{name}' must be a whole number of microseconds, not {getattr(self, name)!r}"
                )
        return problems
