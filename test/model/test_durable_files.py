"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dae_ros.model.durable_files import write_durably


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The text and an end of line are there, under the old name, and nothing beside it."""
    path = tmp_path / "facts.json"
    for text in ("{}", "größer"):
        write_durably(path, text)
        assert path.read_bytes() == text.encode() + b"\n"
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A disk that refuses at any point costs neither the old text nor a file beside it."""
    path = tmp_path / "facts.json"
    write_durably(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    owner = os if fails == "fsync" else Path
    monkeypatch.setattr(owner, fails, refuse)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, "new")
    assert path.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [path]
