"""What may be set of `replay_node`."""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class ReplayParameters(NodeParameters):
    """Parameters of `replay_node`."""

    bag: str = declare(
        "", "Recording to play: a .bag, a rosbag2 folder or its storage file, .aedat4 or .raw."
    )
    rate: float = declare(
        1.0,
        "Speed of the replay, 1 is real time, 0 is as fast as it goes.",
        minimum=0.0,
        maximum=1000.0,
    )
    loop: bool = declare(False, "Begin again at the end.")
    start_s: float = declare(0.0, "Skip this many seconds of the recording.", minimum=0.0)
    duration_s: float = declare(
        0.0, "Play this many seconds of the recording; 0 plays to its end.", minimum=0.0
    )
    topics: str = declare(
        "", "Comma-separated topics to play; empty plays every topic whose type is known."
    )
    events: str = declare(
        "", "Events topic of the camera that is meant; empty takes a well-known or the first name."
    )
    calibration: str = declare(
        "",
        "Calibration file (YAML of Kalibr or camera_calibration) to publish as camera_info beside "
        "the events, in place of a recorded one.",
    )
    clock_hz: float = declare(
        100.0,
        "How often /clock is published in Hz, in place of a recorded one; 0 plays the recorded.",
        minimum=0.0,
        maximum=10_000.0,
    )
    wait_subscribers: int = declare(
        1,
        "Wait until each of wait_topics has this many subscribers before the first message; 0 "
        "waits for nobody.",
        minimum=0,
        maximum=100,
    )
    wait_topics: str = declare(
        "",
        "Comma-separated topics that somebody must receive whole, NAME:N where it must have N "
        "subscribers at least; empty is the events topic.",
    )
    wait_timeout_s: float = declare(
        30.0, "Give up waiting for subscribers after this many seconds.", minimum=0.0
    )
    autostart: bool = declare(True, "Start to play at once.")
