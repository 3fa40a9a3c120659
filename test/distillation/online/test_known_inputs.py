"""Steps are limited where the inputs of layers from before adaptation would notice."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dae_ros.distillation.online import known_inputs
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.known_inputs import Protection, input_moments
from dae_ros.distillation.online.learner import PROTECTED_RATE, Learner
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.tiers import changing_weights
from dae_ros.errors import ConfigurationError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import variant
from dae_ros.model.networks import build_network
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import wedge_clip

Online = Callable[..., OnlineParameters]
CPU = torch.device("cpu")
CLIPS = [wedge_clip(seed, length=5) for seed in range(3)]
HEAD = "depth_head"


def headed(**layers: nn.Module) -> nn.Module:
    """A network whose head has some layers."""
    network = nn.Module()
    network.add_module(HEAD, nn.ModuleDict(layers))
    return network


def move(network: nn.Module, moments: dict[str, Tensor], strength: float) -> None:
    """Add 1 to every weight as far as known inputs allow."""
    with Protection(moments, strength, CPU).around(network), torch.no_grad():
        for parameter in network.parameters():
            parameter += 1.0


def test_strong_directions_hardly_move() -> None:
    """By hand: a mean of 3 and a strength of 3 leave 1/9 at 8, all at 0 and half at 1."""
    layer = nn.Conv2d(2, 3, 1)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    network = headed(a=layer, b=nn.Conv2d(1, 1, 1))
    other = network.depth_head.b.weight.detach().clone()
    moments = {f"{HEAD}.a": torch.diag(torch.tensor([8.0, 0.0, 1.0], dtype=torch.float64))}
    move(network, moments, 3.0)
    expected = torch.tensor([1 / 9, 1.0])[:, None, None].expand(3, 2, 1, 1)
    torch.testing.assert_close(layer.weight.detach() - before[0], expected)
    torch.testing.assert_close(layer.bias.detach() - before[1], torch.full((3,), 0.5))
    # Of a layer that nothing is known of all of the step is left.
    torch.testing.assert_close(network.depth_head.b.weight.detach() - other, torch.ones(1, 1, 1, 1))
    assert Protection(moments, 3.0, CPU) and not Protection({}, 3.0, CPU)


def test_a_transposed_layer_is_as_many_small_ones() -> None:
    """Its weights for one output pixel are a layer of one pixel; the bias is shared."""
    random = np.random.default_rng(1)
    given = torch.from_numpy(random.normal(size=(50, 4)))
    given[:, 3] = 1.0
    moment = given.T @ given / 50
    upward, pixel = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(3, 2, 1)
    before = [
        parameter.detach().clone() for parameter in (*upward.parameters(), *pixel.parameters())
    ]
    move(headed(a=upward, b=pixel), {f"{HEAD}.a": moment, f"{HEAD}.b": moment}, 10.0)
    after = [*upward.parameters(), *pixel.parameters()]
    moved = [new.detach() - old for new, old in zip(after, before, strict=True)]
    for row, column in itertools.product(range(2), repeat=2):
        torch.testing.assert_close(moved[0][:, :, row, column].T, moved[2][:, :, 0, 0])
    torch.testing.assert_close(moved[1], moved[3])


@pytest.fixture(params=["four sizes", "one size"])
def network(request: pytest.FixtureRequest, student: LoadedModel) -> ClipNetwork:
    """A network whose encoder gives maps of four sizes, and one whose head makes four of one."""
    if request.param == "four sizes":
        chosen = copy.deepcopy(student.network)
    else:
        torch.manual_seed(3)
        chosen = build_network(variant("vits", input_height=70, input_width=84))
    return ClipNetwork(chosen.eval().requires_grad_(False), student.meaning)


def test_moments_say_what_a_change_of_weights_does(
    network: ClipNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """trace(D C D^T) is the mean square change of a layer's output, for any D: run, not derived."""
    monkeypatch.setattr(known_inputs, "PATCHES", 100_000)
    names = changing_weights(network.network, 2)
    moments = input_moments(network, CLIPS[:1], names, seed=0)
    layers = dict(network.network.named_modules())
    seen: dict[str, list[Tensor]] = {name: [] for name in moments}
    handles = [
        layers[name].register_forward_pre_hook(
            lambda _, given, name=name: seen[name].append(given[0].clone())
        )
        for name in moments
    ]
    observation = CLIPS[0].observation
    network.predict(observation, 0, len(observation))
    for handle in handles:
        handle.remove()
    assert len(moments) >= 20 and all(seen.values())
    for name, moment in moments.items():
        layer = layers[name]
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        before = [layer(maps) for maps in seen[name]]
        change = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            layer.weight += change
            if layer.bias is not None:
                layer.bias += 0.5
        changes = [
            (layer(maps) - old).square().sum(dim=1)
            for maps, old in zip(seen[name], before, strict=True)
        ]
        found = float(torch.cat(changes).mean())
        if isinstance(layer, nn.ConvTranspose2d):
            rows = change.permute(1, 2, 3, 0).flatten(0, 2)
            each = change[0, 0].numel()
        else:
            rows, each = change.flatten(1), 1
        bias = torch.full((len(rows), 1), 0.0 if layer.bias is None else 0.5)
        rows = torch.cat([rows, bias], dim=1).double()
        expected = float((rows @ moment @ rows.T).trace()) / each
        assert found == pytest.approx(expected, rel=1e-3), name
        with torch.no_grad():
            layer.weight -= change


def test_some_patches_stand_for_all(student: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal seeds take equal patches; the moment of some is near that of all of them."""
    network = ClipNetwork(student.network, student.meaning)
    name = f"{HEAD}.scratch.layer1_rn"
    some, again, other = (
        input_moments(network, CLIPS, [f"{name}.weight"], seed)[name] for seed in (1, 1, 2)
    )
    assert torch.equal(some, again) and not torch.equal(some, other)
    monkeypatch.setattr(known_inputs, "PATCHES", 100_000)
    every = input_moments(network, CLIPS, [f"{name}.weight"], seed=1)[name]
    assert float((some - every).norm() / every.norm()) < 0.2
    assert list(input_moments(network, CLIPS, ["pretrained.norm.weight"], seed=1)) == []


def test_half_precision_gives_moments_of_full_precision(student: LoadedModel) -> None:
    """Of inputs that are rounded: no direction has less than no strength, whatever is asked for."""
    network = ClipNetwork(student.network, student.meaning, "bfloat16")
    moments = input_moments(network, CLIPS, changing_weights(network.network, 2), seed=0)
    for name, moment in moments.items():
        least = float(torch.linalg.eigvalsh(moment)[0])
        assert least > -1e-6 * float(moment.trace()), name
    Protection(moments, 10_000.0, CPU)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 2, 3, dilation=2), nn.Conv2d(2, 2, 3, groups=2),
        nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(2, 2, 3, stride=2),
    ],
)  # fmt: skip
def test_other_layers_are_refused(student: LoadedModel, layer: nn.Module) -> None:
    """Where an output depends on other inputs than those that are looked at, none is guessed."""
    network = copy.deepcopy(student.network)
    network.depth_head.scratch.layer1_rn = nn.Sequential(
        nn.Conv2d(network.config.reassemble[0], 2, 1),
        layer,
        nn.Conv2d(2, network.config.features, 1),
    )
    name = f"{HEAD}.scratch.layer1_rn.1.weight"
    with pytest.raises(ConfigurationError, match="set 'protection' to 0"):
        input_moments(ClipNetwork(network, student.meaning), CLIPS, [name], seed=0)


def depth(network: ClipNetwork, clip: LabelledClip) -> Tensor:
    return network.predict(clip.observation, 0, 5).maps.log()


def test_what_is_known_is_protected(student: LoadedModel, online: Online) -> None:
    """Steps that say nothing of known clips change their depth less than without protection."""
    changes = []
    for known in ((), CLIPS):
        learner = Learner(
            student, online(learning_rate=1e-3, average_decay=0.0, warm_up=0, protection=1000.0),
            CPU, lambda known=known: known,
        )  # fmt: skip
        for step in range(5):
            learner.step([wedge_clip(9, length=5, scale=1.5)], [], step)
        candidate, original = learner.candidate(), learner.original
        changes.append(
            [float((depth(candidate, c) - depth(original, c)).abs().mean()) for c in CLIPS]
        )
    assert max(changes[1]) < 0.2 * min(changes[0])


def test_known_clips_are_looked_at_by_the_first_step(student: LoadedModel, online: Online) -> None:
    """Once, with pauses; one that was given up looks again. Protected steps are longer."""
    asked = []

    def known() -> Iterator[LabelledClip]:
        asked.append(len(asked))
        yield from CLIPS

    pauses = []

    def pause() -> None:
        pauses.append(len(pauses))
        if len(pauses) == 2:
            raise InterruptedError

    learner = Learner(student, online(), CPU, known)
    assert not asked
    rate = learner.learning_rate
    with pytest.raises(InterruptedError):
        learner.step([CLIPS[0]], [], 0, pause)
    for step in range(2):
        assert learner.step([CLIPS[0]], [], step, pause).accepted
    assert asked == [0, 1] and len(pauses) == 2 + len(CLIPS) + 2
    assert learner.learning_rate == rate * PROTECTED_RATE
    unprotected = Learner(student, online(protection=0.0), CPU, known)
    assert unprotected.step([CLIPS[0]], [], 0).accepted
    assert unprotected.learning_rate == rate and asked == [0, 1]
