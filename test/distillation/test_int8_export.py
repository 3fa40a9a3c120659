"""int8: calibrated on carried states, judged on held-out truth, written with its report or not."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dae_ros.cli.main import main
from dae_ros.distillation.clip_codes import code_of_tencode, tencode_of_code
from dae_ros.distillation.clip_store import ClipSequence, ClipStore
from dae_ros.distillation.int8_export import Extent, calibration_pairs, export_int8
from dae_ros.errors import ConfigurationError, NonFiniteState, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import graph_backends
from dae_ros.runtime.accuracy_report import AccuracyReport, report_path
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.estimator import DepthEstimator
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import OnnxDescription, read_description
from dae_ros.runtime.onnx_export import export_onnx
from dae_ros.runtime.onnx_parity import measure_deviation, moving_edges
from dae_ros.runtime.onnx_quantisation import CalibrationPairs, load_nncf
from dae_ros.runtime.openvino_graph import OpenVinoGraph, has_bfloat16
from dae_ros.runtime.processor import int8_instructions
from dae_ros.runtime.torch_estimator import TorchEstimator

NEEDED = ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
# Not importorskip: whoever imports onnxruntime or NNCF first decides about their telemetry.
if any(importlib.util.find_spec(name) is None for name in NEEDED):
    pytest.skip("the extra `int8` is not installed", allow_module_level=True)

Array = NDArray[np.float32]
HEIGHT, WIDTH = 60, 80
# What only moves numbers, so that a quantised input may pass through it.
MOVERS = {"Concat", "Reshape", "Transpose", "Split", "Slice", "Relu", "Pad", "Gather"}
EXTENT = Extent(sequences=2, pairs=8, every=2, heldout_windows=4)


def sequence(name: str, windows: int, depth: Array | None, seed: int = 0) -> ClipSequence:
    """Return a sequence whose state begins anew at its fourth window."""
    images = moving_edges("tencode", 3, HEIGHT, WIDTH, steps=windows + seed)[seed:]
    times = np.zeros((windows, 3), np.int64)
    times[3:4, 2] = 1
    return ClipSequence(
        name=name,
        split=name.partition("/")[0],
        windows=np.stack([code_of_tencode(image) for image in images]),
        depth=None if depth is None else depth.astype(np.float16),
        frames=None,
        times=times,
        facts={},
    )


def store(*sequences: ClipSequence, encoder: str = "tencode") -> ClipStore:
    return ClipStore(Path("clips"), encoder, HEIGHT, WIDTH, sequences, "ab" * 32)


def truth(windows: int) -> Array:
    """Return depth that has nothing to do with what an untrained network says."""
    return np.random.default_rng(4).uniform(1, 9, (windows, HEIGHT, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> LoadedModel:
    return dataclasses.replace(
        untrained("tiny"), meaning=Meaning(event_encoder="tencode", orientation="depth")
    )


@pytest.fixture(scope="module")
def clips() -> ClipStore:
    return store(
        sequence("train/0", 7, None),
        sequence("train/1", 5, None, seed=2),
        sequence("heldout/0", 5, truth(5), seed=4),
        sequence("heldout/1", 2, None),
    )


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, network: LoadedModel, clips: ClipStore
) -> tuple[Path, AccuracyReport]:
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    return path, export_int8(network, path, HEIGHT, WIDTH, clips, extent=EXTENT)


def test_an_int8_file_runs_with_its_report(
    exported: tuple[Path, AccuracyReport], network: LoadedModel
) -> None:
    """The file says int8 and its scores, holds int8 operators, and OpenVINO steps near PyTorch."""
    path, report = exported
    said = read_description(path)
    assert (said.precision, said.accuracy, said.digest) == ("int8", report, network.digest)
    assert AccuracyReport.from_json(report_path(path).read_text(encoding="utf-8")) == report
    assert sorted(file.name for file in path.parent.iterdir()) == [
        path.name,
        f"{path.name}.accuracy.json",
    ]
    assert (report.calibration_pairs, report.windows) == (7, 4)
    assert list(report.sequence_scores) == ["heldout/0"]
    assert report.scores == report.sequence_scores["heldout/0"]
    assert set(report.scores) == {"aligned_abs_rel", "aligned_delta_1"}
    pair = report.scores["aligned_abs_rel"]
    assert pair.float32 != pair.int8 and abs(report.loss_percent) < 2.0

    onnx = importlib.import_module("onnx")
    model = onnx.load(path)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    fed = {
        node.op_type
        for node in model.graph.node
        if "DequantizeLinear" in [makers.get(name) for name in node.input]
    }
    assert {"Conv", "MatMul"} <= fed <= {"Conv", "ConvTranspose", "MatMul", "Gemm"} | MOVERS
    # A product of two activations (attention) is left float: neither side comes from int8.
    weights = {tensor.name for tensor in model.graph.initializer}
    quantised = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul"
        and any(makers.get(name) == "DequantizeLinear" for name in node.input)
    ]
    stored = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    assert all(not stored.isdisjoint(node.input) for node in quantised)
    assert sum(node.op_type == "MatMul" for node in model.graph.node) > len(quantised) > 0

    estimator = create_estimator(DepthParameters(weights=str(path), device="cpu", threads=1))
    assert isinstance(estimator, GraphEstimator)
    images = moving_edges("tencode", 3, HEIGHT, WIDTH)
    deviation = measure_deviation(TorchEstimator(network), estimator, images)
    assert deviation.root_mean_square == pytest.approx(said.deviation, rel=0.2)
    # Without AMX, OpenVINO's int8 convolutions differ from what the graph says, ONNX Runtime's not.
    assert report.instructions == int8_instructions()
    most = 0.3 if report.instructions == "amx_int8" else 1.5
    assert 1e-3 < deviation.root_mean_square < most
    bad = images[0].copy()
    bad[0, 5, 5] = np.nan
    with pytest.raises(NonFiniteState):
        estimator.estimate(bad)


def test_what_is_not_int8_is_bfloat16_where_the_processor_has_it(
    exported: tuple[Path, AccuracyReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says in what the rest was judged, and the rest runs in that, or in float32."""
    path, report = exported
    assert report.remainder == ("bfloat16" if has_bfloat16() else "float32")
    said, images = read_description(path), moving_edges("tencode", 3, HEIGHT, WIDTH, steps=2)

    def outputs(estimator: DepthEstimator) -> list[Array]:
        return [estimator.estimate(image) for image in images]

    parameters = DepthParameters(weights=str(path), precision="int8", device="cpu", threads=1)
    for bfloat16, remainder in ((has_bfloat16(), report.remainder), (False, "float32")):
        monkeypatch.setattr(graph_backends, "has_bfloat16", lambda bfloat16=bfloat16: bfloat16)
        graph = OpenVinoGraph(path, said, precision=remainder)
        expected = outputs(GraphEstimator(graph, said))
        np.testing.assert_array_equal(outputs(create_estimator(parameters)), expected)


def test_bfloat16_that_loses_too_much_gives_way_to_float32(
    tmp_path: Path, network: LoadedModel, clips: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where int8 is good enough only with the rest in float32, that is what the file says."""
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    accepted = property(lambda report: report.remainder == "float32")
    monkeypatch.setattr(AccuracyReport, "acceptable", accepted)
    path = tmp_path / "x.onnx"
    report = export_int8(network, path, HEIGHT, WIDTH, clips, extent=EXTENT)
    assert report.remainder == "float32"
    assert read_description(path).accuracy == report


def test_what_loses_too_much_is_not_written(
    tmp_path: Path, network: LoadedModel, clips: ClipStore
) -> None:
    """Where float32 is exactly right int8 loses a lot: refused with the numbers."""
    heldout = clips.split("heldout")[0]
    reference = TorchEstimator(network)
    maps = []
    for index, image in enumerate(moving_edges("tencode", 3, HEIGHT, WIDTH, steps=9)[4:]):
        if index == 3:
            reference.reset()
        maps.append(reference.estimate(image))
    depth = np.stack(maps)
    right = dataclasses.replace(heldout, depth=(1 + depth - depth.min()).astype(np.float16))
    path = tmp_path / "x.onnx"
    path.write_bytes(b"former")
    with pytest.raises(
        WeightsError, match=r"not written: on 4 held-out windows.*allowed is 2 %"
    ) as caught:
        export_int8(
            network, path, HEIGHT, WIDTH, store(*clips.split("train"), right), extent=EXTENT
        )
    assert float(str(caught.value.data["loss_percent"])) > 2.0
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def adder(tmp_path: Path) -> GraphEstimator:
    """Return a graph whose state is the sum of all images so far."""
    onnx = importlib.import_module("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["image", "state_0_in"], ["state_0_out"]),
            helper.make_node("ReduceSum", ["state_0_out"], ["check"], keepdims=0),
            helper.make_node("ReduceSum", ["state_0_out", "axes"], ["prediction"], keepdims=0),
        ],
        "adder",
        [helper.make_tensor_value_info(n, floats, [1, 1, 1, 2]) for n in ("image", "state_0_in")],
        [
            helper.make_tensor_value_info("prediction", floats, [1, 2]),
            helper.make_tensor_value_info("state_0_out", floats, [1, 1, 1, 2]),
            helper.make_tensor_value_info("check", floats, []),
        ],
        [onnx.numpy_helper.from_array(np.array([0, 1]), "axes")],
    )
    path = tmp_path / "adder.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path
    )
    said = OnnxDescription(
        name="adder", digest="", notes=(), meaning=Meaning(), config={}, height=1, width=2,
        channels=1, states=((1, 1, 1, 2),), precision="float32", opset=18, deviation=0.0,
        version="",
    )  # fmt: skip
    return GraphEstimator(OpenVinoGraph(path, said), said)


def test_calibration_carries_the_state(adder: GraphEstimator) -> None:
    """Every second window comes with the sum of all before it; each sequence begins with zeros."""
    images = [np.array([[[1, 10 * k]]], np.float32) for k in range(5)]
    pairs = CalibrationPairs(adder, lambda: [images, images[3:]], every=2)
    for _ in range(2):  # NNCF iterates more than once
        found = [
            (pair["image"].ravel().tolist(), pair["state_0_in"].ravel().tolist()) for pair in pairs
        ]
        assert found == [
            ([1, 0], [0, 0]),
            ([1, 20], [2, 10]),
            ([1, 40], [4, 60]),
            ([1, 30], [0, 0]),
        ]
        assert all(pair["image"].shape == (1, 1, 1, 2) for pair in pairs)


def test_calibration_takes_training_clips_and_their_restarts(
    tmp_path: Path, network: LoadedModel, clips: ClipStore
) -> None:
    """Windows and states are those of a loop with PyTorch that restarts where the clips do."""
    path = tmp_path / "float32.onnx"
    export_onnx(network, path, HEIGHT, WIDTH)
    said = read_description(path)
    pairs, count = calibration_pairs(GraphEstimator(OpenVinoGraph(path, said), said), clips, EXTENT)
    expected = []
    reference = TorchEstimator(network)
    for codes, wanted in (
        (clips.sequences[0].windows, (0, 2, 3, 5)),
        (clips.sequences[1].windows, (0, 2, 3)),
    ):
        for index, code in enumerate(codes):
            if index in (0, 3):
                reference.reset()
            image = tencode_of_code(torch.from_numpy(code)).numpy()
            if index in wanted:
                expected.append((image, reference.state_arrays()))
            reference.estimate(image)
    found = list(pairs)
    assert count == len(found) == len(expected) == 7
    for pair, (image, states) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(pair["image"], image[None])
        for k, shape in enumerate(said.states):
            ours = pair[f"state_{k}_in"]
            theirs = states[k] if states else np.zeros(shape, np.float32)
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_clips_that_do_not_suit_are_refused(
    tmp_path: Path, network: LoadedModel, clips: ClipStore
) -> None:
    """Another size, another encoder, no truth, nothing to calibrate on, and no depth say so."""
    train, heldout = clips.split("train"), clips.split("heldout")
    inverse = Meaning(event_encoder="tencode", orientation="inverse_depth")
    cases = {
        "sensor of 60x80 px .* export is for 60x81": (network, clips, 81),
        "hold voxel_grid, and": (
            network,
            dataclasses.replace(clips, event_encoder="voxel_grid"),
            WIDTH,
        ),
        "no held-out sequence with true depth": (network, store(*train, heldout[1]), WIDTH),
        "no sequence to calibrate on": (network, store(*heldout), WIDTH),
        "is inverse_depth": (dataclasses.replace(network, meaning=inverse), clips, WIDTH),
    }
    for sentence, (loaded, given, width) in cases.items():
        with pytest.raises(ConfigurationError, match=sentence):
            export_int8(loaded, tmp_path / "x.onnx", HEIGHT, width, given, extent=EXTENT)
    assert list(tmp_path.iterdir()) == []


def test_nncf_reports_nothing() -> None:
    """NNCF finds no package to report with; others find theirs as before."""
    before = sys.modules.get("openvino_telemetry")
    load_nncf()
    wrapper = importlib.import_module("nncf.telemetry.wrapper")
    assert not hasattr(wrapper, "Telemetry")
    assert sys.modules.get("openvino_telemetry") is before


def test_int8_wants_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    """int8 without clips, and clips without int8, are wrong usage."""
    command = ["export", "untrained:tiny", "--out", "x.onnx", "--height", "60", "--width", "80"]
    for others in (["--precision", "int8"], ["--calibration", "clips"]):
        assert main([*command, *others]) == 2
        assert "go together" in capsys.readouterr().err
