"""What the user can mend: configuring fails with one sentence and the node stays unconfigured."""

from __future__ import annotations

import importlib.util

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
    assert "staying unconfigured: `ros2 param set /depth orientation VALUE`" in logged


def test_without_pytorch_the_sentence_says_what_to_install(graph, refused, monkeypatch):
    """Where torch is not installed the node says so, and how to get it."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "torch" else find_spec(name, *rest),
    )
    logged = refused()
    assert "PyTorch, which is not installed here" in logged
    assert "pip install" in logged
    assert "staying unconfigured: mend it, then `ros2 lifecycle set /depth configure`" in logged


@pytest.mark.parametrize("weights", ["", "missing.pth"], ids=["none", "missing"])
def test_a_refusal_of_weights_says_how_to_go_on(graph, refused, weights):
    """Without usable weights the log names the commands that set others and try again."""
    logged = refused(weights=weights)
    assert "staying unconfigured: `ros2 param set /depth weights VALUE`, then" in logged
    assert "`ros2 lifecycle set /depth configure` and `activate`; or end with Ctrl-C" in logged
