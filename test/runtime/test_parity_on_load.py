"""A graph is compared with PyTorch on the runtime that is to run it, once, and refused if off."""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import exported_estimator, graph_backends, onnxruntime_graph, parity_on_load
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.graph_backends import GraphRuntime
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_cache import cache_folder, graph_name
from dae_ros.runtime.onnx_description import OnnxDescription, read_description
from dae_ros.runtime.onnx_parity import digest_of_events, moving_edges, moving_events
from dae_ros.runtime.parity_reference import ParityReference, at_grid
from dae_ros.runtime.takeover import TakeoverEstimator
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.weight_loading import Unusable, load_announced
from test.reference.noise_image import noise_image

if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("the extra `onnx` is not installed", allow_module_level=True)
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra `openvino` is not installed"
)
RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


def opened(path: Path, backend: str = "onnxruntime", **others: str) -> GraphEstimator:
    estimator = create_estimator(
        DepthParameters(weights=str(path), backend=backend, device="cpu", threads=1, **others)
    )
    assert isinstance(estimator, GraphEstimator)
    return estimator


def altered(source: Path, path: Path) -> Path:
    """Write the graph with one matrix doubled, and all that its file says as it was."""
    onnx = pytest.importorskip("onnx")
    from dae_ros.runtime.onnx_export import write_graph

    model = onnx.load(source)
    matrices = [tensor for tensor in model.graph.initializer if len(tensor.dims) >= 2]
    largest = max(matrices, key=lambda tensor: math.prod(tensor.dims))
    values = 2.0 * onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
    model.ClearField("metadata_props")
    write_graph(path, model.SerializeToString(), read_description(source))
    return path


def verdicts(home: Path) -> list[Path]:
    return sorted(home.rglob("*.parity.json"))


def test_the_kept_pixels_reach_every_border() -> None:
    """A grid of at most 32x32, row by row; small images are kept whole."""
    rows, columns = np.mgrid[0:63, 0:94]
    kept = at_grid((1000 * rows + columns).astype(np.float32)).reshape(32, 32)
    np.testing.assert_array_equal(kept[0], 3.0 * np.arange(32))
    np.testing.assert_array_equal(kept[:, 31], 2000.0 * np.arange(32) + 93)
    small = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(at_grid(small), [0, 1, 2, 3, 4, 5])


def test_a_deviation_is_that_of_the_worst_step() -> None:
    """In standard deviations of the step's own output; not finite is not a number."""
    first, second = np.float32([[0, 2], [0, 2]]), np.float32([[0, 20], [0, 20]])
    reference = ParityReference.from_json(ParityReference.of("ab", [first, second]).to_json())
    assert reference == ParityReference.of("ab", [first, second])
    found = reference.deviation_of([first + np.float32([[0.5, 0], [0, 0]]), second + 1])
    assert (found.root_mean_square, found.largest, found.steps) == (0.25, 0.5, 2)
    assert math.isnan(reference.deviation_of([first, second + np.nan]).root_mean_square)


def test_damaged_references_are_refused() -> None:
    """Values that are no base64, or no float32 of all steps, are no reference."""
    good = json.loads(ParityReference.of("ab", [np.zeros((2, 2), np.float32)]).to_json())
    for change in ({"values": "!"}, {"steps": 0}, {"steps": 3}, {"values": ""}):
        with pytest.raises(ValueError, match=r"values|predictions"):
            ParityReference.from_json(json.dumps({**good, **change}))


def test_an_export_keeps_what_pytorch_said(tiny_graph: Path) -> None:
    """The values in the file are PyTorch's over the windows of the check, the state carried."""
    reference, network = read_description(tiny_graph).parity, TorchEstimator(untrained("tiny"))
    assert reference is not None and reference.steps == 10
    assert reference.events_sha256 == digest_of_events(moving_events(60, 80))
    outputs = [network.estimate(one) for one in moving_edges("tencode", 3, 60, 80)]
    assert reference.deviation_of(outputs).largest < 1e-5
    assert reference.deviation_of(outputs[::-1]).largest > 1e-2


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_graph_is_compared_once_on_each_runtime(
    tiny_graph: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """What was measured is kept by graph, runtime, version and precision, and the state is zero."""
    estimator = opened(tiny_graph, backend)
    assert estimator.state_age == 0
    fresh = TorchEstimator(untrained("tiny")).estimate(noise_image())
    np.testing.assert_allclose(estimator.estimate(noise_image()), fresh, atol=1e-3 * fresh.std())
    (kept,) = verdicts(cache_home)
    assert backend in kept.name and "cpu-float32" in kept.name
    measured = json.loads(kept.read_text())
    assert 0.0 < measured["root_mean_square"] < 1e-4 and measured["steps"] == 10
    calls: list[str] = []
    real = parity_on_load._measured

    def counted(*arguments: object) -> object:
        calls.append("measured")
        return real(*arguments)

    monkeypatch.setattr(parity_on_load, "_measured", counted)
    opened(tiny_graph, backend)
    assert calls == []
    kept.write_text("{")  # damaged: measured again
    opened(tiny_graph, backend)
    monkeypatch.setattr(GraphRuntime, "name", property(lambda _: f"{backend}-another"))
    opened(tiny_graph, backend)
    assert calls == ["measured"] * 2 and len(verdicts(cache_home)) == 2


@needs_openvino
def test_each_precision_is_compared(tiny_graph: Path, cache_home: Path) -> None:
    """bfloat16 has a tolerance and a verdict of its own."""
    opened(tiny_graph, "openvino")
    try:
        opened(tiny_graph, "openvino", precision="bfloat16")
    except ConfigurationError as error:
        pytest.skip(error.message)
    assert [path.name.rpartition("-")[2] for path in verdicts(cache_home)] == [
        "bfloat16.parity.json", "float32.parity.json",
    ]  # fmt: skip


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_graph_that_is_off_is_refused(
    tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """The error has the deviation and what to do; the next start knows without measuring."""
    path = altered(tiny_graph, tmp_path / "altered.onnx")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"is off PyTorch by .* backend torch") as said:
            opened(path, backend)
        assert said.value.data["root_mean_square"] > 1e-2
        monkeypatch.setattr(parity_on_load, "_measured", None)


@needs_openvino
def test_takeover_ends_in_pytorch_where_the_graph_is_off(tiny_graph: Path) -> None:
    """Live `auto` never lets it step: PyTorch goes on from the first window to the last."""
    altered(tiny_graph, cache_folder("onnx") / graph_name(untrained("tiny"), 60, 80, "float32"))
    estimator = create_estimator(DepthParameters(weights="untrained:tiny", device="cpu", threads=1))
    assert isinstance(estimator, TakeoverEstimator)
    reference = TorchEstimator(untrained("tiny"))
    for seed in range(4):
        output = estimator.estimate(noise_image(seed))
        np.testing.assert_array_equal(output, reference.estimate(noise_image(seed)))
        if estimator._pending is not None:
            estimator._pending.join(120.0)
    assert estimator.choice.backend == "torch"
    assert "openvino cannot run these weights" in estimator.choice.reason
    assert "is off PyTorch by" in estimator.choice.reason


def test_a_checkpoint_on_a_backend_that_is_off_fails_with_the_reason(tiny_graph: Path) -> None:
    """Who names the backend is told at the first window, and at each one after it."""
    altered(tiny_graph, cache_folder("onnx") / graph_name(untrained("tiny"), 60, 80, "float32"))
    estimator = create_estimator(
        DepthParameters(weights="untrained:tiny", backend="onnxruntime", device="cpu", threads=1)
    )
    for _ in range(2):
        with pytest.raises(InferenceError, match="use another backend or precision"):
            estimator.estimate(noise_image())


def test_files_without_a_reference_are_refused(tiny_graph: Path, tmp_path: Path) -> None:
    """Nothing runs unseen: neither a file without PyTorch's output nor one of other events."""
    from dae_ros.runtime.onnx_export import write_graph

    onnx = pytest.importorskip("onnx")
    model = onnx.load(tiny_graph)
    model.ClearField("metadata_props")
    said = read_description(tiny_graph)
    assert said.parity is not None
    for number, parity in enumerate((None, replace(said.parity, events_sha256="00" * 32))):
        path = tmp_path / f"{number}.onnx"
        write_graph(path, model.SerializeToString(), replace(said, parity=parity))
        with pytest.raises(WeightsError, match="export it again"):
            opened(path)


def test_a_cache_that_cannot_be_only_costs_time(
    tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only disk a file is compared at each start, and runs."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert opened(tiny_graph).estimate(noise_image()).shape == (60, 80)


class Engines(onnxruntime_graph.OnnxRuntimeGraph):
    """Stands in for TensorRT, which needs a GPU: leaves an engine and runs on the CPU."""

    def __init__(
        self,
        path: Path,
        description: OnnxDescription,
        *,
        device: str,
        threads: int,
        engines: Path | None,
    ) -> None:
        assert device == "cuda" and engines is not None
        (engines / "built.engine").write_text(path.name)
        super().__init__(path, description, threads=threads)


def engines_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.engine"))


def test_engines_of_a_snapshot_go_with_it(
    tiny_graph: Path, tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache keeps those of the first weights; no version of a run leaves any behind."""
    monkeypatch.setattr(graph_backends, "OnnxRuntimeGraph", Engines)
    tiny, weights = untrained("tiny"), tmp_path / "w.safetensors"
    save_checkpoint(weights, tiny.network, tiny.meaning)

    def export(_: str, loaded: object, *size: object, **__: object) -> object:
        path = size[3] / "graph.onnx"
        shutil.copy(tiny_graph, path)
        return path, read_description(path)

    monkeypatch.setattr(exported_estimator, "exported_graph", export)
    runtime = GraphRuntime("tensorrt", "cuda", "float32", 1)
    first = ExportedEstimator(
        "tiny", tiny, runtime.open, precision="float32", folder=cache_folder("onnx")
    )
    first.estimate(noise_image())
    (kept,) = engines_of(cache_home)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(exported_estimator.tempfile, "tempdir", str(temporary))
    successor = first.successor(weights, 1)
    (built,) = engines_of(temporary)
    assert built.parent.name == kept.parent.name  # the same graph
    assert verdicts(temporary) and len(verdicts(cache_home)) == 1
    del successor
    gc.collect()
    assert list(temporary.iterdir()) == []
    assert engines_of(cache_home) == [kept] and kept.parent.parent.name == "tensorrt"
    del first
    gc.collect()
    assert engines_of(cache_home) == [kept]


def test_what_was_measured_or_built_is_of_one_gpu_and_tensorrt(
    tiny_graph: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of TensorRT or another GPU measures and builds anew; the same does not."""
    monkeypatch.setattr(graph_backends, "OnnxRuntimeGraph", Engines)
    folder, description = cache_folder("onnx"), read_description(tiny_graph)
    runtime = GraphRuntime("tensorrt", "cuda", "float32", 1)
    seen = []
    for trt, gpu in (("100300", "NVIDIA-H200"), ("100400", "NVIDIA-H200"), ("100400", "Orin")):
        monkeypatch.setattr(graph_backends, "tensorrt_version", lambda trt=trt: trt)
        monkeypatch.setattr(graph_backends, "gpu_name", lambda _, gpu=gpu: gpu)
        assert not runtime.has_opened(tiny_graph, "float32", folder)
        runtime.open(tiny_graph, description, folder)
        assert runtime.has_opened(tiny_graph, "float32", folder)
        assert not runtime.has_opened(tiny_graph, "float16", folder)
        assert not runtime.has_opened(tiny_graph.with_name("absent.onnx"), "float32", folder)
        seen.append(f"tensorrt-{trt}-{gpu}")
        assert len(engines_of(cache_home)) == len(verdicts(cache_home)) == len(seen)
    for name in seen:
        assert any(name in path.name for path in verdicts(cache_home))
        assert any(name in path.parent.name for path in engines_of(cache_home))
    monkeypatch.setattr(graph_backends, "gpu_name", lambda index: f"GPU{index}")
    assert GraphRuntime("onnxruntime", "cuda:1", "float32", 1).name.endswith("-cuda-GPU1")
    engines_of(cache_home)[0].unlink()
    monkeypatch.setattr(graph_backends, "gpu_name", lambda _: "NVIDIA-H200")
    monkeypatch.setattr(graph_backends, "tensorrt_version", lambda: "100300")
    assert not runtime.has_opened(tiny_graph, "float32", folder)


def test_a_version_that_is_off_is_refused_before_it_is_tried(
    tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New weights whose graph the backend computes wrongly never step; the reason says so."""
    tiny, weights = untrained("tiny"), tmp_path / "w.safetensors"
    digest = save_checkpoint(weights, tiny.network, tiny.meaning)
    wrong = altered(tiny_graph, tmp_path / "wrong.onnx")

    def export(of: str, *_: object, **__: object) -> object:
        path = wrong if of == str(weights) else tiny_graph
        return path, read_description(path)

    monkeypatch.setattr(exported_estimator, "exported_graph", export)
    runtime = GraphRuntime("onnxruntime", "cpu", "float32", 1)
    in_use = ExportedEstimator(
        "tiny", tiny, runtime.open, precision="float32", folder=cache_folder("onnx")
    )
    in_use.estimate(noise_image())
    refused = load_announced(Announcement(1, weights, digest, weights.stat().st_size), in_use)
    assert isinstance(refused, Unusable) and refused.code == "backend"
    assert "is off PyTorch by" in refused.reason


def test_each_graph_has_engines_of_its_own(tiny_graph: Path, tmp_path: Path, monkeypatch) -> None:
    """Another file is another folder, wherever it lies; the same file finds its engines again."""
    monkeypatch.setattr(graph_backends, "OnnxRuntimeGraph", Engines)
    monkeypatch.setattr(graph_backends, "require_parity", lambda *_, **__: None)
    runtime = GraphRuntime("tensorrt", "cuda", "float32", 1)
    other = altered(tiny_graph, tmp_path / "other.onnx")
    for path in (tiny_graph, other, tiny_graph):
        runtime.open(path, read_description(path), None)
    found = engines_of(cache_folder("onnx"))
    assert len(found) == len({path.parent for path in found}) == 2
