"""The learner alone, for a depth node that runs already, here or on another machine.

`depth.launch.py distill:=true` starts both. The arguments are described in
`dae_ros.nodes.launch_arguments`; what is started is decided by `dae_ros.nodes.processes`.
"""

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from dae_ros.errors import DaeError
from dae_ros.nodes.launch_arguments import ARGUMENTS, DISTILLATION_ALONE, arguments_of_command
from dae_ros.nodes.processes import distillation_plan

OWN_ARGUMENTS = [argument for argument in ARGUMENTS if argument.name not in DISTILLATION_ALONE]


def start(context: LaunchContext) -> list[Node]:
    """Return the action that starts the learner."""
    values = {
        argument.name: context.launch_configurations[argument.name] for argument in OWN_ARGUMENTS
    }
    try:
        # The typed ones again: an unknown name among them is refused.
        (process,) = distillation_plan({**arguments_of_command(sys.argv), **values})
    except DaeError as error:
        raise RuntimeError(str(error)) from None
    # launch_ros reads a bare text as YAML: a file named 1.0 would become a number.
    parameters = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in process.parameters.items()
    }
    return [
        Node(
            package=process.package,
            executable=process.executable,
            name=process.name,
            namespace=process.namespace,
            parameters=[parameters],
            remappings=list(process.remappings),
            ros_arguments=["--log-level", process.log_level],
            additional_env=dict(process.environment),
            respawn=process.respawn_s is not None,
            respawn_delay=process.respawn_s,
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the learner."""
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for argument in OWN_ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
