"""What a processor computes in is read from the system, and told where it is missing."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import NoReturn

import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import processor
from dae_ros.runtime.benchmark import network_steps
from dae_ros.runtime.benchmark.machine import machine
from dae_ros.runtime.benchmark.network_steps import Deadlines, find_contenders


@pytest.mark.parametrize("name", ["flags", "Features"])
def test_flags_are_those_of_the_first_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of x86 and of ARM; those that matter here come in one order."""
    info = tmp_path / "cpuinfo"
    info.write_text(f"model name : x\n{name}\t\t: fpu avx2 bf16 sse4_1\n\n{name} : amx_bf16\n")
    monkeypatch.setattr(processor, "_INFO", info)
    flags = processor.processor_flags()
    assert flags == {"fpu", "avx2", "bf16", "sse4_1"}
    assert processor.said_of(flags) == "avx2 bf16"
    assert machine()["cpu"]["flags"] == ["avx2", "bf16", "sse4_1"]
    monkeypatch.setattr(processor, "_INFO", tmp_path / "nowhere")
    assert processor.said_of(processor.processor_flags()) == "none that matter here"


@pytest.mark.parametrize(
    ("flags", "first"),
    [("avx512_vnni amx_int8", "amx_int8"), ("fpu avx_vnni", "avx_vnni"), ("avx2", "none")],
)
def test_int8_is_computed_with_the_first_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, first: str
) -> None:
    """Whatever the system's order."""
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(processor, "_INFO", info)
    assert processor.int8_instructions() == first


def test_bfloat16_needs_one_of_its_flags() -> None:
    """Each one is enough; without any the reason names what there is."""
    for flag in processor.BFLOAT16:
        assert processor.bfloat16_obstacle({"avx2", flag}) is None
    reason = processor.bfloat16_obstacle({"avx512f", "avx2", "fpu"})
    assert reason is not None and reason.endswith("(its flags: avx2 avx512f)")


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra `openvino` is not installed"
)
def test_backends_are_compared_without_it(
    tiny_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark of backends leaves bfloat16 out on both runtimes, and says what there is."""
    bench_backends = importlib.import_module("benchmarks.bench_backends")

    def without(*_: object) -> NoReturn:
        raise ConfigurationError("int8 needs NNCF")

    monkeypatch.setattr(bench_backends, "in_int8", without)
    monkeypatch.setattr(bench_backends, "processor_flags", lambda: frozenset({"avx2"}))
    there, absent = bench_backends.contenders(untrained("tiny"), tiny_graph, 1)
    assert list(there) == ["torch float32", "onnxruntime float32", "openvino float32"]
    assert set(absent) == {"torch bfloat16", "openvino bfloat16", "openvino int8"}
    assert absent["torch bfloat16"] == absent["openvino bfloat16"]
    assert absent["torch bfloat16"].endswith("(its flags: avx2)")


def test_bfloat16_is_not_measured_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """On PyTorch as on OpenVINO; a step that takes too long is left out, except for the first."""
    contenders = (("torch", "float32"), ("torch", "float16"), ("torch", "bfloat16"))
    monkeypatch.setattr(network_steps, "ON_A_CPU", contenders)
    monkeypatch.setattr(network_steps, "processor_flags", lambda: frozenset({"avx2"}))
    parameters = DepthParameters(weights="untrained:tiny", device="cpu", threads=1)
    found = find_contenders(parameters, 40, 60, lambda *_: None)
    assert list(found.there) == list(contenders[:2])
    assert "its flags: avx2" in found.absent["torch", "bfloat16"]
    found = find_contenders(parameters, 40, 60, lambda *_: None, Deadlines(0.0, 0.0))
    assert list(found.there) == [("torch", "float32")]
    assert "more time with --within" in found.late["torch", "float16"]
