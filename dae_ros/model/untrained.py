"""Networks with random weights, the same on every machine.

To run the plumbing without files, and where training from nothing begins.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import (
    COMPACT,
    PUBLISHED,
    EventEncoder,
    Meaning,
    ModelConfig,
    variant,
)
from dae_ros.model.e2depth import E2DepthConfig
from dae_ros.model.ereformer import EReFormerConfig
from dae_ros.model.networks import NetworkConfig, build_network

PREFIX = "untrained:"
NAMES = (*PUBLISHED, *COMPACT, "e2depth", "ereformer")
# Of a size for tests.
TINY_NAMES = ("tiny", "tiny_e2depth", "tiny_ereformer")
_BASELINES: Mapping[str, NetworkConfig] = {
    "e2depth": E2DepthConfig(),
    "ereformer": EReFormerConfig(),
    "tiny_e2depth": E2DepthConfig(channels=4),
    "tiny_ereformer": EReFormerConfig(
        width=8, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4), input_height=64, input_width=96
    ),
}
_ENCODER_OF_CHANNELS: Mapping[int, EventEncoder] = {1: "grey", 3: "tencode", 5: "voxel_grid"}


def untrained(name: str, seed: int = 0) -> LoadedModel:
    """Return a network with random weights.

    The same name and seed give the same weights everywhere. Activations keep their variance
    from layer to layer, so that the output varies over the image and with the events; it is no
    depth.

    Args:
        name: one of `NAMES` or `TINY_NAMES`.
        seed: of the generator.

    Raises:
        WeightsError: for another name.
    """
    config = _configuration(name)
    network = build_network(config)
    # The published sizes start loud, so that memory and contrast show without training; the
    # others start as training likes it.
    loud = isinstance(config, ModelConfig) and config.activation != "exp"
    # numpy, because its stream is the same on every processor; torch.randn is not.
    generator = np.random.default_rng(seed)
    digest = hashlib.sha256()
    with torch.no_grad():
        for key, weight in network.state_dict().items():
            weight.copy_(_draw(key, weight, generator, loud))
            digest.update(weight.numpy().tobytes())
    return LoadedModel(
        name=PREFIX + name,
        network=network.eval(),
        config=config,
        meaning=Meaning(event_encoder=_ENCODER_OF_CHANNELS[config.input_format.channels]),
        digest=digest.hexdigest(),
        notes=("the network is untrained: its output has the form of depth and no meaning",),
    )


def offered() -> str:
    """Return every name with its prefix, for a sentence that ends with them."""
    names, tiny = (", ".join(PREFIX + name for name in group) for group in (NAMES, TINY_NAMES))
    return f"{names}, or of a size for tests {tiny}"


def _configuration(name: str) -> NetworkConfig:
    if name in _BASELINES:
        return _BASELINES[name]
    if name in (*PUBLISHED, *COMPACT, "tiny"):
        return variant(name)
    raise WeightsError(
        f"there is no network '{name}' to leave untrained; use {offered()}", name=name
    )


def _draw(key: str, weight: Tensor, generator: np.random.Generator, loud: bool) -> Tensor:
    kind = key.rsplit(".", 1)[-1]
    if kind == "scale":
        return torch.full_like(weight, 0.2)
    if kind == "gamma" or (kind == "weight" and weight.dim() == 1):
        return torch.ones_like(weight)
    if kind == "bias":
        zeros = torch.zeros_like(weight)
        if key.endswith(".Gates.bias") and not loud:
            # A forget gate at 0.73 (Jozefowicz et al. 2015): gradients reach further back.
            zeros.chunk(4)[1].fill_(1.0)
        return zeros
    noise = torch.from_numpy(generator.standard_normal(tuple(weight.shape), dtype=np.float32))
    if kind in ("pos_embed", "cls_token", "mask_token") or ".positions." in f".{key}":
        return 0.1 * noise
    # Transposed convolutions with stride = kernel sum over their input channels alone.
    fan_in = (
        weight.shape[0]
        if "resize_layers.0" in key or "resize_layers.1" in key
        else (math.prod(weight.shape[1:]))
    )
    gain = 1.0
    if loud:
        # 3 lifts the gates out of the flat part of the sigmoid, 2 the last layer's contrast.
        gain = 3.0 if ".Gates." in key else 2.0 if key.endswith("output_conv2.2.weight") else 1.0
    return noise * (gain / math.sqrt(fan_in))
