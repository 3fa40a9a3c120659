"""Other weights of the network that is in use: loaded, compared, refused where they differ."""

from __future__ import annotations

import math
from pathlib import Path

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.networks import Network, NetworkConfig


def load_successor(path: Path, config: NetworkConfig, meaning: Meaning) -> LoadedModel:
    """Load a checkpoint that is to follow weights of this network and meaning.

    Raises:
        WeightsError: the file is missing or damaged, or of another network or meaning; then
            `.data["refusal"]` is `other_network` or `other_meaning`.
    """
    loaded = load_checkpoint(path)
    if loaded.config != config:
        raise WeightsError(
            f"{path} is of another network ({loaded.config}) than the present weights "
            f"({config}); start the node with these weights instead",
            path=str(path),
            refusal="other_network",
        )
    if loaded.meaning != meaning:
        raise WeightsError(
            f"{path} says that its number means something else ({loaded.meaning}) than that "
            f"of the present weights ({meaning}); start the node with it instead",
            path=str(path),
            refusal="other_meaning",
        )
    return loaded


def weight_change(ours: Network, theirs: Network) -> float:
    """Return |w - w_theirs| / |w_theirs| over all weights of two networks of one kind."""
    difference = norm = 0.0
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        difference += float((mine.detach() - other.detach()).square().sum())
        norm += float(other.detach().square().sum())
    return math.sqrt(difference / norm) if norm > 0.0 else math.inf
