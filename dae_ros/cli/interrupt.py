"""Ctrl-C that lets files be finished."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

EXIT_INTERRUPTED = 130


class InterruptFlag:
    """While entered, the first SIGINT is only remembered; a second one interrupts at once."""

    def __init__(self) -> None:
        self._seen = False

    def __call__(self) -> bool:
        """Return whether an interrupt has come."""
        return self._seen

    def __enter__(self) -> InterruptFlag:
        """Take over SIGINT."""
        self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._before)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._seen = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
