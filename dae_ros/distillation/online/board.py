"""Curves of live learning for TensorBoard; a full disk costs points of them, no learning."""

from __future__ import annotations

from pathlib import Path

from dae_ros.distillation.curves import Curves
from dae_ros.distillation.online.reports import LoopReport

# A file that a disk had no room for ends there; so often another one is begun.
OPEN_AGAIN_NS = 30_000_000_000


class Board:
    """Writes the numbers of each piece of work below a folder.

    Args:
        folder: of the learner.
        first_step: what an earlier process wrote from here on is not shown.
        now_ns: any clock that only grows; the same for all calls.

    Attributes:
        problem: why nothing is written; '' where all is well.

    Raises:
        ConfigurationError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first_step: int, now_ns: int) -> None:
        self._folder = folder
        self._curves: Curves | None = None
        self.problem = ""
        self._open(first_step, now_ns)

    def write(self, report: LoopReport, steps: int, now_ns: int) -> None:
        """Write what a piece of work gave, after `steps` steps."""
        if self._curves is None and now_ns >= self._again_ns:
            self._open(steps, now_ns)
        if self._curves is None:
            return
        try:
            self._curves.write(report.action, steps, report.numbers())
        except OSError as error:
            self._lost(error, now_ns)

    def close(self) -> None:
        """Close the file."""
        curves, self._curves = self._curves, None
        if curves is not None:
            curves.close()

    def _open(self, first_step: int, now_ns: int) -> None:
        try:
            self._curves = Curves(self._folder, first_step)
            self.problem = ""
        except OSError as error:
            self._lost(error, now_ns)

    def _lost(self, error: OSError, now_ns: int) -> None:
        self.close()
        self._again_ns = now_ns + OPEN_AGAIN_NS
        self.problem = (
            f"curves for TensorBoard cannot be written to {self._folder} ({error}); make room there"
        )
