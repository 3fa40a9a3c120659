"""What an export writes: a plain graph that says what it is, and nothing where it is off."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dae_ros.cli.main import main
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.untrained import untrained
from dae_ros.runtime import onnx_export
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import read_description
from dae_ros.runtime.onnx_export import export_onnx
from dae_ros.runtime.onnx_parity import measure_deviation, moving_edges
from dae_ros.runtime.onnxruntime_graph import OnnxRuntimeGraph
from dae_ros.runtime.torch_estimator import TorchEstimator
from test.reference.graph_estimators import estimator_of, noise
from test.reference.leaky_estimator import LeakyEstimator

# Not importorskip: whoever imports onnxruntime first decides about its telemetry.
if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("the extra `onnx` is not installed", allow_module_level=True)


def test_a_file_says_what_its_weights_say(tiny_graph: Path) -> None:
    """Name, digest, notes and meaning of the checkpoint reach the estimator through the file."""
    loaded, graph = untrained("tiny"), estimator_of(tiny_graph)
    reference = TorchEstimator(loaded)
    for attribute in ("name", "digest", "notes", "meaning", "input_channels", "weight_version"):
        assert getattr(graph, attribute) == getattr(reference, attribute)
    said = read_description(tiny_graph)
    assert (said.height, said.width, said.precision, said.opset) == (60, 80, "float32", 18)
    assert 0.0 < said.deviation < 1e-4
    assert [list(s) for s in said.states] == [
        list(tensor.shape) for tensor in loaded.network.initial_state(1, 70, 98)
    ]


def test_the_graph_is_plain(tiny_graph: Path) -> None:
    """Normalisations are single operators, names are ours, and no source file is named in it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tiny_graph)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    # Two per block, and one for each of the four taps, of which two share their input.
    assert kinds.count("LayerNormalization") >= 5
    assert "ReduceMean" not in kinds and "Cast" not in kinds
    assert [item.domain for item in model.opset_import] == [""]
    states = range(8)
    assert [i.name for i in model.graph.input] == ["image", *(f"state_{k}_in" for k in states)]
    assert [o.name for o in model.graph.output] == [
        "prediction", *(f"state_{k}_out" for k in states), "check",
    ]  # fmt: skip
    content = tiny_graph.read_bytes()
    assert b".py" not in content and b"stack_trace" not in content


def test_gates_queries_keys_and_values_are_no_pieces_of_one_output(tiny_graph: Path) -> None:
    """Nothing is cut apart, and heads are one axis of four: no runtime fuses what is otherwise."""
    nodes = importlib.import_module("onnx").load(tiny_graph).graph.node
    kinds = {node.op_type for node in nodes}
    assert {"Softmax", "Tanh", "Conv"} <= kinds
    assert kinds.isdisjoint({"Split", "SplitToSequence"})
    axes = [len(node.attribute[0].ints) for node in nodes if node.op_type == "Transpose"]
    assert max(axes) == 4


def test_half_precision_files(tmp_path: Path, tiny_graph: Path) -> None:
    """float16 halves the weights, stays within a hundredth, and keeps float32 at its borders."""
    loaded, path = untrained("tiny"), tmp_path / "half.onnx"
    deviation = export_onnx(loaded, path, 60, 80, precision="float16")
    assert 1e-5 < deviation.root_mean_square < 1e-2
    assert path.stat().st_size < 0.75 * tiny_graph.stat().st_size
    graph = estimator_of(path, precision="float16")
    assert all(state.dtype == np.float32 for state in graph.state_arrays())
    images = noise(8, 3, 60, 80)
    assert measure_deviation(TorchEstimator(loaded), graph, images).root_mean_square < 1e-2
    with pytest.raises(ConfigurationError, match="exported in float16"):
        estimator_of(path, precision="float32")


def test_what_is_off_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph beyond the tolerance is refused with the numbers, and the former file stays."""
    path = tmp_path / "x.onnx"
    path.write_bytes(b"former")
    prepare = onnx_export.Fitting.prepare
    broken = [False]

    def shifted(self: onnx_export.Fitting, images: torch.Tensor) -> torch.Tensor:
        return prepare(self, images) + (0.01 if broken[0] else 0.0)

    trace: Callable[..., bytes] = onnx_export._traced

    def traced(*arguments: object) -> bytes:
        broken[0] = True
        try:
            return trace(*arguments)
        finally:
            broken[0] = False

    monkeypatch.setattr(onnx_export.Fitting, "prepare", shifted)
    monkeypatch.setattr(onnx_export, "_traced", traced)
    with pytest.raises(WeightsError, match="is not written: over 10 steps") as caught:
        export_onnx(untrained("tiny"), path, 60, 80)
    assert float(str(caught.value.data["root_mean_square"])) > 1e-4
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_the_deviation_sees_other_weights_and_lost_states(tiny_graph: Path) -> None:
    """Other weights, and a state that is not carried, are far beyond the tolerance."""
    images = moving_edges("tencode", 3, 60, 80)
    graph = estimator_of(tiny_graph)
    same = measure_deviation(TorchEstimator(untrained("tiny")), graph, images)
    assert same.root_mean_square < 1e-4 and same.largest >= same.root_mean_square
    other = measure_deviation(TorchEstimator(untrained("tiny", seed=1)), graph, images)
    assert other.root_mean_square > 0.1

    class Forgetful(GraphEstimator):
        def estimate(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
            self.reset()
            return super().estimate(image)

    said = read_description(tiny_graph)
    forgetful = Forgetful(OnnxRuntimeGraph(tiny_graph, said), said)
    lost = measure_deviation(TorchEstimator(untrained("tiny")), forgetful, images)
    assert lost.root_mean_square > 1e-2


def test_a_candidate_that_is_no_number_deviates_by_none() -> None:
    """NaN is not taken for 0, so that whoever compares with a limit refuses it."""

    class Broken(LeakyEstimator):
        def estimate(self, image: np.ndarray) -> np.ndarray:
            return np.full(image.shape[-2:], np.nan, np.float32)

    found = measure_deviation(LeakyEstimator(), Broken(), moving_edges("tencode", 3, 48, 64))
    assert math.isnan(found.root_mean_square) and math.isnan(found.largest)


def test_edges_look_like_events() -> None:
    """The images are those of the encoder that is named, change over time, and are sparse."""
    images = moving_edges("tencode", 3, 60, 80)
    assert len(images) >= 8
    for image in images:
        touched = image[0] + image[2]
        assert set(np.unique(touched)) == {0.0, 1.0}
        assert 0.05 < touched.mean() < 0.5
    assert not np.array_equal(images[0], images[1])
    np.testing.assert_array_equal(moving_edges("tencode", 3, 60, 80)[3], images[3])
    grid = moving_edges("voxel_grid", 5, 60, 80, steps=1)[0]
    assert grid.shape == (5, 60, 80) and grid.min() < 0 < grid.max()


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    """Constant outputs and bad options are told."""
    path = tmp_path / "x.onnx"
    with pytest.raises(ConfigurationError, match="no precision 'int8'"):
        export_onnx(untrained("tiny"), path, 60, 80, precision="int8")
    dead = untrained("tiny")
    with torch.no_grad():
        for parameter in dead.network.parameters():
            parameter.zero_()
    with pytest.raises(WeightsError, match="the same number everywhere"):
        measure_deviation(
            TorchEstimator(dead), TorchEstimator(dead), moving_edges("tencode", 3, 60, 80)
        )
    assert not path.exists()


@pytest.mark.slow
def test_networks_without_onnx_operators_say_so(tmp_path: Path) -> None:
    """Attention over windows, which PyTorch cannot write, names the network and the way out."""
    with pytest.raises(WeightsError, match=r"EReFormer.*cannot be exported.*run it with PyTorch"):
        export_onnx(untrained("tiny_ereformer"), tmp_path / "x.onnx", 60, 80)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_refuses_before_it_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sizes, names, folders and opsets that cannot be are wrong usage; nothing is written."""
    good = {"--height": "60", "--width": "80", "--out": str(tmp_path / "x.onnx")}
    for option, value, said in (
        ("--height", "0", "1 to 16384"),
        ("--out", str(tmp_path / "x.pt"), "end in .onnx"),
        ("--opset", "12", "18 or more"),
        ("--out", str(tmp_path / "no" / "x.onnx"), "no folder"),
    ):
        options = [word for pair in {**good, option: value}.items() for word in pair]
        assert main(["export", "untrained:tiny", *options]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
