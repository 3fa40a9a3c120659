"""`dae-ros evaluate`: how far depth is from ground truth, in tables, plots and pictures."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from dae_ros.cli.interrupt import EXIT_INTERRUPTED, InterruptFlag
from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.shared_options import (
    add_output_folder,
    add_pipeline_parameters,
    given_parameters,
    parse_size,
)
from dae_ros.cli.usage import usage
from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters

if TYPE_CHECKING:
    from dae_ros.evaluation.evaluation_run import EvaluationProgress
    from dae_ros.evaluation.report import EvaluationReport
    from dae_ros.evaluation.scoring import Scoring
    from dae_ros.evaluation.sources import EvaluationSource

DATASETS = ("mvsec", "mvsec_recordings", "dsec", "eventscape")
_OPTIONS = (
    "weights", "backend", "device", "precision", "threads", "orientation", "scale", "shift",
    "window_s", "event_encoder",
)  # fmt: skip

DESCRIPTION = """\
Run recordings, data sets or the simulator through the same pipeline as the live node, with a
window ending at every depth image, and compare. (MVSEC's voxel grids and DSEC's rectified events
are encoded as their protocols say, before the pipeline's network.)

A SEQUENCE is any recording with events and depth images beside them (ROS 1 .bag, rosbag2, .mcap,
MVSEC's .hdf5), the folder of a DSEC or EventScape sequence, or MVSEC as E2Depth prepared it. Of
MVSEC name the _data file; the _gt file beside it is read with it. Join others that belong together
with +."""

EPILOG = """\
how it is scored (docs/evaluation.md), --scoring METRICS:ALIGNMENT:
  standard:none                     metres as they are
  standard:median, :lstsq, :lad     after a fit to the ground truth of each frame
  published:lstsq_published         as DepthAnyEvent's tables, quirks included
  Without it: standard:none where the weights are metric, and standard:lstsq; with the protocol
  of --dataset mvsec or dsec published:lstsq_published before them. Every scoring makes two tables,
  of all pixels with ground truth, and of those that have events as well.

what is written below --out:
  evaluation.md, .json   tables by sequence and their mean, the paper's beside them where the
                         sequences, frames and scoring are the same
  frames.csv             every window under the first table
  over_depth.png, .csv   Abs Rel by depth;  over_time.png  Abs Rel by time
  strips/, error_maps/   events | frame | truth | prediction | error;  error over the image
  timing.json            all other files are the same, bit for bit, every time

examples:
  dae-ros evaluate walk --out result --weights FILE
  dae-ros evaluate outdoor_day1_data.hdf5 --out result --weights FILE --orientation depth \\
      --scoring standard:median
  dae-ros evaluate --simulator street_night --simulator room:seed=1001,duration_s=20 \\
      --out result --weights FILE
  dae-ros evaluate DSEC --dataset dsec --out result --weights FILE --orientation depth    published
  dae-ros evaluate DSEC --dataset dsec --sequences thun_00_a --out result --weights FILE    in part
  dae-ros evaluate walk --out result --weights FILE --reset every_window    without memory

--orientation depth is for checkpoints that do not say what their number grows with, such as those
of DepthAnyEvent; leave it out for checkpoints of this project, which say it."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "evaluate",
        help="compare depth with ground truth",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sequences",
        nargs="*",
        metavar="SEQUENCE",
        help="what to evaluate; with --dataset the one folder that holds the data set",
    )
    add_output_folder(parser)
    source = parser.add_argument_group("what is run")
    source.add_argument(
        "--dataset",
        choices=DATASETS,
        help="all sequences of a split: mvsec (as E2Depth prepared it) and dsec by the published "
        "protocol, mvsec_recordings and eventscape with every pixel",
    )
    source.add_argument(
        "--split",
        metavar="NAME",
        help="of --dataset (default: that of published tests: validation for dsec, else test)",
    )
    source.add_argument(
        "--sequences",
        type=_names,
        default=(),
        metavar="NAME,...",
        dest="only",
        help="of --dataset: these of the split alone; the paper's numbers, which are of all, do "
        "not stand beside",
    )
    source.add_argument(
        "--simulator",
        action="append",
        default=[],
        metavar="PRESET[:NAME=VALUE,...]",
        help="simulate a world of `dae-ros simulate`; 10 s and a seed kept for tests unless said",
    )
    source.add_argument("--events", metavar="TOPIC", help="events topic (chosen if absent)")
    source.add_argument("--truth", metavar="TOPIC", help="depth images (chosen if absent)")
    source.add_argument(
        "--size", type=parse_size, metavar="WxH", help="sensor size, where nothing says it"
    )
    source.add_argument(
        "--frames",
        type=_count,
        metavar="N",
        help="only the first N depth images of each sequence (default: all)",
    )
    scoring = parser.add_argument_group("how it is scored")
    scoring.add_argument(
        "--scoring",
        action="append",
        metavar="METRICS:ALIGNMENT",
        help="one more table, see below; plots and pictures show the first",
    )
    scoring.add_argument(
        "--clip",
        type=float,
        default=80.0,
        metavar="M",
        help="ground truth at or beyond it does not count (default: %(default)s m)",
    )
    scoring.add_argument(
        "--reset",
        choices=("carry", "every_window"),
        default="carry",
        help="recurrent state: carried through a sequence, or cleared before each window to see "
        "what memory is worth (default: %(default)s)",
    )
    add_pipeline_parameters(parser, _OPTIONS)
    parser.set_defaults(run=run)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of names, separated by commas")
    return names


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of frames")
    return int(text)


def parameters_of(args: argparse.Namespace) -> DepthParameters:
    """Combine the parameter file and the options; windows end at the truths.

    Raises:
        ConfigurationError: a bad file, a bad value, or a window beside that of a protocol.
    """
    from dae_ros.evaluation.protocols import PROTOCOLS

    values = given_parameters(args, _OPTIONS)
    protocol = PROTOCOLS.get(args.dataset)
    if protocol is not None:
        if args.window_s is not None:
            raise ConfigurationError(
                f"the protocol of {protocol.name} has windows of {protocol.window_ns / 1e9:g} s; "
                f"leave out --window-s"
            )
        if args.event_encoder is not None:
            raise ConfigurationError(
                f"the protocol of {protocol.name} says how events are encoded; leave out "
                f"--event-encoder"
            )
        values["window_s"] = protocol.window_ns / 1e9
    # Truths stand in for the camera frames that end windows; their stamps are instants.
    values |= {"window": "frame", "image_stamp": "mid", "overload": "queue", "stamp_clock": "ros"}
    return DepthParameters.from_mapping(values)


def sources_of(args: argparse.Namespace) -> list[EvaluationSource]:
    """Return the sequences that the arguments name.

    Raises:
        ConfigurationError: arguments that do not go together.
        RecordingError: a data set that is not whole.
    """
    from dae_ros.evaluation.sources import recorded_source, simulated_source

    if args.dataset is None:
        if args.split is not None or args.only:
            option = "--sequences" if args.split is None else "--split"
            raise ConfigurationError(f"{option} belongs to --dataset; name the data set too")
        if not args.sequences and not args.simulator:
            raise ConfigurationError(
                "there is nothing to evaluate; name a recording, a data set or a simulation"
            )
        given = {"events": args.events, "truth": args.truth, "size": args.size}
        idle = [f"--{name}" for name, value in given.items() if value is not None]
        if idle and not args.sequences:
            raise ConfigurationError(
                f"a simulation has its own events, depth and size; leave out {' and '.join(idle)}"
            )
        return [
            *(recorded_source(text, **given) for text in args.sequences),
            *(simulated_source(text) for text in args.simulator),
        ]
    if len(args.sequences) != 1 or args.simulator or args.events or args.truth or args.size:
        raise ConfigurationError(
            "--dataset takes one SEQUENCE, the folder that holds the data set, and neither "
            "--simulator nor topics nor --size"
        )
    return _dataset_sources(args.dataset, Path(args.sequences[0]), args.split, args.only)


def _dataset_sources(
    dataset: str, root: Path, split: str | None, only: tuple[str, ...]
) -> list[EvaluationSource]:
    from dae_ros.evaluation.protocols import PROTOCOLS, TEST_SPLIT
    from dae_ros.evaluation.sources import RecordedSource, VoxelSource
    from dae_ros.evaluation.splits import (
        eventscape_sequences,
        mvsec_recordings,
        published_sequences,
    )

    split = split or TEST_SPLIT.get(dataset, "test")
    if dataset == "mvsec_recordings":
        pairs = mvsec_recordings(split, root, only)
        return [RecordedSource(name, paths) for name, paths in pairs.items()]
    if dataset == "eventscape":
        if only:
            raise ConfigurationError(
                "--sequences is not for eventscape, of which all sequences that are there are run"
            )
        paths = eventscape_sequences(split, root)
        return [RecordedSource(f"{path.parent.name}/{path.name}", (path,)) for path in paths]
    found = published_sequences(PROTOCOLS[dataset], split, root, only)
    if dataset == "mvsec":
        return [VoxelSource(name, path) for name, path in found.items()]
    return [RecordedSource(name, (path,)) for name, path in found.items()]


def run(args: argparse.Namespace) -> int:
    """Evaluate.

    Returns:
        0, or 130 when Ctrl-C ended it; the files are whole either way.

    Raises:
        DaeError: what stopped it. A recording that was cut is scored up to the cut first.
    """
    # numba and the network take seconds to import, which --help does not need.
    from dae_ros.evaluation.evaluation_run import (
        OUTPUTS,
        EvaluationPlan,
        run_evaluation,
    )
    from dae_ros.evaluation.observation import ObservationRules
    from dae_ros.evaluation.protocols import PROTOCOLS
    from dae_ros.evaluation.sequence_scorer import default_scorings
    from dae_ros.model.configuration import same_input
    from dae_ros.runtime.backends import create_estimator
    from dae_ros.runtime.depth_frame import scale_of
    from dae_ros.runtime.output_folder import output_folder

    with usage():
        parameters = parameters_of(args)
        sources = sources_of(args)
        chosen = [_scoring(text) for text in args.scoring or ()]
    estimator = create_estimator(parameters)
    protocol = PROTOCOLS.get(args.dataset)
    if protocol is not None and same_input(estimator.meaning.event_encoder, protocol.event_encoder):
        parameters = dataclasses.replace(parameters, event_encoder=protocol.event_encoder)
    scale = scale_of(estimator, parameters.orientation, parameters.scale, parameters.shift)
    scorings = chosen or default_scorings(scale.kind, published=protocol is not None)
    simulated = bool(args.simulator) and not args.sequences
    with usage():
        scorings = [dataclasses.replace(item, clip_distance_m=args.clip) for item in scorings]
    plan = EvaluationPlan(
        dataset=args.dataset or ("simulator" if simulated else "recordings"),
        parameters=parameters,
        rules=ObservationRules(args.reset, protocol, args.frames),
        scorings=tuple(scorings),
    )
    bar = ProgressBar()

    def report(progress: EvaluationProgress) -> None:
        bar.update(progress.fraction, _line(progress))

    with (
        output_folder(args.out, args.overwrite, OUTPUTS) as folder,
        InterruptFlag() as stopped,
    ):
        result = run_evaluation(
            sources, plan, estimator, folder, report=report, note=bar.note, stopped=stopped
        )
    bar.close()
    print(_summary(result.report))
    if "sequences" in result.report.facts:
        print(f"sequences: {result.report.facts['sequences']}")
    print(f"-> {args.out / 'evaluation.md'}")
    for note in estimator.notes:
        print(f"note: {note}")
    if result.damage is not None:
        raise result.damage
    return EXIT_INTERRUPTED if result.interrupted else 0


def _scoring(text: str) -> Scoring:
    from dae_ros.evaluation.alignment import METHODS
    from dae_ros.evaluation.scoring import Scoring

    variant, _, alignment = text.partition(":")
    for known_variant in ("standard", "published"):
        for known_alignment in METHODS:
            if (variant, alignment) == (known_variant, known_alignment):
                return Scoring(known_variant, known_alignment)
    raise ConfigurationError(
        f"There is no scoring '{text}'; write METRICS:ALIGNMENT with standard or published, and "
        f"one of {', '.join(METHODS)}.",
        scoring=text,
    )


def _line(progress: EvaluationProgress) -> str:
    return f"{progress.sequence}: {progress.frames} windows, Abs Rel {progress.abs_rel:.3f}"


def _summary(report: EvaluationReport) -> str:
    """Return the means of all tables, one line each."""
    from dae_ros.evaluation.scoring import mean_of_sequences

    lines = []
    for table in report.tables:
        mean = mean_of_sequences(table.sequences)
        line = (
            f"{table.scoring.variant}:{table.scoring.alignment}, pixels {table.pixels}: "
            f"Abs Rel {mean['abs_rel']:.3f}, RMSE {mean['rmse']:.2f} m, "
            f"delta_1 {mean['delta_1']:.3f}"
        )
        if "best_constant_abs_rel" in mean:
            line += f" (best constant of each frame: {mean['best_constant_abs_rel']:.3f})"
        lines.append(line)
    return "\n".join(lines)
