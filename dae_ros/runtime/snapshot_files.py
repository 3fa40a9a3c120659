"""One version of the weights on disk: its file, and the facts beside it.

w_000007.safetensors   the weights
w_000007.json          their size, sha256, parent, step, score and metrics
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dae_ros.model.durable_files import write_durably
from dae_ros.model.fetch import digest_of
from dae_ros.runtime.announcement import Announcement, whole_number

_FACTS = re.compile(r"w_(\d{6,})\.json")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version in a store.

    Attributes:
        version, path, sha256, size: see `Announcement`.
        parent: the version that it was trained from, None for the first.
        step: of the trainer.
        score: its held-out error, lower is better.
        metrics: whatever else is known of it.
        rollback: whether it is announced although newer ones exist.
        confirmed: whether depth has watched and kept it.
    """

    version: int
    path: Path
    sha256: str
    size: int
    parent: int | None
    step: int
    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    rollback: bool = False
    confirmed: bool = False

    @property
    def announcement(self) -> Announcement:
        """What is published about it."""
        return Announcement(
            self.version, self.path, self.sha256, self.size, self.rollback, self.confirmed
        )

    @property
    def whole(self) -> bool:
        """Whether its file is there with the right size and digest; reads it."""
        try:
            return self.path.stat().st_size == self.size and digest_of(self.path) == self.sha256
        except OSError:
            return False


def facts_files(folder: Path) -> list[Path]:
    """Return the files that describe versions, readable or not, the oldest version first."""
    return sorted(filter(version_of, folder.glob("w_*.json")), key=version_of)


def version_of(path: Path) -> int:
    """Return the version that a file describes, 0 for none."""
    found = _FACTS.fullmatch(path.name)
    return 0 if found is None else int(found[1])


def read_facts(path: Path) -> Snapshot | None:
    """Return what a facts file says; None where it is not there or cannot be read."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # The folder may have been moved, or be mounted elsewhere on this machine.
        values["path"] = (path.parent / values.pop("file")).absolute()
        found = Snapshot(**values)
        whole_number(found.version)
        # What is not said by a plain true earns no trust.
        if not (isinstance(found.confirmed, bool) and isinstance(found.rollback, bool)):
            raise TypeError("confirmed and rollback are true or false")
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_facts(path: Path, snapshot: Snapshot) -> None:
    """Replace the facts of a version, atomically and durably."""
    values = dataclasses.asdict(snapshot)
    del values["path"]
    write_durably(path, json.dumps({"file": snapshot.path.name, **values}, indent=1))
