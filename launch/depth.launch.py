"""Depth from events: a live topic, a recording or the simulator, and RViz on request.

The arguments are described in `dae_ros.nodes.launch_arguments`; what is started is decided by
`dae_ros.nodes.processes`.
"""

import json
import sys
import tempfile

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from dae_ros.errors import DaeError
from dae_ros.nodes.launch_arguments import ARGUMENTS, arguments_of_command
from dae_ros.nodes.processes import Process, launch_plan


def node(process: Process) -> Node:
    """Return the launch action of one process of the plan."""
    # launch_ros reads a bare text as YAML: a file named 1.0 would become a number.
    parameters = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in process.parameters.items()
    }
    return Node(
        package=process.package,
        executable=process.executable,
        # A name would be given to every node of the process.
        name=None if process.nodes else process.name,
        namespace=process.namespace,
        parameters=[sections_file(process)]
        if process.nodes
        else [parameters]
        if parameters
        else [],
        remappings=list(process.remappings),
        arguments=list(process.arguments),
        ros_arguments=["--log-level", process.log_level],
        additional_env=dict(process.environment),
        on_exit=Shutdown() if process.required else None,
        respawn=process.respawn_s is not None,
        respawn_delay=process.respawn_s,
        output="screen",
    )


def sections_file(process: Process) -> str:
    """Write the parameters of several nodes into a file, as launch_ros does for one."""
    sections = process.parameter_sections.items()
    content = {section: {"ros__parameters": values} for section, values in sections}
    with tempfile.NamedTemporaryFile("w", prefix="dae_ros_", suffix=".yaml", delete=False) as file:
        json.dump(content, file)  # JSON is a part of YAML
    return file.name


def start(context: LaunchContext) -> list[Node]:
    """Return the actions of every process that the arguments ask for."""
    values = {argument.name: context.launch_configurations[argument.name] for argument in ARGUMENTS}
    try:
        # The typed ones again: an unknown name among them is refused.
        plan = launch_plan({**arguments_of_command(sys.argv), **values})
        return [node(process) for process in plan]
    except DaeError as error:
        raise RuntimeError(str(error)) from None


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start what they ask for."""
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for argument in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
