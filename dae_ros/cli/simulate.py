"""`dae-ros simulate`: record a simulated event camera into a rosbag2."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from dae_ros.cli.interrupt import InterruptFlag
from dae_ros.cli.progress import ProgressBar
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.parameters import SimulatorParameters, declarations

EXIT_INTERRUPTED = 130
DEFAULT_DURATION_S = 5.0
# What only a live node needs.
_LIVE = ("rate", "publish_clock", "wait_subscribers", "wait_timeout_s")
_SHORT = {"duration_s": "duration"}

DESCRIPTION = """\
Move an event camera through a textured room or corridor and record what it sees into a rosbag2
(mcap), with exact depth. Equal options give equal bytes."""

EPILOG = """\
what is recorded:
  /events                    EventPacket, or dvs_msgs/EventArray with --encoding dvs_msgs
  /image_raw, /camera_info   mono8 frames, stamped in the middle of their exposure
  /depth_truth, /depth_truth/camera_info    32FC1, metres along the optical axis

examples:
  dae-ros simulate --out walk
  dae-ros simulate --out hall --scene corridor --seed 3 --duration 20
  dae-ros simulate --out old_format --encoding dvs_msgs
  dae-ros bag walk --out result --weights untrained:vits    run it through the pipeline"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "simulate",
        help="record a simulated event camera with exact depth",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="rosbag2 to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing rosbag2")
    for name, (default, declared) in declarations(SimulatorParameters).items():
        if name in _LIVE:
            continue
        shown = DEFAULT_DURATION_S if name == "duration_s" else default
        text = "Simulated seconds." if name == "duration_s" else declared.description
        parser.add_argument(
            f"--{_SHORT.get(name, name).replace('_', '-')}",
            dest=name,
            type=type(default),
            default=shown,
            choices=declared.choices or None,
            metavar=None if declared.choices else "VALUE",
            help=f"{text} (default: {shown!r})".replace("%", "%%"),
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate and record.

    Returns:
        0, or 130 when Ctrl-C ended it; the recording is whole up to there.

    Raises:
        ConfigurationError: an option out of range.
        RecordingError: the folder exists, or cannot be written.
    """
    # numba takes seconds to import, which --help does not need.
    from dae_ros.bags.simulated import simulated_messages, simulated_topics
    from dae_ros.bags.writer import BagWriter
    from dae_ros.simulation.simulation import START_NS, Simulation

    parameters = SimulatorParameters.from_mapping(
        {
            name: getattr(args, name)
            for name in declarations(SimulatorParameters)
            if name not in _LIVE
        }
    )
    if parameters.duration_s <= 0.0:
        raise ConfigurationError("a recording needs an end; give --duration more than 0 s")
    _make_room(args.out, args.overwrite)
    topics = simulated_topics(parameters.encoding)
    bar = ProgressBar()
    count = 0
    with InterruptFlag() as stopped, BagWriter(args.out) as bag:
        for message in simulated_messages(Simulation(parameters)):
            if stopped():
                break
            bag.write(f"/{message.topic}", topics[message.topic], message.stamp_ns, message.data)
            count += 1
            elapsed_s = (message.stamp_ns - START_NS) / 1e9
            bar.update(elapsed_s / parameters.duration_s, f"{elapsed_s:.2f} s simulated")
    bar.close()
    print(f"{count} messages -> {args.out}")
    return EXIT_INTERRUPTED if stopped() else 0


def _make_room(path: Path, overwrite: bool) -> None:
    """Remove an old recording, and nothing that is not one."""
    if not path.exists():
        return
    if not overwrite:
        raise RecordingError(
            f"{path} exists already; choose another --out, or add --overwrite", path=str(path)
        )
    if not (path / "metadata.yaml").is_file():
        raise RecordingError(
            f"{path} is not a rosbag2 and is left alone; choose another --out", path=str(path)
        )
    shutil.rmtree(path)
