"""`dae-ros adapt`: learn online on recordings, as the node does, and the same every time."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dae_ros.cli.interrupt import EXIT_INTERRUPTED, InterruptFlag
from dae_ros.cli.parameter_options import parser_of
from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.shared_options import add_output_folder
from dae_ros.cli.usage import usage
from dae_ros.errors import ConfigurationError, InferenceError, RecordingError, reason_of
from dae_ros.parameters import DepthParameters, DistillationNodeParameters, declarations
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.paths import whole_file
from dae_ros.runtime.parameter_file import read_node_parameters

if TYPE_CHECKING:
    from dae_ros.bags.recording import Recording
    from dae_ros.distillation.online.adaptation import AdaptationResult
    from dae_ros.distillation.online.loop import OnlineDistiller

# Steps per second of a recording: from one in a quarter of an hour to one per millisecond.
LOWEST_RATE, HIGHEST_RATE = 1e-3, 1e3
OUTPUTS = ("snapshots", "learner", "adapt.json", "adapt.png", "adapted.safetensors")

DESCRIPTION = """\
Learn online on recordings: a teacher labels camera frames, a copy of the student learns, a guard
lets better weights pass, and depth takes them over between two windows. It is the loop of the live
node without ROS, with a fixed number of steps per second of the recording, and the same every time.

Several recordings are seen one after the other, as by a camera that is restarted between them: a
robot that leaves a place and comes back (a b a)."""

EPILOG = """\
what is needed: weights of the DepthAnyEvent family (micro, vits, ...), a network of frames (a
checkpoint, a name of `dae-ros models list`, or the manifest of an ONNX file), and recordings with
events and frames of the same pixels. Nothing is published before two minutes have passed: the guard
wants twelve held-out blocks of two seconds, and holds every fifth one out. For a recording that is
shorter say --set judged_blocks=6, which judges after one: the first versions may be a little worse
in other places (docs/online.md, 'Guard').

what is written below --out:
  adapted.safetensors  the weights that were published last; the original ones where none were
  snapshots/           every version that is kept, as the live node writes them
  learner/             what learning would go on from
  adapt.json           verdicts of the guard with reasons, versions, and every 10 s the errors of
                       the original and of the changing weights, where there is true depth
  adapt.png            these errors over time, a line where depth took a version over

examples:
  dae-ros simulate --preset domain_b --seed 1001 --duration 180 --out b
  dae-ros adapt b --out adapted --teacher depth_anything_v2_vits
  dae-ros adapt a b a --out there_and_back --weights micro \\
      --teacher depth_anything_v2_vits --anchors output/clips --elsewhere b_other_place
  dae-ros adapt drive.bag --out slow --weights micro --teacher teacher.yaml \\
      --steps-per-s 0.5 --set tier=2 --set learning_rate=1e-4

docs/online.md explains the loop, its parameters and its reasons."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "adapt",
        help="learn online on a recording",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recordings", nargs="+", type=Path, metavar="BAG", help="recording")
    add_output_folder(parser)
    parser.add_argument(
        "--weights",
        default=DepthParameters().weights,
        metavar="NAME",
        help="student to begin with (default: %(default)s)",
    )
    parser.add_argument("--teacher", required=True, metavar="NAME", help="network of frames")
    parser.add_argument(
        "--anchors", type=Path, metavar="CLIPS",
        help="folder of dae-ros clips: what must not be forgotten; without it, the first clips of "
        "the recording stand for it",
    )  # fmt: skip
    parser.add_argument(
        "--elsewhere", type=Path, nargs="+", default=[], metavar="BAG",
        help="recordings with true depth of other places, to score every version on that is kept "
        "(the last ones, the first, the best and the confirmed ones, see kept_snapshots)",
    )  # fmt: skip
    parser.add_argument(
        "--steps-per-s", type=float, default=2.5, metavar="HZ",
        help="steps of learning per second of the recording (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--params", type=Path, metavar="FILE", help="YAML as for the node")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides",
        help="change a parameter of learning; may be repeated, and wins over --params",
    )  # fmt: skip
    parser.set_defaults(run=run)


def parameters_of(args: argparse.Namespace) -> OnlineParameters:
    """Combine the parameter file and the options.

    Raises:
        ConfigurationError: a bad file, name or value.
    """
    values = {} if args.params is None else read_node_parameters(args.params, "distillation")
    if values is None:
        raise ConfigurationError(
            f"{args.params} has no parameters of the node 'distillation'; it needs a section "
            "'/**/distillation:' with 'ros__parameters:'",
            path=str(args.params),
        )
    known = declarations(OnlineParameters)
    # What a file says about the rest of the node is given by options here, or means nothing.
    beside = declarations(DistillationNodeParameters).keys() - known.keys()
    values = {name: value for name, value in values.items() if name not in beside}
    for override in args.overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigurationError(f"'{override}' is not NAME=VALUE")
        try:
            values[name] = parser_of(known[name][0])(text) if name in known else text
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ConfigurationError(f"'{name}' cannot be '{text}': {error}") from error
    return OnlineParameters.from_mapping(values)


def run(args: argparse.Namespace) -> int:
    """Adapt.

    Returns:
        0, or 130 when Ctrl-C ended it; the files are whole either way.

    Raises:
        DaeError: what stopped it.
    """
    # The network takes seconds to import, which --help does not need.
    from dae_ros.bags.recording import open_recording
    from dae_ros.distillation.online.adaptation import Adaptation
    from dae_ros.distillation.online.adaptation_topics import check_topics
    from dae_ros.distillation.online.opening import open_student
    from dae_ros.model.device import device_of
    from dae_ros.runtime.output_folder import output_folder, write_json
    from dae_ros.runtime.torch_process import repeatable

    with usage():
        if not LOWEST_RATE <= args.steps_per_s <= HIGHEST_RATE:
            raise ConfigurationError(
                f"--steps-per-s must be from {LOWEST_RATE:g} to {HIGHEST_RATE:g}, not "
                f"{args.steps_per_s:g}; without steps, use dae-ros bag"
            )
        parameters = parameters_of(args)
    # The windows that are learned from, without a gap, are those that depth sees.
    depth = DepthParameters(
        weights=args.weights, device=args.device, overload="queue",
        window_s=parameters.window_s, hop_s=parameters.window_s,
    )  # fmt: skip
    bar = ProgressBar()
    with contextlib.ExitStack() as stack:
        recordings = [stack.enter_context(open_recording(path)) for path in args.recordings]
        elsewhere = [stack.enter_context(open_recording(path)) for path in args.elsewhere]
        check_topics(recordings, elsewhere)
        length_s = _length_s(recordings)
        folder = stack.enter_context(output_folder(args.out, args.overwrite, OUTPUTS))
        stopped = stack.enter_context(InterruptFlag())
        stack.enter_context(repeatable(device_of(args.device)))
        student = open_student(args.weights, args.anchors, parameters, args.device)
        distiller = student.learn(student.teacher(args.teacher), folder)
        stack.callback(distiller.close)
        adaptation = Adaptation(distiller, depth, args.steps_per_s)
        try:
            result = adaptation.run(
                recordings,
                report=lambda done_s, words: bar.update(
                    None if length_s is None else min(done_s / length_s, 1.0), words
                ),
                stopped=stopped,
            )
        except InferenceError as error:
            # Live learning tries again; here that would give other weights than the next run.
            raise InferenceError(
                f"{error.message}. The run ends here, so that every run is equal: free memory or "
                "give another --teacher or --device, and run it again",
                **error.data,
            ) from error
        bar.close()
        facts = _facts(args, parameters, result, distiller.status().to_dict())
        latest = distiller.announcement
        # Before other places are scored, which takes long and may fail.
        with _written(folder):
            with whole_file(folder / "adapted.safetensors") as partial:
                shutil.copyfile(latest.path, partial)
            write_json(folder / "adapt.json", facts)
            _plot(result, folder / "adapt.png")
        try:
            for row in _scores(distiller, elsewhere, depth, stopped):
                facts["elsewhere"].append(row)
                with _written(folder):
                    write_json(folder / "adapt.json", facts)
        except (RecordingError, InferenceError) as error:
            told = f"{error.message}; what was learned is in {folder}"
            raise type(error)(told, **error.data) from error
        if stopped() and not facts["interrupted"]:
            facts["interrupted"] = True
            with _written(folder):
                write_json(folder / "adapt.json", facts)
    _tell(result, facts, args.out)
    return EXIT_INTERRUPTED if facts["interrupted"] else 0


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Say why a result cannot be written, and what is left.

    Raises:
        RecordingError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise RecordingError(
            f"{folder} cannot be written: {reason_of(error)}. Make room and run it again, or give "
            f"another --out; the versions in {folder / 'snapshots'} are whole",
            path=str(folder),
        ) from error


def _length_s(recordings: list[Recording]) -> float | None:
    """Return how long the recordings are together; None where one does not say it."""
    total_s = 0.0
    for recording in recordings:
        if recording.end_ns is None or recording.start_ns is None:
            return None
        total_s += (recording.end_ns - recording.start_ns) / 1e9
    return total_s or None


def _scores(
    distiller: OnlineDistiller,
    elsewhere: list[Recording],
    depth: DepthParameters,
    stopped: Callable[[], bool],
) -> Iterator[dict[str, Any]]:
    """Score every version that is kept, oldest first, until it is stopped."""
    from dae_ros.distillation.online.scored_pipeline import score_elsewhere

    for version, path in distiller.kept_versions().items() if elsewhere else ():
        of_version = dataclasses.replace(depth, weights=str(path))
        scores = [score_elsewhere(recording, of_version, stopped) for recording in elsewhere]
        if stopped():
            return  # some of them are of a part
        yield {"version": version, "recordings": scores}


def _facts(
    args: argparse.Namespace,
    parameters: OnlineParameters,
    result: AdaptationResult,
    status: dict[str, Any],
) -> dict[str, Any]:
    """Return everything that is the same for every run of this input."""
    return {
        "recordings": [str(path) for path in args.recordings],
        "weights": args.weights,
        "teacher": args.teacher,
        "anchors": None if args.anchors is None else str(args.anchors),
        "steps_per_s": args.steps_per_s,
        "seconds": result.seconds,
        "interrupted": result.interrupted,
        "status": status,
        "versions": result.versions,
        "swaps": result.swaps,
        "verdicts": result.verdicts,
        "errors": {
            "frozen": {"mean": result.frozen.mean(), "every_10_s": result.frozen.rows()},
            "online": {"mean": result.online.mean(), "every_10_s": result.online.rows()},
        },
        "packet_errors": dict(result.packet_errors),
        "clock": dict(sorted(result.clock.items())),
        "elsewhere": [],
        "losses": result.losses,
        "parameters": {name: getattr(parameters, name) for name in declarations(OnlineParameters)},
    }


def _plot(result: AdaptationResult, path: Path) -> None:
    """Draw the errors; without truth, the losses."""
    from dae_ros.evaluation.plots import Axes, line_plot
    from dae_ros.evaluation.strips import write_png

    curves = {"original": result.frozen.rows(), "online": result.online.rows()}
    series: dict[str, tuple[list[float], list[float]]] = {
        name: ([row["from_s"] + 5.0 for row in rows], [row["abs_rel"] for row in rows])
        for name, rows in curves.items()
        if rows
    }
    title, label = "Error against true depth", "Abs Rel"
    if not series:
        title, label = "Loss of learning (no true depth)", "loss"
        series["loss"] = (
            [row["at_s"] for row in result.losses],
            [row["loss"] for row in result.losses],
        )
    top = max((value for _, values in series.values() for value in values), default=1.0)
    marks: tuple[list[float], list[float]] = ([], [])
    for swap in result.swaps:
        if swap["outcome"] == "swapped":
            marks[0].extend([swap["at_s"], swap["at_s"], swap["at_s"]])
            marks[1].extend([0.0, top, float("nan")])
    if marks[0]:
        series["depth takes a version over"] = marks
    write_png(path, line_plot(series, Axes(title, "time in s", label)))


def _unused(packet_errors: Mapping[str, int]) -> str:
    """Say how many event messages could not be used, and why."""
    if not packet_errors:
        return ""
    reasons = ", ".join(f"{code} {count}" for code, count in sorted(packet_errors.items()))
    return f" ({sum(packet_errors.values())} event messages could not be used: {reasons})"


def _tell(result: AdaptationResult, facts: dict[str, Any], out: Path) -> None:
    published = sum(version["why"] == "published" for version in result.versions)
    back = sum(version["why"] == "rolled_back" for version in result.versions)
    print(
        f"{result.seconds:.1f} s, {facts['status']['accepted_steps']} steps, {published} versions "
        f"published, {back} taken back -> {out}"
    )
    frozen, online = result.frozen.mean(), result.online.mean()
    if frozen is not None and online is not None:
        print(
            f"Abs Rel against true depth: original {frozen['abs_rel']:.4f}, while learning "
            f"{online['abs_rel']:.4f} over {online['windows']} windows"
        )
    if facts["packet_errors"]:
        print(f"learning went on past damage{_unused(facts['packet_errors'])}")
    for row in facts["elsewhere"]:
        errors = [
            f"{score['abs_rel']:.4f}{_unused(score['packet_errors'])}" if score else "-"
            for score in row["recordings"]
        ]
        print(f"elsewhere, version {row['version']}: Abs Rel {', '.join(errors)}")
    if not published:
        last = facts["status"]["last_verdict"] or facts["status"]["health"]
        print(f"nothing was published, because of: {last}")
        blocks, wanted = facts["status"]["heldout_blocks"], facts["parameters"]["judged_blocks"]
        if blocks < wanted:
            print(
                f"the guard has {blocks} of the {wanted} held-out blocks that it wants; record "
                f"longer, or let it judge by fewer: --set judged_blocks=N"
            )
    if facts["interrupted"]:
        print("interrupted; what is written is whole")
