"""An exported graph in int8: calibrated on training clips, then judged on held-out ones."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import ClipSequence, ClipStore
from dae_ros.distillation.validation import Predicted, Validation, mean_of_scores
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.runtime.accuracy_report import (
    LIMIT_PERCENT,
    AccuracyReport,
    ScorePair,
    report_path,
)
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import graph_digest, read_description
from dae_ros.runtime.onnx_export import OPSET, export_onnx, write_graph
from dae_ros.runtime.onnx_parity import measure_deviation, moving_edges
from dae_ros.runtime.onnx_quantisation import CalibrationPairs, quantised
from dae_ros.runtime.openvino_graph import OpenVinoGraph, has_bfloat16
from dae_ros.runtime.processor import int8_instructions
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting

# Where truth ends, as in training and in the cards of the weights.
_MAXIMUM_DEPTH_M = 80.0
_REPORTED = ("abs_rel", "delta_1")
# What is not int8: the faster first, and the next where that one loses too much.
_REMAINDERS = ("bfloat16", "float32")
SequenceScores: TypeAlias = "dict[str, dict[str, float]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is calibrated on and judged by.

    Attributes:
        sequences: of training to calibrate on at most, spread evenly over all of them.
        pairs: (window, state) pairs to calibrate on at most.
        every: one window of so many becomes a pair; the state passes through all.
        heldout_windows: of each held-out sequence to judge by at most, from its first.
    """

    sequences: int = 20
    pairs: int = 300
    every: int = 4
    heldout_windows: int = 60


DEFAULT_EXTENT = Extent()


def export_int8(
    loaded: LoadedModel,
    path: Path,
    height: int,
    width: int,
    store: ClipStore,
    *,
    opset: int = OPSET,
    extent: Extent = DEFAULT_EXTENT,
) -> AccuracyReport:
    """Write weights as an int8 ONNX graph with its accuracy report; both, or nothing.

    Args:
        loaded: the weights, left as they are.
        path: the file, replaced atomically; the report goes to `report_path(path)`.
        height, width: of the sensor in px.
        store: clips of a sensor of that size, with training windows to calibrate on and held-out
            windows with true depth to judge by.
        opset: version of the ONNX operators, from 18 on.
        extent: how much of the clips is used.

    Returns:
        The report, whose loss is at most `LIMIT_PERCENT`.

    Raises:
        ConfigurationError: a package of the extra `int8` is missing, or the clips do not suit the
            weights or the sensor, or lack one of the two kinds of windows.
        WeightsError: the float32 graph was refused (see `export_onnx`), NNCF cannot quantise it,
            or int8 loses too much; then nothing is written.
    """
    heldout = _scorable(loaded, height, width, store)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        original = Path(folder) / "float32.onnx"
        export_onnx(loaded, original, height, width, opset=opset)
        said = read_description(original)
        before = GraphEstimator(OpenVinoGraph(original, said, threads=threads), said)
        pairs, count = calibration_pairs(before, store, extent)
        model = quantised(original, pairs, count)
        file = Path(folder) / path.name
        said = replace(said, precision="int8")
        write_graph(file, model, said)
        loss = _Loss(loaded, store, heldout, before, extent.heldout_windows)
        for remainder in _REMAINDERS if has_bfloat16() else ("float32",):
            after = GraphEstimator(
                OpenVinoGraph(file, said, precision=remainder, threads=threads), said
            )
            scores, windows = loss.of(after)
            report = AccuracyReport(
                float32_graph_sha256=graph_digest(original.read_bytes()),
                int8_graph_sha256=graph_digest(model),
                clips_digest=store.digest,
                calibration_pairs=count,
                instructions=int8_instructions(),
                openvino=version("openvino"),
                remainder=remainder,
                windows=windows,
                scores=_pairs(*(mean_of_scores(list(found.values())) for found in scores)),
                sequence_scores={
                    name: _pairs(*(found[name] for found in scores)) for name in scores[0]
                },
            )
            if report.acceptable:
                break
        _require_small_loss(report, path)
        images = moving_edges(loaded.meaning.event_encoder, said.channels, height, width)
        deviation = measure_deviation(TorchEstimator(loaded), after, images)
        said = replace(said, deviation=deviation.root_mean_square, accuracy=report)
        write_graph(file, model, said)
        beside = Path(folder) / "report.json"
        beside.write_text(report.to_json(), encoding="utf-8")
        beside.replace(report_path(path))
        file.replace(path)
    return report


def calibration_pairs(
    graph: GraphEstimator, store: ClipStore, extent: Extent
) -> tuple[CalibrationPairs, int]:
    """Return what to calibrate on, (window, state) pairs from the training clips, and their number.

    Args:
        graph: of float32, at the size of the clips.
        store: with training windows.
        extent: how much of it.
    """
    train = store.split("train")
    chosen = train[:: math.ceil(len(train) / extent.sequences)]
    length = math.ceil(extent.pairs / len(chosen)) * extent.every

    stretches = [
        (sequence, first, min(last, length))
        for sequence in chosen
        for first, last in sequence.runs()
        if first < length
    ]

    def sequences() -> Iterator[Iterator[FloatImage]]:
        for sequence, first, last in stretches:
            yield _images(sequence, store, first, last)

    count = sum(math.ceil((last - first) / extent.every) for _, first, last in stretches)
    return CalibrationPairs(graph, sequences, extent.every), count


def _scorable(
    loaded: LoadedModel, height: int, width: int, store: ClipStore
) -> tuple[ClipSequence, ...]:
    """Return the held-out sequences with true depth, of clips that suit weights and sensor."""
    problems = []
    if store.event_encoder != loaded.meaning.event_encoder:
        problems.append(
            f"hold {store.event_encoder}, and {loaded.name} takes {loaded.meaning.event_encoder}"
        )
    if (store.height, store.width) != (height, width):
        problems.append(
            f"are of a sensor of {store.height}x{store.width} px (height x width), and the export "
            f"is for {height}x{width}"
        )
    if not store.split("train"):
        problems.append("have no sequence to calibrate on (train)")
    heldout = tuple(item for item in store.split("heldout") if item.depth is not None)
    if not heldout:
        problems.append("have no held-out sequence with true depth to judge by")
    if problems:
        raise ConfigurationError(
            f"the clips of {store.folder} {', and '.join(problems)}; make others with `dae-ros "
            "clips RECIPE` (docs/training.md)",
            path=str(store.folder),
        )
    if loaded.meaning.orientation != "depth":
        raise ConfigurationError(
            f"int8 is judged by depth, and the number of {loaded.name} is "
            f"{loaded.meaning.orientation} (orientation); export it in float32",
            orientation=loaded.meaning.orientation,
        )
    return heldout


class _Loss:
    """Scores a float32 graph once, and others beside it."""

    def __init__(
        self,
        loaded: LoadedModel,
        store: ClipStore,
        heldout: Sequence[ClipSequence],
        before: GraphEstimator,
        windows: int,
    ) -> None:
        self._store, self._heldout, self._windows = store, heldout, windows
        self._validation = Validation(
            (store,),
            Fitting(loaded.config, loaded.network.multiple, torch.device("cpu")),
            loaded.meaning.event_encoder,
            metric=loaded.meaning.scale == "metric",
            windows=windows,
            maximum_depth_m=_MAXIMUM_DEPTH_M,
        )
        self._before = self._scores(before)

    def of(self, after: GraphEstimator) -> tuple[tuple[SequenceScores, SequenceScores], int]:
        """Return sequence -> name -> score of both graphs, and how many windows each was given."""
        windows = sum(min(len(sequence), self._windows) for sequence in self._heldout)
        return (self._before, self._scores(after)), windows

    def _scores(self, graph: GraphEstimator) -> SequenceScores:
        return {
            sequence.name: self._validation.score(
                sequence, _steps(graph, sequence, self._store, self._windows)
            )
            for sequence in self._heldout
        }


def _steps(
    graph: GraphEstimator, sequence: ClipSequence, store: ClipStore, windows: int
) -> Iterator[Predicted]:
    """Yield what a graph says of the first windows, the state carried where it may be."""
    for first, last in sequence.runs():
        graph.reset()
        last = min(last, windows)
        for index, image in enumerate(_images(sequence, store, first, last), start=first):
            yield index, graph.estimate(image), None


def _images(
    sequence: ClipSequence, store: ClipStore, first: int, last: int
) -> Iterator[FloatImage]:
    for index in range(first, last):
        window = np.array(sequence.windows[index])
        if store.event_encoder == "voxel_grid":
            yield window.astype(np.float32)
        else:
            yield tencode_of_code(torch.from_numpy(window)).numpy()


def _pairs(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, ScorePair]:
    names = [f"{kind}_{metric}" for kind in ("aligned", "metric") for metric in _REPORTED]
    return {name: ScorePair(before[name], after[name]) for name in names if name in before}


def _require_small_loss(report: AccuracyReport, path: Path) -> None:
    if not report.acceptable:
        raise WeightsError(
            f"{path} is not written: on {report.windows} held-out windows int8 loses "
            f"{report.loss_percent:.2f} %, allowed is {LIMIT_PERCENT:g} % ({report.sentence()}). "
            "Export these weights in float32, and run them with precision float32 or bfloat16",
            path=str(path),
            loss_percent=report.loss_percent,
            limit_percent=LIMIT_PERCENT,
        )
