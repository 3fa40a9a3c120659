"""What `auto` chooses for every machine, precision and kind of weights, and that it can run."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import backend_choice, gpus
from dae_ros.runtime.arithmetic import chosen_precision
from dae_ros.runtime.backend_choice import choose_backend
from dae_ros.runtime.graph_backends import runtime_device
from dae_ros.runtime.onnx_description import OnnxDescription, metadata_bytes

# A serialized ModelProto whose graph (field 7) is of one byte.
MODEL, GRAPH = b"\x3a\x01g", b"g"
WEIGHTS = ("checkpoint", "float32", "float16", "int8")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class Machine:
    """GPUs, and what is installed for them."""

    driver_gpus: int = 0
    torch_gpus: int = 0
    onnxruntime: tuple[str, ...] = ("CPUExecutionProvider",)
    openvino: bool = True
    cuda_loads: bool = True


CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")
TENSORRT = ("TensorrtExecutionProvider", *CUDA)
PLAIN = Machine()
BARE = Machine(onnxruntime=(), openvino=False)
NO_OPENVINO = Machine(openvino=False)
GPU = Machine(1, 1, TENSORRT)
GPU_OF_TORCH = Machine(1, 1)
GPU_OF_ONNXRUNTIME = Machine(1, 0, CUDA)
# Its libraries, of pip or of the system, are missing or of other versions.
BROKEN_CUDA = Machine(1, 0, CUDA, cuda_loads=False)
BROKEN_CUDA_ALONE = Machine(1, 0, CUDA, openvino=False, cuda_loads=False)
# onnxruntime-gpu on a machine without a GPU lists CUDA all the same.
CUDA_WITHOUT_GPU = Machine(0, 0, CUDA)
MACHINES = {
    "plain": PLAIN, "bare": BARE, "no_openvino": NO_OPENVINO, "gpu": GPU,
    "gpu_of_torch": GPU_OF_TORCH, "gpu_of_onnxruntime": GPU_OF_ONNXRUNTIME,
    "cuda_without_gpu": CUDA_WITHOUT_GPU, "broken_cuda": BROKEN_CUDA,
    "broken_cuda_alone": BROKEN_CUDA_ALONE,
}  # fmt: skip

# machine, weights, device, precision -> backend, part of the reason
TABLE = [
    (PLAIN, "checkpoint", "auto", "auto", "openvino", "the fastest on a CPU"),
    (PLAIN, "checkpoint", "auto", "float16", "torch", "does not compute in float16"),
    (NO_OPENVINO, "checkpoint", "cpu", "auto", "torch", "needs openvino"),
    (GPU, "checkpoint", "auto", "auto", "torch", "TensorRT is faster there was not measured"),
    (GPU, "checkpoint", "cuda", "float16", "torch", "without an export"),
    (GPU, "checkpoint", "cpu", "auto", "openvino", "the fastest on a CPU"),
    (GPU_OF_ONNXRUNTIME, "checkpoint", "auto", "auto", "onnxruntime", "PyTorch does not"),
    (GPU_OF_ONNXRUNTIME, "checkpoint", "cuda", "auto", "onnxruntime", "PyTorch does not"),
    (GPU_OF_ONNXRUNTIME, "checkpoint", "auto", "bfloat16", "openvino", "the fastest on a CPU"),
    (BROKEN_CUDA, "checkpoint", "auto", "auto", "openvino", "onnxruntime cannot load its CUDA"),
    (BROKEN_CUDA_ALONE, "checkpoint", "auto", "auto", "torch", "cannot load its CUDA"),
    (CUDA_WITHOUT_GPU, "checkpoint", "auto", "auto", "openvino", "the fastest on a CPU"),
    (PLAIN, "float32", "auto", "auto", "openvino", "the fastest on a CPU"),
    (PLAIN, "float32", "auto", "bfloat16", "openvino", "the fastest on a CPU"),
    (PLAIN, "float16", "auto", "auto", "openvino", "the fastest on a CPU"),
    (PLAIN, "float16", "auto", "float16", "onnxruntime", "openvino does not compute in float16"),
    (PLAIN, "int8", "auto", "auto", "openvino", "the fastest on a CPU"),
    (NO_OPENVINO, "float32", "auto", "auto", "onnxruntime", "extra `openvino`"),
    (GPU, "float32", "auto", "auto", "onnxruntime", "runs on a GPU"),
    (GPU, "float16", "auto", "float16", "onnxruntime", "runs on a GPU"),
    (GPU, "float32", "cuda", "auto", "onnxruntime", "runs on cuda"),
    (GPU, "float32", "cpu", "auto", "openvino", "the fastest on a CPU"),
    (GPU, "float32", "auto", "bfloat16", "openvino", "onnxruntime does not compute in bfloat16"),
    (GPU, "int8", "auto", "auto", "openvino", "int8 was judged on OpenVINO alone"),
    (GPU_OF_TORCH, "float32", "auto", "auto", "openvino", "no CUDA for the GPU here"),
    (GPU_OF_ONNXRUNTIME, "float32", "auto", "auto", "onnxruntime", "runs on a GPU"),
    (CUDA_WITHOUT_GPU, "float32", "auto", "auto", "openvino", "the fastest on a CPU"),
    (BROKEN_CUDA, "float32", "auto", "auto", "openvino", "onnxruntime cannot load its CUDA"),
    (BROKEN_CUDA, "float16", "auto", "float16", "onnxruntime", "cannot load its CUDA"),
    (BROKEN_CUDA_ALONE, "float32", "auto", "auto", "onnxruntime", "cannot load its CUDA"),
]
# machine, weights, device, precision -> part of the error
REFUSED = [
    (PLAIN, "checkpoint", "auto", "int8", "dae-ros export WEIGHTS"),
    (PLAIN, "checkpoint", "cuda", "auto", "sees 0 CUDA devices"),
    (BROKEN_CUDA, "checkpoint", "cuda", "auto", "sees 0 CUDA devices"),
    (PLAIN, "float32", "auto", "float16", "computes in what the file is of, float32"),
    (GPU, "float32", "cuda", "bfloat16", "does not compute in bfloat16"),
    (GPU, "int8", "cuda", "auto", "int8 was judged on OpenVINO alone"),
    (NO_OPENVINO, "int8", "auto", "auto", "extra `openvino`"),
    (NO_OPENVINO, "float16", "auto", "float32", "the file is of, float16"),
    (BARE, "float32", "auto", "auto", "onnxruntime is not installed"),
]


@pytest.fixture
def parameters_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what makes the parameters of weights on a machine that is then the present one."""

    def make(machine: Machine, weights: str, device: str, precision: str) -> DepthParameters:
        there = {"torch", "onnx", "onnxscript"}
        there |= {"onnxruntime"} if machine.onnxruntime else set()
        there |= {"openvino"} if machine.openvino else set()
        every = {*there, *backend_choice.OPENVINO_PACKAGES}
        find = importlib.util.find_spec

        def look(name: str) -> object:
            return (find("numpy") if name in there else None) if name in every else find(name)

        monkeypatch.setattr(backend_choice.importlib.util, "find_spec", look)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: machine.torch_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: machine.torch_gpus)
        for module in (gpus, backend_choice):
            monkeypatch.setattr(module, "driver_gpus", lambda: machine.driver_gpus)
        monkeypatch.setattr(gpus, "onnxruntime_providers", lambda: machine.onnxruntime)
        monkeypatch.setattr(gpus, "provider_loads", lambda _: machine.cuda_loads)
        name = "micro"
        if weights != "checkpoint":
            name = str(tmp_path / f"{weights}.onnx")
            described = OnnxDescription(
                name="w", digest="ab" * 32, notes=(), meaning=Meaning(), config={}, height=2,
                width=2, channels=3, states=(), precision=weights, opset=18, deviation=0.0,
                version="0",
            )  # fmt: skip
            Path(name).write_bytes(MODEL + metadata_bytes(GRAPH, described))
        return DepthParameters(weights=name, device=device, precision=precision)

    return make


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join(map(str, row[1:5])))
def test_auto_follows_the_table(parameters_of, row) -> None:
    """The device decides first, then what is installed there and has the precision."""
    *case, backend, reason = row
    chosen = choose_backend(parameters_of(*case))
    assert chosen.backend == backend
    assert reason in chosen.reason


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: "-".join(map(str, row[1:4])))
def test_what_nothing_runs_is_refused_with_the_reason(parameters_of, row) -> None:
    """No backend is chosen that would refuse; the sentence says what stands in the way."""
    *case, reason = row
    with pytest.raises(ConfigurationError, match=reason):
        choose_backend(parameters_of(*case))


@pytest.mark.parametrize("machine", MACHINES)
def test_whatever_is_chosen_takes_device_and_precision(parameters_of, machine: str) -> None:
    """Over all devices, precisions and weights: the choice has the arithmetic that is asked for."""
    here, chosen = MACHINES[machine], set()
    for weights, device, precision in itertools.product(WEIGHTS, DEVICES, PRECISIONS):
        parameters = parameters_of(here, weights, device, precision)
        try:
            backend = choose_backend(parameters).backend
        except ConfigurationError:
            continue
        chosen.add(backend)
        if backend == "torch":
            assert weights == "checkpoint" and precision != "int8"
            continue
        if "int8" in (weights, precision):
            # Where only one of them is, opening the file refuses; see test_accuracy_report.py.
            assert backend == "openvino"
            precision = "float32"
        if backend == "openvino":
            assert here.openvino and device != "cuda"
            where = "cpu"
        else:
            assert here.onnxruntime
            where = device if device != "auto" else runtime_device("auto", backend)
            assert where != "cuda" or weights != "checkpoint" or not here.torch_gpus
        chosen_precision(precision, backend, where)
    assert chosen


def test_gpus_and_tensorrt_are_named_by_their_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names fit into those of files; None where the loader, the driver or the index has nothing."""

    class Library:
        def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's name
            return flags

        def cuDeviceGet(self, device, index: int) -> int:  # noqa: N802
            device._obj.value = 7
            return 0 if index == 1 else 101

        def cuDeviceGetName(self, text, size: int, device) -> int:  # noqa: N802
            assert (size, device.value) == (256, 7)
            text.value = b"NVIDIA H200 (MIG 1g.18gb)"
            return 0

        def getInferLibVersion(self) -> int:  # noqa: N802
            return 100300

    there = {"libcuda.so.1", "libnvinfer.so.10"}

    def load(name: str) -> Library:
        if name not in there:
            raise OSError(f"{name}: cannot open shared object file")
        return Library()

    monkeypatch.setattr(gpus.ctypes, "CDLL", load)
    assert gpus.gpu_name(1) == "NVIDIA-H200-MIG-1g-18gb"
    assert gpus.gpu_name(0) is None
    assert gpus.tensorrt_version() == "100300"
    there.clear()
    assert gpus.gpu_name(1) is gpus.tensorrt_version() is None and gpus.driver_gpus() == 0


def test_a_file_that_is_not_there_is_told(parameters_of) -> None:
    """Not a word about backends where the weights are missing."""
    parameters = parameters_of(PLAIN, "float32", "auto", "auto")
    Path(parameters.weights).unlink()
    with pytest.raises(WeightsError, match="there is no ONNX file"):
        choose_backend(parameters)


def test_auto_is_the_cpu_where_no_gpu_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of onnxruntime with CUDA runs on the CPU without a GPU, or without its libraries."""
    monkeypatch.setattr(gpus, "onnxruntime_providers", lambda: CUDA)
    for devices, loads, expected in ((0, True, "cpu"), (1, False, "cpu"), (1, True, "cuda")):
        monkeypatch.setattr(gpus, "driver_gpus", lambda count=devices: count)
        monkeypatch.setattr(gpus, "provider_loads", lambda _, loads=loads: loads)
        assert runtime_device("auto", "onnxruntime") == expected
