"""Teachers and objectives: what a label becomes, which labels are refused, what is minimised."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from dae_ros.cli.main import main
from dae_ros.distillation.batches import ClipSampler
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import (
    DistillationParameters,
    TrainingParameters,
    load_settings,
    presets,
    to_yaml,
)
from dae_ros.distillation.labels import INDOOR, DepthRange
from dae_ros.distillation.objectives import TeacherObjective, TrueDepthObjective
from dae_ros.distillation.parallel import Workers
from dae_ros.distillation.preparation import Preparation, Prepared
from dae_ros.distillation.runs import train
from dae_ros.distillation.teacher import FrameTeacher, load_teacher
from dae_ros.distillation.trainer import Trainer
from dae_ros.distillation.validation import Validation
from dae_ros.errors import ConfigurationError, DistillationError, WeightsError
from dae_ros.installation import share_folder
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.configuration import Meaning, same_input, variant
from dae_ros.model.manifest import read_manifest
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_fitting import Fitting
from test.reference.moving_wedge import WedgeSource, depth_of_grey, wedge_clips

Settings = Callable[..., TrainingParameters]
CPU = torch.device("cpu")
METRIC_GREY = Meaning(event_encoder="grey", orientation="depth", scale="metric")
RELATIVE_GREY = Meaning(event_encoder="grey", orientation="depth", scale="relative")


def seen_depth(frames: Tensor) -> Tensor:
    """A perfect frame network for wedges: metres."""
    return torch.from_numpy(depth_of_grey(frames.numpy().astype(np.float32)))


def seen_nearness(frames: Tensor) -> Tensor:
    return 1 / seen_depth(frames)


def teacher(
    backend: Callable[[Tensor], Tensor] = seen_depth, meaning: Meaning = METRIC_GREY
) -> FrameTeacher:
    return FrameTeacher("wedge", "0" * 64, backend, meaning, DepthRange(0.3, 15.0))


def distillation(settings: Settings, **changes: Any) -> DistillationParameters:
    known = settings()
    values = {name: getattr(known, name) for name in known.__dataclass_fields__}
    defaults = {
        "loss": "published", "teachers": "wedge", "trim": 0.0,
        "normalisation": "hybrid", "normalised_weight": 0.0,
    }  # fmt: skip
    return DistillationParameters.from_mapping({**values, **defaults, **changes})


@pytest.fixture(scope="module")
def batch(clips: str, settings: Settings, small_micro: str) -> Prepared:
    """Two clips of two windows, whole and mirrored."""
    fitting = Fitting(load_weights(small_micro).config, 14, CPU)
    sampler = ClipSampler((open_clip_store(clips),), settings(flip=1.0))
    return Preparation(fitting, "tencode")(sampler.batch(0), CPU)


def test_true_depth_by_hand() -> None:
    """log_depth is the mean |ln p / d| of an image plus the gradient term, near labels only."""
    some = TrainingParameters.from_mapping({"clips": "x", "alpha": 0.5, "maximum_depth_m": 10.0})
    depth = torch.tensor([[[2.0, 4.0], [torch.nan, 20.0]]])
    prediction = torch.tensor([[[4.0, 4.0], [9.0, 9.0]]])
    empty = torch.full((1, 2, 2), torch.nan)
    batch = Prepared(
        torch.empty(0), torch.stack((depth, empty), dim=1), torch.empty(0), torch.empty(0), None
    )
    value = TrueDepthObjective(some)(torch.stack((prediction, prediction), dim=1), batch, 0)
    # Image one: ln 2 and 0, the slope between them over 2 px at stride 1; image two: nothing.
    data, slope = np.log(2) / 2, np.log(2) / 2
    assert value.parts["data"].item() == pytest.approx(data / 2, rel=1e-5)
    # At strides 2, 4 and 8 a single pixel is left, without a neighbour.
    assert value.parts["gradient"].item() == pytest.approx(slope / 2, rel=1e-5)
    assert value.total.item() == pytest.approx((data + 0.5 * slope) / 2, rel=1e-5)
    pooled = TrainingParameters.from_mapping({"clips": "x", "alpha": 0.0, "reduction": "batch"})
    value = TrueDepthObjective(pooled)(torch.stack((prediction, prediction), dim=1), batch, 0)
    # The three labels of the batch, the far one included: 80 m is allowed here.
    expected = (np.log(2) + abs(np.log(9 / 20))) / 3
    assert value.total.item() == pytest.approx(expected, rel=1e-5)


def test_true_depth_also_by_its_shape(batch: Prepared, settings: Settings) -> None:
    """The normalised term ignores scale and shift, and its weight is what it adds."""
    plain = TrueDepthObjective(settings())
    shaped = TrueDepthObjective(settings(normalised_weight=0.5))
    moved = 2 * batch.depth + 1
    value = shaped(moved, batch, 0)
    assert value.parts["normalised"].item() == pytest.approx(0, abs=1e-5)
    assert value.total.item() == pytest.approx(plain(moved, batch, 0).total.item(), abs=1e-5)
    # Pressed together in the distance.
    value = shaped(batch.depth.sqrt(), batch, 0)
    extra = value.total.item() - plain(batch.depth.sqrt(), batch, 0).total.item()
    assert extra == pytest.approx(0.5 * value.parts["normalised"].item(), rel=1e-4)
    assert extra > 0.005


def test_a_perfect_teacher_gives_the_depth_loss(batch: Prepared, settings: Settings) -> None:
    """Labels of a teacher that sees metres are true depth, at the student's pixels."""
    prediction = torch.rand(batch.depth.shape, generator=torch.Generator().manual_seed(1)) + 2
    some = distillation(settings, loss="log_depth", far_m=80.0)
    taught = TeacherObjective(some, {"wedge": teacher()})(prediction, batch, 0)
    true = TrueDepthObjective(settings())(prediction, batch, 0)
    assert taught.total.item() == pytest.approx(true.total.item(), rel=1e-3)
    missing = Prepared(
        batch.images, batch.depth, batch.frames, torch.zeros_like(batch.has_frame), None
    )
    assert TeacherObjective(some, {"wedge": teacher()})(prediction, missing, 0).total == 0


def test_labels_upside_down_are_refused(batch: Prepared, settings: Settings) -> None:
    """For a student that knows depth, a teacher whose nearness is called depth teaches nothing."""
    some = distillation(settings, refuse_after=10)
    wrong = TeacherObjective(some, {"wedge": teacher(seen_nearness, RELATIVE_GREY)})
    right = TeacherObjective(some, {"wedge": teacher()})
    prediction = batch.depth.clone().requires_grad_()
    early, late = wrong(prediction, batch, 9), wrong(prediction, batch, 10)
    assert not early.verdicts and early.total > 0
    # Used all the same, but noticed.
    assert (early.fits, early.below) == (4, 4)
    upright = right(prediction, batch, 9)
    assert (upright.fits, upright.below) == (4, 0)
    assert late.verdicts == {"negative_scale": 4}
    late.total.backward()
    assert late.total == 0 and (prediction.grad == 0).all()
    assert right(prediction, batch, 10).verdicts == {"accepted": 4}


def test_a_wrong_label_space_ends_the_run(
    overfitted: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained student and inverted labels: the run stops with a sentence, the weights stay."""
    monkeypatch.setattr("dae_ros.distillation.trainer.JUDGED_AT_LEAST", 8)
    loaded = load_weights(str(overfitted / "best.safetensors"))
    before = {key: value.clone() for key, value in loaded.network.state_dict().items()}
    store = (open_clip_store(overfitted.parent / "clips"),)
    some = distillation(settings, refuse_after=0, weight_decay=0.0, burn_in=0, unroll=2, flip=0.0)
    fitting = Fitting(loaded.config, 14, CPU)
    wrong = TeacherObjective(some, {"wedge": teacher(seen_nearness, RELATIVE_GREY)})
    trainer = Trainer(
        some, tmp_path, loaded.network, loaded.meaning,
        sampler=ClipSampler(store, some), preparation=Preparation(fitting, "tencode"),
        compare=wrong,
        validation=Validation(
            store, fitting, "tencode", metric=False, windows=2, maximum_depth_m=80.0
        ),
        workers=Workers(0, 1, CPU), provenance={}, data=[],
    )  # fmt: skip
    with pytest.raises(DistillationError, match="fit the student only upside down"):
        trainer.run(lambda: False, lambda *_: None, print)
    for key, value in loaded.network.state_dict().items():
        assert torch.equal(value, before[key])


def test_terms_are_switched_by_their_weights(batch: Prepared, settings: Settings) -> None:
    """Normalised and local-global terms appear with a weight, and only then."""
    generator = torch.Generator().manual_seed(3)
    prediction = torch.rand(batch.depth.shape, generator=generator) + 2
    for changes, parts in (
        ({}, {"data", "gradient"}),
        ({"normalised_weight": 0.5}, {"data", "gradient", "normalised"}),
        ({"local_global_share": 1.0}, {"data", "gradient", "local_global"}),
        ({"loss": "none", "normalised_weight": 1.0}, {"normalised"}),
    ):
        objective = TeacherObjective(distillation(settings, **changes), {"wedge": teacher()})
        value = objective(prediction, batch, 0)
        assert set(value.parts) == parts
        assert torch.isfinite(value.total)


def test_local_global_sees_shape_inside_of_crops(batch: Prepared, settings: Settings) -> None:
    """A student that is right up to scale and shift has no local-global loss; a wrong one has."""
    some = distillation(settings, local_global_share=1.0, normalisation="global", loss="none")
    objective = TeacherObjective(some, {"wedge": teacher()})
    right = objective(0.3 * batch.depth + 1.0, batch, 0).parts["local_global"]
    wrong = objective(batch.depth.flip(-1), batch, 0).parts["local_global"]
    assert right < 0.05 < 0.3 < wrong


def test_one_teacher_is_drawn_for_each_update(batch: Prepared, settings: Settings) -> None:
    """Labels of two teachers are never mixed: every update has one of the two losses."""
    some = distillation(settings, teachers="near:0.5,far:0.5", loss="log_depth", far_m=80.0)
    objective = TeacherObjective(
        some, {"near": teacher(), "far": teacher(lambda frames: 2 * seen_depth(frames))}
    )
    losses = {
        round(objective(batch.depth, batch, step).parts["data"].item(), 3) for step in range(20)
    }
    assert losses == {0.0, round(float(np.log(2)), 3)}
    agreeing = distillation(
        settings, teachers="near:0.5,far:0.5", loss="log_depth", far_m=80.0,
        agreement_tolerance=0.1,
    )  # fmt: skip
    flat = {"near": teacher(), "far": teacher(lambda frames: 5 - 0.1 * seen_depth(frames))}
    assert TeacherObjective(agreeing, flat)(batch.depth * 2, batch, 0).parts["data"] == 0


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


def test_distilling_from_a_file(
    tmp_path: Path,
    settings: Settings,
    clips: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`dae-ros distill` runs from a teacher's checkpoint, scores labels, and writes its meaning."""
    # Whether two untrained networks agree which way round depth is, is chance.
    monkeypatch.setattr("dae_ros.distillation.trainer.MEANINGFUL", 0.0)
    network = build_network(
        variant("micro_frames", input_height=56, input_width=84, recurrence=None)
    )
    network.load_state_dict(untrained("micro_frames").network.state_dict())
    save_checkpoint(tmp_path / "teacher.safetensors", network, METRIC_GREY)
    some = distillation(
        settings, teachers=str(tmp_path / "teacher.safetensors"), steps=4, normalised_weight=0.5,
        local_global_share=0.5, crop_height=42, crop_width=56, crop_share=0.5,
        flip_consistency=True, evaluate_every=2,
    )  # fmt: skip
    (tmp_path / "settings.yaml").write_text(to_yaml(some))
    out = tmp_path / "run"
    assert main(["distill", str(tmp_path / "settings.yaml"), "--out", str(out)]) == 0
    assert "4 updates, best score" in capsys.readouterr().out
    header = (out / "heldout.csv").read_text().splitlines()[0]
    assert "label_aligned_abs_rel" in header and "aligned_abs_rel" in header
    meaning = load_weights(str(out / "last.safetensors")).meaning
    report = json.loads((out / "report.json").read_text())
    assert (meaning.orientation, meaning.scale) == (report["orientation"].split(":")[0], "relative")
    assert report["updates"] == 4 and report["best"] > 0


@pytest.mark.parametrize("name", presets())
def test_presets_are_valid(name: str) -> None:
    """Every preset loads; those of distillation name teachers."""
    text = (share_folder() / "config" / "train" / f"{name}.yaml").read_text()
    kind = DistillationParameters if "\nteachers:" in text else TrainingParameters
    some = load_settings(kind, name)
    assert kind.from_mapping(yaml.safe_load(to_yaml(some))) == some


@pytest.mark.parametrize("name", presets())
def test_presets_fit_their_clips(name: str) -> None:
    """The recipe that a preset's clips are made by gives what its first weights take."""
    folder = share_folder() / "config" / "train"
    some = yaml.safe_load((folder / f"{name}.yaml").read_text())
    clips = Path(some["clips"]).name
    own = {"clips": "clips_first_weights", "clips_wider": "clips_wider_worlds"}
    recipe = folder / f"{own.get(clips, clips)}.yaml"
    encoder = yaml.safe_load(recipe.read_text())["event_encoder"]
    known = {entry.name: entry.meaning.event_encoder for entry in read_manifest().entries}
    weights = some["weights"]
    if weights.startswith("output/first_weights/"):
        run = Path(weights).parent.name
        weights = yaml.safe_load((folder / f"first_weights_{run}.yaml").read_text())["weights"]
    takes = known.get(weights) or load_weights(weights).meaning.event_encoder
    assert takes == "grey" or same_input(takes, encoder)
    if "teachers" in some and not name.startswith("first_"):
        train_set = yaml.safe_load(recipe.read_text())["train"]
        assert all(entry["ends"] == "frame" for entry in train_set)


def test_tencode_weights_learn_from_voxel_folders(
    tmp_path: Path, settings: Settings, clips: str
) -> None:
    """Weights for Tencode go on with Tencode through voxels, as MVSEC has it, and then say so."""
    voxels = wedge_clips(tmp_path / "voxels", [WedgeSource(1)], [WedgeSource(2)], "tencode_voxel")
    train(settings(clips=voxels, steps=3), tmp_path / "first")
    first = load_weights(str(tmp_path / "first" / "best.safetensors"))
    assert first.meaning.event_encoder == "tencode_voxel"
    again = settings(clips=clips, steps=3, weights=str(tmp_path / "first" / "last.safetensors"))
    train(again, tmp_path / "second")
    second = load_weights(str(tmp_path / "second" / "last.safetensors"))
    assert second.meaning.event_encoder == "tencode"


def test_published_settings() -> None:
    """The authors' numbers: 75 000 updates of 10 clips at 5e-6 with lambda 0.25, and baselines."""
    for name in ("eventscape_supervised", "mvsec_supervised", "dsec_supervised"):
        some = load_settings(TrainingParameters, name)
        assert (some.steps, some.batch, some.learning_rate) == (75_000, 10, 5e-6)
        assert (some.loss, some.alpha, some.reduction) == ("published", 0.25, "batch")
    for name in ("mvsec_distilled", "dsec_distilled"):
        taught = load_settings(DistillationParameters, name)
        assert (taught.steps, taught.batch, taught.learning_rate) == (75_000, 10, 5e-6)
    baseline = load_settings(TrainingParameters, "mvsec_e2depth")
    assert (baseline.weights, baseline.learning_rate) == ("untrained:e2depth", 1e-4)
    baseline = load_settings(TrainingParameters, "mvsec_ereformer")
    assert (baseline.learning_rate, baseline.batch) == (3.2e-5, 2)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("step=3", "no parameter 'step'"),
        ("batch=0", "at least 1"),
        ("batch=2.5", "must be a int"),
        ("loss=l2", "one of published"),
        ("crop_height=28", "belong together"),
        ("warm_up=99999999", "must be below 'steps'"),
        ("teachers=''", "at least one name"),
        ("teachers=a:b", "is not NAME or NAME:SHARE"),
        ("teachers=a:-1", "shares above 0"),
        ("near_m=90", "must be below 'far_m'"),
        ("agreement_tolerance=0.1", "needs two teachers"),
        ("normalisation=none", "compares metres"),
        ("seed", "is not name=value"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, override: str, sentence: str) -> None:
    """Unknown names, ranges and rules between settings are refused with a sentence."""
    path = tmp_path / "some.yaml"
    path.write_text("clips: here\nteachers: untrained:micro_frames\n")
    load_settings(DistillationParameters, path)
    with pytest.raises(ConfigurationError, match=sentence):
        load_settings(DistillationParameters, path, [override])


@pytest.mark.parametrize("text", ["", "- clips", "clips"])
@pytest.mark.parametrize("overrides", [[], ["steps=5"]])
def test_a_file_without_names_is_refused(tmp_path: Path, text: str, overrides: list[str]) -> None:
    """An empty file, a list and a word are no settings, also where something is set beside them."""
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="must be a mapping of names to values"):
        load_settings(TrainingParameters, path, overrides)


def test_metres_cannot_be_taught_on_crops(tmp_path: Path) -> None:
    """A metric loss and a shared crop exclude each other."""
    path = tmp_path / "some.yaml"
    path.write_text("{clips: x, teachers: t, loss: log_depth, crop_height: 28, crop_width: 28}")
    with pytest.raises(ConfigurationError, match="does not see metres on a crop"):
        load_settings(DistillationParameters, path)
    with pytest.raises(ConfigurationError, match="there is no configuration nothing"):
        load_settings(DistillationParameters, "nothing")


def test_what_does_not_fit_is_said_before_the_first_update(
    tmp_path: Path, settings: Settings, clips: str
) -> None:
    """Clips of another encoder, without depth or frames, and inverse students are refused."""
    grids = wedge_clips(tmp_path / "grids", [WedgeSource(1)], [], "voxel_grid")
    with pytest.raises(
        ConfigurationError, match=r"event_encoder: tencode \(of events\) or tencode_v"
    ):
        train(settings(clips=grids), tmp_path / "run")
    with pytest.raises(
        ConfigurationError, match=r"holds tencode; make .* event_encoder: voxel_grid"
    ):
        train(settings(weights="untrained:tiny_e2depth"), tmp_path / "run")
    voxels = wedge_clips(tmp_path / "voxels", [WedgeSource(1)], [], "tencode_voxel")
    with pytest.raises(ConfigurationError, match="a checkpoint says one"):
        train(settings(clips=f"{clips},{voxels}"), tmp_path / "run")
    bare = wedge_clips(tmp_path / "bare", [WedgeSource(1, depth=False, frames=False)], [])
    with pytest.raises(ConfigurationError, match="no depth to train on"):
        train(settings(clips=bare), tmp_path / "run")
    with pytest.raises(ConfigurationError, match="no camera frames"):
        train(distillation(settings, clips=bare, teachers="untrained:x"), tmp_path / "run")
    with pytest.raises(ConfigurationError, match="takes events"):
        train(distillation(settings, weights="untrained:micro_frames"), tmp_path / "run")
    inverse = Meaning(orientation="inverse_depth")
    save_checkpoint(tmp_path / "i.safetensors", untrained("tiny").network, inverse)
    with pytest.raises(ConfigurationError, match="gives inverse depth"):
        train(settings(weights=str(tmp_path / "i.safetensors")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
