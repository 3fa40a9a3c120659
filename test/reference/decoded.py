"""What the straight-line decoders of this folder return, and the rules that they share."""

from __future__ import annotations

from collections import Counter

TOLERANCE_NS = 10_000_000


class Decoded:
    """Rows collected word by word, cut where time runs back too far."""

    def __init__(self) -> None:
        self.segments: list[list[tuple[int, int, int, int]]] = []
        self.triggers: list[tuple[int, int, int]] = []
        self.breaks: list[int] = []
        self.trigger_cuts: list[int] = []

    def add(self, t: int, x: int, y: int, p: int) -> None:
        if not self.segments:
            self.segments.append([])
        self.segments[-1].append((t, x, y, p))

    def cut(self, back_ns: int) -> None:
        if self.triggers and not self.segments:
            self.segments.append([])  # the triggers lie before the cut
        self.breaks.append(back_ns)
        self.trigger_cuts.append(len(self.triggers))
        self.segments.append([])


class Stream:
    """Newest time and counts of one stream."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.newest: int | None = None
        self.counts: Counter[str] = Counter()

    def inside(self, x: int, y: int) -> bool:
        if x < self.width and y < self.height:
            return True
        self.counts["out_of_bounds"] += 1
        return False

    def add_timed(self, out: Decoded, t: int, x: int, y: int, p: int) -> None:
        """Add an event that carries its own time, by the order rule."""
        if not self.inside(x, y):
            return
        if self.newest is not None and t < self.newest:
            if self.newest - t > TOLERANCE_NS:
                self.counts["time_breaks"] += 1
                out.cut(self.newest - t)
            else:
                self.counts["time_raised"] += 1
                t = self.newest
        self.newest = t
        out.add(t, x, y, p)

    def whole(self, payload: bytes, size: int) -> list[bytes]:
        """Cut a payload into records of `size` octets and count what remains."""
        rest = len(payload) % size
        if rest:
            self.counts["trailing_bytes"] += rest
        return [payload[i : i + size] for i in range(0, len(payload) - rest, size)]
