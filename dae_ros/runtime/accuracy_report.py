"""How much worse an int8 graph is than the float32 one that it was made from; without it none runs.

The report is part of an exported file's meta-data, with its own sha256 and those of both graphs, so
that no other graph can go under it. The JSON file beside the model has the same content, for people
and tools.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dae_ros.errors import WeightsError

# More is not offered: what int8 saves is worth no more than this.
LIMIT_PERCENT = 2.0
LIMITED = ("aligned_abs_rel", "metric_abs_rel")
# Scores of which more is better; of all others less is.
_RISING = ("delta_1",)


@dataclass(frozen=True, slots=True)
class ScorePair:
    """One score of both graphs.

    Attributes:
        float32, int8: mean over sequences, each weighing the same.
    """

    float32: float
    int8: float

    def loss_percent(self, name: str) -> float:
        """Return by how much int8 is worse, in % of the float32 score; negative where better."""
        change = 100.0 * (self.int8 / self.float32 - 1.0) if self.float32 else math.nan
        return -change if name.endswith(_RISING) else change


@dataclass(frozen=True, kw_only=True)
class AccuracyReport:
    """Scores of a float32 graph and of its int8 version on the same held-out windows.

    Both ran on OpenVINO, the recurrent state carried through each sequence.

    Attributes:
        float32_graph_sha256, int8_graph_sha256: of the graphs, as in the meta-data of their files.
        clips_digest: of the clip store that calibration and truth are from.
        calibration_pairs: (window, state) pairs behind the ranges of int8.
        instructions: of the processor that both ran on, see `processor.OF_INT8`.
        openvino: version of it that both ran on.
        remainder: precision of what is not int8 in the int8 graph, `float32` or `bfloat16`.
        windows: held-out windows with truth that were scored.
        scores: `aligned_abs_rel`, `aligned_delta_1`, and for metric weights `metric_...`; aligned
            by least squares on each frame.
        sequence_scores: sequence -> the same of it alone.
    """

    float32_graph_sha256: str
    int8_graph_sha256: str
    clips_digest: str
    calibration_pairs: int
    instructions: str
    openvino: str
    remainder: str
    windows: int
    scores: Mapping[str, ScorePair]
    sequence_scores: Mapping[str, Mapping[str, ScorePair]]

    @property
    def loss_percent(self) -> float:
        """The largest loss of the scores that are limited; NaN where one is no number."""
        losses = [pair.loss_percent(name) for name, pair in self.scores.items() if name in LIMITED]
        return math.nan if not losses or any(map(math.isnan, losses)) else max(losses)

    @property
    def acceptable(self) -> bool:
        """Whether int8 may run: no limited score is worse by more than `LIMIT_PERCENT`."""
        return self.loss_percent <= LIMIT_PERCENT

    def sentence(self) -> str:
        """Return the scores with their losses, `aligned abs rel 0.1000 -> 0.1015 (loss 1.50 %)`."""
        return ", ".join(
            f"{name.replace('_', ' ')} {pair.float32:.4f} -> {pair.int8:.4f} "
            f"(loss {pair.loss_percent(name):.2f} %)"
            for name, pair in self.scores.items()
        )

    def to_json(self) -> str:
        """Return the report as JSON, with the losses written out."""

        def with_losses(scores: Mapping[str, ScorePair]) -> dict[str, dict[str, float]]:
            return {
                name: {**dataclasses.asdict(pair), "loss_percent": pair.loss_percent(name)}
                for name, pair in scores.items()
            }

        values = {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "limit_percent": LIMIT_PERCENT,
            "scores": with_losses(self.scores),
            "sequence_scores": {
                name: with_losses(scores) for name, scores in self.sequence_scores.items()
            },
        }
        return json.dumps(values, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AccuracyReport:
        """Build from what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        values = json.loads(text)

        def pairs(scores: Mapping[str, Mapping[str, float]]) -> dict[str, ScorePair]:
            return {
                name: ScorePair(float(pair["float32"]), float(pair["int8"]))
                for name, pair in scores.items()
            }

        return cls(
            **{
                field.name: values[field.name]
                for field in dataclasses.fields(cls)
                if not field.name.endswith("scores")
            },
            scores=pairs(values["scores"]),
            sequence_scores={
                name: pairs(scores) for name, scores in values["sequence_scores"].items()
            },
        )


def report_path(model: Path) -> Path:
    """Return where the report of an exported file lies beside it: `vga.onnx.accuracy.json`."""
    return model.with_name(f"{model.name}.accuracy.json")


def digest_of_text(text: str) -> str:
    """Return the sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def require_accuracy(report: AccuracyReport | None, path: Path) -> AccuracyReport:
    """Return the report of an int8 file that may be used.

    Args:
        report: from its meta-data.
        path: of the file.

    Raises:
        WeightsError: there is no report, or it tells of more loss than `LIMIT_PERCENT`.
    """
    if report is None:
        raise WeightsError(
            f"{path} is of int8 and has no accuracy report, so nobody knows what it costs; export "
            "the checkpoint with --precision int8 --calibration CLIPS, which writes one",
            path=str(path),
        )
    # Written so that NaN is refused too.
    if not report.acceptable:
        raise WeightsError(
            f"{path} is of int8 and loses {report.loss_percent:.2f} % on {report.windows} held-out "
            f"windows with truth ({report.sentence()}), allowed is {LIMIT_PERCENT:g} %; export "
            "these weights in float32 and use precision float32 or bfloat16",
            path=str(path),
            loss_percent=report.loss_percent,
            limit_percent=LIMIT_PERCENT,
        )
    return report
