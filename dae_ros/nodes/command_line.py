"""The command line of a node: `--help`, and a sentence for what ROS would ignore."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dae_ros.parameters import NODES, declarations

EXIT_USAGE = 2
# How rcl (rcl/src/rcl/arguments.c) names the argument that it cannot read, and why.
_UNREADABLE = re.compile(r"Couldn't parse [\w ]+: '(-\S+) (.*?)'\. Error: ", re.DOTALL)
# What stands behind these, for who has written `=` in place of `:=`.
_PAIRS = {
    "-p": "parameters are NAME:=VALUE",
    "--param": "parameters are NAME:=VALUE",
    "-r": "names are FROM:=TO",
    "--remap": "names are FROM:=TO",
}
_PLACE = re.compile(r",? at /\S+:\d+")  # in rcl's source


@dataclass(frozen=True)
class Usage:
    """What the help of a node says beside its parameters.

    Attributes:
        node: the executable: a key of `dae_ros.parameters.NODES`, or of several nodes.
        purpose: what it does.
        main: the parameter that a bare argument is taken to mean, in the sentence that refuses it.
        examples: arguments, one example each.
    """

    node: str
    purpose: str
    main: str
    examples: tuple[str, ...]

    def help(self) -> str:
        """Return the help: purpose, examples, and every parameter with its default."""
        options = "[-p NAME:=VALUE] [-r FROM:=TO] [--params-file FILE] ..."
        lines = [
            f"usage: {self.node} [--ros-args {options}]",
            "",
            self.purpose,
            "",
            "examples:",
            *(f"  ros2 run dae_ros {self.node} {example}" for example in self.examples),
            f"  (or python -m dae_ros.nodes.{self.node} ...)",
            "",
            "parameters, NAME:=DEFAULT (docs/parameters.md has their ranges):"
            if self.node in NODES
            else "parameters: docs/parameters.md",
        ]
        # A process that holds several nodes has none of its own.
        own = declarations(NODES[self.node]) if self.node in NODES else {}
        for name, (default, declared) in own.items():
            shown = str(default).lower() if isinstance(default, bool) else default
            choices = f" One of {', '.join(declared.choices)}." if declared.choices else ""
            lines += [f"  {name}:={shown}", f"      {declared.description}{choices}"]
        return "\n".join(lines)

    def refusal(self, argument: str) -> str:
        """Return why an argument outside of `--ros-args` is none, and what was probably meant."""
        if argument == "-p" or ":=" in argument:
            meant = "parameters and remappings stand behind --ros-args"
        elif argument.startswith("-"):
            meant = "--help shows what there is"
        else:
            meant = f"use --ros-args -p {self.main}:={argument}"
        return f"{self.node} knows no argument '{argument}'; {meant}"

    def unreadable(self, error: str) -> str:
        """Return which argument behind `--ros-args` ROS cannot read, and how to write it.

        Args:
            error: in rcl's words, or its list of those that it does not know.
        """
        found = _UNREADABLE.search(error)
        if found is None and error.startswith("["):
            return f"{self.node} knows no ROS argument {error.strip('[]')}; --help shows examples"
        if found is None:
            return (
                f"{self.node} cannot be started: {_PLACE.sub('', error)}; see what stands behind "
                "--ros-args, and the variables of the environment that begin with ROS_"
            )
        flag, argument = found.groups()
        name, sign, value = argument.partition(":=")
        left, _, right = argument.partition("=")
        if "..." in argument:
            meant = "'...' in an example stands for a path or a name of yours"
        elif not sign and left and right and flag in _PAIRS:
            meant = f"{_PAIRS[flag]}: {flag} {left}:={right}"
        elif flag in ("-p", "--param"):
            meant = (
                f"parameters are NAME:=VALUE, and VALUE is YAML: -p \"{name or 'NAME'}:='{value}'\""
            )
        elif flag in ("-r", "--remap"):
            meant = "names are FROM:=TO, of letters, digits, '_' and '/'"
        elif flag == "--params-file" and not Path(argument).is_file():
            meant = f"there is no file {argument}"
        elif flag == "--params-file":
            meant = "config/ holds a parameter file for each node to begin from"
        else:
            meant = "--help shows examples"
        return f"{self.node} cannot read the argument '{flag} {argument}': {meant}"


def answer(usage: Usage, args: list[str] | None) -> int | None:
    """Answer a command line that is not to start the node.

    Args:
        usage: of the node.
        args: arguments without the program's name, None for the process's own.

    Returns:
        0 after the help, 2 after a refusal on stderr, None where the node is to be started.
    """
    given = _own_arguments(sys.argv[1:] if args is None else args)
    if "-h" in given or "--help" in given:
        sys.stdout.write(f"{usage.help()}\n")
        return 0
    if given:
        sys.stderr.write(f"{usage.refusal(given[0])}\n")
        return EXIT_USAGE
    return None


def _own_arguments(args: Sequence[str]) -> list[str]:
    """Return what stands outside of `--ros-args ... --`; what is inside is checked by rclpy."""
    own, for_ros = [], False
    for argument in args:
        if argument == "--ros-args":
            for_ros = True
        elif argument == "--" and for_ros:
            for_ros = False
        elif not for_ros:
            own.append(argument)
    return own
