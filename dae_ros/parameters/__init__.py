"""The one typed source of every node parameter.

Each node has one frozen dataclass, in a file of its own. From it come the ROS declarations with
descriptors and ranges (`nodes/parameter_binding.py`), `config/*.yaml` and `docs/parameters.md`
(`scripts/generate_parameters.py`), and the objects that the ROS-free core works with. A candidate
is validated whole; a bad value is refused with a sentence that says what is allowed, and never
clamped.
"""

from __future__ import annotations

from dae_ros.parameters.declaration import (
    TYPE_WORDS,
    Declaration,
    NodeParameters,
    Value,
    declarations,
    declare,
    likely,
)
from dae_ros.parameters.depth import DepthParameters
from dae_ros.parameters.distillation_node import DistillationNodeParameters
from dae_ros.parameters.ground_truth import GroundTruthParameters
from dae_ros.parameters.recorder import RecorderParameters
from dae_ros.parameters.replay import ReplayParameters
from dae_ros.parameters.simulator import SimulatorParameters

__all__ = [
    "NODES",
    "TYPE_WORDS",
    "Declaration",
    "DepthParameters",
    "DistillationNodeParameters",
    "GroundTruthParameters",
    "NodeParameters",
    "RecorderParameters",
    "ReplayParameters",
    "SimulatorParameters",
    "Value",
    "declarations",
    "declare",
    "likely",
]

NODES: dict[str, type[NodeParameters]] = {
    "depth_node": DepthParameters,
    "distillation_node": DistillationNodeParameters,
    "replay_node": ReplayParameters,
    "simulator_node": SimulatorParameters,
    "recorder_node": RecorderParameters,
    "gt_node": GroundTruthParameters,
}
