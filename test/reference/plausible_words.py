"""Random payloads of every encoding, rich in wraps, disorder, breaks and strays."""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT = 70, 50
WORD_BYTES = {
    "evt3": 2, "evt2": 4, "evt2.1": 8, "mono": 8, "libcaer": 8, "libcaer_cmp": 2,
    "event_array_cdr": 16, "event_array_ros1": 13,
}  # fmt: skip


def _evt3_word(rng: np.random.Generator, size: int) -> bytes:
    shares = np.array([8, 1, 25, 5, 8, 4, 16, 1, 16, 1, 3, 1, 1, 1, 1, 1])
    kind = rng.choice(16, size, p=shares / shares.sum())
    value = rng.integers(0, 4096, size)
    small = rng.integers(0, 80, size) | rng.integers(0, 2, size) << 11
    value = np.where((kind == 0) | (kind == 2) | (kind == 3), small, value)
    near = np.cumsum(rng.choice([0, 1, -1, 2, -3, 2040, 2048], size, p=[0.5, 0.3] + [0.04] * 5))
    value = np.where(kind == 8, near % 4096, value)
    return (kind << 12 | value).astype("<u2").tobytes()


def _evt2_high(rng: np.random.Generator, size: int) -> np.ndarray:
    steps = np.array([0, 1, -1, 150, -150, -158, 2**27, -(2**27), 2**28 - 157])
    return np.cumsum(rng.choice(steps, size, p=[0.4, 0.36] + [0.24 / 7] * 7)) % 2**28


def _evt2_word(rng: np.random.Generator, size: int) -> bytes:
    shares = np.array([20, 20, 1, 0, 0, 0, 0, 0, 30, 0, 5, 1, 0, 1, 1, 1])
    kind = rng.choice(16, size, p=shares / shares.sum())
    x, y = rng.integers(0, WIDTH + 4, size), rng.integers(0, HEIGHT + 4, size)
    value = rng.integers(0, 64, size) << 22 | x << 11 | y
    value = np.where(kind == 8, _evt2_high(rng, size), value)
    return (kind << 28 | value).astype("<u4").tobytes()


def _evt21_word(rng: np.random.Generator, size: int) -> bytes:
    head = np.frombuffer(_evt2_word(rng, size), "<u4").astype(np.uint64)
    mask = np.bitwise_and.reduce(rng.integers(0, 2**32, (3, size)))
    return (head << np.uint64(32) | mask.astype(np.uint64)).tobytes()


def _times(rng: np.random.Generator, size: int, unit: int) -> np.ndarray:
    steps = np.array([0, 7, 999, -3, -9000, -11000, 20000]) * unit
    shares = [0.3, 0.3, 0.2, 0.1, 0.04, 0.03, 0.03]
    return 10**6 * unit + np.cumsum(rng.choice(steps, size, p=shares))


def _mono_word(rng: np.random.Generator, size: int) -> bytes:
    words = np.empty(size, [("t", "<u4"), ("x", "<u2"), ("y", "<u2")])
    words["t"] = _times(rng, size, 1000) % 2**32
    words["x"] = rng.integers(0, WIDTH + 3, size)
    words["y"] = rng.integers(0, HEIGHT + 3, size) | rng.integers(0, 2, size) << 15
    return words.tobytes()


def _libcaer_word(rng: np.random.Generator, size: int) -> bytes:
    words = np.empty(size, [("data", "<u4"), ("t", "<u4")])
    x, y = rng.integers(0, WIDTH + 3, size), rng.integers(0, HEIGHT + 3, size)
    words["data"] = x << 17 | y << 2 | rng.integers(0, 2, size) << 1 | (rng.random(size) < 0.97)
    roll = 2**31 - 500_000 if rng.random() < 0.5 else 0
    negative = (rng.random(size) < 0.01).astype("u4") << 31
    words["t"] = (_times(rng, size, 1) + roll) % 2**31 | negative
    return words.tobytes()


def _libcaer_cmp_word(rng: np.random.Generator, size: int) -> bytes:
    kind = rng.choice(8, size, p=np.array([4, 25, 15, 30, 6, 10, 1, 1]) / 92)
    value = rng.integers(0, 60, size) | rng.integers(0, 2, size) << 11
    value = np.where(kind == 0, rng.integers(0, 4, size), value)
    value = np.where((kind == 1) | (kind == 5), rng.integers(0, 4096, size), value)
    return (kind << 12 | value).astype("<u2").tobytes()


def _array_word(rng: np.random.Generator, size: int, *, cdr: bool) -> bytes:
    fields = [("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")]
    if cdr:
        fields = [*fields[:2], ("pad", "<u2"), *fields[2:], ("tail", "u1")]
    words = np.zeros(size, fields)
    t = _times(rng, size, 1000)
    words["x"] = rng.integers(0, WIDTH + 3, size)
    words["y"] = rng.integers(0, HEIGHT + 3, size)
    words["s"], words["ns"] = t // 10**9, t % 10**9
    words["ns"] += (rng.random(size) < 0.01) * np.uint32(10**9)
    words["p"] = rng.choice([0, 1, 2], size, p=[0.5, 0.49, 0.01])
    octets = words.tobytes()
    return octets[:4] + octets[6:-1] if cdr else octets


PLAUSIBLE = {
    "evt3": _evt3_word,
    "evt2": _evt2_word,
    "evt2.1": _evt21_word,
    "mono": _mono_word,
    "libcaer": _libcaer_word,
    "libcaer_cmp": _libcaer_cmp_word,
    "event_array_cdr": lambda rng, size: _array_word(rng, size, cdr=True),
    "event_array_ros1": lambda rng, size: _array_word(rng, size, cdr=False),
}
