"""The measuring behind `dae-ros bench`: what it runs is right, and what it says follows from it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dae_ros.errors import ConfigurationError
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.representation.event_image import EventImage
from dae_ros.runtime import exported_estimator
from dae_ros.runtime.backend_choice import BackendChoice
from dae_ros.runtime.benchmark import event_path, network_steps, verdict
from dae_ros.runtime.benchmark.event_path import (
    EventPathRow,
    count_of,
    decode_packets,
    encode_windows,
    in_packets,
    in_turns,
    measure_event_path,
)
from dae_ros.runtime.benchmark.network_steps import Contenders, StepRow, measure_steps
from dae_ros.runtime.benchmark.verdict import contender_of, fastest, judge, launch_command
from dae_ros.runtime.benchmark.whole_chain import ChainRow, measure_chain, medium_camera
from dae_ros.runtime.estimator import DepthEstimator, FloatImage, OutputMeaning
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.graph_backends import GraphRuntime
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_cache import cache_folder
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.simulation.moving_texture import moving_texture
from test.reference.leaky_estimator import LeakyEstimator
from test.reference.packed_tencode import packed_tencode


def silent(_part: float, _detail: str) -> None:
    """Report to nobody."""


@pytest.mark.parametrize("encoding", event_path.ENCODINGS)
def test_what_is_timed_decodes_and_encodes_every_event(encoding: str) -> None:
    """Packets hold all events, and each window is the Tencode of the events of its 50 ms."""
    events = moving_texture(48, 64, 0.1, 20_000)
    packets = in_packets(encoding, events, 64, 48, 1.0)
    assert decode_packets(encoding, packets, 64, 48) == len(events)
    codes = list(encode_windows(encoding, packets, 64, 48))
    assert count_of(encode_windows(encoding, packets, 64, 48)) == len(codes) >= 3
    start_ns = int(events.t[0]) // 1000 * 1000
    for number, code in enumerate(codes):
        edges = start_ns + np.array([number, number + 1]) * event_path.WINDOW_NS
        low, high = np.searchsorted(events.t, edges).tolist()
        np.testing.assert_array_equal(code, packed_tencode(events.slice(low, high), 48, 64))


def test_event_rows_are_of_the_streams_own_rate() -> None:
    """Each encoding at each rate; the share of a core is the window's time over 50 ms."""
    parts: list[float] = []
    rows = measure_event_path(48, 64, 0.01, lambda part, _: parts.append(part), rates_mevs=(1, 2))
    assert [(row.encoding, row.rate_mevs) for row in rows] == [
        ("evt3", 1), ("libcaer_cmp", 1), ("evt3", 2), ("libcaer_cmp", 2),
    ]  # fmt: skip
    for row in rows:
        assert isinstance(row, EventPathRow) and row.decode_mevs > 0.0
        assert row.core_share == pytest.approx(row.window_ms / 50.0)
    assert parts == sorted(parts) and parts[-1] == 1.0


def test_works_take_turns_and_the_first_round_is_left_out() -> None:
    """Two rounds at least, in turns; what is slow once, because it compiles, does not count."""
    calls: list[str] = []

    def work(name: str) -> None:
        first = name not in calls
        calls.append(name)
        sum(range(3_000_000 if first else 10))

    names = [("a", 1, "x"), ("b", 1, "x")]
    works = {name: lambda of=name[0]: work(of) for name in names}
    taken = in_turns(works, 0.0, lambda _: None)
    assert calls == ["a", "b", "a", "b"]
    assert all(time_ns < 5e6 for time_ns in taken.values())


def test_a_step_is_compared_with_the_first_contender() -> None:
    """Another precision has a deviation, the first has none; all have stepped equally often."""
    exact = TorchEstimator(untrained("tiny"))
    half = TorchEstimator(untrained("tiny"), precision="bfloat16")
    there = {("torch", "float32"): exact, ("torch", "bfloat16"): half}
    first, second = measure_steps(Contenders(there, {}), 48, 64, 0.0, silent)
    assert (first.precision, first.deviation) == ("float32", 0.0)
    assert 0.0 < second.deviation < 0.2
    assert 0.0 < first.p50_ms <= first.p95_ms and first.cpu_ms > 0.0
    assert exact.state_age == half.state_age > 0


def test_steps_are_timed_on_what_the_pipeline_hands_on() -> None:
    """A network of Tencode is timed on codes, one of voxel protocols on planes."""
    seen: list[np.dtype[Any]] = []

    class Watching(LeakyEstimator):
        def estimate(self, image: EventImage) -> FloatImage:
            seen.append(image.dtype)
            return super().estimate(image)

    for encoder, dtype in (("tencode", np.uint16), ("tencode_voxel", np.float32)):
        seen.clear()
        watching = Watching(OutputMeaning(event_encoder=encoder))
        measure_steps(Contenders({("leaky", "float32"): watching}, {}), 48, 64, 0.0, silent)
        assert set(seen) == {np.dtype(dtype)}


def test_the_chain_steps_windows_of_the_pipeline() -> None:
    """Packets of a camera become windows, whose stages and rate are those of the pipeline."""
    packets = medium_camera(48, 64, 0.2)
    assert [packet.seq for packet in packets] == list(range(len(packets)))
    parameters = DepthParameters.from_mapping({"orientation": "depth", "backend": "torch"})
    row = measure_chain(parameters, LeakyEstimator(), packets, 0.0, silent)
    assert (row.backend, row.precision) == ("torch", "auto")
    assert row.windows >= 2 and row.windows_per_s > 0.0
    busy_ms = row.stages["encode"]["max_ms"] + row.stages["infer"]["max_ms"]
    assert 0.0 < row.window_p95_ms <= busy_ms
    assert set(row.stages) == {"decode", "close", "encode", "infer", "publish", "total"}


def step(backend: str, precision: str, p50_ms: float, deviation: float = 0.0) -> StepRow:
    return StepRow(backend, precision, p50_ms, 2 * p50_ms, p50_ms, deviation)


def chain(backend: str, precision: str, p95_ms: float) -> ChainRow:
    return ChainRow(backend, precision, 10, 10.0, p95_ms, {})


STEPS = [
    step("torch", "float32", 40.0),
    step("torch", "bfloat16", 45.0, 0.02),
    step("openvino", "float32", 20.0, 1e-5),
    step("openvino", "bfloat16", 10.0, 0.03),
]
AUTO = BackendChoice("openvino", "the fastest")


def test_the_verdict_names_rate_command_and_cost() -> None:
    """The fastest wins, its rate is of the slow windows, and what differs from `auto` is typed."""
    chains = {("openvino", "bfloat16"): chain("openvino", "bfloat16", 12.5)}
    verdict = judge(DepthParameters(), STEPS, chains, AUTO, {})
    assert (verdict.contender, verdict.hz) == (("openvino", "bfloat16"), 80.0)
    command = "ros2 launch dae_ros depth.launch.py weights:=micro precision:=bfloat16"
    assert verdict.command == command
    assert verdict.sentence == (
        "micro: 80.0 Hz on openvino in bfloat16 (95 % of windows take at most 12.5 ms), enough "
        "for the 20 Hz of the default hop_s. bfloat16 changes depth by 3.0 % of its spread. "
        f"Type: {command}"
    )


def test_a_machine_that_is_too_slow_is_told_what_to_do() -> None:
    """Below the rate of the hop the sentence says what happens and which hop fits."""
    chains = {("torch", "float32"): chain("torch", "float32", 100.0)}
    verdict = judge(
        DepthParameters(), STEPS[:2], chains, BackendChoice("torch", "OpenVINO is missing"), {}
    )
    assert verdict.hz == pytest.approx(10.0)
    assert "windows will be skipped; set hop_s to 0.11 or more" in verdict.sentence
    assert verdict.command == "ros2 launch dae_ros depth.launch.py weights:=micro"
    unmeasured = judge(DepthParameters(), STEPS[:2], chains, AUTO, {}).sentence
    assert "backend auto comes to openvino, which was not measured" in unmeasured
    assert "auto" not in verdict.sentence and not verdict.lower_bound


def test_what_auto_comes_to_is_not_pinned_away_for_lack_of_time() -> None:
    """Slower than what was not measured is no advice: no backend is typed, and more time is."""
    chains = {("torch", "bfloat16"): chain("torch", "bfloat16", 100.0)}
    export = "there was no time for its export (--within); do it once, with: dae-ros export micro"
    steps = [step("torch", "float32", 400.0), step("torch", "bfloat16", 95.0, 0.02)]
    late = {("openvino", "float32"): export}
    verdict = judge(DepthParameters(device="cpu"), steps, chains, AUTO, late)
    command = "ros2 launch dae_ros depth.launch.py weights:=micro device:=cpu"
    assert (verdict.command, verdict.hz, verdict.lower_bound) == (command, 10.0, True)
    assert verdict.sentence == (
        "micro: 10.0 Hz on torch in bfloat16 (95 % of windows take at most 100.0 ms), less than "
        "the 20 Hz of the default hop_s. bfloat16 changes depth by 2.0 % of its spread. That is a "
        "lower bound: backend auto comes to openvino in float32, which was not measured. Type: "
        f"{command}\nopenvino in float32: {export}"
    )
    # Another one that there was no time for is not what `auto` comes to.
    late = {("openvino", "bfloat16"): export}
    pinned = judge(DepthParameters(), steps, chains, AUTO, late)
    assert pinned.command.endswith("backend:=torch precision:=bfloat16") and not pinned.lower_bound


def test_speed_that_costs_too_much_is_not_advised() -> None:
    """A contender far from PyTorch is no winner, however fast."""
    steps = [step("torch", "float32", 40.0), step("openvino", "bfloat16", 1.0, 0.2)]
    assert fastest(steps) == ("torch", "float32")
    assert fastest([step("torch", "float32", 40.0, 0.0)]) == ("torch", "float32")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_all_contenders_run_on_one_device(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Rows are of the device that PyTorch has; what cannot run there is absent, with the reason."""
    devices: list[str] = []

    def made(parameters: DepthParameters) -> DepthEstimator:
        devices.append(parameters.device)
        return TorchEstimator(untrained("tiny"))

    reason = "onnxruntime has no CUDA"
    monkeypatch.setattr(network_steps, "device_of", lambda _: torch.device(kind))
    monkeypatch.setattr(network_steps, "onnxruntime_obstacle", lambda: reason)
    monkeypatch.setattr(network_steps, "create_estimator", made)
    parameters = DepthParameters(weights="untrained:tiny")
    found = network_steps.find_contenders(parameters, 48, 64, silent)
    assert set(devices) == {kind}
    if kind == "cuda":
        backends = ("onnxruntime", "tensorrt")
        assert found.absent == {(name, "float16"): reason for name in backends}


def test_an_engine_is_built_where_there_is_time_for_it(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would build past the deadline is not begun, and the command that builds is told."""

    def opened(*_: object) -> GraphEstimator:
        raise ConfigurationError("it was begun")

    def made(parameters: DepthParameters) -> DepthEstimator:
        if parameters.backend == "torch":
            return TorchEstimator(untrained("tiny"))
        return ExportedEstimator(
            "tiny", untrained("tiny"), opened, precision="float16", folder=cache_folder("onnx")
        )

    monkeypatch.setattr(network_steps, "ON_A_CPU", (("torch", "float32"), ("tensorrt", "float16")))
    monkeypatch.setattr(network_steps, "create_estimator", made)
    monkeypatch.setattr(network_steps, "runtime_device", lambda *_: "cuda")
    graph = cache_home / "opened by nobody.onnx", None
    monkeypatch.setattr(exported_estimator, "exported_graph", lambda *_, **__: graph)
    parameters = DepthParameters(weights="untrained:tiny", device="cpu")
    now_s = time.monotonic()
    deadlines = network_steps.Deadlines(exports_s=now_s + 60.0)
    found = network_steps.find_contenders(parameters, 60, 80, silent, deadlines)
    assert list(found.there) == [("torch", "float32")] and not found.absent
    said = "--weights untrained:tiny --size 80x60 --within 1800"
    assert said in found.late["tensorrt", "float16"]
    for exports_s in (now_s + 1700.0, math.inf):
        deadlines = network_steps.Deadlines(exports_s=exports_s)
        found = network_steps.find_contenders(parameters, 60, 80, silent, deadlines)
        assert list(found.there) == [("torch", "float32")] and not found.late
        assert "it was begun" in found.absent["tensorrt", "float16"]
    monkeypatch.setattr(GraphRuntime, "has_opened", lambda *_: True)
    deadlines = network_steps.Deadlines(exports_s=now_s + 60.0)
    found = network_steps.find_contenders(parameters, 60, 80, silent, deadlines)
    assert "it was begun" in found.absent["tensorrt", "float16"]


def test_auto_on_a_gpu_is_what_the_gpu_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's precision there depends on GPU and network, that of exported graphs does not."""
    choice, there = BackendChoice("torch", ""), DepthParameters(weights="untrained:tiny")
    monkeypatch.setattr(verdict, "device_of", lambda _: torch.device("cuda"))
    for capability, expected in (((8, 0), ("torch", "bfloat16")), ((7, 5), None)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert contender_of(choice, STEPS, there) == expected
    assert contender_of(choice, STEPS[:1], there) is None
    # onnxruntime has GPUs of its own: PyTorch, perhaps a build for CPUs, may see none.
    monkeypatch.setattr(verdict, "runtime_device", lambda *_: "cuda")
    for seen in ("cuda", "cpu"):
        monkeypatch.setattr(verdict, "device_of", lambda _, kind=seen: torch.device(kind))
        assert verdict.auto_precision(there, "onnxruntime") == "float16"
        assert verdict.auto_precision(there, "tensorrt") == "float16"
        assert verdict.auto_precision(there, "openvino") == "float32"


def test_commands_say_what_auto_would_not_do() -> None:
    """Backend and precision are typed where `auto` comes to others, and a device that was given."""
    torch32, openvino = ("torch", "float32"), ("openvino", "float32")
    here = DepthParameters(device="cpu")
    assert contender_of(AUTO, STEPS, here) == openvino
    assert contender_of(BackendChoice("torch", ""), STEPS[1:], here) is None
    assert launch_command("a b.pth", torch32, openvino, "cpu") == (
        "ros2 launch dae_ros depth.launch.py 'weights:=a b.pth' device:=cpu backend:=torch"
    )
    assert launch_command("micro", openvino, None).endswith("backend:=openvino precision:=float32")
