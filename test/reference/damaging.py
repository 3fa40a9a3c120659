"""What damaged files hold: copies that are cut or changed in single bytes, and wrong values."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dae_ros.errors import RecordingError

CASES = 300
# What a field of JSON may hold instead of what belongs there.
VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", [], {}, [[]], [None] * 4, [1, 2, 3, 4], [10**9] * 4),
    *(-1, 0, 1, 10**9, 10**400, -1.5, 1.5, 1e300, math.nan, math.inf),
)


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
