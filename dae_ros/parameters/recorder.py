"""What may be set of `recorder_node`."""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class RecorderParameters(NodeParameters):
    """Parameters of `recorder_node`."""

    output: str = declare("", "Folder of the rosbag2 (mcap) to write; it must not exist.")
    topics: str = declare(
        "", "Comma-separated topics to record; each is subscribed as soon as it appears."
    )
    duration_s: float = declare(
        0.0,
        "Stop after this many seconds of wall time; 0 goes on until the node ends.",
        minimum=0.0,
    )
    idle_s: float = declare(
        0.0,
        "Stop when no message has come for this many seconds since the last one; 0 waits.",
        minimum=0.0,
    )
