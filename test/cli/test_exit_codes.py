"""One rule of exit codes for all verbs: 1 for failures, 2 for wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.cli.main import main

USAGE = [
    ("bag", "in.bag", "--out", "{out}", "--window-s", "9"),
    ("bag", "in.bag", "--out", "{out}", "--params", "{missing}"),
    ("bag", "in.bag", "--out", "{out}", "--window", "moon"),
    ("bag", "in.bag", "--out", "{out}", "--duration", "0"),
    ("evaluate", "in.bag", "--out", "{out}", "--scale", "-1"),
    ("simulate", "--out", "{out}", "--contrast-threshold", "9"),
    ("clips", "--out", "{out}"),
    ("clips", "{missing}", "--out", "{out}"),
    ("clips", "{missing}", "--out", "{out}", "--processes", "0"),
    ("train", "--out", "{out}"),
    ("train", "first_weights_micro", "--out", "{out}", "--set", "batch=0"),
    ("distill", "{missing}", "--out", "{out}"),
    ("adapt", "in.bag", "--out", "{out}", "--weights", "a", "--teacher", "b", "--set", "tier=9"),
    ("demo", "--out", "{out}", "--scale", "-1"),
    ("demo", "--out", "{out}", "--duration", "0"),
    ("models", "fetch"),
]
FAILURES = [
    ("bag", "{missing}", "--out", "{out}", "--weights", "untrained:tiny"),
    ("evaluate", "{missing}", "--out", "{out}", "--weights", "untrained:tiny"),
    ("convert", "{missing}", "{out}"),
    ("clips", "--verify", "{missing}"),
    ("models", "inspect", "{missing}"),
    ("adapt", "{missing}", "--out", "{out}", "--weights", "{missing}", "--teacher", "{missing}"),
]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [*((item, 2) for item in USAGE), *((item, 1) for item in FAILURES)],
    ids=lambda value: "-".join(value[:1]) if isinstance(value, tuple) else str(value),
)
def test_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int
) -> None:
    """Wrong usage is 2 whoever finds it, what only running can tell is 1; nothing is written."""
    places = {"{out}": str(tmp_path / "out"), "{missing}": str(tmp_path / "missing")}
    try:
        found = main([places.get(item, item) for item in arguments])
    except SystemExit as ended:  # of argparse
        found = ended.code
    error = capsys.readouterr().err
    assert found == code, error
    assert f"dae-ros {arguments[0]}" in error
    assert not (tmp_path / "out").exists()
