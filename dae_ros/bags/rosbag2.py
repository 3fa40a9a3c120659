"""rosbag2 recordings: a folder, or its storage files where the metadata does not help."""

from __future__ import annotations

from pathlib import Path

from rosbags.rosbag2 import Reader

from dae_ros.bags.container import Container
from dae_ros.bags.rosbag2_mcap import scan_mcap
from dae_ros.bags.rosbag2_sqlite3 import is_truncated, scan_sqlite3
from dae_ros.bags.rosbags_file import DAMAGE, RosbagsFile
from dae_ros.bags.salvage import SalvagedFile
from dae_ros.errors import RecordingError

STORAGE_SUFFIXES = (".mcap", ".db3")


def is_rosbag2_folder(path: Path) -> bool:
    """Return whether a folder has the metadata or a storage file of a rosbag2."""
    return (path / "metadata.yaml").is_file() or any(
        item.suffix in STORAGE_SUFFIXES for item in path.iterdir()
    )


def open_folder(path: Path) -> list[Container]:
    """Open a rosbag2 folder by its metadata.yaml, or where that fails by its storage files.

    Raises:
        RecordingError: there is no storage file, or one that is not readable at all.
    """
    storage = sorted(item for item in path.iterdir() if item.suffix in STORAGE_SUFFIXES)
    # A cut database opens, and then fails anywhere in its index.
    if not any(item.suffix == ".db3" and is_truncated(item) for item in storage):
        try:
            reader = Reader(path)
            reader.open()
            return [RosbagsFile(path, reader, "cdr")]
        except DAMAGE as error:
            cause = error
            if not storage:
                raise RecordingError(
                    f"{path} is no rosbag2 folder: it has no .mcap or .db3 file that could be "
                    f"opened without its metadata ({cause})",
                    path=str(path),
                ) from cause
    return [open_storage_file(item) for item in storage]


def open_storage_file(path: Path) -> Container:
    """Open an `.mcap` or `.db3` file by itself, whole or cut.

    Raises:
        RecordingError: nothing of it is readable.
    """
    scan = scan_sqlite3 if path.suffix == ".db3" else scan_mcap
    if path.suffix == ".db3" and is_truncated(path):
        return SalvagedFile(path, scan, "cdr")
    reader = Reader(path)
    try:
        reader.open()
    except DAMAGE:
        return SalvagedFile(path, scan, "cdr")
    return RosbagsFile(path, reader, "cdr")
