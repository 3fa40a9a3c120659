"""Checkpoints on runtimes of graphs: exported once per size, kept, and changed while they run."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.checkpoint import LoadedModel, save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.background import THREAD_NAME
from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.estimator import ClosableEstimator, ReloadableEstimator
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.onnx_cache import cache_folder, exported_graph, graph_name
from dae_ros.runtime.onnx_export import export_onnx
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.warm_up import warm_up
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.noise_image import code_of_noise, noise_image

# Not importorskip: whoever imports onnxruntime first decides about its telemetry.
if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("the extra `onnx` is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    export_onnx(untrained("tiny"), path, 60, 80)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph_file: Path) -> Path:
    """Return a cache folder that holds the graph of untrained:tiny for 60x80."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder("onnx")
    kept = folder / graph_name(untrained("tiny"), 60, 80, "float32")
    kept.write_bytes(graph_file.read_bytes())
    return folder


def created(weights: str = "untrained:tiny") -> ExportedEstimator:
    estimator = create_estimator(
        DepthParameters(weights=weights, backend="onnxruntime", device="cpu", threads=1)
    )
    assert isinstance(estimator, ExportedEstimator)
    assert isinstance(estimator, ReloadableEstimator)
    return estimator


def changed(loaded: LoadedModel, share: float) -> LoadedModel:
    """Return a copy whose weights differ by a share of their size."""
    network = copy.deepcopy(loaded.network)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter += share * parameter.norm() * drawn / drawn.norm()
    return dataclasses.replace(loaded, network=network)


def test_kept_graphs_are_used_without_an_export(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph in the cache folder is opened at the first image; warming up waits for its size."""
    monkeypatch.setattr(subprocess, "run", None)
    estimator, reference = created(), TorchEstimator(untrained("tiny"))
    for attribute in ("name", "digest", "notes", "meaning", "input_channels", "weight_version"):
        assert getattr(estimator, attribute) == getattr(reference, attribute)
    warm_up(estimator)
    assert (estimator.sensor_size, estimator.state_arrays()) == (None, ())
    for image in (noise_image(0), code_of_noise(1), noise_image(2)):
        expected = reference.estimate(image)
        actual = estimator.estimate(image)
        np.testing.assert_allclose(actual, expected, atol=1e-3 * expected.std())
    assert (estimator.sensor_size, estimator.state_age) == ((60, 80), 3)
    estimator.reset()
    assert estimator.state_age == 0
    with pytest.raises(ConfigurationError, match=r"float32\[3"):
        estimator.estimate(np.zeros((1, 60, 80), np.float32))


def test_file_names_tell_all_that_matters_apart() -> None:
    """Another meaning, size or precision is another file; the same content is the same file."""
    tiny = untrained("tiny")
    other = dataclasses.replace(
        tiny, meaning=dataclasses.replace(tiny.meaning, orientation="depth")
    )
    names = {
        graph_name(tiny, 60, 80, "float32"),
        graph_name(tiny, 80, 60, "float32"),
        graph_name(tiny, 60, 80, "float16"),
        graph_name(other, 60, 80, "float32"),
        graph_name(untrained("tiny", seed=1), 60, 80, "float32"),
    }
    assert len(names) == 5
    assert graph_name(untrained("tiny"), 60, 80, "float32") in names


def test_a_cache_that_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the place of the folder names the variable that moves it."""
    (tmp_path / "dae_ros").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="XDG_CACHE_HOME"):
        created()


@pytest.mark.slow
def test_weights_that_are_gone_fail_once_and_fast(cache: Path, tmp_path: Path) -> None:
    """What cannot be exported fails the step with the reason, and the next one without a wait."""
    path = tmp_path / "w.safetensors"
    loaded = untrained("tiny")
    save_checkpoint(path, loaded.network, loaded.meaning)
    estimator = created(str(path))
    path.unlink()
    for _ in range(2):
        with pytest.raises(InferenceError, match="could not be exported for 60x80: there is no"):
            estimator.estimate(noise_image())
        (tmp_path / "w.safetensors").mkdir(exist_ok=True)  # another answer, if it were asked
    assert len(list(cache.iterdir())) == 1


@pytest.mark.slow
def test_damaged_graphs_are_made_again(cache: Path) -> None:
    """A cached file with a flipped byte is exported again, by a process of its own."""
    (kept,) = cache.iterdir()
    data = bytearray(kept.read_bytes())
    data[5000] ^= 1
    kept.write_bytes(data)
    actual = created().estimate(noise_image())
    expected = TorchEstimator(untrained("tiny")).estimate(noise_image())
    np.testing.assert_allclose(actual, expected, atol=1e-3 * expected.std())
    assert kept.read_bytes() != data


@pytest.mark.slow
def test_weights_change_between_two_windows(cache: Path, tmp_path: Path) -> None:
    """A new version is exported, rehearsed and used; from then on the output is that of PyTorch."""
    tiny = untrained("tiny")
    path = tmp_path / "w_000001.safetensors"
    new = changed(tiny, 0.01)
    digest = save_checkpoint(path, new.network, new.meaning)
    verdicts: list[Verdict] = []
    swap = WeightSwap(
        created(),
        SwapRules(replay_windows=4, canary_windows=8, latency=1e9),
        judged=verdicts.append,
        eager=True,
        background=False,
    )
    windows = [noise_image(seed) for seed in range(20)]
    for window in windows[:6]:
        swap.estimate(window)
    swap.announce(Announcement(1, path, digest, path.stat().st_size))
    outputs = [swap.estimate(window) for window in windows[6:]]
    fresh = TorchEstimator(new)
    expected = [fresh.estimate(window) for window in windows[2:]][4:]
    for output, other in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, other, atol=2e-3 * other.std())
    assert [(v.version, v.outcome) for v in verdicts] == [(1, "swapped"), (1, "kept")]


@pytest.mark.slow
def test_successors_stand_beside_the_weights_in_use(cache: Path, tmp_path: Path) -> None:
    """A successor has its own state, knows how far it is away, and may take the state over."""
    estimator, tiny = created(), untrained("tiny")
    path = tmp_path / "w.safetensors"
    new = changed(tiny, 0.1)
    digest = save_checkpoint(path, new.network, new.meaning)
    early = estimator.successor(path, 3)  # before an image told the size
    assert (early.sensor_size, early.digest, early.weight_version) == (None, digest, 3)
    assert early.weight_change(estimator) == pytest.approx(0.1, rel=1e-3)
    estimator.estimate(noise_image())
    successor = estimator.successor(path, 4)
    assert (successor.sensor_size, successor.state_age) == ((60, 80), 0)
    successor.adopt_state(estimator)
    assert successor.state_age == 1
    for ours, theirs in zip(successor.state_arrays(), estimator.state_arrays(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(
        successor.estimate(noise_image(1)), estimator.estimate(noise_image(1))
    )
    other = dataclasses.replace(tiny.meaning, orientation="depth")
    save_checkpoint(path, new.network, other)
    with pytest.raises(WeightsError, match="means something else"):
        estimator.successor(path, 5)


def test_the_end_of_a_node_ends_exports_of_all_its_weights(cache: Path, tmp_path: Path) -> None:
    """Closing weights that are followed ends what loads beside them, and no export begins."""
    tiny, path = untrained("tiny"), tmp_path / "w_000001.safetensors"
    new = changed(tiny, 0.01)
    digest = save_checkpoint(path, new.network, new.meaning)
    verdicts: list[Verdict] = []
    swap = WeightSwap(created(), SwapRules(), judged=verdicts.append, eager=False)
    assert isinstance(swap, ClosableEstimator)
    swap.estimate(noise_image())
    swap.announce(Announcement(1, path, digest, path.stat().st_size))
    swap.close(60.0)
    assert THREAD_NAME not in [thread.name for thread in threading.enumerate()]
    swap.estimate(noise_image())
    assert [(v.outcome, v.code) for v in verdicts] == [("refused", "backend")]
    assert "stopped" in verdicts[0].reason
    with pytest.raises(InferenceError, match="stopped"):
        swap.estimate(noise_image(height=61))


def test_a_successor_is_closed_with_the_weights_that_it_follows(
    cache: Path, tmp_path: Path
) -> None:
    """It begins no export either, also where it was loaded before the size was known."""
    tiny, path = untrained("tiny"), tmp_path / "w.safetensors"
    save_checkpoint(path, tiny.network, tiny.meaning)
    estimator = created()
    successor = estimator.successor(path, 1)
    estimator.close()
    with pytest.raises(InferenceError, match="stopped"):
        successor.estimate(noise_image(height=61))


@pytest.mark.slow
def test_a_stopped_export_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    """Neither what it was writing is left, nor what a process left that was killed with its own."""
    folder, loaded = tmp_path / "gone", untrained("tiny")

    def writing() -> bool:
        return any(folder.rglob("*.onnx"))

    with pytest.raises(WeightsError, match="stopped"):
        exported_graph("untrained:tiny", loaded, 60, 80, "float32", folder, stopped=writing)
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Folders that nobody writes to any more go with the next export."""
    left, foreign = tmp_path / ".exporting-x" / ".export-y", tmp_path / ".export-z"
    for folder in (left, foreign):
        folder.mkdir(parents=True)
        (folder / "half.onnx").write_bytes(b"half")
    asked = iter([False, True])
    with pytest.raises(WeightsError, match="stopped"):
        exported_graph(
            "untrained:tiny", untrained("tiny"), 60, 80, "float32", tmp_path,
            stopped=lambda: next(asked, True),
        )  # fmt: skip
    # The other one is of a `dae-ros export` that a user may be running.
    assert list(tmp_path.iterdir()) == [foreign]


def test_a_cache_that_went_away_fails_the_step_alone(cache: Path) -> None:
    """A file in the place of the deleted folder refuses the size; it does not end the thread."""
    estimator = created()
    shutil.rmtree(cache.parent)
    cache.parent.write_text("in the way")
    with pytest.raises(InferenceError, match=re.escape(str(cache))):
        estimator.estimate(noise_image())
