"""The loop on recordings whose stamps are no record times: replays, and clocks that were set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from dae_ros.bags.messages import write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.distillation.online.adaptation import Adaptation, AdaptationResult
from dae_ros.events.cdr import write_packet
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.parameters import DepthParameters
from test.reference.first_deployment import SEEN
from test.reference.wall_deployment import EchoTeacher, deployment

SECOND = 1_000_000_000


def write(
    writer: BagWriter, seen: Iterable[EventPacket | Frame], recorded_ns: int, moved_ns: int
) -> None:
    """Record what a camera saw so much later, with stamps that are moved by another time."""
    for item in seen:
        stamp_ns, time_ns = item.stamp_ns + moved_ns, item.stamp_ns + recorded_ns
        if isinstance(item, Frame):
            image = write_image(item.image, stamp_ns, "camera")
            writer.write("/camera/image_raw", "sensor_msgs/msg/Image", time_ns, image)
        else:
            base_ns = item.time_base_ns + moved_ns
            moved = dataclasses.replace(item, stamp_ns=stamp_ns, time_base_ns=base_ns)
            kind = "event_camera_msgs/msg/EventPacket"
            writer.write("/camera/events", kind, time_ns, write_packet(moved))


def adapted(
    path: Path, student: LoadedModel, teacher: EchoTeacher, weights: Path
) -> AdaptationResult:
    """Learn on a recording of the wall; nothing is judged."""
    changes = {"heldout_every": 0, "judge_every_steps": 1000, "judge_every_s": 1000.0}
    distiller = deployment(student, teacher, path.with_name("out"), **changes)
    adaptation = Adaptation(distiller, DepthParameters(weights=str(weights), device="cpu"), 20.0)
    with open_recording(path) as recording:
        result = adaptation.run([recording], report=lambda *_: None, stopped=lambda: False)
    distiller.close()
    return result


def test_learning_goes_on_behind_a_clock_that_was_set_back(
    student: LoadedModel, teacher: EchoTeacher, learner_files: Path, tmp_path: Path
) -> None:
    """As in the node: what came before is no reason to wait until its time comes again."""
    first_second = SEEN[:120]
    with BagWriter(tmp_path / "bag") as writer:
        write(writer, first_second, 0, 3600 * SECOND)
        write(writer, first_second, SECOND, 0)
    result = adapted(tmp_path / "bag", student, teacher, learner_files / "student.safetensors")
    at_s = [loss["at_s"] for loss in result.losses]
    assert any(time_s < 1.0 for time_s in at_s)
    assert sum(time_s > 1.5 for time_s in at_s) > 3, at_s
    assert result.clock == {"clock_jump": 1}
