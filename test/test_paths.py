"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.model.weights import load_weights
from dae_ros.paths import named_path, whole_file


def test_home_folders_are_found() -> None:
    """As a shell does it; other texts stay what they are."""
    assert named_path("~/a.bag") == Path.home() / "a.bag"
    assert named_path("a/~b") == Path("a/~b")


def test_a_home_folder_of_nobody_is_told() -> None:
    """Text and what to do instead, wherever a path is read."""
    told = r"~nobody-of-that-name/w\.pth: nobody here has .* write \./~nobody-of-that-name"
    with pytest.raises(ConfigurationError, match=told):
        load_weights("~nobody-of-that-name/w.pth")


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_file_is_as_it_was_until_what_replaces_it_is_whole(
    tmp_path: Path, error: BaseException
) -> None:
    """After a full disk and after Ctrl-C."""
    path = tmp_path / "scores.json"
    path.write_text("old")

    def half() -> None:
        with whole_file(path) as partial:
            partial.write_text("ha")
            raise error

    with pytest.raises(type(error)):
        half()
    assert contents(tmp_path) == {"scores.json": "old"}
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert contents(tmp_path) == {"scores.json": "new"}
