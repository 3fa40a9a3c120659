"""What of a write-ahead log SQLite reads, and what it passes over without a word.

SQLite stops at the first frame whose checksum is wrong, and leaves out what was not committed.
Source of the layout: https://www.sqlite.org/fileformat.html, section 4.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
# Magic number -> order of the bytes in the words that are summed.
_WORD = {0x377F0682: "<u4", 0x377F0683: ">u4"}
# Of the frame's own header, what is summed.
_SUMMED = 8


def unread_of_log(log: Path) -> str:
    """Return a sentence on what of a log SQLite does not read, nothing where it reads all.

    Args:
        log: a write-ahead log that is not empty.
    """
    size = log.stat().st_size
    with log.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return f"{log} is cut within its header, so that nothing of it could be read"
        magic, _, page_size, _, *salts, first, second = _HEADER.unpack(header)
        word = _WORD.get(magic)
        if word is None or _Sums(24, word).of(header[:24]) != (first, second):
            return f"{log} is damaged at its beginning, so that nothing of it could be read"
        sums = _Sums(_SUMMED + page_size, word, (first, second))
        intact, damaged, behind = True, False, 0
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            page = file.read(page_size)
            _, committed, *own_salts, first, second = _FRAME.unpack(head)
            same = [own == salt for own, salt in zip(own_salts, salts, strict=True)]
            if not any(same):
                # Left over from before the log was begun anew, and no longer part of it. What
                # follows may still show that this one is not left over but damaged.
                intact = False
                continue
            intact = (
                intact
                and all(same)
                and len(page) == page_size
                and sums.of(head[:_SUMMED] + page) == (first, second)
            )
            damaged = damaged or not intact
            behind = 0 if intact and committed else behind + 1
    cut = (size - _HEADER.size) % (_FRAME.size + page_size) != 0
    if damaged:
        return f"{log} is cut or damaged, so that the last {behind} pages of it could not be read"
    if behind or (intact and cut):
        return (
            f"{log} ends in a transaction that was never finished: the recorder was killed, or "
            f"the copy was interrupted"
        )
    return ""


class _Sums:
    """The running checksum: for each pair of words a, b: s += a + t; t += b + s, modulo 2^32.

    Linear in what came before and in the words, so that each block is one product.

    Args:
        length: of the blocks in bytes, a multiple of 8.
        word: type of the words, `<u4` or `>u4`.
        start: the sums before the first block.
    """

    def __init__(self, length: int, word: str, start: tuple[int, int] = (0, 0)) -> None:
        self._word = word
        self._state: NDArray[np.uint32] = np.array(start, np.uint32)
        self._of_words = np.empty((2, length // 4), np.uint32)
        step = np.array([[1, 1], [1, 2]], np.uint32)
        power = np.eye(2, dtype=np.uint32)
        for pair in range(length - 8, -1, -8):
            self._of_words[:, pair // 4 : pair // 4 + 2] = power @ np.array(
                [[1, 0], [1, 1]], np.uint32
            )
            power = power @ step
        self._of_state = power

    def of(self, block: bytes) -> tuple[int, int]:
        """Add a block and return the sums behind it."""
        words = np.frombuffer(block, self._word).astype(np.uint32)
        self._state = self._of_state @ self._state + self._of_words @ words
        return int(self._state[0]), int(self._state[1])
