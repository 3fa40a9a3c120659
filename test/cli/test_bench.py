"""`dae-ros bench`: tables, JSON, what is missing, and a verdict that can be typed."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path

import pytest

from dae_ros.cli.main import main
from dae_ros.nodes.launch_arguments import ARGUMENTS
from dae_ros.runtime.backend_choice import missing_packages
from dae_ros.runtime.benchmark import event_path, network_steps


def test_a_small_run_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, steps, chain and verdict on stdout and in the file; progress on stderr."""
    find = importlib.util.find_spec
    # Without an export, which takes longer than everything else together.
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    contenders = (("torch", "float32"), ("torch", "bfloat16"), ("openvino", "float32"))
    monkeypatch.setattr(network_steps, "processor_flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(network_steps, "ON_A_CPU", contenders)
    monkeypatch.setattr(event_path, "RATES_MEVS", (1,))
    out = tmp_path / "bench.json"
    arguments = ["--weights", "untrained:tiny", "--size", "80x60", "--seconds", "0.1"]
    code = main(["bench", *arguments, "--threads", "1", "--device", "cpu", "--out", str(out)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "%" in printed.err
    document = json.loads(out.read_text())
    assert {"machine", "packages", "events", "networks", "threads", "within_s"} <= set(document)
    assert document["sensor_px"] == [60, 80]
    (network,) = document["networks"]
    assert [row["precision"] for row in network["steps"]] == ["float32", "bfloat16"]
    assert "pip install '.[openvino]'" in network["not_measured"]["openvino float32"]
    assert network["auto"]["live"]["backend"] == "torch"
    assert "openvino" in network["auto"]["live"]["reason"]
    assert all(chain["windows"] >= 2 for chain in network["chains"])
    assert "flags that matter to networks: " in printed.out
    for part in ("packets to event images", "not measured: openvino float32", "backend auto, live"):
        assert part in printed.out
    verdict = network["verdict"]
    assert verdict["sentence"] in printed.out
    words = shlex.split(verdict["command"])
    assert words[:4] == ["ros2", "launch", "dae_ros", "depth.launch.py"]
    known = {argument.name: argument for argument in ARGUMENTS}
    for word in words[4:]:
        name, _, value = word.partition(":=")
        assert not known[name].choices or value in known[name].choices


@pytest.mark.skipif(bool(missing_packages()), reason="the extra `openvino` is not installed")
def test_what_does_not_fit_is_left_out_with_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that takes too long is ended; the row says how to prepare it, the rest stands.

    It is what `auto` comes to, so that the verdict does not pin what was measured in its place.
    """
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", str(slow))
    contenders = (("torch", "float32"), ("torch", "bfloat16"), ("openvino", "float32"))
    monkeypatch.setattr(network_steps, "ON_A_CPU", contenders)
    monkeypatch.setattr(network_steps, "processor_flags", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setattr(event_path, "RATES_MEVS", (1,))
    out = tmp_path / "bench.json"
    arguments = ["--weights", "untrained:tiny", "--size", "80x60", "--seconds", "0.1"]
    arguments += ["--within", "5", "--threads", "1", "--device", "cpu", "--out", str(out)]
    assert main(["bench", *arguments]) == 0
    (network,) = json.loads(out.read_text())["networks"]
    assert [row["precision"] for row in network["steps"]] == ["float32"]
    missing = network["not_measured"]
    assert "no bfloat16" in missing["torch bfloat16"] and "(its flags: avx2 fma)" in str(missing)
    assert "there was no time for its export" in missing["openvino float32"]
    words = shlex.split(missing["openvino float32"].partition("with: ")[2])
    assert words[:4] == ["dae-ros", "export", "untrained:tiny", "--out"]
    assert words[5:] == ["--height", "60", "--width", "80", "--precision", "float32"]
    assert Path(words[4]).parent == tmp_path / "cache" / "dae_ros" / "onnx"
    printed = capsys.readouterr().out
    assert f"not measured: openvino float32: {missing['openvino float32']}" in printed
    verdict = network["verdict"]
    assert verdict["command"] == (
        "ros2 launch dae_ros depth.launch.py weights:=untrained:tiny device:=cpu"
    )
    assert verdict["lower_bound"] and verdict["sentence"] in printed
    assert verdict["sentence"].endswith(missing["openvino float32"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--seconds", "0"), "--seconds must be above 0"),
        (("--within", "40"), "--within must be above --seconds (40)"),
        (("--out", "nowhere/bench.json"), "there is no folder nowhere"),
        (("--weights", "a.onnx"), "give the checkpoint"),
        (("--threads", "-1"), "'threads' must be at least 0"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    """Exit code 2 and a sentence; nothing is printed on stdout."""
    assert main(["bench", *arguments]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.out == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--weights", "nosuch"], "nosuch"),
        (["--weights", "untrained:tiny", "--device", "foo"], "foo"),
        (["--weights", "micro", "micro_frames"], "give weights that take events"),
    ],
)
def test_what_cannot_be_measured_is_told_first(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    """Nobody waits for the events' table to learn of a misspelt name."""
    assert main(["bench", "--seconds", "1", *arguments]) in (1, 2)
    printed = capsys.readouterr()
    assert reason in printed.err and "packets to event images" not in printed.out


def test_a_folder_is_no_file_for_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known before anything is measured."""
    assert main(["bench", "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
