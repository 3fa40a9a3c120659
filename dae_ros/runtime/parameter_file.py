"""ROS parameter files as `launch` and `--params-file` read them, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dae_ros.errors import ConfigurationError

# Parameters that every ROS node has and that are none of ours.
_ROS_KEYS = ("use_sim_time", "qos_overrides")


def read_node_parameters(path: Path, node: str) -> dict[str, Any] | None:
    """Return what a file says about a node, None where no section is for it.

    Args:
        path: YAML; sections for every node (`/**`) and for a node of that name, in whatever
            namespace, are taken, later ones over earlier ones.
        node: name without namespace.

    Raises:
        ConfigurationError: no such file, or no YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", path=str(path)) from error
    values: dict[str, Any] | None = None
    for name, section in content.items() if isinstance(content, dict) else ():
        fits = str(name).rsplit("/", 1)[-1] in {"**", node}
        if fits and isinstance(section, dict) and "ros__parameters" in section:
            values = {**(values or {}), **(section["ros__parameters"] or {})}
    if values is None:
        return None
    return {name: value for name, value in values.items() if name not in _ROS_KEYS}
