"""Weights in pieces, for a depth node that does not share the trainer's disk.

A piece is at most 256 kB: larger messages are lost or delayed on common networks. Its label is
`version/index/count`; all pieces of a file but the last have the same size. Which file it is, and
whether it is whole, is known from the announcement's sha256. A version that is announced again was
not taken: its pieces are sent again, and what was put together of them before is forgotten.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dae_ros.errors import WeightsError
from dae_ros.runtime.announcement import Announcement

CHUNK_BYTES = 256_000
# ViT-L in float32 has 1.4 GB.
MOST_BYTES = 2_000_000_000
# So long after its last piece a file is given up, and an announced one without any.
TIMEOUT_S = 30.0


def chunks(path: Path, version: int) -> Iterator[tuple[str, bytes]]:
    """Yield the label and the bytes of each piece of a file.

    Raises:
        OSError: it cannot be read.
    """
    count = -(-path.stat().st_size // CHUNK_BYTES)
    with path.open("rb") as stream:
        for index in range(count):
            yield f"{version}/{index}/{count}", stream.read(CHUNK_BYTES)


def comes_again(announcement: Announcement, before: Announcement | None) -> bool:
    """Return whether the pieces of what is announced are sent, given the announcement before it.

    All but those of a version that is in use already and now confirmed.
    """
    if before is None or before.confirmed:
        return True
    return replace(before, confirmed=True) != announcement


@dataclass
class _Part:
    """A file that is not whole yet."""

    version: int
    path: Path
    here: bytearray
    missing: int
    last_s: float


class SnapshotReceiver:
    """Brings announcements together with their files, whichever comes first.

    A file that is at the announced path, with the announced size, is used there; otherwise its
    pieces are awaited. So they are where a version is announced again although its pieces came:
    then what lies at that path is another trainer's, on this machine's own disk. Pieces are
    written to disk as they come: memory holds one byte per piece.
    Nothing is verified here but sizes: `WeightSwap` checks the digest of whatever it loads.

    Args:
        folder: of what is put together; the newest file stays there. None makes one with the first
            piece and removes it at the end: who shares the trainer's disk needs no room of its own.
        most_bytes: of a file.
        timeout_s: see `TIMEOUT_S`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        most_bytes: int = MOST_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._most = most_bytes
        self._timeout_s = timeout_s
        self._part: _Part | None = None
        self._whole: tuple[int, Path] | None = None
        self._waiting: tuple[Announcement, float] | None = None
        self._announced: Announcement | None = None
        # The announced file is not the one at its path.
        self._elsewhere = False

    @property
    def missing(self) -> int | None:
        """How many pieces of the present file are still to come, None without one."""
        return None if self._part is None else self._part.missing

    def announced(self, announcement: Announcement, now_s: float) -> None:
        """Take an announcement; one that still waited is forgotten.

        Args:
            announcement: of the trainer.
            now_s: monotonic time, as in all calls.
        """
        before, self._announced = self._announced, announcement
        self._waiting = (announcement, now_s)
        version, whole = announcement.version, self._whole
        known = before is not None and before.version == version
        came = self._part is not None and self._part.version == version
        came = came or (whole is not None and whole[0] == version)
        self._elsewhere = (
            (self._elsewhere or came)
            and before is not None
            and (before.version, before.sha256) == (version, announcement.sha256)
            and comes_again(announcement, before)
        )
        if known and before is not None and before.sha256 != announcement.sha256:
            self._give_up()  # of another trainer
        if whole is None or whole[0] != version:
            return
        if not _has_size(whole[1], announcement.size) or (
            known and comes_again(announcement, before)
        ):
            self._forget_whole()

    def received(self, label: str, data: bytes, now_s: float) -> None:
        """Take a piece. Pieces that come twice, or of an older version that nobody
        announced, change nothing.

        Raises:
            WeightsError: label or size contradict themselves, or the disk is full; the file that
                it belongs to is given up.
        """
        version, index, count = self._placed(label, len(data))
        newest = max(
            -1 if self._part is None else self._part.version,
            -1 if self._whole is None else self._whole[0],
        )
        awaited = self._waiting is not None and self._waiting[0].version == version
        if (version < newest and not awaited) or (
            self._whole is not None and version == self._whole[0]
        ):
            return
        part = self._part
        try:
            if part is None or part.version != version or len(part.here) != count:
                self._give_up()
                path = self._place() / f"w_{version:06d}.part"
                path.write_bytes(b"")
                self._part = part = _Part(version, path, bytearray(count), count, now_s)
            part.last_s = now_s
            if part.here[index]:
                return
            with part.path.open("r+b") as stream:
                stream.seek(index * CHUNK_BYTES)
                stream.write(data)
            part.here[index] = 1
            part.missing -= 1
            if part.missing == 0:
                self._finish(part)
        except OSError as error:
            self._give_up()
            raise WeightsError(
                f"version {version} cannot be put together in "
                f"{self._folder or 'a folder for temporary files'} ({error}); make room there",
                version=version,
                path=str(self._folder),
            ) from error

    def ready(self, now_s: float) -> Announcement | None:
        """Return the announcement whose file is here, once; with the path of that file.

        One whose file does not come in time is returned as it was: loading it says what is wrong.
        """
        part = self._part
        if part is not None and now_s - part.last_s > self._timeout_s:
            self._give_up()
        if self._waiting is None:
            return None
        announcement, since_s = self._waiting
        found: Announcement | None = None
        if self._whole is not None and self._whole[0] == announcement.version:
            found = replace(announcement, path=self._whole[1])
        elif (not self._elsewhere and _has_size(announcement.path, announcement.size)) or (
            self._part is None and now_s - since_s > self._timeout_s
        ):
            found = announcement
        if found is not None:
            self._waiting = None
        return found

    def close(self) -> None:
        """Remove what was put together, and a folder that was made for it."""
        self._give_up()
        self._forget_whole()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._folder = self._temporary = None

    def _place(self) -> Path:
        """Return the folder, which is there then."""
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(
                prefix="dae_ros_weights_", ignore_cleanup_errors=True
            )
            self._folder = Path(self._temporary.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _placed(self, label: str, size: int) -> tuple[int, int, int]:
        try:
            version, index, count = (int(word) for word in label.split("/"))
        except ValueError as error:
            raise WeightsError(
                f"{label[:60]!r} labels no piece of weights; it is version/index/count",
                label=label[:60],
            ) from error
        last = index == count - 1
        if not (
            version >= 1
            and 0 <= index < count <= -(-self._most // CHUNK_BYTES)
            and (0 < size <= CHUNK_BYTES if last else size == CHUNK_BYTES)
        ):
            raise WeightsError(
                f"a piece of {size} bytes labelled {label} does not fit a file of at most "
                f"{self._most} bytes in pieces of {CHUNK_BYTES}",
                label=label[:60],
                size=size,
            )
        return version, index, count

    def _finish(self, part: _Part) -> None:
        path = part.path.with_suffix(".safetensors")
        part.path.replace(path)
        if self._whole is not None and self._whole[1] != path:
            _remove(self._whole[1])
        self._whole, self._part = (part.version, path), None

    def _forget_whole(self) -> None:
        if self._whole is not None:
            _remove(self._whole[1])
        self._whole = None

    def _give_up(self) -> None:
        if self._part is not None:
            _remove(self._part.path)
        self._part = None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it takes room, no more
        path.unlink(missing_ok=True)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
