"""`dae-ros distill`: teach an event network what a frame network sees, without ground truth."""

from __future__ import annotations

import argparse

from dae_ros.cli.train import add_options, run_with
from dae_ros.distillation.configuration import DistillationParameters

DESCRIPTION = """\
Train a network of events by labels that a network of camera frames (the teacher) gives. No true
depth is used; where clips have it, it is only scored beside. Runs resume like those of
`dae-ros train`."""

EPILOG = """\
teachers are networks of frames: a checkpoint (micro_frames of this project), a name of `dae-ros
models list` (depth_anything_v2_vits), or the .yaml manifest of an ONNX file (docs/training.md).
Several, with shares: each update takes one (--set teachers=a.safetensors:0.7,b.yaml:0.3).

what is written below --out: as for `dae-ros train`; heldout.csv also has label_...: the agreement
with the teacher on held-out clips, by which best.safetensors is chosen.

examples:
  dae-ros distill first_weights_distilled --out output/distilled --set clips=output/clips \\
      --set encoder_weights=micro_frames --set teachers=micro_frames
  dae-ros distill dsec_distilled --out output/dsec --set clips=output/clips_dsec_frames
  dae-ros distill --settings            every setting with its meaning

Exit codes: 0 finished, 1 failed, 2 wrong usage, 130 stopped and ready to go on."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "distill",
        help="train a network of events by a teacher's labels for camera frames",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Distil; see `train.run`."""
    return run_with(args, DistillationParameters)
