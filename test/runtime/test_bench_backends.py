"""The benchmark of backends on a CPU: its goals, each number of threads, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from benchmarks import bench_backends
from benchmarks.bench_backends import goals, main
from dae_ros.errors import ConfigurationError
from dae_ros.runtime.backend_choice import missing_packages


def run(threads: int, rows: dict[str, float], absent: dict[str, str]) -> dict[str, object]:
    """Return results of one number of threads; the speed of CPU time is that of nobody."""
    vits = {
        "network": "vits",
        "rows": [
            {"backend": name, "speed_up_cpu": 99.0, "speed_up_wall": value}
            for name, value in rows.items()
        ],
        "not_measured": absent,
    }
    return {"threads": threads, "networks": [{**vits, "network": "micro"}, vits]}


def test_vits_is_judged_by_the_time_that_a_step_takes() -> None:
    """In bfloat16 and int8, at each number of threads; what is not there is not measured."""
    flags = "this processor has no bfloat16 (its flags: avx2)"
    found = goals(
        [
            run(1, {"torch bfloat16": 9.0, "openvino bfloat16": 3.5, "openvino int8": 5.9}, {}),
            run(2, {"openvino int8": 6.0}, {"openvino bfloat16": flags}),
        ]
    )
    assert [(goal["goal"], goal["value"], goal["bound"], goal["met"]) for goal in found] == [
        ("vits at 266x350, 1 thread(s), openvino bfloat16: times PyTorch in float32",
         3.5, ">= 3.5", True),
        ("vits at 266x350, 1 thread(s), openvino int8: times PyTorch in float32",
         5.9, ">= 6", False),
        ("vits at 266x350, 2 thread(s), openvino bfloat16: times PyTorch in float32",
         None, ">= 3.5", None),
        ("vits at 266x350, 2 thread(s), openvino int8: times PyTorch in float32",
         6.0, ">= 6", True),
    ]  # fmt: skip
    assert goals([{"threads": 1, "networks": []}]) == []


@pytest.mark.skipif(bool(missing_packages()), reason="the extra `openvino` is not installed")
def test_a_missed_goal_is_told_recorded_and_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One and two threads in one file, with the flags of a processor without bfloat16."""

    def without(*_: object) -> NoReturn:
        raise ConfigurationError("int8 needs NNCF")

    # It takes longer than everything else together.
    monkeypatch.setattr(bench_backends, "in_int8", without)
    monkeypatch.setattr(bench_backends, "processor_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(bench_backends, "SENSOR", (48, 64))
    monkeypatch.setattr(bench_backends, "ROUNDS", 1)
    monkeypatch.setattr(bench_backends, "JUDGED", "tiny")
    before = torch.get_num_threads()
    try:
        goal = {"openvino float32": 1e6, "openvino bfloat16": 1e6}
        monkeypatch.setattr(bench_backends, "TIMES_PYTORCH", goal)
        assert main(["tiny", "--threads", "1", "2", "--out", str(tmp_path)]) == 1
        monkeypatch.setattr(bench_backends, "TIMES_PYTORCH", {"openvino bfloat16": 1e6})
        assert main(["tiny", "--threads", "1", "--out", str(tmp_path / "not a miss")]) == 0
    finally:
        torch.set_num_threads(before)
    printed = capsys.readouterr().out
    assert "openvino bfloat16: not measured" in printed and "(its flags: avx2)" in printed
    assert "**missed**" in printed and "| not measured |" in printed
    results = json.loads((tmp_path / "backends.json").read_text())["results"]
    assert [one["threads"] for one in results["runs"]] == [1, 2]
    for one in results["runs"]:
        (network,) = one["networks"]
        names = [row["backend"] for row in network["rows"]]
        assert names == ["torch float32", "onnxruntime float32", "openvino float32"]
        assert all(row["step_wall_ms"] > 0.0 for row in network["rows"])
    assert [goal["met"] for goal in results["goals"]] == [False, None, False, None]
    assert results["load_1_minute_at_start"] >= 0.0
