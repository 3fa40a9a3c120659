"""A small recipe of clips, made in a second or two."""

from __future__ import annotations

from pathlib import Path

RECIPE = """\
event_encoder: tencode
every_world:
  height: 40
  width: 56
  duration_s: 0.15
  contrast_threshold: {uniform: [0.15, 0.4]}
train:
  - world: {scene: room}
    seeds: [1, 2]
heldout:
  - world: {scene: corridor, light: {choice: [day, dusk]}}
    seeds: [1000, 1000]
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path
