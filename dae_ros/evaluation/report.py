"""One evaluation as JSON for programs and Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dae_ros.errors import RecordingError, reason_of
from dae_ros.evaluation.protocols import PROTOCOLS, TEST_SPLIT
from dae_ros.evaluation.published_results import PUBLISHED_ROWS
from dae_ros.evaluation.scoring import PUBLISHED, Scoring, SequenceScore, mean_of_sequences
from dae_ros.paths import whole_file

# (key, heading); a column is shown where the run has its metric.
COLUMNS = (
    ("abs_rel", "Abs Rel"), ("sq_rel", "Sq Rel"), ("rmse", "RMSE m"), ("rmse_log", "RMSE log"),
    ("si_log", "SI log"), ("delta_1", "δ1"), ("delta_2", "δ2"), ("delta_3", "δ3"),
    ("mean_error_10m", "error < 10 m"), ("mean_error_20m", "error < 20 m"),
    ("mean_error_30m", "error < 30 m"), ("best_constant_abs_rel", "Abs Rel of best constant"),
)  # fmt: skip


ALL_PIXELS = "with ground truth"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """The scores of one run under one scoring; scorings are never mixed within a table.

    Attributes:
        pixels: which were scored, in words: `ALL_PIXELS`, or a choice of them.
        scoring: how.
        sequences: their means, at least one.
    """

    pixels: str
    scoring: Scoring
    sequences: tuple[SequenceScore, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file beside the report.

    Attributes:
        title: what it shows.
        path: relative to the report.
    """

    title: str
    path: str


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """One network on one data set.

    Attributes:
        dataset: name of a protocol (`mvsec`, `dsec`), or of whatever was evaluated.
        network: name and digest of the weights.
        tables: one per scoring and choice of pixels.
        facts: further lines for the head: command, seed, machine, time.
        pictures: shown at the end of the Markdown.
        deviation: from the published protocol, in words; nothing is compared with it then.
    """

    dataset: str
    network: str
    tables: tuple[ScoreTable, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    deviation: str = ""


def to_json(report: EvaluationReport) -> str:
    """Return the report as JSON; a metric without value is null."""
    document = {
        "dataset": report.dataset,
        "network": report.network,
        "facts": dict(report.facts),
        "tables": [
            {
                "pixels": table.pixels,
                "scoring": asdict(table.scoring),
                "sequences": [
                    {**asdict(sequence), "metrics": dict(sequence.metrics)}
                    for sequence in table.sequences
                ],
                "mean": mean_of_sequences(table.sequences),
                "not_comparable_because": not_comparable(report, table),
            }
            for table in report.tables
        ],
        "pictures": [asdict(picture) for picture in report.pictures],
    }
    return json.dumps(null_for_nan(document), indent=2, allow_nan=False) + "\n"


def to_markdown(report: EvaluationReport) -> str:
    """Return the report as Markdown, with the paper's rows where they may be compared."""
    lines = [f"# {report.network} on {report.dataset}", ""]
    lines += [f"* {name}: {value}" for name, value in report.facts.items()]
    for table in report.tables:
        scoring = table.scoring
        lines += [
            "",
            f"## Pixels {table.pixels}, {scoring.variant} metrics, alignment {scoring.alignment}",
            "",
            *_sequence_rows(table),
            "",
            *_published_rows(report, table),
        ]
    for picture in report.pictures:
        lines += ["", f"## {picture.title}", "", f"![{picture.title}]({picture.path})"]
    return "\n".join(lines) + "\n"


def write_report(report: EvaluationReport, folder: Path) -> tuple[Path, Path]:
    """Write `evaluation.json` and `evaluation.md`, each replaced whole or not at all.

    Args:
        report: what to write.
        folder: made if it is absent.

    Returns:
        Paths of the JSON and the Markdown file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "evaluation.json", folder / "evaluation.md"
    for path, text in zip(paths, (to_json(report), to_markdown(report)), strict=True):
        replace_file(path, text)
    return paths


def not_comparable(report: EvaluationReport, table: ScoreTable) -> str | None:
    """Say why the paper's numbers must not stand beside a table; None where they may."""
    dataset = report.dataset
    protocol = PROTOCOLS.get(dataset)
    if protocol is None:
        return f"the paper has no numbers on {dataset}"
    if report.deviation:
        return report.deviation
    if table.pixels != ALL_PIXELS:
        return f"the paper's are of all pixels with ground truth, these of pixels {table.pixels}"
    if table.scoring != PUBLISHED:
        return "the paper's numbers are published metrics after its own least squares"
    frames = {sequence.name: sequence.frames for sequence in table.sequences}
    if frames != protocol.scored_frames(TEST_SPLIT[dataset]):
        return (
            f"these are not all frames of the {len(protocol.splits[TEST_SPLIT[dataset]])} "
            f"sequences of {dataset} '{TEST_SPLIT[dataset]}'"
        )
    return None


def _sequence_rows(table: ScoreTable) -> list[str]:
    mean = mean_of_sequences(table.sequences)
    columns = [(key, heading) for key, heading in COLUMNS if key in mean]
    # A scale that nothing fitted says nothing.
    fitted = table.scoring.alignment != "none"
    rows = [
        (s.name, s.frames, s.positive_scale if fitted else math.nan, s.coverage, s.metrics)
        for s in table.sequences
    ]
    lines = [
        _row(["sequence", "frames", "scale > 0", "coverage", *(h for _, h in columns)]),
        _row(["---"] * (4 + len(columns))),
    ]
    for name, frames, positive, coverage, metrics in rows:
        lines.append(
            _row(
                [
                    name,
                    str(frames),
                    _percent(positive),
                    _percent(coverage),
                    *(_number(metrics[key]) for key, _ in columns),
                ]
            )
        )
    lines.append(
        _row(
            [
                "**mean of sequences**",
                str(sum(s.frames for s in table.sequences)),
                "",
                "",
                *(_number(mean[key]) for key, _ in columns),
            ]
        )
    )
    return lines


def _published_rows(report: EvaluationReport, table: ScoreTable) -> list[str]:
    reason = not_comparable(report, table)
    if reason is not None:
        return [f"No published numbers beside these: {reason}."]
    mean = mean_of_sequences(table.sequences)
    lines = [
        _row(["network", "trained on", "Abs Rel", "RMSE m", "δ1"]),
        _row(["---"] * 5),
        _row(["**this run**", "", *(_number(mean[key]) for key in ("abs_rel", "rmse", "delta_1"))]),
    ]
    lines += [
        _row(
            [
                row.network,
                row.training,
                _number(row.abs_rel),
                _number(row.rmse),
                _number(row.delta_1),
            ]
        )
        for row in PUBLISHED_ROWS
        if row.dataset == report.dataset
    ]
    return [*lines, "", "Published: arXiv 2509.15224 as quoted by second sources."]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def null_for_nan(value: object) -> object:
    """Return JSON content in which numbers that are none are null."""
    if isinstance(value, dict):
        return {key: null_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [null_for_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def replace_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        RecordingError: it cannot be written; what was there before still is.
    """
    try:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordingError(
            f"{path} cannot be written: {reason_of(error)}. Make room and run again, or give "
            "another --out",
            path=str(path),
        ) from error
