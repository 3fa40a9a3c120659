"""How a parameter is declared, and how a set of them is validated as a whole."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from dae_ros.errors import ConfigurationError

Value: TypeAlias = "bool | int | float | str"
Parameters = TypeVar("Parameters", bound="NodeParameters")

# What a value of a parameter is called in sentences.
TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Declaration:
    """What is declared about one parameter beside its name and default.

    Attributes:
        description: one sentence, with the unit where there is one.
        minimum, maximum: inclusive bounds of a number, None for none.
        choices: the allowed texts, empty for any.
        at_runtime: whether it may change while the node is active; all others are read when
            the node is configured.
    """

    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    at_runtime: bool = False


def declare(
    default: Value,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    at_runtime: bool = False,
) -> Any:
    """Return the dataclass field of one parameter; the arguments are those of `Declaration`."""
    declaration = Declaration(description, minimum, maximum, choices, at_runtime)
    return field(default=default, metadata={"declaration": declaration})


def declare_as(kind: type[NodeParameters], name: str) -> Any:
    """Return the dataclass field of a parameter that another node has too, under the same name."""
    default, declaration = declarations(kind)[name]
    return field(default=default, metadata={"declaration": declaration})


def declarations(kind: type[NodeParameters]) -> dict[str, tuple[Value, Declaration]]:
    """Return name -> (default, declaration) of a parameter class, in order of declaration."""
    result: dict[str, tuple[Value, Declaration]] = {}
    for item in dataclasses.fields(kind):
        default: Any = item.default
        result[item.name] = (default, item.metadata["declaration"])
    return result


def likely(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return which parameters are probably meant, or all there are where none is near."""
    names = list(known)
    near = [difflib.get_close_matches(str(name), names, n=1) for name in unknown]
    if near and all(near):
        return f"did you mean {', '.join(repr(name) for (name,) in near)}?"
    return f"known are {', '.join(names)}"


@dataclass(frozen=True, kw_only=True)
class NodeParameters:
    """Base of the parameter classes: construction, and validation as a whole."""

    @classmethod
    def from_mapping(cls: type[Parameters], values: Mapping[str, object]) -> Parameters:
        """Build from names and values; defaults fill the rest.

        Raises:
            ConfigurationError: with one sentence per problem, all of them at once.
        """
        known = declarations(cls)
        problems = [
            f"there is no parameter '{name}'; {likely([name], known)}"
            for name in values
            if name not in known
        ]
        typed: dict[str, Any] = {}
        for name, value in values.items():
            if name in known:
                default, declared = known[name]
                if isinstance(default, float) and type(value) is int:
                    typed[name] = float(value)
                elif type(value) is type(default):
                    typed[name] = value
                else:
                    problem = f"'{name}' must be {TYPE_WORDS[type(default)]}, not {value!r}"
                    # A list in place of a text: the description says how several are written.
                    several = not isinstance(value, (bool, int, float, str))
                    problems.append(f"{problem}: {declared.description}" if several else problem)
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)
        candidate = cls(**typed)
        candidate.validate()
        return candidate

    def validate(self) -> None:
        """Check every range and choice and the rules between parameters.

        Raises:
            ConfigurationError: with one sentence per problem, all of them at once.
        """
        problems: list[str] = []
        for name, (_, declared) in declarations(type(self)).items():
            value = getattr(self, name)
            if declared.choices and value not in declared.choices:
                problems.append(
                    f"'{name}' must be one of {', '.join(declared.choices)}, not '{value}'"
                )
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                if not math.isfinite(value):
                    problems.append(f"'{name}' must be finite, not {value}")
                elif declared.minimum is not None and value < declared.minimum:
                    problems.append(
                        f"'{name}' must be at least {declared.minimum:g}, not {value:g}"
                    )
                elif declared.maximum is not None and value > declared.maximum:
                    problems.append(f"'{name}' must be at most {declared.maximum:g}, not {value:g}")
        if not problems:  # rules may rely on the ranges
            problems = self.rules()
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)

    def rules(self) -> list[str]:
        """Return a sentence for each rule between parameters that is broken."""
        return []
