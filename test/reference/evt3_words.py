"""EVT 3.0 word by word, after the format's description and the table in `docs/time.md`."""

from __future__ import annotations

from test.reference.decoded import TOLERANCE_NS, Decoded, Stream


class Evt3Words(Stream):
    """Decodes one word after the other; nothing is precomputed."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.high: int | None = None
        self.low_known = False
        self.wraps = 0
        self.sensor_time = 0
        self.row: int | str | None = None
        self.base: int | None = None
        self.base_polarity = 0

    def forget_position(self) -> None:
        self.row = None
        self.base = None

    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        for octets in self.whole(payload, 2):
            word = int.from_bytes(octets, "little")
            kind, value = word // 4096, word % 4096
            if kind == 0:
                if self.newest is not None:
                    self.row = value % 2048
            elif kind == 1:
                if self.newest is not None:
                    self.row = "not cd"
            elif kind == 2:
                self._events(out, value % 2048, value // 2048, "1")
            elif kind == 3:
                if self.newest is not None:
                    self.base = value % 2048
                    self.base_polarity = value // 2048
            elif kind == 4:
                self._vector(out, f"{value:012b}"[::-1])
            elif kind == 5:
                self._vector(out, f"{value % 256:08b}"[::-1])
            elif kind == 6:
                if self.high is not None:
                    self.low_known = True
                    self._set_time(out, value)
            elif kind == 8:
                self._time_high(out, value)
            elif kind == 10:
                if self.low_known and self.newest is not None:
                    out.triggers.append((self.newest, value % 2, value // 256))
                else:
                    self.counts["trigger_before_sync"] += 1
            elif kind in (11, 12):
                self.counts["unknown_word"] += 1
            else:
                self.counts["skipped_word"] += 1
        return out

    def _time_high(self, out: Decoded, value: int) -> None:
        if self.high is None:
            self.high = value
            return
        if value == self.high:
            return
        if self.high - value >= 2048:
            self.wraps += 1
            self.counts["wraps"] += 1
        elif value - self.high >= 4093 and self.newest is not None:
            self.wraps -= 1
        self.high = value
        if self.newest is None:
            return
        earliest = (self.wraps * 2**24 + value * 4096) * 1000
        latest = earliest + 4095 * 1000
        if earliest >= self.newest:
            self.low_known = True
            self._set_time(out, 0)
        elif latest >= self.newest - TOLERANCE_NS:
            self.low_known = True
            self.sensor_time = earliest
        else:
            self.low_known = False

    def _set_time(self, out: Decoded, low: int) -> None:
        assert self.high is not None
        time = (self.wraps * 2**24 + self.high * 4096 + low) * 1000
        self.sensor_time = time
        if self.newest is None or time >= self.newest:
            self.newest = time
        elif self.newest - time > TOLERANCE_NS:
            self.counts["time_breaks"] += 1
            out.cut(self.newest - time)
            self.newest = time
            self.forget_position()

    def _vector(self, out: Decoded, bits: str) -> None:
        if self.base is None:
            self._events(out, None, 0, bits)
            return
        self._events(out, self.base, self.base_polarity, bits)
        self.base += len(bits)

    def _events(self, out: Decoded, first: int | None, polarity: int, bits: str) -> None:
        for offset, bit in enumerate(bits):
            if bit == "0":
                continue
            if self.row == "not cd":
                self.counts["not_cd"] += 1
            elif not self.low_known or self.row is None or first is None or self.newest is None:
                self.counts["before_sync"] += 1
            elif self.inside(first + offset, int(self.row)):
                if self.sensor_time < self.newest:
                    self.counts["time_raised"] += 1
                out.add(self.newest, first + offset, int(self.row), polarity)
