"""The harness that starts processes of the table: their words, their ends."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.nodes.process_harness import ProcessError, ProcessHarness
from dae_ros.nodes.processes import (
    Process,
    launch_plan,
)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    """A process of a stand-in package whose node prints, and ends or not, as it is told."""
    nodes = tmp_path / "dae_ros" / "nodes"
    nodes.mkdir(parents=True)
    (tmp_path / "dae_ros" / "__init__.py").touch()
    (nodes / "__init__.py").touch()
    (nodes / "stand_in.py").write_text(
        "import signal, sys, time\n"
        "if 'deaf' in sys.argv: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "if 'fail' in sys.argv: sys.exit(3)\n"
        "try:\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('tidied')\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Process("dae_ros", "stand_in", "stand_in")


def test_the_harness_stops_with_sigint(stand_in: Process) -> None:
    """A process gets SIGINT when the context is left, and its last words are kept."""
    with ProcessHarness([stand_in]) as harness:
        process = harness["stand_in"]
        process.wait_for_output("ready", 120.0)
    assert process.exit_code == 0
    assert process.lines == ["ready", "tidied"]


def test_the_harness_kills_what_does_not_listen(stand_in: Process) -> None:
    """A process that ignores SIGINT is killed after the timeout."""
    deaf = replace(stand_in, arguments=("deaf",))
    with ProcessHarness([deaf], stop_timeout_s=0.3) as harness:
        harness["stand_in"].wait_for_output("ready", 120.0)
        assert harness.stop() == {"stand_in": -signal.SIGKILL}


def test_an_early_end_is_told_with_the_last_lines(stand_in: Process) -> None:
    """Waiting for output of a process that ended says so, with its status and its lines."""
    failing = replace(stand_in, arguments=("fail",))
    with ProcessHarness([failing]) as harness:
        with pytest.raises(ProcessError, match=r"ended with status 3 before(.|\n)*ready"):
            harness["stand_in"].wait_for_output("never", 120.0)
        assert harness["stand_in"].wait(120.0) == 3


def test_only_processes_of_this_package_are_started() -> None:
    """RViz is left out by the harness; starting it directly is refused."""
    rviz = launch_plan({"rviz": "true"})[-1]
    with ProcessHarness([rviz]) as harness:
        assert harness.running == {}
        with pytest.raises(ConfigurationError, match="ros2 launch"):
            harness.start(rviz)
