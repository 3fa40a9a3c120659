"""What may be set of `distillation_node` beside the loop that it runs."""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import declare, declare_as
from dae_ros.parameters.depth import DepthParameters
from dae_ros.parameters.distillation import OnlineParameters


@dataclass(frozen=True, kw_only=True)
class DistillationNodeParameters(OnlineParameters):
    """Parameters of `distillation_node`: the loop's, and where student, teacher and camera are."""

    weights: str = declare(
        "micro",
        "The student to begin with, as the depth node's 'weights': a checkpoint file, or a name "
        "from models/manifest.yaml.",
    )
    teacher: str = declare(
        "",
        "Network of camera frames that labels: a checkpoint file, a name from "
        "models/manifest.yaml, or the manifest of an ONNX file. As long as it is not there, "
        "nothing is learned and the status says so.",
    )
    anchors: str = declare(
        "",
        "Folder of `dae-ros clips`: what must not be forgotten; empty pins the first clips of "
        "the deployment.",
    )
    folder: str = declare(
        "~/.ros/dae_ros/distillation",
        "Where versions, learner and clips are kept, and where learning goes on after a restart; "
        "one node at a time.",
    )
    device: str = declare("auto", "Where to learn: auto, cpu, cuda or cuda:N.")
    threads: int = declare(
        0, "CPU threads of learning; 0 for half of the cores.", minimum=0, maximum=256
    )
    niceness: int = declare(
        15,
        "Priority of the thread that learns, 0 (as all) to 19 (only where nobody else wants the "
        "core).",
        minimum=0,
        maximum=19,
    )
    chunks: bool = declare(
        False,
        "Send weights as messages as well (distill/snapshot_chunk), for a depth node that cannot "
        "read 'folder'.",
    )
    tensorboard: bool = declare(
        False, "Write curves for TensorBoard below 'folder' (extra `tensorboard`)."
    )
    event_reliability: str = declare_as(DepthParameters, "event_reliability")
    event_queue_depth: int = declare_as(DepthParameters, "event_queue_depth")
    inbox_mb: int = declare(
        256,
        "How many MB of messages may wait while a piece of work is done; beyond it the oldest are "
        "dropped and counted.",
        minimum=1,
        maximum=16_384,
    )
    autostart: bool = declare_as(DepthParameters, "autostart")
