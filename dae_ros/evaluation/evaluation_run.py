"""One evaluation from sequences to files: tables, lists of frames, plots and pictures."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.evaluation.observation import ObservationRules
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.report import (
    EvaluationReport,
    Picture,
    ScoreTable,
    replace_file,
    write_report,
)
from dae_ros.evaluation.scoring import Scoring
from dae_ros.evaluation.sequence_scorer import (
    PIXELS,
    PIXELS_IN_WORDS,
    SequenceScorer,
    TableChoice,
    require_scorable,
)
from dae_ros.evaluation.sources import EvaluationSource, file_name
from dae_ros.evaluation.strips import error_map_picture, write_png
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.depth_frame import scale_of
from dae_ros.runtime.estimator import DepthEstimator

# What an evaluation leaves in its folder, and what --overwrite may remove.
OUTPUTS = (
    "evaluation.json", "evaluation.md", "frames.csv", "over_depth.csv", "over_depth.png",
    "over_time.png", "error_maps", "strips", "timing.json",
)  # fmt: skip
_REPORT_S = 0.1


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is evaluated and how.

    Attributes:
        dataset: name of a protocol, or of whatever is evaluated.
        parameters: of the pipeline; windows must end at frames (the truths) and none be skipped.
        rules: what is run and what is left out.
        scorings: of the tables, each over all pixels and over those with events.
    """

    dataset: str
    parameters: DepthParameters
    rules: ObservationRules
    scorings: tuple[Scoring, ...]


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far an evaluation is.

    Attributes:
        sequence: which one is run.
        fraction: of all sequences, each weighing the same; None where that is not known.
        frames: scored of this sequence.
        abs_rel: mean over them under the first table, NaN before the first.
    """

    sequence: str
    fraction: float | None
    frames: int
    abs_rel: float


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation left behind.

    Attributes:
        report: as written.
        interrupted: whether it was stopped before its end; the last sequence is then a part.
        damage: the first error that ended a recording early, None for whole ones.
    """

    report: EvaluationReport
    interrupted: bool
    damage: RecordingError | None


def run_evaluation(
    sources: Sequence[EvaluationSource],
    plan: EvaluationPlan,
    estimator: DepthEstimator,
    out: Path,
    *,
    report: Callable[[EvaluationProgress], None],
    note: Callable[[str], None],
    stopped: Callable[[], bool],
) -> EvaluationResult:
    """Run sequences one after another and write everything below `out`.

    Args:
        sources: at least one, with names of their own.
        plan: see there.
        estimator: the network.
        out: an existing folder.
        report: called often, with how far it is.
        note: called with sentences that the user should read.
        stopped: asked between windows; True ends it with everything so far written.

    Raises:
        ConfigurationError: no sources, two of one name, or a network that cannot be scored so.
        RecordingError: no sequence can be opened, or no pixel of any window could be scored. One
            sequence of several that cannot be read is left out, and is the result's damage.
        InferenceError: the backend failed.
    """
    return _Run(sources, plan, estimator, out, report, note).run(stopped)


class _Run:
    def __init__(
        self,
        sources: Sequence[EvaluationSource],
        plan: EvaluationPlan,
        estimator: DepthEstimator,
        out: Path,
        report: Callable[[EvaluationProgress], None],
        note: Callable[[str], None],
    ) -> None:
        names = [source.name for source in sources]
        double = sorted({name for name in names if names.count(name) > 1})
        if double or not sources:
            raise ConfigurationError(
                f"Two sequences are named {', '.join(double)}; evaluate them apart."
                if double
                else "There is nothing to evaluate; name a recording, a data set or a simulation.",
                names=names,
            )
        parameters = plan.parameters
        if parameters.window != "frame" or parameters.overload != "queue":
            raise ConfigurationError(
                "Windows of an evaluation end at its ground truth and none is skipped: 'window' "
                "must be frame and 'overload' queue.",
                window=parameters.window,
                overload=parameters.overload,
            )
        self._sources, self._plan, self._estimator, self._out = sources, plan, estimator, out
        self._report, self._note = report, note
        self._scale = scale_of(
            estimator, parameters.orientation, parameters.scale, parameters.shift
        )
        require_scorable(self._scale.kind, self._scale.orientation, plan.scorings)
        self._choices = tuple(
            TableChoice(pixels, scoring) for scoring in plan.scorings for pixels in PIXELS
        )
        self._scorers: list[SequenceScorer] = []
        self._damage: RecordingError | None = None

    def run(self, stopped: Callable[[], bool]) -> EvaluationResult:
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        interrupted = False
        for index, source in enumerate(self._sources):
            interrupted = self._run_sequence(index, source, stopped)
            if interrupted:
                break
        wall_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
        scored = [scorer for scorer in self._scorers if scorer.records]
        if not scored and self._damage is not None:
            raise self._damage
        if not scored:
            raise RecordingError(
                "no window had ground truth, so that nothing could be scored; is the depth of "
                "the same time and camera as the events?",
                sequences=[source.name for source in self._sources],
            )
        if not any(_has_pixels(scorer) for scorer in scored):
            raise self._damage or RecordingError(
                f"not one pixel of {sum(len(scorer.records) for scorer in scored)} windows could "
                "be scored: true depth is unknown or beyond the clip distance everywhere, or the "
                "network gave no number; look at the depth topic, or choose another (--truth)",
                sequences=[source.name for source in self._sources],
            )
        document = EvaluationReport(
            dataset=self._plan.dataset,
            network=f"{self._estimator.name} (sha256 {self._estimator.digest[:12]})",
            tables=self._tables(scored),
            facts=self._facts(interrupted),
            deviation=""
            if self._plan.rules.reset == "carry"
            else "the paper carries the recurrent state, and here it was cleared",
        )
        # Numbers before pictures: a disk that is full must not cost an evaluation.
        self._write_lists(scored)
        write_report(document, self._out)
        document = dataclasses.replace(document, pictures=self._draw(scored))
        write_report(document, self._out)
        windows = sum(len(scorer.records) for scorer in scored)
        timing = {
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "windows": windows,
            "windows_per_s": windows / wall_s,
            "cpu_count": os.cpu_count(),
        }
        replace_file(self._out / "timing.json", json.dumps(timing, indent=2) + "\n")
        return EvaluationResult(document, interrupted, self._damage)

    def _run_sequence(
        self, index: int, source: EvaluationSource, stopped: Callable[[], bool]
    ) -> bool:
        """Run one sequence; return whether it was interrupted."""
        rules = self._plan.rules
        rows = None if rules.protocol is None else rules.protocol.rows
        scorer = SequenceScorer(source.name, self._choices, rows)
        self._scorers.append(scorer)
        next_report_s, total, numbers = 0.0, 0.0, 0
        interrupted, damage = False, None
        observations = source.observations(self._plan.parameters, self._estimator, rules)
        # Closed also when it is left early, so that no recording stays open.
        with contextlib.closing(observations):
            while True:
                try:
                    observation = next(observations, None)
                except RecordingError as error:
                    # What was scored of it, and the other sequences, count all the same.
                    damage = error
                    break
                if observation is None:
                    break
                abs_rel = scorer.add(observation).metrics["abs_rel"]
                if not math.isnan(abs_rel):
                    total, numbers = total + abs_rel, numbers + 1
                if time.perf_counter() >= next_report_s:
                    next_report_s = time.perf_counter() + _REPORT_S
                    part = source.fraction
                    fraction = None if part is None else (index + part) / len(self._sources)
                    mean = total / numbers if numbers else math.nan
                    self._report(
                        EvaluationProgress(source.name, fraction, len(scorer.records), mean)
                    )
                if stopped():
                    interrupted = True
                    break
        damage = damage or source.damage
        if damage is not None:
            # Of a single sequence it is the error with which the command ends.
            if len(self._sources) > 1:
                self._note(f"{source.name}: {damage}")
            self._damage = self._damage or damage
        if scorer.records and not _has_pixels(scorer):
            self._note(f"{source.name}: not one pixel of {len(scorer.records)} windows counts")
        left_out = ", ".join(f"{count} {name}" for name, count in _counted(source))
        if left_out:
            self._note(f"{source.name}: truths left out: {left_out}")
        return interrupted

    def _tables(self, scored: Sequence[SequenceScorer]) -> tuple[ScoreTable, ...]:
        means = [scorer.tables() for scorer in scored]
        return tuple(
            ScoreTable(
                PIXELS_IN_WORDS[choice.pixels],
                choice.scoring,
                tuple(tables[index] for tables in means),
            )
            for index, choice in enumerate(self._choices)
        )

    def _facts(self, interrupted: bool) -> dict[str, str]:
        parameters, rules = self._plan.parameters, self._plan.rules
        encoder = parameters.event_encoder
        if encoder == "checkpoint":
            encoder = self._estimator.meaning.event_encoder
        protocol = rules.protocol
        facts = {
            "output": f"{self._scale.kind}, grows with "
            f"{'depth' if self._scale.orientation == 'depth' else 'inverse depth'}",
            "windows": f"{parameters.window_s * 1e3:g} ms, each ends at a depth image",
            "event encoder": encoder,
            "recurrent state": {
                "carry": "carried through each sequence, cleared between them",
                "every_window": "cleared before every window",
            }[rules.reset],
            "protocol": "none: every pixel of the sensor"
            if protocol is None
            else f"{protocol.name}, rows {protocol.rows[0]} to {protocol.rows[1] - 1}",
        }
        names = [source.name for source in self._sources]
        part = "" if protocol is None else protocol.part_in_words(names)
        if part:
            facts["sequences"] = part
        if rules.most is not None:
            facts["only"] = f"the first {rules.most} depth images of each sequence"
        for source in self._sources:
            if _counted(source):
                facts[f"left out of {source.name}"] = ", ".join(
                    f"{count} {name}" for name, count in _counted(source)
                )
        if self._damage is not None:
            facts["damage"] = self._damage.message
        if interrupted:
            facts["interrupted"] = "yes; the last sequence is a part"
        return facts

    def _draw(self, scored: Sequence[SequenceScorer]) -> tuple[Picture, ...]:
        """Write the plots and pictures."""
        over_depth = {
            scorer.name: (
                [(bin_.from_m + bin_.to_m) / 2 for bin_ in scorer.error_over_depth()],
                [bin_.abs_rel for bin_ in scorer.error_over_depth()],
            )
            for scorer in scored
        }
        over_time = {
            scorer.name: (
                [(r.stamp_ns - scorer.records[0].stamp_ns) / 1e9 for r in scorer.records],
                [record.score.metrics["abs_rel"] for record in scorer.records],
            )
            for scorer in scored
        }
        plots = (
            ("over_depth.png", "Abs Rel over depth", over_depth, "ground truth, m", True),
            ("over_time.png", "Abs Rel over time", over_time, "s since the first window", False),
        )
        pictures = []
        for name, title, series, x_label, logarithmic in plots:
            axes = Axes(title, x_label, "Abs Rel", logarithmic)
            write_png(self._out / name, line_plot(series, axes))
            pictures.append(Picture(title, name))
        for folder in ("strips", "error_maps"):
            (self._out / folder).mkdir(exist_ok=True)
        for scorer in scored:
            strips = f"strips/{file_name(scorer.name)}.png"
            scorer.save_strips(self._out / strips)
            pictures.append(Picture(f"{scorer.name}: windows", strips))
            mean_error = scorer.mean_error()
            if mean_error is not None:
                error_map = f"error_maps/{file_name(scorer.name)}.png"
                write_png(self._out / error_map, error_map_picture(mean_error))
                pictures.append(Picture(f"{scorer.name}: error over the image", error_map))
        return tuple(pictures)

    def _write_lists(self, scored: Sequence[SequenceScorer]) -> None:
        metrics = list(scored[0].records[0].score.metrics)
        frames: list[list[object]] = [
            ["sequence", "stamp_ns", "offset_ns", "event_count", "scale", "shift", "coverage",
             *metrics]
        ]  # fmt: skip
        for scorer in scored:
            for record in scorer.records:
                fit = record.score.alignment
                frames.append(
                    [scorer.name, record.stamp_ns, record.offset_ns, record.event_count, fit.scale,
                     fit.shift, record.score.coverage,
                     *(record.score.metrics[name] for name in metrics)]
                )  # fmt: skip
        depths: list[list[object]] = [
            ["sequence", "from_m", "to_m", "pixels", "abs_rel", "delta_1"]
        ]
        depths += [
            [scorer.name, *dataclasses.astuple(bin_)]
            for scorer in scored
            for bin_ in scorer.error_over_depth()
        ]
        for name, rows in (("frames.csv", frames), ("over_depth.csv", depths)):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows)
            replace_file(self._out / name, text.getvalue())


def _has_pixels(scorer: SequenceScorer) -> bool:
    """Whether a pixel counted under any table; the published ones leave more out."""
    return any(score.frames > score.frames_without_pixels for score in scorer.tables())


def _counted(source: EvaluationSource) -> list[tuple[str, int]]:
    return sorted((name, count) for name, count in source.skipped.items() if count)
