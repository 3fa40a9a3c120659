"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.model.weights import load_weights
from dae_ros.paths import named_path


def test_home_folders_are_found() -> None:
    """As a shell does it; other texts stay what they are."""
    assert named_path("~/a.bag") == Path.home() / "a.bag"
    assert named_path("a/~b") == Path("a/~b")


def test_a_home_folder_of_nobody_is_told() -> None:
    """Text and what to do instead, wherever a path is read."""
    told = r"~nobody-of-that-name/w\.pth: nobody here has .* write \./~nobody-of-that-name"
    with pytest.raises(ConfigurationError, match=told):
        load_weights("~nobody-of-that-name/w.pth")
