"""What the user can mend: configuring fails with one sentence and the node stays unconfigured."""

from __future__ import annotations

import pytest
from rclpy.lifecycle import TransitionCallbackReturn

from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.untrained import untrained


@pytest.fixture
def refused(depth, capfd):
    """Configure a depth node that must refuse; return what it has logged."""

    def configure(**parameters):
        node = depth(**parameters)
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        logged = capfd.readouterr().err
        assert "Traceback" not in logged
        return logged

    return configure


def test_an_orientation_against_the_weights_is_refused(graph, refused, tmp_path):
    """Weights that say depth are not run as inverse depth."""
    path = tmp_path / "depth.safetensors"
    save_checkpoint(path, untrained("tiny").network, Meaning(orientation="depth", scale="metric"))
    logged = refused(weights=str(path), orientation="inverse_depth")
    assert "'orientation' is inverse_depth, but these weights say" in logged
