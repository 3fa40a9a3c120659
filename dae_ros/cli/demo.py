"""`dae-ros demo`: a simulator or a recording, depth on real ROS 2, and pictures of it."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dae_ros.cli.bag import seconds
from dae_ros.cli.demo_scores import in_words, scores_of_report, scores_of_summary
from dae_ros.cli.progress import ProgressBar
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.nodes.process_harness import ProcessError, ProcessHarness, RunningProcess
from dae_ros.nodes.processes import DEMO_DEFAULTS, Process, launch_plan, recorder
from dae_ros.parameters import DepthParameters

SUMMARY = "demo.json"
FILES = (SUMMARY, "topics", "metrics", "preview.mp4", "contact_sheet.png", "simulated", "result")
DEFAULT_WEIGHTS = DEMO_DEFAULTS["weights"]
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
# The network may need seconds for one window on a slow machine; after this long without an image
# everything that waited has been stepped.
IDLE_S = 8.0
START_S, STOP_S = 120.0, 20.0

DESCRIPTION = """\
Show the whole chain once: a simulated event camera (or a recording) publishes on ROS 2,
depth_node turns its events into depth images, gt_node compares them with ground truth,
recorder_node keeps what was published, and the recording becomes pictures. Without rclpy the same
pipeline runs in one process, and says so.

How right the depth is stands at the end: against the simulator's exact depth, or against depth
images beside the events of the recording, where it has some."""

EPILOG = """\
what is written below --out:
  topics/            rosbag2 (mcap) of what the nodes published
  metrics/           evaluation.json and .md of gt_node
  preview.mp4        events | camera frame | depth | ground truth, for a browser
  contact_sheet.png  up to twelve moments of it
  demo.json          processes, windows, weights, scores

examples:
  dae-ros demo
  dae-ros demo --bag indoor_flying1_data.bag --duration 10
  dae-ros demo --weights my_checkpoint.pth --orientation depth --scale 1.0"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "demo",
        help="events to depth pictures on ROS 2, with nothing but this package",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bag", type=Path, metavar="FILE", help="replay this recording instead of the simulator"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("output/demo"),
        metavar="DIR",
        help="folder to write; what an earlier demo left there is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--duration",
        type=seconds,
        default=6.0,
        metavar="S",
        help="seconds of events (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="NAME",
        help="checkpoint file or name (default: %(default)s)",
    )
    parser.add_argument(
        "--orientation",
        default="checkpoint",
        choices=("checkpoint", "depth", "inverse_depth"),
        help="what the network's number grows with (default: what the weights say)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=0.0,
        metavar="VALUE",
        help="scale to metres (default: what the weights say)",
    )
    parser.add_argument(
        "--shift", type=float, default=0.0, metavar="VALUE", help="shift that belongs to --scale"
    )
    parser.add_argument(
        "--in-process", action="store_true", help="do not use ROS even where it is installed"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Raises:
        DaeError: a node failed, or no depth came out.
    """
    # The network takes seconds to import, which --help does not need.
    from dae_ros.runtime.backends import create_estimator

    folder: Path = args.out
    _check(folder)
    # Wrong weights are told before anything is started.
    notes = create_estimator(_parameters(args)).notes
    # An earlier demo stays as it is until this one has succeeded.
    work = folder.with_name(f"{folder.name}.partial")
    _check(work)
    _clear(work)
    work.mkdir(parents=True)
    (work / SUMMARY).write_text("{}\n", encoding="utf-8")
    with_ros = importlib.util.find_spec("rclpy") is not None and not args.in_process
    begin_s = time.monotonic()
    try:
        summary = _on_ros(args, work) if with_ros else _in_process(args, work, args.in_process)
    except BaseException:
        if any(item.name != SUMMARY for item in work.iterdir()):
            print(f"what there is so far: {work}", file=sys.stderr)
        else:
            _clear(work)
        raise
    summary |= {
        "weights": args.weights,
        "notes": notes,
        "ros": with_ros,
        "seconds": round(time.monotonic() - begin_s, 1),
    }
    (work / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _clear(folder)
    work.rename(folder)
    print(f"\n{summary['windows']} depth images in {summary['seconds']} s. Look at:")
    print(f"  {folder / 'contact_sheet.png'}\n  {folder / 'preview.mp4'}\n")
    print(_verdict(summary))
    for note in notes:
        print(f"note: {note}")
    return 0


def _verdict(summary: Mapping[str, Any]) -> str:
    """Say how right the depth is, or why nobody can."""
    if summary["truth"] is None:
        return (
            "How right it is, is not known: the recording has no depth images beside its events, "
            "so there is no truth to compare with."
        )
    if not summary["scores"]:
        return (
            f"It was not compared with {summary['truth']}: what its number means is not known, or "
            "no image of it fits in time and size."
        )
    return in_words(summary["scores"], summary["truth"])


def _check(folder: Path) -> None:
    """Make sure that everything in a folder is a demo's.

    Raises:
        ConfigurationError: it holds something that no demo writes.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file; give a folder with --out", path=str(folder))
    present = sorted(item.name for item in folder.iterdir())
    foreign = [name for name in present if name.removesuffix(".partial") not in FILES]
    if foreign:
        raise ConfigurationError(
            f"{folder} holds {', '.join(foreign)}, which no demo writes; give another folder "
            "with --out",
            path=str(folder),
        )
    # Only a demo has this file, so that a result of `dae-ros bag` is never taken for one.
    if present and SUMMARY not in present:
        raise ConfigurationError(
            f"{folder} is not a demo's: {SUMMARY} is missing; give another folder with --out",
            path=str(folder),
        )


def _clear(folder: Path) -> None:
    """Remove a folder that `_check` has let pass."""
    if folder.exists():
        shutil.rmtree(folder)


def _on_ros(args: argparse.Namespace, folder: Path) -> dict[str, object]:
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
    keep = dataclasses.replace(keep, parameters={**keep.parameters, "idle_s": IDLE_S})
    chain = [source.name, f"{depth.name} ({args.weights})", *(node.name for node in compared)]
    print(f"ROS 2: {' -> '.join([*chain, keep.name])}", flush=True)
    bar = ProgressBar()
    with ProcessHarness([keep, *compared, depth, source], echo=sys.stderr) as harness:
        sender, receiver = harness[source.name], harness[keep.name]
        network = harness[depth.name]

        def sending() -> str:
            subscribed = any("subscribed to" in line for line in list(network.lines))
            return "events are sent" if subscribed else "the network is loaded and compiled"

        def stepping() -> str:
            size = sum(item.stat().st_size for item in folder.rglob("*.mcap*"))
            return f"the last windows are stepped, {size / 1e6:.0f} MB recorded"

        code = _wait(sender, bar, sending, _limit_s(args))
        if code != 0:
            raise ProcessError(
                f"{source.name} ended with status {code}; its last lines:\n"
                + "\n".join(sender.lines[-10:]),
                name=source.name,
            )
        code = _wait(receiver, bar, stepping, _limit_s(args))
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
        windows = preview_topics(recording, folder, _parameters(args), truth=truth)
    return {
        "windows": windows,
        "messages": counts,
        "processes": [node.executable for node in (source, depth, *compared, keep)],
        "truth": described,
        "scores": scores_of_report(folder / "metrics" / "evaluation.json"),
    }


def _parameters(args: argparse.Namespace) -> DepthParameters:
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


def _in_process(args: argparse.Namespace, folder: Path, asked: bool) -> dict[str, object]:
    """Simulate or open the recording and run the same pipeline here; return facts."""
    from dae_ros.cli.main import main

    reason = "as asked with --in-process" if asked else "rclpy is not installed here"
    print(f"without ROS 2 ({reason}): the same pipeline in one process", flush=True)
    source = args.bag
    if source is None:
        source = folder / "simulated"
        code = main(["simulate", "--out", str(source), "--duration", str(args.duration)])
        if code != 0:
            raise RecordingError(f"the simulation ended with status {code}", path=str(source))
    result = folder / "result"
    options = {name: getattr(args, name) for name in ("weights", "orientation", "scale", "shift")}
    if args.bag is None:
        options |= ROOM_COLOURS
    options |= {"out": result, "duration": args.duration}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    code = main(["bag", str(source), *words])
    if code != 0:
        raise RecordingError(f"the run ended with status {code}", path=str(result))
    for name in ("preview.mp4", "contact_sheet.png"):
        (result / name).rename(folder / name)
    facts = json.loads((result / "summary.json").read_text(encoding="utf-8"))
    metrics = facts["metrics"]
    truth = None if metrics is None else metrics["truth"]
    return {
        "windows": facts["windows"]["stepped"],
        "processes": [],
        "truth": truth if args.bag or truth is None else SIMULATED_TRUTH,
        "scores": scores_of_summary(metrics),
    }
