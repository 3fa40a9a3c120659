"""Is what a learner leaves on disk whole? Written without the code that writes it.

What holds at every instant, whatever was killed:

* every `w_N.json` names a file that is there, of the size and sha256 that it says;
* `LATEST.json` can be read and names such a file; once there was one, there always is;
* a version that was announced is never another one later;
* `state.bin`, or `state.previous.bin` beside it, is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STATE_MAGIC = b"DAEONL04"
STATES = ("state.bin", "state.previous.bin")


@dataclass(frozen=True)
class Disk:
    """What was found.

    Attributes:
        problems: a sentence for everything that must not be.
        latest: the version that LATEST.json names, None without one.
        rollback: whether it says that it goes back.
        versions: version -> sha256 of every one that is described.
        steps, accepted_steps: of the newest whole learner's state, None without one.
        unfinished: names of files under way, and of weights that nothing describes.
    """

    problems: tuple[str, ...]
    latest: int | None
    rollback: bool
    versions: dict[int, str]
    steps: int | None
    accepted_steps: int | None
    unfinished: tuple[str, ...]


def look(folder: Path) -> Disk:
    """Read everything below a learner's folder.

    Args:
        folder: with `snapshots/` and `learner/`; one that is not there yet has no problems.
    """
    snapshots, learner = folder / "snapshots", folder / "learner"
    problems: list[str] = []
    versions: dict[int, str] = {}
    known = set()
    for path in sorted(snapshots.glob("w_*.json")):
        facts = _facts(path)
        if facts is None:
            problems.append(f"{path.name} cannot be read")
            continue
        known.add(facts["file"])
        versions[facts["version"]] = facts["sha256"]
        problems += _broken(path, facts)
    latest = _facts(snapshots / "LATEST.json")
    if latest is not None:
        problems += _broken(snapshots / "LATEST.json", latest)
    elif (snapshots / "LATEST.json").exists():
        problems.append("LATEST.json cannot be read")
    states = [state for state in map(_state, (learner / name for name in STATES)) if state]
    if not states and any((learner / name).exists() for name in STATES):
        problems.append("no learner's state is whole")
    newest = states[0] if states else {}
    learned = newest.get("learner", {})
    return Disk(
        tuple(problems),
        None if latest is None else latest["version"],
        latest is not None and latest["rollback"],
        versions,
        newest.get("steps"),
        learned.get("accepted_steps"),
        tuple(_unfinished(folder, known)),
    )


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
        return {name: found[name] for name in ("file", "version", "size", "sha256", "rollback")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _broken(path: Path, facts: dict[str, Any]) -> list[str]:
    """Say what is wrong with the file that a description names."""
    try:
        data = (path.parent / facts["file"]).read_bytes()
    except OSError as error:
        return [f"{path.name} names {facts['file']}: {error.strerror}"]
    if len(data) != facts["size"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
        return [f"{path.name} names {facts['file']}, which has other bytes"]
    return []


def _state(path: Path) -> dict[str, Any] | None:
    """Return a learner's state; None where it is not there or not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, payload = data[8:40], data[40:]
    if data[:8] != STATE_MAGIC or hashlib.sha256(payload).digest() != digest:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)["state"]
    return state


def _unfinished(folder: Path, known: set[str]) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        weights = path.suffix == ".safetensors" and path.name not in known
        if weights or ".tmp" in path.name:
            yield path.name
