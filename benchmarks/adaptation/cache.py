"""Folders of what a benchmark has finished, named after everything that it depends on.

What was made with other weights, settings or worlds has another name, so that nothing is taken for
what it is not, and nothing has to be thrown away.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY_FILE = "key.json"
# Raise it where a change of a benchmark changes what its runs mean.
FORMAT = 2
_LETTERS = 10


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return a name of values that JSON can hold, whatever the order of their keys."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LETTERS]


def keyed(parent: Path, name: str, facts: Mapping[str, Any]) -> Path:
    """Return the folder of something that depends on these values, and make it.

    Args:
        parent: of the folder.
        name: what the folder's begins with.
        facts: all that it depends on, as JSON can hold it; written into `key.json` for people.
    """
    folder = parent / f"{name}_{digest_of(facts)}"
    folder.mkdir(parents=True, exist_ok=True)
    write_once(folder / KEY_FILE, json.dumps(dict(facts), indent=1, sort_keys=True))
    return folder


def write_once(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole; several processes may do it at once."""
    if path.exists():
        return
    own = path.with_name(f".{path.name}.{os.getpid()}")
    own.write_text(text + "\n", encoding="utf-8")
    own.replace(path)
