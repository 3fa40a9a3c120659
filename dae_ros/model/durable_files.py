"""Files that are whole after a power cut: as they were, or as they were to be."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, text: str) -> None:
    """Replace a text file, whole or not at all, and wait until it is on the disk.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        sync(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
