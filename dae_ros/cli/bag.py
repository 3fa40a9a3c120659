"""`dae-ros bag`: run a recording through the depth pipeline into files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dae_ros.cli.interrupt import EXIT_INTERRUPTED, InterruptFlag
from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.shared_options import (
    add_output_folder,
    add_pipeline_parameters,
    duration,
    given_parameters,
    open_sized,
    parse_size,
    seconds,
)
from dae_ros.cli.usage import usage
from dae_ros.evaluation.uncompared import why_nothing_was_compared
from dae_ros.parameters import DepthParameters

if TYPE_CHECKING:
    from dae_ros.bags.recording import Recording


DESCRIPTION = """\
Run a recording through the same pipeline as the live node, without ROS and as fast as it goes.

A recording is a ROS 1 .bag, a rosbag2 folder (or its .mcap or .db3 file, also where the metadata
is broken or the file was cut), an .aedat4, a Prophesee .raw, MVSEC's .hdf5, or the folder of a DSEC
or EventScape sequence. Two recordings are read as one."""

EPILOG = """\
what is written below --out:
  depth/             rosbag2 (mcap): /depth/image in metres, or /depth/relative where the weights
                     have no scale, and /depth/camera_info
  preview.mp4        events | camera frame | depth | ground truth, for a browser
  contact_sheet.png  twelve moments of it
  summary.json       windows, drops and what they mean, resets, gaps, weights, parameters; metrics
                     where the recording has depth images beside the events
  timing.json        Mev/s and latencies; all other files are the same, bit for bit, every time

examples:
  dae-ros bag drive.mcap --out result                       metres of `micro`: a guess on real ones
  dae-ros bag drive.mcap --out result --weights path/to/checkpoint.pth
  dae-ros bag outdoor_day1_data.bag --calibration camchain-imucam-outdoor_day.yaml \\
      --out result --weights path/to/checkpoint.pth --start 30 --duration 10
  dae-ros bag events.raw --size 1280x720 --out result --weights path/to/checkpoint.pth
  dae-ros bag drive.bag --out result --params depth.yaml         the node's parameters"""

# Parameters that have an option of their own; the others come from --params.
_OPTIONS = (
    "weights",
    "backend",
    "device",
    "precision",
    "threads",
    "orientation",
    "scale",
    "shift",
    "window",
    "window_s",
    "hop_s",
    "window_events",
    "hop_events",
    "color_near_m",
    "color_far_m",
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "bag",
        help="depth from a recording, into files",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recording",
        nargs="+",
        type=Path,
        help="recording, or several that belong together (read as one, by record time)",
    )
    add_output_folder(parser)
    source = parser.add_argument_group("what is read")
    source.add_argument("--events", metavar="TOPIC", help="events topic (chosen by name if absent)")
    source.add_argument("--image", metavar="TOPIC", help="camera frames, for windows and preview")
    source.add_argument(
        "--truth", metavar="TOPIC", help="depth images to compare with (chosen by name if absent)"
    )
    source.add_argument("--camera-info", metavar="TOPIC", help="calibration")
    source.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="calibration: YAML of Kalibr or camera_calibration",
    )
    source.add_argument(
        "--size",
        type=parse_size,
        metavar="WxH",
        help="sensor size of a .raw, in place of its header's, or of a data set; bags and .aedat4 "
        "say it in every message, and it is refused there",
    )
    source.add_argument(
        "--start", type=seconds, default=0.0, metavar="S", help="skip so many seconds"
    )
    source.add_argument(
        "--duration", type=duration, metavar="S", help="run so many seconds (default: all)"
    )
    add_pipeline_parameters(parser, _OPTIONS)
    parser.set_defaults(run=run)


def parameters_of(args: argparse.Namespace) -> DepthParameters:
    """Combine the parameter file and the options.

    Raises:
        ConfigurationError: a bad file or a bad value.
    """
    values = given_parameters(args, _OPTIONS)
    # Nothing is skipped offline, whatever the live node does when it is late.
    values["overload"] = "queue"
    return DepthParameters.from_mapping(values)


def calibration_of(args: argparse.Namespace, parameters: DepthParameters) -> Path | None:
    """Return the calibration file: that of the options, which win, or of the parameter file."""
    given: Path | None = args.calibration
    if given is not None or args.camera_info is not None or not parameters.calibration:
        return given
    return Path(parameters.calibration)


def truth_topic(recording: Recording, events: str | None, truth: str | None) -> str | None:
    """Return the topic of the true depth: the wanted one or that beside the events, or None.

    Raises:
        RecordingError: a topic that is not there, or has no images.
    """
    from dae_ros.bags.message_types import IMAGE
    from dae_ros.bags.topics import choose_depth_topic, choose_events_topic, require_topic

    if truth is None:
        return choose_depth_topic(recording.topics, choose_events_topic(recording.topics, events))
    require_topic(recording.topics, truth, IMAGE)
    return truth


def unscored_because(metrics: Mapping[str, Any]) -> str | None:
    """Return why no window in the `metrics` of `summary.json` has a score, None where one has."""
    matched = metrics.get("windows", 0)
    if matched:
        return None
    refusal: str | None = metrics["not_scored_because"]
    if refusal is not None:
        return refusal
    if "windows" not in metrics:
        return "no depth image came out"
    wrong_size = metrics["wrong_size"]
    return why_nothing_was_compared(
        depths=metrics["windows_without_truth"] + wrong_size,
        truths=metrics["truths_without_window"] + wrong_size,
        refusal=None,
        wrong_size=wrong_size,
        tolerance_s=metrics["tolerance_s"],
    )


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """Return the means of `summary.json` in one line, or why there are none."""
    reason = unscored_because(metrics)
    if reason is not None:
        return f"Not compared with {metrics['truth']}: {reason}"
    # Every scoring has two tables, the first of all pixels.
    scores = "; ".join(
        f"{table['scoring']['alignment']}: Abs Rel {table['metrics']['abs_rel']:.3f}, "
        f"delta_1 {table['metrics']['delta_1']:.3f}"
        for table in metrics["tables"][::2]
        if table["metrics"]["abs_rel"] is not None
    )
    return f"{metrics['windows']} windows against {metrics['truth']}; alignment {scores}"


def run(args: argparse.Namespace) -> int:
    """Run the recording.

    Returns:
        0, or 130 when Ctrl-C ended it; the files are whole either way.

    Raises:
        DaeError: what stopped it. A recording that was cut is run up to the cut first.
    """
    # numba and the network take seconds to import, which --help does not need.
    from dae_ros.evaluation.recorded_truth import RecordedTruth
    from dae_ros.runtime.bag_runner import OUTPUTS, BagSelection, Progress, run_bag
    from dae_ros.runtime.output_folder import output_folder

    with usage():
        parameters = parameters_of(args)
    selection = BagSelection(
        events=args.events,
        image=args.image,
        camera_info=args.camera_info,
        calibration=calibration_of(args, parameters),
        start_s=args.start,
        duration_s=args.duration,
    )
    bar = ProgressBar()

    def report(progress: Progress) -> None:
        bar.update(
            progress.fraction, f"{progress.windows} windows, {progress.events / 1e6:.2f} M events"
        )

    with (
        open_sized(args.recording, args.size) as recording,
        output_folder(args.out, args.overwrite, OUTPUTS) as folder,
        InterruptFlag() as stopped,
    ):
        truth = truth_topic(recording, args.events, args.truth)
        result = run_bag(
            recording,
            parameters,
            folder,
            selection,
            report=report,
            note=bar.note,
            stopped=stopped,
            observer=None if truth is None else RecordedTruth(truth),
        )
        if result.damage is not None and not result.summary["windows"]["stepped"]:
            # Nothing that an earlier run should be replaced by.
            raise result.damage
    bar.close()
    if result.interrupted:
        of = "" if result.length_s is None else f" of {result.length_s:.2f} s"
        print(f"interrupted after {result.done_s:.2f} s{of}; what was run until then is whole:")
    windows = result.summary["windows"]
    timing = result.timing
    print(
        f"{windows['stepped']} windows from {result.summary['events']} events in "
        f"{timing['wall_s']:.1f} s ({timing['mev_per_s']:.2f} Mev/s), "
        f"{result.summary['depth']['kind']} depth -> {args.out}"
    )
    if result.summary["metrics"] is not None:
        print(metrics_line(result.summary["metrics"]))
    if result.better_range_m is not None:
        near_m, far_m = result.better_range_m
        print(
            f"the pictures' colours run from {parameters.color_near_m:g} to "
            f"{parameters.color_far_m:g} m, of which this depth uses few; more is seen with "
            f"--color-near-m {_typed(near_m)} --color-far-m {_typed(far_m)}"
        )
    for note in result.summary["weights"]["notes"]:
        print(f"note: {note}")
    if result.damage is not None:
        raise result.damage
    return EXIT_INTERRUPTED if result.interrupted else 0


def _typed(metres: float) -> str:
    """Return a number as people type it."""
    return f"{metres:.1f}" if metres < 10 else f"{metres:.0f}"
