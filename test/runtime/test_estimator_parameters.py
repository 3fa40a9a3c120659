"""The estimator that parameters ask for, what it means, and which weights it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.dav2 import METRIC, RELATIVE
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import NAMES
from dae_ros.nodes.launch_arguments import ARGUMENTS
from dae_ros.parameters import DepthParameters, declarations
from dae_ros.runtime.estimator import output_meaning
from dae_ros.runtime.torch_estimator import create_torch_estimator


def test_meaning_reaches_the_pipeline() -> None:
    """Metric, measured and relative checkpoints become what the pipeline publishes."""
    assert output_meaning(METRIC).metric
    assert not output_meaning(RELATIVE).metric
    assert output_meaning(Meaning()).orientation == "unknown"
    measured = output_meaning(
        Meaning(orientation="inverse_depth", metres_scale=0.5, metres_shift=0.25)
    )
    assert (measured.metric, measured.scale, measured.shift) == (True, 0.5, 0.25)


def test_estimator_from_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters choose weights, device and threads; what cannot be had is explained."""
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    estimator = create_torch_estimator(DepthParameters(weights="untrained:tiny", threads=3))
    assert estimator.name == "untrained:tiny"
    assert estimator.estimate(np.zeros((3, 60, 80), np.float32)).shape == (60, 80)
    create_torch_estimator(DepthParameters(weights="untrained:tiny"))
    assert threads[0] == 3
    assert threads[1] >= 1
    for device in ("cuda", "cuda:9", "tpu", "meta"):
        with pytest.raises(ConfigurationError, match=device):
            create_torch_estimator(DepthParameters(weights="untrained:tiny", device=device))
    with pytest.raises(WeightsError):
        create_torch_estimator(DepthParameters(weights="no/such/file.pth"))


def test_frame_weights_need_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights for camera frames are not fed with events unless the user asks for it."""
    config = variant("tiny", recurrence=None)
    frames = LoadedModel("frames", build_network(config), config, RELATIVE, "0" * 64)
    monkeypatch.setattr("dae_ros.runtime.torch_estimator.load_weights", lambda _: frames)
    with pytest.raises(ConfigurationError, match="camera frames"):
        create_torch_estimator(DepthParameters(weights="x"))
    create_torch_estimator(DepthParameters(weights="x", event_encoder="tencode"))


@pytest.mark.parametrize("weights", ["tiny_e2depth", "micro_frames"])
def test_event_images_of_other_channels_are_refused_at_the_start(weights: str) -> None:
    """A network of five bins or of grey frames cannot be fed Tencode, and says so when loaded."""
    with pytest.raises(ConfigurationError, match="Leave event_encoder at checkpoint"):
        create_torch_estimator(
            DepthParameters(weights=f"untrained:{weights}", event_encoder="tencode")
        )
    estimator = create_torch_estimator(DepthParameters(weights="untrained:tiny_e2depth"))
    assert (estimator.meaning.event_encoder, estimator.input_channels) == ("voxel_grid", 5)


def test_the_untrained_networks_that_are_offered_are_those_that_take_events() -> None:
    """The list in the description of `weights` is every untrained network but that of frames."""
    description = declarations(DepthParameters)["weights"][1].description
    offered = description[description.rindex("(") + 1 : description.rindex(")")].split(", ")
    assert offered == [name for name in NAMES if name != "micro_frames"]
    with pytest.raises(ConfigurationError, match="camera frames"):
        create_torch_estimator(DepthParameters(weights="untrained:micro_frames", device="cpu"))
    texts = [argument.description for argument in ARGUMENTS if argument.name == "weights"]
    assert all(f"({', '.join(offered)})" in text for text in texts)
