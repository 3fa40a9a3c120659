"""The demo: a simulated camera and its exact depth; every argument of depth.launch.py."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from dae_ros.installation import share_folder
from dae_ros.nodes.launch_arguments import ARGUMENTS
from dae_ros.nodes.processes import DEMO_DEFAULTS


def generate_launch_description() -> LaunchDescription:
    """Include depth.launch.py with the demo's defaults."""
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=DEMO_DEFAULTS.get(argument.name, argument.default),
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for argument in ARGUMENTS
    ]
    depth = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_folder() / "launch" / "depth.launch.py")),
        launch_arguments=[
            (argument.name, LaunchConfiguration(argument.name)) for argument in ARGUMENTS
        ],
    )
    return LaunchDescription([*declared, depth])
