"""Clips of a store as learning takes them: labelled with true depth where the store has some."""

from __future__ import annotations

import numpy as np

from dae_ros.distillation.clip_store import END_NS, FRAME_OFFSET_US, ClipSequence
from dae_ros.distillation.labels import OUTDOOR
from dae_ros.distillation.online.observation import GROUND_TRUTH, LabelledClip, Observation


def stored_clip(sequence: ClipSequence, first: int, length: int, digest: str) -> LabelledClip:
    """Return windows of a sequence, copied.

    Args:
        sequence: of a store.
        first, length: which windows, of one run.
        digest: of the store, which the clip names as its teacher's.
    """
    last = first + length
    windows = np.array(sequence.windows[first:last])
    size = windows.shape
    ends_ns = sequence.times[first:last, END_NS]
    window_ns = int(ends_ns[-1] - ends_ns[-2]) if length > 1 else int(ends_ns[0])
    has_frame = np.array(sequence.has_frame(first, last))
    offsets_ns = np.where(has_frame, sequence.times[first:last, FRAME_OFFSET_US] * 1000, 0)
    # An observation ends at a frame. Here it stands for the depth that is known at every end.
    has_frame[-1] = True
    frames = (
        np.zeros(size, np.uint8)
        if sequence.frames is None
        else np.array(sequence.frames[first:last])
    )
    active = (windows != 0).sum(axis=(1, 2), dtype=np.int64)
    observation = Observation(
        end_ns=int(ends_ns[-1]),
        window_ns=window_ns,
        windows=windows,
        frames=frames,
        has_frame=has_frame,
        frame_ns=ends_ns + offsets_ns,
        masks=np.broadcast_to(has_frame[:, None, None], size).copy(),
        sharp=np.ones(length, np.bool_),  # depth that was measured has no motion blur
        supported=np.ones(length, np.bool_),
        event_counts=active,  # at least so many: a window keeps one event of each pixel
        luminance=float(frames[-1].mean()),
        event_rate_hz=float(active.sum() / (length * window_ns * 1e-9)),
        image_speed_px_s=float("nan"),
    )
    depth = (
        np.full(size, np.nan, np.float16)
        if sequence.depth is None
        else np.array(sequence.depth[first:last])
    )
    return LabelledClip(
        observation=observation,
        depth=depth,
        # NaN compares as False. The student was not trained beyond either.
        weight=np.where((depth > 0) & (depth <= OUTDOOR.maximum_m), 255, 0).astype(np.uint8),
        label_metric=True,
        teacher=GROUND_TRUTH,
        teacher_digest=digest,
    )
