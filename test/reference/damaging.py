"""Damaged copies of a file: cut, and with single bytes changed, the same ones every time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from dae_ros.errors import RecordingError

CASES = 300


def damaged(data: bytes, cases: int = CASES) -> Iterator[tuple[str, bytes]]:
    """Yield what was done and what came of it: half of the cases cuts, half changed bytes.

    A file that is short enough is cut at every place.
    """
    step = max(1, -(-len(data) // (cases // 2)))
    for size in range(0, len(data), step):
        yield f"cut after {size} of {len(data)} bytes", data[:size]
    choose = random.Random(7)
    for _ in range(cases // 2):
        changed = bytearray(data)
        for _ in range(choose.randint(1, 3)):
            place = choose.randrange(len(changed))
            changed[place] ^= choose.randint(1, 255)
        yield f"changed to {changed.hex()}" if len(data) < 500 else "changed", bytes(changed)


def surprises(path: Path, read: Callable[[], object], cases: int = CASES) -> list[str]:
    """Read damaged copies of a file in its place; return what was raised but `RecordingError`."""
    found = []
    whole = path.read_bytes()
    for number, (what, data) in enumerate(damaged(whole, cases)):
        path.write_bytes(data)
        try:
            read()
        except RecordingError:
            pass
        except Exception as error:  # noqa: BLE001  (whatever it is)
            found.append(f"case {number}, {what}: {error!r}")
    path.write_bytes(whole)
    return found
