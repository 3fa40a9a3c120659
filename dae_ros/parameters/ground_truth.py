"""What may be set of `gt_node`."""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class GroundTruthParameters(NodeParameters):
    """Parameters of `gt_node`."""

    alignment: str = declare(
        "auto",
        "How depth is moved onto the ground truth of each frame before it is scored; auto is none "
        "and then lstsq for depth/image, and lstsq for depth/relative.",
        choices=("auto", "none", "median", "lstsq", "lad"),
    )
    orientation: str = declare(
        "status",
        "What depth/relative grows with; status takes it from depth/status, depth insists.",
        choices=("status", "depth"),
    )
    tolerance_s: float = declare(
        0.025,
        "Furthest that a depth image and its ground truth may lie apart, in seconds.",
        minimum=0.0,
        maximum=1.0,
    )
    minimum_depth_m: float = declare(
        0.001, "Ground truth nearer than this many metres does not count.", minimum=0.000001
    )
    clip_distance_m: float = declare(
        80.0, "Ground truth at or beyond this many metres does not count.", minimum=0.001
    )
    report: str = declare(
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
