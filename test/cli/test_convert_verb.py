"""`dae-ros convert`: what it says, what it refuses, and that Ctrl-C leaves a whole folder."""

from __future__ import annotations

import signal

import pytest
from rosbags.highlevel import AnyReader

from dae_ros.cli import main as command_line
from dae_ros.cli.progress import ProgressBar
from test.reference.bag_runs import run, summary_of

pytestmark = pytest.mark.usefixtures("only_bag_and_convert")


def test_convert_reports_what_it_did(tmp_path, recording, capsys):
    """Conversion ends with 0 and a line of what was written; an existing target is refused."""
    arguments = ["convert", str(recording), str(tmp_path / "out"), "--event-packets", "evt3"]
    assert command_line.main(arguments) == 0
    assert "81 messages on 5 topics" in capsys.readouterr().out
    assert command_line.main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    one = ["convert", str(recording), str(tmp_path / "one"), "--topics", "/davis/left/events"]
    assert command_line.main(one) == 0
    assert "30 messages on 1 topic in" in capsys.readouterr().out
    # What was converted runs like the source.
    assert run(tmp_path / "out", "--out", tmp_path / "depth") == 0
    assert summary_of(tmp_path / "depth")["events"] == 6000


def test_convert_stops_whole_at_ctrl_c(tmp_path, recording, monkeypatch):
    """The first Ctrl-C leaves a readable folder with what was converted, and exit code 130."""
    monkeypatch.setattr(ProgressBar, "update", lambda *_: signal.raise_signal(signal.SIGINT))
    assert command_line.main(["convert", str(recording), str(tmp_path / "out")]) == 130
    with AnyReader([tmp_path / "out"]) as reader:
        assert reader.message_count == 1
