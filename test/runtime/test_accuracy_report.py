"""The report that int8 needs: what is worse by how much, and which files are refused."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.accuracy_report import (
    AccuracyReport,
    ScorePair,
    report_path,
    require_accuracy,
)
from dae_ros.runtime.arithmetic import chosen_precision
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.onnx_description import (
    OnnxDescription,
    graph_digest,
    metadata_bytes,
    read_description,
)
from dae_ros.runtime.processor import int8_instructions

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
# ModelProto with ir_version 8 (a number) and a graph (field 7) of 5 bytes.
GRAPH = b"graph"
MODEL = b"\x08\x08" + b"\x3a\x05" + GRAPH
# Metric Abs Rel is worse by 0.0015 / 0.1 = 1.5 %, delta_1 by 0.04 / 0.8 = 5 %.
REPORT = AccuracyReport(
    float32_graph_sha256="cd" * 32,
    int8_graph_sha256=graph_digest(MODEL),
    clips_digest="ef" * 32,
    calibration_pairs=300,
    instructions=int8_instructions(),
    openvino=version("openvino") if HAS_OPENVINO else "",
    remainder="bfloat16",
    windows=960,
    scores={
        "aligned_abs_rel": ScorePair(0.2, 0.2),
        "aligned_delta_1": ScorePair(0.8, 0.76),
        "metric_abs_rel": ScorePair(0.1, 0.1015),
    },
    sequence_scores={"heldout/0000_room_1": {"aligned_abs_rel": ScorePair(0.3, 0.4)}},
)
DESCRIPTION = OnnxDescription(
    name="mine",
    digest="ab" * 32,
    notes=(),
    meaning=Meaning(orientation="depth"),
    config={},
    height=60,
    width=80,
    channels=3,
    states=(),
    precision="int8",
    opset=18,
    deviation=0.01,
    version="0.1.0",
    accuracy=REPORT,
)


def written(folder: Path, description: OnnxDescription = DESCRIPTION) -> Path:
    path = folder / "x.onnx"
    path.write_bytes(MODEL + metadata_bytes(GRAPH, description))
    return path


def losing(percent: float) -> AccuracyReport:
    return replace(REPORT, scores={"aligned_abs_rel": ScorePair(0.2, 0.2 * (1 + percent / 100))})


def test_losses_by_hand() -> None:
    """Abs Rel is worse where it grows, delta_1 where it falls; the limit is on Abs Rel alone."""
    losses = {name: pair.loss_percent(name) for name, pair in REPORT.scores.items()}
    assert losses == pytest.approx(
        {"aligned_abs_rel": 0.0, "aligned_delta_1": 5.0, "metric_abs_rel": 1.5}
    )
    assert REPORT.loss_percent == pytest.approx(1.5)
    assert require_accuracy(REPORT, Path("x")) is REPORT
    assert losing(-3).loss_percent == pytest.approx(-3) and losing(-3).acceptable
    assert "metric abs rel 0.1000 -> 0.1015 (loss 1.50 %)" in REPORT.sentence()


@pytest.mark.parametrize(
    "scores",
    [
        {"aligned_abs_rel": ScorePair(0.2, 0.2042)},
        {"aligned_abs_rel": ScorePair(0.2, 0.2), "metric_abs_rel": ScorePair(0.2, math.nan)},
        {"aligned_abs_rel": ScorePair(0.0, 0.0)},
        {"aligned_delta_1": ScorePair(0.2, 0.2)},
        {},
    ],
    ids=str,
)
def test_more_loss_than_the_limit_and_no_numbers_are_refused(
    scores: dict[str, ScorePair],
) -> None:
    """2.1 %, NaN in either limited score, and a report without them are refused."""
    with pytest.raises(WeightsError, match=r"allowed is 2 %.*float32"):
        require_accuracy(replace(REPORT, scores=scores), Path("x"))


def test_a_file_keeps_its_report(tmp_path: Path) -> None:
    """The report comes back from the meta-data as it was, and as JSON with the losses in it."""
    assert read_description(written(tmp_path)) == DESCRIPTION
    assert AccuracyReport.from_json(REPORT.to_json()) == REPORT
    read = json.loads(REPORT.to_json())
    assert read["scores"]["aligned_delta_1"]["loss_percent"] == pytest.approx(5.0)
    assert read["limit_percent"] == 2.0
    assert report_path(tmp_path / "x.onnx") == tmp_path / "x.onnx.accuracy.json"
    plain = replace(DESCRIPTION, precision="float32", accuracy=None)
    assert read_description(written(tmp_path, plain)) == plain


def test_tampered_reports_and_those_of_another_graph_are_refused(tmp_path: Path) -> None:
    """A nicer number, and a report that was made for another graph, do not pass."""
    path = written(tmp_path, replace(DESCRIPTION, accuracy=losing(7)))
    content = path.read_bytes()
    assert content.count(b"0.214") == 1
    path.write_bytes(content.replace(b"0.214", b"0.200"))
    with pytest.raises(WeightsError, match=r"report is not the one that was written.*export"):
        read_description(path)
    other = replace(REPORT, int8_graph_sha256="00" * 32)
    with pytest.raises(WeightsError, match=r"report is of another graph.*export"):
        read_description(written(tmp_path, replace(DESCRIPTION, accuracy=other)))


@pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed")
def test_the_backend_refuses_int8_that_is_not_known_to_be_right(tmp_path: Path) -> None:
    """No report, too much loss, arithmetic that was not measured: each says the next step."""

    def refused(description: OnnxDescription, precision: str = "auto") -> str:
        parameters = DepthParameters(
            weights=str(written(tmp_path, description)),
            backend="openvino",
            precision=precision,
            device="cpu",
            threads=1,
        )
        with pytest.raises((WeightsError, ConfigurationError)) as caught:
            create_estimator(parameters)
        return caught.value.message

    assert "--calibration" in refused(replace(DESCRIPTION, accuracy=None))
    lossy = refused(replace(DESCRIPTION, accuracy=losing(7)), "int8")
    assert "loses 7.00 % on 960 held-out windows" in lossy and "0.2000 -> 0.2140" in lossy
    assert "not measured with precision bfloat16" in refused(DESCRIPTION, "bfloat16")
    elsewhere = replace(DESCRIPTION, accuracy=replace(REPORT, instructions="amx_int9"))
    assert f"measured with amx_int9; this processor has {int8_instructions()}" in (
        refused(elsewhere)
    )
    older = replace(DESCRIPTION, accuracy=replace(REPORT, openvino="2020.1"))
    assert f"measured with OpenVINO 2020.1; here is {version('openvino')}" in refused(older)
    plain = replace(DESCRIPTION, precision="float32", accuracy=None)
    assert "exported in float32, not in int8" in refused(plain, "int8")
    # What passes all of that is given to OpenVINO, which finds that these bytes are no graph.
    assert "OpenVINO does not take" in refused(DESCRIPTION)


def test_int8_is_for_exported_files_on_openvino(tmp_path: Path) -> None:
    """Checkpoints and other backends are refused with what to do."""
    with pytest.raises(ConfigurationError, match=r"dae-ros export WEIGHTS --precision int8"):
        DepthParameters.from_mapping({"precision": "int8"})
    DepthParameters.from_mapping({"precision": "int8", "weights": "x.onnx"})
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(ConfigurationError, match=r"dae-ros export WEIGHTS --precision int8"):
            chosen_precision("int8", backend, "cpu")
    if importlib.util.find_spec("onnxruntime") is not None:
        parameters = DepthParameters(
            weights=str(written(tmp_path)), backend="onnxruntime", device="cpu"
        )
        with pytest.raises(ConfigurationError, match="backend openvino"):
            create_estimator(parameters)
