"""What a processor can compute in: why a precision is fast on one machine and absent on another."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
# Names of x86 and, behind them, of ARM.
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
# Of int8, what OpenVINO takes first where there are several. The same graph gives other values with
# another of them, by far more than rounding explains.
OF_INT8 = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
OF_NETWORKS = (
    "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_fp16", "amx_int8", "asimd",
    "asimddp", "i8mm", *BFLOAT16,
)  # fmt: skip


def processor_flags() -> frozenset[str]:
    """Return what Linux says of the first processor; nothing on other systems."""
    if not _INFO.exists():
        return frozenset()
    for line in _INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def int8_instructions() -> str:
    """Return which of `OF_INT8` this processor computes int8 with; `none` without any."""
    flags = processor_flags()
    return next((name for name in OF_INT8 if name in flags), "none")


def said_of(flags: Collection[str]) -> str:
    """Return those flags that the speed of networks depends on, for people."""
    return " ".join(name for name in OF_NETWORKS if name in flags) or "none that matter here"


def bfloat16_obstacle(flags: Collection[str]) -> str | None:
    """Return why bfloat16 is not worth a measurement: emulated it is slower than float32."""
    if any(name in flags for name in BFLOAT16):
        return None
    return (
        f"this processor has no bfloat16, which would be {' or '.join(BFLOAT16)} (its flags: "
        f"{said_of(flags)})"
    )
