"""Benchmarks as processes that a launch starts."""

from __future__ import annotations

import os
import sys

from dae_ros.nodes.processes import transport_environment


def start_as_launched(module: str, **more: str) -> None:
    """Start this process anew with the environment of the launch files, unless it has it.

    The allocator reads its settings when a process starts. Without them whoever receives a depth
    image of 1.2 MB faults its pages in again for each, which takes milliseconds.

    Args:
        module: that is run, as behind `python -m`.
        more: variables that it needs as well, whatever they were.
    """
    wanted = {**transport_environment(), **more}
    if not wanted.items() <= os.environ.items():
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **wanted})
