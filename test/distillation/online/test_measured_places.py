"""What measures forgetting: stretches of all places, and of those like the deployment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.anchor_streams import Spot
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.measured_places import MeasuredPlaces, Stretch
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.replay import HeldoutBlock
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.likeness import distances
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.online_clips import small_clip
from test.reference.wall_deployment import EchoTeacher, deployment, items, run

Online = Callable[..., OnlineParameters]


def pool(counts: Sequence[int], wanted: int) -> tuple[MeasuredPlaces, list[tuple[int, int]]]:
    """Return places with so many stretches each, and which were loaded: number of place, of all."""
    loaded: list[tuple[int, int]] = []
    stretches: list[Stretch] = []

    def load(place: int, number: int) -> LabelledClip:
        loaded.append((place, number))
        return small_clip(number * 10**9)

    def stretch(place: int, number: int) -> Stretch:
        windows = np.full((1, 2, 2), number, np.uint8)
        return Stretch(place, windows, lambda: load(place, number))

    for place, count in enumerate(counts):
        stretches += [stretch(place, len(stretches) + own) for own in range(count)]
    return MeasuredPlaces(stretches, wanted), loaded


def numbers(clips: Sequence[LabelledClip]) -> list[int]:
    """Return which stretches clips were loaded of."""
    return [clip.observation.end_ns // 10**9 for clip in clips]


def test_half_are_those_that_are_near() -> None:
    """Ten places of three stretches, of which four measure: two of all, and the two nearest."""
    places, loaded = pool([3] * 10, 4)
    assert len(places) == 4 and [int(p[0, 0, 0]) for p in places.places()] == list(range(30))
    # By turns the first, second and third stretch of places that are spread evenly.
    assert numbers(places.choose()) == [0, 8, 17, 22]
    near = [Spot(20, 5), Spot(3, 0), Spot(20, 1), Spot(8, 0)]
    assert numbers(places.choose(near)) == [0, 3, 17, 20]
    # Where the near ones are in the half of all places already, or too few, others come.
    assert numbers(places.choose([Spot(17, 0)])) == [0, 8, 17, 22]
    assert numbers(places.choose([Spot(17, 0), Spot(29, 0), Spot(4, 0)])) == [0, 4, 17, 29]
    assert Counter(loaded).most_common(1)[0][1] == 2


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    wanted=st.integers(1, 20),
    data=st.data(),
)
def test_whatever_is_near(counts: list[int], wanted: int, data: st.DataObject) -> None:
    """As many as can be, each once, the near ones first, and the rest of different places."""
    places, _ = pool(counts, wanted)
    total = sum(counts)
    order = data.draw(st.permutations(range(total)))
    order = order[: data.draw(st.integers(0, total))]
    before = {id(clip) for clip in places.choose()}
    chosen = places.choose([Spot(number, 0) for number in order for _ in range(2)])
    found = numbers(chosen)
    assert found == sorted(set(found)) and len(found) == min(wanted, total) == len(places)
    led = len(found) // 2
    assert len(set(order) & set(found)) >= min(led, len(order))
    # What was chosen before is the same object; and of equals the same is chosen again.
    even = numbers(places.choose())
    again = places.choose()
    assert numbers(again) == even
    assert len({id(clip) for clip in again} | before) <= 2 * len(found)
    owners = np.repeat(np.arange(len(counts)), counts)
    assert len(set(owners[even])) == min(len(counts), len(even))


def test_what_is_still_chosen_is_the_same_object() -> None:
    """Others remember by identity what was measured of it."""
    places, loaded = pool([2, 2, 2], 4)
    first = places.choose([Spot(5, 0), Spot(3, 0)])
    second = places.choose([Spot(5, 0), Spot(2, 0)])
    kept = set(numbers(first)) & set(numbers(second))
    assert kept
    for number in kept:
        (one,), (other,) = (
            [clip for clip in clips if numbers([clip]) == [number]] for clips in (first, second)
        )
        assert one is other
    assert len(loaded) == len({number for _, number in loaded})


def test_the_guard_measures_what_looks_like_the_deployment(
    student: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run half of what a judgement takes are the stretches nearest to the clips of then."""
    train = [WedgeSource(1, 28, 42, windows=3)]
    held = [WedgeSource(seed, 28, 42, windows=6) for seed in range(2, 12)]
    store = open_clip_store(wedge_clips(tmp_path / "places", train, held))
    judged: list[tuple[tuple[LabelledClip, ...], list[int]]] = []
    judge = Guard.judge

    def noted(
        self: Guard,
        candidate: ClipNetwork,
        published: ClipNetwork,
        blocks: Sequence[HeldoutBlock],
        anchors: Sequence[LabelledClip],
        pause: Callable[[], None],
    ) -> Verdict:
        found = [
            number
            for number, sequence in enumerate(store.split("heldout"))
            for clip in anchors
            if np.array_equal(clip.observation.windows, sequence.windows[:6])
        ]
        judged.append((distiller._intake.replay.clips, found))
        return judge(self, candidate, published, blocks, anchors, pause)

    monkeypatch.setattr(Guard, "judge", noted)
    seen = items(1, 1000)
    distiller = deployment(
        student, EchoTeacher(student, seen, 1.2), tmp_path / "folder", store, batch_clips=2,
        anchor_share=0.5, anchor_streams=1, measured_windows=6, measured_anchors=4,
        learning_rate=1e-9, unroll=1, labels_per_clip=1, judge_every_steps=10,
    )  # fmt: skip
    list(run(distiller, seen, 80.0))
    distiller.close()
    network = distiller._learner.original
    places = [sequence.windows for sequence in store.split("heldout")]
    assert len(judged) >= 2
    for clips, found in judged:
        assert len(found) == 4
        exact = distances(network, places, 1, clips, 10)
        order = list(dict.fromkeys(place for place, _ in sorted(exact, key=exact.__getitem__)))
        near = [place for place in order if place not in (0, 5)][:2]
        assert set(near) <= set(found), (found, order)
