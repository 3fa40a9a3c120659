"""E2Depth: arithmetic against plain numpy, the published file layout, padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.e2depth import E2Depth, E2DepthConfig
from dae_ros.model.networks import build_network
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting
from test.reference import e2depth_steps

# From the public source: rpg_e2depth at 17d453c1, e2depth/model/{model,unet,submodules}.py with
# e2depth/configs/train_e2depth_si_grad_loss_mixed.json. Every layer also has a bias.
LAYERS = {
    "unetrecurrent.head.conv2d": (32, 5, 5, 5),
    "unetrecurrent.encoders.0.conv.conv2d": (64, 32, 5, 5),
    "unetrecurrent.encoders.0.recurrent_block.Gates": (256, 128, 3, 3),
    "unetrecurrent.encoders.1.conv.conv2d": (128, 64, 5, 5),
    "unetrecurrent.encoders.1.recurrent_block.Gates": (512, 256, 3, 3),
    "unetrecurrent.encoders.2.conv.conv2d": (256, 128, 5, 5),
    "unetrecurrent.encoders.2.recurrent_block.Gates": (1024, 512, 3, 3),
    "unetrecurrent.resblocks.0.conv1": (256, 256, 3, 3),
    "unetrecurrent.resblocks.0.conv2": (256, 256, 3, 3),
    "unetrecurrent.resblocks.1.conv1": (256, 256, 3, 3),
    "unetrecurrent.resblocks.1.conv2": (256, 256, 3, 3),
    "unetrecurrent.decoders.0.conv2d": (128, 256, 5, 5),
    "unetrecurrent.decoders.1.conv2d": (64, 128, 5, 5),
    "unetrecurrent.decoders.2.conv2d": (32, 64, 5, 5),
    "unetrecurrent.pred.conv2d": (1, 32, 1, 1),
}
SMALL = E2DepthConfig(bins=2, levels=2, channels=2, residual_blocks=1)
PUBLISHED_MODEL = {
    "num_bins": 2,
    "skip_type": "sum",
    "recurrent_block_type": "convlstm",
    "num_encoders": 2,
    "base_num_channels": 2,
    "num_residual_blocks": 1,
    "use_upsample_conv": True,
    "norm": "none",
}


def small() -> E2Depth:
    torch.manual_seed(0)
    network = build_network(SMALL)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0.0, 0.4)
    assert isinstance(network, E2Depth)
    return network.eval()


def checkpoint(path: Path, **changes: Any) -> Path:
    """Write what the authors' trainer writes; None leaves a field out."""
    content = {
        "arch": "E2VIDRecurrent",
        "epoch": 7,
        "logger": None,
        "state_dict": small().state_dict(),
        "optimizer": {"state": {}, "param_groups": []},
        "monitor_best": 0.25,
        "config": {
            "data_loader": {"train": {"clip_distance": 60.0}, "inverse": False},
            "model": PUBLISHED_MODEL,
        },
        **changes,
    }
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def test_keys_and_shapes_are_the_published_ones() -> None:
    """The published sizes give exactly the keys and shapes of the public source."""
    with torch.device("meta"):
        state = build_network(E2DepthConfig()).state_dict()
    expected = {f"{name}.weight": shape for name, shape in LAYERS.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in LAYERS.items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


def test_reference_is_pinned_to_hand_made_numbers() -> None:
    """The oracle's convolution and doubling on numbers that fit on a page."""
    x = np.arange(9.0).reshape(1, 3, 3)
    box = np.ones((1, 1, 3, 3))
    assert e2depth_steps.convolve(x, box, np.array([1.0]))[0].tolist() == [
        [9.0, 16.0, 13.0],
        [22.0, 37.0, 28.0],
        [21.0, 34.0, 25.0],
    ]
    assert e2depth_steps.convolve(x, box, np.zeros(1), 2)[0].tolist() == [[8, 12], [20, 24]]
    row = np.array([[[0.0, 4.0]]])
    assert e2depth_steps.double(row)[0].tolist() == [[0, 1, 3, 4], [0, 1, 3, 4]]


def test_steps_equal_plain_numpy() -> None:
    """Three carried steps agree with the step written out pixel by pixel, states included."""
    network = small()
    weights = {key: value.double().numpy() for key, value in network.state_dict().items()}
    state = network.initial_state(1, 8, 12)
    assert [tuple(t.shape) for t in state] == [(1, 4, 4, 6)] * 2 + [(1, 8, 2, 3)] * 2
    plain = [tensor[0].double().numpy() for tensor in state]
    for step in range(3):
        voxels = torch.randn(1, 2, 8, 12, generator=torch.Generator().manual_seed(step))
        with torch.inference_mode():
            depth, state = network(voxels, state)
        logarithmic, plain = e2depth_steps.step(voxels[0].double().numpy(), plain, weights)
        expected = 80.0 * np.exp(3.70378 * (logarithmic - 1.0))
        np.testing.assert_allclose(depth[0, 0].numpy(), expected, rtol=1e-4)
        for tensor, array in zip(state, plain, strict=True):
            np.testing.assert_allclose(tensor[0].numpy(), array, atol=1e-5)
    assert expected.std() > 1.0


def test_range_is_the_published_one() -> None:
    """Logits far below and above 0 give 1.97 m and 80 m."""
    network = small()
    for bias, metres in ((-50.0, 1.9709), (50.0, 80.0)):
        with torch.no_grad():
            network.unetrecurrent.pred.conv2d.bias.fill_(bias)
            depth, _ = network(torch.zeros(1, 2, 8, 8), network.initial_state(1, 8, 8))
        assert float(depth.mean()) == pytest.approx(metres, abs=1e-3)


@pytest.mark.parametrize("layout", ["trainer", "exported"])
def test_published_files_load(tmp_path: Path, layout: str) -> None:
    """Both published layouts load: sizes inside of the configuration, or beside the weights."""
    changes = {} if layout == "trainer" else {"model": PUBLISHED_MODEL, "config": None}
    loaded = load_checkpoint(checkpoint(tmp_path / "model_best.pth.tar", **changes))
    assert isinstance(loaded.network, E2Depth)
    metres = 60.0 if layout == "trainer" else 80.0
    assert loaded.config == E2DepthConfig(
        bins=2, levels=2, channels=2, residual_blocks=1, max_depth_m=metres
    )
    assert loaded.meaning == Meaning(event_encoder="voxel_grid", orientation="depth")
    assert any("clip_distance" in note for note in loaded.notes) == (layout == "exported")
    for key, value in small().state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config": None}, "does not say its sizes"),
        ({"arch": "E2VID"}, "arch is 'E2VID'"),
        ({"model": {**PUBLISHED_MODEL, "norm": "BN"}}, "norm is 'BN'"),
        ({"model": {**PUBLISHED_MODEL, "skip_type": "concat"}}, "skip_type"),
        ({"model": {**PUBLISHED_MODEL, "num_bins": "five"}}, "num_bins is 'five'"),
        ({"model": {**PUBLISHED_MODEL, "num_bins": 1}}, "at least 2 bins"),
        ({"model": {**PUBLISHED_MODEL, "num_encoders": 3}}, "keys are missing"),
        ({"config": {"model": PUBLISHED_MODEL, "data_loader": {"inverse": True}}}, "inverse"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """A file that says something else, or nothing, is refused with the reason."""
    with pytest.raises(WeightsError, match=reason):
        load_checkpoint(checkpoint(tmp_path / "a.pth.tar", **changes))


def test_sensor_is_padded_by_reflection_as_published() -> None:
    """13x17 px become 16x20: odd ones above and left, mirrored without the border, cut again."""
    fitting = Fitting(SMALL, 4, torch.device("cpu"))
    image = torch.arange(13.0 * 17.0).reshape(1, 1, 13, 17).expand(1, 2, 13, 17)
    prepared = fitting.prepare(image)
    assert fitting.network_size(13, 17) == tuple(prepared.shape[2:]) == (16, 20)
    assert prepared[0, 0, :3, 2].tolist() == [34.0, 17.0, 0.0]
    assert prepared[0, 0, 2, [0, 1, 2, 18, 19]].tolist() == [2.0, 1.0, 0.0, 16.0, 15.0]
    assert prepared[0, 0, 15, 2] == image[0, 0, 11, 0]
    assert torch.equal(fitting.restore(prepared[:, :1], 13, 17), image[:, :1])
    same = torch.rand(1, 2, 8, 12)
    assert torch.equal(fitting.prepare(same), same)


def test_estimator_feeds_voxels_as_they_are() -> None:
    """The estimator's step on a padded sensor equals the network on the padded grid."""
    network = small()
    loaded = LoadedModel("e", network, SMALL, Meaning(event_encoder="voxel_grid"), "0" * 64)
    estimator = TorchEstimator(loaded)
    voxels = np.random.default_rng(0).normal(size=(2, 13, 17)).astype(np.float32)
    padded = np.pad(voxels, ((0, 0), (2, 1), (2, 1)), mode="reflect")
    state = network.initial_state(1, 16, 20)
    for _ in range(2):
        with torch.inference_mode():
            expected, state = network(torch.from_numpy(padded)[None], state)
        np.testing.assert_allclose(
            estimator.estimate(voxels), expected[0, 0, 2:15, 2:19].numpy(), rtol=1e-5
        )


def test_wrong_inputs_are_refused() -> None:
    """Other bins, sizes and states are refused with what is needed."""
    network = small()
    state = network.initial_state(1, 8, 8)
    with pytest.raises(ConfigurationError, match="batch, 2, height, width"):
        network(torch.zeros(1, 3, 8, 8), state)
    with pytest.raises(ConfigurationError, match="multiples of 4"):
        network.initial_state(1, 8, 9)
    with pytest.raises(ConfigurationError, match="keeps 4"):
        network(torch.zeros(1, 2, 8, 8), state[:2])
