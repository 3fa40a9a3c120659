"""What every network keeps to, on sizes that take milliseconds."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dae_ros.errors import ConfigurationError
from dae_ros.model.backbone import VisionTransformer
from dae_ros.model.configuration import TRANSFORMERS, Meaning, ModelConfig, variant
from dae_ros.model.conv_lstm import ConvGRU, ConvLSTM
from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.dav2 import DepthAnythingV2, metric_config, relative_config
from dae_ros.model.extractor import TimmEncoder
from dae_ros.model.networks import Network, build_network
from dae_ros.model.untrained import untrained

RECURRENT = {name: variant("tiny", recurrence=name) for name in ("convlstm", "convgru")}
FRAMES = {
    "frames": variant("tiny", recurrence=None),
    "sigmoid": variant("tiny", recurrence=None, activation="sigmoid", inv_prediction=True),
    "dav2": relative_config("tiny"),
    "dav2_metric": metric_config("tiny", 20.0),
}


def seeded(config: ModelConfig) -> Network:
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0.0, 0.3)
    return network.eval()


def image(batch: int = 1, height: int = 70, width: int = 98, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_contract(name: str) -> None:
    """Shapes and order of the state, memory, batches as independent streams, and gradients."""
    network = seeded(RECURRENT[name])
    assert isinstance(network, DepthAnyEventR)
    state = network.initial_state(2, 70, 98)
    sizes = [(1, 2), (3, 5), (8, 12), (18, 26)]  # 5x7 patches: ceil(h/2), h, 2h, 4h, minus 2
    copies = 2 if name == "convlstm" else 1
    assert [tuple(t.shape[2:]) for t in state] == [size for size in sizes for _ in range(copies)]
    assert all(t.shape[:2] == (2, 8) and not t.any() for t in state)
    with torch.no_grad():
        first, after = network(image(2), state)
        second, _ = network(image(2), after)
        alone, _ = network(image(2)[1:], network.initial_state(1, 70, 98))
    assert first.shape == (2, 1, 70, 98)
    assert [t.shape for t in after] == [t.shape for t in state]
    assert not torch.equal(first, second)
    assert not any(t.any() for t in state), "the caller's state was written to"
    torch.testing.assert_close(alone, first[1:], rtol=1e-4, atol=1e-4)
    prediction, state = network(image(2), after)
    prediction.sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in network.parameters() if w.grad is not None)
    gates = network.depth_head.gru_layer_4.recurrent_block
    assert all(weight.grad is not None and weight.grad.any() for weight in gates.parameters())


@pytest.mark.parametrize("name", FRAMES)
def test_frames_contract(name: str) -> None:
    """Networks without state map an image to a prediction in the range of their activation."""
    network = seeded(FRAMES[name])
    assert isinstance(network, DepthAnyEvent)
    assert isinstance(network, DepthAnythingV2) == name.startswith("dav2")
    with torch.no_grad():
        prediction, state = network(image(2), network.initial_state(2, 70, 98))
    assert state == ()
    assert prediction.shape == (2, 1, 70, 98)
    assert prediction.min() >= 0
    assert prediction.max() <= {"sigmoid": 1.0, "dav2_metric": 20.0}.get(name, float("inf"))
    if name == "dav2_metric":
        assert prediction.max() > 1.0


def test_double_precision_keeps_a_double_state() -> None:
    """The state follows the weights upwards, never below float32."""
    network = seeded(RECURRENT["convlstm"]).double()
    assert isinstance(network, DepthAnyEventR)
    _, state = network(image().double(), network.initial_state(1, 70, 98))
    assert {t.dtype for t in state} == {torch.float64}


@pytest.mark.parametrize("name", RECURRENT)
def test_half_precision_runs(name: str) -> None:
    """Cast to bfloat16 a network takes bfloat16 and keeps its state in float32."""
    network = seeded(RECURRENT[name]).bfloat16()
    assert isinstance(network, DepthAnyEventR)
    state = network.initial_state(1, 70, 98)
    with torch.no_grad():
        for _ in range(2):
            prediction, state = network(image().bfloat16(), state)
    assert prediction.dtype == torch.bfloat16
    assert {t.dtype for t in state} == {torch.float32}


@pytest.mark.parametrize("name", [*RECURRENT, *FRAMES])
def test_step_can_be_exported(name: str) -> None:
    """torch.export takes the step as it is, and the exported graph gives the same numbers."""
    network = seeded({**RECURRENT, **FRAMES}[name])
    inputs = (image(), network.initial_state(1, 70, 98))
    with torch.no_grad():
        program = torch.export.export(network, inputs, strict=False).module()
        torch.testing.assert_close(program(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)


def test_lstm_is_the_textbook_cell() -> None:
    """On one cell and hand-made gates: input, forget, output, candidate; c' and h' as written."""
    cell = ConvLSTM(1)
    with torch.no_grad():
        cell.Gates.weight.zero_()
        cell.Gates.bias.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        hidden, memory = cell(torch.zeros(1, 1, 1, 1), (torch.zeros(1, 1, 1, 1),
                                                        torch.full((1, 1, 1, 1), 4.0)))  # fmt: skip

    def sigmoid(v: float) -> float:
        return float(1 / (1 + np.exp(-v)))

    expected = sigmoid(-2.0) * 4.0 + sigmoid(1.0) * np.tanh(3.0)
    assert float(memory) == pytest.approx(expected, abs=1e-6)
    assert float(hidden) == pytest.approx(sigmoid(0.5) * np.tanh(expected), abs=1e-6)


def test_gru_is_the_textbook_cell() -> None:
    """On one cell: h' = (1 - u) h + u tanh(w [y, r h]); y comes before h."""
    cell = ConvGRU(1)
    with torch.no_grad():
        for gate in (cell.reset_gate, cell.update_gate, cell.out_gate):
            gate.weight.zero_()
            gate.bias.zero_()
        cell.reset_gate.bias.fill_(-1.0)
        cell.update_gate.bias.fill_(0.5)
        cell.out_gate.weight[0, :, 1, 1] = torch.tensor([2.0, 0.25])
        (hidden,) = cell(torch.full((1, 1, 1, 1), 0.3), (torch.full((1, 1, 1, 1), 0.8),))
    reset, update = 1 / (1 + np.exp(1.0)), 1 / (1 + np.exp(-0.5))
    candidate = np.tanh(2.0 * 0.3 + 0.25 * reset * 0.8)
    assert float(hidden) == pytest.approx((1 - update) * 0.8 + update * candidate, abs=1e-6)


def test_positions_follow_the_weights() -> None:
    """The kept positional embedding is renewed when grid or weights change."""
    encoder = VisionTransformer(TRANSFORMERS["tiny"])
    with torch.no_grad():
        encoder.pos_embed.normal_()
        first = encoder.positions(4, 7)
        assert encoder.positions(4, 7) is first
        assert encoder.positions(7, 4).shape == first.shape
        assert not torch.equal(encoder.positions(7, 4), first)
        encoder.pos_embed.mul_(2.0)
        torch.testing.assert_close(encoder.positions(4, 7), 2.0 * first)
        twin = copy.deepcopy(encoder)
        twin.pos_embed.data = twin.pos_embed.data * 0.5
        torch.testing.assert_close(twin.positions(4, 7), first)
    assert encoder.positions(4, 7).requires_grad
    assert torch.equal(encoder.positions(5, 5), encoder.pos_embed)


class Pyramid(nn.Module):
    """A convolutional encoder with strides 4, 8, 16, 32, as extractors of timm have."""

    channels = (4, 6, 8, 10)
    strides = (4, 8, 16, 32)
    multiple = 32

    def __init__(self) -> None:
        super().__init__()
        given = (3, *self.channels)
        self.stages = nn.ModuleList(
            nn.Conv2d(given[k], self.channels[k], 3, stride=4 if k == 0 else 2, padding=1)
            for k in range(4)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            image = torch.relu(stage(image))
            maps.append(image)
        return maps


def test_any_extractor_can_be_the_encoder() -> None:
    """Four maps of any strides go through the same recurrent head, and are trained with it."""
    network = DepthAnyEventR(variant("tiny"), Pyramid())
    state = network.initial_state(1, 96, 128)
    assert [tuple(t.shape[2:]) for t in state[::2]] == [(1, 2), (4, 6), (10, 14), (22, 30)]
    prediction, state = network(image(1, 96, 128), state)
    assert prediction.shape == (1, 1, 96, 128)
    prediction.sum().backward()
    stages = network.pretrained.get_submodule("stages")
    assert all(weight.grad is not None for weight in stages.parameters())
    with pytest.raises(ConfigurationError, match="multiples of 32"):
        network(image(1, 96, 120), state)


def build_timm(name: str) -> DepthAnyEventR:
    """A recurrent student with an encoder of timm; skips where timm cannot be imported."""
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported here ({error})")
    config = ModelConfig(encoder=f"timm:{name}", features=16, reassemble=(8, 8, 16, 16))
    network = build_network(config).eval()
    assert isinstance(network, DepthAnyEventR)
    return network


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet18", (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224", (4, 8, 16, 32)),
        ("vit_tiny_patch16_224", (16, 16, 16, 16)),
    ],
)
def test_timm_models_can_be_the_encoder(name: str, strides: tuple[int, ...]) -> None:
    """Extractors of timm, channels last ones too, build a student of any input size."""
    network = build_timm(name)
    assert network.pretrained.strides == strides
    for height, width in ((224, 224), (192, 256)):
        with torch.no_grad():
            first, state = network(image(1, height, width), network.initial_state(1, height, width))
            second, _ = network(image(1, height, width), state)
        assert first.shape == (1, 1, height, width)
        assert not torch.equal(first, second)


def test_a_timm_model_for_other_sizes_says_so() -> None:
    """Models whose windows must divide the image are refused with what to change."""
    network = build_timm("maxvit_rmlp_pico_rw_256")
    with pytest.raises(ConfigurationError, match="does not take an input of 224x224"):
        network(image(1, 224, 224), network.initial_state(1, 224, 224))


def test_missing_timm_is_explained() -> None:
    """Without timm, or without the model, the sentence says so."""
    with pytest.raises(ConfigurationError, match="timm"):
        TimmEncoder("there_is_no_such_model")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((1, 3, 70, 97), "multiples of 14"),
        ((1, 1, 70, 98), "batch, 3, height, width"),
        ((3, 70, 98), "batch, 3, height, width"),
    ],
)
def test_wrong_images_are_refused(shape: tuple[int, ...], reason: str) -> None:
    """An image of a wrong shape is refused with the shape that is needed."""
    network = build_network(variant("tiny", recurrence=None))
    with pytest.raises(ConfigurationError, match=reason):
        network(torch.zeros(shape))
    with pytest.raises(ConfigurationError, match="floats"):
        network(torch.zeros(1, 3, 70, 98, dtype=torch.uint8))


def test_wrong_states_are_refused() -> None:
    """A state of another network, and an input too small to have one, are refused."""
    network = build_network(variant("tiny"))
    assert isinstance(network, DepthAnyEventR)
    with pytest.raises(ConfigurationError, match="keeps 8"):
        network(image(), network.initial_state(1, 70, 98)[:4])
    with pytest.raises(ConfigurationError, match="too small"):
        network.initial_state(1, 56, 98)
    frames = build_network(variant("tiny", recurrence=None))
    with pytest.raises(ConfigurationError, match="keeps none"):
        frames(image(), network.initial_state(1, 70, 98))


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "vitx"},
        {"features": 7},
        {"reassemble": (1, 2, 3)},
        {"recurrence": "lstm"},
        {"activation": "gelu"},
        {"output_scale": float("nan")},
        {"recurrent_padding": 2},
        {"activation": "exp", "inv_prediction": True},
        {"input_channels": 1},
        {"input_channels": 2},
        {"input_height": 0},
    ],
)
def test_bad_configurations_are_refused(change: dict[str, object]) -> None:
    """Every field of a configuration is checked, and a good one survives JSON."""
    with pytest.raises(ConfigurationError):
        variant("tiny").from_dict({**variant("tiny").to_dict(), **change})
    assert ModelConfig.from_dict(variant("vitl").to_dict()) == variant("vitl")
    with pytest.raises(ConfigurationError, match="unknown fields"):
        ModelConfig.from_dict({**variant("tiny").to_dict(), "patch": 16})


@pytest.mark.parametrize(
    "values",
    [
        {"scale": "metric"},
        {"metres_scale": 2.0, "orientation": "depth"},
        {"metres_scale": 2.0, "metres_shift": 0.0},
        {"metres_scale": -2.0, "metres_shift": 0.0, "orientation": "depth"},
        {"orientation": "far"},
        {"event_encoder": "voxels"},
    ],
)
def test_bad_meanings_are_refused(values: dict[str, object]) -> None:
    """What a number means cannot contradict itself, and a good meaning survives JSON."""
    with pytest.raises(ConfigurationError):
        Meaning.from_dict(values)
    good = Meaning(orientation="inverse_depth", metres_scale=0.1, metres_shift=0.01)
    assert Meaning.from_dict(dataclasses.asdict(good)) == good


def test_recurrence_decides_the_class() -> None:
    """A network with a recurrence cannot be built without, nor the other way round."""
    with pytest.raises(ConfigurationError):
        DepthAnyEventR(variant("tiny", recurrence=None))
    with pytest.raises(ConfigurationError):
        DepthAnyEvent(variant("tiny"))
    with pytest.raises(ConfigurationError):
        DepthAnythingV2(variant("tiny", recurrence=None))


@pytest.mark.parametrize(
    ("name", "digest", "steps"),
    [
        ("tiny", "d0db963c67105a704e60b2a090b07c4033934ea8ce3710bcadd41b11cb947b01", 100),
        ("micro", "fead310a14c4b6985ff5bf7d160c1e42204cb1546a0c1b61c91f2ce3b4340fc9", 15),
        ("vits", "932dd4169b54520ab535b6969459a664d83f665e9d1dedf96460c3c5fb4ef2d1", 15),
    ],
)
def test_untrained_weights_are_reproducible_and_alive(name: str, digest: str, steps: int) -> None:
    """The same name gives the same bits; steps stay finite and vary over image and time."""
    model = untrained(name)
    assert model.digest == digest
    network = model.network
    assert isinstance(network, DepthAnyEventR)
    state = network.initial_state(1, 70, 98)
    before = torch.zeros(1)
    with torch.inference_mode():
        for step in range(steps):
            prediction, state = network(image(seed=step), state)
            assert not torch.equal(prediction, before)
            before = prediction
    assert torch.isfinite(prediction).all()
    assert prediction.std() > 0.05
    assert untrained("tiny", seed=1).digest != untrained("tiny").digest


def test_configuration_needs_no_torch() -> None:
    """The configuration, the manifest and fetching can be used without importing torch."""
    code = (
        "import sys, dae_ros.model.configuration, dae_ros.model.manifest, dae_ros.model.fetch, "
        "dae_ros.cli.models; sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
