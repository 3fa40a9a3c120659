"""What a transition does with errors, and the start without a launch file."""

from __future__ import annotations

import pytest
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.nodes.lifecycle import autostart, transition


class Scripted(LifecycleNode):
    """Raises what the test says while it configures."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__("scripted")
        self.error, self.reached = error, []

    @transition
    def on_configure(self) -> None:
        self.reached.append("configure")
        if self.error is not None:
            raise self.error

    @transition
    def on_activate(self) -> None:
        self.reached.append("activate")

    @transition
    def on_error(self) -> None:
        self.reached.append("error")


@pytest.mark.parametrize(
    "error", [ConfigurationError("no such device"), WeightsError("the file is cut")]
)
def test_what_the_user_can_mend_fails_the_transition_with_its_sentence(graph, error, capfd):
    """A refusal logs its sentence and code and leaves the node unconfigured, without on_error."""
    node = graph.add(Scripted(error))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert node.reached == ["configure"]
    logged = capfd.readouterr().err
    assert error.message in logged
    assert error.code in logged
    node.error = None
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), InferenceError("the backend")])
def test_any_other_error_is_logged_with_its_traceback(graph, error, capfd):
    """An error of the program goes through error processing and shows where it came from."""
    node = graph.add(Scripted(error))
    assert node.trigger_configure() == TransitionCallbackReturn.ERROR
    assert node.reached == ["configure", "error"]
    logged = capfd.readouterr().err
    assert "Traceback" in logged
    assert "test_lifecycle_transitions.py" in logged


def test_autostart_activates_and_stops_at_a_refusal(graph):
    """The node configures and activates itself once it spins; a refusal ends it there."""
    node = graph.add(Scripted(None))
    autostart(node)
    assert node.reached == []
    graph.until(lambda: node.reached == ["configure", "activate"])
    refusing = graph.add(Scripted(WeightsError("missing")))
    autostart(refusing)
    graph.until(lambda: refusing.reached)
    graph.spin(0.1)
    assert refusing.reached == ["configure"]
