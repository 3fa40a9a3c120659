"""Graphs that were exported on the way, by a process of its own, and kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from dae_ros.errors import ConfigurationError, WeightsError, reason_of
from dae_ros.installation import version
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.networks import config_to_dict
from dae_ros.runtime.onnx_description import FORMAT, OnnxDescription, read_description

# An export takes seconds for small networks, a minute or two for large ones.
_PATIENCE_S = 1200


def cache_folder(name: str) -> Path:
    """Return (and make) $XDG_CACHE_HOME/dae_ros/<name>; the default is ~/.cache.

    Raises:
        ConfigurationError: it cannot be made.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(home) if home else Path.home() / ".cache") / "dae_ros" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be made ({reason_of(error)}); set XDG_CACHE_HOME to a folder that "
            "may be written",
            path=str(folder),
        ) from error
    return folder


def graph_name(loaded: LoadedModel, height: int, width: int, precision: str) -> str:
    """Return the file name of an exported graph: the same for the same content alone."""
    facts = {
        "config": config_to_dict(loaded.config),
        "meaning": loaded.meaning.to_dict(),
        "format": FORMAT,
        "version": version(),
    }
    rest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{loaded.digest[:16]}-{rest[:8]}-{height}x{width}-{precision}.onnx"


def exported_graph(
    weights: str, loaded: LoadedModel, height: int, width: int, precision: str, folder: Path
) -> tuple[Path, OnnxDescription]:
    """Return the exported graph of weights for a sensor, from the folder or made now.

    `dae-ros export` runs as a process of its own, so that steps of this one go on undisturbed.

    Args:
        weights: as `load_weights` takes them.
        loaded: what they were when they were loaded here.
        height, width: of the sensor in px.
        precision: `float32` or `float16`.
        folder: for the file.

    Raises:
        WeightsError: the export failed or was refused, or the weights are others by now.
    """
    path = folder / graph_name(loaded, height, width, precision)
    if path.is_file():
        try:
            return path, _verified(path, loaded)
        except WeightsError:
            # A cache may be damaged; what is in it can be made again.
            path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "dae_ros.cli", "export", weights, "--out", str(path)]
    command += ["--height", str(height), "--width", str(width), "--precision", precision]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(f"{weights} could not be exported: {error}", weights=weights) from error
    if done.returncode != 0:
        raise WeightsError(
            f"{weights} could not be exported for {height}x{width}: "
            f"{done.stderr.strip().rpartition('dae-ros export: ')[2][-2000:]}",
            weights=weights,
        )
    return path, _verified(path, loaded)


def _verified(path: Path, loaded: LoadedModel) -> OnnxDescription:
    description = read_description(path)
    if description.digest != loaded.digest:
        raise WeightsError(
            f"{loaded.name} was replaced while it was exported; start again with the new file",
            digest=description.digest,
            expected=loaded.digest,
        )
    return description
