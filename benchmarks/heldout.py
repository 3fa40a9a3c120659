"""Scores of weights, and of what they must beat, on the held-out clips: shared by two benchmarks.

Every number comes from `dae_ros.distillation.validation`, which training scores with as well. The
state is carried through each sequence; a mean over sequences weighs each the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.clip_store import ClipSequence, ClipStore
from dae_ros.distillation.validation import (
    Predicted,
    Validation,
    mean_of_scores,
    pixels_with_events,
)
from dae_ros.evaluation.alignment import best_constant
from dae_ros.evaluation.scoring import STANDARD_METRIC, align_frame, mean_of_frames, score_frame
from dae_ros.model.checkpoint import LoadedModel, read_provenance
from dae_ros.model.networks import Network
from dae_ros.runtime.torch_fitting import Fitting

FloatImage = NDArray[np.float32]
# Where truth ends, of training and of scores.
MAXIMUM_DEPTH_M = 80.0


@dataclass
class Scores:
    """The scores of one contender.

    Attributes:
        mean: name -> mean over sequences, as `Validation` names them.
        sequences: sequence -> name -> score.
        maps: sequence -> float32[H, W], what it said about the windows to show.
    """

    mean: dict[str, float]
    sequences: dict[str, dict[str, float]]
    maps: dict[str, FloatImage]

    def to_json(self) -> dict[str, Any]:
        """Return means and sequences."""
        return {"scores": rounded(self.mean), "sequences": {
            name: rounded(values) for name, values in self.sequences.items()
        }}  # fmt: skip


class Forgetful(torch.nn.Module):
    """A recurrent network whose state is zero before every window.

    Args:
        network: with a memory.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def initial_state(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Return no state."""
        del batch, height, width
        return ()

    def forward(
        self, image: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Step once from a zero state."""
        fresh = self.network.initial_state(len(image), image.shape[2], image.shape[3])
        prediction, _ = self.network(image, fresh)
        return prediction, state


def score_network(
    loaded: LoadedModel,
    store: ClipStore,
    *,
    windows: int = 0,
    forgetful: bool = False,
    shown: Mapping[str, int] | None = None,
) -> Scores:
    """Score weights on every held-out sequence.

    Args:
        loaded: the weights.
        store: with held-out sequences of true depth.
        windows: of each sequence at most; 0 for all.
        forgetful: whether to clear the state before every window.
        shown: sequence -> window whose prediction to keep for pictures.
    """
    network = loaded.network
    # See `rollout.py` of the trainer: faster on a CPU.
    network.to(memory_format=torch.channels_last)
    validation = _validation(loaded, store, windows)
    stepped = Forgetful(network) if forgetful else network
    kept: dict[str, FloatImage] = {}
    sequences = {}
    for sequence in store.split("heldout"):
        predictions = validation.predictions(stepped, sequence)
        wanted = (shown or {}).get(sequence.name)
        sequences[sequence.name] = validation.score(
            sequence, _keeping(predictions, sequence.name, wanted, kept)
        )
    return Scores(mean_of_scores(list(sequences.values())), sequences, kept)


def score_networks(
    versions: Sequence[LoadedModel], store: ClipStore, *, windows: int, every: int
) -> list[Scores]:
    """Score several weights on every held-out sequence, and what their encoders share once.

    Args:
        versions: of one configuration and meaning.
        store: with held-out sequences of true depth.
        windows: of each sequence at most; 0 for all.
        every: see `Validation.together`.

    Returns:
        Of each; no maps are kept.
    """
    networks = [loaded.network for loaded in versions]
    for network in networks:
        network.to(memory_format=torch.channels_last)
    validation = _validation(versions[0], store, windows)
    found: list[dict[str, dict[str, float]]] = [{} for _ in versions]
    for sequence in store.split("heldout"):
        windows_of = list(validation.together(networks, sequence, every))
        for index, scores in enumerate(found):
            predictions = (said[index] for said in windows_of)
            scores[sequence.name] = validation.score(sequence, predictions)
    return [Scores(mean_of_scores(list(scores.values())), scores, {}) for scores in found]


def depth_at(
    loaded: LoadedModel, store: ClipStore, sequence: ClipSequence, index: int
) -> FloatImage:
    """Return what weights say of one window, float32[H, W], with the state of all before it."""
    network = loaded.network
    network.to(memory_format=torch.channels_last)
    kept: dict[str, FloatImage] = {}
    predictions = _validation(loaded, store, index + 1).predictions(network, sequence)
    for _ in _keeping(predictions, sequence.name, index, kept):
        pass
    return kept[sequence.name]


def score_map(depth_m: FloatImage, loaded: LoadedModel, store: ClipStore, windows: int) -> Scores:
    """Score one map as the answer to every window.

    Args:
        depth_m: float32[H, W].
        loaded: metric weights, which are scored in the same way.
        store, windows: see `score_network`.
    """
    validation = _validation(loaded, store, windows)
    sequences = {
        sequence.name: validation.score(
            sequence, ((index, depth_m, None) for index in _indices(sequence, windows))
        )
        for sequence in store.split("heldout")
    }
    return Scores(mean_of_scores(list(sequences.values())), sequences, {})


def score_best_constants(store: ClipStore, windows: int) -> Scores:
    """Score each frame's own best constant.

    Since it uses the frame's truth, it has the names of aligned scores. Over pixels with events it
    is the best constant of these pixels.
    """
    sequences = {}
    for sequence in store.split("heldout"):
        frames: dict[str, list[Any]] = {}
        for index in _indices(sequence, windows):
            depth = sequence.depth[index].astype(np.float32)
            for prefix, mask in (
                ("", np.ones(depth.shape, np.bool_)),
                ("events_", pixels_with_events(sequence, index)),
            ):
                maps = align_frame(np.ones_like(depth), depth, STANDARD_METRIC, mask)
                constant = np.full_like(depth, best_constant(maps.target, maps.counted))
                frames.setdefault(f"{prefix}aligned", []).append(
                    score_frame(constant, depth, STANDARD_METRIC, mask)
                )
        sequences[sequence.name] = {
            f"{name}_{metric}": mean_of_frames(sequence.name, scores).metrics[metric]
            for name, scores in frames.items()
            for metric in ("abs_rel", "delta_1", "rmse")
        }
    return Scores(mean_of_scores(list(sequences.values())), sequences, {})


def training_depths(store: ClipStore) -> Iterator[NDArray[np.float16]]:
    """Yield the true depth of every training sequence, float16[N, H, W]."""
    for sequence in store.split("train"):
        if sequence.depth is not None:
            yield np.asarray(sequence.depth)


def kind_of(sequence: str) -> str:
    """Return what world a sequence shows: `heldout/0082_room_1002` -> `room`."""
    return re.sub(r"^.*/\d+_|_\d+$", "", sequence)


def facts_of(path: Path) -> dict[str, Any]:
    """Return what the trainer writes into a checkpoint: settings, step, where it came from."""
    metadata = read_provenance(path)
    return {
        "settings": json.loads(metadata["settings"]),
        "step": int(metadata["step"]),
        "started_from": metadata["started_from"],
        "encoder_from": metadata.get("encoder_from"),
    }


def rounded(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return scores for JSON: five digits behind the point, null for NaN."""
    return {name: round(v, 5) if np.isfinite(v) else None for name, v in scores.items()}


def _validation(loaded: LoadedModel, store: ClipStore, windows: int) -> Validation:
    return Validation(
        (store,),
        Fitting(loaded.config, loaded.network.multiple, torch.device("cpu")),
        loaded.meaning.event_encoder,
        metric=loaded.meaning.scale == "metric",
        windows=windows,
        maximum_depth_m=MAXIMUM_DEPTH_M,
    )


def _indices(sequence: ClipSequence, windows: int) -> range:
    return range(min(len(sequence), windows or len(sequence)))


def _keeping(
    predictions: Iterator[Predicted], name: str, wanted: int | None, kept: dict[str, FloatImage]
) -> Iterator[Predicted]:
    for index, prediction, label in predictions:
        if index == wanted:
            kept[name] = prediction
        yield index, prediction, label
