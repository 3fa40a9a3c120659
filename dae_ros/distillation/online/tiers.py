"""Which weights may change online, and the moves that reach all of them: take on, pull back.

| tier | learns |
|---|---|
| 1 | recurrent units and output convolutions |
| 2 | the whole head: projections and fusion as well |
| 3 | and low-rank changes (LoRA, arXiv 2106.09685) of the encoder's matrices |

Matrices of the encoder are the linear layers `qkv` and `proj` of a transformer, and the pointwise
convolutions of a convolutional one. Everything else, and all of the network offline, is trained by
`dae-ros distill`. Whatever the tier, weights come out under their plain names, merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dae_ros.errors import ConfigurationError
from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.networks import Network

TIERS = (1, 2, 3)
_HEAD = "depth_head."
_ENCODER = "pretrained."
_FIRST_TIER = (
    "depth_head.gru_layer_",
    "depth_head.scratch.output_conv1.",
    "depth_head.scratch.output_conv2.",
)


class LowRank(nn.Module):
    """W -> W + up down, on a weight seen as a matrix of its rows; `up` begins with zeros.

    Args:
        weight: (rows, ...), the weight that it is added to.
        rank: of the change; below both sides of the matrix.
        generator: draws `down`, whose rows have unit variance over sqrt(columns).
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        down = torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        return weight + (self.up @ self.down).reshape(weight.shape)


def check_adaptable(network: Network) -> DepthAnyEvent | DepthAnyEventR:
    """Return the network if it can learn online.

    Raises:
        ConfigurationError: another family than DepthAnyEvent(-R).
    """
    if not isinstance(network, (DepthAnyEvent, DepthAnyEventR)):
        raise ConfigurationError(
            f"{type(network).__name__} does not learn online; use a network of the DepthAnyEvent "
            "family, `micro` for instance, or train this one offline with dae-ros distill",
            network=type(network).__name__,
        )
    return network


def changing_weights(network: Network, tier: int) -> tuple[str, ...]:
    """Return the plain names of the weights that a tier changes, in the network's order.

    Raises:
        ConfigurationError: an unknown tier, or a network that cannot learn online.
    """
    if tier not in TIERS:
        raise ConfigurationError(
            f"there is no tier {tier} online; use 1, 2 or 3, or dae-ros distill for all weights",
            tier=tier,
        )
    prefixes = _FIRST_TIER if tier == 1 else (_HEAD,)
    names = [name for name, _ in check_adaptable(network).named_parameters()]
    low_rank = [f"{name}.weight" for name, _ in _matrices(network)] if tier == 3 else []
    return tuple(name for name in names if name.startswith(prefixes) or name in low_rank)


class ChangingWeights:
    """The weights of one network that a tier changes; everything else in it is frozen.

    Args:
        network: of the DepthAnyEvent family, with plain weights. It belongs to this object from
            now on: at tier 3 its encoder's matrices become sums.
        original: plain name -> the weight that `pull` leads back to; a network's whole state.
        tier: 1 to 3.
        rank: of the changes of tier 3.
        seed: of what they begin with.

    Attributes:
        names: plain names of what changes.
        network: as given.

    Raises:
        ConfigurationError: as `changing_weights`, or a rank that is no less than a matrix' side.
    """

    def __init__(
        self, network: Network, original: Mapping[str, Tensor], tier: int, rank: int, seed: int
    ) -> None:
        self.names = changing_weights(network, tier)
        self.network = network.requires_grad_(False)
        self._original = {name: original[name].detach() for name in self.names}
        generator = torch.Generator().manual_seed(seed)
        self._low_rank: dict[str, LowRank] = {}
        for name, layer in list(_matrices(network)) if tier == 3 else []:
            weight = layer.weight
            if rank >= min(weight.shape[0], weight[0].numel()):
                raise ConfigurationError(
                    f"a change of rank {rank} is no smaller than {name}, {tuple(weight.shape)}; "
                    "lower 'lora_rank'",
                    rank=rank,
                    layer=name,
                )
            change = LowRank(weight, rank, generator)
            parametrize.register_parametrization(layer, "weight", change)
            self._low_rank[f"{name}.weight"] = change
        own = dict(network.named_parameters())
        # What `pull` and `take_on` write to: under low rank, the weight beneath the change.
        self._held = {
            name: own[
                f"{name.removesuffix('weight')}parametrizations.weight.original"
                if name in self._low_rank
                else name
            ]
            for name in self.names
        }
        for name in self.names:
            if name not in self._low_rank:
                self._held[name].requires_grad_(True)

    @property
    def head(self) -> list[nn.Parameter]:
        """What an optimizer moves in the head."""
        return [self._held[name] for name in self.names if name not in self._low_rank]

    @property
    def encoder(self) -> list[nn.Parameter]:
        """What an optimizer moves in the encoder: low-rank factors; nothing below tier 3."""
        return [factor for change in self._low_rank.values() for factor in (change.down, change.up)]

    @torch.no_grad()
    def values(self) -> dict[str, Tensor]:
        """Return plain name -> present weight, merged; views of the network where not low rank."""
        return {
            name: self._low_rank[name](held) if name in self._low_rank else held.detach()
            for name, held in self._held.items()
        }

    @torch.no_grad()
    def take_on(self, values: Mapping[str, Tensor]) -> None:
        """Become other weights exactly; a low-rank change begins anew on top of them."""
        for name, held in self._held.items():
            held.copy_(values[name])
        for change in self._low_rank.values():
            change.up.zero_()

    @torch.no_grad()
    def pull(self, fraction: float) -> None:
        """Move every weight by a fraction of its way back to the original."""
        for name, held in self._held.items():
            held.lerp_(self._original[name], fraction)
        for change in self._low_rank.values():
            change.up.mul_(1.0 - fraction)

    def state(self) -> dict[str, Tensor]:
        """Return everything that `restore` needs for the same bits, low-rank factors apart."""
        factors = {
            f"{name}.{part}": getattr(change, part).detach()
            for name, change in self._low_rank.items()
            for part in ("down", "up")
        }
        return {**{name: held.detach() for name, held in self._held.items()}, **factors}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def merged(self) -> dict[str, Tensor]:
        """Return the whole network's state under plain names, as a plain checkpoint has it."""
        plain: dict[str, Tensor] = {}
        for name, tensor in self.network.state_dict().items():
            layer, _, part = name.partition(".parametrizations.weight.")
            if part in ("", "original"):
                plain[f"{layer}.weight" if part else name] = tensor
        return {**plain, **self.values()}


def _matrices(network: Network) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Yield name and layer of the encoder's matrices that a low-rank change may go to."""
    for name, layer in network.named_modules():
        if not name.startswith(_ENCODER):
            continue
        attention = isinstance(layer, nn.Linear) and name.endswith((".qkv", ".proj"))
        pointwise = (
            isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
        )
        if attention or pointwise:
            yield name, layer  # type: ignore[misc]  # narrowed above
