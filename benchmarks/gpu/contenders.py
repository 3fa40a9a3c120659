"""Who steps a network in `bench_gpu`: PyTorch as one writes it, our steps, and graphs elsewhere."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu.frames import Frame
from benchmarks.gpu.graphs import GraphSteps, build_beside
from dae_ros.model.backbone import Attention, VisionTransformer
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting
from dae_ros.runtime.torch_runner import GraphRunner
from dae_ros.runtime.torch_slots import Slot, SlotPool
from dae_ros.runtime.torch_step import HALF, Precision

# Others are told how far they are from this one.
REFERENCE = "ours float32"
OURS = "ours bfloat16"
COMPILED = "ours bfloat16, torch.compile"
EAGER = "eager bfloat16"
AS_WRITTEN = "eager bfloat16, as the authors wrote it"
ONNXRUNTIME, TENSORRT = "onnxruntime float16", "tensorrt float16, through onnxruntime"
# The reference first; what may take minutes to build last.
EVERYONE = (
    REFERENCE, OURS, "ours float16", EAGER, AS_WRITTEN, COMPILED, ONNXRUNTIME, TENSORRT,
)  # fmt: skip


class Contender(Protocol):
    """Steps from host to host, and where that can be timed, on the device alone.

    Attributes:
        name: of the weights.
        note: what a reader must know of how it runs; empty where nothing is the matter.
        stream: that `queue` queues on.
    """

    name: str
    note: str
    stream: torch.cuda.Stream | None

    def estimate(self, image: Frame) -> NDArray[np.float32]:
        """Step once, from host to host."""

    def reset(self) -> None:
        """Forget the recurrent state."""

    def queue(self) -> None:
        """Queue a step of the image that lies on the device, and do not wait."""


class OurSteps:
    """`TorchEstimator`, as the node has it: recorded as CUDA graphs, where there is CUDA.

    Args:
        loaded, device, precision: of the estimator.
        compiled: let `torch.compile` write the network's kernels, which are then recorded.
        first: the image of the first step, which records.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        device: torch.device,
        precision: Precision,
        first: Frame,
        *,
        compiled: bool = False,
    ) -> None:
        pool = _Watched(device, precision, compiled=compiled)
        self.name = loaded.name
        self._estimator = TorchEstimator(loaded, device=str(device), precision=precision, pool=pool)
        self.estimate(first)
        self._step, runner = pool.slot.fit(*first.code.shape)
        self.stream = self._step.weights.stream
        self.note = self._estimator.hampered or ""
        # On a CPU nothing is recorded, and the image lies where the network reads it.
        image = torch.from_numpy(first.planes)[None]
        self._runs: Sequence[Callable[[], object]] = (
            runner.runs
            if isinstance(runner, GraphRunner)
            else [partial(self._step.advance, image, parity) for parity in (0, 1)]
        )

    def estimate(self, image: Frame) -> NDArray[np.float32]:
        """See `Contender`; a Tencode goes over as its code."""
        return self._estimator.estimate(image.code)

    def reset(self) -> None:
        """See `Contender`."""
        self._estimator.reset()

    def queue(self) -> None:
        """See `Contender`."""
        with self._step.weights.arithmetic():
            self._runs[self._step.parity]()
        self._step.turn()


class _Watched(SlotPool):
    """Tells which slot an estimator took, and compiles its network where asked to.

    Args:
        device, precision: of `SlotPool`.
        compiled: whether to compile.
    """

    slot: Slot

    def __init__(self, device: torch.device, precision: Precision, *, compiled: bool) -> None:
        super().__init__(device, precision)
        self._compiled = compiled

    def take(self, loaded: LoadedModel) -> Slot:
        self.slot = super().take(loaded)
        if self._compiled:
            # Kernels for one size; who records them keeps their memory in place.
            self.slot.weights.network.compile(dynamic=False)
        return self.slot


class EagerSteps:
    """A network as one steps it at a prompt: kernel by kernel, new tensors, autocast.

    Args:
        loaded: copied.
        device: for the copy.
        first: an image for `queue`.
        as_written: attention written out and positions resized at every step, as in the published
            code of Depth Anything V2 without xFormers. Otherwise attention is PyTorch's fused one
            and positions are kept, which gives the rest of ours its due.
    """

    def __init__(
        self, loaded: LoadedModel, device: torch.device, first: Frame, *, as_written: bool
    ) -> None:
        self.name, self.note, self.stream = loaded.name, "", None
        self._device = device
        self._network = copy.deepcopy(loaded.network).eval().to(device)
        if as_written:
            write_out(self._network)
        self._fitting = Fitting(loaded.config, self._network.multiple, device)
        self._state: tuple[Tensor, ...] | None = None
        self._image = torch.from_numpy(first.planes).to(device)[None]

    def estimate(self, image: Frame) -> NDArray[np.float32]:
        """See `Contender`; the image goes over as floats."""
        prediction = self._step(torch.from_numpy(image.planes)[None].to(self._device))
        return prediction.cpu().numpy()

    def reset(self) -> None:
        """See `Contender`."""
        self._state = None

    def queue(self) -> None:
        """See `Contender`."""
        self._step(self._image)

    def _step(self, images: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(self._device.type, dtype=HALF["bfloat16"]):
            pixels = self._fitting.prepare(images)
            if self._state is None:
                self._state = self._network.initial_state(1, *pixels.shape[2:])
            prediction, self._state = self._network(pixels, self._state)
            return self._fitting.restore(prediction, *images.shape[2:])[0, 0]


def write_out(network: torch.nn.Module) -> None:
    """Let a network compute attention step by step, and its positions anew at each step."""
    for module in network.modules():
        if isinstance(module, Attention):
            vars(module)["forward"] = partial(_attention, module)
        elif isinstance(module, VisionTransformer):
            vars(module)["positions"] = partial(_positions, module)


def _attention(module: Attention, tokens: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v as `dinov2_layers/attention.py` writes it."""
    batch, count, width = tokens.shape
    depth = width // module.heads
    qkv = module.qkv(tokens).reshape(batch, count, 3, module.heads, depth).permute(2, 0, 3, 1, 4)
    query, key, value = qkv[0] * depth**-0.5, qkv[1], qkv[2]
    weights = (query @ key.transpose(-2, -1)).softmax(dim=-1)
    mixed = (weights @ value).transpose(1, 2).reshape(batch, count, width)
    projected: Tensor = module.proj(mixed)
    return projected


def _positions(module: VisionTransformer, rows: int, columns: int) -> Tensor:
    """Return the positions, resized anew: a network in training keeps none."""
    with torch.enable_grad():
        return VisionTransformer.positions(module, rows, columns).detach()


@dataclass(frozen=True, slots=True)
class Found:
    """Who can step a network here.

    Attributes:
        there: name -> contender, which has stepped.
        ready_s: name -> from nothing to the first step done, with compilation, recording or
            loading in it.
        absent: name -> why it cannot.
    """

    there: Mapping[str, Any]
    ready_s: Mapping[str, float]
    absent: Mapping[str, str]


def find(
    names: Sequence[str],
    weights: Path,
    size: tuple[int, int],
    device: torch.device,
    first: Frame,
    limit_s: Callable[[], float],
) -> Found:
    """Make contenders; what cannot be made is named with the reason, and nobody else suffers.

    Args:
        names: of `EVERYONE`.
        weights: a checkpoint.
        size: (height, width) of the sensor in px.
        device: where they run.
        first: an image.
        limit_s: asked for the time that is left for building graphs.
    """
    loaded = load_weights(str(weights))
    there: dict[str, Any] = {}
    ready_s: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name in names:
        if name == AS_WRITTEN and not any(
            isinstance(module, VisionTransformer) for module in loaded.network.modules()
        ):
            absent[name] = "the network is no work of these authors"
            continue
        begin_s = time.monotonic()
        try:
            there[name] = _make(name, loaded, weights, size, device, first, limit_s)
        except _Absent as reason:
            absent[name] = str(reason)
        # A compiler may fail in any way, on machines that nobody has seen; the others go on.
        except Exception as error:  # noqa: BLE001
            said = " ".join(str(error).split())
            absent[name] = f"it failed: {type(error).__name__}: {said[:600]}"
        if name in there:
            ready_s[name] = time.monotonic() - begin_s
    return Found(there, ready_s, absent)


class _Absent(Exception):
    """Says why a contender takes no part."""


def _make(
    name: str,
    loaded: LoadedModel,
    weights: Path,
    size: tuple[int, int],
    device: torch.device,
    first: Frame,
    limit_s: Callable[[], float],
) -> Any:
    if name in (EAGER, AS_WRITTEN):
        made = EagerSteps(loaded, device, first, as_written=name == AS_WRITTEN)
        made.estimate(first)
        return made
    if name in (ONNXRUNTIME, TENSORRT):
        backend, folder = name.split(maxsplit=1)[0], weights.parent
        why = build_beside(backend, weights, size, str(device), folder, limit_s())
        if why is not None:
            raise _Absent(why)
        return GraphSteps(backend, str(weights), str(device), folder, first)
    precision = name.split()[1].rstrip(",")
    return OurSteps(loaded, device, precision, first, compiled=name == COMPILED)
