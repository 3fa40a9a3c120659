"""One sample for training and evaluation: the events before an instant, and what was true then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.representation.tencode import tencode, tencode_from_voxel_grid, tencode_voxel
from dae_ros.representation.voxel_grid import (
    normalise_voxel_grid,
    voxel_grid,
    voxel_grid_of_points,
)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledWindow:
    """A window of events [start, end) with the label at its end.

    Attributes:
        start_ns, end_ns: whole microseconds on the events' clock.
        stamp_ns: of the label, on the clock of the stamps; of a frame the middle of its exposure.
        height, width: sensor size in px.
        events: those of the window, None where the data set has voxel grids only.
        voxels: float32[B, H, W], signed and not normalised, where there are no events.
        depth: float32[H, W], metres, NaN unknown; None for windows that end at frames.
        frame: for windows that end at frames that frame; otherwise the newest one that is not
            later than the stamp, None where there is none. Its stamp is the middle of its exposure.
        restarts: nothing continuous came before: a recurrent state must be reset.
        sensed: where events were rectified those that the sensor sent, from which `events` were
            made; otherwise None.
        place: where rectification puts events: x and y in px, float32[2, N], between pixels and
            outside of the image too; None where nothing is rectified.
    """

    start_ns: int
    end_ns: int
    stamp_ns: int
    height: int
    width: int
    events: Events | None
    voxels: NDArray[np.float32] | None
    depth: NDArray[np.float32] | None
    frame: Frame | None
    restarts: bool
    sensed: Events | None = None
    place: Callable[[Events], NDArray[np.float32]] | None = None

    @property
    def extent_ns(self) -> tuple[int, int] | None:
        """Times of the first and last event, also of those that rectification put off the image.

        None where events were not rectified, or there are none.
        """
        if self.sensed is None or len(self.sensed) == 0:
            return None
        return int(self.sensed.t[0]), int(self.sensed.t[-1])

    def encode(self, event_encoder: str, bins: int = 5) -> NDArray[np.float32]:
        """Return the window as a network's input, as the depth pipeline encodes it.

        Rectified events are encoded as published for DSEC, and the pipeline, which sees whole
        pixels of the image alone, encodes them otherwise: ages count from the first to the last
        event of the window, those that left the image included, and `voxel_grid` shares an event
        between the pixels around it.

        Args:
            event_encoder: `tencode`, `tencode_voxel` or `voxel_grid`.
            bins: of `voxel_grid`, the network's input channels.

        Returns:
            float32[3, H, W] within 0..1, or the normalised float32[bins, H, W].

        Raises:
            ConfigurationError: another encoder, or one that needs what the sequence has not:
                single events, or another number of bins.
        """
        if self.events is not None:
            size, extent_ns = (self.height, self.width), self.extent_ns
            if event_encoder == "tencode":
                return tencode(self.events, *size, extent_ns=extent_ns)
            if event_encoder == "tencode_voxel":
                return tencode_voxel(self.events, *size, extent_ns=extent_ns)
            if event_encoder == "voxel_grid" and self.sensed is not None and self.place is not None:
                x, y = self.place(self.sensed)
                return voxel_grid_of_points(
                    x, y, self.sensed.t, self.sensed.p, *size, bins, normalise=True
                )
            if event_encoder == "voxel_grid":
                return voxel_grid(self.events, *size, bins, normalise=True, extent_ns=extent_ns)
        elif self.voxels is not None:
            if event_encoder == "tencode_voxel":
                return tencode_from_voxel_grid(self.voxels)
            if event_encoder == "voxel_grid" and len(self.voxels) == bins:
                return normalise_voxel_grid(self.voxels)
        has = "events" if self.voxels is None else f"voxel grids of {len(self.voxels)} bins"
        raise ConfigurationError(
            f"A window cannot be encoded as '{event_encoder}' with {bins} bins: the sequence has "
            f"{has}. Events give tencode, tencode_voxel and voxel_grid, voxel grids the latter "
            f"two with the bins that they have.",
            event_encoder=event_encoder,
            bins=bins,
        )
