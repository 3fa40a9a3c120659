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
    assert "start it again (Ctrl-C ends it) with `-p orientation:=VALUE`" in logged


def test_a_calibration_file_that_cannot_be_read_is_refused(graph, refused, tmp_path):
    """Neither form of a calibration: the parameter and both forms are named, nothing is loaded."""
    path = tmp_path / "settings.yaml"
    path.write_text("exposure: 5", encoding="utf-8")
    logged = refused(calibration=str(path))
    assert f"{path} is no readable calibration" in logged
    assert "Kalibr camera chain" in logged and "camera_calibration" in logged
    assert "with `-p calibration:=VALUE`" in logged
    assert "loading the network" not in logged


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
    assert "staying unconfigured: mend it and start it again" in logged


@pytest.mark.parametrize("weights", ["", "missing.pth"], ids=["none", "missing"])
def test_a_refusal_of_weights_says_how_to_go_on(graph, refused, weights):
    """What needs no `ros2` comes first: start again; then the commands that go on without."""
    logged = refused(weights=weights)
    restart, without = logged.index("`-p weights:=PATH`"), logged.index("`ros2 param set /depth")
    assert restart < without
    assert "`ros2 param set /depth weights PATH`, then `ros2 lifecycle set /depth conf" in logged
