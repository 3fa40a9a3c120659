"""Graphs that were exported on the way, by a process of its own, and kept for the next time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dae_ros.errors import ConfigurationError, WeightsError, reason_of
from dae_ros.installation import version
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.networks import config_to_dict
from dae_ros.runtime.onnx_description import FORMAT, OnnxDescription, read_description

# An export takes seconds for small networks, a minute or two for large ones.
_PATIENCE_S = 1200
_POLL_S = 0.1
_WRITING = ".exporting-"


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


def export_arguments(
    weights: str, path: Path, height: int, width: int, precision: str
) -> list[str]:
    """Return what `dae-ros` is given to put a graph where `exported_graph` finds it."""
    size = ["--height", str(height), "--width", str(width)]
    return ["export", weights, "--out", str(path), *size, "--precision", precision]


def exported_graph(
    weights: str,
    loaded: LoadedModel,
    height: int,
    width: int,
    precision: str,
    folder: Path,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Path, OnnxDescription]:
    """Return the exported graph of weights for a sensor, from the folder or made now.

    `dae-ros export` runs as a process of its own, so that steps of this one go on undisturbed; one
    at a time for each folder, whoever asks.

    Args:
        weights: as `load_weights` takes them.
        loaded: what they were when they were loaded here.
        height, width: of the sensor in px.
        precision: `float32` or `float16`.
        folder: for the file.
        stopped: asked now and then; an export under way is ended once it says yes.

    Raises:
        WeightsError: the export failed, was refused or stopped, the folder cannot be written, or
            the weights are others by now.
    """
    path = folder / graph_name(loaded, height, width, precision)
    try:
        # It may have been deleted since it was chosen.
        folder.mkdir(parents=True, exist_ok=True)
        return path, _made(weights, loaded, height, width, precision, path, stopped)
    except OSError as error:
        raise WeightsError(
            f"{weights} could not be exported to {folder} ({reason_of(error)}); make room there, "
            "or set XDG_CACHE_HOME to a folder that may be written",
            weights=weights,
            path=str(folder),
        ) from error


def _made(
    weights: str,
    loaded: LoadedModel,
    height: int,
    width: int,
    precision: str,
    path: Path,
    stopped: Callable[[], bool],
) -> OnnxDescription:
    """Return what the graph at a path is, after an export where there is none yet."""
    kept = _kept(path, loaded)
    if kept is not None:
        return kept
    _give_way(stopped)
    with _alone(path.parent, stopped):
        # Another process may have made it meanwhile.
        kept = _kept(path, loaded)
        if kept is not None:
            return kept
        # Whoever holds the lock writes here alone, so that these are of processes that were killed.
        for left in path.parent.glob(f"{_WRITING}*"):
            shutil.rmtree(left, ignore_errors=True)
        # An export that is killed leaves half a graph behind, in a folder that goes with this.
        with tempfile.TemporaryDirectory(prefix=_WRITING, dir=path.parent) as folder:
            made = Path(folder) / path.name
            arguments = export_arguments(weights, made, height, width, precision)
            code, said = _run([sys.executable, "-m", "dae_ros.cli", *arguments], weights, stopped)
            if code != 0:
                raise WeightsError(
                    f"{weights} could not be exported for {height}x{width}: "
                    f"{said.strip().rpartition('dae-ros export: ')[2][-2000:]}",
                    weights=weights,
                )
            description = _verified(made, loaded)
            made.replace(path)
        return description


def _kept(path: Path, loaded: LoadedModel) -> OnnxDescription | None:
    """Return what a file of the cache is; a damaged one is removed, as it can be made again."""
    if not path.is_file():
        return None
    try:
        return _verified(path, loaded)
    except WeightsError:
        path.unlink(missing_ok=True)
        return None


@contextmanager
def _alone(folder: Path, stopped: Callable[[], bool]) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process that holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _give_way(stopped)
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def _run(command: list[str], weights: str, stopped: Callable[[], bool]) -> tuple[int, str]:
    """Run a process that must not outlive its purpose; return its exit code and errors."""
    deadline_s = time.monotonic() + _PATIENCE_S
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        while True:
            try:
                said = process.communicate(timeout=_POLL_S)[1]
                return process.returncode, said
            except subprocess.TimeoutExpired as error:
                _give_way(stopped)
                if time.monotonic() > deadline_s:
                    raise WeightsError(
                        f"{weights} could not be exported within {_PATIENCE_S} s", weights=weights
                    ) from error
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate()


def _give_way(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise WeightsError("the export was stopped, as nobody needs it any more")


def _verified(path: Path, loaded: LoadedModel) -> OnnxDescription:
    description = read_description(path)
    if description.digest != loaded.digest:
        raise WeightsError(
            f"{loaded.name} was replaced while it was exported; start again with the new file",
            digest=description.digest,
            expected=loaded.digest,
        )
    return description
