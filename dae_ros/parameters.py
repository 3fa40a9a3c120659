"""The one typed source of every node parameter.

Each node has one frozen dataclass. From it come the ROS declarations with descriptors and
ranges (`nodes/parameter_binding.py`), `config/*.yaml` and `docs/parameters.md`
(`scripts/generate_parameters.py`), and the objects that the ROS-free core works with. A candidate
is validated whole; a bad value is refused with a sentence that says what is allowed, and never
clamped. Long because it is one table: most of it is declarations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from dae_ros.errors import ConfigurationError

Value: TypeAlias = "bool | int | float | str"
Parameters = TypeVar("Parameters", bound="NodeParameters")


@dataclass(frozen=True)
class Declaration:
    """What is declared about one parameter beside its name and default.

    Attributes:
        description: one sentence, with the unit where there is one.
        minimum, maximum: inclusive bounds of a number, None for none.
        choices: the allowed texts, empty for any.
        at_runtime: whether it may change while the node is active; all others are read when
            the node is configured.
    """

    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    at_runtime: bool = False


def _parameter(
    default: Value,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    at_runtime: bool = False,
) -> Any:
    declaration = Declaration(description, minimum, maximum, choices, at_runtime)
    return field(default=default, metadata={"declaration": declaration})


def declarations(kind: type[NodeParameters]) -> dict[str, tuple[Value, Declaration]]:
    """Return name -> (default, declaration) of a parameter class, in order of declaration."""
    result: dict[str, tuple[Value, Declaration]] = {}
    for item in dataclasses.fields(kind):
        default: Any = item.default
        result[item.name] = (default, item.metadata["declaration"])
    return result


@dataclass(frozen=True, kw_only=True)
class NodeParameters:
    """Base of the parameter classes: construction, and validation as a whole."""

    @classmethod
    def from_mapping(cls: type[Parameters], values: Mapping[str, object]) -> Parameters:
        """Build from names and values; defaults fill the rest.

        Raises:
            ConfigurationError: with one sentence per problem, all of them at once.
        """
        known = declarations(cls)
        problems = [
            f"there is no parameter '{name}'; known are {', '.join(known)}"
            for name in values
            if name not in known
        ]
        typed: dict[str, Any] = {}
        for name, value in values.items():
            if name in known:
                default = known[name][0]
                if isinstance(default, float) and type(value) is int:
                    typed[name] = float(value)
                elif type(value) is type(default):
                    typed[name] = value
                else:
                    problems.append(f"'{name}' must be a {type(default).__name__}, not {value!r}")
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)
        candidate = cls(**typed)
        candidate.validate()
        return candidate

    def validate(self) -> None:
        """Check every range and choice and the rules between parameters.

        Raises:
            ConfigurationError: with one sentence per problem, all of them at once.
        """
        problems: list[str] = []
        for name, (_, declared) in declarations(type(self)).items():
            value = getattr(self, name)
            if declared.choices and value not in declared.choices:
                problems.append(
                    f"'{name}' must be one of {', '.join(declared.choices)}, not '{value}'"
                )
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                if not math.isfinite(value):
                    problems.append(f"'{name}' must be finite, not {value}")
                elif declared.minimum is not None and value < declared.minimum:
                    problems.append(
                        f"'{name}' must be at least {declared.minimum:g}, not {value:g}"
                    )
                elif declared.maximum is not None and value > declared.maximum:
                    problems.append(f"'{name}' must be at most {declared.maximum:g}, not {value:g}")
        if not problems:  # rules may rely on the ranges
            problems = self.rules()
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)

    def rules(self) -> list[str]:
        """Return a sentence for each rule between parameters that is broken."""
        return []


@dataclass(frozen=True, kw_only=True)
class DepthParameters(NodeParameters):
    """Parameters of `depth_node`, and of `dae-ros bag`, which runs the same pipeline."""

    weights: str = _parameter(
        "",
        "Checkpoint file, a name from models/manifest.yaml, or untrained:NAME to try the plumbing "
        "without weights (vits, vitb, vitl, vitt, micro, micro_memoryless, e2depth, ereformer).",
    )
    device: str = _parameter("auto", "Where the network runs: auto, cpu, cuda or cuda:N.")
    precision: str = _parameter(
        "auto",
        "Arithmetic of the network; auto is float32 on a CPU, bfloat16 on a GPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    threads: int = _parameter(
        0,
        "CPU threads of the network; 0 leaves one core to ROS and the decoder.",
        minimum=0,
        maximum=256,
    )
    event_encoder: str = _parameter(
        "checkpoint",
        "Event representation; checkpoint uses the one that the weights name.",
        choices=("checkpoint", "tencode", "tencode_voxel"),
    )
    orientation: str = _parameter(
        "checkpoint",
        "Whether the network's number grows with depth or with inverse depth; "
        "checkpoint uses what the weights say, the others are for weights that do not say it.",
        choices=("checkpoint", "depth", "inverse_depth"),
    )
    scale: float = _parameter(
        0.0,
        "Scale to metres, metres = scale p + shift (or 1 / (scale p + shift) for "
        "inverse_depth); 0 takes the checkpoint's.",
        minimum=0.0,
        at_runtime=True,
    )
    shift: float = _parameter(
        0.0, "Shift to metres, see scale; used only where scale is given.", at_runtime=True
    )
    window: str = _parameter(
        "time",
        "What closes a window: time (a grid of hop_s), count (every hop_events "
        "events), frame (the stamp of each camera frame), trigger (each rising edge of an "
        "external trigger).",
        choices=("time", "count", "frame", "trigger"),
    )
    window_s: float = _parameter(
        0.05,
        "Length of a window in seconds (time, frame and trigger windows).",
        minimum=0.001,
        maximum=2.0,
    )
    hop_s: float = _parameter(
        0.05, "Distance between the ends of time windows in seconds.", minimum=0.001, maximum=2.0
    )
    window_events: int = _parameter(
        30_000, "Length of a count window in events.", minimum=1, maximum=10_000_000
    )
    hop_events: int = _parameter(
        30_000,
        "Distance between the ends of count windows in events.",
        minimum=1,
        maximum=10_000_000,
    )
    overload: str = _parameter(
        "latest",
        "When windows close faster than the network steps: latest skips to the "
        "newest window, merge lengthens the next window over the skipped ones, queue never "
        "skips (for recordings).",
        choices=("latest", "merge", "queue"),
    )
    ring_s: float = _parameter(
        3.0,
        "How much event time the ring keeps, in seconds (count windows: ring_mb alone bounds it).",
        minimum=0.1,
        maximum=60.0,
    )
    ring_mb: int = _parameter(
        256, "How much memory the ring may take, in MB.", minimum=1, maximum=16_384
    )
    inbox_mb: int = _parameter(
        1024,
        "How many MB of messages may wait for the worker; the oldest are dropped and "
        "counted beyond it.",
        minimum=1,
        maximum=16_384,
    )
    max_silence_s: float = _parameter(
        1.0,
        "After this many seconds of empty windows stepping stops; the next event resets "
        "the recurrent state.",
        minimum=0.05,
        maximum=3600.0,
    )
    gap_reset_ms: int = _parameter(
        200,
        "A gap in the stream longer than this resets the recurrent state, in ms.",
        minimum=1,
        maximum=3_600_000,
    )
    stamp_clock: str = _parameter(
        "ros",
        "Clock of the published stamps: ros (window end through the clock estimator) or "
        "sensor (decoded event time as it is).",
        choices=("ros", "sensor"),
    )
    image_stamp: str = _parameter(
        "mid",
        "What the stamp of a camera frame means: the start, mid or end of exposure.",
        choices=("mid", "start", "end"),
    )
    exposure_s: float = _parameter(
        0.0,
        "Exposure time of the camera frames in seconds, to find the middle of exposure.",
        minimum=0.0,
        maximum=1.0,
    )
    color_near_m: float = _parameter(
        0.5, "Nearest depth of the colour map in metres.", minimum=0.0, at_runtime=True
    )
    color_far_m: float = _parameter(
        20.0, "Farthest depth of the colour map in metres.", minimum=0.001, at_runtime=True
    )
    frame_id: str = _parameter(
        "", "Overrides the frame_id of the published images; empty takes the event messages'."
    )
    event_reliability: str = _parameter(
        "auto",
        "QoS of the event subscription: auto matches what the publishers offer.",
        choices=("auto", "reliable", "best_effort"),
    )
    event_queue_depth: int = _parameter(
        1000, "Messages that DDS may hold for the event subscription.", minimum=1, maximum=100_000
    )
    autostart: bool = _parameter(
        True, "Configure and activate the node by itself; false waits for lifecycle calls."
    )

    def rules(self) -> list[str]:
        """Windows must fit the ring; a colour range and a shift must make sense."""
        problems = []
        if self.window_s > self.ring_s:
            problems.append(
                f"'window_s' ({self.window_s:g}) must not exceed 'ring_s' ({self.ring_s:g})"
            )
        for name in ("window_s", "hop_s"):
            microseconds = getattr(self, name) * 1e6
            if abs(microseconds - round(microseconds)) > 1e-3:
                problems.append(
                    f"'{name}' must be a whole number of microseconds, not {getattr(self, name)!r}"
                )
        # 13 bytes an event; half of the ring, so that a late step still finds its window whole.
        most_events = self.ring_mb * 1_000_000 // 13 // 2
        if self.window == "count" and self.window_events > most_events:
            problems.append(
                f"'window_events' ({self.window_events}) must not exceed {most_events}, half of "
                f"what 'ring_mb' ({self.ring_mb}) holds"
            )
        if self.color_near_m >= self.color_far_m:
            problems.append(
                f"'color_near_m' ({self.color_near_m:g}) must be below "
                f"'color_far_m' ({self.color_far_m:g})"
            )
        if self.shift != 0.0 and self.scale == 0.0:
            problems.append("'shift' is given without 'scale'; give both, or neither")
        return problems


@dataclass(frozen=True, kw_only=True)
class ReplayParameters(NodeParameters):
    """Parameters of `replay_node`."""

    bag: str = _parameter(
        "", "Recording to play: a .bag, a rosbag2 folder or its storage file, .aedat4 or .raw."
    )
    rate: float = _parameter(
        1.0,
        "Speed of the replay, 1 is real time, 0 is as fast as it goes.",
        minimum=0.0,
        maximum=1000.0,
    )
    loop: bool = _parameter(False, "Begin again at the end.")
    start_s: float = _parameter(0.0, "Skip this many seconds of the recording.", minimum=0.0)
    duration_s: float = _parameter(
        0.0, "Play this many seconds of the recording; 0 plays to its end.", minimum=0.0
    )
    topics: str = _parameter(
        "", "Comma-separated topics to play; empty plays every topic whose type is known."
    )
    events: str = _parameter(
        "", "Events topic of the camera that is meant; empty takes a well-known or the first name."
    )
    calibration: str = _parameter(
        "",
        "Kalibr camera chain (YAML) to publish as camera_info beside the events, in place of a "
        "recorded one.",
    )
    clock_hz: float = _parameter(
        100.0,
        "How often /clock is published in Hz; 0 publishes none.",
        minimum=0.0,
        maximum=10_000.0,
    )
    wait_subscribers: int = _parameter(
        1,
        "Wait until each of wait_topics has this many subscribers before the first message.",
        minimum=0,
        maximum=100,
    )
    wait_topics: str = _parameter(
        "", "Comma-separated topics that somebody must receive whole; empty is the events topic."
    )
    wait_timeout_s: float = _parameter(
        30.0, "Give up waiting for subscribers after this many seconds.", minimum=0.0
    )
    autostart: bool = _parameter(True, "Start to play at once.")


@dataclass(frozen=True, kw_only=True)
class SimulatorParameters(NodeParameters):
    """Parameters of `simulator_node` and of `dae-ros simulate`."""

    scene: str = _parameter(
        "room", "World to move through.", choices=("room", "corridor", "street", "warehouse")
    )
    light: str = _parameter("day", "Time of day.", choices=("day", "dusk", "night"))
    visibility_m: float = _parameter(
        0.0,
        "Distance in metres at which fog leaves 2 % of the contrast; 0 is clear air.",
        minimum=0.0,
        maximum=10_000.0,
    )
    flicker: float = _parameter(
        0.0, "Depth of the 100 Hz flicker of what glows, 0 to 1.", minimum=0.0, maximum=1.0
    )
    motion: str = _parameter(
        "auto",
        "How the camera moves; auto is the scene's usual motion.",
        choices=("auto", "walk", "car", "drone"),
    )
    speed: float = _parameter(
        1.0, "Factor on the usual speed of the motion.", minimum=0.1, maximum=5.0
    )
    stop_every_s: float = _parameter(
        0.0, "Seconds from one stop of the camera to the next; 0 is no stops.", minimum=0.0
    )
    stop_s: float = _parameter(2.0, "Length of a stop in seconds.", minimum=0.1, maximum=60.0)
    seed: int = _parameter(0, "Seed of textures, things, path and noise.", minimum=0)
    height: int = _parameter(260, "Sensor rows in px.", minimum=32, maximum=1080)
    width: int = _parameter(346, "Sensor columns in px.", minimum=32, maximum=1920)
    field_of_view_deg: float = _parameter(
        75.1,
        "Horizontal field of view in degrees; the default is that of a DAVIS346 with 4.2 mm.",
        minimum=20.0,
        maximum=120.0,
    )
    distortion_k1: float = _parameter(
        0.0, "First radial coefficient of the lens (plumb_bob).", minimum=-0.5, maximum=0.5
    )
    distortion_k2: float = _parameter(
        0.0, "Second radial coefficient of the lens (plumb_bob).", minimum=-0.5, maximum=0.5
    )
    encoding: str = _parameter(
        "evt3",
        "How events are sent: an EventPacket encoding, or dvs_msgs for EventArray.",
        choices=("evt3", "libcaer", "libcaer_cmp", "mono", "dvs_msgs"),
    )
    duration_s: float = _parameter(
        0.0, "Simulated seconds after which the node ends; 0 goes on.", minimum=0.0
    )
    rate: float = _parameter(
        1.0,
        "Simulated seconds per second of wall time at most; slower where the machine is.",
        minimum=0.01,
        maximum=100.0,
    )
    packet_s: float = _parameter(
        0.005, "Length of an event packet in seconds.", minimum=0.0005, maximum=0.1
    )
    frame_hz: float = _parameter(20.0, "Rate of grey frames in Hz.", minimum=0.1, maximum=200.0)
    exposure_s: float = _parameter(
        0.01,
        "Exposure time of the grey frames in seconds, with auto_exposure the longest; their "
        "stamp is its middle.",
        minimum=0.0001,
        maximum=1.0,
    )
    auto_exposure: bool = _parameter(
        True, "Shorten the exposure where frames would be too bright, five frames late."
    )
    depth_hz: float = _parameter(
        20.0, "Rate of ground-truth depth in Hz.", minimum=0.1, maximum=200.0
    )
    contrast_threshold: float = _parameter(
        0.2, "Step of log intensity that makes an event.", minimum=0.02, maximum=2.0
    )
    threshold_spread: float = _parameter(
        0.1,
        "Standard deviation of that step over the pixels, relative to it.",
        minimum=0.0,
        maximum=0.5,
    )
    off_ratio: float = _parameter(
        1.0, "Threshold of OFF events relative to that of ON events.", minimum=0.5, maximum=2.0
    )
    bandwidth_hz: float = _parameter(
        1000.0,
        "Cut-off of the photoreceptor of a pixel that sees white paper by day, in Hz; it falls "
        "with the light. 0 is without limit.",
        minimum=0.0,
        maximum=100_000.0,
    )
    leak_hz: float = _parameter(
        0.1, "Rate of ON events per pixel by leakage in Hz.", minimum=0.0, maximum=10.0
    )
    refractory_s: float = _parameter(
        0.0002,
        "Least time between two events of a pixel in seconds.",
        minimum=0.000001,
        maximum=0.1,
    )
    noise_hz: float = _parameter(
        0.2,
        "Rate of shot noise events of a pixel in the dark in Hz; a quarter of it in full light.",
        minimum=0.0,
        maximum=100.0,
    )
    hot_pixels: float = _parameter(
        0.0003,
        "Share of pixels that fire by themselves, at 20 to 200 Hz.",
        minimum=0.0,
        maximum=0.05,
    )
    readout_hz: float = _parameter(
        12e6,
        "Events per second that the sensor can read out; 0 is without limit.",
        minimum=0.0,
        maximum=1e9,
    )
    publish_clock: bool = _parameter(False, "Publish simulated time on /clock.")
    wait_subscribers: int = _parameter(
        1,
        "Wait until each of wait_topics has this many subscribers before the first packet.",
        minimum=0,
        maximum=100,
    )
    wait_topics: str = _parameter(
        "events", "Comma-separated topics that somebody must receive whole."
    )
    wait_timeout_s: float = _parameter(
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


@dataclass(frozen=True, kw_only=True)
class RecorderParameters(NodeParameters):
    """Parameters of `recorder_node`."""

    output: str = _parameter("", "Folder of the rosbag2 (mcap) to write; it must not exist.")
    topics: str = _parameter(
        "", "Comma-separated topics to record; each is subscribed as soon as it appears."
    )
    duration_s: float = _parameter(
        0.0,
        "Stop after this many seconds of wall time; 0 goes on until the node ends.",
        minimum=0.0,
    )
    idle_s: float = _parameter(
        0.0,
        "Stop when no message has come for this many seconds since the last one; 0 waits.",
        minimum=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class GroundTruthParameters(NodeParameters):
    """Parameters of `gt_node`."""

    alignment: str = _parameter(
        "auto",
        "How depth is moved onto the ground truth of each frame before it is scored; auto is none "
        "for depth/image and lstsq for depth/relative.",
        choices=("auto", "none", "median", "lstsq", "lad"),
    )
    orientation: str = _parameter(
        "status",
        "What depth/relative grows with; status takes it from depth/status, depth insists.",
        choices=("status", "depth"),
    )
    tolerance_s: float = _parameter(
        0.025,
        "Furthest that a depth image and its ground truth may lie apart, in seconds.",
        minimum=0.0,
        maximum=1.0,
    )
    minimum_depth_m: float = _parameter(
        0.001, "Ground truth nearer than this many metres does not count.", minimum=0.000001
    )
    clip_distance_m: float = _parameter(
        80.0, "Ground truth at or beyond this many metres does not count.", minimum=0.001
    )
    report: str = _parameter(
        "",
        "Folder for evaluation.json and evaluation.md, written when the node ends; empty writes "
        "none.",
    )

    def rules(self) -> list[str]:
        """The range of depths must not be empty."""
        problems = []
        if self.minimum_depth_m >= self.clip_distance_m:
            problems.append(
                f"'minimum_depth_m' ({self.minimum_depth_m:g}) must be below "
                f"'clip_distance_m' ({self.clip_distance_m:g})"
            )
        return problems


NODES: dict[str, type[NodeParameters]] = {
    "depth_node": DepthParameters,
    "replay_node": ReplayParameters,
    "simulator_node": SimulatorParameters,
    "recorder_node": RecorderParameters,
    "gt_node": GroundTruthParameters,
}
