"""rosbag2 recordings: a folder of storage files, or one storage file by itself.

Topics, counts and times are those of the storage files. Of a folder's metadata.yaml only the names
of its files are used: it is written last, by hand where a recorder was killed, and may be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import yaml
from rosbags.rosbag2.storage_mcap import McapReader

from dae_ros.bags.compression import ZSTD_MAGIC
from dae_ros.bags.container import Container, RecordedMessage, TopicInfo
from dae_ros.bags.rosbag2_mcap import scan_mcap
from dae_ros.bags.rosbag2_sqlite3 import MAGIC as SQLITE3_MAGIC
from dae_ros.bags.rosbag2_sqlite3 import Sqlite3File, scan_sqlite3
from dae_ros.bags.rosbags_file import DAMAGE, RosbagsFile
from dae_ros.bags.salvage import SalvagedFile
from dae_ros.bags.sqlite3_access import is_truncated, log_of
from dae_ros.bags.unpacked import UnpackedFile
from dae_ros.errors import RecordingError

_STORAGE = re.compile(r"\.(mcap|db3)(\.zstd)?$")
_NUMBER = re.compile(r"(_\d+)?\.(mcap|db3)(\.zstd)?$")


def is_rosbag2_folder(path: Path) -> bool:
    """Return whether a folder has the metadata or a storage file of a rosbag2."""
    return (path / "metadata.yaml").is_file() or any(_storage_files(path))


def storage_of(path: Path) -> list[Path]:
    """Return the files, links resolved, that hold a recording: a rosbag2 folder's, else the path.

    However a recording is named, these are equal.
    """
    files = list(_storage_files(path)) if path.is_dir() else []
    return [item.resolve() for item in files or [path]]


def open_folder(path: Path) -> list[Container]:
    """Open the storage files of a rosbag2 folder.

    A file that is missing or not readable at all does not keep the others from being read; reading
    then ends with the error that names it.

    Raises:
        RecordingError: no storage file is readable.
    """
    files, missing = _files_of(path)
    if not files and not missing:
        raise RecordingError(
            f"{path} is no rosbag2 folder: it has no .mcap or .db3 file", path=str(path)
        )
    containers: list[Container] = []
    damage = [
        RecordingError(
            f"{path / name} is missing: metadata.yaml names it. Copy the recording again",
            path=str(path / name),
        )
        for name in missing
    ]
    for file in files:
        try:
            containers.append(open_storage_file(file))
        except RecordingError as error:
            damage.append(error)
    if not containers:
        raise RecordingError(
            "; ".join(error.message for error in damage), path=str(path)
        ) from damage[0]
    return containers + [UnreadableFile(error) for error in damage]


def open_storage_file(path: Path) -> Container:
    """Open an `.mcap` or `.db3` file by itself, whole or cut, also packed as `.zstd`.

    Raises:
        RecordingError: nothing of it is readable.
    """
    with path.open("rb") as file:
        start = file.read(len(SQLITE3_MAGIC))
    if not start:
        raise RecordingError(
            f"{path} is empty, as a recorder leaves it that was killed at once; nothing of it can "
            f"be read",
            path=str(path),
        )
    if start.startswith(ZSTD_MAGIC):
        return UnpackedFile(path, open_storage_file)
    if start == SQLITE3_MAGIC or path.suffix == ".db3":
        return _open_sqlite3(path)
    reader = McapReader(path)
    try:
        reader.open()
    except DAMAGE:
        return SalvagedFile(path, scan_mcap, "cdr")
    return RosbagsFile(path, reader, "cdr")


def _open_sqlite3(path: Path) -> Container:
    # A cut database opens, and then fails anywhere in its index. One whose log was being moved
    # into it is short as well, and whole together with the log.
    if not is_truncated(path) or log_of(path).is_file():
        try:
            return Sqlite3File(path)
        except DAMAGE:
            pass
    return SalvagedFile(path, scan_sqlite3, "cdr")


def _storage_files(folder: Path) -> Iterator[Path]:
    return (item for item in sorted(folder.iterdir()) if _STORAGE.search(item.name))


def _files_of(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the storage files to read, and the names of those that are missing.

    Those that metadata.yaml names, and further parts of their series: where a recorder was killed,
    its last parts may not be named. All there are, where it names none or others than there are.
    """
    there = list(_storage_files(folder))
    named = _named_files(folder)
    missing = [name for name in named if not (folder / name).is_file()]
    if not named or missing:
        unnamed = [item for item in there if item.name not in named]
        # As many others as are missing: files that were renamed.
        return there, [] if len(unnamed) == len(missing) else missing
    series = {_NUMBER.sub("", name) for name in named}
    further = [
        item for item in there
        if item.name not in named and _NUMBER.sub("", item.name) in series
    ]  # fmt: skip
    return [*(folder / name for name in named), *further], []


def _named_files(folder: Path) -> list[str]:
    """Return the names of the storage files in metadata.yaml, none where it is not readable."""
    try:
        content: Any = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        paths = content["rosbag2_bagfile_information"]["relative_file_paths"]
        # The first version wrote whole paths.
        return list(dict.fromkeys(Path(path).name for path in paths))
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError):
        return []


class UnreadableFile:
    """A file of a recording of which nothing can be read: no messages, then why."""

    start_ns = end_ns = None

    def __init__(self, error: RecordingError) -> None:
        self.path = Path(str(error.data["path"]))
        self.topics: dict[str, TopicInfo] = {}
        self._error = error

    def messages(
        self,
        topics: Set[str],  # noqa: ARG002 - it has none of them
        start_ns: int | None,  # noqa: ARG002
    ) -> Iterator[RecordedMessage]:
        """See `Container.messages`."""
        yield from ()
        raise RecordingError(self._error.message, **self._error.data)

    def close(self) -> None:
        """See `Container.close`; nothing is open."""
