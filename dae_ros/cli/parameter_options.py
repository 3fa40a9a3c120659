"""Options of the command line for parameters that `dae_ros/parameters` declares."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from dae_ros.parameters import Declaration, Value


def add_parameter_option(
    group: argparse._ActionsContainer,
    name: str,
    default: Value,
    declared: Declaration,
    *,
    option: str | None = None,
    absent: object = None,
) -> None:
    """Add the option of one parameter.

    Args:
        group: of the parser.
        name: of the parameter, and of the attribute that holds its value.
        default: what the help names as the default.
        declared: its description and its choices; ranges are checked with all values together.
        option: its name without dashes in front; that of the parameter if not given.
        absent: value where the option is not given; `argparse.SUPPRESS` for no attribute.
    """
    shown = str(default).lower() if isinstance(default, bool) else repr(default)
    group.add_argument(
        f"--{option or name.replace('_', '-')}",
        dest=name,
        type=parser_of(default),
        default=absent,
        choices=declared.choices or None,
        metavar=None if declared.choices else _metavar(default),
        help=f"{declared.description} (default: {shown})".replace("%", "%%"),
    )


def add_parameter_options(
    group: argparse._ActionsContainer,
    known: dict[str, tuple[Value, Declaration]],
    names: Iterable[str],
) -> None:
    """Add an option for each of these parameters; None where it is not given."""
    for name in names:
        add_parameter_option(group, name, *known[name])


def parser_of(default: Value) -> Callable[[str], Value]:
    """Return what reads a parameter of this type from the command line."""
    # bool("false") is True.
    return _switch if isinstance(default, bool) else type(default)


def _metavar(default: Value) -> str:
    return "true|false" if isinstance(default, bool) else "VALUE"


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"say true or false, not {text!r}")
    return text == "true"
