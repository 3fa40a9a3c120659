"""`dae-ros demo`: a simulator or a recording, depth on real ROS 2, and pictures of it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dae_ros.cli.bag import unscored_because
from dae_ros.cli.demo_processes import (
    ROOM_COLOURS,
    SIMULATED_TRUTH,
    parameters_of,
    run_processes,
)
from dae_ros.cli.demo_scores import in_words, scores_of_summary
from dae_ros.cli.shared_options import duration
from dae_ros.cli.usage import usage
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.parameters import DepthParameters

SUMMARY = "demo.json"
FILES = (SUMMARY, "topics", "metrics", "preview.mp4", "contact_sheet.png", "simulated", "result")

DESCRIPTION = """\
Show the whole chain once: a simulated event camera (or a recording) publishes on ROS 2,
depth_node turns its events into depth images, gt_node compares them with ground truth,
recorder_node keeps what was published, and the recording becomes pictures. Without rclpy the same
pipeline runs in one process, and says so.

How right the depth is stands at the end: against the simulator's exact depth, or against depth
images beside the events of the recording, where it has some. The weights have seen simulated
worlds only, other ones than the demo's: on a real recording their metres are a guess."""

EPILOG = """\
what is written below --out:
  topics/            rosbag2 (mcap) of what the nodes published
  metrics/           evaluation.json and .md of gt_node
                     (in one process: simulated/, the recording, and result/ of the verb bag)
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
        type=duration,
        default=6.0,
        metavar="S",
        help="seconds of events (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        default=DepthParameters().weights,
        metavar="NAME",
        help="checkpoint file or name (default: %(default)s, trained on simulated worlds only)",
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
    from dae_ros.bags.replacing import require_name
    from dae_ros.runtime.backends import create_estimator

    folder: Path = args.out
    require_name(folder)
    _check(folder)
    with usage():
        parameters = parameters_of(args)
    # Wrong weights are told before anything is started.
    notes = create_estimator(parameters).notes
    # An earlier demo stays as it is until this one has succeeded.
    work = folder.with_name(f"{folder.name}.partial")
    _check(work)
    _clear(work)
    work.mkdir(parents=True)
    (work / SUMMARY).write_text("{}\n", encoding="utf-8")
    with_ros = importlib.util.find_spec("rclpy") is not None and not args.in_process
    begin_s = time.monotonic()
    try:
        summary: dict[str, Any] = (
            run_processes(args, work) if with_ros else _in_process(args, work, args.in_process)
        )
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
    if unreadable := sum(summary["unreadable_messages"].values()):
        print(f"note: {unreadable} messages could not be read and were passed over")
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
        return f"It was not compared with {summary['truth']}: {summary['uncompared']}"
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
        "unreadable_messages": facts["unreadable_messages"],
        "processes": [],
        "truth": truth if args.bag or truth is None else SIMULATED_TRUTH,
        "scores": scores_of_summary(metrics),
        "uncompared": None if metrics is None else unscored_because(metrics),
    }
