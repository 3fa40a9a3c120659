"""A folder with labelled clips and anchors enough for a judgement, and no step yet."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dae_ros.distillation.online.live import LiveDistillation
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.parameters import DistillationNodeParameters
from test.reference.echo_onnx import write_echo
from test.reference.taught_student import taught_student
from test.reference.wall_deployment import PARAMETERS, EchoTeacher

SECOND = 1_000_000_000
# Anchors that are pinned lie further apart than 10 s.
AGAIN_NS = 11 * SECOND


def moved(item: EventPacket | Frame, offset_ns: int) -> EventPacket | Frame:
    """Return what a camera sends, at another time."""
    stamp_ns = item.stamp_ns + offset_ns
    if isinstance(item, Frame):
        return dataclasses.replace(item, stamp_ns=stamp_ns)
    absolute = item.encoding == "mono"
    time_base_ns = item.time_base_ns + (offset_ns if absolute else 0)
    return dataclasses.replace(item, stamp_ns=stamp_ns, time_base_ns=time_base_ns)


def write_files(folder: Path, seen: Sequence[EventPacket | Frame]) -> dict[str, Any]:
    """Write a student, and a teacher that says 1.2 times what it says; return parameters."""
    student = taught_student()
    save_checkpoint(folder / "student.safetensors", student.network, student.meaning)
    teacher = write_echo(folder, EchoTeacher(student, seen, 1.2).known, 1.2)
    return {
        **PARAMETERS, "weights": str(folder / "student.safetensors"), "teacher": str(teacher),
        "device": "cpu", "threads": 1, "duty": 1.0, "hold_after_s": 60.0, "pinned_clips": 2,
        "latency_budget_ms": 1e6,
    }  # fmt: skip


def prepare(values: Mapping[str, Any], seen: Sequence[EventPacket | Frame], folder: Path) -> None:
    """Label until a judgement has all it needs, on a clock of its own.

    Not a step: an untrained student's shape is soon bent, and the guard refuses it for that.
    """
    clock = itertools.count(0, SECOND // 50)
    live = LiveDistillation(
        DistillationNodeParameters.from_mapping(
            {**values, "batch_clips": 1000, "folder": str(folder)}
        ),
        announce=lambda _: None,
        clock_ns=lambda: next(clock),
    )
    live.begin()
    for again, item in itertools.product(range(10), seen):
        now = moved(item, again * AGAIN_NS)
        live.add_frame(now) if isinstance(now, Frame) else live.feed(now)
        live.turn()
        loop = live.status().loop
        if loop is not None and min(loop.heldout_blocks, loop.anchors, loop.clips) >= 2:
            break
    else:
        raise AssertionError(live.status())
    live.end()
    live.close()
