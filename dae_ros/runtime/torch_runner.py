"""Images in, predictions out: a `StaticStep` run directly, or replayed as CUDA graphs.

Recorded graphs are not trusted. Before they are used, their results are compared with those of the
same step run directly; where they differ, or cannot be recorded, the direct step goes on in their
place and a warning says why.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.representation.event_image import (
    TENCODE_CHANNELS,
    EventImage,
    is_code,
    planes_of,
)
from dae_ros.representation.tencode_code import LEVELS, pack_tencode, unpack_tencode
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.torch_process import RECORDING
from dae_ros.runtime.torch_step import StaticStep

# Records a function and returns what replays it: the same memory is read and written each time.
Capture: TypeAlias = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
# How far a replay may be from the direct step, relative to the largest value: other kernels may
# be chosen while recording, and they round otherwise.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
_log = logging.getLogger(__name__)


class Runner(Protocol):
    """Runs a step from images on the host to predictions on the host.

    Attributes:
        fallback: why the step is run directly although it was to be recorded; None if it is not.
    """

    fallback: str | None

    def run(self, images: Sequence[EventImage | None]) -> tuple[FloatImage, NDArray[np.float32]]:
        """Step once and turn.

        Args:
            images: per camera float32 (channels, height, width), or uint16 (height, width), the
                code of a Tencode; None for an absent one.

        Returns:
            Predictions float32 (cameras, height, width), the caller's own, and the largest
            magnitudes float32 (cameras,), see `StaticStep.advance`.
        """


class DirectRunner:
    """On the CPU: the planes of one camera are not copied."""

    def __init__(self, step: StaticStep) -> None:
        self._step = step
        self._images = torch.zeros(step.shape)
        self.fallback: str | None = None

    def run(self, images: Sequence[EventImage | None]) -> tuple[FloatImage, NDArray[np.float32]]:
        """See `Runner`."""
        step, batch, first = self._step, self._images, images[0]
        if len(images) == 1 and first is not None and not is_code(first):
            # PyTorch warns about memory that it could write to and must not.
            batch = torch.from_numpy(first if first.flags.writeable else first.copy())[None]
        else:
            fill(batch, step.present, images)
        with step.weights.arithmetic():
            predictions, largest = step.advance(batch, step.parity)
        step.turn()
        return predictions.numpy(), largest.numpy()


class GraphRunner:
    """Through buffers that stay: images go over and predictions come back in one copy each.

    The host waits once per step, for the event behind the copy back. Tencode goes over as 16 bits
    per pixel (`representation.tencode_code`); other images go as they are.

    Args:
        step: to run; its states are zero afterwards.
        capture: records a function; None: the step is run directly.

    Attributes:
        fallback: see `Runner`.
        runs: per parity what queues one step of the images that lie on the device, and returns what
            goes back; for whoever measures the device alone.
    """

    def __init__(self, step: StaticStep, capture: Capture | None) -> None:
        self._step = step
        cameras, channels, height, width = step.shape
        device = step.weights.device
        self._going = _host_memory(step.shape, torch.float32, device)
        self._going_code = _host_memory((cameras, height, width), torch.int16, device)
        self._present = _host_memory((cameras,), torch.bool, device)
        self._coming = _host_memory((cameras, height * width + 1), torch.float32, device)
        with step.weights.on_stream():
            self._images = torch.zeros(step.shape, device=device)
            self._code = torch.zeros((cameras, height, width), dtype=torch.int16, device=device)
        # No methods: graphs are to go as soon as the runner does.
        self.runs: list[Callable[[], Tensor]] = [
            functools.partial(_packed, step, self._images, parity) for parity in (0, 1)
        ]
        # What makes the image of its code; None where the network takes no Tencode.
        self._unpack: Callable[[], Tensor] | None = None
        if channels == TENCODE_CHANNELS:
            self._unpack = functools.partial(_unpacked, self._code, self._images)
        self._done: torch.cuda.Event | None = None
        if device.type == "cuda":
            # Untyped in PyTorch.
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.fallback: str | None = None
        if capture is not None:
            with RECORDING, step.weights.arithmetic():
                self._record(capture)
            step.reset()

    def run(self, images: Sequence[EventImage | None]) -> tuple[FloatImage, NDArray[np.float32]]:
        """See `Runner`."""
        step = self._step
        # The last step has been waited for, so that nothing reads what goes over any more.
        unpack = self._unpack if self._fill_code(images) else None
        if unpack is None:
            fill(self._going, self._present, images)
        with step.weights.arithmetic():
            if unpack is not None:
                self._code.copy_(self._going_code, non_blocking=True)
                unpack()
            else:
                self._images.copy_(self._going, non_blocking=True)
            if len(images) > 1:
                step.present.copy_(self._present, non_blocking=True)
            packed = self.runs[step.parity]()
            self._coming.copy_(packed, non_blocking=True)
            if self._done is not None:
                self._done.record()
                self._done.synchronize()
        step.turn()
        cameras, _, height, width = step.shape
        came = self._coming.numpy().copy()
        return came[:, :-1].reshape(cameras, height, width), came[:, -1]

    def _fill_code(self, images: Sequence[EventImage | None]) -> bool:
        """Write the codes of what is to go over; return False unless all images are Tencode."""
        if self._unpack is None:
            return False
        codes = self._going_code.numpy().view(np.uint16)
        for camera, image in enumerate(images):
            self._present[camera] = image is not None
            if image is None:
                continue
            if is_code(image):
                np.copyto(codes[camera], image)
            elif not pack_tencode(planes_of(image), codes[camera]):
                return False
        return True

    def _record(self, capture: Capture) -> None:
        """Replace the functions by what replays them, if that gives what they give."""
        runs, unpack = self.runs, self._unpack
        # This is the warm-up too, which recording needs.
        expected = self._results(runs, unpack)
        # Recorded on another image than it is replayed on: values must not be part of a graph.
        self._code.zero_()
        self._images.zero_()
        try:
            replays = [capture(run) for run in runs]
            replay_unpack = None if unpack is None else capture(unpack)
            actual = self._results(replays, replay_unpack)
        except RuntimeError as error:
            self.fallback = f"it cannot be recorded ({error})"
        else:
            self.fallback = self._difference(actual, expected)
        if self.fallback is None:
            self.runs, self._unpack = replays, replay_unpack
        else:
            _log.warning("the network is run without CUDA graphs: %s", self.fallback)

    def _results(
        self, runs: Sequence[Callable[[], Tensor]], unpack: Callable[[], Tensor] | None
    ) -> list[list[Tensor]]:
        """Return copies of what two steps from the zero state, on a pattern, give and write."""
        found = []
        if unpack is None:
            pattern = torch.arange(self._images.numel(), device=self._images.device) % 9973
            self._images.copy_(pattern.reshape(self._images.shape) / 9973.0)
        else:
            # Another age at each pixel and camera, both polarities, every seventh without event.
            ramp = torch.arange(self._code.numel(), device=self._code.device) * 6619
            code = torch.where(ramp % 7 == 0, 0, ramp % (2 * LEVELS + 2) + 2)
            self._code.copy_(code.to(torch.int16).reshape(self._code.shape))
            unpack()
        self._step.reset()
        for parity, run in enumerate(runs):
            written = (run(), *self._step.states[1 - parity])
            found.append([tensor.clone() for tensor in written])
        return found

    def _difference(self, actual: list[list[Tensor]], expected: list[list[Tensor]]) -> str | None:
        tolerance = _TOLERANCE[self._step.weights.precision]
        for turn in (0, 1):
            for place, (ours, theirs) in enumerate(zip(actual[turn], expected[turn], strict=True)):
                finite = theirs[torch.isfinite(theirs)]
                size = float(finite.abs().amax()) if finite.numel() else 0.0
                if not torch.allclose(ours, theirs, 0.0, tolerance * size, equal_nan=True):
                    what = "the prediction" if place == 0 else "the state"
                    off = float((ours - theirs).abs().amax())
                    return (
                        f"replayed, {what} of step {turn + 1} is off by {off:.2g} where the "
                        f"largest value is {size:.2g}"
                    )
        return None


def fill(batch: Tensor, present: Tensor, images: Sequence[EventImage | None]) -> None:
    """Write the planes of images into host memory, and note which of them there are."""
    for camera, image in enumerate(images):
        present[camera] = image is not None
        if image is None:
            continue
        if is_code(image):
            unpack_tencode(image, batch[camera].numpy())
        else:
            np.copyto(batch[camera].numpy(), image)


def cuda_capture(stream: torch.cuda.Stream) -> Capture:
    """Return what records functions as CUDA graphs that share their memory.

    Other threads may use the GPU meanwhile (weights in use, learning), see `RECORDING`. Before each
    function PyTorch waits for the device and empties its cache, so that a graph finds room: that
    takes nothing from whoever replays, and lets who learns allocate anew.
    """
    pool = torch.cuda.graph_pool_handle()

    def capture(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            output = function()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    return capture


def _packed(step: StaticStep, images: Tensor, parity: int) -> Tensor:
    """Step; return predictions and largest magnitudes as one, (cameras, height * width + 1)."""
    predictions, largest = step.advance(images, parity)
    return torch.cat([predictions.flatten(1), largest[:, None]], dim=1)


def _unpacked(code: Tensor, images: Tensor) -> Tensor:
    """Write the images that codes int16 (cameras, height, width) stand for; return them.

    See `representation.tencode_code.unpack_tencode`.
    """
    # Few operators of PyTorch take unsigned numbers.
    value = code.to(torch.int32) & 0xFFFF
    on, seen = (value & 1).float(), (value != 0).float()
    torch.stack([on, ((value >> 1) - seen) / LEVELS, seen - on], dim=1, out=images)
    return images


def _host_memory(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return host memory; where a GPU reads it, such that it stays in place meanwhile."""
    return torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda")
