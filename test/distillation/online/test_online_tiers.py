"""What learns online: the right layers, and weights that come out plain."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from dae_ros.distillation.online.tiers import ChangingWeights, changing_weights
from dae_ros.errors import ConfigurationError
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.networks import Network, build_network
from dae_ros.model.untrained import untrained

SIZES = {"micro": (28, 42), "tiny": (70, 70)}


def copied(name: str) -> Network:
    return copy.deepcopy(untrained(name).network)


def output(network: Network, name: str) -> torch.Tensor:
    height, width = SIZES[name]
    image = torch.linspace(-1, 1, 3 * height * width).reshape(1, 3, height, width)
    state = network.initial_state(1, height, width)
    for _ in range(2):
        prediction, state = network(image, state)
    return prediction


def learned(weights: ChangingWeights) -> None:
    """Move everything that an optimizer would, as if something had been learned."""
    with torch.no_grad():
        for index, parameter in enumerate([*weights.head, *weights.encoder]):
            generator = torch.Generator().manual_seed(index)
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_tiers_of_micro() -> None:
    """Each tier adds its layers to those of the one before."""
    first, second, third = (set(changing_weights(copied("micro"), tier)) for tier in (1, 2, 3))
    assert first < second < third
    parts = {name.split(".")[1] for name in first}
    assert parts == {"scratch", *(f"gru_layer_{level}" for level in (1, 2, 3, 4))}
    outputs = {name.split(".")[2] for name in first if ".scratch." in name}
    assert outputs == {"output_conv1", "output_conv2"}
    assert all(name.startswith("depth_head.") for name in second)
    assert second == {n for n, _ in copied("micro").named_parameters() if n.startswith("depth_")}
    encoder = third - second
    # Two pointwise convolutions per block, one per halving.
    assert len(encoder) == 2 * (2 + 3 + 4 + 2) + 4
    assert not any("depthwise" in name or "norm" in name for name in encoder)


def test_tier_3_of_a_transformer_is_its_attention() -> None:
    """Of a ViT, query, key, value and projection of every block get low-rank changes."""
    network = copied("tiny")
    encoder = set(changing_weights(network, 3)) - set(changing_weights(network, 2))
    assert encoder == {
        f"pretrained.blocks.{block}.attn.{layer}.weight"
        for block in (0, 1)
        for layer in ("qkv", "proj")
    }


@pytest.mark.parametrize("name", ["micro", "tiny"])
@pytest.mark.parametrize("tier", [1, 3])
def test_merged_weights_are_the_same_network(name: str, tier: int, tmp_path: Path) -> None:
    """A plain checkpoint of what was learned gives the very same depth."""
    loaded = untrained(name)
    network = copied(name)
    before = output(network, name)
    weights = ChangingWeights(network, loaded.network.state_dict(), tier, rank=4, seed=0)
    assert torch.equal(output(network, name), before)  # nothing learned, nothing changed
    learned(weights)
    after = output(network, name)
    assert not torch.equal(after, before)
    plain = build_network(network.config)
    plain.load_state_dict(weights.merged())
    save_checkpoint(tmp_path / "w.safetensors", plain, Meaning(event_encoder="tencode"))
    read = load_checkpoint(tmp_path / "w.safetensors").network
    assert torch.equal(output(read, name), after)
    same = {
        key: torch.equal(v, loaded.network.state_dict()[key])
        for key, v in plain.state_dict().items()
    }
    moved = {key for key, equal in same.items() if not equal}
    assert moved == set(weights.names)


@pytest.mark.parametrize("tier", [1, 2, 3])
def test_only_the_tier_gets_gradients(tier: int) -> None:
    """The optimizer sees the tier's tensors and no others have a gradient."""
    network = copied("micro")
    weights = ChangingWeights(network, untrained("micro").network.state_dict(), tier, 4, 0)
    output(network, "micro").mean().backward()
    moving = {id(parameter) for parameter in [*weights.head, *weights.encoder]}
    assert all(id(p) in moving for p in network.parameters() if p.requires_grad)
    assert all(p.grad is None for p in network.parameters() if id(p) not in moving)
    # The coarsest fusion has a unit that nothing uses.
    unused = {n for n, p in network.named_parameters() if id(p) in moving and p.grad is None}
    assert all("refinenet4.resConfUnit1" in name for name in unused)
    assert bool(weights.encoder) == (tier == 3)


@pytest.mark.parametrize("tier", [2, 3])
def test_pull_leads_back_by_a_fraction(tier: int) -> None:
    """Half a pull is half way to the original in every weight, a whole one is the original."""
    original = untrained("micro").network.state_dict()
    network = copied("micro")
    weights = ChangingWeights(network, original, tier, rank=4, seed=0)
    # A version in the middle of nowhere, with something learned on top.
    weights.take_on({name: original[name] + 0.1 for name in weights.names})
    learned(weights)
    before = {name: value.clone() for name, value in weights.values().items()}
    weights.pull(0.5)
    for name, value in weights.values().items():
        torch.testing.assert_close(value, (before[name] + original[name]) / 2)
    weights.pull(1.0)
    for name, value in weights.values().items():
        assert torch.equal(value, original[name])


def test_taking_on_and_restoring_are_exact() -> None:
    """`take_on` gives the values, `restore` the very tensors with their low-rank parts."""
    original = untrained("micro").network.state_dict()
    first, second = (ChangingWeights(copied("micro"), original, 3, 4, seed) for seed in (0, 1))
    learned(first)
    values = {name: value.clone() for name, value in first.values().items()}
    second.take_on(values)
    assert all(torch.equal(second.values()[name], value) for name, value in values.items())
    assert not torch.equal(second.encoder[0], first.encoder[0])
    second.restore(first.state())
    assert all(
        torch.equal(a, b)
        for a, b in zip([*first.head, *first.encoder], [*second.head, *second.encoder], strict=True)
    )
    assert all(torch.equal(second.values()[name], value) for name, value in values.items())


@pytest.mark.parametrize("name", ["tiny_e2depth", "tiny_ereformer"])
def test_other_families_are_refused(name: str) -> None:
    """A baseline network does not learn online, and the sentence says what does."""
    with pytest.raises(ConfigurationError, match="micro"):
        changing_weights(untrained(name).network, 1)


def test_impossible_tiers_and_ranks_are_refused() -> None:
    """There is no tier 4 online, and a rank must be below both sides of a matrix."""
    with pytest.raises(ConfigurationError, match="dae-ros distill"):
        changing_weights(copied("micro"), 4)
    with pytest.raises(ConfigurationError, match="lora_rank"):
        ChangingWeights(copied("tiny"), untrained("tiny").network.state_dict(), 3, 16, 0)
