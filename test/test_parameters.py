"""The table of parameters: validated whole, generated files current, every entry read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import (
    NODES,
    DepthParameters,
    NodeParameters,
    RecorderParameters,
    declarations,
)

ROOT = Path(__file__).resolve().parent.parent


def names_read() -> set[str]:
    """Every attribute that code outside of the table reads."""
    found: set[str] = set()
    for path in (ROOT / "dae_ros").rglob("*.py"):
        if path.parent.name == "parameters":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
    return found


@pytest.mark.parametrize("node", NODES)
def test_every_declared_parameter_is_read(node: str) -> None:
    """A parameter that no code reads would be a switch without a wire."""
    unread = set(declarations(NODES[node])) - names_read()
    assert unread == set()


@pytest.mark.parametrize("kind", NODES.values())
def test_defaults_are_valid(kind: type[NodeParameters]) -> None:
    """Each node starts with its defaults."""
    kind().validate()


def test_all_problems_are_told_at_once() -> None:
    """A bad name, a bad type, and later every value that is out of its range."""
    with pytest.raises(ConfigurationError) as caught:
        DepthParameters.from_mapping({"windw_s": 0.1, "ring_s": "long"})
    assert "no parameter 'windw_s'; did you mean 'window_s'?" in str(caught.value)
    assert "'ring_s' must be a number, not 'long'" in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        DepthParameters.from_mapping({"window_s": 9.0, "overload": "drop"})
    for part in ("'window_s' must be at most 2", "'overload' must be one of latest"):
        assert part in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        DepthParameters.from_mapping({"shift": 1.0, "window_s": 0.5, "ring_s": 0.2})
    for part in ("'shift' is given without 'scale'", "must not exceed 'ring_s'"):
        assert part in str(caught.value)


def test_a_wrong_type_and_an_unknown_name_say_what_is_meant() -> None:
    """Types in words, what a text is where a list is given, and all names where none is near."""
    with pytest.raises(ConfigurationError) as caught:
        RecorderParameters.from_mapping({"topics": ["/a", "/b"], "colour": 1, "duration_s": "x"})
    for part in (
        "'topics' must be a text, not ['/a', '/b']: Comma-separated topics",
        "no parameter 'colour'; known are output, topics, duration_s, idle_s",
        "'duration_s' must be a number, not 'x'",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        DepthParameters.from_mapping({"threads": 1.5, "autostart": 1})
    for part in ("'threads' must be a whole number", "'autostart' must be true or false"):
        assert part in str(caught.value)


@given(st.sampled_from(sorted(declarations(DepthParameters))), st.floats())
def test_numbers_are_taken_as_they_are_or_refused(name: str, value: float) -> None:
    """No number is ever clamped or rounded: it is stored unchanged, or there is a sentence."""
    try:
        parameters = DepthParameters.from_mapping({name: value})
    except ConfigurationError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert getattr(parameters, name) == value
    assert not refusal or name in refusal


def test_every_row_of_the_parameters_page_has_four_cells():
    """A | in a meaning does not end its cell."""
    page = Path(__file__).resolve().parent.parent / "docs" / "parameters.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert any("\\|" in row for row in rows)
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}
