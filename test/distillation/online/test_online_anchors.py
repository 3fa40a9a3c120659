"""Anchors: chosen from a store, pinned from a deployment, halves that share no place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.anchors import AnchorSet, Pinned, anchors_of_store
from dae_ros.distillation.online.observation import Refusal
from dae_ros.errors import ConfigurationError
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.online_clips import small_clip

Online = Callable[..., OnlineParameters]


def test_anchors_come_evenly_from_both_splits(tmp_path: Path, online: Online) -> None:
    """Clips lie inside of runs, share no window, and carry the true depth of every window."""
    train = [
        WedgeSource(1, 28, 42, windows=22, restart_at=7),
        WedgeSource(2, 28, 42, windows=11, frames=False),
        WedgeSource(3, 28, 42, windows=4),
    ]
    held = [WedgeSource(9, 28, 42, windows=12, depth=False)]
    store = open_clip_store(wedge_clips(tmp_path / "store", train, held))
    anchors = anchors_of_store(store, "tencode", online(replayed_anchors=4, measured_anchors=4))
    # Five windows each: one before the restart and three after it, two, none.
    assert [clip.observation.end_ns // 50_000_000 for clip in anchors.replayed] == [5, 12, 22, 5]
    assert len(anchors.measured) == 2
    sequence = store.split("train")[0]
    clip = anchors.replayed[1]
    np.testing.assert_array_equal(clip.observation.windows, sequence.windows[7:12])
    assert sequence.depth is not None and sequence.frames is not None
    np.testing.assert_array_equal(clip.depth, sequence.depth[7:12])
    np.testing.assert_array_equal(clip.observation.frames, sequence.frames[7:12])
    assert clip.label_metric and (clip.weight == 255).all()
    assert clip.observation.window_ns == 50_000_000
    assert clip.teacher == "ground_truth" and clip.teacher_digest == store.digest
    assert (anchors.replayed[3].observation.frames == 0).all()
    assert (anchors.measured[0].weight == 0).all()
    assert {id(c) for c in anchors.draw(0, 3)} <= {id(c) for c in anchors.replayed}
    assert (
        len(
            anchors_of_store(
                store, "tencode", online(replayed_anchors=2, measured_anchors=3)
            ).replayed
        )
        == 2
    )


def test_a_store_must_fit(tmp_path: Path, online: Online) -> None:
    """Another encoder, or a split without a clip that is long enough, is refused."""
    short = wedge_clips(tmp_path / "s", [WedgeSource(1, windows=8)], [WedgeSource(2, windows=4)])
    store = open_clip_store(short)
    with pytest.raises(ConfigurationError, match="event_encoder: tencode_voxel"):
        anchors_of_store(store, "tencode_voxel", online())
    with pytest.raises(ConfigurationError, match="'heldout' with 5 windows"):
        anchors_of_store(store, "tencode", online())


def test_pinned_clips_go_by_turns_and_not_side_by_side(online: Online) -> None:
    """The first pinned clip is replayed, the next measures, ten seconds later at least."""
    anchors = AnchorSet([small_clip(10**9)], [small_clip(2 * 10**9)], online(pinned_clips=3))
    clips = {second: small_clip(second * 10**9) for second in (5, 10, 16, 30, 50)}
    results = [anchors.pin(clip) for clip in clips.values()]
    kinds = [r.reason if isinstance(r, Refusal) else (r.key, r.half) for r in results]
    assert kinds == [
        (0, "replayed"), "near_anchor", (1, "measured"), (2, "replayed"), "anchors_full",
    ]  # fmt: skip
    assert anchors.replayed[1:] == (clips[5], clips[30]) and anchors.measured[1:] == (clips[16],)
    again = AnchorSet([], [], online(pinned_clips=3))
    kept = {0: clips[5], 1: clips[16], 2: clips[30]}
    assert again.restore(anchors.state(), kept) == 0
    assert again.replayed == (clips[5], clips[30])
    # Those of before come in any number, pinned ones alone do not fill a step.
    assert [len(anchors.draw(0, count)) for count in (0, 1, 2, 9)] == [0, 1, 2, 3]
    assert [len(again.draw(0, count)) for count in (0, 1, 2, 9)] == [0, 1, 1, 1]
    assert again.restore(anchors.state(), {0: clips[5], 2: clips[30]}) == 2
    assert again.pin(clips[50]) == Pinned(1, "measured")


def test_draws_depend_on_seed_and_step_alone(online: Online) -> None:
    """All clips come, none twice in a draw, and equal sets draw equally."""
    clips = [small_clip(second * 10**9) for second in range(1, 7)]
    one, same, other = (AnchorSet(clips, [], online(seed=seed)) for seed in (0, 0, 1))
    drawn = [[clips.index(clip) for clip in one.draw(step, 2)] for step in range(40)]
    assert drawn == [[clips.index(clip) for clip in same.draw(step, 2)] for step in range(40)]
    assert drawn != [[clips.index(clip) for clip in other.draw(step, 2)] for step in range(40)]
    assert all(len(set(pair)) == 2 for pair in drawn) and len({i for p in drawn for i in p}) == 6
    assert len(one.draw(0, 100)) == 6
