"""How much a network's step or update has to compute and to move, counted without running it.

The network goes through its forward on tensors without memory (PyTorch's device `meta`), while
every product is noted: matrix products, convolutions and attention, which are all but a hundredth
of the arithmetic. A multiplication and an addition are two operations.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dae_ros.distillation.rollout import roll_clips
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.runtime.torch_fitting import Fitting

META = torch.device("meta")
_aten = torch.ops.aten
# Reads weight, gradient and both moments, writes weight and moments (AdamW); reads the weight and
# its running average, writes the average: each a float32.
UPDATE_BYTES_PER_WEIGHT = 4 * (4 + 3 + 2 + 1)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done once.

    Attributes:
        operations: of all products, multiplications and additions.
        weight_bytes: of the weights that take part in products, each read once.
        activation_bytes: what goes into products and comes out of them, where each is one kernel
            that also does what lies between it and the next.
        boundary_bytes: image in, prediction out, state in and out; of an update what its optimizer
            reads and writes.
    """

    operations: int
    weight_bytes: int
    activation_bytes: int
    boundary_bytes: int

    @property
    def traffic_bytes(self) -> int:
        """All of it: what goes through device memory where no cache keeps activations."""
        return self.weight_bytes + self.activation_bytes + self.boundary_bytes

    @property
    def least_bytes(self) -> int:
        """What goes through device memory even where a cache keeps every activation."""
        return self.weight_bytes + self.boundary_bytes


@dataclass(frozen=True, slots=True)
class Floor:
    """What no implementation on this device goes below.

    Attributes:
        compute_ms: the operations at the measured peak.
        memory_ms: the traffic at the measured bandwidth. A device whose cache keeps activations
            may be faster than this one.
        least_ms: the larger of `compute_ms` and the least traffic: nothing is faster.
    """

    compute_ms: float
    memory_ms: float
    least_ms: float

    @property
    def roofline_ms(self) -> float:
        """The larger of both: the roofline."""
        return max(self.compute_ms, self.memory_ms)


def floor_of(work: Work, operations_per_s: float, bytes_per_s: float) -> Floor:
    """Return the floor under some work.

    Args:
        work: of one step or update.
        operations_per_s: peak of the arithmetic, as measured.
        bytes_per_s: bandwidth of the memory, bytes read plus bytes written, as measured.
    """
    compute_ms = 1e3 * work.operations / operations_per_s
    return Floor(
        compute_ms=compute_ms,
        memory_ms=1e3 * work.traffic_bytes / bytes_per_s,
        least_ms=max(compute_ms, 1e3 * work.least_bytes / bytes_per_s),
    )


def step_work(
    loaded: LoadedModel, height: int, width: int, dtype: torch.dtype, cameras: int = 1
) -> Work:
    """Count one step of some cameras.

    Args:
        loaded: the network.
        height, width: of the sensor in px.
        dtype: of weights and activations; state and prediction are float32.
        cameras: stepped together.
    """
    network, fitting = _without_memory(loaded, dtype)
    size = fitting.network_size(height, width)
    images = torch.empty(cameras, fitting.format.channels, *size, dtype=dtype, device=META)
    state = network.initial_state(cameras, *size)
    counter = Counter(network.parameters())
    with torch.no_grad(), counter.counting():
        network(images, state)
    # Tencode goes over as 16 bits per pixel; the prediction and each state are float32.
    image_bytes = cameras * height * width * (2 if fitting.format.channels == 3 else 4)
    boundary = image_bytes + cameras * height * width * 4 + 2 * sum(map(_bytes, state))
    return counter.work(boundary)


def update_work(
    loaded: LoadedModel,
    size: tuple[int, int],
    dtype: torch.dtype,
    *,
    clips: int,
    burn_in: int,
    unroll: int,
) -> Work:
    """Count one update of the weights: forward, backward, optimizer and running average.

    Args:
        loaded: the network.
        size: (height, width) of the network's input in px.
        dtype: of the arithmetic; weights and moments are float32.
        clips, burn_in, unroll: of the batch, see `TrainingParameters`.
    """
    network, fitting = _without_memory(loaded, dtype)
    network.train().requires_grad_(True)
    channels = fitting.format.channels
    images = torch.empty(clips, burn_in + unroll, channels, *size, dtype=dtype, device=META)
    counter = Counter(network.parameters())
    with counter.counting():
        roll_clips(network, images, unroll).sum().backward()
    weights = sum(weight.numel() for weight in network.parameters())
    return counter.work(images.numel() * 4 + weights * UPDATE_BYTES_PER_WEIGHT)


def _without_memory(loaded: LoadedModel, dtype: torch.dtype) -> tuple[Any, Fitting]:
    network = copy.deepcopy(loaded.network).to(META).to(dtype)
    return network, Fitting(loaded.config, network.multiple, META)


class Counter:
    """Adds up products while it counts.

    Args:
        weights: tensors that are read once, however often they are used.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = {_memory(weight): _bytes(weight) for weight in weights}
        self._used: set[int] = set()
        self._operations = 0
        self._activation_bytes = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Note the products inside."""
        with _AttentionNoted(self), _ProductsNoted(self):
            yield

    def note(self, operations: int, tensors: Iterable[Tensor]) -> None:
        """Add a product with everything that goes in and comes out."""
        self._operations += operations
        for tensor in tensors:
            memory = _memory(tensor)
            if memory in self._weights:
                self._used.add(memory)
            else:
                self._activation_bytes += _bytes(tensor)

    def work(self, boundary_bytes: int) -> Work:
        """Return the sums."""
        used = sum(self._weights[memory] for memory in self._used)
        return Work(self._operations, used, self._activation_bytes, boundary_bytes)


class _ProductsNoted(TorchDispatchMode):
    """Tells a counter of every matrix product and convolution."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        count = _OPERATIONS.get(func.overloadpacket)
        if count is not None:
            tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
            self._counter.note(count(args, result), tensors)
        return result


class _AttentionNoted(TorchFunctionMode):
    """Tells a counter of attention, as one product that keeps its weights between tokens inside."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        if func is functional.scaled_dot_product_attention:
            return _Attention.apply(self._counter, *args[:3])
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """Stands for attention on tensors without memory, in either direction."""

    @staticmethod
    def forward(ctx: Any, counter: Counter, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.counter, ctx.tokens = counter, key.shape[-2]
        ctx.save_for_backward(query, key, value, out)
        # query key^T, and what its softmax weighs.
        counter.note(4 * query.numel() * key.shape[-2], (query, key, value, out))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out = ctx.saved_tensors
        gradients = tuple(torch.empty_like(tensor) for tensor in (query, key, value))
        tensors = (query, key, value, out, gradient, *gradients)
        # Two for each product of the way there; that kernels compute one of them again is theirs.
        ctx.counter.note(8 * query.numel() * ctx.tokens, tensors)
        return (None, *gradients)


def _of_matrices(first: int) -> Callable[[tuple[Any, ...], Any], int]:
    """Return what counts a product of matrices whose left one is an argument of this index."""
    return lambda args, _: 2 * args[first].numel() * args[first + 1].shape[-1]


def _of_linear(args: tuple[Any, ...], _: Any) -> int:
    return 2 * args[0].numel() * args[1].shape[0]


def _of_convolution(args: tuple[Any, ...], result: Any) -> int:
    transposed = args[6]
    # Each cell of the smaller side meets a kernel once for each channel of the other.
    return _kernels(args[0] if transposed else result, args[1])


def _of_convolution_backward(args: tuple[Any, ...], _: Any) -> int:
    gradient, image, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
    once = _kernels(image if transposed else gradient, weight)
    return once * (int(wanted[0]) + int(wanted[1]))


def _kernels(cells: Tensor, weight: Tensor) -> int:
    return 2 * cells.numel() * (weight.numel() // weight.shape[0])


_OPERATIONS: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    _aten.mm: _of_matrices(0),
    _aten.bmm: _of_matrices(0),
    _aten.addmm: _of_matrices(1),
    _aten.baddbmm: _of_matrices(1),
    _aten.linear: _of_linear,
    _aten.convolution: _of_convolution,
    _aten.convolution_backward: _of_convolution_backward,
}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _memory(tensor: Tensor) -> int:
    """Return what two views of one tensor share; addresses are all zero without memory."""
    return int(tensor.untyped_storage()._cdata)
