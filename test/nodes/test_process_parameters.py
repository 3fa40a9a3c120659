"""What a process of the table gets: arguments over the user's file over what a bag implies."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from dae_ros.bags.message_types import EVENT_PACKET
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError
from dae_ros.installation import share_folder
from dae_ros.nodes.process_harness import ProcessHarness, ros_arguments
from dae_ros.nodes.processes import (
    launch_plan,
    recorder,
)
from dae_ros.parameters import NODES, declarations
from dae_ros.runtime.parameter_file import read_node_parameters, read_parameters_of

SECTIONS = [
    "/**",
    "/cam0",
    "/**/depth",
    "/*/depth",
    "depth",
    "/depth",
    "/cam0/depth",
    "/other/depth",
]


@pytest.mark.parametrize("namespace", ["", "cam0", "/robot/cam0"])
def test_sections_of_a_file_fit_as_in_rcl(ros: object, tmp_path: Path, namespace: str) -> None:
    """What is read for a node is what rclpy itself gives to a node of that name."""
    from rclpy.context import Context
    from rclpy.node import Node

    file = tmp_path / "robot.yaml"
    text = "".join(
        f"{section}:\n  ros__parameters:\n    p{index}: {index}e-1\n    last: {index}\n"
        for index, section in enumerate(SECTIONS)
    )
    text += "cam0:\n  depth:\n    ros__parameters:\n      nested: {of: {names: 2020-01-01}}\n"
    file.write_text(text, encoding="utf-8")
    context = Context()
    context.init(args=["--ros-args", "--params-file", str(file)])
    try:
        node = Node(
            "depth",
            context=context,
            namespace=namespace,
            automatically_declare_parameters_from_overrides=True,
        )
        wanted = {name: item.value for name, item in node.get_parameters_by_prefix("").items()}
        name = node.get_fully_qualified_name()
        node.destroy_node()
    finally:
        context.try_shutdown()
    found = read_parameters_of(file, name)
    assert {**wanted, **found} == wanted
    assert set(wanted) - set(found) <= {"use_sim_time", "start_type_description_service"}
    assert ("nested.of.names" in found) == (name == "/cam0/depth")


@pytest.mark.parametrize("section", ["/**", "/**/depth", "depth", "/depth", "/cam0/depth"])
def test_arguments_win_over_every_section_of_the_file(tmp_path: Path, section: str) -> None:
    """Argument over file over what a bag implies, however the file names the node."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/dvs/events", EVENT_PACKET)
    file = tmp_path / "robot.yaml"
    file.write_text(
        f"{section}:\n  ros__parameters:\n    weights: file\n    overload: merge\n"
        "    qos_overrides: {/events: {subscription: {depth: 7}}}\n    use_sim_time: false\n"
        "/elsewhere/depth:\n  ros__parameters:\n    device: cuda\n",
        encoding="utf-8",
    )
    given = {
        "source": "bag",
        "bag": str(tmp_path / "bag"),
        "weights": "argument",
        "params_file": str(file),
        "namespace": "cam0" if section == "/cam0/depth" else "",
    }
    assert launch_plan(given)[0].parameters == {
        "weights": "argument",
        "overload": "merge",
        "qos_overrides./events.subscription.depth": 7,
        "use_sim_time": False,
    }
    depth = launch_plan({**given, "use_sim_time": "true", "namespace": "nowhere"})[0]
    assert depth.parameters["use_sim_time"] is True


@pytest.mark.parametrize(
    ("namespace", "device"), [("", "file by name"), ("cam0", "file by namespace")]
)
def test_the_process_has_the_merged_parameters(
    graph: Any, tmp_path: Path, namespace: str, device: str
) -> None:
    """A real node that is asked for its parameters answers argument, file, default."""
    from rcl_interfaces.srv import GetParameters

    file = tmp_path / "robot.yaml"
    section = "{}:\n  ros__parameters: {{weights: {}, frame_id: {}}}\n"
    sections = [("/**", "all"), ("/**/depth", "any"), ("depth", "file by name")]
    sections += [("/cam0/depth", "file by namespace"), ("/other/depth", "other")]
    file.write_text("".join(section.format(key, key, value) for key, value in sections), "utf-8")
    plan = launch_plan(
        {
            "weights": "untrained:micro",
            "autostart": "false",
            "params_file": str(file),
            "namespace": namespace,
        }
    )
    client = graph.peer.create_client(
        GetParameters, f"/{namespace}/depth/get_parameters".replace("//", "/")
    )
    with ProcessHarness(plan) as processes:
        graph.until(
            lambda: client.service_is_ready() or processes["depth"].exit_code is not None, 60.0
        )
        answer = graph.call(
            client, GetParameters.Request(names=["weights", "frame_id", "overload", "use_sim_time"])
        )
    weights, frame_id, overload, sim_time = answer.values
    assert weights.string_value == "untrained:micro"
    assert frame_id.string_value == device
    assert overload.string_value == "latest"
    assert sim_time.bool_value is False


@pytest.mark.parametrize("executable", NODES)
def test_the_shipped_file_sets_nothing_until_a_line_is_uncommented(
    ros: object, tmp_path: Path, executable: str
) -> None:
    """rcl loads the file as it is without a value, and whole once every line is uncommented."""
    from rclpy.context import Context
    from rclpy.node import Node

    name = executable.removesuffix("_node")
    defaults = {key: default for key, (default, _) in declarations(NODES[executable]).items()}
    others = {
        key: not value
        if isinstance(value, bool)
        else f"{value}x"
        if isinstance(value, str)
        else value + 1
        for key, value in defaults.items()
    }
    shipped = share_folder() / "config" / f"{name}.yaml"
    assert read_node_parameters(shipped, name) == {}
    uncommented = tmp_path / "all.yaml"
    lines = shipped.read_text(encoding="utf-8").splitlines(keepends=True)
    keys = tuple(f"    # {key}: " for key in defaults)
    uncommented.write_text(
        "".join(line.replace("# ", "", 1) if line.startswith(keys) else line for line in lines),
        encoding="utf-8",
    )
    assert read_node_parameters(uncommented, name) == defaults
    for file, expected in ((shipped, others), (uncommented, defaults)):
        context = Context()
        context.init(args=["--ros-args", "--params-file", str(file)])
        try:
            node = Node(name, context=context)
            for key, value in others.items():
                node.declare_parameter(key, value)
            found = {key: node.get_parameter(key).value for key in others}
            node.destroy_node()
        finally:
            context.try_shutdown()
        assert found == expected


def test_a_copy_of_the_shipped_file_keeps_the_queue_of_a_bag(tmp_path: Path) -> None:
    """What a bag implies and the argument says both stand, with the file as it is shipped."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/dvs/events", EVENT_PACKET)
    given = {"source": "bag", "bag": str(tmp_path / "bag"), "weights": "untrained:micro"}
    shipped = str(share_folder() / "config" / "depth.yaml")
    depth = launch_plan({**given, "params_file": shipped})[0]
    ros_default = {"start_type_description_service": True}
    assert depth.parameters == {**launch_plan(given)[0].parameters, **ros_default}
    assert depth.parameters["overload"] == "queue"


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """A list where names and values belong is named, not read past."""
    file = tmp_path / "robot.yaml"
    file.write_text("depth:\n  ros__parameters: [weights, x]\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="'ros__parameters' of 'depth' is not a table"):
        launch_plan({"params_file": str(file)})


def test_a_process_gets_one_set_of_parameters_and_its_names(tmp_path: Path) -> None:
    """One parameter file, which is valid for any node name; names are remapped."""
    process = replace(
        recorder("out", ("depth/image", "events/image"), namespace="cam0"),
        remappings=(("a", "/b"),),
    )
    arguments = ros_arguments(process, tmp_path)
    (path,) = [after for flag, after in pairwise(arguments) if flag == "--params-file"]
    assert yaml.safe_load(Path(path).read_text("utf-8"))["/**"]["ros__parameters"] == {
        "output": "out",
        "topics": "depth/image,events/image",
    }
    rules = [after for flag, after in pairwise(arguments) if flag == "-r"]
    assert rules == ["__node:=recorder", "__ns:=/cam0", "a:=/b"]
