"""What the adaptation benchmark has finished: small files in `--work`, and the same in its results.

A seed takes an hour and a fault a quarter of one. Each leaves one small file, whose place below
`--work` names all that it depends on but the code. The results hold these files with their places,
so that another machine, or another day, goes on where the last one stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.adaptation.cache import write_once
from benchmarks.adaptation.runs import read_json
from benchmarks.record import provenance
from dae_ros.model.durable_files import write_durably

# Beside what a file says: its place, and on which machine, when and by which commit it was made.
PLACE, MADE = "place", "made"
_PARTS = ("seeds", "safety", "healthy", "controls", "way")


def write_finished(path: Path, facts: Mapping[str, Any]) -> None:
    """Write what is finished, and what made it."""
    made = provenance()
    write_durably(path, json.dumps({**facts, MADE: made}, indent=1))


def read_finished(work: Path, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return those of some files that are there, with their places."""
    return [
        {**read_json(path), PLACE: path.relative_to(work).as_posix()}
        for path in paths
        if path.exists()
    ]


def take_over(results: Mapping[str, Any], work: Path) -> int:
    """Write the files that results hold to their places, where there is none yet.

    Args:
        results: of the benchmark, as it records them.
        work: where files belong.

    Returns:
        How many files were written.
    """
    found = [facts for part in _PARTS for facts in results.get(part, ())]
    missing = {facts[PLACE]: facts for facts in found if not (work / facts[PLACE]).exists()}
    for place, facts in missing.items():
        path = work / place
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {name: value for name, value in facts.items() if name != PLACE}
        write_once(path, json.dumps(own, indent=1))
    return len(missing)
