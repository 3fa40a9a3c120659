"""Runs a network over the windows of clips, with its state carried from one to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.networks import Network


def roll(
    network: Network, images: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Predict depth for every window.

    The encoder of this family has no memory, so it sees all windows at once; the head steps.

    Args:
        network: any of this package.
        images: (B, T, C, h, w), normalised.
        state: before the first window.

    Returns:
        float (B, T, h, w), and the state after the last window.
    """
    batch, length = images.shape[:2]
    size = (images.shape[3], images.shape[4])
    predictions: list[Tensor] = []
    if isinstance(network, (DepthAnyEvent, DepthAnyEventR)):
        # Channels last is a fifth faster in the convolutions of `micro` on a CPU.
        every = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        levels = [
            level.reshape(batch, length, *level.shape[1:]) for level in network.pretrained(every)
        ]
        for step in range(length):
            prediction, state = network.depth_head(
                [level[:, step] for level in levels], size, state
            )
            predictions.append(prediction)
    else:
        for step in range(length):
            prediction, state = network(images[:, step], state)
            predictions.append(prediction)
    return torch.cat(predictions, dim=1), state


def roll_clips(network: Network, images: Tensor, unroll: int) -> Tensor:
    """Bring the state up over the first windows without gradient, and learn from the last.

    Args:
        network: any of this package.
        images: (B, T, C, h, w), normalised; every clip begins with a zero state.
        unroll: how many of the last windows to return predictions of.

    Returns:
        (B, unroll, h, w), with gradient through these windows alone.
    """
    batch, length = images.shape[:2]
    state = network.initial_state(batch, images.shape[3], images.shape[4])
    burn_in = length - unroll
    if burn_in and state:
        with torch.no_grad():
            _, state = roll(network, images[:, :burn_in], state)
    predictions, _ = roll(network, images[:, burn_in:], state)
    return predictions
