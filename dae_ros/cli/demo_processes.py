"""The demo on real ROS 2: source, depth, ground truth and recorder as processes."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dae_ros.cli.demo_scores import scores_of_report
from dae_ros.cli.progress import ProgressBar
from dae_ros.errors import RecordingError
from dae_ros.nodes.process_harness import (
    MessageCounter,
    ProcessError,
    ProcessHarness,
    RunningProcess,
)
from dae_ros.nodes.processes import (
    DEMO_DEFAULTS,
    NOTHING_COMPARED,
    Process,
    launch_plan,
    recorder,
)
from dae_ros.parameters import DepthParameters

OUTPUTS = (
    "events/image",
    "depth/image",
    "depth/relative",
    "depth/color",
    "depth/camera_info",
    "depth/status",
    "metrics",
)
STATUS = "diagnostic_msgs/msg/DiagnosticArray"
SIMULATED_TRUTH = "the simulator's exact depth"
# The colours of the simulated room: its walls are 1 to 6 m away.
ROOM_COLOURS: Mapping[str, float] = {"color_near_m": 1.0, "color_far_m": 6.0}
# The network may need seconds for one window on a slow machine; when nothing has been recorded for
# this long after the source has ended, everything that waited has been stepped.
IDLE_S = 8.0
# The same before the first depth image, which takes the longest.
IDLE_BEFORE_FIRST_S = 30.0
START_S, STOP_S = 120.0, 20.0
LOOK_S = 0.5


class _AboveTheBar:
    """Takes what the processes print, so that it does not break the moving line."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar

    def write(self, text: str) -> None:
        """Write a whole line."""
        self._bar.note(text.removesuffix("\n"))


@dataclass(frozen=True)
class _Recorded:
    """What the demo has to know of a recording beforehand: its topic of depth, and its length."""

    truth: str | None
    length_s: float | None


def run_processes(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run source, depth node and recorder as processes on ROS 2; return facts for the summary."""
    from dae_ros.bags.recording import open_recording
    from dae_ros.runtime.preview import preview_topics

    arguments = {
        "weights": args.weights,
        "orientation": args.orientation,
        "scale": str(args.scale),
        "shift": str(args.shift),
    }
    truth: str | None = f"/{DEMO_DEFAULTS['ground_truth']}"
    described: str | None = SIMULATED_TRUTH
    length_s: float | None = args.duration
    if args.bag is not None:
        recorded = _recorded(args.bag)
        truth = described = recorded.truth
        length_s = None if recorded.length_s is None else min(args.duration, recorded.length_s)
        arguments |= {"source": "bag", "bag": str(args.bag), "ground_truth": truth or ""}
    plan = launch_plan(arguments, DEMO_DEFAULTS)
    frames = dict(plan[0].remappings).get("image", "")
    plan = [_for_demo(process, args, folder, frames) for process in plan]
    depth, *compared, source = plan
    topics = [*OUTPUTS, *filter(None, (frames, truth))]
    keep = recorder(str(folder / "topics"), tuple(topics))
    chain = [source.name, f"{depth.name} ({args.weights})", *(node.name for node in compared)]
    print(f"ROS 2: {' -> '.join([*chain, keep.name])}", flush=True)
    bar = ProgressBar()
    with (
        MessageCounter("/depth/status", STATUS) as windows,
        ProcessHarness([keep, *compared, depth, source], echo=_AboveTheBar(bar)) as harness,
    ):
        sender, receiver = harness[source.name], harness[keep.name]
        hop_s = parameters_of(args).hop_s
        show = _Steps(bar, windows, None if length_s is None else round(length_s / hop_s))
        code = _wait(sender, show, _limit_s(args))
        if code != 0:
            raise ProcessError(
                f"{source.name} ended with status {code}; its last lines:\n"
                + "\n".join(sender.lines[-10:]),
                name=source.name,
            )
        _wait_for_rest(receiver, folder, show, _limit_s(args))
        bar.note("every window is stepped; the recording and the nodes are closed")
        code = receiver.stop(STOP_S)
        if code != 0:
            raise ProcessError(
                f"{keep.name} ended with status {code}; its last lines:\n"
                + "\n".join(receiver.lines[-10:]),
                name=keep.name,
            )
    bar.note("the pictures are made")
    bar.close()
    with open_recording(folder / "topics") as recording:
        if not any(
            name.endswith("/events/image") and info.count for name, info in recording.topics.items()
        ):
            raise RecordingError(
                "no depth image was recorded; the output of the nodes above says why"
            )
        counts = {name: info.count for name, info in recording.topics.items()}
        shown, unreadable = preview_topics(recording, folder, parameters_of(args), truth=truth)
    scores = scores_of_report(folder / "metrics" / "evaluation.json")
    return {
        "windows": shown,
        "unreadable_messages": unreadable,
        "messages": counts,
        "processes": [node.executable for node in (source, depth, *compared, keep)],
        "truth": described,
        "scores": scores,
        "uncompared": None if scores or not compared else _uncompared(harness[compared[0].name]),
    }


def _uncompared(comparer: RunningProcess) -> str:
    """Return why gt_node, which has ended, compared nothing."""
    for line in reversed(comparer.lines):
        if NOTHING_COMPARED in line:
            return line.partition(NOTHING_COMPARED)[2]
    return f"{comparer.plan.executable} ended without a result, its lines above say why"


def parameters_of(args: argparse.Namespace) -> DepthParameters:
    """Return the depth node's parameters; of the simulated room with colours that suit it."""
    return DepthParameters.from_mapping(
        {
            "weights": args.weights,
            "orientation": args.orientation,
            "scale": args.scale,
            "shift": args.shift,
            **(ROOM_COLOURS if args.bag is None else {}),
        }
    )


def _recorded(path: Path) -> _Recorded:
    from dae_ros.bags.recording import open_recording
    from dae_ros.bags.topics import choose_depth_topic, choose_events_topic

    with open_recording(path) as recording:
        begin_ns, end_ns = recording.start_ns, recording.end_ns
        return _Recorded(
            choose_depth_topic(recording.topics, choose_events_topic(recording.topics, None)),
            None if begin_ns is None or end_ns is None else (end_ns - begin_ns) / 1e9,
        )


def _for_demo(process: Process, args: argparse.Namespace, folder: Path, frames: str) -> Process:
    """Make the source end and wait for the recorder too; the depth node steps every window."""
    extra: Mapping[str, bool | int | float | str] = {}
    if process.executable == "depth_node":
        extra = {"overload": "queue", **(ROOM_COLOURS if args.bag is None else {})}
    elif process.executable == "gt_node":
        extra = {"report": str(folder / "metrics")}
    elif process.executable in ("simulator_node", "replay_node"):
        # The depth node subscribes once its network is loaded, which takes a slow machine long.
        awaited = process.parameters["wait_topics"]
        extra = {
            "duration_s": args.duration,
            "wait_timeout_s": START_S,
            "wait_topics": f"{awaited},{frames}" if frames else awaited,
        }
    return dataclasses.replace(process, parameters={**process.parameters, **extra})


def _limit_s(args: argparse.Namespace) -> float:
    """How long a demo may take before it is called stuck: a very slow machine, and patience."""
    return 300.0 + 60.0 * float(args.duration)


class _Steps:
    """Shows how many windows are stepped, of about how many, while something else is waited for.

    Args:
        bar: where.
        windows: counts what the depth node says of each window.
        total: about how many there will be, as the first and the last may not be whole; None where
            the recording does not say how long it is.
    """

    def __init__(self, bar: ProgressBar, windows: MessageCounter, total: int | None) -> None:
        self._bar = bar
        self._windows = windows
        self._total = total

    @property
    def begun(self) -> bool:
        """Whether there is depth."""
        return self._windows.count > 0

    def look(self) -> None:
        """Wait a little and show what has become of it."""
        begun = self.begun
        self._windows.wait(LOOK_S)
        count = self._windows.count
        if count and not begun:
            self._bar.restart()
        if not count:
            self._bar.update(None, "no depth yet: loading and compiling the network")
        elif self._total:
            fraction = min(1.0, count / self._total)
            self._bar.update(fraction, f"{count} of about {self._total} windows are depth")
        else:
            self._bar.update(None, f"{count} windows are depth")


def _wait(process: RunningProcess, show: _Steps, timeout_s: float) -> int:
    """Wait for a process to end, showing how far depth is."""
    begin_s = time.monotonic()
    while process.exit_code is None and time.monotonic() - begin_s <= timeout_s:
        show.look()
    return process.wait(STOP_S if process.exit_code is not None else 0.0)


def _wait_for_rest(recording: RunningProcess, folder: Path, show: _Steps, most_s: float) -> None:
    """Wait until nothing more is recorded, or the recorder has ended by itself.

    The recorder itself cannot tell: on a busy machine the simulator pauses for longer.
    """
    begin_s = grown_s = time.monotonic()
    size = -1
    while recording.exit_code is None and time.monotonic() - grown_s < (
        IDLE_S if show.begun else IDLE_BEFORE_FIRST_S
    ):
        now = sum(item.stat().st_size for item in folder.rglob("*.mcap*"))
        if now != size:
            size, grown_s = now, time.monotonic()
        if time.monotonic() - begin_s > most_s:
            recording.wait(0.0)
        show.look()
