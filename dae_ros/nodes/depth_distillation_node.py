"""Depth and distillation in one process, for one small GPU: one CUDA context, two priorities.

The nodes are those of the two-process mode, with their own names, parameters and threads. They
share the interpreter, so that Python of the learner makes depth wait where two processes would not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from dae_ros.nodes import depth_node, distillation_node
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.depth_worker import DepthWorker
from dae_ros.nodes.distillation_worker import DistillationWorker
from dae_ros.nodes.entry import leave_despite, run
from dae_ros.nodes.garbage import GarbageCollection

USAGE = Usage(
    "depth_distillation_node",
    "Runs depth_node and distillation_node in one process, which saves a second CUDA context.\n"
    "Parameters stand in a file with a section for each node, /**/depth and /**/distillation.",
    main="weights",
    examples=("--ros-args --params-file depth_and_distillation.yaml",),
)


def main(args: list[str] | None = None) -> int:
    """Run both nodes until they are interrupted; returns the exit code."""
    depth = partial(depth_node.DepthNode, garbage=GarbageCollection())
    kinds: list[Callable[[], Any]] = [depth, distillation_node.DistillationNode]
    code = run(kinds, USAGE, args, interrupt=lambda node: node.interrupt())
    for kind in (DepthWorker, DistillationWorker):
        leave_despite(kind.THREAD_NAME, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
