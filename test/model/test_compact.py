"""The networks of this project: sizes, contract, and what they were built for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.configuration import COMPACT, Meaning, variant
from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.e2depth import E2DepthConfig
from dae_ros.model.ereformer import EReFormerConfig
from dae_ros.model.networks import (
    Network,
    build_network,
    config_from_dict,
    config_to_dict,
)
from dae_ros.model.untrained import NAMES, TINY_NAMES, untrained
from dae_ros.runtime.torch_estimator import TorchEstimator

METRES = Meaning(orientation="depth", scale="metric")
SMALL = ("tiny", *COMPACT, "tiny_e2depth", "tiny_ereformer")
REMEMBERING = ("tiny", "vitt", "micro", "tiny_e2depth", "tiny_ereformer")
# Height and width that are quick and not square.
SIZES = {"tiny_e2depth": (24, 40), "tiny_ereformer": (64, 96)}


@pytest.fixture(scope="module", params=SMALL)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return untrained(request.param)


def size_of(model: LoadedModel) -> tuple[int, int]:
    return SIZES.get(model.name.removeprefix("untrained:"), (70, 98))


def inputs(model: LoadedModel, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    channels = model.config.input_format.channels
    return torch.randn(batch, channels, *size_of(model), generator=generator)


def parameters(network: Network) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vitt", 7_402_121),
        ("micro", 1_826_065),
        ("micro_memoryless", 1_833_318),
        ("micro_frames", 1_493_217),
        ("e2depth", 10_710_401),
        ("ereformer", 89_532_191),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    """The documented number of weights; building on the meta device costs nothing."""
    config = {"e2depth": E2DepthConfig(), "ereformer": EReFormerConfig()}.get(name)
    with torch.device("meta"):
        assert parameters(build_network(config or variant(name))) == count


def test_sizes_keep_what_the_experiments_need() -> None:
    """micro is 1 to 2 M, its control within 10 % of it, and all shipped halves under 25 MB."""
    with torch.device("meta"):
        counts = {name: parameters(build_network(variant(name))) for name in COMPACT}
    assert 1_000_000 < counts["micro"] < 2_000_000
    assert abs(counts["micro_memoryless"] / counts["micro"] - 1) < 0.1
    assert 2 * (counts["vitt"] + counts["micro"] + counts["micro_frames"]) < 25_000_000


def test_contract(model: LoadedModel) -> None:
    """Shapes, zero state first, nothing kept inside, independent streams, the same bits twice."""
    network, (height, width) = model.network, size_of(model)
    state = network.initial_state(2, height, width)
    assert all(tensor.shape[0] == 2 and not tensor.any() for tensor in state)
    assert bool(state) == (model.name.removeprefix("untrained:") in REMEMBERING)
    with torch.inference_mode():
        first, after = network(inputs(model, 2), state)
        again, _ = network(inputs(model, 2), state)
        alone, _ = network(inputs(model, 2)[1:], network.initial_state(1, height, width))
        second, _ = network(inputs(model, 2), after)
    assert first.shape == (2, 1, height, width)
    assert first.min() >= 0
    assert first.std() > 0.01
    assert [tensor.shape for tensor in after] == [tensor.shape for tensor in state]
    assert torch.equal(first, again)
    assert not any(tensor.any() for tensor in state), "the caller's state was written to"
    torch.testing.assert_close(alone, first[1:], rtol=1e-3, atol=1e-3)
    assert torch.equal(first, second) == (not state)


def test_gradients_reach_every_weight_through_time(model: LoadedModel) -> None:
    """The loss of a second step reaches the first input, and all weights that take part."""
    network = build_network(model.config)
    network.load_state_dict(model.network.state_dict())
    early = inputs(model, seed=1).requires_grad_()
    _, state = network(early, network.initial_state(1, *size_of(model)))
    prediction, _ = network(inputs(model, seed=2), state)
    prediction.log().mean().backward()
    if state:
        assert early.grad is not None
        assert early.grad.abs().max() > 0
    idle = {key for key, weight in network.named_parameters() if weight.grad is None}
    # The published files hold one residual unit without input, and DINOv2's mask token.
    assert all("refinenet4.resConfUnit1" in key or "mask_token" in key for key in idle)
    assert all(torch.isfinite(w.grad).all() for w in network.parameters() if w.grad is not None)


def test_step_can_be_exported(model: LoadedModel) -> None:
    """torch.export takes the step as it is, and the exported graph gives the same numbers."""
    network = model.network
    example = (inputs(model), network.initial_state(1, *size_of(model)))
    with torch.no_grad():
        program = torch.export.export(network, example, strict=False).module()
        torch.testing.assert_close(program(*example), network(*example), rtol=1e-4, atol=1e-4)


def test_half_precision_stays_close(model: LoadedModel) -> None:
    """Under bfloat16 autocast the depth is within a few percent and the state is float32."""
    network = model.network
    state = network.initial_state(1, *size_of(model))
    with torch.inference_mode():
        expected, _ = network(inputs(model), state)
        with torch.autocast("cpu", torch.bfloat16):
            actual, after = network(inputs(model), state)
    assert {tensor.dtype for tensor in after} <= {torch.float32}
    error = (actual.float() - expected).abs().mean() / expected.mean()
    assert 0 < error < 0.05


def test_checkpoints_keep_network_and_meaning(model: LoadedModel, tmp_path: Path) -> None:
    """What save_checkpoint writes in half precision loads as the same network and meaning."""
    path = tmp_path / "model.safetensors"
    digest = save_checkpoint(path, model.network, METRES, dtype=torch.float16)
    loaded = load_checkpoint(path)
    assert (loaded.config, loaded.meaning, loaded.digest) == (model.config, METRES, digest)
    assert type(loaded.network) is type(model.network)
    for key, weight in model.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], weight.half().float()), key


def test_estimator_runs_all_of_them(model: LoadedModel) -> None:
    """A step at a sensor's odd size, and the same again after a reset."""
    channels = model.config.input_format.channels
    image = np.random.default_rng(0).random((channels, 61, 83), dtype=np.float32)
    estimator = TorchEstimator(model)
    assert estimator.input_channels == channels
    depth = estimator.estimate(image)
    assert depth.shape == (61, 83)
    assert depth.dtype == np.float32
    estimator.estimate(image)
    estimator.reset()
    np.testing.assert_array_equal(estimator.estimate(image), depth)
    with pytest.raises(ConfigurationError, match=f"float32\\[{channels}, height, width"):
        estimator.estimate(np.zeros((channels + 1, 61, 83), np.float32))


def test_micro_keeps_its_levels_at_its_input_size() -> None:
    """At 126x168 every halving rounds up and padding keeps each level whole in the state."""
    network = untrained("micro").network
    sizes = [(4, 6), (8, 11), (16, 21), (32, 42)]
    state = network.initial_state(1, 126, 168)
    assert [tuple(tensor.shape) for tensor in state[::2]] == [(1, 32, *size) for size in sizes]
    assert isinstance(network, DepthAnyEventR)
    with torch.inference_mode():
        maps = network.pretrained(torch.zeros(1, 3, 126, 168))
    assert [tuple(level.shape[2:]) for level in reversed(maps)] == sizes
    shrunk = build_network(variant("micro", recurrent_padding=0))
    assert [tuple(t.shape[2:]) for t in shrunk.initial_state(1, 126, 168)[:2]] == [(2, 4)] * 2
    assert [tuple(t.shape[2:]) for t in network.initial_state(1, 28, 14)[:2]] == [(1, 1)] * 2
    with pytest.raises(ConfigurationError, match="multiples of 14"):
        network(torch.zeros(1, 3, 128, 168), state)


def test_padding_keeps_features_where_they_were() -> None:
    """Moving the image by one coarse cell moves padded memory by exactly one cell."""
    network = untrained("micro").network
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(1, 32, 7, 12, generator=generator)
    assert isinstance(network, DepthAnyEventR)
    layer = network.depth_head.gru_layer_4
    with torch.inference_mode():
        left = layer(wide[..., :10], (torch.zeros(1, 32, 7, 10),) * 2)[0]
        right = layer(wide[..., 1:11], (torch.zeros(1, 32, 7, 10),) * 2)[0]
    torch.testing.assert_close(left[..., 3:8], right[..., 2:7])


def test_exp_head_is_log_depth_around_its_scale() -> None:
    """A last layer of zeros gives output_scale metres; adding ln 2 to it doubles the depth."""
    network = untrained("micro").network
    assert isinstance(network, DepthAnyEventR)
    last = network.depth_head.scratch.output_conv2[2]
    state = network.initial_state(1, 28, 28)
    image = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, _ = network(image, state)
        last.bias += float(np.log(2.0))
        torch.testing.assert_close(network(image, state)[0], 2 * before)
        last.bias.zero_()
        last.weight.zero_()
        assert torch.equal(network(image, state)[0], torch.full((1, 1, 28, 28), 4.0))
        # ln(1e6 / 4): beyond the largest float16, and a depth all the same.
        last.bias.fill_(12.43)
        depth, _ = network.half()(image.half(), state)
    assert depth.dtype == torch.float32
    assert float(depth.mean()) == pytest.approx(1e6, rel=0.01)


def test_training_starts_with_memory_and_without_shouting() -> None:
    """Untrained compact networks remember (forget gate bias 1), other biases are zero."""
    weights = untrained("micro").network.state_dict()
    bias = weights["depth_head.gru_layer_2.recurrent_block.Gates.bias"]
    assert bias.reshape(4, 32).mean(dim=1).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert torch.equal(weights["pretrained.stages.0.1.scale"], torch.full((48, 1, 1), 0.2))
    published = untrained("tiny").network.state_dict()
    assert not published["depth_head.gru_layer_2.recurrent_block.Gates.bias"].any()


def test_untrained_names() -> None:
    """Every advertised name builds what it says, and another name lists them all."""
    assert untrained("micro", seed=1).digest != untrained("micro").digest
    assert untrained("micro").digest == untrained("micro").digest
    frames = untrained("micro_frames")
    assert type(frames.network) is DepthAnyEvent
    assert frames.meaning.event_encoder == "grey"
    assert untrained("tiny_e2depth").meaning.event_encoder == "voxel_grid"
    with pytest.raises(WeightsError) as caught:
        untrained("nano")
    listed = {word.strip(",") for word in str(caught.value).split() if "untrained:" in word}
    assert listed == {f"untrained:{name}" for name in (*NAMES, *TINY_NAMES)}
    assert all(untrained(name).network for name in TINY_NAMES)


@pytest.mark.parametrize(
    "values",
    [
        {"network": "unet"},
        {"bins": 5},
        {"network": "e2depth", "bins": 1},
        {"network": "e2depth", "max_depth_m": -1.0},
        {"network": "e2depth", "padding": 2},
        {"network": "ereformer", "depths": [2, 2]},
        {"network": "ereformer", "heads": [3, 6, 12, 25]},
        {"network": "ereformer", "window": 1},
        {"network": "ereformer", "max_depth_m": float("nan")},
    ],
)
def test_bad_configurations_are_refused(values: dict[str, object]) -> None:
    """The kind and every field are checked, and good ones survive JSON."""
    with pytest.raises(ConfigurationError):
        config_from_dict(values)
    for config in (variant("micro"), E2DepthConfig(levels=2), EReFormerConfig(input_channels=3)):
        assert config_from_dict(config_to_dict(config)) == config
