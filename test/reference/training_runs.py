"""What a training run leaves in its folder, and settings to begin one."""

from __future__ import annotations

import csv
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from dae_ros.distillation.configuration import TrainingParameters, to_yaml


def weights(folder: Path, name: str = "last.safetensors") -> dict[str, object]:
    """Return every bit of a checkpoint: safetensors orders its meta-data as it likes."""
    tensors = load_file(folder / name)
    with safe_open(folder / name, "pt") as file:
        said: dict[str, str] = file.metadata()
    return {**{key: tensor.numpy().tobytes() for key, tensor in tensors.items()}, **said}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_settings(folder: Path, settings: TrainingParameters) -> Path:
    path = folder / "settings.yaml"
    path.write_text(to_yaml(settings), encoding="utf-8")
    return path
