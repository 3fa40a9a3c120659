"""The demo on real ROS 2: source, depth, ground truth and recorder as processes."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dae_ros.cli.demo_scores import scores_of_report
from dae_ros.cli.progress import ProgressBar
from dae_ros.errors import RecordingError
from dae_ros.nodes.process_harness import ProcessError, ProcessHarness, RunningProcess
from dae_ros.nodes.processes import DEMO_DEFAULTS, Process, launch_plan, recorder
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
SIMULATED_TRUTH = "the simulator's exact depth"
# The colours of the simulated room: its walls are 1 to 6 m away.
ROOM_COLOURS: Mapping[str, float] = {"color_near_m": 0.5, "color_far_m": 6.0}
# The network may need seconds for one window on a slow machine; when nothing has been recorded for
# this long after the source has ended, everything that waited has been stepped.
IDLE_S = 8.0
START_S, STOP_S = 120.0, 20.0


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
    if args.bag is not None:
        truth = described = _recorded_truth(args.bag)
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
    with ProcessHarness([keep, *compared, depth, source], echo=sys.stderr) as harness:
        sender, receiver = harness[source.name], harness[keep.name]
        network = harness[depth.name]

        def sending() -> str:
            subscribed = any("subscribed to" in line for line in list(network.lines))
            return "events are sent" if subscribed else "the network is loaded and compiled"

        code = _wait(sender, bar, sending, _limit_s(args))
        if code != 0:
            raise ProcessError(
                f"{source.name} ended with status {code}; its last lines:\n"
                + "\n".join(sender.lines[-10:]),
                name=source.name,
            )
        _wait_for_rest(receiver, folder, bar, _limit_s(args))
        code = receiver.stop(STOP_S)
        if code != 0:
            raise ProcessError(
                f"{keep.name} ended with status {code}; its last lines:\n"
                + "\n".join(receiver.lines[-10:]),
                name=keep.name,
            )
    bar.close()
    with open_recording(folder / "topics") as recording:
        if not any(
            name.endswith("/events/image") and info.count for name, info in recording.topics.items()
        ):
            raise RecordingError(
                "no depth image was recorded; the output of the nodes above says why"
            )
        counts = {name: info.count for name, info in recording.topics.items()}
        windows = preview_topics(recording, folder, parameters_of(args), truth=truth)
    return {
        "windows": windows,
        "messages": counts,
        "processes": [node.executable for node in (source, depth, *compared, keep)],
        "truth": described,
        "scores": scores_of_report(folder / "metrics" / "evaluation.json"),
    }


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


def _recorded_truth(path: Path) -> str | None:
    """Return the topic of depth images beside the events of a recording, None without one."""
    from dae_ros.bags.recording import open_recording
    from dae_ros.bags.topics import choose_depth_topic, choose_events_topic

    with open_recording(path) as recording:
        return choose_depth_topic(recording.topics, choose_events_topic(recording.topics, None))


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


def _wait(
    process: RunningProcess, bar: ProgressBar, purpose: Callable[[], str], timeout_s: float
) -> int:
    """Wait for a process to end, saying every few seconds what is waited for."""
    begin_s = time.monotonic()
    while process.exit_code is None:
        elapsed_s = time.monotonic() - begin_s
        if elapsed_s > timeout_s:
            return process.wait(0.0)
        if int(elapsed_s) % 5 == 0:
            bar.note(f"{elapsed_s:4.0f} s  {purpose()}")
        time.sleep(1.0)
    return process.wait(STOP_S)


def _wait_for_rest(
    recording: RunningProcess, folder: Path, bar: ProgressBar, most_s: float
) -> None:
    """Wait until nothing more is recorded, or the recorder has ended by itself.

    The recorder itself cannot tell: on a busy machine the simulator pauses for longer.
    """
    begin_s = grown_s = time.monotonic()
    size = -1
    while recording.exit_code is None and time.monotonic() - grown_s < IDLE_S:
        now = sum(item.stat().st_size for item in folder.rglob("*.mcap*"))
        if now != size:
            size, grown_s = now, time.monotonic()
        elapsed_s = time.monotonic() - begin_s
        if elapsed_s > most_s:
            recording.wait(0.0)
        if int(elapsed_s) % 5 == 0:
            bar.note(
                f"{elapsed_s:4.0f} s  the last windows are stepped, {size / 1e6:.0f} MB recorded"
            )
        time.sleep(1.0)
