"""Scores on held-out clips: the state carried through each sequence, maps at the sensor's size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import ClipSequence, ClipStore
from dae_ros.distillation.preparation import FRAME_ENCODERS, frames_as_images
from dae_ros.distillation.rollout import rolls_of
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.evaluation.scoring import (
    FrameScore,
    Scoring,
    mean_of_frames,
    score_frame,
)
from dae_ros.model.networks import Network
from dae_ros.runtime.torch_fitting import Fitting

CHUNK = 16
METRICS = ("abs_rel", "delta_1", "rmse")

# Index of a window, what a network says about it, and what a teacher does; float32[H, W].
Predicted: TypeAlias = "tuple[int, NDArray[np.float32], NDArray[np.float32] | None]"


class Validation:
    """Scores weights on the held-out sequences.

    Aligned scores use the corrected least squares; metric ones nothing. `events_...` counts only
    pixels with an event in the window. A mean over sequences weighs each the same.

    Args:
        stores: whose `heldout` is scored.
        fitting: of the network.
        event_encoder: of the network.
        metric: whether its number is metres.
        windows: of each sequence at most; 0 for all.
        maximum_depth_m: true depth beyond is not scored.
        teacher: whose labels are scored against as well, as `label_...`; None for no such.
    """

    def __init__(
        self,
        stores: tuple[ClipStore, ...],
        fitting: Fitting,
        event_encoder: str,
        *,
        metric: bool,
        windows: int,
        maximum_depth_m: float,
        teacher: FrameTeacher | None = None,
    ) -> None:
        self._sequences = [item for store in stores for item in store.split("heldout")]
        self._fitting = fitting
        self._encoder = event_encoder
        self._windows = windows
        self._teacher = teacher
        self._scorings = {"aligned": Scoring(clip_distance_m=maximum_depth_m)}
        if metric:
            self._scorings["metric"] = Scoring(alignment="none", clip_distance_m=maximum_depth_m)
        # Whether a run is better is judged by what it may see: labels where it learns from those.
        if teacher is None:
            self.deciding = "metric_abs_rel" if metric else "aligned_abs_rel"
        else:
            both = metric and teacher.metric
            self.deciding = f"label_{'metric' if both else 'aligned'}_abs_rel"

    @property
    def possible(self) -> bool:
        """Whether there is anything to score."""
        return bool(self._sequences)

    def __call__(self, network: Network) -> dict[str, float]:
        """Return name -> score; NaN where nothing could be scored."""
        return mean_of_scores(
            [
                self.score(sequence, self.predictions(network, sequence))
                for sequence in self._sequences
            ]
        )

    def score(self, sequence: ClipSequence, predictions: Iterable[Predicted]) -> dict[str, float]:
        """Return name -> score of one sequence: the mean over its windows.

        Args:
            sequence: one that is held out.
            predictions: of its windows, from `predictions` or from elsewhere.
        """
        scores: dict[str, list[FrameScore]] = {}
        for index, prediction, label in predictions:
            for name, score in self._score(sequence, index, prediction, label):
                scores.setdefault(name, []).append(score)
        result: dict[str, float] = {}
        for name in sorted(scores):
            mean = mean_of_frames(sequence.name, scores[name])
            result |= {f"{name}_{metric}": mean.metrics[metric] for metric in METRICS}
            if name.endswith("aligned"):
                result[f"{name}_positive_scale"] = mean.positive_scale
        return result

    def _score(
        self,
        sequence: ClipSequence,
        index: int,
        prediction: NDArray[np.float32],
        label: NDArray[np.float32] | None,
    ) -> Iterator[tuple[str, FrameScore]]:
        if sequence.depth is not None:
            depth = sequence.depth[index].astype(np.float32)
            events = pixels_with_events(sequence, index)
            for name, scoring in self._scorings.items():
                yield name, score_frame(prediction, depth, scoring)
                yield f"events_{name}", score_frame(prediction, depth, scoring, events)
        if label is not None:
            for name, scoring in self._scorings.items():
                yield f"label_{name}", score_frame(prediction, label, scoring)

    def predictions(self, network: Network, sequence: ClipSequence) -> Iterator[Predicted]:
        """Yield every window that has something to compare with, the state carried."""
        for (found,) in self.together([network], sequence):
            yield found

    def together(
        self, networks: Sequence[Network], sequence: ClipSequence, every: int = 1
    ) -> Iterator[list[Predicted]]:
        """Yield what each of several networks says about the same windows, its state carried.

        Where their encoders are equal, as those of versions of one student, it runs once for all.

        Args:
            networks: on one device.
            sequence: of the store.
            every: of every so many windows of a run the last one is compared; the others only bring
                the states up, for less than half of the work.
        """
        device = next(networks[0].parameters()).device
        limit = min(len(sequence), self._windows or len(sequence))
        height, width = sequence.windows.shape[-2:]
        size = self._fitting.network_size(height, width)
        step, roll_all = CHUNK if every == 1 else every, rolls_of(networks)
        for first, last in sequence.runs():
            states = [network.initial_state(1, *size) for network in networks]
            for begin in range(first, min(last, limit), step):
                end = min(begin + step, last, limit)
                compared = list(range(every - 1, end - begin, every))
                if not compared:
                    break
                usable = sequence.has_frame(begin, end)
                with torch.inference_mode():
                    images = self._fitting.prepare(self._images(sequence, begin, end, device))
                    rolled = roll_all(images[None], states, len(compared))
                    states = [state for _, state in rolled]
                    maps = [
                        self._fitting.restore(found[0][:, None], height, width)[:, 0].cpu().numpy()
                        for found, _ in rolled
                    ]
                    labels = self._labels(sequence, begin, end, device)
                for at, offset in enumerate(compared):
                    if self._encoder in FRAME_ENCODERS and not usable[offset]:
                        continue
                    label = None
                    if labels is not None and usable[offset]:
                        label = labels[offset].cpu().numpy()
                    yield [(begin + offset, own[at], label) for own in maps]

    def _images(self, sequence: ClipSequence, begin: int, end: int, device: torch.device) -> Tensor:
        if self._encoder in FRAME_ENCODERS:
            return frames_as_images(
                _frames(sequence, begin, end, device), self._fitting.format.channels
            )
        windows = torch.from_numpy(np.array(sequence.windows[begin:end])).to(device)
        return windows.float() if self._encoder == "voxel_grid" else tencode_of_code(windows)

    def _labels(
        self, sequence: ClipSequence, begin: int, end: int, device: torch.device
    ) -> Tensor | None:
        if self._teacher is None or sequence.frames is None:
            return None
        label = self._teacher.label(_frames(sequence, begin, end, device), consistency=False)
        return torch.where(label.mask, label.depth, torch.nan)


def _frames(sequence: ClipSequence, begin: int, end: int, device: torch.device) -> Tensor:
    if sequence.frames is None:
        height, width = sequence.windows.shape[-2:]
        return torch.zeros(end - begin, height, width, dtype=torch.uint8, device=device)
    return torch.from_numpy(np.array(sequence.frames[begin:end])).to(device)


def pixels_with_events(sequence: ClipSequence, index: int) -> NDArray[np.bool_]:
    """Return where a window has events, bool[H, W]."""
    window = sequence.windows[index]
    return np.asarray(window != 0 if window.ndim == 2 else (window != 0).any(axis=0), np.bool_)


def mean_of_scores(sequences: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return name -> mean over the sequences where it is a number, each weighing the same."""
    values: dict[str, list[float]] = {}
    for scores in sequences:
        for name, value in scores.items():
            values.setdefault(name, []).append(value)
    return {name: _mean(np.array(found)) for name, found in values.items()}


def _mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
