"""One step of a network whose input, weights, positions and states stay at fixed addresses.

That is what a GPU needs to replay a step as one graph instead of launching its kernels one by one,
and to change weights without recording it again: whoever replays sees what lies at the addresses
now. Nothing here reads a value back to the processor. The same code runs on a CPU, directly.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dae_ros.model.backbone import VisionTransformer
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.dpt_head import State
from dae_ros.model.networks import Network
from dae_ros.runtime.torch_fitting import Fitting
from dae_ros.runtime.torch_process import EXACT_ARITHMETIC

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
HALF: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Lower goes first on CUDA, and 0 is last.
STEP_PRIORITY = -1
# Layers whose weights autocast would round anew at each step. Exactly these: what derives from
# them may compute something from its weights first.
_PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class StaticWeights:
    """A network of one's own on a device, whose weights can be replaced where they lie.

    In half precision the weights of convolutions and matrix products are kept rounded, which gives
    the bits that autocast gives, without rounding them at each step. On CUDA they are then kept
    channels last too, as tensor cores take them.

    Args:
        loaded: copied, not touched.
        device: for the copy.
        precision: of the arithmetic, see `TorchEstimator`.

    Attributes:
        network: the copy; do not keep references to its tensors' values.
        fitting: to and from the sensor's size.
        device, precision: as given.
        layout: of maps in memory.
        stream: of CUDA, that all work on these weights is queued on; None on a CPU.
    """

    def __init__(self, loaded: LoadedModel, device: torch.device, precision: Precision) -> None:
        self.device, self.precision = device, precision
        self.network: Network = copy.deepcopy(loaded.network).requires_grad_(False).eval()
        self.layout = torch.contiguous_format
        if precision != "float32":
            for module in self.network.modules():
                if type(module) in _PRODUCTS:
                    module.to(HALF[precision])
            if device.type == "cuda":
                self.layout = torch.channels_last
                # Untyped in PyTorch.
                self.network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.network.to(device)
        self.fitting = Fitting(loaded.config, self.network.multiple, device)
        self._size: tuple[int, int] | None = None
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Weights came over on the thread's own stream.
            torch.cuda.current_stream(device).synchronize()
            # Steps go ahead of what learns in the same process. Untyped in PyTorch.
            self.stream = torch.cuda.Stream(  # type: ignore[no-untyped-call]
                device, priority=STEP_PRIORITY
            )

    def load(self, network: Network) -> None:
        """Take the weights of a network of the same configuration, into the same memory.

        On any thread, while none steps with these. Returns when they are there.
        """
        with self.on_stream():
            self.network.load_state_dict(network.state_dict())
            self._fix_positions()
        if self.stream is not None:
            self.stream.synchronize()

    def fix_size(self, height: int, width: int) -> None:
        """Compute what depends on the size of the network's input, in px, and on the weights."""
        self._size = (height, width)
        with self.on_stream():
            self._fix_positions()

    def _fix_positions(self) -> None:
        if self._size is None:
            return
        height, width = self._size
        for module in self.network.modules():
            if isinstance(module, VisionTransformer):
                patch = module.size.patch_px
                module.fix_positions(height // patch, width // patch)

    def on_stream(self) -> contextlib.AbstractContextManager[object]:
        """Queue work behind all that was queued for these weights."""
        return contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Compute without gradients, in the precision asked for and no other."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(self.on_stream())
            if self.device.type == "cuda":
                stack.enter_context(EXACT_ARITHMETIC)
            if self.precision != "float32":
                # Without a cache: it would hand a graph the addresses of what is gone by then.
                stack.enter_context(
                    torch.autocast(
                        self.device.type, dtype=HALF[self.precision], cache_enabled=False
                    )
                )
            yield


class StaticStep:
    """One step of the network for some cameras of one size.

    There are two sets of states: a step reads one and writes the other, and `turn` lets the next
    step begin with what was written. A step that fails half-way has changed nothing.

    Args:
        weights: of the network; several steps need several.
        cameras: how many are stepped together, each with a state of its own.
        height, width: of the sensors in px.

    Attributes:
        weights: as given.
        shape: of the images, (cameras, channels, height, width).
        states: the two sets, each as `initial_state` gives it.
        parity: which of the two the next step reads.
        present: bool[cameras] on the device: a camera that is not keeps its state, bit for bit.

    Raises:
        ConfigurationError: the sensor is too small for the network.
    """

    def __init__(self, weights: StaticWeights, cameras: int, height: int, width: int) -> None:
        self.weights = weights
        self.shape = (cameras, weights.fitting.format.channels, height, width)
        size = weights.fitting.network_size(height, width)
        weights.fix_size(*size)
        self.parity = 0
        with weights.on_stream():
            self.states: tuple[State, State] = (
                self._zeros(cameras, *size),
                self._zeros(cameras, *size),
            )
            self.present = torch.ones(cameras, dtype=torch.bool, device=weights.device)

    def _zeros(self, cameras: int, height: int, width: int) -> State:
        return tuple(
            tensor.to(memory_format=self.weights.layout) if tensor.dim() == 4 else tensor
            for tensor in self.weights.network.initial_state(cameras, height, width)
        )

    @property
    def state(self) -> State:
        """What the next step begins with; its memory."""
        return self.states[self.parity]

    def advance(self, images: Tensor, parity: int) -> tuple[Tensor, Tensor]:
        """Step all cameras that are present, from `states[parity]` to the other set.

        Args:
            images: float32 `shape`, on the device; of absent cameras anything.
            parity: 0 or 1.

        Returns:
            The predictions float32 (cameras, height, width), and the largest magnitude in
            prediction and new state of each camera, float32 (cameras,): infinite or NaN where any
            number of them is not finite.
        """
        cameras, _, height, width = self.shape
        before, after = self.states[parity], self.states[1 - parity]
        fitting = self.weights.fitting
        prediction, state = self.weights.network(fitting.prepare(images), before)
        restored = fitting.restore(prediction, height, width)[:, 0]
        for old, new, kept in zip(before, state, after, strict=True):
            if cameras == 1:
                kept.copy_(new)
            else:
                stepped = self.present.view(-1, *(1,) * (new.dim() - 1))
                torch.where(stepped, new, old, out=kept)
        # One pass where isfinite takes three, and as strict: a maximum hands NaN on.
        largest = [
            tensor.abs().amax(dim=tuple(range(1, tensor.dim()))) for tensor in (restored, *state)
        ]
        return restored, torch.stack(largest).amax(dim=0)

    def turn(self) -> None:
        """Begin the next step with what the last one wrote."""
        self.parity = 1 - self.parity

    def reset(self, camera: int | None = None) -> None:
        """Forget the state of a camera, or of all."""
        with self.weights.on_stream():
            for tensor in self.state:
                (tensor if camera is None else tensor[camera]).zero_()

    def state_arrays(self, camera: int) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of a camera's state."""
        with self.weights.on_stream():
            return tuple(tensor[camera].cpu().numpy().copy() for tensor in self.state)

    def adopt(self, other: StaticStep) -> None:
        """Take the states of a step of the same shape."""
        ours, others = self.weights.stream, other.weights.stream
        if ours is not None and others is not None:
            ours.wait_stream(others)
        with self.weights.on_stream():
            for mine, theirs in zip(self.state, other.state, strict=True):
                mine.copy_(theirs)
