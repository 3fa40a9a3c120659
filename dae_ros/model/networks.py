"""All networks behind one interface, and which configuration builds which.

Every network has `config`, `multiple` (what both sides of its input must be multiples of, in
px), `initial_state(batch, height, width) -> state` and `forward(input, state) -> (prediction,
state)`; a state is a flat tuple of tensors, () where there is no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dae_ros.errors import ConfigurationError
from dae_ros.model.configuration import ModelConfig
from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.dav2 import DepthAnythingV2
from dae_ros.model.e2depth import E2Depth, E2DepthConfig
from dae_ros.model.ereformer import EReFormer, EReFormerConfig

NetworkConfig = ModelConfig | E2DepthConfig | EReFormerConfig
Network = DepthAnyEventR | DepthAnyEvent | E2Depth | EReFormer

_CONFIGURATIONS: tuple[type[ModelConfig] | type[E2DepthConfig] | type[EReFormerConfig], ...] = (
    ModelConfig,
    E2DepthConfig,
    EReFormerConfig,
)


def build_network(config: NetworkConfig) -> Network:
    """Return the network that a configuration describes, with PyTorch's default weights.

    Raises:
        ConfigurationError: if the encoder cannot be built.
    """
    if isinstance(config, E2DepthConfig):
        return E2Depth(config)
    if isinstance(config, EReFormerConfig):
        return EReFormer(config)
    if config.recurrence is not None:
        return DepthAnyEventR(config)
    if config.head_align_corners:
        return DepthAnythingV2(config)
    return DepthAnyEvent(config)


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Return a configuration as JSON types, with `network` saying of which kind."""
    return {"network": config.network, **config.to_dict()}


def config_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Build from what `config_to_dict` gave.

    Raises:
        ConfigurationError: for an unknown kind, or a field that is unknown or out of range.
    """
    fields = dict(values)
    network = fields.pop("network", None)
    for kind in _CONFIGURATIONS:
        if kind.network == network:
            return kind.from_dict(fields)
    raise ConfigurationError(
        f"there is no network '{network}'; known are "
        f"{', '.join(kind.network for kind in _CONFIGURATIONS)}",
        network=network,
    )
