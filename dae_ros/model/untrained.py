"""Networks with random weights, the same on every machine, to run the plumbing without files."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import PUBLISHED, Meaning, variant
from dae_ros.model.dav2 import build_network

PREFIX = "untrained:"


def untrained(name: str, seed: int = 0) -> LoadedModel:
    """Return DepthAnyEvent-R with random weights.

    The same name and seed give the same weights everywhere. Activations keep their variance
    from layer to layer, so that the output varies over the image and with the events; it is no
    depth.

    Args:
        name: vits, vitb or vitl (or tiny, for tests).
        seed: of the generator.

    Raises:
        WeightsError: for another name.
    """
    if name not in (*PUBLISHED, "tiny"):
        raise WeightsError(
            f"there is no network '{name}' to leave untrained; use "
            f"{', '.join(PREFIX + known for known in PUBLISHED)}",
            name=name,
        )
    config = variant(name)
    network = build_network(config)
    # numpy, because its stream is the same on every processor; torch.randn is not.
    generator = np.random.default_rng(seed)
    digest = hashlib.sha256()
    with torch.no_grad():
        for key, weight in network.state_dict().items():
            weight.copy_(_draw(key, weight, generator))
            digest.update(weight.numpy().tobytes())
    return LoadedModel(
        name=PREFIX + name,
        network=network.eval(),
        config=config,
        meaning=Meaning(),
        digest=digest.hexdigest(),
        notes=("the network is untrained: its output has the form of depth and no meaning",),
    )


def _draw(key: str, weight: Tensor, generator: np.random.Generator) -> Tensor:
    kind = key.rsplit(".", 1)[-1]
    if kind == "gamma" or (kind == "weight" and weight.dim() == 1):
        return torch.ones_like(weight)
    if kind == "bias":
        return torch.zeros_like(weight)
    noise = torch.from_numpy(generator.standard_normal(tuple(weight.shape), dtype=np.float32))
    if kind in ("pos_embed", "cls_token", "mask_token"):
        return 0.1 * noise
    # Transposed convolutions with stride = kernel sum over their input channels alone.
    fan_in = (
        weight.shape[0]
        if "resize_layers.0" in key or "resize_layers.1" in key
        else (math.prod(weight.shape[1:]))
    )
    # 3 lifts the gates out of the flat part of the sigmoid, 2 the last layer's contrast.
    gain = 3.0 if ".Gates." in key else 2.0 if key.endswith("output_conv2.2.weight") else 1.0
    return noise * (gain / math.sqrt(fan_in))
