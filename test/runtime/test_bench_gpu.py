"""The benchmark of GPUs, without one: what it counts, what it says, and a whole run on the CPU."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import bench_gpu, run
from benchmarks.bench_gpu import Plan, main, measure
from benchmarks.gpu import contenders, graphs
from benchmarks.gpu.clock import DeviceClock, measure_peaks, readings, turns
from benchmarks.gpu.contenders import AS_WRITTEN, COMPILED, EAGER, OURS, REFERENCE, TENSORRT
from benchmarks.gpu.report import goals, roofline, table
from benchmarks.gpu.steps import checkpoint_at, measure_contenders, measure_swaps
from benchmarks.gpu.work import Counter, Work, floor_of, step_work, update_work
from dae_ros.distillation.rollout import roll_clips
from dae_ros.errors import InferenceError
from dae_ros.model.untrained import untrained
from dae_ros.runtime.torch_fitting import Fitting

CPU, META = torch.device("cpu"), torch.device("meta")
SIZE = (70, 84)


def counted(network: nn.Module, image: torch.Tensor, *, backward: bool = False) -> Work:
    counter = Counter(network.parameters())
    with counter.counting():
        out = network(image)
        if backward:
            out.sum().backward()
    return counter.work(0)


def test_products_are_counted_as_by_hand() -> None:
    """Numbers of a convolution, a grouped one, one up, and a layer, made with pencil and paper."""
    image = torch.empty(1, 4, 5, 6, device=META)
    with torch.no_grad():
        plain = counted(nn.Conv2d(4, 8, 3, padding=1, device=META), image)
        grouped = counted(nn.Conv2d(4, 8, 3, padding=1, groups=4, device=META), image)
        up = counted(nn.ConvTranspose2d(4, 2, 2, stride=2, bias=False, device=META), image)
        layer = counted(nn.Linear(6, 7, device=META), image)
    # 8 x 30 cells, each of 4 x 9 products.
    assert plain == Work(2 * 240 * 36, 4 * (8 * 36 + 8), 4 * (120 + 240), 0)
    assert grouped.operations == 2 * 240 * 9
    # 120 cells, each spread over 2 x 2 of 2 channels.
    assert up == Work(2 * 120 * 8, 4 * 32, 4 * (120 + 240), 0)
    assert layer == Work(2 * 20 * 6 * 7, 4 * (42 + 7), 4 * (120 + 140), 0)


def test_attention_is_one_product_in_either_direction() -> None:
    """2 heads, 5 tokens of 3: two products there and four back; no 5 x 5 goes through memory."""

    class Attending(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(tokens, tokens + 1, tokens + 2)

    tokens = torch.empty(1, 2, 5, 3, device=META, requires_grad=True)
    once = 2 * 2 * 5 * 5 * 3
    with torch.no_grad():
        assert counted(Attending(), tokens) == Work(2 * once, 0, 4 * 4 * 30, 0)
    assert counted(Attending(), tokens, backward=True).operations == (2 + 4) * once


def test_back_propagation_counts_what_it_needs() -> None:
    """Gradients of weights and of the image are a product each; the first image needs none."""
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=2, device=META), nn.Conv2d(4, 8, 1, device=META)
    )
    work = counted(network, torch.empty(1, 4, 5, 6, device=META), backward=True)
    first, second = 2 * 120 * 18, 2 * 240 * 4
    assert work.operations == 2 * first + 3 * second


@pytest.mark.parametrize("name", ["tiny", "vits"])
def test_a_step_has_the_operations_that_pytorch_counts(name: str) -> None:
    """PyTorch's own counter on the same network, for two cameras; few weights are idle."""
    loaded = untrained(name)
    work = step_work(loaded, *SIZE, torch.bfloat16, cameras=2)
    network = copy.deepcopy(loaded.network).to(META)
    size = Fitting(loaded.config, network.multiple, CPU).network_size(*SIZE)
    state = network.initial_state(2, *size)
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        network(torch.empty(2, 3, *size, device=META), state)
    assert work.operations == theirs.get_total_flops() > 0
    weights = 2 * sum(weight.numel() for weight in network.parameters())
    assert 0.9 * weights < work.weight_bytes < weights
    # Code over, prediction back, both of 70 x 84; the state in float32 both ways.
    assert work.boundary_bytes == 2 * 70 * 84 * (2 + 4) + 8 * sum(one.numel() for one in state)


def test_an_update_has_the_operations_that_pytorch_counts() -> None:
    """Burn-in forward alone, the rest both ways; ten float32 per weight for optimizer and mean."""
    loaded = untrained("tiny")
    work = update_work(loaded, SIZE, torch.float32, clips=2, burn_in=2, unroll=3)
    network = copy.deepcopy(loaded.network).to(META).train().requires_grad_(True)
    images = torch.empty(2, 5, 3, *SIZE, device=META)
    with FlopCounterMode(display=False) as theirs:
        roll_clips(network, images, 3).sum().backward()
    assert work.operations == theirs.get_total_flops() > 0
    weights = sum(weight.numel() for weight in network.parameters())
    assert work.boundary_bytes == 4 * images.numel() + 40 * weights


def test_floors_are_work_over_peaks() -> None:
    """By hand: 2 TFLOP at 4 TFLOP/s; 3 GB of traffic at 1 TB/s, of which 1.5 GB whatever caches."""
    work = Work(2 * 10**12, 10**9, 1_500_000_000, 500_000_000)
    floor = floor_of(work, 4e12, 1e12)
    assert (floor.compute_ms, floor.memory_ms) == pytest.approx((500.0, 3.0))
    assert (floor.roofline_ms, floor.least_ms) == pytest.approx((500.0, 500.0))
    floor = floor_of(work, 4e15, 1e12)
    assert (floor.roofline_ms, floor.least_ms) == pytest.approx((3.0, 1.5))


def test_the_clock_queues_one_more_than_it_counts() -> None:
    """The first of each sample gives the host a lead."""
    queued: list[int] = []
    clock = DeviceClock(CPU, flush_bytes=64)
    taken = clock.times_ms(lambda: queued.append(1), samples=3, batch=4, cold=True)
    assert len(taken) == 3 and len(queued) == 3 * (1 + 4)
    assert list(turns(0.0)) == [0, 1] and list(turns(0.0, least=3)) == [0, 1, 2]
    peaks = measure_peaks(clock, side=16, copy_bytes=1 << 12, samples=2)
    assert set(peaks["operations_per_s"]) == {"bfloat16", "float16", "float32"}
    assert all(rate > 0 for rate in [*peaks["operations_per_s"].values(), peaks["bytes_per_s"]])
    assert readings(CPU) == "no GPU"


def test_written_out_a_network_gives_the_same() -> None:
    """Attention by hand and positions made anew: the prediction of the network as it is."""
    network = untrained("tiny").network
    written = copy.deepcopy(network)
    contenders.write_out(written)
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, _ = network(image, network.initial_state(1, *SIZE))
        actual, _ = written(image, network.initial_state(1, *SIZE))
        assert network.pretrained.positions(5, 6) is network.pretrained.positions(5, 6)
        assert written.pretrained.positions(5, 6) is not written.pretrained.positions(5, 6)
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)


def results_of(name: str, **step_ms: float) -> dict[str, Any]:
    """Return results of two sizes, on a device of that name; keywords are contenders' steps."""
    names = {"ours": OURS, "eager": AS_WRITTEN, "fused": EAGER, "tensorrt": TENSORRT}
    rows = [
        {
            "contender": names[key], "step_p50_ms": ms, "step_p95_ms": ms, "device_ms": ms / 2,
            "device_cold_ms": None, "deviation_rms": 0.0, "ready_s": 1.0, "note": "",
        }
        for key, ms in step_ms.items()
    ]  # fmt: skip
    floor = {"operations": 10**9, "traffic_bytes": 10**8, "roofline_ms": 0.1}
    section = {
        "network": "vits", "rows": rows, "not_measured": {COMPILED: "no compiler"},
        "floors": dict.fromkeys(("bfloat16", "float16", "float32"), floor), "round_trip_ms": 0.03,
    }  # fmt: skip
    return {
        "device": {"name": name},
        "peaks": {"operations_per_s": {"bfloat16": 8e14}, "bytes_per_s": 4e12},
        "steps": [{**section, "size_px": size} for size in ([266, 350], [476, 644])],
        "cameras": [], "swaps": [], "training": [], "host": [],
        "failed": {"host (1, 2)": "RuntimeError: why"},
    }  # fmt: skip


def met(results: dict[str, Any]) -> list[bool | None]:
    return [goal["met"] for goal in goals(results)]


def test_goals_are_met_missed_or_not_measured() -> None:
    """Per size: ms on the GPU that they are of, times eager, over TensorRT."""
    h200 = "NVIDIA H200"
    assert met(results_of(h200, ours=1.2, eager=3.6, fused=1.3, tensorrt=1.1)) == [
        False, True, True, True, True, True,
    ]  # fmt: skip
    assert met(results_of(h200, ours=0.9, eager=2.6, tensorrt=0.8)) == [True, False, False] * 2
    for other in ("NVIDIA A100", "NVIDIA GH200 480GB"):
        assert met(results_of(other, ours=9.0, eager=30.0)) == [None, True, None] * 2
    assert met(results_of(h200)) == [None] * 6
    texts = [goal["goal"] for goal in goals(results_of(h200))]
    assert texts[2] == "vits at 266x350: step over that of TensorRT through onnxruntime"


def test_the_report_says_what_was_not_measured_and_why() -> None:
    """Reasons, failures and the goals, when there are any yet; the roofline is a picture."""
    results = results_of("NVIDIA H200", ours=1.0, eager=4.0, tensorrt=1.0)
    text = table(results)
    assert "| tensorrt float16, through onnxruntime | 1 |" in text
    assert "800 TFLOP/s in bfloat16; 4 TB/s" in text
    assert f"| {OURS} | 1 | 1 | 0.5 | - | 0.1 | 5 | 0 | 1 |  |" in text
    assert f"{COMPILED}: not measured (no compiler)" in text
    assert "**host (1, 2) failed:** RuntimeError: why" in text
    assert "Goals" not in text
    results["goals"] = goals(results)
    assert "times eager PyTorch in bfloat16, as the authors wrote it | 4 | >= 3 | met" in table(
        results
    )
    assert roofline(results).shape == (440, 800, 3)


def test_without_a_gpu_it_says_so_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 2, and nothing is written; a CPU is refused by name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path)]) == run.LEFT_OUT == 2
    assert "There is no GPU that PyTorch" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        main(["--device", "cpu"])


@pytest.mark.parametrize(("names", "code"), [([], 0), (["gpu"], 1)])
def test_all_benchmarks_go_on_without_a_gpu(
    names: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the machine has nothing for is left out of all of them, and fails where it is named."""
    ended = {"benchmarks.bench_gpu": run.LEFT_OUT}
    monkeypatch.setattr(
        run.subprocess, "run",
        lambda command, check: SimpleNamespace(returncode=ended.get(command[-1], 0)),
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["run", *names])
    assert run.main() == code


def test_a_contender_that_fails_later_costs_its_own_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are measured, and the table says why one is not."""
    steps = 0
    estimate = contenders.EagerSteps.estimate

    def failing(self: Any, image: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > 3:
            raise InferenceError("its memory is gone")
        return estimate(self, image)

    monkeypatch.setattr(contenders.EagerSteps, "estimate", failing)
    weights = checkpoint_at("tiny", 70, 98, tmp_path)
    clock = DeviceClock(torch.device("cpu"), 64)
    names = (REFERENCE, OURS, EAGER)
    found = measure_contenders(names, weights, (70, 98), clock, 0.05, lambda: 1.0)
    assert [row["contender"] for row in found["rows"]] == [*names[:2]]
    assert "its memory is gone" in found["not_measured"][EAGER]


def test_weights_change_while_steps_go_on(tmp_path: Path) -> None:
    """The change comes, and is told with the steps beside it and the verdicts of it."""
    weights = checkpoint_at("tiny", *SIZE, tmp_path)
    clock = DeviceClock(CPU, flush_bytes=64)
    # As long as a busy machine may need; it ends as soon as the weights are kept.
    found = measure_swaps(weights, SIZE, clock, 1, patience_s=120.0)
    (change,) = found["changes"]
    assert change["cold"] and change["took_s"] > 0
    assert change["longest_ms"] >= change["p50_ms"] > 0 and found["quiet"]["steps"] > 0
    assert found["verdicts"][0].startswith("swapped")


def test_a_build_that_takes_too_long_ends_with_all_its_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The limit ends the export that the build has begun as well."""
    monkeypatch.setattr(graphs, "graph_obstacle", lambda _: None)
    # A build whose export sleeps, so that the limit comes while it is under way.
    started = tmp_path / "child"
    export = f"sh -c 'echo $$ > {started}; exec sleep 300' > /dev/null 2>&1"
    python = tmp_path / "python"
    # The last command keeps the shell from becoming the export.
    python.write_text(f"#!/bin/sh\n{export}\ntrue\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    said = graphs.build_beside("onnxruntime", tmp_path, SIZE, "cpu", tmp_path, 2.0)
    assert said is not None and "not built within 2 s" in said
    # Gone, or dead and not yet waited for.
    status = Path(f"/proc/{started.read_text().strip()}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_everything_is_measured_on_a_small_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All parts on the CPU, but one that fails: that and an absent contender are named."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such\n kernel")

    original = contenders.OurSteps

    def made(*given: Any, compiled: bool) -> Any:
        return fail() if compiled else original(*given, compiled=False)

    monkeypatch.setattr(contenders, "OurSteps", made)
    monkeypatch.setattr(contenders, "build_beside", lambda *_: "it is not installed")
    monkeypatch.setattr(bench_gpu, "measure_event_path", fail)
    plan = Plan(
        device="cpu", networks=("tiny",), sizes=(SIZE,), cameras=(1, 2), swaps=1,
        training=(("float32", 1),), seconds=0.0, matrix_side=16, copy_bytes=1 << 12,
        flush_bytes=64, contenders=(REFERENCE, OURS, AS_WRITTEN, COMPILED, TENSORRT),
    )  # fmt: skip
    measure(plan, tmp_path, 0.0)
    results = json.loads((tmp_path / "gpu.json").read_text())["results"]
    (steps,) = results["steps"]
    rows = {row["contender"]: row for row in steps["rows"]}
    assert set(rows) == {REFERENCE, OURS, AS_WRITTEN}
    assert all(row["step_p50_ms"] > 0 and row["device_ms"] > 0 for row in rows.values())
    assert all(0 < rows[name]["deviation_rms"] < 0.1 for name in (OURS, AS_WRITTEN))
    assert steps["not_measured"] == {
        COMPILED: "it failed: RuntimeError: no such kernel", TENSORRT: "it is not installed",
    }  # fmt: skip
    assert [row["cameras"] for row in results["cameras"][0]["rows"]] == [1, 2]
    assert results["swaps"][0]["changes"][0]["cold"] is True
    (training,) = results["training"]
    assert training["updates"] >= 1 and training["updates_refused"] == 0
    assert training["update_p50_ms"] > 0 and training["floor"]["operations"] > 0
    assert results["failed"] == {f"host {SIZE}": "RuntimeError: no such kernel"}
    assert [goal["met"] for goal in results["goals"]] == [None] * 6
    assert "## Goals" in (tmp_path / "gpu.md").read_text()
    assert cv2.imread(str(tmp_path / "gpu.png")).shape == (440, 800, 3)
