"""The decoder: carries one camera's state from payload to payload and cuts columns to size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from dae_ros.errors import ConfigurationError, MalformedPacket, TimeDisorder
from dae_ros.events.codecs import layout
from dae_ros.events.codecs.types import Int64s, Octets
from dae_ros.events.packet import TIME_LIMIT_NS, DecodedPacket, Events, Payload, Triggers

_NO_TRIGGERS = Triggers.empty()
_NOTHING_DONE = [0] * layout.STATE_SIZE
_NO_EDGES = (np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint16))


@dataclass(frozen=True, slots=True)
class Codec:
    """One encoding: its kernels (arguments in `layout`) and what its times mean.

    Attributes:
        encoding: name in `EventPacket.encoding`.
        has_absolute_time: True where times are those of a clock that others share.
        count: payload -> (events, triggers) that it holds, dropped ones included.
        decode: the decoder kernel.
        whole_octets: how many octets of a payload of that length are whole words.
        forget_position: make the state wait for the next address words; None where every
            event carries its own.
        has_triggers: whether the words can hold external triggers.
    """

    encoding: str
    has_absolute_time: bool
    count: Callable[[Octets], tuple[int, int]]
    decode: Callable[..., None]
    whole_octets: Callable[[int], int]
    forget_position: Callable[[Int64s], None] | None = None
    has_triggers: bool = False


def _read_only(payload: Payload) -> memoryview:
    """Return one kind of view for bytes, bytearray and arrays: kernels are compiled once."""
    view = payload.data if isinstance(payload, np.ndarray) else memoryview(payload)
    return view.cast("B").toreadonly()


class Decoder:
    """Decodes the payloads of one camera, in the order in which they were published.

    Not thread-safe: one thread owns it. The kernels release the GIL.

    Attributes:
        encoding, width, height: as given to `create_decoder`; sizes in px.
        has_absolute_time: whether times belong to a clock that frames share (`libcaer`,
            `libcaer_cmp`, `mono`, event arrays) or count from the camera's start (`evt*`).
    """

    def __init__(self, codec: Codec, width: int, height: int) -> None:
        # x and y are stored in 16 bits
        if not (0 < width <= 65535 and 0 < height <= 65535):
            raise ConfigurationError(
                f"The sensor size {width}x{height} is not possible; width and height must be "
                "1 to 65535 px. Check the width and height fields of the event messages.",
                width=width,
                height=height,
            )
        self.encoding = codec.encoding
        self.width = width
        self.height = height
        self.has_absolute_time = codec.has_absolute_time
        self._codec = codec
        self._state = np.zeros(layout.STATE_SIZE, np.int64)
        self._counts = np.zeros(len(layout.REASONS), np.int64)
        self._breaks = np.empty((layout.BREAK_CAPACITY, 3), np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget time, position and synchronisation; the counts stay."""
        self._state[:] = 0
        self.forget_position()

    def forget_position(self) -> None:
        """Keep the time, forget row and vector base: what to do after a gap in `seq`.

        Words were lost, so an event that comes before the next address word could be put into
        the wrong row. No effect for encodings in which every event carries its own address.
        """
        if self._codec.forget_position is not None:
            self._codec.forget_position(self._state)

    @property
    def latest_time_ns(self) -> int | None:
        """Newest sensor time seen, in ns, from events or from time words; None before any."""
        if self._state[layout.NOW_KNOWN] == 0:
            return None
        return int(self._state[layout.NOW])

    @property
    def counts(self) -> Mapping[str, int]:
        """Everything odd or dropped since construction, by reason (table in `docs/time.md`)."""
        return MappingProxyType(dict(zip(layout.REASONS, self._counts.tolist(), strict=True)))

    def decode(self, payload: Payload, time_base_ns: int = 0) -> Events:
        """Return all events of one payload.

        Raises:
            TimeDisorder: time ran back by more than 10 ms between two events of this payload,
                so that they cannot be one sorted `Events`. `.data["segments"]` holds all of
                them, cut where that happened; nothing is lost and decoding can go on.
                A break between two payloads does not raise: `counts["time_breaks"]` tells, and
                `decode_packet` reports it.
        """
        packet = self.decode_packet(payload, time_base_ns)
        segments = tuple(segment for segment in packet.segments if len(segment) > 0)
        if len(segments) > 1:
            raise TimeDisorder(
                f"Time ran back by {max(packet.breaks_ns) / 1e6:.1f} ms inside one packet of "
                f"encoding {self.encoding}. Use the sorted parts in data['segments'], or "
                "decode_packet, which returns them.",
                segments=segments,
                breaks_ns=packet.breaks_ns,
            )
        return segments[0] if segments else Events.empty()

    def decode_packet(self, payload: Payload, time_base_ns: int = 0) -> DecodedPacket:
        """Decode one payload, cut into segments where time ran back by more than 10 ms.

        Args:
            payload: contiguous bytes; octets after the last whole word are counted
                (`trailing_bytes`) and never joined with the next payload.
            time_base_ns: `EventPacket.time_base`, added to the times of `libcaer`,
                `libcaer_cmp` and `mono`; the other encodings do not use it.

        Returns:
            Segments and triggers. A segment that follows a break is empty where no event came
            after the break, so that the break itself is never lost.

        Raises:
            MalformedPacket: times that no ROS stamp can hold (`TIME_LIMIT_NS`), from a damaged
                time base or a flood of wraps. The packet then has changed nothing.
        """
        before = self._state.tobytes(), self._counts.tobytes()
        octets = np.frombuffer(_read_only(payload), np.uint8)
        whole = self._codec.whole_octets(octets.size)
        if whole != octets.size:
            self._counts[layout.TRAILING_BYTES] += octets.size - whole
            octets = octets[:whole]
        if whole == 0:
            return DecodedPacket((), _NO_TRIGGERS)

        events, triggers = self._codec.count(octets)
        t = np.empty(events + 1, np.int64)
        x = np.empty(events + 1, np.uint16)
        y = np.empty(events + 1, np.uint16)
        p = np.empty(events + 1, np.uint8)
        edge_t, edge, channel = _NO_EDGES
        if triggers:
            edge_t = np.empty(triggers, np.int64)
            edge = np.empty(triggers, np.uint8)
            channel = np.empty(triggers, np.uint16)
        state = self._state
        state[: layout.PAYLOAD_STATE] = 0
        cuts: list[tuple[int, int, int]] = []
        # One list of Python numbers: each look into an array would cost as much as ten of these.
        after = _NOTHING_DONE
        while not after[layout.DONE]:
            state[layout.BREAKS] = 0
            self._codec.decode(
                octets, time_base_ns, self.width, self.height, layout.TOLERANCE_NS, state,
                self._counts, t, x, y, p, edge_t, edge, channel, self._breaks,
            )  # fmt: skip
            after = state.tolist()
            if after[layout.BREAKS]:
                cuts.extend(map(tuple, self._breaks[: after[layout.BREAKS]].tolist()))

        stored = after[layout.EVENTS]
        if 2 * stored < events:  # do not keep memory for events that were dropped
            t, x, y, p = t[:stored].copy(), x[:stored].copy(), y[:stored].copy(), p[:stored].copy()
        everything = Events(t[:stored], x[:stored], y[:stored], p[:stored])
        kept = after[layout.TRIGGERS]
        found = Triggers(edge_t[:kept], edge[:kept], channel[:kept]) if kept else _NO_TRIGGERS
        latest_ns = after[layout.NOW]
        if cuts:
            latest_ns = max(latest_ns, *(int(t.max(initial=0)) for t in (everything.t, found.t)))
        if latest_ns >= TIME_LIMIT_NS:
            state[:] = np.frombuffer(before[0], np.int64)
            self._counts[:] = np.frombuffer(before[1], np.int64)
            raise MalformedPacket(
                f"A packet of encoding {self.encoding} holds times beyond January 2038, up to "
                "which ROS stamps count. It was dropped; see that the camera's clock is right.",
                encoding=self.encoding,
                time_base_ns=time_base_ns,
            )
        if not cuts:
            return DecodedPacket((everything,) if stored else (), found)
        first_events, backs_ns, first_triggers = zip(*cuts, strict=True)
        segments = [everything.slice(*ends) for ends in pairwise((*first_events, stored))]
        if first_events[0] > 0 or first_triggers[0] > 0:  # else the packet begins with the cut
            segments.insert(0, everything.slice(0, first_events[0]))
        return DecodedPacket(tuple(segments), found, backs_ns, first_triggers)
