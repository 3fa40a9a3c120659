"""`dae-ros convert`: recordings of any format into rosbag2."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dae_ros.cli.interrupt import EXIT_INTERRUPTED, InterruptFlag
from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.shared_options import open_sized, parse_size

DESCRIPTION = """\
Convert a recording into a rosbag2 folder that `ros2 bag` plays: ROS 1 .bag, .aedat4, Prophesee
.raw, and rosbag2 of the other storage. Several sources are merged by record time. Record times
are kept, and event arrays are repacked with every event as it was, to the nanosecond."""

EPILOG = """\
--event-packets turns event arrays (dvs_msgs and its twins) into event_camera_msgs/EventPacket,
which needs no dvs_msgs to be played: evt3 and libcaer_cmp are small, libcaer is fast, mono keeps
nanoseconds; the others cut event times to whole microseconds. evt3 holds no absolute time: header
stamps are set to each packet's first event, from which the clock is found again.

examples:
  dae-ros convert outdoor_day1_data.bag outdoor_day1_gt.bag outdoor_day1
  dae-ros convert outdoor_day1_data.bag outdoor_day1 --event-packets libcaer_cmp
  dae-ros convert drive.bag drive --topics /dvs/events /dvs/image_raw --storage sqlite3
  dae-ros convert events.raw events --size 1280x720"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "convert",
        help="recordings of any format into rosbag2",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="+", type=Path, help="one or more recordings")
    parser.add_argument("target", type=Path, help="rosbag2 folder to write; must not exist")
    parser.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap", help="(default: mcap)"
    )
    parser.add_argument(
        "--event-packets",
        choices=("evt3", "libcaer_cmp", "libcaer", "mono"),
        help="encode event arrays as EventPackets",
    )
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="only these (default: all)")
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="WxH",
        help="sensor size of a .raw, in place of its header's, or of a data set; bags say it "
        "themselves, and it is refused there",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert.

    Returns:
        0, or 130 when Ctrl-C ended it; the folder is whole either way.

    Raises:
        DaeError: what stopped it. A recording that was cut is converted up to the cut first.
    """
    # numba takes seconds to import, which --help does not need.
    from dae_ros.bags.convert import convert

    bar = ProgressBar()
    begin_s = time.perf_counter()
    with open_sized(args.source, args.size) as recording, InterruptFlag() as stopped:
        result = convert(
            recording,
            args.target,
            storage=args.storage,
            event_packets=args.event_packets,
            topics=args.topics,
            stopped=stopped,
            report=lambda fraction, count: bar.update(fraction, f"{count} messages"),
        )
    bar.close()
    wall_s = time.perf_counter() - begin_s
    print(
        f"{_counted(sum(result.messages.values()), 'message')} on "
        f"{_counted(len(result.messages), 'topic')} in "
        f"{wall_s:.1f} s ({result.event_bytes / wall_s / 1e6:.0f} MB/s of events) -> "
        f"{args.target}"
    )
    for topic, reason in result.skipped.items():
        print(f"left out {topic}: {reason}", file=sys.stderr)
    for topic, count in result.damaged.items():
        print(f"left out {_counted(count, 'damaged message')} of {topic}", file=sys.stderr)
    for topic, counts in result.events.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        print(
            f"events of {topic} that changed on the way (docs/time.md): {reasons}", file=sys.stderr
        )
    if result.damage is not None:
        raise result.damage
    return EXIT_INTERRUPTED if result.interrupted else 0


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
