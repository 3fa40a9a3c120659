"""`dae-ros models list|fetch|verify|inspect`: which weights there are, here and elsewhere."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dae_ros.cli.usage import EXIT_FAILURE
from dae_ros.errors import DaeError
from dae_ros.model.fetch import fetch
from dae_ros.model.manifest import (
    Entry,
    Manifest,
    download_folder,
    file_of,
    find_entry,
    read_manifest,
)

EXAMPLES = """\
examples:
  dae-ros models list
  dae-ros models fetch depth_anything_v2_vits
  dae-ros models verify                      every file that is here
  dae-ros models inspect path/to/synth.pth

Files are kept in $DAE_ROS_MODELS, or ~/.local/share/dae_ros/models."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its actions."""
    parser = subparsers.add_parser(
        "models",
        help="list, fetch, verify and inspect weights",
        description="List, fetch, verify and inspect weights.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", metavar="<action>", required=True)
    actions.add_parser("list", help="show every known checkpoint and whether it is here")
    get = actions.add_parser("fetch", help="get the file of a checkpoint; goes on after a cut")
    get.add_argument("name", help="name from `dae-ros models list`")
    get.add_argument("--to", type=Path, metavar="DIR", help="models folder to put it in")
    check = actions.add_parser("verify", help="compare digests and load files strictly")
    check.add_argument(
        "weights", nargs="*", help="names or files; without any, everything that is here"
    )
    look = actions.add_parser("inspect", help="show what a checkpoint is and what it means")
    look.add_argument("weights", help="name, file, or untrained:vits")


def run(args: argparse.Namespace) -> int:
    """Run one action.

    Returns:
        0, or 1 if a file failed verification.

    Raises:
        DaeError: what stopped the action.
    """
    if args.action == "list":
        _list(read_manifest())
        return 0
    if args.action == "fetch":
        manifest = read_manifest()
        _fetch(manifest, find_entry(manifest, args.name), args.to or download_folder())
        return 0
    if args.action == "verify":
        return _verify(read_manifest(), args.weights)
    _inspect(args.weights)
    return 0


def _list(manifest: Manifest) -> None:
    rows = [("NAME", "NETWORK", "ENCODER", "SIZE", "LICENCE", "FILE")]
    for entry in manifest.entries:
        path = file_of(manifest, entry)
        where = str(path) if path else ("to fetch" if entry.url else "to get by hand")
        size = _megabytes(path.stat().st_size if path else entry.size_bytes)
        licence = entry.licence.split(";")[0]
        rows.append((entry.name, entry.network, entry.encoder or "in file", size, licence, where))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
    if any(entry.url is None and not file_of(manifest, entry) for entry in manifest.entries):
        print(
            f"\nTo get by hand: `dae-ros models fetch NAME` says where it is published and where "
            f"to put it (below {download_folder()}). '-' is a size that nobody has published."
        )
    print("\nWithout a file: untrained:vits and the like run with random weights.")


def _megabytes(size_bytes: int | None) -> str:
    """Return a size with one digit at least, '-' for one that nobody knows."""
    if size_bytes is None:
        return "-"
    return f"{size_bytes / 1e6:.{0 if size_bytes >= 10_000_000 else 1}f} MB"


def _fetch(manifest: Manifest, entry: Entry, folder: Path) -> None:
    shipped = file_of(manifest, entry) if entry.shipped else None
    print(shipped or fetch(entry, folder, Progress(entry.name)))


class Progress:
    """A progress bar on stderr; on something other than a terminal, a line every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._terminal = sys.stderr.isatty()
        self._shown_s = -1e9

    def __call__(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` bytes are here (None: of an unknown number)."""
        now_s = time.monotonic()
        finished = done == total
        if now_s - self._shown_s < (0.1 if self._terminal else 5.0) and not finished:
            return
        self._shown_s = now_s
        text = f"{self.name}  {done / 1e6:.1f} MB"
        if total:
            filled = 30 * done // total
            text = (
                f"{self.name}  [{'#' * filled}{'.' * (30 - filled)}] "
                f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
            )
        end = "\n" if finished or not self._terminal else ""
        print(("\r" if self._terminal else "") + text, end=end, file=sys.stderr, flush=True)


def _verify(manifest: Manifest, names: list[str]) -> int:
    from dae_ros.model.weights import load_weights

    if not names:
        names = [entry.name for entry in manifest.entries if file_of(manifest, entry)]
        if not names:
            print(f"no weights are here (looked in {download_folder()} and {manifest.folder})")
    failed = False
    for name in names:
        try:
            loaded = load_weights(name)
        except DaeError as error:
            print(f"FAILED  {name}: {error}")
            failed = True
            continue
        known = any(e.name == name and e.sha256 is not None for e in manifest.entries)
        print(
            f"ok      {name}: every key and value accounted for; sha256 {loaded.digest} "
            f"({'as published' if known else 'nothing published to compare with'})"
        )
    return EXIT_FAILURE if failed else 0


def _inspect(weights: str) -> None:
    from dae_ros.model.weights import load_weights

    loaded = load_weights(weights)
    config, meaning = loaded.config, loaded.meaning
    expected = config.input_format
    parameters = sum(weight.numel() for weight in loaded.network.parameters())
    to_metres = (
        f"{meaning.metres_scale} p + {meaning.metres_shift}"
        if meaning.metres_scale is not None
        else "given by the network"
        if meaning.scale == "metric"
        else "not measured"
    )
    rows = {
        "name": loaded.name,
        "file": str(loaded.path) if loaded.path else "none",
        "sha256": loaded.digest,
        "network": type(loaded.network).__name__,
        **config.summary(),
        "parameters": f"{parameters:,}",
        "input": f"{expected.channels} channels, "
        + (
            "{} rows x {} columns at least".format(*expected.at_least)
            if expected.at_least
            else "of the sensor's size"
        ),
        "event encoder": meaning.event_encoder,
        "orientation": meaning.orientation,
        "scale": meaning.scale,
        "metres": to_metres,
    }
    for key, value in rows.items():
        print(f"{key + ':':16}{value}")
    for note in loaded.notes:
        print(f"note: {note}")
