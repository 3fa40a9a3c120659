"""Scores on held-out clips are those of the live estimator on the same windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.distillation.validation import Validation
from dae_ros.evaluation.scoring import STANDARD, STANDARD_METRIC, score_frame
from dae_ros.model.configuration import Meaning
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting
from test.reference.moving_wedge import WedgeSource, depth_of_grey, wedge_clips


def test_scores_are_the_live_estimators(tmp_path: Path, small_micro: str) -> None:
    """Stepping the estimator by hand, reset at a restart, gives every score within 1e-4."""
    heldout = [WedgeSource(4, restart_at=3, windows=18), WedgeSource(5, windows=4)]
    store = open_clip_store(wedge_clips(tmp_path, [WedgeSource(1)], heldout))
    loaded = load_weights(small_micro)
    fitting = Fitting(loaded.config, 14, torch.device("cpu"))
    validation = Validation(
        (store,), fitting, "tencode", metric=True, windows=17, maximum_depth_m=80.0
    )
    scores = validation(loaded.network)
    estimator = TorchEstimator(loaded)
    expected: dict[str, list[float]] = {}
    for sequence in store.split("heldout"):
        frames: dict[str, list[float]] = {}
        estimator.reset()
        for index in range(min(len(sequence), 17)):
            if sequence.times[index, 2]:
                estimator.reset()
            code = np.array(sequence.windows[index])
            image = tencode_of_code(torch.from_numpy(code)).numpy()
            prediction = estimator.estimate(image)
            depth = sequence.depth[index].astype(np.float32)
            for name, scoring in (("aligned", STANDARD), ("metric", STANDARD_METRIC)):
                for prefix, mask in (("", None), ("events_", code != 0)):
                    score = score_frame(prediction, depth, scoring, mask)
                    frames.setdefault(prefix + name, []).append(score.metrics["abs_rel"])
        for name, values in frames.items():
            expected.setdefault(name, []).append(float(np.mean(values)))
    # Every sequence weighs the same, however long it is.
    for name, values in expected.items():
        assert scores[f"{name}_abs_rel"] == pytest.approx(float(np.mean(values)), rel=1e-4)
    assert validation.deciding == "metric_abs_rel"


def test_labels_are_scored_where_truth_is_not_seen(tmp_path: Path, small_micro: str) -> None:
    """With a teacher the deciding score is the agreement with it, depth or no depth."""
    heldout = [WedgeSource(4, depth=False, windows=3)]
    store = open_clip_store(wedge_clips(tmp_path, [WedgeSource(1)], heldout))
    loaded = load_weights(small_micro)
    meaning = Meaning(event_encoder="grey", orientation="depth", scale="metric")
    teacher = FrameTeacher(
        "wedge", "0" * 64,
        lambda frames: torch.from_numpy(depth_of_grey(frames.numpy().astype(np.float32))),
        meaning, DepthRange(0.3, 80.0),
    )  # fmt: skip
    validation = Validation(
        (store,), Fitting(loaded.config, 14, torch.device("cpu")), "tencode", metric=True,
        windows=0, maximum_depth_m=80.0, teacher=teacher,
    )  # fmt: skip
    scores = validation(loaded.network)
    assert validation.deciding == "label_metric_abs_rel"
    assert scores[validation.deciding] > 0 and "metric_abs_rel" not in scores


@pytest.mark.parametrize("alike", [True, False])
def test_several_networks_say_what_each_says_alone(
    tmp_path: Path, small_micro: str, alike: bool
) -> None:
    """Of every third window of a run as of all; equal encoders run once, others each."""
    heldout = [WedgeSource(4, restart_at=4, windows=24), WedgeSource(5, windows=2)]
    store = open_clip_store(wedge_clips(tmp_path, [WedgeSource(1)], heldout))
    versions = [load_weights(small_micro) for _ in range(2)]
    with torch.no_grad():
        for name, weight in versions[1].network.named_parameters():
            if name.startswith("pretrained.") != alike:
                weight.mul_(1.01)
    networks = [loaded.network for loaded in versions]
    validation = Validation(
        (store,), Fitting(versions[0].config, 14, torch.device("cpu")), "tencode", metric=True,
        windows=23, maximum_depth_m=80.0,
    )  # fmt: skip
    encoded = []
    for number, network in enumerate(networks):
        network.pretrained.register_forward_hook(lambda *_, own=number: encoded.append(own))
    for sequence, every, expected in (
        (store.split("heldout")[0], 1, [*range(23)]),
        (store.split("heldout")[0], 3, [2, 6, 9, 12, 15, 18, 21]),
        (store.split("heldout")[1], 3, []),
    ):
        encoded.clear()
        found = list(validation.together(networks, sequence, every))
        assert set(encoded) == (set() if not expected else {0} if alike else {0, 1})
        for number, network in enumerate(networks):
            alone = {index: said for index, said, _ in validation.predictions(network, sequence)}
            assert [said[number][0] for said in found] == expected
            for said in found:
                index, depth, label = said[number]
                np.testing.assert_allclose(depth, alone[index], rtol=1e-4)
                assert label is None
        if found:
            assert not np.allclose(found[-1][0][1], found[-1][1][1], rtol=1e-4)
