"""`dae-ros export`: weights as an ONNX file of fixed size, compared with PyTorch first."""

from __future__ import annotations

import argparse
from pathlib import Path

from dae_ros.cli.usage import WrongUsage

DESCRIPTION = """\
Write a network with its weights as one ONNX graph for a sensor of one size. Image of the sensor's
size in, prediction of that size out: scaling, padding and normalisation are inside, the recurrent
state is explicit (state_0_in, state_0_out, ...). What the number means, the weights' digest and the
shapes are in the file's meta-data, so depth_node and `dae-ros bag` take it as weights.

Before the file is there, onnxruntime and PyTorch both step through ten windows of moving edges,
each with its own state. Root mean square difference, where the output's standard deviation is 1:
at most 1e-4 in float32 and 1e-2 in float16. What is further off is not written.

int8 is for OpenVINO on CPUs. Its ranges are calibrated on training windows of clips, each with the
recurrent state that the network has by then; then float32 and int8 both run through held-out
windows with true depth. A file whose Abs Rel, aligned or metric, is worse by more than 2 % is not
written. The scores go into the file and into FILE.onnx.accuracy.json."""

EPILOG = """\
examples:
  dae-ros export path/to/weights.safetensors --out vga.onnx --height 480 --width 640
  dae-ros export untrained:micro --out davis.onnx --height 260 --width 346
  dae-ros export untrained:vits --out half.onnx --height 480 --width 640 --precision float16
  dae-ros bag recording.mcap --out out --weights vga.onnx    runs it
  dae-ros clips config/train/clips_first_weights.yaml --out output/clips
  dae-ros export micro --out small.onnx --height 130 --width 173 --precision int8 \\
      --calibration output/clips

float16 halves the file and is for GPUs; a CPU computes it slower than float32 (docs/backends.md).
Needs the extra `onnx`, for int8 the extra `int8`.

Exit codes: 0 written, 1 failed or refused (nothing is written), 2 wrong usage."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "export",
        help="write weights as an ONNX file for other runtimes",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "weights", help="checkpoint file, a name from `dae-ros models list`, or untrained:NAME"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx", help="the file")
    for side in ("height", "width"):
        parser.add_argument(
            f"--{side}", type=int, required=True, metavar="PX", help=f"{side} of the sensor in px"
        )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="of weights and arithmetic (default: float32)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="CLIPS",
        help="int8: folder of `dae-ros clips` of the sensor's size, with held-out true depth",
    )
    parser.add_argument(
        "--opset",
        type=int,
        default=18,
        metavar="N",
        help="version of the ONNX operators, 18 or more (default: 18)",
    )


def run(args: argparse.Namespace) -> int:
    """Export.

    Raises:
        WrongUsage: a size or opset that cannot be, or no such folder.
        DaeError: what stopped it.
    """
    for side in ("height", "width"):
        if not 1 <= getattr(args, side) <= 16_384:
            raise WrongUsage(f"--{side} must be 1 to 16384 px, not {getattr(args, side)}")
    if args.opset < 18:
        raise WrongUsage(f"--opset must be 18 or more, not {args.opset}; PyTorch exports no older")
    if args.out.suffix != ".onnx":
        raise WrongUsage(f"--out must end in .onnx, not '{args.out.name}'; weights go by that name")
    if (args.precision == "int8") != (args.calibration is not None):
        raise WrongUsage("--precision int8 and --calibration CLIPS go together; give both or none")
    if not args.out.parent.is_dir():
        raise WrongUsage(f"there is no folder {args.out.parent} to write {args.out.name} to")

    from dae_ros.model.weights import load_weights
    from dae_ros.runtime.onnx_export import export_onnx

    loaded = load_weights(args.weights)
    if args.calibration is not None:
        from dae_ros.distillation.clip_store import open_clip_store
        from dae_ros.distillation.int8_export import export_int8

        report = export_int8(
            loaded,
            args.out,
            args.height,
            args.width,
            open_clip_store(args.calibration),
            opset=args.opset,
        )
        print(
            f"{args.out}: {loaded.name} for {args.height}x{args.width} px (height x width), int8, "
            f"{args.out.stat().st_size / 1e6:.1f} MB\n"
            f"over {report.windows} held-out windows of {len(report.sequence_scores)} sequences: "
            f"{report.sentence()}"
        )
        return 0
    deviation = export_onnx(
        loaded, args.out, args.height, args.width, precision=args.precision, opset=args.opset
    )
    print(
        f"{args.out}: {loaded.name} for {args.height}x{args.width} px (height x width), "
        f"{args.precision}, {args.out.stat().st_size / 1e6:.1f} MB\n"
        f"over {deviation.steps} steps off PyTorch by {deviation.root_mean_square:.1e} of the "
        f"output's standard deviation, one pixel by {deviation.largest:.1e}"
    )
    return 0
