"""Understands the checkpoints of E2Depth.

Layout: github.com/uzh-rpg/rpg_e2depth at 17d453c175d94a6e4e666b4dafb64b072eb2df5d,
e2depth/base/base_trainer.py (_save_checkpoint), utils/loading_utils.py (load_model: the sizes are
in `model`, or in `model` inside of `config`), e2depth/model/model.py (defaults of the sizes).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.model.e2depth import E2DepthConfig
from dae_ros.model.log_depth import MAX_DEPTH_M

ARCHITECTURE = "E2VIDRecurrent"

# Field of the file -> ours, and what the published code takes where the field is missing.
_SIZES = {
    "num_bins": ("bins", None),
    "num_encoders": ("levels", 4),
    "base_num_channels": ("channels", 32),
    "num_residual_blocks": ("residual_blocks", 2),
}
# What every published configuration has; other values are other networks.
_FIXED: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "skip_type": ("sum", ("sum",)),
    "recurrent_block_type": ("convlstm", ("convlstm",)),
    "use_upsample_conv": (True, (True,)),
    "norm": (None, (None, "none")),
}


def is_e2depth(tensors: Mapping[str, Tensor]) -> bool:
    """Tell by the keys whether weights are those of E2Depth."""
    return any(key.startswith("unetrecurrent.") for key in tensors)


def read_e2depth(
    path: Path, content: Mapping[str, Any]
) -> tuple[E2DepthConfig, Meaning, tuple[str, ...]]:
    """Return configuration, meaning and notes of an unpickled checkpoint.

    The number is depth in metres as far as the training says so: it divided depth by the
    farthest of each frame, so metres hold where something is as far as `max_depth_m`. It is
    published as relative depth.

    Raises:
        WeightsError: if the file does not say its sizes, or they are of another network.
    """
    training = content.get("config")
    training = training if isinstance(training, Mapping) else {}
    model = content.get("model", training.get("model"))
    if not isinstance(model, Mapping):
        raise WeightsError(
            f"{path} does not say its sizes: it has neither 'model' nor 'config' with 'model'. "
            "Save them with the weights, as the authors' trainer does",
            path=str(path),
        )
    loader = training.get("data_loader")
    loader = loader if isinstance(loader, Mapping) else {}
    problems = []
    if content.get("arch", ARCHITECTURE) != ARCHITECTURE:
        problems.append(f"arch is {content['arch']!r}, not {ARCHITECTURE!r}")
    for key, (default, accepted) in _FIXED.items():
        if model.get(key, default) not in accepted:
            problems.append(f"{key} is {model[key]!r}; only {accepted[0]!r} is supported")
    if loader.get("inverse"):
        problems.append("it was trained on inverse depth, which is not supported")
    fields: dict[str, Any] = {}
    for key, (ours, standard) in _SIZES.items():
        value = model.get(key, standard)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            problems.append(f"{key} is {value!r}, not a whole number")
        else:
            fields[ours] = int(value)
    notes = ["trained on depth divided by the farthest of each frame; published as relative"]
    train = loader.get("train")
    clip_m = train.get("clip_distance") if isinstance(train, Mapping) else None
    if isinstance(clip_m, (int, float)) and not isinstance(clip_m, bool):
        fields["max_depth_m"] = float(clip_m)
    else:
        notes.append(f"the file names no clip_distance; {MAX_DEPTH_M:g} m is taken")
    if not problems:
        try:
            config = E2DepthConfig(**fields)
        except ConfigurationError as error:
            problems.append(error.message)
    if problems:
        raise WeightsError(
            f"{path}: its configuration cannot be used: {'; '.join(problems)}",
            path=str(path),
            problems=problems,
        )
    meaning = Meaning(event_encoder="voxel_grid", orientation="depth")
    return config, meaning, tuple(notes)
