"""Anchors: chosen from a store, pinned from a deployment, halves that share no place."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.distillation.clip_store import ClipStore, open_clip_store
from dae_ros.distillation.online.anchor_streams import AnchorStreams, Excerpt
from dae_ros.distillation.online.anchors import AnchorSet, Pinned, anchors_of_store
from dae_ros.distillation.online.observation import LabelledClip, Refusal
from dae_ros.errors import ConfigurationError
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.online_clips import measuring, small_clip

Online = Callable[..., OnlineParameters]


WINDOW_NS = 50_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Runs of 7, 15, 11, 4 and 1 windows to replay; of 12, 3 and 26 to measure by."""
    train = [
        WedgeSource(1, 28, 42, windows=22, restart_at=7),
        WedgeSource(2, 28, 42, windows=11, frames=False),
        WedgeSource(3, 28, 42, windows=4),
        WedgeSource(4, 28, 42, windows=1),
    ]
    held = [
        WedgeSource(9, 28, 42, windows=12, depth=False),
        WedgeSource(8, 28, 42, windows=3),
        WedgeSource(7, 28, 42, windows=26),
    ]
    return open_clip_store(wedge_clips(tmp_path_factory.mktemp("anchors") / "store", train, held))


def ends(clip: LabelledClip) -> int:
    """Return the number of a clip's last window."""
    return clip.observation.end_ns // WINDOW_NS


def test_what_measures_is_of_as_many_places_as_there_are(store: ClipStore, online: Online) -> None:
    """Stretches share no window, and a second one of a place comes after one of every other."""

    def measured(count: int) -> list[tuple[int, bool]]:
        parameters = online(measured_anchors=count, measured_windows=6)
        clips = anchors_of_store(store, "tencode", parameters).measured()
        assert all(len(clip.observation) == 6 for clip in clips)
        return [(ends(clip), bool(clip.weight.any())) for clip in clips]

    # Without depth there is no label, and a sequence of three windows is too short.
    assert measured(1) == [(6, False)]
    assert measured(2) == [(6, False), (12, True)]
    assert measured(3) == [(6, False), (12, False), (12, True)]
    assert measured(50) == [
        (6, False), (12, False), (6, True), (12, True), (18, True), (24, True),
    ]  # fmt: skip


def test_an_excerpt_is_what_the_store_holds(store: ClipStore, online: Online) -> None:
    """Windows, true depth and frames of one place; the store is named as the teacher."""
    anchors = anchors_of_store(store, "tencode", online(measured_windows=6))
    seen = set()
    for step in range(40):
        (excerpt,) = anchors.draw(step, 1)
        assert isinstance(excerpt, Excerpt)
        clip = excerpt.clip
        last = ends(clip)
        (sequence,) = [
            item
            for item in store.split("train")
            if last <= len(item)
            and np.array_equal(item.windows[last - 2 : last], clip.observation.windows)
        ]
        assert sequence.depth is not None
        np.testing.assert_array_equal(clip.depth, sequence.depth[last - 2 : last])
        grey = 0.0 if sequence.frames is None else sequence.frames[last - 1].mean()
        assert clip.observation.luminance == grey
        assert clip.label_metric and (clip.weight == 255).all()
        assert clip.observation.window_ns == WINDOW_NS
        assert clip.teacher == "ground_truth" and clip.teacher_digest == store.digest
        seen.add(sequence.name)
        excerpt.go_on(())
    assert len(seen) == 3


@settings(max_examples=40)
@given(
    streams=st.integers(1, 4),
    length=st.integers(1, 4),
    seed=st.integers(0, 5),
    cut=st.integers(0, 60),
    broken=st.sets(st.integers(0, 60), max_size=5),
)
def test_a_stream_goes_on_where_it_was(
    store: ClipStore,
    online: Online,
    streams: int,
    length: int,
    seed: int,
    cut: int,
    broken: set[int],
) -> None:
    """Whatever the runs, with the state that was carried, and after a restart as well.

    States say here which windows they have seen: the number of the first and the last.
    """
    parameters = online(
        anchor_streams=streams, unroll=length, seed=seed, measured_windows=9, labels_per_clip=1
    )
    runs = [(0, 7), (7, 22), (0, 11), (0, 4), (0, 1)]

    def follow(through: AnchorStreams, first: int, last: int) -> list[tuple[int, ...]]:
        visits = []
        for visit in range(first, last):
            (excerpt,) = through.visit(1)
            # Nothing goes on before it is told to.
            assert ends(through.visit(1)[0].clip) == ends(excerpt.clip)
            end = ends(excerpt.clip)
            begin = end - length
            assert any(low <= begin and end <= high for low, high in runs)
            start = begin
            if excerpt.states:
                (own,), (other,) = excerpt.states
                assert torch.equal(own, -other) and float(own[1]) == begin
                start = int(own[0])
            value = [float(start), float("nan") if visit in broken else float(end)]
            excerpt.go_on(((torch.tensor(value),), (-torch.tensor(value),)))
            visits.append((start, begin, end))
        return visits

    def make() -> AnchorStreams:
        return AnchorStreams(store.split("train"), store.digest, parameters)

    whole, cut_short, resumed = make(), make(), make()
    visits = follow(whole, 0, 64)
    assert follow(cut_short, 0, cut) == visits[:cut]
    resumed.restore(cut_short.state())
    assert follow(resumed, cut, 64) == visits[cut:]
    for index in range(streams):
        own = visits[index::streams]
        for (start, _, end), (next_start, next_begin, _) in itertools.pairwise(own):
            # It goes on, or begins with a zero state.
            assert (next_start, next_begin) == (start, end) or next_start == next_begin
    longest = max(end - start for start, _, end in visits)
    assert longest <= 15 and (broken or length > 3 or longest > length)


def test_stretches_are_the_beginnings_of_places(store: ClipStore, online: Online) -> None:
    """Of as many places as asked for, spread over all that are long enough to be replayed."""
    streams = AnchorStreams(store.split("train"), store.digest, online(unroll=2))
    found = [(ends(c), len(c.observation)) for c in streams.stretches(9, 5)]
    assert found == [(5, 5), (12, 5), (5, 5), (4, 4)]
    assert [ends(clip) for clip in streams.stretches(2, 5)] == [5, 5]


def test_streams_of_another_store_begin_anew(store: ClipStore, online: Online) -> None:
    """Where the anchors were changed, or how they are cut, what was saved says nothing."""
    one = AnchorStreams(store.split("train"), store.digest, online())
    for _ in range(3):
        for excerpt in one.visit(1):
            excerpt.go_on(())
    for other in (
        AnchorStreams(store.split("train"), "0" * 64, online()),
        AnchorStreams(store.split("train"), store.digest, online(anchor_streams=2)),
    ):
        before = other.state()
        other.restore(one.state())
        assert other.state() == before


def test_a_store_must_fit(tmp_path: Path, online: Online) -> None:
    """Another encoder, or a split without a sequence that is long enough, is refused."""
    short = wedge_clips(tmp_path / "s", [WedgeSource(1, windows=8)], [WedgeSource(2, windows=4)])
    store = open_clip_store(short)
    with pytest.raises(ConfigurationError, match="event_encoder: tencode_voxel"):
        anchors_of_store(store, "tencode_voxel", online())
    with pytest.raises(ConfigurationError, match=r"'heldout' with 5 windows .*'measured_windows'"):
        anchors_of_store(store, "tencode", online(measured_windows=5))
    with pytest.raises(ConfigurationError, match=r"'train' with 9 windows .*'unroll'"):
        anchors_of_store(store, "tencode", online(unroll=9, measured_windows=12))
    with pytest.raises(ConfigurationError, match=r"'measured_windows' .* must not be below"):
        online(measured_windows=4)


def test_pinned_clips_go_by_turns_and_not_side_by_side(store: ClipStore, online: Online) -> None:
    """The first pinned clip is replayed, the next measures, ten seconds later at least."""
    parameters = online(pinned_clips=3)
    streams = AnchorStreams(store.split("train"), store.digest, parameters)
    anchors = AnchorSet(streams, measuring([small_clip(2 * 10**9)]), parameters)
    clips = {second: small_clip(second * 10**9) for second in (5, 10, 16, 30, 50)}
    results = [anchors.pin(clip) for clip in clips.values()]
    kinds = [r.reason if isinstance(r, Refusal) else (r.key, r.half) for r in results]
    assert kinds == [
        (0, "replayed"), "near_anchor", (1, "measured"), (2, "replayed"), "anchors_full",
    ]  # fmt: skip
    assert anchors.measured()[1:] == (clips[16],)
    assert len(anchors) == 4 + 1 + 3
    again = AnchorSet(None, None, parameters)
    kept = {0: clips[5], 1: clips[16], 2: clips[30]}
    assert again.restore(anchors.state(), kept) == 0
    assert again.measured() == (clips[16],) and len(again) == 3
    # Alone they do not fill a step.
    assert [len(again.draw(0, count)) for count in (0, 1, 2, 9)] == [0, 1, 1, 1]
    assert {id(again.draw(step, 1)[0]) for step in range(20)} == {id(clips[5]), id(clips[30])}
    # Beside places each comes as often as a place does: two of six.
    drawn = [anchor for step in range(300) for anchor in anchors.draw(step, 2)]
    assert len(drawn) == 600
    assert 150 < sum(anchor is clips[5] or anchor is clips[30] for anchor in drawn) < 250
    assert again.restore(anchors.state(), {0: clips[5], 2: clips[30]}) == 2
    assert again.pin(clips[50]) == Pinned(1, "measured")


def test_draws_depend_on_seed_and_step_alone(store: ClipStore, online: Online) -> None:
    """Equal sets draw equally, others differ."""

    def drawn(seed: int) -> list[int]:
        anchors = anchors_of_store(store, "tencode", online(seed=seed, measured_windows=6))
        found = []
        for step in range(20):
            for excerpt in anchors.draw(step, 2):
                assert isinstance(excerpt, Excerpt)
                found.append(ends(excerpt.clip))
                excerpt.go_on(())
        return found

    assert drawn(0) == drawn(0) != drawn(1)
    anchors = anchors_of_store(store, "tencode", online(anchor_streams=3, measured_windows=6))
    assert len(anchors.draw(0, 9)) == 3
