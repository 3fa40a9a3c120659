"""Labelled clips that need no camera: the moving wedge with its depth, and small empty ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dae_ros.distillation.clip_codes import code_of_tencode
from dae_ros.distillation.online.measured_places import MeasuredPlaces, Stretch
from dae_ros.distillation.online.observation import EventClip, LabelledClip
from dae_ros.distillation.online.records import pack_record
from test.reference.moving_wedge import WedgeSource, depth_of_grey

WINDOW_NS = 50_000_000


def wedge_clip(
    seed: int, length: int = 8, height: int = 28, width: int = 42, scale: float = 1.0
) -> LabelledClip:
    """Return a clip of the wedge; its label is the true depth of every window, times `scale`."""
    source = WedgeSource(seed, height=height, width=width, windows=length)
    random = np.random.default_rng(seed)
    left, top = random.integers(2, width // 3), random.integers(2, height // 3)
    grey = np.stack(
        [source.grey(int(left) + (1 + seed % 3) * index, int(top)) for index in range(length)]
    )
    codes = np.stack([code_of_tencode(source.events(image)) for image in grey])
    end_ns = (seed + 1) * 10**9
    return LabelledClip(
        observation=observation(codes, grey.astype(np.uint8), end_ns),
        labelled=np.arange(length),
        depth=(depth_of_grey(grey) * scale).astype(np.float16),
        weight=np.full(codes.shape, 255, np.uint8),
        label_metric=True,
        teacher="wedge",
        teacher_digest="0" * 64,
    )


def observation(codes: Any, frames: Any, end_ns: int, rate_hz: float = 1e5) -> EventClip:
    length = len(codes)
    return EventClip(
        end_ns=end_ns,
        window_ns=WINDOW_NS,
        windows=codes,
        sharp=np.ones(length, np.bool_),
        supported=np.ones(length, np.bool_),
        event_counts=(codes != 0).sum(axis=(1, 2), dtype=np.int64),
        luminance=float(frames[-1].mean()),
        event_rate_hz=rate_hz,
        image_speed_px_s=float("nan"),
    )


def small_clip(
    end_ns: int, *, rate_hz: float = 1e5, grey: int = 100, seed: int | None = None, length: int = 4
) -> LabelledClip:
    """Return a clip of 12 x 16 px without a label; its events are drawn by `seed`."""
    random = np.random.default_rng(end_ns if seed is None else seed)
    codes = np.where(random.random((length, 12, 16)) < 0.2, 7, 0).astype(np.uint8)
    frames = np.full(codes.shape, grey, np.uint8)
    return LabelledClip(
        observation=observation(codes, frames, end_ns, rate_hz),
        labelled=np.empty(0, np.int64),
        depth=np.empty((0, 12, 16), np.float16),
        weight=np.empty((0, 12, 16), np.uint8),
        label_metric=False,
        teacher="",
        teacher_digest="",
    )


def changed(clip: LabelledClip, **fields: Any) -> LabelledClip:
    """Return a copy with other fields, of the clip or of its observation."""
    own = {item.name for item in dataclasses.fields(LabelledClip)}
    inner = {name: value for name, value in fields.items() if name not in own}
    outer = {name: value for name, value in fields.items() if name in own}
    return dataclasses.replace(
        clip, observation=dataclasses.replace(clip.observation, **inner), **outer
    )


def measuring(clips: Sequence[LabelledClip]) -> MeasuredPlaces:
    """Return what measures with all of these clips, each of a place of its own."""

    def stretch(number: int, clip: LabelledClip) -> Stretch:
        return Stretch(number, clip.observation.windows, lambda: clip)

    return MeasuredPlaces([stretch(*item) for item in enumerate(clips)], len(clips))


def same_clip(first: LabelledClip, second: LabelledClip) -> bool:
    """Compare every bit."""
    return pack_record(("clip", 0), first) == pack_record(("clip", 0), second)
