"""The loop: truncated back-propagation through clips, resumable at any instant.

One update: draw clips by (seed, step), bring the state up without gradient, predict the windows to
learn from, compare in float32, add up gradients over processes, check, step, average. Equal
settings, data and number of threads give equal weights, however often the run was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dae_ros.distillation.batches import ClipBatch, ClipSampler
from dae_ros.distillation.checkpointing import RunState, load_state, on_disk, save_state
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.journal import Journal
from dae_ros.distillation.objectives import Objective
from dae_ros.distillation.parallel import Workers
from dae_ros.distillation.preparation import Preparation, Prepared
from dae_ros.distillation.rollout import in_precision, roll_clips
from dae_ros.distillation.updates import Updates
from dae_ros.distillation.upright import MEANINGFUL, UprightWatch
from dae_ros.distillation.validation import Validation
from dae_ros.errors import DistillationError, WeightsError
from dae_ros.model.checkpoint import read_provenance, save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.networks import Network

Report = Callable[[float, str], None]
Note = Callable[[str], None]
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"
# Once so many labels were judged, more than half of them upside down mean a wrong label space.
JUDGED_AT_LEAST = 500
# So many updates in a row without a label are no accident.
UNLABELLED_IN_A_ROW = 50
_COUNTERS = ("judged", "refused", "negative_scale")


class Compare(Protocol):
    """What is minimised; see `objectives.py`."""

    def __call__(self, predictions: Tensor, batch: Prepared, step: int) -> Objective:
        """Return the loss of predictions (B, U, h, w)."""


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: updates done.
        interrupted: whether it was stopped before the end; it can go on.
        best, best_step: lowest deciding score and when; None where nothing was scored.
        orientation: what the checkpoint says, and on what that rests.
        warning: what the user must know, a sentence; empty where all is well.
        counters: since the start of the run.
        updates_per_s: of this process' part of the run; None where nothing was left to do.
    """

    step: int
    interrupted: bool
    best: float | None
    best_step: int | None
    orientation: str
    warning: str
    counters: dict[str, int]
    updates_per_s: float | None


class Trainer:
    """Trains one network; `run` begins or goes on.

    Args:
        settings: all of them.
        folder: of the run, which must exist when `run` is called. Shared by all processes.
        network: on the device of `workers`, with the weights that the run begins with.
        meaning: what its number will mean, but for the orientation, which is measured.
        sampler, preparation, compare, validation: the parts.
        workers: the processes.
        provenance: text -> text, written into every checkpoint.
        data: digests of the clips and teachers, which a continuation must share.

    Raises:
        ConfigurationError: the folder holds another run; nothing of it is touched.
        DistillationError: the saved state is damaged.
    """

    def __init__(
        self,
        settings: TrainingParameters,
        folder: Path,
        network: Network,
        meaning: Meaning,
        *,
        sampler: ClipSampler,
        preparation: Preparation,
        compare: Compare,
        validation: Validation,
        workers: Workers,
        provenance: dict[str, str],
        data: list[str],
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._updates = Updates(network, settings, workers)
        self._meaning = meaning
        self._sampler = sampler
        self._preparation = preparation
        self._compare = compare
        self._validation = validation
        self._workers = workers
        self._provenance = provenance
        self._identity: dict[str, Any] = {**settings.identity(), "data": data}
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._upright = UprightWatch(settings.metric)
        self._unlabelled = 0
        self._step = 0
        self._best: float | None = None
        self._best_step: int | None = None
        state = load_state(folder, self._identity)
        if state is not None:
            self._take_up(state)

    @property
    def step(self) -> int:
        """Updates done, those before a stop included."""
        return self._step

    def run(self, stopped: Callable[[], bool], report: Report, note: Note) -> TrainingResult:
        """Train up to the last update, or until stopped; the state is saved either way.

        Args:
            stopped: asked after every update, in every process; one that says yes stops all.
            report: told the fraction that is done and a detail, by the first process.
            note: told once, as soon as it shows, what the user must know.

        Raises:
            DistillationError: gradients stay infinite, labels are upside down, or the disk is
                full; the saved state is whole.
        """
        if self._workers.first and self._step > 0 and self._step_of_last() != str(self._step):
            self._write(LAST_FILE, {})
        warned = False
        begin_s, begin_step = time.perf_counter(), self._step
        interrupted = False
        with self._journal() as journal, _Ahead(self._sampler, self._settings.steps) as ahead:
            while self._step < self._settings.steps and not interrupted:
                interrupted = self._advance(ahead.batch(self._step), journal, stopped)
                spent_s = time.perf_counter() - begin_s
                rate = (self._step - begin_step) / spent_s
                left_min = (self._settings.steps - self._step) / rate / 60
                upside_down = ", DEPTH IS UPSIDE DOWN" if self._upright.warning else ""
                report(
                    self._step / self._settings.steps,
                    f"update {self._step} of {self._settings.steps}, loss {self._loss:.4f}"
                    f"{upside_down}, {rate:.2f}/s, {left_min:.0f} min left",
                )
                if upside_down and not warned:
                    note(self._upright.warning)
                    warned = True
        if interrupted or self._step > begin_step:
            self._save()
        done = self._step - begin_step
        return TrainingResult(
            step=self._step,
            interrupted=interrupted and self._step < self._settings.steps,
            best=self._best,
            best_step=self._best_step,
            orientation=self._upright.measured,
            warning=self._upright.warning,
            counters={"updates_refused": self._updates.refused, **self._counters},
            updates_per_s=done / (time.perf_counter() - begin_s) if done else None,
        )

    def _advance(
        self, batch: ClipBatch, journal: Journal | None, stopped: Callable[[], bool]
    ) -> bool:
        """Do one update and what is due after it; return whether to stop."""
        settings = self._settings
        begin_s = time.perf_counter()
        values, interrupted = self._update(batch, stopped)
        values["seconds"] = time.perf_counter() - begin_s
        if journal is not None:
            journal.update(self._step, values)
        self._step += 1
        last = self._step == settings.steps
        if self._workers.first:
            if self._validation.possible and (self._step % settings.evaluate_every == 0 or last):
                self._score(journal)
            if self._step % settings.save_every == 0 and not last:
                self._save()
        self._workers.wait()
        return interrupted

    def _update(
        self, batch: ClipBatch, stopped: Callable[[], bool]
    ) -> tuple[dict[str, float], bool]:
        settings = self._settings
        # For networks with dropout; nothing else draws from PyTorch.
        torch.manual_seed(settings.seed * 1_000_003 + self._step)
        prepared = self._preparation(batch, self._workers.device)
        with in_precision(self._workers.device, settings.precision):
            predictions = roll_clips(self._updates.network, prepared.images, batch.unroll)
        size = (prepared.depth.shape[2], prepared.depth.shape[3])
        predictions = self._preparation.compared(predictions.float(), size)
        objective = self._compare(predictions, prepared, self._step)
        verdicts = objective.verdicts
        judged = verdicts.total()
        numbers = torch.tensor(
            [
                float(objective.total.detach()),
                float(stopped()),
                judged,
                judged - verdicts["accepted"],
                verdicts["negative_scale"],
                objective.fits,
                objective.below,
                objective.labelled,
            ]
        ).to(self._workers.device)
        norm, rate = self._updates.apply(objective.total, self._step, numbers)
        loss, stop, judged_all, refused, negative, fits, below, labelled = numbers.tolist()
        self._upright.update(self._step, round(fits), round(below))
        self._count_unlabelled(labelled > 0)
        self._loss = loss / self._workers.count
        self._count_labels(round(judged_all), round(refused), round(negative))
        values = {
            "learning_rate": rate,
            "loss": self._loss,
            "gradient_norm": norm,
            "labels_judged": round(judged_all),
            "labels_refused": round(refused),
            "labels_negative_scale": round(negative),
            "updates_refused": self._updates.refused,
            "scales_below_0": round(below),
            **{name: float(part.detach()) for name, part in objective.parts.items()},
        }
        return values, stop > 0

    def _count_unlabelled(self, labelled: bool) -> None:
        """Give up where there is nothing to learn from: the loss is 0 then, and looks perfect."""
        self._unlabelled = 0 if labelled else self._unlabelled + 1
        if self._unlabelled == min(UNLABELLED_IN_A_ROW, self._settings.steps):
            raise DistillationError(
                f"{self._unlabelled} updates in a row had no label on any pixel, and nothing was "
                "learned from them: depth of the clips is unknown everywhere, or beyond "
                "'maximum_depth_m' or 'far_m', or no window ends at a camera frame (dae-ros clips "
                "--show)",
                step=self._step,
            )

    def _count_labels(self, judged: int, refused: int, negative: int) -> None:
        counters = self._counters
        counters["judged"] += judged
        counters["refused"] += refused
        counters["negative_scale"] += negative
        if (
            counters["judged"] >= JUDGED_AT_LEAST
            and 2 * counters["negative_scale"] > counters["judged"]
        ):
            raise DistillationError(
                f"{counters['negative_scale']} of {counters['judged']} labels fit the student only "
                "upside down (negative scale), and nothing was learned from them. Either the "
                "teacher's orientation in its manifest is wrong; or the student's number falls "
                "with depth, from the beginning or since the updates before 'refuse_after': begin "
                "with weights that give depth, or set normalised_weight=0.5",
                step=self._step,
                **counters,
            )

    def _score(self, journal: Journal | None) -> None:
        scores = self._validation(self._updates.average)
        if journal is not None:
            journal.score(self._step, scores)
        name = self._validation.deciding
        deciding = scores.get(name, float("nan"))
        if name.endswith("aligned_abs_rel"):
            positive = scores.get(name.replace("abs_rel", "positive_scale"), float("nan"))
            self._upright.score(positive)
            # Where the scale would be below 0 a constant is scored, and that is no choice.
            if not positive >= MEANINGFUL:
                return
        if deciding == deciding and (self._best is None or deciding < self._best):
            self._best, self._best_step = deciding, self._step
            self._write(BEST_FILE, {"heldout": json.dumps(scores, sort_keys=True)})

    def _write(self, name: str, extra: dict[str, str]) -> None:
        measured = {"orientation": self._upright.measured, "step": str(self._step)}
        with on_disk(self._folder / name):
            save_checkpoint(
                self._folder / name,
                self._updates.average,
                dataclasses.replace(self._meaning, orientation=self._upright.orientation),
                extra={**self._provenance, **extra, **measured},
            )

    def _save(self) -> None:
        if not self._workers.first:
            return
        # Before the weights: a run can go on from its state alone, and writes them again.
        save_state(
            self._folder,
            RunState(
                identity=self._identity,
                step=self._step,
                updates=self._updates.state(),
                counters=dict(self._counters),
                best=self._best,
                best_step=self._best_step,
                upright=self._upright.state(),
            ),
        )
        self._write(LAST_FILE, {})

    def _take_up(self, state: RunState) -> None:
        self._updates.load(state.updates)
        self._step = state.step
        self._counters = dict(state.counters)
        self._best, self._best_step = state.best, state.best_step
        self._upright.load(state.upright)

    def _step_of_last(self) -> str | None:
        """Return the update of last.safetensors; a kill may have come before it was written."""
        try:
            return read_provenance(self._folder / LAST_FILE).get("step")
        except WeightsError:
            return None

    @contextlib.contextmanager
    def _journal(self) -> Iterator[Journal | None]:
        if not self._workers.first:
            yield None
            return
        with Journal(self._folder, self._step, self._settings.tensorboard) as journal:
            yield journal


class _Ahead:
    """Reads the next batch from disk while the present one is learned from."""

    def __init__(self, sampler: ClipSampler, steps: int) -> None:
        self._sampler = sampler
        self._steps = steps
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[ClipBatch]] | None = None

    def batch(self, step: int) -> ClipBatch:
        if self._next is not None and self._next[0] == step:
            batch = self._next[1].result()
        else:
            batch = self._sampler.batch(step)
        self._next = None
        if step + 1 < self._steps:
            self._next = (step + 1, self._pool.submit(self._sampler.batch, step + 1))
        return batch

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
