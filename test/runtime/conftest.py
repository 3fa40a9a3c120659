"""What tests of backends share: an exported graph, which takes seconds to make."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the float32 graph of untrained:tiny for 60x80 px; copy it to change it."""
    from dae_ros.model.untrained import untrained
    from dae_ros.runtime import onnx_export

    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx_export.export_onnx(untrained("tiny"), path, 60, 80)
    return path


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what tests leave in the cache out of the user's; return $XDG_CACHE_HOME."""
    home = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home
