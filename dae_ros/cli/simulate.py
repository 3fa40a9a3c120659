"""`dae-ros simulate`: record a simulated event camera in one of several formats."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dae_ros.cli.interrupt import EXIT_INTERRUPTED, InterruptFlag
from dae_ros.cli.parameter_options import add_parameter_option
from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.usage import usage
from dae_ros.errors import ConfigurationError, RecordingError, reason_of
from dae_ros.parameters import Declaration, DepthParameters, SimulatorParameters, declarations

if TYPE_CHECKING:
    from dae_ros.bags.simulated import SimulationWriter
    from dae_ros.runtime.preview import PreviewWriter
    from dae_ros.simulation.rgbd import RgbdSequence
    from dae_ros.simulation.simulation import DepthTruth, Item, Simulation

DEFAULT_DURATION_S = 5.0
DEFAULT_RGBD_HZ = 30.0
# What only a live node needs.
_LIVE = ("rate", "publish_clock", "wait_subscribers", "wait_topics", "wait_timeout_s")
_SHORT = {"duration_s": "duration"}
# Format -> the encoding whose clock it needs; None takes the one that is asked for.
_FORMATS = {"rosbag2": None, "mvsec": "dvs_msgs", "dsec": "dvs_msgs", "raw": "evt3"}
# The farthest depth of the preview's colours, m.
_FAR_M = {
    "room": 8.0, "corridor": 20.0, "warehouse": 25.0, "street": 50.0, "park": 50.0, "yard": 50.0,
}  # fmt: skip

DESCRIPTION = """\
Move an event camera through a world and record what it sees, with exact depth. Worlds are made
from a seed, or filmed (--rgbd). Equal options give equal bytes."""

EPILOG = """\
what is recorded (--format):
  rosbag2  mcap: /events (EventPacket, or dvs_msgs/EventArray with --encoding dvs_msgs),
           /image_raw, /camera_info  mono8, stamped in the middle of the exposure,
           /depth_truth, /depth_truth/camera_info  32FC1, metres along the optical axis
  mvsec    OUT_data.bag and OUT_gt.bag (ROS 1): /davis/left/events, image_raw, camera_info;
           depth_image_raw, pose
  dsec     a sequence folder: events.h5, disparity, images, calibration (extra `datasets`)
  raw      a Prophesee EVT 3.0 file: events only

--rgbd DIR makes events from frames of colour and depth with poses, in the layout of 7-Scenes
(docs/simulator.md); the sensor's options apply, those of world, motion and lens do not.

examples:
  dae-ros simulate --out walk
  dae-ros simulate --out drive --preset street_night --seed 3 --duration 20 --preview pictures
  dae-ros simulate --out office --rgbd scenes/office/seq-01
  dae-ros simulate --out drive.raw --format raw --preset domain_a
  dae-ros bag walk --out result    run it through the pipeline, and compare with its depth"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "simulate",
        help="record a simulated event camera with exact depth",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="PATH", help="recording to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing recording")
    parser.add_argument(
        "--format", default="rosbag2", choices=_FORMATS, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--preset", metavar="NAME", help="named settings, which other options change; see the list "
        "in docs/simulator.md",
    )  # fmt: skip
    parser.add_argument(
        "--preview", type=Path, metavar="DIR",
        help="also write preview.mp4 and contact_sheet.png: events | frame | depth",
    )  # fmt: skip
    parser.add_argument("--rgbd", type=Path, metavar="DIR", help="folder of a filmed sequence")
    parser.add_argument(
        "--rgbd-hz", type=float, default=DEFAULT_RGBD_HZ, metavar="HZ",
        help="rate at which it was filmed (default: %(default)s)",
    )  # fmt: skip
    for name, (default, declared) in declarations(SimulatorParameters).items():
        if name in _LIVE:
            continue
        if name == "duration_s":
            default, declared = DEFAULT_DURATION_S, Declaration("Simulated seconds.")
        # What is not given is left to the preset.
        add_parameter_option(
            parser, name, default, declared, option=_SHORT.get(name), absent=argparse.SUPPRESS
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate and record.

    Returns:
        0, or 130 when Ctrl-C ended it; the recording is whole up to there.

    Raises:
        ConfigurationError: an option out of range, or options that exclude each other.
        RecordingError: the recording exists, or it or the preview cannot be written; or a filmed
            sequence is damaged, and what was simulated until there is whole. A recording to be
            replaced is there until the new one is whole.
    """
    # numba takes seconds to import, which --help does not need.
    from dae_ros.bags.replacing import require_name
    from dae_ros.simulation.simulation import START_NS, Simulation

    require_name(args.out)
    with usage():
        parameters, sequence = _parameters(args)
        if parameters.duration_s <= 0.0:
            raise ConfigurationError("a recording needs an end; give --duration more than 0 s")
    _require_room(args)
    simulation = Simulation(parameters, sequence)
    duration_s = parameters.duration_s
    if sequence is not None:
        duration_s = min(duration_s, sequence.end_us / 1e6)
    bar = ProgressBar()
    count, elapsed_s = 0, 0.0
    damage: RecordingError | None = None
    names = " and ".join(str(path) for path in _targets(args))
    try:
        with (
            InterruptFlag() as stopped,
            contextlib.ExitStack() as stack,
        ):
            items = simulation.items()
            # The first one shows that world, lens and film can be seen at all, before anything is
            # written, and no recording is empty.
            items = itertools.chain([next(items)], items)
            # The preview first, for nothing of the recording to be there where it has no place.
            show = stack.enter_context(_preview(args.preview, parameters, simulation, names))
            writer = stack.enter_context(_recorded(_writer(args, simulation, parameters)))
            while count == 0 or not stopped():
                try:
                    item = next(items, None)
                except RecordingError as error:
                    damage = error
                    break
                if item is None:
                    break
                writer.write(item)
                show(item)
                count += 1
                if hasattr(item, "stamp_ns"):
                    elapsed_s = (item.stamp_ns - START_NS) / 1e9
                    bar.update(elapsed_s / duration_s, f"{elapsed_s:.2f} s simulated")
    except OSError as error:
        parts = [target.with_name(f"{target.name}.partial") for target in _targets(args)]
        left = " and ".join(str(part) for part in parts if part.exists())
        raise RecordingError(
            f"{args.out} cannot be written: {reason_of(error)}. "
            + (f"Make room, remove {left} and run again" if left else "Choose another --out"),
            path=str(args.out),
        ) from error
    bar.close()
    if damage is not None:
        raise RecordingError(
            f"{damage.message}. What was simulated until then, {elapsed_s:.2f} s of "
            f"{duration_s:.2f} s, is whole: {names}",
            **damage.data,
        ) from damage
    if stopped():
        print(
            f"interrupted after {elapsed_s:.2f} s of {duration_s:.2f} s; what was simulated until "
            "then is whole:"
        )
    print(f"{count} packets, frames and depth maps -> {names}")
    return EXIT_INTERRUPTED if stopped() else 0


def _parameters(args: argparse.Namespace) -> tuple[SimulatorParameters, RgbdSequence | None]:
    """Put preset and options together; open the filmed sequence, if there is one."""
    from dae_ros.simulation.presets import preset
    from dae_ros.simulation.rgbd import RgbdSequence

    given = vars(args)
    known = declarations(SimulatorParameters)
    values = {name: given[name] for name in known if name in given and name not in _LIVE}
    needed = _FORMATS[args.format]
    if needed is not None and values.setdefault("encoding", needed) != needed:
        raise ConfigurationError(
            f"the format {args.format} has an encoding of its own; leave --encoding out",
            format=args.format,
        )
    values.setdefault("duration_s", DEFAULT_DURATION_S)
    if args.preset is not None:
        parameters = preset(args.preset, **values)
    else:
        parameters = SimulatorParameters.from_mapping(values)
    if args.rgbd is None:
        return parameters, None
    size = None
    if "height" in given or "width" in given:
        size = (parameters.height, parameters.width)
    sequence = RgbdSequence(args.rgbd, args.rgbd_hz, size)
    camera = sequence.camera
    return dataclasses.replace(parameters, height=camera.height, width=camera.width), sequence


@contextlib.contextmanager
def _recorded(writer: SimulationWriter) -> Iterator[SimulationWriter]:
    """Give a recording its name at the end, and not where an error comes before."""
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def _writer(
    args: argparse.Namespace, simulation: Simulation, parameters: SimulatorParameters
) -> SimulationWriter:
    """Return the writer of a format."""
    path, name, replace = args.out, args.format, args.overwrite
    if name == "mvsec":
        from dae_ros.bags.mvsec_writer import MvsecWriter

        return MvsecWriter(path, simulation, replace=replace)
    if name == "dsec":
        from dae_ros.bags.dsec_writer import DsecWriter

        return DsecWriter(path, simulation, replace=replace)
    if name == "raw":
        from dae_ros.bags.raw_writer import RawWriter

        return RawWriter(path, simulation, replace=replace)
    from dae_ros.bags.simulated import SimulatedBag

    return SimulatedBag(path, simulation, parameters.encoding, replace=replace)


@contextlib.contextmanager
def _preview(
    folder: Path | None, parameters: SimulatorParameters, simulation: Simulation, names: str
) -> Iterator[_Preview]:
    """Yield what is shown every item; it makes pictures where a folder is given."""
    if folder is None:
        yield _Preview(None, simulation)
        return
    from dae_ros.runtime.preview import PreviewWriter

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # a folder that is there may still take nothing
    except OSError as error:
        raise RecordingError(
            f"pictures cannot be written in {folder}: {reason_of(error)}; choose another --preview",
            path=str(folder),
        ) from error
    colours = DepthParameters(color_far_m=_FAR_M[parameters.scene])
    recorded = False
    try:
        with PreviewWriter(folder, colours, with_frames=True) as writer:
            show = _Preview(writer, simulation)
            yield show
            recorded = True
            show.flush()
    except RecordingError as error:
        if not recorded:
            raise
        raise RecordingError(
            f"{error.message}. The recording itself is whole: {names}", **error.data
        ) from error


class _Preview:
    """Makes a picture of every depth map, with the events of the 50 ms before it."""

    def __init__(self, writer: PreviewWriter | None, simulation: Simulation) -> None:
        from dae_ros.events.packet import Events

        self._writer, self._simulation = writer, simulation
        self._events = Events.empty()
        self._truth: DepthTruth | None = None

    def __call__(self, item: Item) -> None:
        from dae_ros.events.frame import Frame
        from dae_ros.events.packet import Events

        if self._writer is None:
            return
        if isinstance(item, Events):
            self.flush()
            self._events = Events.concatenate([self._events, item])
        elif isinstance(item, Frame):
            # The frame of the same instant belongs to the picture, and comes after the depth.
            if self._truth is not None and self._truth.stamp_ns < item.stamp_ns:
                self.flush()
            self._writer.add_frame(item)
        else:
            self.flush()
            self._truth = item

    def flush(self) -> None:
        """Make the picture that waits."""
        from dae_ros.representation.render import events_image
        from dae_ros.representation.tencode import tencode
        from dae_ros.simulation.clips import WINDOW_S
        from dae_ros.simulation.simulation import START_NS

        item, self._truth = self._truth, None
        if item is None or self._writer is None or item.stamp_ns == START_NS:
            return
        end_ns = item.stamp_ns - START_NS + self._simulation.event_start_ns
        first, last = self._events.t.searchsorted([end_ns - round(WINDOW_S * 1e9), end_ns])
        window = self._events.slice(int(first), int(last))
        self._events = self._events.slice(int(first), len(self._events))
        height, width = item.depth.shape
        self._writer.add(
            item.stamp_ns, events_image(tencode(window, height, width)), item.depth,
            kind="metric", orientation="depth",
        )  # fmt: skip


def _targets(args: argparse.Namespace) -> tuple[Path, ...]:
    """Return what the format writes."""
    path: Path = args.out
    if args.format == "mvsec":
        return tuple(path.with_name(f"{path.name}_{part}.bag") for part in ("data", "gt"))
    return (path,)


def _require_room(args: argparse.Namespace) -> None:
    """Refuse what must not be replaced: anything at all, or what is no recording of the format."""
    name: str = args.format
    for target in _targets(args):
        if not target.exists():
            continue
        if not args.overwrite:
            raise RecordingError(
                f"{target} exists already; choose another --out, or add --overwrite",
                path=str(target),
            )
        if not _is_recording(target, name):
            raise RecordingError(
                f"{target} is not a recording of the format {name} and is left alone; choose "
                "another --out",
                path=str(target),
            )


def _is_recording(path: Path, name: str) -> bool:
    """Whether something is what this verb writes as a format."""
    if name == "rosbag2":
        return (path / "metadata.yaml").is_file()
    if name == "dsec":
        return (path / "events" / "left" / "events.h5").is_file()
    start = b"#ROSBAG V2.0" if name == "mvsec" else b"% "
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start
