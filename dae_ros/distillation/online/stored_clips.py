"""Clips of a store as learning takes them: labelled with true depth where the store has some."""

from __future__ import annotations

import numpy as np

from dae_ros.distillation.clip_store import END_NS, ClipSequence
from dae_ros.distillation.labels import OUTDOOR
from dae_ros.distillation.online.observation import GROUND_TRUTH, EventClip, LabelledClip


def stored_clip(sequence: ClipSequence, first: int, length: int, digest: str) -> LabelledClip:
    """Return windows of a sequence, copied.

    Args:
        sequence: of a store.
        first, length: which windows, of one run.
        digest: of the store, which the clip names as its teacher's.
    """
    last = first + length
    windows = np.array(sequence.windows[first:last])
    ends_ns = sequence.times[first:last, END_NS]
    window_ns = int(ends_ns[-1] - ends_ns[-2]) if length > 1 else int(ends_ns[0])
    active = (windows != 0).sum(axis=(1, 2), dtype=np.int64)
    observation = EventClip(
        end_ns=int(ends_ns[-1]),
        window_ns=window_ns,
        windows=windows,
        sharp=np.ones(length, np.bool_),  # depth that was measured has no motion blur
        supported=np.ones(length, np.bool_),
        event_counts=active,  # at least so many: a window keeps one event of each pixel
        luminance=0.0 if sequence.frames is None else float(sequence.frames[last - 1].mean()),
        event_rate_hz=float(active.sum() / (length * window_ns * 1e-9)),
        image_speed_px_s=float("nan"),
    )
    depth = (
        np.empty((0, *windows.shape[1:]), np.float16)
        if sequence.depth is None
        else np.array(sequence.depth[first:last])
    )
    return LabelledClip(
        observation=observation,
        labelled=np.arange(len(depth)),
        depth=depth,
        # NaN compares as False. The student was not trained beyond either.
        weight=np.where((depth > 0) & (depth <= OUTDOOR.maximum_m), 255, 0).astype(np.uint8),
        label_metric=True,
        teacher=GROUND_TRUTH,
        teacher_digest=digest,
    )
