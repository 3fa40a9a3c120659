"""What may be set of the loop of online learning: of `distillation_node` and of `dae-ros adapt`.

A node declares all of it in one class; `online_*.py` hold its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.online_clips import ClipParameters
from dae_ros.parameters.online_gates import GateParameters
from dae_ros.parameters.online_guard import GuardParameters
from dae_ros.parameters.online_learning import LearningParameters
from dae_ros.parameters.online_pace import PaceParameters


# A dataclass takes the fields of its last base first.
@dataclass(frozen=True, kw_only=True)
class OnlineParameters(
    PaceParameters, GuardParameters, LearningParameters, GateParameters, ClipParameters
):
    """Parameters of the loop that `distillation_node` and `dae-ros adapt` run."""

    @property
    def windows_per_clip(self) -> int:
        """Windows of a clip."""
        return self.lead + self.burn_in + self.unroll

    @property
    def window_ns(self) -> int:
        """Length of a window in ns, whole microseconds."""
        return round(self.window_s * 1e6) * 1000

    def rules(self) -> list[str]:
        """A clip must fit the ring; bounds must leave something between them."""
        problems = []
        microseconds = self.window_s * 1e6
        if abs(microseconds - round(microseconds)) > 1e-3:
            problems.append(
                f"'window_s' must be a whole number of microseconds, not {self.window_s!r}"
            )
        clip_s = self.windows_per_clip * self.window_s
        if clip_s + 1.0 > self.ring_s:
            problems.append(
                f"'ring_s' ({self.ring_s:g}) must be a second more than a clip, which is "
                f"{clip_s:g} s (lead, burn_in and unroll windows of window_s)"
            )
        if self.measured_windows < self.windows_per_clip:
            problems.append(
                f"'measured_windows' ({self.measured_windows}) must not be below a clip's windows "
                f"({self.windows_per_clip}: lead, burn_in and unroll)"
            )
        if self.sync_tolerance_s > self.window_s / 2:
            problems.append(
                f"'sync_tolerance_s' ({self.sync_tolerance_s:g}) must not exceed half of "
                f"'window_s' ({self.window_s:g})"
            )
        for low, high in (
            ("near_m", "far_m"),
            ("darkest_mean", "brightest_mean"),
            ("sharp_blur_px", "largest_blur_px"),
            ("smallest_on_ratio", "largest_on_ratio"),
            ("shortest_stride", "longest_stride"),
        ):
            if getattr(self, low) >= getattr(self, high):
                problems.append(
                    f"'{low}' ({getattr(self, low):g}) must be below '{high}' "
                    f"({getattr(self, high):g})"
                )
        if self.labels_per_clip > self.unroll:
            problems.append(
                f"'labels_per_clip' ({self.labels_per_clip}) must not exceed 'unroll' "
                f"({self.unroll})"
            )
        if round(self.anchor_share * self.batch_clips) >= self.batch_clips:
            problems.append(
                f"'anchor_share' ({self.anchor_share:g}) makes anchors of all clips of a step "
                f"('batch_clips', {self.batch_clips}), and nothing of the deployment would be "
                "learned; raise 'batch_clips' or lower 'anchor_share'"
            )
        if self.heldout_every and self.replay_clips < 2 * self.judged_blocks:
            problems.append(
                f"'replay_clips' ({self.replay_clips}) must be twice 'judged_blocks' "
                f"({self.judged_blocks}) or more: half of them are enough to judge by"
            )
        if self.heldout_every == 1:
            problems.append("'heldout_every' 1 leaves nothing to learn from; use 0 or 2 and more")
        elif self.heldout_every:
            free_s = (self.heldout_every - 1) * self.block_s - 2 * self.guard_band_s
            if min(self.block_s, free_s) < clip_s - 1e-9:
                problems.append(
                    f"a clip of {clip_s:g} s must fit into a held-out block ('block_s', "
                    f"{self.block_s:g} s) and between the guard bands of two ({free_s:g} s)"
                )
        return problems
