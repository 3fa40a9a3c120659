"""Runs a network over the windows of clips, with its state carried from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

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
    if isinstance(network, (DepthAnyEvent, DepthAnyEventR)):
        size = (images.shape[3], images.shape[4])
        return roll_features(network, encode(network, images), size, state)
    predictions: list[Tensor] = []
    for step in range(images.shape[1]):
        prediction, state = network(images[:, step], state)
        predictions.append(prediction)
    return torch.cat(predictions, dim=1), state


def encode(network: DepthAnyEvent | DepthAnyEventR, images: Tensor) -> list[Tensor]:
    """Return the encoder's four maps of every window, (B, T, channels, rows, columns) each."""
    batch, length = images.shape[:2]
    # Channels last is a fifth faster in the convolutions of `micro` on a CPU.
    every = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return [level.reshape(batch, length, *level.shape[1:]) for level in network.pretrained(every)]


def roll_features(
    network: DepthAnyEvent | DepthAnyEventR,
    features: Sequence[Tensor],
    size: tuple[int, int],
    state: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Step the head alone, from what `encode` gave.

    Args:
        network: whose encoder made the features.
        features: of all windows to predict.
        size: height and width of the network's input, px.
        state: before the first window.

    Returns:
        As `roll`.
    """
    predictions: list[Tensor] = []
    for step in range(features[0].shape[1]):
        prediction, state = network.depth_head([level[:, step] for level in features], size, state)
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
