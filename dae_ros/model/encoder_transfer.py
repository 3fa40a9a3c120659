"""Begin a network with the image encoder of another, as DepthAnyEvent begins with that of DAv2."""

from __future__ import annotations

import torch

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel

PREFIX = "pretrained."


def take_encoder(target: LoadedModel, source: LoadedModel) -> list[str]:
    """Overwrite the encoder's weights of one network by those of another, in place.

    A first layer of another number of channels (grey frames there, Tencode here) stays as it was.

    Args:
        target: whose `pretrained.*` is overwritten.
        source: where they come from.

    Returns:
        Names that stayed.

    Raises:
        WeightsError: less than nine tenths of the encoder's weights have a twin of the same shape.
    """
    theirs = source.network.state_dict()
    fits: list[str] = []
    stays: list[str] = []
    own = {
        name: value
        for name, value in target.network.state_dict().items()
        if name.startswith(PREFIX)
    }
    for name, value in own.items():
        (fits if name in theirs and theirs[name].shape == value.shape else stays).append(name)
    count = sum(own[name].numel() for name in fits)
    total = sum(value.numel() for value in own.values())
    if not own or count < 0.9 * total:
        raise WeightsError(
            f"the encoder of {source.name} is another one than that of {target.name}: "
            f"{count} of {total} weights fit, and '{stays[0] if stays else PREFIX}' does not; "
            "take weights with the same encoder",
            fitting=count,
            total=total,
        )
    with torch.no_grad():
        for name in fits:
            own[name].copy_(theirs[name])
    return stays
