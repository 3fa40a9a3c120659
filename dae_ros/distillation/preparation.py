"""From clips on disk to what the network sees and is compared with: encode, fit, mirror, crop.

In this order. A crop is cut out of the encoded, fitted image: the green channel of Tencode counts
from the first to the last event of the whole window, so encoding a crop would change every value.
It is the same through a clip and is not resized, which keeps the focal length and so the metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dae_ros.distillation.batches import ClipBatch
from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.errors import ConfigurationError
from dae_ros.model.configuration import EventEncoder
from dae_ros.runtime.torch_fitting import Fitting

FRAME_ENCODERS: tuple[EventEncoder, ...] = ("grey", "rgb")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch on the device, at the student's size h x w.

    Attributes:
        images: float32 (B, T, C, h, w), normalised.
        depth: float32 (B, U, h, w), metres, NaN unknown.
        frames: uint8 (B, U, H, W) of the windows to learn from, at the sensor's size, mirrored
            as the clip is and not cropped.
        has_frame: bool (B, U).
        boxes: (B, 4) top, left, bottom and right of each clip's crop, in parts of the whole
            image; None for no crop.
    """

    images: Tensor
    depth: Tensor
    frames: Tensor
    has_frame: Tensor
    boxes: Tensor | None


class Preparation:
    """Prepares batches for one network.

    Args:
        fitting: of the network, on the device.
        event_encoder: what the network takes; `grey` and `rgb` are camera frames.
        crop: (height, width) in px of the network's input, multiples of `multiple`; None: whole.
        multiple: of the network.

    Raises:
        ConfigurationError: a crop that is no multiple.
    """

    def __init__(
        self,
        fitting: Fitting,
        event_encoder: str,
        crop: tuple[int, int] | None = None,
        multiple: int = 1,
    ) -> None:
        if crop is not None and (crop[0] % multiple or crop[1] % multiple):
            raise ConfigurationError(
                f"a crop of {crop[0]}x{crop[1]} px does not fit the network; both sides must be "
                f"multiples of {multiple}",
                crop=crop,
                multiple=multiple,
            )
        self._fitting = fitting
        self._encoder = event_encoder
        self._crop = crop

    def __call__(self, batch: ClipBatch, device: torch.device) -> Prepared:
        """Prepare a batch.

        Raises:
            ConfigurationError: a crop larger than the network's input.
        """
        windows = batch.windows.to(device)
        frames = batch.frames.to(device)
        mirrored = batch.mirrored.to(device)
        if self._encoder in FRAME_ENCODERS:
            images = frames_as_images(frames, self._fitting.format.channels)
        elif self._encoder == "voxel_grid":
            images = windows.float()
        else:
            images = tencode_of_code(windows)
        images = _mirror(images, mirrored)
        has_frame = batch.has_frame[:, -batch.unroll :].to(device)
        depth = _mirror(batch.depth.to(device).float(), mirrored)
        if self._encoder in FRAME_ENCODERS:
            # Depth at the window's end says nothing about a frame of another instant.
            depth = torch.where(has_frame[:, :, None, None], depth, torch.nan)
        frames = _mirror(frames[:, -batch.unroll :], mirrored)
        height, width = images.shape[3:]
        place = None if batch.place is None else batch.place.to(device)
        if self._fitting.format.at_least is None:
            # Such a network is padded, not scaled: a crop comes first and needs no padding, and
            # labels are compared at the sensor's size.
            boxes = self._boxes(place, (height, width))
            fitted = self._fit(self._cut(images, boxes))
            depth = self._cut(depth, boxes)
            whole = (height, width)
        else:
            fitted = self._fit(images)
            whole = (fitted.shape[3], fitted.shape[4])
            boxes = self._boxes(place, whole)
            depth = at_size(depth.flatten(0, 1), whole).reshape(*depth.shape[:2], *whole)
            fitted, depth = self._cut(fitted, boxes), self._cut(depth, boxes)
        return Prepared(
            images=fitted,
            depth=depth,
            frames=frames,
            has_frame=has_frame,
            boxes=None if boxes is None else boxes / _sides(whole, device),
        )

    def compared(self, predictions: Tensor, size: tuple[int, int]) -> Tensor:
        """Return predictions (B, U, h, w) at the size of the prepared depth."""
        if tuple(predictions.shape[2:]) == size:
            return predictions
        restored = self._fitting.restore(predictions.flatten(0, 1)[:, None], *size)
        return restored.reshape(*predictions.shape[:2], *size)

    def _fit(self, images: Tensor) -> Tensor:
        fitted = self._fitting.prepare(images.flatten(0, 1))
        return fitted.reshape(*images.shape[:2], *fitted.shape[1:])

    def _boxes(self, place: Tensor | None, whole: tuple[int, int]) -> Tensor | None:
        """Return (B, 4) corners in px of `whole`."""
        if place is None or self._crop is None:
            return None
        room = (whole[0] - self._crop[0], whole[1] - self._crop[1])
        if min(room) < 0:
            raise ConfigurationError(
                f"a crop of {self._crop[0]}x{self._crop[1]} px is larger than the network's input "
                f"of {whole[0]}x{whole[1]}; make it smaller",
                crop=self._crop,
                input=whole,
            )
        sides = torch.tensor([room[0] + 1, room[1] + 1], device=place.device)
        corner = (place * sides).long()
        return torch.cat((corner, corner + torch.tensor(self._crop, device=place.device)), dim=1)

    def _cut(self, maps: Tensor, boxes: Tensor | None) -> Tensor:
        if boxes is None:
            return maps
        return torch.stack(
            [
                one[..., top:bottom, left:right]
                for one, (top, left, bottom, right) in zip(maps, boxes.tolist(), strict=True)
            ]
        )


def frames_as_images(frames: Tensor, channels: int) -> Tensor:
    """Return float32 (..., channels, H, W) in 0..1 of grey frames, uint8 (..., H, W)."""
    return (frames.float() / 255).unsqueeze(-3).repeat_interleave(channels, dim=-3)


def at_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, H, W) at another size by the nearest pixel, so that NaN does not spread."""
    if tuple(maps.shape[1:]) == size:
        return maps
    return functional.interpolate(maps[:, None], size=size, mode="nearest-exact")[:, 0]


def cut_out(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes of maps at a size, by bilinear sampling.

    Args:
        maps: float (N, H, W).
        boxes: (N, 4), top, left, bottom and right in parts of the map.
        size: (height, width) in px of what is returned; a box whose sides are whole pixels, at
            its own size, comes out as it is.
    """
    rows = _centres(boxes[:, 0], boxes[:, 2], size[0])
    columns = _centres(boxes[:, 1], boxes[:, 3], size[1])
    grid = torch.stack(
        (
            columns[:, None, :].expand(-1, size[0], -1),
            rows[:, :, None].expand(-1, -1, size[1]),
        ),
        dim=-1,
    )
    return functional.grid_sample(
        maps[:, None], grid.to(maps.dtype), padding_mode="border", align_corners=False
    )[:, 0]


def _centres(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Return where the centres of `count` px of [low, high) lie, in -1..1."""
    part = (torch.arange(count, device=low.device, dtype=torch.float64) + 0.5) / count
    return 2 * (low[:, None] + (high - low)[:, None] * part) - 1


def _sides(size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.tensor([*size, *size], dtype=torch.float64, device=device)


def _mirror(maps: Tensor, mirrored: Tensor) -> Tensor:
    chosen = mirrored.reshape(-1, *[1] * (maps.ndim - 1))
    return torch.where(chosen, maps.flip(-1), maps)
