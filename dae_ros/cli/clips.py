"""`dae-ros clips`: make what students are trained on, and look at it."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from dae_ros.cli.interrupt import EXIT_INTERRUPTED, InterruptFlag
from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.usage import usage
from dae_ros.errors import ConfigurationError

DESCRIPTION = """\
Make clips: encoded event windows with true depth and camera frames, ready for training. A recipe
(a YAML file, or the name of one in config/train) names simulated worlds with their seeds,
recordings and data sets, and puts each whole into `train` or `heldout`, of which one may be absent.
Equal recipes give equal bytes. A build that was stopped or killed goes on when the same command is
run again."""

EPILOG = """\
examples:
  dae-ros clips clips_first_weights --out output/clips --processes 2
  dae-ros clips clips_mvsec --root /data/mvsec --out output/clips_mvsec
  dae-ros clips --warp-dsec /data/DSEC       write images/left/ev_inf of each sequence
  dae-ros clips clips_dsec_frames --root /data/DSEC --out output/clips_dsec_frames
  dae-ros clips --verify output/clips        compare every array with its digest
  dae-ros clips --show output/clips          what is in it

docs/training.md describes recipes."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "clips",
        help="make training clips of worlds, recordings and data sets",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="?", help="YAML file, or a name: what to make")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the clips")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder that the recipe's recordings and data sets are below (default: here)",
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="at a time (default: %(default)s)"
    )
    parser.add_argument("--verify", type=Path, metavar="DIR", help="check finished clips")
    parser.add_argument(
        "--warp-dsec",
        type=Path,
        metavar="DIR",
        help="put the frames of DSEC's sequences in DIR on the pixels of their events",
    )
    parser.add_argument("--show", type=Path, metavar="DIR", help="describe finished clips")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make, verify or describe clips.

    Returns:
        0, or 130 when Ctrl-C stopped it; finished sequences are kept.

    Raises:
        DaeError: a recipe or a source that is wrong, or damaged clips.
    """
    from dae_ros.distillation.clip_build import build_clips
    from dae_ros.distillation.clip_recipe import read_recipe
    from dae_ros.distillation.clip_store import open_clip_store

    looked_at = args.verify or args.show
    with usage():
        others = (args.verify, args.show, args.warp_dsec)
        if sum(item is not None for item in (args.recipe, *others)) != 1 or (
            args.recipe and args.out is None
        ):
            raise ConfigurationError(
                "give a recipe with --out, or one of --verify, --show and --warp-dsec with a folder"
            )
        if args.processes < 1:
            raise ConfigurationError(f"{args.processes} processes make nothing; give 1 or more")
    if args.warp_dsec:
        return _warp(args.warp_dsec)
    if looked_at is not None:
        store = open_clip_store(looked_at)
        if args.verify:
            store.verify()
        _describe(looked_at)
        return 0
    with usage():
        recipe = read_recipe(args.recipe, args.root)
    bar = ProgressBar()
    with InterruptFlag() as stopped:
        result = build_clips(
            recipe, args.out, processes=args.processes, stopped=stopped, report=bar.update
        )
    bar.close()
    if result.store is None:
        print(f"stopped; {result.windows} windows are finished. Run it again to go on")
        return EXIT_INTERRUPTED
    _describe(args.out)
    return 0


def _warp(folder: Path) -> int:
    from dae_ros.bags.datasets.dsec_frames import (
        CALIBRATION,
        WARPED,
        read_frames_to_events,
        sequences_with_frames,
        warp_frames,
    )

    bar = ProgressBar()
    sequences = sequences_with_frames(folder)
    with InterruptFlag() as stopped:
        for index, sequence in enumerate(sequences):
            for part in warp_frames(sequence):
                bar.update((index + part) / len(sequences), sequence.name)
                if stopped():
                    bar.close()
                    print("stopped; run it again to go on")
                    return EXIT_INTERRUPTED
            parallax = read_frames_to_events(sequence / CALIBRATION).parallax_px_m
            bar.note(f"{sequence / WARPED}: off by at most {parallax:.1f} / Z px at Z metres")
    bar.close()
    return 0


def _describe(folder: Path) -> None:
    from dae_ros.distillation.clip_store import SPLITS, open_clip_store

    store = open_clip_store(folder)
    print(f"{folder}: {store.event_encoder}, {store.width}x{store.height} px, {store.digest}")
    for split in SPLITS:
        sequences = store.split(split)
        windows = sum(len(sequence) for sequence in sequences)
        with_depth = sum(sequence.depth is not None for sequence in sequences)
        with_frames = sum(sequence.frames is not None for sequence in sequences)
        print(
            f"  {split}: {windows} windows in {len(sequences)} sequences, "
            f"{with_depth} with depth, {with_frames} with frames"
        )
        left_out = sum((Counter(item.facts["left_out"]) for item in sequences), Counter[str]())
        if left_out:
            counts = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
            print(f"    left out: {counts}")
