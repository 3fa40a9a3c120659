"""What looks alike in old places and the deployment: windows visited first, clips left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dae_ros.distillation.clip_store import ClipStore, open_clip_store
from dae_ros.distillation.online import anchor_streams, lookalikes
from dae_ros.distillation.online.anchor_streams import AnchorStreams, Excerpt, Spot
from dae_ros.distillation.online.anchors import AnchorSet
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.learner import Learner, StepReport
from dae_ros.distillation.online.lookalikes import Lookalikes
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.likeness import describe, distances, distances_of_clips
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.online_clips import changed, wedge_clip
from test.reference.wall_deployment import EchoTeacher, deployment, items, run

Online = Callable[..., OnlineParameters]
Windows = NDArray[np.uint8]


@pytest.fixture(scope="module")
def network(student: LoadedModel) -> ClipNetwork:
    return ClipNetwork(student.network.eval(), student.meaning)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Runs of 7, 15, 11 and 1 windows to replay."""
    train = [
        WedgeSource(1, 28, 42, windows=22, restart_at=7),
        WedgeSource(2, 28, 42, windows=11),
        WedgeSource(4, 28, 42, windows=1),
    ]
    held = [WedgeSource(9, 28, 42, windows=12)]
    return open_clip_store(wedge_clips(tmp_path_factory.mktemp("places") / "store", train, held))


def noise(seed: int, count: int) -> Windows:
    """Return windows with events anywhere."""
    random = np.random.default_rng(seed)
    return np.where(random.random((count, 28, 42)) < 0.3, 7, 0).astype(np.uint8)


def wedges(seed: int, count: int) -> Windows:
    """Return windows with a box before a wall."""
    windows: Windows = wedge_clip(seed, length=count).observation.windows
    return windows


def noisy_clip(seed: int) -> LabelledClip:
    """Return a clip with events anywhere."""
    return changed(wedge_clip(seed, length=4), windows=noise(seed, 4))


def found(
    network: ClipNetwork, places: Sequence[Windows], spacing: int, clips: Sequence[LabelledClip]
) -> tuple[Spot, ...]:
    """Look at places, and return what is near clips."""
    looked = Lookalikes(network, places, spacing, 0)
    looked.look(1000)
    return looked.nearest(clips)


def test_what_is_near_is_of_the_same_kind(network: ClipNetwork) -> None:
    """Among noise, stillness and another box, the other box looks like a box."""
    places = [noise(1, 8), np.zeros((8, 28, 42), np.uint8), wedges(2, 8), noise(2, 8)]
    clips = [wedge_clip(seed) for seed in (5, 6)]
    # A fifth of 16 windows, and of 8.
    for spacing, count in ((2, 3), (4, 2)):
        near = found(network, places, spacing, clips)
        assert len(near) == count and {place for place, _ in near} == {2}
    # Of clips of noise and boxes, where boxes are known, noise is far; and all where nothing is.
    strange = [noisy_clip(seed) for seed in (5, 6)]
    mixed = [clips[0], strange[0], clips[1], strange[1]]
    boxes = Lookalikes(network, [wedges(2, 8), wedges(3, 8)], 2, 0)
    assert boxes.farthest(mixed, 1) == tuple(mixed)
    boxes.look(9)
    assert boxes.farthest(mixed, 1) == tuple(strange)
    assert boxes.farthest(mixed[:3], 1) in {(clips[0], strange[0]), (strange[0], clips[1])}
    assert len(boxes.farthest(mixed, 3)) == 3 and boxes.farthest(mixed, 9) == tuple(mixed)
    assert boxes.farthest((), 2) == ()
    assert found(network, places, 2, ()) == ()
    assert found(network, (), 2, clips) == ()


@settings(max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    spacing=st.integers(1, 5),
    count=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_distances_are_those_of_plain_arithmetic(
    network: ClipNetwork, lengths: list[int], spacing: int, count: int, seed: int
) -> None:
    """Whatever the places: mean squares to the two nearest clips, in units of their spread."""
    places = [
        (noise if (seed + index) % 3 == 0 else wedges)(seed + index, length)
        for index, length in enumerate(lengths)
    ]
    clips = [wedge_clip(seed + 50 + index, length=3) for index in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookalikes, "NEIGHBOURS", 2)
        near = found(network, places, spacing, clips)
        looked = Lookalikes(network, places, spacing, 0)
        looked.look(1000)
        far = looked.farthest(clips, 1)
    exact = distances(network, places, spacing, clips, 2)
    assert len(near) == len(set(near)) == max(1, round(0.2 * len(exact)))
    farthest = max(exact[spot] for spot in near)
    others = [distance for spot, distance in exact.items() if spot not in near]
    assert all(distance >= farthest * (1 - 1e-3) - 1e-3 for distance in others)
    of_clips = distances_of_clips(network, places, spacing, clips, 2)
    inside = [d for clip, d in zip(clips, of_clips, strict=True) if clip in far]
    outside = [d for clip, d in zip(clips, of_clips, strict=True) if clip not in far]
    assert len(inside) == -(-count // 2)
    assert all(distance <= min(inside) * (1 + 1e-3) + 1e-3 for distance in outside)


def test_a_description_is_mean_and_deviation_of_every_map(network: ClipNetwork) -> None:
    """By hand: of two maps of four pixels."""

    class TwoMaps(ClipNetwork):
        def __init__(self) -> None:
            pass

        def features_of(self, windows: Windows) -> list[torch.Tensor]:
            one = torch.tensor([[1.0, 1.0], [1.0, 5.0]])
            return [torch.stack([one, -one])[None, None], torch.zeros(1, 1, 1, 1, 2)]

    two = TwoMaps()
    expected = [2.0, 3**0.5, -2.0, 3**0.5, 0.0, 0.0]
    assert describe(two, np.zeros((2, 2), np.uint8)) == pytest.approx(expected)
    (own,) = Lookalikes(two, (), 1, 0)._describe(np.zeros((1, 2, 2), np.uint8))
    assert own.tolist() == pytest.approx([2.0, -2.0, 3**0.5, 3**0.5, 0.0, 0.0])


def test_a_map_that_no_place_excites_does_not_decide() -> None:
    """By hand: a number that is the same in all places, and a little off in one of two clips."""

    class Means(ClipNetwork):
        def __init__(self) -> None:
            pass

        def features_of(self, windows: Windows) -> list[torch.Tensor]:
            numbers = torch.from_numpy(windows.astype(np.float32))[:, :, 0, :2, None, None]
            return [numbers * torch.tensor([1.0, 1e-4])[:, None, None]]

    def window(first: int, second: int) -> Windows:
        windows = np.zeros((1, 28, 42), np.uint8)
        windows[0, 0, :2] = first, second
        return windows

    places = [window(0, 5), window(100, 5)]
    looked = Lookalikes(Means(), places, 1, 0)
    looked.look(0)
    near, far = (
        changed(wedge_clip(1, length=1), windows=window(*seen)) for seen in ((50, 9), (200, 5))
    )
    assert looked.farthest([near, far], 1) == (far,)
    # In units of 50: 1 and 1 from the places, 4 and 2; to either clip 1 and 4, 1 and 2.
    exact = distances_of_clips(Means(), places, 1, [near, far], 10)
    assert exact == pytest.approx([1.0, (16 + 4) / 2], rel=1e-4)
    assert distances_of_clips(Means(), places, 1, [far], 1) == pytest.approx([4.0], rel=1e-4)
    of_places = distances(Means(), places, 1, [near, far], 10)
    assert of_places == pytest.approx({(0, 0): (1 + 16) / 2, (1, 0): (1 + 4) / 2}, rel=1e-4)


def test_looking_goes_on_step_by_step(
    network: ClipNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some windows with each step, none twice, never too many; after a break all at once."""
    seen: list[int] = []
    describe_ = Lookalikes._describe

    def counted(self: Lookalikes, windows: Windows) -> torch.Tensor:
        seen.append(len(windows))
        return describe_(self, windows)

    monkeypatch.setattr(Lookalikes, "_describe", counted)
    monkeypatch.setattr(lookalikes, "BATCH", 4)
    places, clips = [noise(1, 9), wedges(3, 9)], [wedge_clip(7)]
    looked, resumed = Lookalikes(network, places, 1, 0), Lookalikes(network, places, 1, 0)

    def interrupt() -> None:
        raise InterruptedError

    looked.look(0)
    with pytest.raises(InterruptedError):
        looked.look(1, interrupt)
    looked.look(1)
    assert seen == [4, 4]
    near = looked.nearest(clips)
    assert seen == [4, 4, 1] and len(near) == 2
    seen.clear()
    # As many are known to one that goes on from disk, of both places, and a break costs nothing.
    with pytest.raises(InterruptedError):
        resumed.look(1, interrupt)
    resumed.look(1)
    assert seen == [4, 4] and resumed.nearest(clips) == near
    assert {place for place, _ in looked._spots[:8]} == {0, 1}
    seen.clear()
    looked.look(99)
    looked.look(100)
    assert seen == [4, 4, 2]
    # A clip that was described is not described again, and one that has gone is forgotten.
    seen.clear()
    near = looked.nearest(clips)
    assert looked.nearest([*clips, wedge_clip(8)]) and seen == [1]
    looked.nearest(())
    assert looked.nearest(clips) == near and seen == [1, 1]
    monkeypatch.setattr(lookalikes, "LARGEST_COUNT", 6)
    seen.clear()
    Lookalikes(network, places, 1, 0).look(99)
    assert sum(seen) == 6  # every third


@settings(max_examples=60)
@given(
    data=st.data(),
    length=st.integers(1, 4),
    seed=st.integers(0, 9),
    streams=st.integers(1, 3),
)
def test_a_pass_that_is_led_has_the_window(
    store: ClipStore, online: Online, data: st.DataObject, length: int, seed: int, streams: int
) -> None:
    """Wherever it lies, in a pass of its own place, of a whole number of visits."""
    settings_ = online(
        anchor_streams=streams, unroll=length, seed=seed, measured_windows=9, labels_per_clip=1
    )
    through = AnchorStreams(store.split("train"), store.digest, settings_)
    places = through.places()
    number = data.draw(st.integers(0, len(places) - 1))
    spot = Spot(number, data.draw(st.integers(0, len(places[number]) - 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchor_streams, "LED_SHARE", 1.0)
        for _ in range(20):
            (excerpt,) = through.visit(1, lambda: (spot,))
            begins = excerpt.states == ()
            excerpt.go_on(((torch.zeros(1),), (torch.zeros(1),)))
            if not begins:
                continue
            index = (through.state()["turn"] - 1) % streams
            _, run_, first, last, _ = through.state()["streams"][index]
            _, offset, _ = through._runs[run_]
            assert run_ == spot.place
            assert first - length <= offset + spot.window < last
            assert first - length - offset >= 0 and last - offset <= len(places[number])
            assert (last - first) % length == 0


def test_half_of_the_passes_are_led(store: ClipStore, online: Online) -> None:
    """It is asked what is near where such a pass begins, and where nothing is all are alike."""
    settings_ = online(anchor_streams=3, unroll=1, measured_windows=9, labels_per_clip=1)
    spot, asked = Spot(3, 0), []

    def near() -> tuple[Spot, ...]:
        asked.append(1)
        return (spot,)

    def places(ask: Callable[[], tuple[Spot, ...]]) -> list[int]:
        through, begun = AnchorStreams(store.split("train"), store.digest, settings_), []
        for _ in range(900):
            (excerpt,) = through.visit(1, ask)
            if excerpt.states == ():
                excerpt.go_on(((torch.zeros(1),), (torch.zeros(1),)))
                index = (through.state()["turn"] - 1) % 3
                begun.append(through.state()["streams"][index][1])
            else:
                excerpt.go_on(excerpt.states)
        return begun

    led = places(near)
    assert 0.4 < len(asked) / len(led) < 0.6
    # A window of one place of four: half, and a quarter of the rest.
    assert 0.5 < led.count(3) / len(led) < 0.75
    alike = places(tuple)
    assert all(0.15 < alike.count(place) / len(alike) < 0.35 for place in range(4))


def test_learning_visits_lookalikes_and_leaves_them_out(
    student: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run every led visit is of the place nearest to its clips, whose far half is learned."""
    train = [WedgeSource(seed, 28, 42, windows=3) for seed in (1, 2, 5, 6)]
    held = [WedgeSource(4, 28, 42, windows=6)]
    store = open_clip_store(wedge_clips(tmp_path / "places", train, held))
    visited: list[tuple[tuple[LabelledClip, ...], int]] = []
    learned: list[LabelledClip] = []
    draw, step_ = AnchorSet.draw, Learner.step

    def taken(
        self: Learner, clips: Sequence[LabelledClip], *others: Any, **named: Any
    ) -> StepReport:
        learned.extend(clips)
        return step_(self, clips, *others, **named)

    monkeypatch.setattr(Learner, "step", taken)

    def noted(
        self: AnchorSet, step: int, count: int, near: Callable[[], Sequence[Spot]]
    ) -> tuple[LabelledClip | Excerpt, ...]:
        (excerpt,) = anchors = draw(self, step, count, near)
        assert isinstance(excerpt, Excerpt)
        (place,) = [
            number
            for number, windows in enumerate(self.places())
            if np.array_equal(windows, excerpt.clip.observation.windows)
        ]
        visited.append((distiller._intake.replay.clips, place))
        return anchors

    monkeypatch.setattr(AnchorSet, "draw", noted)
    monkeypatch.setattr(anchor_streams, "LED_SHARE", 1.0)
    seen = items(1, 1000)
    distiller = deployment(
        student, EchoTeacher(student, seen, 1.2), tmp_path / "folder", store, batch_clips=2,
        anchor_share=0.5, anchor_streams=1, measured_windows=6, learning_rate=1e-9,
    )  # fmt: skip
    list(run(distiller, seen, 80.0))
    distiller.close()
    network = distiller._learner.original
    places = [sequence.windows for sequence in store.split("train")]
    assert len(visited) > 12
    assert len(learned) == len(visited)
    for (clips, place), clip in zip(visited, learned, strict=True):
        exact = distances(network, places, 3, clips, 10)
        assert place == min(exact, key=exact.__getitem__)[0]
        own = distances_of_clips(network, places, 3, clips, 10)
        assert own[clips.index(clip)] >= np.median(own) * (1 - 1e-3)
