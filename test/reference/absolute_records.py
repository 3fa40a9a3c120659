"""`mono`, `libcaer`, `libcaer_cmp` and the event arrays, record by record with `struct`."""

from __future__ import annotations

import struct

from test.reference.decoded import Decoded, Stream


class MonoRecords(Stream):
    def forget_position(self) -> None:
        pass

    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        for record in self.whole(payload, 8):
            delta, x, row_and_polarity = struct.unpack("<IHH", record)
            y, p = row_and_polarity % 2**15, row_and_polarity // 2**15
            self.add_timed(out, time_base_ns + delta, x, y, p)
        return out


class LibcaerRecords(MonoRecords):
    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        rolls = 0
        last = None
        for record in self.whole(payload, 8):
            data, time_us = struct.unpack("<Ii", record)
            if data % 2 == 0 or time_us < 0:
                self.counts["invalid"] += 1
                continue
            if last is not None and last - time_us > 2**30:
                rolls += 1
                self.counts["wraps"] += 1
            elif last is not None and time_us - last > 2**30 and rolls > 0:
                rolls -= 1
            last = time_us
            t = time_base_ns + (rolls * 2**31 + time_us) * 1000
            self.add_timed(out, t, data // 2**17, data // 4 % 2**15, data // 2 % 2)
        return out


class LibcaerCmpWords(MonoRecords):
    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        high = low = base_polarity = 0
        column: int | None = None
        base: int | None = None
        for octets in self.whole(payload, 2):
            (word,) = struct.unpack("<H", octets)
            kind, value = divmod(word, 4096)
            rows: list[tuple[int | None, int]] = []
            if kind == 0:
                high = value
            elif kind == 1:
                low = value
            elif kind == 2:
                column = value % 2048
            elif kind == 3:
                rows = [(value % 2048, value // 2048)]
            elif kind == 4:
                base, base_polarity = value % 2048, value // 2048
            elif kind == 5:
                for k in range(8):
                    if value & (1 << k):
                        rows.append((None if base is None else base + k, base_polarity))
                base = None if base is None else base + 8
            else:
                self.counts["unknown_word"] += 1
            for row, polarity in rows:
                if row is None or column is None:
                    self.counts["before_sync"] += 1
                else:
                    t = time_base_ns + (high * 4096 + low) * 1000
                    self.add_timed(out, t, column, row, polarity)
        return out


class ArrayRecordsCdr(MonoRecords):
    """Reads field after field with the alignment rule of XCDR1 instead of fixed strides."""

    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        at = 0
        while True:
            start = at
            values = []
            for size, code in ((2, "H"), (2, "H"), (4, "i"), (4, "I"), (1, "B")):
                at += -at % size
                if at + size > len(payload):
                    # octets that are only the padding between records are remains, too
                    if start < len(payload):
                        self.counts["trailing_bytes"] += len(payload) - start
                    return out
                values.append(struct.unpack_from("<" + code, payload, at)[0])
                at += size
            self._record(out, *values)

    def _record(self, out: Decoded, x: int, y: int, seconds: int, ns: int, polarity: int) -> None:
        if ns >= 10**9 or polarity > 1 or not 0 <= seconds < 2**31:
            self.counts["invalid"] += 1
        else:
            self.add_timed(out, seconds * 10**9 + ns, x, y, polarity)


class ArrayRecordsRos1(ArrayRecordsCdr):
    def decode(self, payload: bytes, time_base_ns: int = 0) -> Decoded:
        out = Decoded()
        for record in self.whole(payload, 13):
            self._record(out, *struct.unpack("<HHIIB", record))
        return out
