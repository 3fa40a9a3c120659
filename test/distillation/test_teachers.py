"""Teachers: networks and ONNX files that label frames, what a label is worth, and refusals."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.objectives import TeacherObjective
from dae_ros.distillation.preparation import Prepared
from dae_ros.distillation.teacher import load_teacher
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.untrained import untrained
from test.reference.wedge_teacher import (
    CPU,
    METRIC_GREY,
    RELATIVE_GREY,
    Settings,
    distillation,
    seen_depth,
    teacher,
)

INDOOR = DepthRange(0.3, 15.0)


def test_confidence_weighs_pixels(batch: Prepared) -> None:
    """A teacher that contradicts itself on the mirrored frame counts less there."""

    def moody(frames: Tensor) -> Tensor:
        depth = seen_depth(frames)
        depth[:, :, :20] *= 2  # always the left of what it is shown
        return depth

    frames = batch.frames.flatten(0, 1)
    sure = teacher().label(frames, consistency=True)
    unsure = teacher(moody).label(frames, consistency=True)
    plain = teacher(moody).label(frames, consistency=False)
    assert sure.weight[sure.mask].min() > 0.99
    assert torch.equal(plain.weight, plain.mask.float())
    assert unsure.weight.sum() < 0.9 * plain.weight.sum()


def test_teachers_must_say_what_they_mean(settings: Settings) -> None:
    """Unknown orientation, events instead of frames, and metres of nobody are refused."""
    with pytest.raises(ConfigurationError, match="upside down"):
        teacher(meaning=Meaning(event_encoder="rgb"))
    with pytest.raises(ConfigurationError, match="not camera frames"):
        teacher(meaning=Meaning(event_encoder="tencode", orientation="depth"))
    with pytest.raises(ConfigurationError, match="up to scale and shift"):
        TeacherObjective(
            distillation(settings, loss="log_depth"), {"wedge": teacher(meaning=RELATIVE_GREY)}
        )


def test_network_teachers_see_frames(tmp_path: Path) -> None:
    """A checkpoint of this package labels frames at their own size, in one chunk or several."""
    path = tmp_path / "frames.safetensors"
    network = untrained("micro_frames").network
    save_checkpoint(path, network, METRIC_GREY)
    grey = load_teacher(str(path), INDOOR, CPU)
    frames = torch.from_numpy(
        np.random.default_rng(1).integers(0, 256, (18, 60, 80)).astype(np.uint8)
    )
    label = grey.label(frames, consistency=False)
    assert grey.metric and label.metric and label.depth.shape == (18, 60, 80)
    one = grey.label(frames[17:], consistency=False)
    torch.testing.assert_close(label.depth[17:], one.depth, rtol=1e-4, atol=1e-4, equal_nan=True)
    with pytest.raises(ConfigurationError, match="not camera frames"):
        load_teacher("untrained:micro", INDOOR, CPU)


def write_mean_of_channels(folder: Path, shape: list[object], outputs: int = 1, half: bool = False):
    """Write an ONNX file that answers the mean over channels; return the facts of its manifest."""
    onnx = pytest.importorskip("onnx")
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("the extra `onnx` is not installed")
    helper = onnx.helper
    kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    names = [f"y{number}" for number in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], [y], axes=[1], keepdims=1) for y in names],
        "grey",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(y, kind, ["n", 1, "h", "w"]) for y in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "grey.onnx"))
    return {
        "file": "grey.onnx",
        "sha256": hashlib.sha256((folder / "grey.onnx").read_bytes()).hexdigest(),
        "licence": "Apache-2.0", "channels": 3, "mean": [0.0, 0.0, 0.0],
        "deviation": [0.1, 0.1, 0.1], "height": 28, "width": 42, "multiple": 14,
        "fixed_size": False,
        "meaning": {"event_encoder": "rgb", "orientation": "depth", "scale": "metric"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "half"),
    [
        (["n", 3, "h", "w"], False),
        ([1, 3, "h", "w"], False),
        ([2, 3, 28, 42], False),
        (["n", "c", "h", "w"], True),
    ],
)
def test_onnx_teachers_by_manifest(tmp_path: Path, shape: list[object], half: bool) -> None:
    """Any number of frames goes through, whatever number the file takes, float32 or float16."""
    facts = write_mean_of_channels(tmp_path, shape, half=half)
    path = tmp_path / "grey.yaml"
    path.write_text(yaml.safe_dump(facts))
    values = torch.tensor([51, 102, 153], dtype=torch.uint8)
    frames = values[:, None, None].expand(3, 56, 84)
    label = load_teacher(str(path), INDOOR, CPU).label(frames, consistency=False)
    # 51 / 255 / 0.1
    expected = torch.tensor([2.0, 4.0, 6.0])[:, None, None].expand(3, 56, 84)
    torch.testing.assert_close(label.depth, expected, rtol=2e-3 if half else 1e-6, atol=0.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sha256": "0" * 64}, "get the file again"),
        ({"more": 1}, "exactly the keys"),
        ({"file": 3}, "'file' must be a text"),
        ({"channels": "3"}, "'channels' must be 1 or 3"),
        ({"mean": [0.5]}, "'mean' must be a list with a number per channel"),
        ({"deviation": [0.1, 0.0, 0.1]}, "'deviation' must be a list with a number above 0"),
        ({"multiple": 0}, "'multiple' must be a whole number above 0"),
        ({"fixed_size": "no"}, "'fixed_size' must be true or false"),
        ({"meaning": 3}, "'meaning' must be a mapping"),
        ({"meaning": {"orientation": "sideways"}}, "no orientation 'sideways'"),
        ({"channels": 1, "mean": [0.0], "deviation": [1.0]}, "frames of 1 channels"),
    ],
)
def test_bad_manifests_of_onnx_files_are_refused(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    """Each field is checked before a frame is labelled."""
    path = tmp_path / "grey.yaml"
    facts = write_mean_of_channels(tmp_path, ["n", 3, "h", "w"])
    path.write_text(yaml.safe_dump({**facts, **change}))
    with pytest.raises((ConfigurationError, WeightsError), match=sentence):
        load_teacher(str(path), INDOOR, CPU)


def test_onnx_files_with_more_than_depth_are_refused(tmp_path: Path) -> None:
    """Which of two outputs is depth is not guessed."""
    path = tmp_path / "grey.yaml"
    path.write_text(yaml.safe_dump(write_mean_of_channels(tmp_path, ["n", 3, "h", "w"], 2)))
    with pytest.raises(WeightsError, match="outputs y0, y1; export it"):
        load_teacher(str(path), INDOOR, CPU)
