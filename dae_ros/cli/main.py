"""`dae-ros <verb>`: dispatch to the verbs, and from errors to exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from dae_ros.cli.interrupt import EXIT_INTERRUPTED
from dae_ros.cli.usage import EXIT_FAILURE, EXIT_USAGE, VerbParser, WrongUsage
from dae_ros.errors import DaeError
from dae_ros.installation import version

# Verb -> module; a module is imported only when the parser is built, and imports what is slow
# (torch, numba) only inside its `run`.
VERBS = (
    "bag",
    "evaluate",
    "convert",
    "simulate",
    "models",
    "export",
    "bench",
    "demo",
    "clips",
    "train",
    "distill",
    "adapt",
)

DESCRIPTION = """\
Depth from event cameras: run it on recordings, compare it with ground truth, convert and simulate
recordings, manage weights.
The live node is started with `ros2 launch dae_ros depth.launch.py`; the verbs here need no ROS
(`demo` uses it where it is installed)."""

EPILOG = """\
Exit codes: 0 finished; 1 failed (a recording or weights that are missing or damaged, no such topic,
device or package, something in the way), after everything that could be done; 2 wrong usage (an
option, or a file of settings that it names, that is unknown, out of range or excluded by another),
before anything was done; 130 interrupted.
`dae-ros <verb> --help` explains a verb, with examples."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every verb."""
    parser = argparse.ArgumentParser(
        prog="dae-ros",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument("--version", action=_ShowVersion, help="show the version and exit")
    subparsers = parser.add_subparsers(
        dest="verb", metavar="<verb>", required=True, parser_class=VerbParser
    )
    for verb in VERBS:
        importlib.import_module(f"dae_ros.cli.{verb}").add_parser(subparsers)
    return parser


class _ShowVersion(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **others: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **others)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it and end."""
        print(f"dae-ros {version()}")
        parser.exit()


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 when it succeeded, 1 when it failed, 2 for wrong usage, 130 when it was interrupted.

    Raises:
        SystemExit: wrong usage that argparse finds (2), --help and --version (0).
    """
    parsed = build_parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except DaeError as error:
        print(f"dae-ros {parsed.verb}: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, WrongUsage) else EXIT_FAILURE
    except KeyboardInterrupt:
        print(f"dae-ros {parsed.verb}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
