"""Progress on stderr: a line that moves on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

_BAR = 24
_REDRAW_S = 0.1
# Elsewhere than on a terminal nobody waits longer for a line than this, or than this share of the
# time so far, so that a log of hours stays short.
_QUIET_S = 10.0
_QUIET_SHARE = 0.05


class ProgressBar:
    """Shows how far something is, how fast, and how long it will still take.

    Where the stream is no terminal, each ten percent are a line, and so is a long silence. Several
    threads may use it.

    Args:
        stream: where to write.
        terminal: whether to redraw one line; None asks the stream.
    """

    def __init__(self, stream: TextIO | None = None, terminal: bool | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty() if terminal is None else terminal
        self._lock = threading.Lock()
        self._open = False
        self.restart()

    def restart(self) -> None:
        """Count time and tenths from here on: another kind of work begins."""
        self._begin_s = self._said_s = time.monotonic()
        self._drawn_s = 0.0
        self._tenths = 0

    def update(self, fraction: float | None, detail: str) -> None:
        """Show `fraction` (0 to 1, None where the length is not known) and a detail."""
        now_s = time.monotonic()
        with self._lock:
            if self._terminal:
                if now_s - self._drawn_s < _REDRAW_S:
                    return
                self._drawn_s = now_s
                self._stream.write(f"\r\x1b[K{self._line(fraction, detail, now_s)}")
                self._open = True
            elif fraction is not None and int(fraction * 10) > self._tenths:
                self._tenths = int(fraction * 10)
                self._said_s = now_s
                self._stream.write(f"{self._tenths * 10} %  {detail}\n")
            elif now_s - self._said_s >= max(_QUIET_S, _QUIET_SHARE * (now_s - self._begin_s)):
                self._said_s = now_s
                self._stream.write(f"{detail}, {now_s - self._begin_s:.0f} s\n")
            else:
                return
            self._stream.flush()

    def close(self) -> None:
        """End the line."""
        with self._lock:
            self._close()

    def note(self, text: str) -> None:
        """Write a sentence above the moving line."""
        with self._lock:
            self._close()
            self._stream.write(text + "\n")
            self._stream.flush()

    def _close(self) -> None:
        if self._open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._open = False

    def _line(self, fraction: float | None, detail: str, now_s: float) -> str:
        spent_s = now_s - self._begin_s
        if fraction is None:
            return f"{detail}  {spent_s:.0f} s"
        filled = round(fraction * _BAR)
        bar = "#" * filled + "." * (_BAR - filled)
        left = f"{spent_s / fraction - spent_s:.0f} s left" if fraction > 0.01 else ""
        return f"[{bar}] {fraction:4.0%}  {detail}  {left}"
