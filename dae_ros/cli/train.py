"""`dae-ros train`: teach a student by true depth. `distill.py` shares its options."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from dae_ros.cli.interrupt import EXIT_INTERRUPTED, InterruptFlag
from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.usage import usage
from dae_ros.distillation.configuration import (
    TrainingParameters,
    describe,
    load_settings,
    presets,
)
from dae_ros.errors import ConfigurationError

DESCRIPTION = """\
Train a network on clips with true depth. CONFIG is a YAML file of settings, or the name of a preset
in config/train; --set changes single settings. Run the same command again to go on after Ctrl-C,
kill -9 or a power cut: the weights come out as if nothing had happened."""

EPILOG = """\
what is written below --out:
  settings.yaml      every setting of the run
  state.pt           all that the next update needs, replaced whole every save_every updates
  last.safetensors   the averaged weights at that time, best.safetensors those of the best score
                     (dae-ros bag RECORDING --weights out/best.safetensors); both say what they
                     were trained on, and which way round depth came out
  updates.csv        a row per update; heldout.csv a row per score on held-out clips
  report.json        how it ended

examples:
  dae-ros clips clips_first_weights --out output/clips --processes 2
  dae-ros train first_weights_micro --out output/micro --set clips=output/clips \\
      --set encoder_weights=micro_frames
  torchrun --nproc-per-node 5 -m dae_ros.cli train mvsec_supervised --out output/mvsec
  dae-ros train --settings              every setting with its meaning

Exit codes: 0 finished, 1 failed, 2 wrong usage, 130 stopped and ready to go on.
docs/training.md explains losses, clips and presets."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "train",
        help="train a network by true depth",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what training and distillation have in common."""
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file, or a preset")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="overrides",
        help="change a setting; may be repeated",
    )
    parser.add_argument("--settings", action="store_true", help="list every setting and preset")


def run(args: argparse.Namespace) -> int:
    """Train.

    Returns:
        0, or 130 when Ctrl-C or SIGTERM stopped it; the state is whole either way.

    Raises:
        DaeError: what stopped it.
    """
    return run_with(args, TrainingParameters)


def run_with(args: argparse.Namespace, kind: type[TrainingParameters]) -> int:
    """Train with settings of a kind; see `run`."""
    # PyTorch takes seconds to import, which --help does not need.
    from dae_ros.distillation.runs import train

    if args.settings:
        print(f"presets: {', '.join(presets())}\n\nsettings and defaults:\n{describe(kind)}")
        return 0
    with usage():
        if args.config is None or args.out is None:
            raise ConfigurationError("give CONFIG and --out, or --settings to see what there is")
        settings = load_settings(kind, args.config, args.overrides)
    terminated = threading.Event()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        terminated.set()

    # torchrun and batch systems end their processes with SIGTERM.
    before = signal.signal(signal.SIGTERM, terminate)
    bar = ProgressBar()
    try:
        with InterruptFlag() as interrupted:
            result = train(
                settings,
                args.out,
                stopped=lambda: interrupted() or terminated.is_set(),
                report=bar.update,
                note=bar.note,
            )
    finally:
        bar.close()
        signal.signal(signal.SIGTERM, before)
    best = "" if result.best is None else f", best score {result.best:.4f} at {result.best_step}"
    print(f"{result.step} updates{best} -> {args.out}")
    if result.counters["updates_refused"]:
        print(
            f"{result.counters['updates_refused']} updates were refused: their gradient was not "
            "finite",
            file=sys.stderr,
        )
    if result.warning:
        print(f"warning: {result.warning}", file=sys.stderr)
    if result.counters["judged"]:
        print(
            f"{result.counters['refused']} of {result.counters['judged']} labels were refused, "
            f"{result.counters['negative_scale']} of them upside down"
        )
    if result.interrupted:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0
