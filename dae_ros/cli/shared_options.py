"""Options that several verbs share, and how their values are read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dae_ros.cli.parameter_options import add_parameter_options
from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters, Value, declarations
from dae_ros.runtime.parameter_file import read_node_parameters

if TYPE_CHECKING:
    from dae_ros.bags.recording import Recording


def add_output_folder(parser: argparse.ArgumentParser) -> None:
    """Add `--out` and `--overwrite`, for `output_folder`."""
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace what an earlier run left in DIR when this one has ended; what a failed one "
        "wrote is in DIR/unfinished",
    )  # fmt: skip


def add_pipeline_parameters(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add `--params` and an option for each of these parameters of the depth node."""
    settings = parser.add_argument_group("parameters of the pipeline (docs/parameters.md)")
    settings.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        help="YAML as for the node (config/depth.yaml); options given here win over it",
    )
    add_parameter_options(settings, declarations(DepthParameters), names)


def given_parameters(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Value]:
    """Return what `--params` and the options of `add_pipeline_parameters` say, options winning.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    values = {} if args.params is None else _read_parameter_file(args.params)
    given = {name: getattr(args, name) for name in names}
    return values | {name: value for name, value in given.items() if value is not None}


def _read_parameter_file(path: Path) -> dict[str, Value]:
    """Read parameters of the depth node from a ROS parameter file.

    Of the sections, those for every node (`/**`) and for a node named depth are taken.

    Raises:
        ConfigurationError: no such file, no YAML, or without such a section.
    """
    values = read_node_parameters(path, "depth")
    if values is None:
        raise ConfigurationError(
            f"{path} has no parameters of the depth node; it needs a section '/**/depth:' with "
            f"'ros__parameters:', as config/depth.yaml has",
            path=str(path),
        )
    return values


def parse_size(text: str) -> tuple[int, int]:
    """Read `1280x720` as (height, width)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise argparse.ArgumentTypeError(f"'{text}' is no size like 1280x720")
    return int(match[2]), int(match[1])


def open_sized(paths: list[Path], size: tuple[int, int] | None) -> Recording:
    """Open a recording with the sensor size that the user gave, (height, width) in px, or none.

    Raises:
        RecordingError: see `open_recording`.
        ConfigurationError: a size for a recording that says it itself; it would have no effect.
    """
    from dae_ros.bags.recording import open_recording

    recording = open_recording(paths, size)
    if size is not None and recording.tells_size:
        recording.close()
        raise ConfigurationError(
            f"{recording.name} says the sensor's size in each of its event messages, and "
            f"{size[1]}x{size[0]} px would change nothing; leave --size out",
            size=size,
        )
    return recording


def seconds(text: str) -> float:
    """Read a time of at least 0 s."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no time in seconds")
    return value


def duration(text: str) -> float:
    """Read a time above 0 s: none at all would be no run."""
    if (value := seconds(text)) == 0.0:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration; give more than 0 seconds")
    return value
