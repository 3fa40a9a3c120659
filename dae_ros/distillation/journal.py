"""What a run writes down as it goes: CSV always, TensorBoard on demand."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from dae_ros.distillation.checkpointing import on_disk
from dae_ros.distillation.curves import FOLDER, Curves

UPDATE_COLUMNS = (
    "step", "learning_rate", "loss", "data", "gradient", "normalised", "local_global",
    "gradient_norm", "labels_judged", "labels_refused", "labels_negative_scale",
    "updates_refused", "seconds", "scales_below_0",
)  # fmt: skip


class Journal:
    """`updates.csv` (a row per update) and `heldout.csv` (a row per score) of a run.

    Rows of updates that will be done again are cut off, so that a run which was killed reads as
    one that was not; a file that is there keeps its columns.

    Args:
        folder: of the run.
        first_step: of the next update.
        tensorboard: whether to write `tensorboard/` as well.

    Raises:
        ConfigurationError: TensorBoard is not installed.
        DistillationError: a file cannot be written; also from `update` and `score`.
    """

    def __init__(self, folder: Path, first_step: int, tensorboard: bool) -> None:
        self._curves_folder = folder / FOLDER
        self._curves: Curves | None = None
        with contextlib.ExitStack() as opened:
            self._updates = _Table(folder / "updates.csv", first_step)
            opened.callback(self._updates.close)
            self._heldout = _Table(folder / "heldout.csv", first_step + 1)
            opened.callback(self._heldout.close)
            if tensorboard:
                with on_disk(self._curves_folder):
                    self._curves = Curves(folder, first_step)
                opened.callback(self._curves.close)
            self._opened = opened.pop_all()

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Write one update down; what it does not have stays empty."""
        self._updates.write(UPDATE_COLUMNS, {"step": step, **values})
        self._show("update", step, values)

    def score(self, step: int, values: Mapping[str, float]) -> None:
        """Write down the scores after `step` updates."""
        self._heldout.write(("step", *values), {"step": step, **values})
        self._show("heldout", step, values)

    def _show(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self._curves is not None:
            with on_disk(self._curves_folder):
                self._curves.write(group, step, values)

    def __enter__(self) -> Journal:
        """Return the journal."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._opened.close()


class _Table:
    """A CSV file that is appended to."""

    def __init__(self, path: Path, first_step: int) -> None:
        rows: list[list[str]] = []
        self._path = path
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                every = [row for row in csv.reader(file) if row]
            # The last row may be half of one.
            width = len(every[0]) if every else 0
            rows = [
                row
                for index, row in enumerate(every)
                if index == 0
                or (len(row) == width and row[0].isdigit() and int(row[0]) < first_step)
            ]
            temporary = path.with_name(f".{path.name}.tmp")
            with on_disk(path), temporary.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(rows)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        self._columns = tuple(rows[0]) if rows else ()
        with on_disk(path):
            self._file = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)

    def write(self, columns: tuple[str, ...], values: Mapping[str, float]) -> None:
        with on_disk(self._path):
            if not self._columns:
                self._columns = columns
                self._writer.writerow(columns)
            self._writer.writerow([_text(values.get(name, "")) for name in self._columns])
            self._file.flush()

    def close(self) -> None:
        # Every row was flushed; what is left is half a row that did not fit.
        with contextlib.suppress(OSError):
            self._file.close()


def _text(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
