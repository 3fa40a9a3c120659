"""How the event half compiles its numba kernels: without the GIL, cached on disk where possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile `function` on its first call, release the GIL in it and cache the machine code.

    The cache lies beside the source file, or in `NUMBA_CACHE_DIR`. Where neither that nor the
    user's cache directory can be written numba refuses to cache at all; the kernel is then
    compiled again in every process, which costs seconds at configure time and nothing later.

    The cache is keyed by the file that holds the function. A kernel therefore calls no compiled
    function of another file: a change there would not be noticed.
    """
    try:
        compiled = njit(nogil=True, cache=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        compiled = njit(nogil=True)(function)
    return cast(Function, compiled)
