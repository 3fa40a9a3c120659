"""Depth Anything V2 against the implementation of transformers, where that is installed.

Only on the square grid that the positions were trained on: elsewhere transformers resizes them
by size, the published code by scale factors.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from dae_ros.model.backbone import VisionTransformer
from dae_ros.model.configuration import ModelConfig, TransformerSize
from dae_ros.model.dav2 import DepthAnythingV2

SIZE = TransformerSize(width=16, depth=4, heads=2, taps=(0, 1, 2, 3))
CONFIG = ModelConfig(
    encoder="tiny",
    features=8,
    reassemble=(4, 6, 8, 8),
    recurrence=None,
    activation="relu",
    head_align_corners=True,
)
# Our key -> theirs; the rest is the same under another root.
RULES = (
    (r"pretrained\.(cls_token|mask_token)", r"backbone.embeddings.\1"),
    (r"pretrained\.pos_embed", r"backbone.embeddings.position_embeddings"),
    (r"pretrained\.patch_embed\.proj", r"backbone.embeddings.patch_embeddings.projection"),
    (r"pretrained\.norm", r"backbone.layernorm"),
    (
        r"pretrained\.blocks\.(\d+)\.ls(\d)\.gamma",
        r"backbone.encoder.layer.\1.layer_scale\2.lambda1",
    ),
    (r"pretrained\.blocks\.(\d+)\.attn\.proj", r"backbone.encoder.layer.\1.attention.o_proj"),
    (r"pretrained\.blocks\.", r"backbone.encoder.layer."),
    (r"depth_head\.projects\.(\d)", r"neck.reassemble_stage.layers.\1.projection"),
    (r"depth_head\.resize_layers\.(\d)", r"neck.reassemble_stage.layers.\1.resize"),
    (r"depth_head\.scratch\.output_conv1", "head.conv1"),
    (r"depth_head\.scratch\.output_conv2\.0", "head.conv2"),
    (r"depth_head\.scratch\.output_conv2\.2", "head.conv3"),
    (r"out_conv", "projection"),
    (r"resConfUnit(\d)\.conv(\d)", r"residual_layer\1.convolution\2"),
)


def theirs(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under the keys of transformers 5."""
    out = {}
    for key, value in weights.items():
        name = key
        for ours, other in RULES:
            name = re.sub(ours, other, name)
        name = re.sub(
            r"depth_head\.scratch\.layer(\d)_rn",
            lambda m: f"neck.convs.{int(m[1]) - 1}",
            name,
        )
        # Their fusion counts from the coarsest level.
        name = re.sub(
            r"depth_head\.scratch\.refinenet(\d)",
            lambda m: f"neck.fusion_stage.layers.{4 - int(m[1])}",
            name,
        )
        if ".attn.qkv." in name:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                out[name.replace("attn.qkv", f"attention.{part}_proj")] = piece
        else:
            out[name] = value
    return out


@pytest.fixture(scope="module")
def oracle() -> Any:
    try:
        import transformers
    except ImportError as error:
        pytest.skip(f"transformers cannot be imported ({error}); it is only an oracle here")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip(f"keys are mapped for transformers 5, not {transformers.__version__}")
    backbone = transformers.Dinov2Config(
        hidden_size=SIZE.width,
        num_hidden_layers=SIZE.depth,
        num_attention_heads=SIZE.heads,
        image_size=SIZE.grid * SIZE.patch_px,
        patch_size=SIZE.patch_px,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=SIZE.width,
        neck_hidden_sizes=list(CONFIG.reassemble),
        fusion_hidden_size=CONFIG.features,
        head_hidden_size=32,
        patch_size=SIZE.patch_px,
    )
    return transformers.DepthAnythingForDepthEstimation(config).eval()


def test_native_square_grid_agrees(oracle: Any) -> None:
    """On 518x518 a relative Depth Anything V2 gives the numbers of transformers."""
    torch.manual_seed(0)
    ours = DepthAnythingV2(CONFIG, VisionTransformer(SIZE)).eval()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.normal_(0.0, 0.3)
    oracle.load_state_dict(theirs(ours.state_dict()), strict=True)
    image = torch.randn(1, 3, 518, 518)
    with torch.inference_mode():
        expected = oracle(image).predicted_depth
        prediction, _ = ours(image, ())
        actual = prediction[:, 0]
    assert actual.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
