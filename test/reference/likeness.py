"""How alike windows are to an encoder, window by window and number by number, in plain numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.observation import LabelledClip


def describe(network: ClipNetwork, window: NDArray[np.uint8]) -> list[float]:
    """Return mean and standard deviation of every map that the encoder makes of one window."""
    with torch.no_grad():
        levels = network.features_of(window[None, None])
    maps = [image for level in levels for image in level[0, 0].double().numpy()]
    return [float(value) for image in maps for value in (image.mean(), image.std())]


def distances(
    network: ClipNetwork,
    places: Sequence[NDArray[np.uint8]],
    spacing: int,
    clips: Sequence[LabelledClip],
    neighbours: int,
) -> dict[tuple[int, int], float]:
    """Return (place, window) -> mean of its squared distances to the clips nearest to it."""
    described, unit = _described(network, places, spacing)
    seen = [np.array(describe(network, clip.observation.windows[-1])) for clip in clips]
    found = {}
    for spot, own in described.items():
        squares = sorted(float((((own - other) / unit) ** 2).sum()) for other in seen)
        found[spot] = float(np.mean(squares[:neighbours]))
    return found


def distances_of_clips(
    network: ClipNetwork,
    places: Sequence[NDArray[np.uint8]],
    spacing: int,
    clips: Sequence[LabelledClip],
    neighbours: int,
) -> list[float]:
    """Return of each clip the mean of its squared distances to the windows nearest to it."""
    described, unit = _described(network, places, spacing)
    found = []
    for clip in clips:
        own = np.array(describe(network, clip.observation.windows[-1]))
        squares = sorted(float((((own - one) / unit) ** 2).sum()) for one in described.values())
        found.append(float(np.mean(squares[:neighbours])))
    return found


def _described(
    network: ClipNetwork, places: Sequence[NDArray[np.uint8]], spacing: int
) -> tuple[dict[tuple[int, int], NDArray[np.float64]], NDArray[np.float64]]:
    """Return (place, window) -> description, and their spread."""
    described = {
        (number, window): np.array(describe(network, place[window]))
        for number, place in enumerate(places)
        for window in range(0, len(place), spacing)
    }
    spread = np.array(list(described.values())).std(axis=0)
    return described, np.maximum(spread, 0.01 * spread.mean() + np.finfo(np.float32).eps)
