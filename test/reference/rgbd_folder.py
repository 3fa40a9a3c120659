"""A folder of RGB-D frames in the layout of 7-Scenes, written number by number."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write(folder: Path, frames, matrix, intrinsics_in: Path | None = None, numbers=None) -> None:
    """Write frames (radiance 0..1, depth m with NaN, rotation, position), numbered from 0 on."""
    folder.mkdir(parents=True)
    (intrinsics_in or folder).joinpath("camera-intrinsics.txt").write_text(
        "\n".join(" ".join(f"{v:.9e}" for v in row) for row in matrix) + "\n"
    )
    for number, (radiance, depth, rotation, position) in zip(
        range(len(frames)) if numbers is None else numbers, frames, strict=True
    ):
        stem = folder / f"frame-{number:06d}"
        grey = np.rint(np.clip(radiance, 0.0, 1.0) ** (1 / 2.2) * 255).astype(np.uint8)
        cv2.imwrite(f"{stem}.color.png", np.stack([grey] * 3, axis=-1))
        mm = np.zeros(depth.shape, np.uint16)
        mm[np.isfinite(depth)] = np.rint(depth[np.isfinite(depth)] * 1000)
        cv2.imwrite(f"{stem}.depth.png", mm)
        rows = [[*rotation[k], position[k]] for k in range(3)] + [[0.0, 0.0, 0.0, 1.0]]
        Path(f"{stem}.pose.txt").write_text(
            "\n".join("\t".join(f"{v:.9e}" for v in row) for row in rows) + "\n"
        )
