"""What of PyTorch belongs to the whole process while its threads step, record and learn."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

# Held while a step is recorded as graphs. Two recordings must not overlap, and nobody may empty
# PyTorch's cache meanwhile: each waits for the device, which CUDA forbids while any stream of it is
# being recorded, and the allocator gives nothing back then. What other threads launch and allocate
# on streams of their own is no part of a recording (`capture_error_mode="thread_local"`).
RECORDING = threading.Lock()


class Shared(contextlib.AbstractContextManager[None]):
    """A setting of the process for all that are inside: the first one makes it, the last undoes it.

    PyTorch's own contexts put back what they found: where two threads overlap, the one that leaves
    first takes the setting from the other.

    Args:
        make: the context of the setting.
    """

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0
        self._setting = contextlib.ExitStack()

    def __enter__(self) -> None:
        """Make the setting, if nobody has yet."""
        with self._lock:
            if self._inside == 0:
                self._setting.enter_context(self._make())
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo it, if nobody else is inside."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._setting.close()


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Compute float32 in float32, and the same bits from the same input.

    By the newer ones of PyTorch's settings alone, of each kind of operation: the older ones
    (`allow_tf32`) are an error as soon as somebody in the process has used the newer ones, and say
    nothing about what an environment variable has asked for. Before 2.9 there are no others.
    """
    # PyTorch does not type these.
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    settings: list[tuple[Any, str, object]] = [
        (cudnn, "enabled", True), (cudnn, "benchmark", False), (cudnn, "deterministic", True),
    ]  # fmt: skip
    if hasattr(torch.backends, "fp32_precision"):
        settings += [(kind, "fp32_precision", "ieee") for kind in (cudnn.conv, cudnn.rnn, matmul)]
    else:
        settings += [(kind, "allow_tf32", False) for kind in (cudnn, matmul)]
    before = [getattr(owner, name) for owner, name, _ in settings]
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)


EXACT_ARITHMETIC = Shared(_exact)


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, set every deterministic switch for the time of a run: same input, same bits.

    To be entered before anything is computed there. PyTorch warns of operations that it cannot make
    deterministic.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def release_unused(device: torch.device) -> None:
    """Give memory back that is kept for later; else it would count as used for ever.

    PyTorch keeps that of the GPU, glibc that of the machine: the launch files tell it to keep up
    to 512 MB. Other C libraries have no `malloc_trim`.
    """
    if device.type == "cuda":
        with RECORDING:
            torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def used_bytes(device: torch.device) -> int:
    """Return how much memory the process has, of the machine or of the GPU, whichever is more.

    Pages of files that are mapped (clips, libraries) do not count: the kernel keeps them as long as
    nobody needs the memory, and takes them back at once.
    """
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    own = (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
    return own if device.type != "cuda" else max(own, torch.cuda.memory_reserved(device))
