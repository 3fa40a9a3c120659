"""Which clips are kept, and how a copy of the student learns from them.

A part of the parameters of online learning, see `distillation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class LearningParameters(NodeParameters):
    """Which clips are kept, and how a copy of the student learns from them."""

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
        0.8,
        "A clip is refused whose map of event density is like the last one's: correlation above "
        "this; 1 keeps all.",
        minimum=-1.0,
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
        2,
        "What learns: 1 recurrent units and output, 2 the whole head, 3 and low-rank changes of "
        "the encoder.",
        minimum=1,
        maximum=3,
    )
    lora_rank: int = declare(8, "Rank of these changes.", minimum=1, maximum=256)
    batch_clips: int = declare(6, "Clips of a step, anchors included.", minimum=1, maximum=1024)
    anchor_share: float = declare(
        0.67,
        "Share of a step's clips that are anchors: from before adaptation.",
        minimum=0.0,
        maximum=0.9,
    )
    anchor_streams: int = declare(
        16,
        "Places from before adaptation that are gone along at a time, 'unroll' windows a visit.",
        minimum=1,
    )
    measured_anchors: int = declare(
        96,
        "Stretches from before adaptation that measure forgetting, half of them the most like the "
        "deployment.",
        minimum=1,
    )
    measured_windows: int = declare(
        32,
        "Windows of such a stretch; all count where they are more than those of a clip.",
        minimum=2,
    )
    pinned_clips: int = declare(
        8, "First verified clips of the deployment that become anchors.", minimum=0
    )
    protection: float = declare(
        50.0,
        "Of a step 1 / (1 + this) is left along directions of a layer's inputs that are of mean "
        "strength on anchors, less along stronger ones; 0 leaves all.",
        minimum=0.0,
        maximum=10_000.0,
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
        0.995,
        "Decay of the weights' running average, which is what is published; it lags by "
        "1 / (1 - decay) steps.",
        minimum=0.0,
        maximum=0.99999,
    )
    candidate_part: float = declare(
        0.9,
        "Part of the way from the original weights to that average which a candidate goes: places "
        "known before are lost on the last of it.",
        minimum=0.1,
        maximum=1.0,
    )
    soft_reset_steps: int = declare(
        1000, "Accepted steps between two returns half way to the original.", minimum=1
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
        0.5, "Weight of the original's own depth on anchors, up to scale and shift.", minimum=0.0
    )
    metric_anchor_weight: float = declare(5.0, "The same where both are metres.", minimum=0.0)
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
        1024,
        "Memory for what the frozen parts say about clips, in MB, half of it of those to learn "
        "from and half of those to judge by; what does not fit is computed again and again.",
        minimum=0,
    )
    seed: int = declare(0, "Of everything that is drawn.", minimum=0)
