"""What `auto` chooses and why, and how another backend takes over from PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import backend_choice, backends, gpus, graph_backends
from dae_ros.runtime.backend_choice import BackendChoice, choose_backend
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.onnx_cache import cache_folder, graph_name
from dae_ros.runtime.onnx_export import export_onnx
from dae_ros.runtime.openvino_graph import load_openvino
from dae_ros.runtime.takeover import TakeoverEstimator
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.warm_up import warm_up
from test.reference.noise_image import noise_image

CHECKPOINT = DepthParameters(weights="a.pth")
needs_openvino = pytest.mark.skipif(
    bool(backend_choice.missing_packages()), reason="the extra `openvino` is not installed"
)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of packages that can be found; a test may remove some."""
    names = {*backend_choice.OPENVINO_PACKAGES, "torch"}
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find("numpy") if name in names else None
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpus, "driver_gpus", lambda: 0)
    return names


def choice(**values: object) -> tuple[str, str]:
    chosen = choose_backend(dataclasses.replace(CHECKPOINT, **values))
    return chosen.backend, chosen.reason


def test_live_on_a_cpu_auto_is_openvino(installed: set[str]) -> None:
    """Where time decides what is seen the fastest backend installed is chosen."""
    for values in ({}, {"device": "cpu"}, {"overload": "merge"}, {"precision": "bfloat16"}):
        backend, reason = choice(**values)
        assert (backend, "fastest on a CPU" in reason) == ("openvino", True)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"overload": "queue"}, "no window is skipped"),
        ({"follow_snapshots": True}, "weights change while it runs"),
        ({"precision": "float16"}, "does not compute in float16"),
    ],
)
def test_auto_stays_with_pytorch_and_says_why(
    installed: set[str], values: dict[str, object], reason: str
) -> None:
    """Recordings, learning and half precision do not change their backend."""
    backend, said = choice(**values)
    assert backend == "torch" and reason in said


def test_what_is_not_installed_is_named(installed: set[str]) -> None:
    """The reason names the packages that are missing and the extra that brings them."""
    installed -= {"openvino", "onnxscript"}
    backend, reason = choice()
    assert backend == "torch" and "openvino, onnxscript" in reason and "extra" in reason
    installed |= {"openvino", "onnxscript"}
    installed.remove("torch")
    assert choice() == ("torch", "a checkpoint needs it")


def test_a_backend_that_is_asked_for_is_taken(installed: set[str]) -> None:
    """No rule of `auto` changes what the user says."""
    for name in ("torch", "onnxruntime", "tensorrt", "openvino"):
        assert choice(backend=name, overload="queue") == (name, "the parameter 'backend' says so")


def test_who_names_the_gpu_does_not_get_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `device: cuda` a checkpoint is of onnxruntime alone where PyTorch sees no GPU."""
    made: list[str] = []
    chosen = BackendChoice("onnxruntime", "there is a GPU that onnxruntime sees")
    monkeypatch.setattr(backends, "choose_backend", lambda _: chosen)
    monkeypatch.setattr(graph_backends, "create_graph_estimator", lambda _, name: made.append(name))
    assert create_estimator(DepthParameters(weights="untrained:tiny", device="cuda")) is None
    assert made == ["onnxruntime"]
    estimator = create_estimator(DepthParameters(weights="untrained:tiny"))
    assert isinstance(estimator, TakeoverEstimator) and made == ["onnxruntime"]


def step_until_settled(estimator: TakeoverEstimator, images: list[NDArray[np.float32]]) -> list:
    """Return the outputs; before the third step whatever is loaded in the background is there."""
    outputs = []
    for number, one in enumerate(images):
        deadline_s = time.monotonic() + 120.0
        while number == 2 and not (estimator._pending and estimator._pending.done()):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        outputs.append(estimator.estimate(one))
    return outputs


@needs_openvino
def test_openvino_takes_over_with_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live `auto` steps on PyTorch, then on OpenVINO, as if PyTorch had gone on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = untrained("tiny")
    export_onnx(tiny, cache_folder("onnx") / graph_name(tiny, 60, 80, "float32"), 60, 80)
    parameters = DepthParameters(weights="untrained:tiny", device="cpu", threads=1)
    estimator, reference = create_estimator(parameters), TorchEstimator(untrained("tiny"))
    assert isinstance(estimator, TakeoverEstimator)
    for attribute in ("name", "digest", "notes", "meaning", "input_channels", "weight_version"):
        assert getattr(estimator, attribute) == getattr(reference, attribute)
    warm_up(estimator)
    assert estimator._pending is None, "the size of the warm-up is no camera's"
    assert str(estimator.choice).startswith("torch (until openvino has the network")
    images = [noise_image(seed) for seed in range(6)]
    expected = [reference.estimate(one) for one in images]
    outputs = step_until_settled(estimator, images)
    assert estimator.choice == choose_backend(parameters)
    assert estimator.choice.backend == "openvino" and estimator.state_age == 6
    for number, (output, other) in enumerate(zip(outputs, expected, strict=True)):
        if number < 2:
            np.testing.assert_array_equal(output, other)
        else:
            assert not np.array_equal(output, other)
            np.testing.assert_allclose(output, other, atol=2e-3 * other.std())
    estimator.reset()
    assert estimator.state_age == 0


def test_pytorch_goes_on_where_nothing_can_take_over() -> None:
    """A refused export costs no window, and `choice` has its reason."""

    def load() -> ExportedEstimator:
        raise WeightsError("PyTorch has no ONNX operators for a part of it")

    first, reference = TorchEstimator(untrained("tiny")), TorchEstimator(untrained("tiny"))
    estimator = TakeoverEstimator(first, load, BackendChoice("openvino", "the fastest"))
    images = [noise_image(seed) for seed in range(5)]
    for output, one in zip(step_until_settled(estimator, images), images, strict=True):
        np.testing.assert_array_equal(output, reference.estimate(one))
    assert estimator.choice.backend == "torch"
    assert "openvino cannot run these weights: PyTorch has no ONNX" in estimator.choice.reason


def test_other_weights_never_take_over(tmp_path: Path) -> None:
    """A file that was replaced while it was exported is refused: names and digests stay true."""
    path = tmp_path / "w.safetensors"
    other = untrained("tiny", seed=1)
    save_checkpoint(path, other.network, other.meaning)

    def load() -> ExportedEstimator:
        return ExportedEstimator(
            str(path), other, lambda *_: pytest.fail("opened"), precision="float32", folder=tmp_path
        )

    first = TorchEstimator(untrained("tiny"))
    estimator = TakeoverEstimator(first, load, BackendChoice("openvino", "the fastest"))
    step_until_settled(estimator, [noise_image(seed) for seed in range(3)])
    assert estimator.choice.backend == "torch" and "was replaced" in estimator.choice.reason


def test_whatever_ends_the_other_backend_pytorch_goes_on() -> None:
    """Also an error that nobody has thought of, in the background or in a step."""

    def load() -> ExportedEstimator:
        raise OSError("libopenvino.so: cannot open shared object file")

    first, reference = TorchEstimator(untrained("tiny")), TorchEstimator(untrained("tiny"))
    estimator = TakeoverEstimator(first, load, BackendChoice("openvino", "the fastest"))
    images = [noise_image(seed) for seed in range(4)]
    for output, one in zip(step_until_settled(estimator, images), images, strict=True):
        np.testing.assert_array_equal(output, reference.estimate(one))
    assert "OSError: libopenvino.so" in estimator.choice.reason


def test_a_broken_openvino_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is found and cannot be imported is no error of the program."""
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("raise ImportError('wrong glibc')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    with pytest.raises(ConfigurationError, match=r"cannot be imported \(wrong glibc\)"):
        load_openvino()


@pytest.fixture
def two_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TakeoverEstimator:
    """Return an estimator for which graphs of 60x80 and 40x60 are in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = untrained("tiny")
    for height, width in ((60, 80), (40, 60)):
        path = cache_folder("onnx") / graph_name(tiny, height, width, "float32")
        export_onnx(tiny, path, height, width)
    estimator = create_estimator(DepthParameters(weights="untrained:tiny", device="cpu", threads=1))
    assert isinstance(estimator, TakeoverEstimator)
    return estimator


@needs_openvino
def test_a_sensor_of_another_size_does_not_wait(two_sizes: TakeoverEstimator) -> None:
    """PyTorch takes it at once, with a new state, until its own graph takes over."""
    step_until_settled(two_sizes, [noise_image(seed) for seed in range(3)])
    assert two_sizes.choice.backend == "openvino"
    small = [noise_image(seed, 40, 60) for seed in range(4)]
    reference = TorchEstimator(untrained("tiny"))
    np.testing.assert_array_equal(two_sizes.estimate(small[0]), reference.estimate(small[0]))
    assert two_sizes.choice.backend == "torch" and two_sizes.state_age == 1
    step_until_settled(two_sizes, small[1:])
    assert two_sizes.choice.backend == "openvino" and two_sizes.state_age == 4


@needs_openvino
def test_a_graph_of_a_size_that_is_gone_is_left(two_sizes: TakeoverEstimator) -> None:
    """It never runs, and the size that came instead gets its own."""
    for seed in range(2):
        two_sizes.estimate(noise_image(seed))
    step_until_settled(two_sizes, [noise_image(seed, 40, 60) for seed in range(3)])
    assert two_sizes.choice.backend == "torch" and two_sizes.state_age == 3
    two_sizes.estimate(noise_image(3, 40, 60))
    step_until_settled(two_sizes, [noise_image(seed, 40, 60) for seed in range(3)])
    assert two_sizes.choice.backend == "openvino"


@needs_openvino
def test_a_backend_that_fails_gives_way(
    two_sizes: TakeoverEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is not lost: PyTorch steps it, and goes on."""
    step_until_settled(two_sizes, [noise_image(seed) for seed in range(3)])
    other = two_sizes._other
    assert other is not None

    def fail(_: object) -> None:
        raise InferenceError("out of memory")

    monkeypatch.setattr(other, "estimate", fail)
    expected = TorchEstimator(untrained("tiny")).estimate(noise_image(3))
    np.testing.assert_array_equal(two_sizes.estimate(noise_image(3)), expected)
    two_sizes.estimate(noise_image(4))
    assert str(two_sizes.choice) == "torch (openvino failed: out of memory)"
    assert two_sizes._other is two_sizes._loading is None, "what failed stays in memory"


def test_an_export_ends_with_those_who_wanted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing ends threads and processes, and leaves nothing in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parameters = DepthParameters(weights="untrained:tiny", device="cpu", threads=1)
    if choose_backend(parameters).backend != "openvino":
        pytest.skip("the extra `openvino` is not installed")
    threads = threading.active_count()
    estimators = [create_estimator(parameters) for _ in range(2)]
    for estimator in estimators:
        for seed in range(2):
            estimator.estimate(noise_image(seed))
    assert threading.active_count() == threads + 2
    deadline_s = time.monotonic() + 120.0
    while not exports(tmp_path):
        assert time.monotonic() < deadline_s
    # One at a time, though two are wanted.
    time.sleep(0.5)
    assert len(exports(tmp_path)) <= 1
    for estimator in estimators:
        assert isinstance(estimator, TakeoverEstimator)
        estimator.close(10.0)
        estimator.estimate(noise_image(2))
    # What was in native code ends when it comes back, on a slow machine after `close` has.
    deadline_s = time.monotonic() + 120.0
    while threading.active_count() > threads:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert exports(tmp_path) == []
    assert not list(tmp_path.rglob("*.onnx"))


def exports(folder: Path) -> list[str]:
    """Return the command lines of processes that export into a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "dae_ros.cli export" in line and str(folder) in line:
                found.append(line)
    return found
