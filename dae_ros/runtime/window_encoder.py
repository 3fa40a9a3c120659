"""One window of the ring -> what the network takes, and the event image for people."""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.errors import ConfigurationError
from dae_ros.events.last_events import LastEvents
from dae_ros.events.ring_buffer import EventRing
from dae_ros.representation.event_image import EventImage
from dae_ros.representation.surface import TencodeSurface
from dae_ros.representation.tencode import tencode_voxel
from dae_ros.representation.voxel_grid import voxel_grid
from dae_ros.runtime.windows import Window

EVENT_ENCODERS = ("tencode", "tencode_voxel", "voxel_grid")


@dataclass(frozen=True, slots=True, eq=False)
class EncodedWindow:
    """What one window looks like.

    Attributes:
        network_input: what the network was trained on: the code uint16[H, W] of a `tencode`,
            float32[C, H, W] of the others.
        image: Tencode for previews, uint16[H, W] or float32[3, H, W]; often the same array.
        event_count: events in the window.
    """

    network_input: EventImage
    image: EventImage
    event_count: int


class WindowEncoder:
    """Encodes the windows of one camera.

    Args:
        name: `tencode` (events, last one wins), `tencode_voxel` (the five-bin MVSEC protocol) or
            `voxel_grid` (normalised, as E2Depth and EReFormer take it).
        height, width: of the sensor in px.
        channels: of the network's input; the bins of a voxel grid.

    Raises:
        ConfigurationError: another name: the network takes something else than events.
    """

    def __init__(self, name: str, height: int, width: int, channels: int) -> None:
        if name not in EVENT_ENCODERS:
            raise ConfigurationError(
                f"the network takes '{name}', which no events can be encoded as; known are "
                f"{', '.join(EVENT_ENCODERS)}",
                event_encoder=name,
            )
        self._name = name
        self._channels = channels
        self._height, self._width = height, width
        self._surface = TencodeSurface(height, width, lets_go=name == "tencode")

    def follow(self, ring: EventRing, before_ns: int | None) -> None:
        """Do ahead what is certain to be needed: no window to come ends before `before_ns`."""
        if self._name == "tencode" and before_ns is not None:
            self._surface.follow(ring, before_ns)

    def direct(self, ring: EventRing, before_ns: int | None) -> LastEvents | None:
        """Return what the next packet may be put on as it is decoded; see `TencodeSurface`."""
        if self._name != "tencode" or before_ns is None:
            return None
        return self._surface.direct(ring, before_ns)

    def encode(self, ring: EventRing, window: Window) -> EncodedWindow:
        """Encode one window that the ring covers."""
        if self._name == "tencode_voxel":
            events = ring.window(window.start_ns, window.end_ns)
            image = tencode_voxel(events, self._height, self._width)
            return EncodedWindow(image, image, len(events))
        encoded = self._surface.encode(ring, window.start_ns, window.end_ns)
        if self._name == "tencode":
            return EncodedWindow(encoded.code, encoded.code, encoded.event_count)
        events = ring.window(window.start_ns, window.end_ns)
        grid = voxel_grid(events, self._height, self._width, self._channels, normalise=True)
        return EncodedWindow(grid, encoded.code, encoded.event_count)
