"""What the tests of `dae-ros bag` and `dae-ros convert` share: a recording, and these two verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.cli import main as command_line
from test.reference.mvsec_bag import write_data_bag


@pytest.fixture
def only_bag_and_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import no other verb than those under test."""
    monkeypatch.setattr(command_line, "VERBS", ("bag", "convert"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MVSEC-like bag of 0.3 s."""
    path = tmp_path_factory.mktemp("recording") / "data.bag"
    write_data_bag(path)
    return path
