"""Checkpoints as the authors of DepthAnyEvent save them: weights beside a configuration."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dae_ros.model.checkpoint import LoadedModel

AUTHORS = {
    "model": {
        "model_type": "RecDAv2",
        "encoder": "tiny",
        "activation": "softplus",
        "scale_factor": 1.0,
        "inv_prediction": True,
        "input_size_width": 350,
        "input_size_height": 266,
        "freeze_encoder": False,
        "input_channels": 3,
        "recurrent_block_type": "convlstm",
    },
    "data_loader": {
        "dataset": "mvsec",
        "use_voxels": True,
        "event_representation": {"representation_type": "tencode", "normalize": True},
    },
}


def weights_of(model: LoadedModel, *, recurrent: bool = True) -> dict[str, Tensor]:
    state = model.network.state_dict()
    return {key: value for key, value in state.items() if recurrent or ".gru_layer_" not in key}


def authors_file(path: Path, weights: dict[str, Tensor], **model: object) -> Path:
    config = {**AUTHORS, "model": {**AUTHORS["model"], **model}}
    torch.save({"state_dict": weights, "config": config, "epoch": 3}, path)
    return path
