"""Versions of the weights in a folder: whole at every instant, written by one trainer at a time.

    w_000007.safetensors   the weights
    w_000007.json          their size, sha256, parent, step, score and metrics
    LATEST.json            the version that is announced, with the same facts
    WITHDRAWN.json         versions that were gone back from, and why: nobody takes them again
    lock                   held (flock) by the trainer; the kernel frees it when that dies

Every file is written under another name, synced, and renamed; LATEST.json last of all. What a kill
leaves behind is a file that nothing names, and the next trainer removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from dae_ros.errors import DistillationError, WeightsError
from dae_ros.model.durable_files import sync, write_durably
from dae_ros.model.fetch import digest_of
from dae_ros.runtime.snapshot_files import (
    Snapshot,
    facts_files,
    read_facts,
    version_of,
    write_facts,
)

LATEST, WITHDRAWN = "LATEST.json", "WITHDRAWN.json"
LOCK = "lock"
_WEIGHTS = re.compile(r"w_\d{6,}\.safetensors")


def read_latest(folder: Path) -> Snapshot | None:
    """Return the announced version, or where its file is not whole, the newest one before it.

    A version that was gone back from is never returned. Needs no lock. None where no version is
    whole.

    Raises:
        WeightsError: see `withdrawn`.
    """
    announced, gone = read_facts(folder / LATEST), withdrawn(folder)
    if announced is not None and announced.sha256 not in gone and announced.whole:
        return announced
    return _newest(folder, math.inf if announced is None else announced.version)


def read_confirmed(folder: Path, below: int) -> Snapshot | None:
    """Return the newest version before another that depth had watched and kept; as `read_latest`.

    Raises:
        WeightsError: see `withdrawn`.
    """
    return _newest(folder, below, confirmed=True)


def withdrawn(folder: Path) -> dict[str, str]:
    """Return sha256 -> why, of the versions that were gone back from; needs no lock.

    Empty where no list is there.

    Raises:
        WeightsError: there is one that cannot be read.
    """
    path = folder / WITHDRAWN
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(sha256): str(reason) for sha256, reason in values.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error}), so that nobody knows which versions were taken "
            "back. Restore it, begin in another folder, or delete it to trust all that are there",
            path=str(path),
        ) from error


def withdrawn_mark(folder: Path) -> tuple[int, int] | None:
    """Return what differs when that list or the right to read it has changed: a time and a size.

    None where nobody can tell, so that it has to be read.
    """
    try:
        found = (folder / WITHDRAWN).stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    except OSError:
        return None
    # Not the time of its content, which a copy or a restored file may bring along.
    return found.st_ctime_ns, found.st_size


class SnapshotStore:
    """The trainer's side: publishes versions, and keeps the last ones, the first and the best.

    Args:
        folder: made where it is not there yet.
        keep: how many of the last versions stay.

    Raises:
        DistillationError: another trainer holds the folder, or it cannot be written.
        WeightsError: its list of versions that were gone back from cannot be read.
    """

    def __init__(self, folder: Path, keep: int = 5) -> None:
        if keep < 1:
            raise DistillationError(f"{keep} versions cannot be kept; keep 1 or more", keep=keep)
        self.folder = folder
        self._keep = keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DistillationError(
                f"{folder} cannot be used for snapshots ({error}); choose another folder",
                path=str(folder),
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 200, 0).decode("utf-8", "replace").strip()
            os.close(self._lock)
            raise DistillationError(
                f"another trainer ({holder or 'unknown'}) publishes into {folder}; stop it, or "
                "choose another folder",
                path=str(folder),
                holder=holder,
            ) from error
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            withdrawn(folder)
            self._remove_leftovers()
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except WeightsError:
            self.close()
            raise

    def __enter__(self) -> SnapshotStore:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the folder."""
        self.close()

    def close(self) -> None:
        """Free the folder for another trainer."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def snapshots(self) -> list[Snapshot]:
        """Return the versions that are kept, oldest first; their files are not read."""
        return _snapshots(self.folder)

    def first(self) -> Snapshot | None:
        """Return the version that the folder began with; None where there is none at all.

        Raises:
            WeightsError: its facts are there and cannot be read.
        """
        paths = facts_files(self.folder)
        if not paths:
            return None
        first = read_facts(paths[0])
        if first is None:
            raise WeightsError(
                f"{paths[0]} is damaged: it describes the weights beside it, which this folder "
                "began with. Restore it, or begin in another folder",
                path=str(paths[0]),
            )
        return first

    def latest(self) -> Snapshot | None:
        """Return the announced version; see `read_latest`."""
        return read_latest(self.folder)

    def publish(
        self,
        write: Callable[[Path], object],
        *,
        step: int,
        score: float,
        metrics: Mapping[str, float] | None = None,
        parent: int | None = None,
        above: int = 0,
    ) -> Snapshot:
        """Write the next version and make it the latest.

        Args:
            write: writes the safetensors file to the path that it is given.
            step, score, metrics, parent: see `Snapshot`.
            above: the version is at least one more than this, for a depth node that has seen
                higher ones than this folder.

        Raises:
            DistillationError: it cannot be written, the disk is full for instance; everything is
                as it was. Or the score is not finite.
            WeightsError: what `write` raises; everything is as it was.
        """
        if not math.isfinite(score):
            raise DistillationError(f"the score is {score}; nothing is published", step=step)
        # By their names: also what cannot be read has had its number.
        version = 1 + max(above, *(version_of(path) for path in facts_files(self.folder)), 0)
        path = self.folder / f"w_{version:06d}.safetensors"
        temporary = path.with_name(path.name + ".tmp")
        facts = path.with_suffix(".json")
        announced = read_facts(self.folder / LATEST)
        try:
            write(temporary)
            sync(temporary)
            snapshot = Snapshot(
                version,
                path.absolute(),
                digest_of(temporary),
                temporary.stat().st_size,
                parent,
                step,
                score,
                dict(metrics or {}),
            )
            temporary.replace(path)
            write_facts(facts, snapshot)
            write_facts(self.folder / LATEST, snapshot)
        except BaseException as error:
            latest = read_facts(self.folder / LATEST)
            if latest is None or latest.version != version:
                for left in (temporary, facts, path):
                    with contextlib.suppress(OSError):  # the next trainer removes it
                        left.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        # Only now: until the new version is announced, none may be missing. What cannot be removed,
        # or is not known to be withdrawn, is looked at again with the next one.
        with contextlib.suppress(OSError, WeightsError):
            self._prune(announced)
        return snapshot

    def confirm(self, snapshot: Snapshot) -> Snapshot:
        """Note of a version that depth has watched and kept it, for every later start.

        Raises:
            DistillationError: it cannot be written.
        """
        announced = read_facts(self.folder / LATEST)
        confirmed = dataclasses.replace(snapshot, confirmed=True)
        own = dataclasses.replace(confirmed, rollback=False)
        try:
            write_facts(snapshot.path.with_suffix(".json"), own)
            if announced is not None and announced.sha256 == snapshot.sha256:
                write_facts(self.folder / LATEST, dataclasses.replace(announced, confirmed=True))
        except OSError as error:
            raise self._failure(error) from error
        return confirmed

    def roll_back(self, version: int, reason: str) -> Snapshot:
        """Make an earlier version the latest, and withdraw those after it.

        Args:
            version: to go back to.
            reason: why the others are withdrawn, a sentence.

        Raises:
            DistillationError: it is not kept, not whole or withdrawn, or the folder cannot be
                written; then LATEST.json is as it was.
            WeightsError: see `withdrawn`; nothing has changed.
        """
        kept, gone = self.snapshots(), withdrawn(self.folder)
        for found in kept:
            if found.version == version and found.sha256 not in gone and found.whole:
                snapshot = dataclasses.replace(found, rollback=True)
                # Of versions that are not kept nobody needs to be warned.
                listed = {one.sha256: gone[one.sha256] for one in kept if one.sha256 in gone}
                listed |= {
                    one.sha256: f"version {one.version}: {reason}"
                    for one in kept
                    if one.version > version and one.sha256 not in (*gone, found.sha256)
                }
                try:
                    # First, so that no instant has a version announced which nobody may take.
                    write_durably(self.folder / WITHDRAWN, json.dumps(listed, indent=1))
                    write_facts(self.folder / LATEST, snapshot)
                except OSError as error:
                    raise self._failure(error) from error
                return snapshot
        raise DistillationError(
            f"version {version} is not whole in {self.folder}, or was withdrawn; there are "
            f"{[one.version for one in kept]}",
            version=version,
            kept=[one.version for one in kept],
        )

    def _failure(self, error: OSError) -> DistillationError:
        return DistillationError(
            f"{self.folder} cannot be written ({error}); the version announced before is whole "
            "and stays. Make room, or choose another folder",
            path=str(self.folder),
            errno=error.errno,
        )

    def _prune(self, announced: Snapshot | None) -> None:
        """Remove what the newest version has pushed out; what it follows is the way back."""
        kept, gone = self.snapshots(), withdrawn(self.folder)
        stay = {found.version for found in kept[-self._keep :]}
        good = [found for found in kept if found.sha256 not in gone]
        stay |= {kept[0].version, min(good or kept, key=lambda found: found.score).version}
        # The way back for a depth node that has seen none of those after it.
        stay |= {found.version for found in [one for one in good if one.confirmed][-1:]}
        if announced is not None:
            stay |= {announced.version}
        for found in kept:
            if found.version not in stay:
                # The facts first: weights without facts are a leftover, never the reverse.
                found.path.with_suffix(".json").unlink(missing_ok=True)
                found.path.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove what a killed trainer did not finish."""
        for path in list(self.folder.iterdir()):
            unfinished = path.name.endswith(".tmp") or ".safetensors.tmp." in path.name
            # Facts that are there but damaged still say that their weights were finished.
            bare = _WEIGHTS.fullmatch(path.name) and not path.with_suffix(".json").exists()
            if unfinished or bare:
                path.unlink()


def _newest(folder: Path, below: float, *, confirmed: bool = False) -> Snapshot | None:
    gone = withdrawn(folder)
    for snapshot in reversed(_snapshots(folder)):
        wanted = snapshot.version < below and (snapshot.confirmed or not confirmed)
        if wanted and snapshot.sha256 not in gone and snapshot.whole:
            return snapshot
    return None


def _snapshots(folder: Path) -> list[Snapshot]:
    found = (read_facts(path) for path in facts_files(folder))
    return sorted((one for one in found if one is not None), key=lambda one: one.version)
