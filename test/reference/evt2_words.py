"""EVT 2.0 and EVT 2.1 word by word, after the formats' descriptions and `docs/time.md`."""

from __future__ import annotations

from test.reference.decoded import TOLERANCE_NS, Decoded, Stream


class _Evt2Time(Stream):
    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.high: int | None = None
        self.wraps = 0

    def forget_position(self) -> None:
        pass

    def time_high(self, out: Decoded, value: int) -> None:
        if self.high is not None:
            if self.high - value >= 2**27:
                self.wraps += 1
                self.counts["wraps"] += 1
            elif value - self.high >= 2**28 - 157:
                self.wraps -= 1
        self.high = value
        time = (self.wraps * 2**34 + value * 64) * 1000
        if self.newest is not None and self.newest - time > TOLERANCE_NS:
            self.counts["time_breaks"] += 1
            out.cut(self.newest - time)
            self.newest = time
        elif self.newest is None or time > self.newest:
            self.newest = time

    def time(self, low: int) -> tuple[int, bool]:
        """Return the time of a word and whether it had to be raised."""
        assert self.high is not None
        assert self.newest is not None
        time = (self.wraps * 2**34 + self.high * 64 + low) * 1000
        raised = time < self.newest
        self.newest = max(self.newest, time)
        return self.newest, raised

    def cd(self, out: Decoded, low: int, columns: list[int], row: int, polarity: int) -> None:
        if self.high is None:
            self.counts["before_sync"] += len(columns)
            return
        time, raised = self.time(low)
        for column in columns:
            if self.inside(column, row):
                self.counts["time_raised"] += raised
                out.add(time, column, row, polarity)

    def trigger(self, out: Decoded, low: int, channel: int, edge: int) -> None:
        if self.high is None:
            self.counts["trigger_before_sync"] += 1
        else:
            out.triggers.append((self.time(low)[0], edge, channel))


class Evt2Words(_Evt2Time):
    """32-bit words; bit fields are cut from their text form."""

    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        for octets in self.whole(payload, 4):
            bits = f"{int.from_bytes(octets, 'little'):032b}"
            kind, low = int(bits[:4], 2), int(bits[4:10], 2)
            if kind in (0, 1):
                self.cd(out, low, [int(bits[10:21], 2)], int(bits[21:], 2), kind)
            elif kind == 8:
                self.time_high(out, int(bits[4:], 2))
            elif kind == 10:
                self.trigger(out, low, int(bits[19:24], 2), int(bits[31]))
            else:
                self.counts["skipped_word" if kind >= 13 else "unknown_word"] += 1
        return out


class Evt21Words(_Evt2Time):
    """64-bit words; bit fields are cut from their text form."""

    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        for octets in self.whole(payload, 8):
            bits = f"{int.from_bytes(octets, 'little'):064b}"
            kind, low = int(bits[:4], 2), int(bits[4:10], 2)
            if kind in (0, 1):
                first = int(bits[10:21], 2)
                columns = [first + k for k, bit in enumerate(reversed(bits[32:])) if bit == "1"]
                self.cd(out, low, columns, int(bits[21:32], 2), kind)
            elif kind == 8:
                self.time_high(out, int(bits[4:32], 2))
            elif kind == 10:
                self.trigger(out, low, int(bits[19:24], 2), int(bits[31]))
            else:
                self.counts["skipped_word" if kind >= 14 else "unknown_word"] += 1
        return out
