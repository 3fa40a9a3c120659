"""Excerpts of streams: learned from with the state that the visit before ended with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.anchor_streams import AnchorStreams, Excerpt
from dae_ros.distillation.online.learner import Learner
from dae_ros.distillation.online.stored_clips import stored_clip
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import variant
from dae_ros.model.networks import build_network
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.moving_wedge import WedgeSource, wedge_clips

Online = Callable[..., OnlineParameters]
CPU = torch.device("cpu")


def test_an_excerpt_goes_on_with_the_state_of_the_one_before(
    student: LoadedModel, online: Online, tmp_path: Path
) -> None:
    """A second visit costs what the end of a roll over both does; what broke is not carried."""
    sources = [WedgeSource(seed, 28, 42, windows=16) for seed in (4, 5)]
    store = open_clip_store(wedge_clips(tmp_path / "s", sources[:1], sources[1:]))
    # So small that weights stay what they are.
    parameters = online(anchor_streams=1, learning_rate=1e-9, lead=0)
    sequence = store.split("train")[0]
    for seed in range(20):
        seeded = dataclasses.replace(parameters, seed=seed)
        streams = AnchorStreams([sequence], store.digest, seeded)
        ends = []
        for _ in range(2):
            (excerpt,) = streams.visit(1)
            ends.append(excerpt.clip.observation.end_ns)
            excerpt.go_on(())
        if ends[1] == ends[0] + 100_000_000:
            break
    streams = AnchorStreams([sequence], store.digest, seeded)
    learner = Learner(student, parameters, CPU)

    def learn(step: int, pause: Callable[[], None] = lambda: None) -> Excerpt:
        (excerpt,) = streams.visit(1)
        assert learner.step([], [excerpt], step, pause).accepted
        return excerpt

    def give_up() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        learn(0, give_up)
    assert learn(0).states == ()
    second = learn(1)
    begin = second.clip.observation.end_ns // 50_000_000 - 4
    both = stored_clip(sequence, begin, 4, store.digest)
    network = learner.original
    features = network.features(both.observation, 0, 2)
    size = network.size(both.observation)
    with torch.no_grad():
        _, state = network.roll(features, size, network.zero_state(both.observation))
    for carried in second.states:
        for tensor, expected in zip(carried, state, strict=True):
            torch.testing.assert_close(tensor.float(), expected, rtol=1e-2, atol=1e-2)
    loss = learner.step([], [second], 1).loss
    assert loss == pytest.approx(learner.step([], [both], 2).loss, rel=1e-2)
    alone = dataclasses.replace(second, states=())
    assert loss != pytest.approx(learner.step([], [alone], 3).loss, rel=1e-3)


def test_a_batch_of_excerpts_is_as_many_alone(
    student: LoadedModel, online: Online, tmp_path: Path
) -> None:
    """Losses and states of two places in one batch are those of each; without memory as well."""
    train = [WedgeSource(seed, 28, 42, windows=16) for seed in (1, 2)]
    held = [WedgeSource(5, 28, 42, windows=16)]
    store = open_clip_store(wedge_clips(tmp_path / "s", train, held))
    config = variant("micro_memoryless", input_height=28, input_width=42)
    torch.manual_seed(0)
    memoryless = dataclasses.replace(student, network=build_network(config), config=config)
    for loaded in (student, memoryless):
        lessons = Learner(loaded, online(), CPU)._lessons
        streams = AnchorStreams(store.split("train"), store.digest, online(anchor_streams=2))
        for _ in range(3):
            excerpts = streams.visit(2)
            together = lessons.along(excerpts)
            assert together is not None
            for index, excerpt in enumerate(excerpts):
                alone = lessons.along([excerpt])
                assert alone is not None
                torch.testing.assert_close(together[0][index].total, alone[0][0].total)
                for one, other in zip(together[1][index], alone[1][0], strict=True):
                    for tensor, expected in zip(one, other, strict=True):
                        torch.testing.assert_close(tensor, expected)
                excerpt.go_on(together[1][index])
