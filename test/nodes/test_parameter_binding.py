"""ROS parameters from the typed classes: overrides, refusals, commits, on both rclpy branches."""

from __future__ import annotations

import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter

from dae_ros.errors import ConfigurationError
from dae_ros.nodes.parameter_binding import ParameterBinding, declare
from dae_ros.parameters import DepthParameters, RecorderParameters, ReplayParameters, declarations


def make(graph, **overrides):
    """Return a node with parameter overrides, as from a file or the command line."""
    return graph.add(
        Node(
            "bound",
            parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
        )
    )


def test_overrides_and_defaults_make_one_value(graph):
    """Overrides replace defaults, and a whole number stands for a float."""
    value = declare(make(graph, rate=2, bag="x.mcap"), ReplayParameters)
    assert value == ReplayParameters(rate=2.0, bag="x.mcap")
    assert isinstance(value.rate, float)


def test_overrides_are_refused_with_every_sentence_at_once(graph):
    """A wrong type or two values out of range are one ConfigurationError with all sentences."""
    with pytest.raises(ConfigurationError) as caught:
        declare(make(graph, window_s=9.0, scale=-1.0), DepthParameters)
    assert "'window_s' must be at most 2, not 9" in caught.value.message
    assert "'scale' must be at least 0, not -1" in caught.value.message
    with pytest.raises(ConfigurationError, match="'window_s' must be a number, not 'long'"):
        declare(make(graph, window_s="long"), DepthParameters)


def test_every_parameter_is_declared_with_its_description_and_range(graph):
    """Descriptors carry description, bounds, and read-only for what is not for run time."""
    node = make(graph)
    declare(node, DepthParameters)
    for name, (default, declaration) in declarations(DepthParameters).items():
        found = node.describe_parameter(name)
        assert found.description == declaration.description
        assert found.read_only is not declaration.at_runtime
        ranges = [*found.integer_range, *found.floating_point_range]
        bounded = declaration.minimum is not None or declaration.maximum is not None
        assert len(ranges) == bounded, name
        if declaration.minimum is not None:
            assert ranges[0].from_value == declaration.minimum
        assert node.get_parameter(name).value == default


def test_a_name_that_does_not_exist_is_reported(graph, capfd):
    """A misspelt parameter is not silently without effect."""
    declare(make(graph, outptu="x"), RecorderParameters)
    assert "outptu" in capfd.readouterr().err


@pytest.mark.parametrize("post_set", [True, False], ids=["iron_and_newer", "humble"])
def test_a_committed_change_reaches_the_node(graph, post_set, monkeypatch):
    """With and without rclpy's callback after a commit the new values arrive, once."""
    assert hasattr(Node, "add_post_set_parameters_callback"), "only one branch is tested"
    node, seen = make(graph, scale=1.0), []
    if not post_set:
        monkeypatch.delattr(Node, "add_post_set_parameters_callback")
    binding = ParameterBinding(node, DepthParameters, locked=lambda: True, changed=seen.append)
    results = node.set_parameters_atomically(
        [Parameter("color_near_m", value=1.0), Parameter("color_far_m", value=4.0)]
    )
    assert results.successful
    if not post_set:
        assert seen == []
    graph.until(lambda: seen)
    graph.spin(0.25)
    assert seen == [DepthParameters(scale=1.0, color_near_m=1.0, color_far_m=4.0)]
    assert binding.value == seen[0]


def test_a_candidate_is_validated_whole_and_refused_with_the_sentence(graph):
    """A rule between two parameters refuses the change, and nothing changes."""
    node, seen = make(graph), []
    binding = ParameterBinding(node, DepthParameters, locked=lambda: True, changed=seen.append)
    refused = node.set_parameters([Parameter("color_near_m", value=30.0)])[0]
    assert not refused.successful
    assert "'color_near_m' (30) must be below 'color_far_m' (20)" in refused.reason
    refused = node.set_parameters([Parameter("color_far_m", value=-3.0)])[0]
    assert not refused.successful
    assert "color_far_m" in refused.reason
    assert binding.value == DepthParameters()
    assert seen == []


def test_parameters_of_configuration_are_locked_only_while_configured(graph):
    """Before configuration the weights may be set; after it they are refused with what to do."""
    node, locked = make(graph), [False]
    binding = ParameterBinding(node, DepthParameters, locked=lambda: locked[0])
    assert node.set_parameters([Parameter("weights", value="a.pth")])[0].successful
    assert binding.value.weights == "a.pth"
    locked[0] = True
    refused = node.set_parameters([Parameter("weights", value="b.pth")])[0]
    assert not refused.successful
    assert "'weights' is read when the node is configured; clean it up first" in refused.reason
    assert binding.value.weights == "a.pth"
