"""`dae-ros bag` with a tiny network, and what a run says of itself."""

from __future__ import annotations

import json

from dae_ros.cli import main as command_line


def run(*arguments):
    """Run `dae-ros bag` with the tiny untrained network on one thread; return its exit code."""
    return command_line.main(
        [
            "bag",
            *map(str, arguments),
            "--weights",
            "untrained:tiny",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
    )


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def files_of(folder):
    """Relative path -> content of every file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
