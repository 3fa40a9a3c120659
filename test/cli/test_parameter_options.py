"""Options that stand for declared parameters: each value arrives as it was written."""

from __future__ import annotations

import argparse

import pytest

from dae_ros.cli.main import build_parser
from dae_ros.cli.parameter_options import add_parameter_options
from dae_ros.parameters import DepthParameters, SimulatorParameters, declarations


def test_a_switch_takes_true_and_false_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`false` switches off; other words are wrong usage instead of true."""
    parser = build_parser()
    for text, value in (("true", True), ("false", False)):
        parsed = parser.parse_args(["simulate", "--out", "x", "--auto-exposure", text])
        assert parsed.auto_exposure is value
    assert "auto_exposure" not in vars(parser.parse_args(["simulate", "--out", "x"]))
    for text in ("0", "False", ""):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(["simulate", "--out", "x", "--auto-exposure", text])
        assert ended.value.code == 2
    assert "say true or false" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [DepthParameters, SimulatorParameters])
def test_every_parameter_survives_the_command_line(
    kind: type[DepthParameters | SimulatorParameters],
) -> None:
    """Of every type, a value given as text comes out equal; what is not given is None."""
    known = declarations(kind)
    parser = argparse.ArgumentParser()
    add_parameter_options(parser, known, known)
    assert set(vars(parser.parse_args([])).values()) == {None}
    words = {True: "true", False: "false"}
    for name, (default, _) in known.items():
        value = not default if isinstance(default, bool) else default
        text = words[value] if isinstance(value, bool) else str(value)
        parsed = parser.parse_args([f"--{name.replace('_', '-')}={text}"])
        assert getattr(parsed, name) == value
        assert type(getattr(parsed, name)) is type(default)
