"""Storage files that rosbag2 packed as a whole (compression mode `file`)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from tempfile import TemporaryDirectory

from dae_ros.bags.container import Container, RecordedMessage
from dae_ros.errors import RecordingError, reason_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class UnpackedFile:
    """A `.mcap.zstd` or `.db3.zstd`, unpacked into the folder for temporary files.

    Of one that was cut, everything that can be unpacked is read.

    Args:
        path: the packed file.
        opener: opens what is in it.

    Raises:
        RecordingError: there is no room to unpack it, or nothing of it is readable.
    """

    def __init__(self, path: Path, opener: Callable[[Path], Container]) -> None:
        self.path = path
        self._damage = ""
        self._folder = TemporaryDirectory(prefix="dae_ros_")
        plain = Path(self._folder.name, path.stem)
        try:
            self._unpack(plain)
            self._inner = opener(plain)
        except BaseException as error:
            self._folder.cleanup()
            if not isinstance(error, RecordingError):
                raise
            raise self._named(error) from error
        self.topics = self._inner.topics
        self.start_ns, self.end_ns = self._inner.start_ns, self._inner.end_ns

    def _unpack(self, plain: Path) -> None:
        try:
            with plain.open("wb") as target, zstd.open(self.path, "rb") as source:
                try:
                    shutil.copyfileobj(source, target, 1 << 20)
                except (zstd.ZstdError, EOFError) as error:
                    self._damage = f"{self.path} was cut or is damaged ({error})"
        except OSError as error:
            raise RecordingError(
                f"{self.path} cannot be unpacked into {plain.parent}: {reason_of(error)}. Make "
                f"room there, or name another folder in TMPDIR",
                path=str(self.path),
            ) from error

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`."""
        try:
            yield from self._inner.messages(topics, start_ns)
        except RecordingError as error:
            raise self._named(error) from error
        if self._damage:
            raise RecordingError(
                f"{self._damage}; what could be unpacked was read", path=str(self.path)
            )

    def _named(self, error: RecordingError) -> RecordingError:
        """Return an error about the unpacked file as one about the packed one."""
        plain = str(Path(self._folder.name, self.path.stem))
        message = error.message.replace(plain, str(self.path))
        return RecordingError(message, **{**error.data, "path": str(self.path)})

    def close(self) -> None:
        """Close the file and remove what was unpacked."""
        self._inner.close()
        self._folder.cleanup()
