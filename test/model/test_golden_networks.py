"""The networks give the numbers of the published code, on weights that anyone can make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.model.backbone import VisionTransformer
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning, ModelConfig, variant
from dae_ros.model.conv_lstm import ConvLSTM
from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.dav2 import metric_config, relative_config
from dae_ros.model.networks import build_network
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting
from test.reference.golden_weights import make_weight, normalise_u8

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
TOLERANCE = 2e-4


class Golden:
    """One golden file: arrays, and the comparison with the part of a tensor that they hold."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(GOLDEN / name)
        self.slices = json.loads(str(self.arrays["_slices_json"]))

    def frame(self, index: int) -> Tensor:
        frames: NDArray[np.uint8] = self.arrays["frames_u8"]
        return torch.from_numpy(normalise_u8(frames[index : index + 1]))

    def check(self, key: str, tensor: Tensor, step: int | None = None) -> None:
        parts = [] if self.slices[key] == "full" else self.slices[key].split(",")
        steps = [slice(*(int(n) if n else None for n in part.strip().split(":"))) for part in parts]
        expected = self.arrays[key]
        if step is not None:
            expected, steps = expected[step], steps[1:]
        actual = tensor.float().numpy()[tuple(steps)]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE, err_msg=key)


@pytest.fixture(scope="module")
def forward() -> Golden:
    return Golden("rec_dav2_vits_forward.npz")


@pytest.fixture(scope="module")
def recurrent() -> DepthAnyEventR:
    network = build_network(variant("vits"))
    network.load_state_dict(
        {
            key: torch.from_numpy(make_weight(key, value.shape))
            for key, value in network.state_dict().items()
        }
    )
    assert isinstance(network, DepthAnyEventR)
    return network.eval()


def frames_network(recurrent: DepthAnyEventR, config: ModelConfig) -> DepthAnyEvent:
    """Return a network without recurrence with the same weights."""
    with torch.device("meta"):
        network = build_network(config)
    weights = recurrent.state_dict()
    network.load_state_dict({key: weights[key] for key in network.state_dict()}, assign=True)
    assert isinstance(network, DepthAnyEvent)
    return network.eval()


def test_four_steps_match_the_published_network(recurrent: DepthAnyEventR, forward: Golden) -> None:
    """Outputs, states and intermediates of carried steps agree with the authors' code."""
    seen: dict[str, Tensor] = {}
    scratch = recurrent.depth_head.scratch

    def keep(name: str) -> object:
        return lambda _module, _inputs, out: seen.__setitem__(name, out[0].detach().clone())

    modules = {
        f"s0_{name}": getattr(scratch, name)
        for name in [f"layer{k}_rn" for k in range(1, 5)]
        + [f"refinenet{k}" for k in range(1, 5)]
        + ["output_conv1"]
    }
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.inference_mode():
        maps = recurrent.pretrained(forward.frame(0))
        for index, level in enumerate(maps):
            forward.check(f"s0_feat{index}", level[0].flatten(1).T)
        encoder = recurrent.pretrained
        assert isinstance(encoder, VisionTransformer)
        forward.check("s0_pos_embed_interp", encoder.positions(19, 25)[0])
        state = recurrent.initial_state(1, 266, 350)
        for step in range(4):
            prediction, state = recurrent(forward.frame(step), state)
            for hook in hooks:
                hook.remove()
            forward.check("out", prediction[0, 0], step)
            for index, tensor in enumerate(state):
                level, part = 4 - index // 2, "hc"[index % 2]
                forward.check(f"s{step}_L{level}_{part}", tensor[0])
    assert set(seen) == set(modules)
    for name, tensor in seen.items():
        forward.check(name, tensor)


def test_state_is_what_carries_memory(recurrent: DepthAnyEventR, forward: Golden) -> None:
    """A step from zeros and a step after a skipped one agree with the authors' code too."""
    with torch.inference_mode():
        fresh = recurrent.initial_state(1, 266, 350)
        prediction, _ = recurrent(forward.frame(3), fresh)
        forward.check("out_step3_fresh_state", prediction[0, 0])
        _, state = recurrent(forward.frame(0), fresh)
        prediction, _ = recurrent(forward.frame(2), state)
        forward.check("out_step2_after_step0", prediction[0, 0])


def test_image_path_matches_the_published_one(recurrent: DepthAnyEventR) -> None:
    """Resizing to the network and back to a 260x346 sensor agrees with the authors' code."""
    golden = Golden("rec_dav2_vits_infer260x346.npz")
    loaded = LoadedModel("golden", recurrent, recurrent.config, Meaning(), "0" * 64)
    estimator = TorchEstimator(loaded)
    for step in range(3):
        image = golden.arrays["frames_u8"][step].astype(np.float32) / np.float32(255)
        if step == 0:
            fitting = Fitting(recurrent.config, recurrent.multiple, torch.device("cpu"))
            golden.check("s0_preprocessed", fitting.prepare(torch.from_numpy(image)[None])[0])
        depth = estimator.estimate(image)
        assert depth.shape == (260, 346)
        assert depth.dtype == np.float32
        golden.check("out", torch.from_numpy(depth), step)
    assert estimator.state_age == 3


def test_network_without_recurrence_matches(recurrent: DepthAnyEventR) -> None:
    """DepthAnyEvent agrees with the authors' code, features and image path included."""
    golden = Golden("dav2_vits.npz")
    network = frames_network(recurrent, variant("vits", recurrence=None))
    seen: list[Tensor] = []
    hook = network.depth_head.scratch.output_conv2.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0][0])
    )
    with torch.inference_mode():
        prediction, _ = network(golden.frame(0))
    hook.remove()
    golden.check("out_softplus", prediction[0, 0])
    golden.check("full_features", seen[0])
    sensor = Golden("rec_dav2_vits_infer260x346.npz").arrays["frames_u8"][0]
    loaded = LoadedModel("golden", network, network.config, Meaning(), "0" * 64)
    depth = TorchEstimator(loaded).estimate(sensor.astype(np.float32) / np.float32(255))
    golden.check("infer260x346_out", torch.from_numpy(depth))


def test_activations_match(recurrent: DepthAnyEventR) -> None:
    """Every activation, inverted or not, agrees; softplus inverted is softplus."""
    golden = Golden("dav2_vits.npz")
    network = frames_network(recurrent, variant("vits", recurrence=None))
    seen: list[Tensor] = []
    network.depth_head.scratch.output_conv2.register_forward_hook(
        lambda _module, _inputs, out: seen.append(out)
    )
    with torch.inference_mode():
        network(golden.frame(0))
    for activation in ("relu", "sigmoid", "softplus"):
        for inverted in (False, True):
            config = variant(
                "vits", recurrence=None, activation=activation, inv_prediction=inverted
            )
            network.depth_head.config = config
            out = network.depth_head._activate(seen[0])[0, 0]
            if activation == "softplus":
                golden.check("out_softplus", out)
                continue
            key = f"out_{activation}_inv{int(inverted)}"
            if activation == "relu" and inverted:
                # The reciprocal spreads rounding without bound; compare what it inverts.
                expected = torch.from_numpy(1.0 / golden.arrays[key])
                np.testing.assert_allclose(1.0 / out.numpy()[::4, ::4], expected, atol=TOLERANCE)
            else:
                golden.check(key, out)


@pytest.mark.parametrize(
    ("precision", "mean", "largest"), [("bfloat16", 0.03, 0.3), ("float16", 0.005, 0.05)]
)
def test_half_precision_stays_close(
    recurrent: DepthAnyEventR, forward: Golden, precision: str, mean: float, largest: float
) -> None:
    """Autocast steps keep a float32 state and the accuracy that the golden file promises."""
    state = recurrent.initial_state(1, 266, 350)
    with torch.inference_mode(), torch.autocast("cpu", getattr(torch, precision)):
        for step in range(2):
            prediction, state = recurrent(forward.frame(step), state)
    assert {tensor.dtype for tensor in state} == {torch.float32}
    error = np.abs(prediction[0, 0, ::3, ::3].float().numpy() - forward.arrays["out"][1])
    assert error.mean() < mean
    assert error.max() < largest


def test_cast_weights_work(recurrent: DepthAnyEventR, forward: Golden) -> None:
    """A network cast to float16 as a whole runs and keeps its state in float32."""
    with torch.device("meta"):
        network = build_network(recurrent.config)
    network.load_state_dict(recurrent.state_dict(), assign=True)
    network = network.eval().half()
    assert isinstance(network, DepthAnyEventR)
    state = network.initial_state(1, 266, 350)
    assert {tensor.dtype for tensor in state} == {torch.float32}
    with torch.inference_mode():
        prediction, state = network(forward.frame(0).half(), state)
    assert prediction.dtype == torch.float16
    assert {tensor.dtype for tensor in state} == {torch.float32}
    error = np.abs(prediction[0, 0, ::3, ::3].float().numpy() - forward.arrays["out"][0])
    assert error.mean() < 0.005


@pytest.mark.parametrize("wrong", ["gate order", "cat order"])
def test_single_mistakes_are_seen(
    recurrent: DepthAnyEventR, forward: Golden, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Another gate order or another order of input and hidden state fails the golden file."""

    def step(self: ConvLSTM, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, cell = state
        both = [hidden, y] if wrong == "cat order" else [y, hidden]
        i, f, o, g = self.Gates(torch.cat(both, dim=1)).chunk(4, dim=1)
        if wrong == "gate order":
            i, f = f, i
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    monkeypatch.setattr(ConvLSTM, "forward", step)
    with torch.inference_mode():
        prediction, _ = recurrent(forward.frame(0), recurrent.initial_state(1, 266, 350))
    with pytest.raises(AssertionError, match="out"):
        forward.check("out", prediction[0, 0], 0)


@pytest.mark.parametrize("encoder", ["vits", "vitb", "vitl"])
def test_keys_and_shapes_are_the_published_ones(encoder: str) -> None:
    """Every weight of every network has the published key and shape, and there are no others."""
    table = json.loads((GOLDEN / "state_dict_keys.json").read_text())[encoder]
    frames_table = {key: shape for key, shape in table.items() if ".gru_layer_" not in key}
    for config, expected in (
        (variant(encoder), table),
        (variant(encoder, recurrence=None), frames_table),
        (relative_config(encoder), frames_table),
        (metric_config(encoder, 20.0), frames_table),
    ):
        with torch.device("meta"):
            network = build_network(config)
        assert {key: list(value.shape) for key, value in network.state_dict().items()} == expected
