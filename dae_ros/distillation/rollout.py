"""Runs a network over the windows of clips, with its state carried from one to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.networks import Network
from dae_ros.runtime.torch_step import HALF

# What the names of an encoder's weights begin with.
ENCODER = "pretrained."
State: TypeAlias = tuple[Tensor, ...]
Rolls: TypeAlias = Callable[[Tensor, Sequence[State], int], list[tuple[Tensor, State]]]


def in_precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Let networks compute in `float32`, `bfloat16` or `float16` while it is entered."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=HALF[precision])


def roll(
    network: Network, images: Tensor, state: State, wanted: int | None = None
) -> tuple[Tensor, State]:
    """Predict depth for every window.

    Encoder and decoder of this family have no memory, so they see all windows at once.

    Args:
        network: any of this package.
        images: (B, T, C, h, w), normalised.
        state: before the first window.
        wanted: of how many of the last windows a prediction is needed; None for all.

    Returns:
        float (B, wanted, h, w), and the state after the last window.
    """
    length = images.shape[1]
    wanted = length if wanted is None else wanted
    if isinstance(network, (DepthAnyEvent, DepthAnyEventR)):
        size = (images.shape[3], images.shape[4])
        return roll_features(network, encode(network, images), size, state, wanted)
    predictions: list[Tensor] = []
    for step in range(length):
        prediction, state = network(images[:, step], state)
        if step >= length - wanted:
            predictions.append(prediction)
    if not predictions:
        return images.new_zeros((len(images), 0, *images.shape[3:])), state
    return torch.cat(predictions, dim=1), state


def rolls_of(networks: Sequence[Network]) -> Rolls:
    """Return what rolls several networks over the same windows.

    Where their encoders are equal, as those of versions of one student, it runs once for all.

    Args:
        networks: on one device.

    Returns:
        Takes images, the state of each network and `wanted`, and gives the prediction and the state
        of each; see `roll`.
    """
    family = [n for n in networks if isinstance(n, (DepthAnyEvent, DepthAnyEventR))]
    if len(family) < len(networks) or not all(same_encoder(n, family[0]) for n in family[1:]):
        return lambda images, states, wanted: [
            roll(network, images, state, wanted)
            for network, state in zip(networks, states, strict=True)
        ]

    def rolled(images: Tensor, states: Sequence[State], wanted: int) -> list[tuple[Tensor, State]]:
        features, size = encode(family[0], images), (images.shape[3], images.shape[4])
        return [
            roll_features(network, features, size, state, wanted)
            for network, state in zip(family, states, strict=True)
        ]

    return rolled


def same_encoder(one: Network, other: Network) -> bool:
    """Return whether both encoders have equal weights, and so say the same of every window."""
    own, others = (
        {name: value for name, value in network.state_dict().items() if name.startswith(ENCODER)}
        for network in (one, other)
    )
    return own.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in own.items()
    )


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
    state: State,
    wanted: int | None = None,
) -> tuple[Tensor, State]:
    """Step the head alone, from what `encode` gave.

    Only its memory goes window by window: before it and behind it all windows are one batch.

    Args:
        network: whose encoder made the features.
        features: of all windows, (B, T, channels, rows, columns) each.
        size: height and width of the network's input, px.
        state: before the first window.
        wanted: of how many of the last windows a prediction is needed; None for all. The others
            only bring the state up, for less than half of the work.

    Returns:
        float (B, wanted, h, w), and the state after the last window.
    """
    head = network.depth_head
    batch, length = features[0].shape[:2]
    wanted = length if wanted is None else wanted
    projected = [
        level.reshape(batch, length, *level.shape[1:])
        for level in head.project([level.flatten(0, 1) for level in features])
    ]
    steps: list[list[Tensor]] = []
    for step in range(length):
        levels, state = head.remember([level[:, step] for level in projected], state)
        if step >= length - wanted:
            steps.append(levels)
    if not steps:
        return features[0].new_zeros((batch, 0, *size)), state
    # (T, B, ...), so that joining what the steps gave copies each once.
    joined = [torch.cat(levels) for levels in zip(*steps, strict=True)]
    predictions = head.decode(joined, size)
    return predictions.reshape(wanted, batch, *size).transpose(0, 1), state


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
            _, state = roll(network, images[:, :burn_in], state, wanted=0)
    predictions, _ = roll(network, images[:, burn_in:], state)
    return predictions
