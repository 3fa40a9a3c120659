"""What may be set of the loop of online learning: of `distillation_node` and of `dae-ros adapt`.

Long because it is one table: a node declares all that may be set of it in one class.
"""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class OnlineParameters(NodeParameters):
    """Parameters of the loop that `distillation_node` and `dae-ros adapt` run."""

    # Clips: windows that end at camera frames.
    window_s: float = declare(
        0.05, "Length of a window in seconds, as the depth node's.", minimum=0.001, maximum=2.0
    )
    lead: int = declare(
        8,
        "Windows at the beginning of a clip that stand in for a stored state which is too old.",
        minimum=0,
        maximum=256,
    )
    burn_in: int = declare(
        4,
        "Windows after them that only bring the recurrent state up, without gradient.",
        minimum=0,
        maximum=256,
    )
    unroll: int = declare(
        8, "Last windows of a clip, which are learned from.", minimum=1, maximum=256
    )
    ring_s: float = declare(
        3.0, "How much event time is kept to cut clips from, in seconds.", minimum=0.1, maximum=60.0
    )
    ring_mb: int = declare(
        256, "How much memory these events may take, in MB.", minimum=1, maximum=16_384
    )
    waiting_frames: int = declare(
        100, "Camera frames that may wait for their events.", minimum=1, maximum=10_000
    )
    hold_after_s: float = declare(
        1.0,
        "Where events or frames stay away for this many seconds, nothing is learned and the "
        "status says so.",
        minimum=0.05,
        maximum=3600.0,
    )
    image_stamp: str = declare(
        "mid",
        "What the stamp of a camera frame means: the start, mid or end of exposure.",
        choices=("mid", "start", "end"),
    )
    exposure_s: float = declare(
        0.0,
        "Exposure time of the camera frames in seconds; 0 where neither this nor the frame says "
        "it: blur is then judged by the frame alone.",
        minimum=0.0,
        maximum=1.0,
    )
    sync_tolerance_s: float = declare(
        0.005,
        "Furthest that a frame may lie from the end of its window, in seconds.",
        minimum=0.0,
        maximum=0.1,
    )
    largest_event_lag_s: float = declare(
        0.015,
        "Furthest that events may lag behind what the frames show, in seconds: pixels are slow in "
        "the dark. Ahead of them they may be by sync_tolerance_s.",
        minimum=0.0,
        maximum=0.03,
    )

    # Frame gate: which frames a teacher may see.
    saturated_share: float = declare(
        0.2,
        "A frame with at least this share of pixels at 0 or 255 is refused; with less they are "
        "masked.",
        minimum=0.0,
        maximum=1.0,
    )
    saturated_margin_px: int = declare(
        3, "How far around saturated pixels is masked, in px.", minimum=0, maximum=32
    )
    darkest_mean: float = declare(
        25.0, "A frame darker than this mean grey level is refused.", minimum=0.0, maximum=255.0
    )
    brightest_mean: float = declare(
        230.0, "A frame brighter than this mean grey level is refused.", minimum=0.0, maximum=255.0
    )
    smallest_contrast: float = declare(
        40.0,
        "A frame is refused whose 5 % and 95 % quantiles are less than this many grey levels "
        "apart.",
        minimum=0.0,
        maximum=255.0,
    )
    sharp_blur_px: float = declare(
        3.0, "A frame with more motion blur gives no gradient term, in px.", minimum=0.0
    )
    largest_blur_px: float = declare(
        6.0, "A frame with more motion blur is refused, in px.", minimum=0.0
    )
    smallest_sharpness: float = declare(
        0.3,
        "Where the exposure is not known: a frame is refused whose Laplacian's variance is below "
        "this share of the running median.",
        minimum=0.0,
        maximum=1.0,
    )
    fewest_active_share: float = declare(
        0.005,
        "A window with events at fewer pixels than this share is not learned from.",
        minimum=0.0,
        maximum=1.0,
    )
    smallest_on_ratio: float = declare(
        0.2, "A clip is refused in which a window has fewer ON per OFF events.", minimum=0.0
    )
    largest_on_ratio: float = declare(
        5.0, "A clip is refused in which a window has more ON per OFF events.", minimum=0.0
    )
    flash_share: float = declare(
        0.6,
        "A clip is refused in which more than this share of pixels has events within 5 ms.",
        minimum=0.0,
        maximum=1.0,
    )
    hot_share: float = declare(
        0.5,
        "A clip is refused in whose last window more than this share of events comes from pixels "
        "that fire above 1 kHz.",
        minimum=0.0,
        maximum=1.0,
    )

    # Label gate: which labels are believed.
    labels_per_clip: int = declare(
        4, "Frames of a clip that the teacher labels, the last among them.", minimum=1, maximum=256
    )
    smallest_correlation: float = declare(
        0.3,
        "A label is refused that correlates less with the student's own depth.",
        minimum=-1.0,
        maximum=1.0,
    )
    largest_scale_ratio: float = declare(
        5.0,
        "A label is refused whose scale differs by more than this factor from the running median.",
        minimum=1.0,
    )
    consistency_share: float = declare(
        0.25,
        "Share of labels that are compared with those of the mirrored and of the cropped frame.",
        minimum=0.0,
        maximum=1.0,
    )
    smallest_confidence: float = declare(
        0.6,
        "A label is refused whose mean confidence in these comparisons is less.",
        minimum=0.0,
        maximum=1.0,
    )
    largest_flicker: float = declare(
        0.15,
        "A label is refused that differs from the last by more than this, relative to its spread, "
        "where no events are.",
        minimum=0.0,
    )
    far_share: float = declare(
        0.02, "Share of a label's farthest pixels that is masked.", minimum=0.0, maximum=0.5
    )
    full_density: float = declare(
        0.2,
        "Share of active pixels in a patch of 14 px from which its label has full weight.",
        minimum=0.001,
        maximum=1.0,
    )

    # Replay: which clips are kept to learn from, and which to judge by.
    replay_clips: int = declare(
        256, "Clips kept, a quarter of them held out to judge by.", minimum=8, maximum=100_000
    )
    replay_mb: int = declare(
        1024, "How much memory they may take, in MB.", minimum=1, maximum=1_000_000
    )
    replay_horizon_s: float = declare(
        300.0,
        "Event time in seconds over which a clip becomes e times less likely to be kept.",
        minimum=1.0,
    )
    largest_similarity: float = declare(
        0.95,
        "A clip is refused whose map of event density is like the last one's: cosine above this; "
        "1 keeps all.",
        minimum=0.0,
        maximum=1.0,
    )
    block_s: float = declare(
        2.0, "Event time is cut into blocks of this length in seconds.", minimum=0.01
    )
    heldout_every: int = declare(
        5, "Every so many blocks one is held out to judge by; 0: none.", minimum=0, maximum=1000
    )
    guard_band_s: float = declare(
        0.5, "Event time left out before and after a held-out block, in seconds.", minimum=0.0
    )

    # Learning: one step on a copy of the student.
    tier: int = declare(
        1,
        "What learns: 1 recurrent units and output, 2 the whole head, 3 and low-rank changes of "
        "the encoder.",
        minimum=1,
        maximum=3,
    )
    lora_rank: int = declare(8, "Rank of these changes.", minimum=1, maximum=256)
    batch_clips: int = declare(4, "Clips of a step, anchors included.", minimum=1, maximum=1024)
    anchor_share: float = declare(
        0.25,
        "Share of a step's clips that are anchors: clips from before adaptation.",
        minimum=0.0,
        maximum=0.9,
    )
    anchor_clips: int = declare(
        32, "Anchors from before adaptation; half of them measure forgetting.", minimum=2
    )
    pinned_clips: int = declare(
        8, "First verified clips of the deployment that become anchors.", minimum=0
    )
    learning_rate: float = declare(
        0.0,
        "Step of the weights; 0 for the one measured for the network.",
        minimum=0.0,
        maximum=1.0,
    )
    warm_up: int = declare(
        20, "Steps over which the rate grows, also after each reset.", minimum=0, maximum=100_000
    )
    clip_norm: float = declare(1.0, "Largest norm of the gradient; larger is scaled.", minimum=1e-6)
    largest_norm_ratio: float = declare(
        10.0, "A step is refused whose gradient is so many times the running median.", minimum=1.0
    )
    pull: float = declare(
        1e-3,
        "Part of its way back to the original that each weight goes with each step (L2-SP).",
        minimum=0.0,
        maximum=1.0,
    )
    average_decay: float = declare(
        0.998,
        "Decay of the weights' running average, which is what is published; 0.99 at most in the "
        "first 200 steps.",
        minimum=0.0,
        maximum=0.99999,
    )
    soft_reset_steps: int = declare(
        1000, "Accepted steps between two returns half way to the original.", minimum=1
    )
    cold_share: float = declare(
        0.25, "Share of clips that begin with a zero state.", minimum=0.0, maximum=1.0
    )
    stale_versions: int = declare(
        3, "A stored state is used until so many versions later.", minimum=0
    )
    trim: float = declare(
        0.1,
        "Share of a label's pixels with the largest residual that is left out.",
        minimum=0.0,
        maximum=0.5,
    )
    normalised_weight: float = declare(
        0.5, "Weight of the normalised term of labels without metres.", minimum=0.0
    )
    anchor_weight: float = declare(
        0.5, "Weight of the original's own depth on anchors.", minimum=0.0
    )
    pin_weight: float = declare(
        0.01, "Weight of staying at the original's scale and shift.", minimum=0.0
    )
    quiet_weight: float = declare(
        0.02, "Weight of depth that changes while the camera stands still.", minimum=0.0
    )
    quiet_rate: float = declare(
        0.005,
        "The camera stands still in a window with fewer events per pixel than this.",
        minimum=0.0,
    )
    precision: str = declare(
        "float32",
        "Arithmetic of learning inside convolutions and matrix products.",
        choices=("float32", "bfloat16"),
    )
    cache_mb: int = declare(
        256, "Memory for what the frozen parts say about clips, in MB.", minimum=0
    )
    seed: int = declare(0, "Of everything that is drawn.", minimum=0)

    # Guard: which candidates may be published.
    judge_every_steps: int = declare(
        50, "Accepted steps after which a candidate is judged.", minimum=1
    )
    judge_every_s: float = declare(
        30.0, "Seconds after which a candidate is judged that has fewer steps.", minimum=0.1
    )
    judged_blocks: int = declare(
        6, "Held-out blocks that a judgement needs.", minimum=2, maximum=1000
    )
    judged_strata: int = declare(
        2,
        "Kinds of scene (terciles of event rate and luminance) that they must be of.",
        minimum=1,
        maximum=9,
    )
    confidence: float = declare(
        0.9,
        "The interval of the gain holds it with this probability; its lower end must be above 0.",
        minimum=0.5,
        maximum=0.999,
    )
    smallest_gain: float = declare(
        0.01,
        "A candidate is refused whose error on held-out clips is not less by this share.",
        minimum=0.0,
        maximum=1.0,
    )
    largest_forgetting: float = declare(
        0.02,
        "A candidate is refused whose error on anchors is above the original's by more than this "
        "share.",
        minimum=0.0,
    )
    largest_true_forgetting: float = declare(
        0.01, "The same on anchors whose depth was measured or simulated.", minimum=0.0
    )
    largest_departure: float = declare(
        0.1,
        "On anchors without a label: largest mean |depth - the original's| over the original's.",
        minimum=0.0,
    )
    largest_scale_step: float = declare(
        0.05,
        "Largest |ln| of a candidate's median depth over the published one's.",
        minimum=0.0,
    )
    largest_metric_scale_step: float = declare(
        0.15,
        "The same where metres are compared with metres, so that a wrong scale shows as an error.",
        minimum=0.0,
    )
    largest_scale_drift: float = declare(
        0.3, "Largest |ln| of a candidate's median depth over the original's.", minimum=0.0
    )
    largest_jitter: float = declare(
        1.05,
        "Largest trembling of a candidate's depth from window to window, relative to the "
        "published one's.",
        minimum=1.0,
    )
    smallest_spread: float = declare(
        0.3,
        "Smallest spread of a candidate's depth over the image, relative to the published one's.",
        minimum=0.0,
        maximum=1.0,
    )
    largest_saturation: float = declare(
        0.05,
        "Largest share of pixels at an end of their image's range; as many as the published one "
        "has are allowed.",
        minimum=0.0,
        maximum=1.0,
    )

    # Pace: how often the teacher is asked, and when there is nothing to learn.
    shortest_stride: int = declare(
        2, "Least number of frames from one label to the next.", minimum=1, maximum=10_000
    )
    longest_stride: int = declare(
        64, "Largest number of frames from one label to the next.", minimum=1, maximum=10_000
    )
    surprise: float = declare(
        1.05,
        "A label surprises where the published weights err by more than this factor over the "
        "held-out labels' median.",
        minimum=1.0,
    )
    smallest_gain_rate: float = declare(
        2e-5,
        "Relative gain per second of work below which learning holds while no label surprises.",
        minimum=0.0,
    )
    retry_s: float = declare(
        60.0, "After so many seconds of holding, learning is tried again.", minimum=1.0
    )

    # Budget: how much of the machine learning may take.
    duty: float = declare(
        0.25,
        "Largest share of the time that learning works.",
        minimum=0.01,
        maximum=1.0,
        at_runtime=True,
    )
    latency_budget_ms: float = declare(
        35.0,
        "The share is halved where the 95 % quantile of depth's latency is above this, in ms.",
        minimum=0.1,
        at_runtime=True,
    )
    recovery_s: float = declare(
        5.0,
        "After windows of depth were dropped, learning waits for so many seconds without.",
        minimum=1.0,
    )
    memory_mb: int = declare(
        4096, "Learning holds where the process takes more memory than this, in MB.", minimum=1
    )

    # Health: when nothing that comes in can be trusted.
    degraded_share: float = declare(
        0.7,
        "Where more than this share of frames and labels is refused, nothing is learned.",
        minimum=0.0,
        maximum=1.0,
    )
    degraded_s: float = declare(
        30.0, "Time in seconds over which that share is taken.", minimum=1.0, maximum=3600.0
    )

    # Of teachers that know disparity only: the place's nearest and farthest depth.
    near_m: float = declare(0.3, "Nearest depth of the place, of relative teachers.", minimum=0.01)
    far_m: float = declare(
        15.0,
        "Farthest depth of the place, of relative teachers; labels beyond it are invalid.",
        minimum=0.02,
    )

    # On disk: what a kill may cost, and how far back depth can go.
    save_every_steps: int = declare(
        10, "Accepted steps between two saves of the learner's state.", minimum=1
    )
    kept_snapshots: int = declare(
        5,
        "Published versions that stay, beside the first, the best and the announced one.",
        minimum=2,
        maximum=10_000,
    )

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
