"""ROS parameter files as `--params-file` reads them, without ROS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dae_ros.errors import ConfigurationError

# Parameters that every ROS node has and that are none of ours.
_ROS_KEYS = ("use_sim_time", "qos_overrides", "start_type_description_service")


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of rcl's reader: `5e-2` is a number and no date exists."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to say it
        first: [rule for rule in rules if not rule[0].endswith((":float", ":timestamp"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_parameters_of(path: Path, name: str) -> dict[str, Any]:
    """Return what a file says to the node of that full name, as that node would read it.

    Sections fit as in rcl: `/**` every node, `/**/depth` the name in any namespace (`*` is one
    token of a name, `**` any number), `depth` and `/depth` the name without namespace,
    `/cam0/depth` the name in that one. Of sections that fit, later ones win.

    Args:
        path: YAML.
        name: with its namespace, as `/cam0/depth`.

    Returns:
        value by name; nested names are joined by dots. Empty where no section fits.

    Raises:
        ConfigurationError: no such file, no YAML, or a section that is no table of parameters.
    """
    values: dict[str, Any] = {}
    for section, parameters in _sections(path):
        if re.fullmatch(_pattern(section), name):
            values.update(_flat(parameters))
    return values


def read_node_parameters(path: Path, node: str) -> dict[str, Any] | None:
    """Return what a file says about a node wherever it runs, None where no section is for it.

    Args:
        path: YAML; sections for every node (`/**`) and for a node of that name, in whatever
            namespace, are taken, later ones over earlier ones.
        node: name without namespace.

    Raises:
        ConfigurationError: no such file, no YAML, or a section that is no table of parameters.
    """
    values: dict[str, Any] | None = None
    for section, parameters in _sections(path):
        if section.rsplit("/", 1)[-1] in {"**", node}:
            values = {**(values or {}), **parameters}
    if values is None:
        return None
    return {name: value for name, value in values.items() if name not in _ROS_KEYS}


def _sections(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the node names of a file and their parameters, in its order."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", path=str(path)) from error
    yield from _nested_sections(path, content, "")


def _nested_sections(
    path: Path, content: object, prefix: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(content, dict):
        return
    for key, inner in content.items():
        if key != "ros__parameters":
            separator = "/" if prefix else ""
            yield from _nested_sections(path, inner, f"{prefix}{separator}{str(key).strip('/')}")
            continue
        if inner is not None and not isinstance(inner, dict):
            raise ConfigurationError(
                f"{path}: 'ros__parameters' of '{prefix}' is not a table of 'name: value' lines",
                path=str(path),
            )
        yield f"/{prefix}", inner or {}


def _pattern(section: str) -> str:
    """Return the regular expression of the full node names that a section is for."""
    wild = {"**": r"(/\w+)*", "*": r"/\w+"}
    return "".join(wild.get(token) or re.escape(f"/{token}") for token in section[1:].split("/"))


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters with their names joined by dots."""
    result: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, dict):
            result.update(_flat(value, f"{prefix}{name}."))
        else:
            result[f"{prefix}{name}"] = value
    return result
