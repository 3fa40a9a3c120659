"""The decoder: carries one camera's state from payload to payload and cuts columns to size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, MalformedPacket, TimeDisorder
from dae_ros.events.codecs import layout
from dae_ros.events.codecs.types import Int64s, Octets, UInt8s, UInt16s
from dae_ros.events.last_events import LastEvents
from dae_ros.events.packed import BYTES_PER_ROW, PackedEvents, Rows
from dae_ros.events.packet import (
    TIME_LIMIT_NS,
    DecodedPacket,
    Events,
    Payload,
    Triggers,
    columns_of,
)
from dae_ros.events.put_away import PutAwayEvents

# What it takes to decode a packet again: codec, whole words, time base, width and height, memory.
_Packet: TypeAlias = "tuple[Codec, Octets, int, tuple[int, int], bytes]"
_NO_TRIGGERS = Triggers.empty()
# A packet of fewer octets an event than this may be kept in place of columns, which are 13: what a
# record of an event array is at most, so that all formats can be put on a surface.
_RECORD_OCTETS = 16


@dataclass(frozen=True, slots=True)
class Codec:
    """One encoding: its kernels (arguments in `layout`) and what its times mean.

    Attributes:
        encoding: name in `EventPacket.encoding`.
        has_absolute_time: True where times are those of a clock that others share.
        count: payload -> (events, triggers) that it holds, dropped ones included.
        decode: the decoder kernel.
        put: kernel that puts the events of a healthy packet on `LastEvents` and counts them;
            `NOT_PUT` of any other packet.
        whole_octets: how many octets of a payload of that length are whole words.
        forget_position: make the state wait for the next address words; None where every
            event carries its own.
        has_triggers: whether the words can hold external triggers.
        packs: whether the kernel writes packed rows; else columns.
    """

    encoding: str
    has_absolute_time: bool
    count: Callable[[Octets], tuple[int, int]]
    decode: Callable[..., None]
    put: Callable[..., int]
    whole_octets: Callable[[int], int]
    forget_position: Callable[[Int64s], None] | None = None
    has_triggers: bool = False
    packs: bool = False


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
        # One block, so that one copy keeps both.
        self._memory = np.zeros(layout.STATE_SIZE + len(layout.REASONS), np.int64)
        self._state = self._memory[: layout.STATE_SIZE]
        self._counts = self._memory[layout.STATE_SIZE :]
        self._breaks = _room_for_breaks()
        self._ends_ns = np.zeros(2, np.int64)
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

    def warm_up(self) -> None:
        """Compile or load the kernels; for a decoder that has nothing else to do."""
        # zeros are decodable words of every encoding; 16 octets hold at least one of each
        octets = bytes(16)
        size = self.width, self.height
        entries = np.zeros(self.width * self.height, np.uint32)
        # as long as no time is known nothing is put
        nothing = LastEvents(self.height, self.width, entries, 0, 1)
        self._put((self._codec, _octets_of(octets), 0, size, b""), nothing)
        self.decode_packet(octets)

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

    def decode_packet(
        self, payload: Payload, time_base_ns: int = 0, onto: LastEvents | None = None
    ) -> DecodedPacket:
        """Decode one payload, cut into segments where time ran back by more than 10 ms.

        Args:
            payload: contiguous bytes; octets after the last whole word are counted
                (`trailing_bytes`) and never joined with the next payload.
            time_base_ns: `EventPacket.time_base`, added to the times of `libcaer`,
                `libcaer_cmp` and `mono`; the other encodings do not use it.
            onto: where events are put instead, if all of the packet's can be; `onto.put` says how
                many were. What is returned is the same.

        Returns:
            Segments and triggers. A segment that follows a break is empty where no event came
            after the break, so that the break itself is never lost.

        Raises:
            MalformedPacket: times that no ROS stamp can hold (`TIME_LIMIT_NS`), from a damaged
                time base or a flood of wraps. The packet then has changed nothing.
        """
        before = self._memory.tobytes()
        codec = self._codec
        octets = _octets_of(payload)
        whole = codec.whole_octets(octets.size)
        if whole != octets.size:
            self._counts[layout.TRAILING_BYTES] += octets.size - whole
            octets = octets[:whole]
        if whole == 0:
            return DecodedPacket((), _NO_TRIGGERS)

        size = self.width, self.height
        packet = codec, octets, time_base_ns, size, before
        lasting = _is_lasting(payload)
        if onto is not None and lasting:
            put = self._put(packet, onto)
            if put is not None:
                return DecodedPacket((put,), _NO_TRIGGERS)
        most, triggers = codec.count(octets)
        room = _room_for(codec, most)
        edges = _edges_of(triggers) if triggers else _NO_EDGES
        memory = self._state, self._counts, self._breaks
        after, cuts, origins = _decode(codec, octets, time_base_ns, size, memory, room, edges)

        stored, kept = after[layout.EVENTS], after[layout.TRIGGERS]
        found = _NO_TRIGGERS
        if kept:
            found = Triggers(edges[0][:kept], edges[1][:kept], edges[2][:kept])
        columns: list[NDArray[Any]] = [column[:stored] for column in room]
        if 2 * stored < most:  # do not keep memory for events that were dropped
            columns = [column.copy() for column in columns]
        everything: Events
        if codec.packs:
            keep = lasting and octets.size < columns[0].nbytes
            everything = _packed(columns[0], origins, packet if keep else None)
        else:
            everything = Events(*columns)
        latest_ns = after[layout.NOW]
        if cuts:
            latest_ns = max(latest_ns, *(int(t.max(initial=0)) for t in (everything.t, found.t)))
        if latest_ns >= TIME_LIMIT_NS:
            self._memory[:] = np.frombuffer(before, np.int64)
            if onto is not None:
                onto.spoiled = True
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

    def _put(self, packet: _Packet, onto: LastEvents) -> Events | None:
        """Put a packet's events where they belong; None where it has to be decoded."""
        codec, octets, time_base_ns, (width, height), _ = packet
        if (onto.width, onto.height) != (width, height):
            return None
        ends, before_us = self._ends_ns, min(onto.before_us, TIME_LIMIT_NS // 1000)
        # What is larger than its events is not kept.
        fewest = octets.size // (BYTES_PER_ROW if codec.packs else _RECORD_OCTETS) + 1
        count = codec.put(
            octets, time_base_ns, width, height, self._state, self._counts, onto.entries,
            onto.base_us, before_us, fewest, ends,
        )  # fmt: skip
        if count == layout.NOT_PUT:
            return None
        onto.put += count
        ends_ns = ends.item(0), ends.item(1)
        if not codec.packs:
            again = partial(_columns_again, *packet)
            return PutAwayEvents(count, ends_ns, again, octets.size)
        origin_us = int(self._state[layout.ORIGIN])
        rows_again = partial(_rows_again, *packet)
        return PackedEvents.put_away(count, ends_ns, origin_us, rows_again, octets.size)


def _decode(
    codec: Codec,
    octets: Octets,
    time_base_ns: int,
    size: tuple[int, int],
    memory: tuple[Int64s, Int64s, Int64s],
    room: tuple[NDArray[Any], ...],
    edges: tuple[NDArray[Any], ...],
) -> tuple[list[int], list[tuple[int, int, int]], list[tuple[int, int]]]:
    """Call the kernel until the payload is used up.

    Args:
        codec, octets, time_base_ns: as for `decode_packet`.
        size: width and height in px.
        memory: state, counts and breaks, changed.
        room: filled with the events.
        edges: filled with the triggers.

    Returns:
        The state, as Python numbers: each look into an array would cost as much as ten of these.
        The breaks. And from which event on packed rows count from which origin in us.
    """
    state, counts, breaks = memory
    width, height = size
    state[: layout.PAYLOAD_STATE] = 0
    cuts: list[tuple[int, int, int]] = []
    origins: list[tuple[int, int]] = []
    begin = 0
    while True:
        codec.decode(
            octets, time_base_ns, width, height, layout.TOLERANCE_NS, state, counts,
            *room, *edges, breaks,
        )  # fmt: skip
        after: list[int] = state.tolist()
        if not origins or origins[-1][1] != after[layout.ORIGIN]:
            origins.append((begin, after[layout.ORIGIN]))
        if after[layout.BREAKS]:
            cuts.extend(map(tuple, breaks[: after[layout.BREAKS]].tolist()))
        if after[layout.DONE]:
            return after, cuts, origins
        begin = after[layout.EVENTS]
        state[layout.BREAKS] = 0


def _packed(rows: Rows, origins: list[tuple[int, int]], packet: _Packet | None) -> Events:
    """Return packed events that can be decoded again from `packet`, if that is to be kept."""
    if len(origins) > 1:  # a flood of wraps: no origin that all rows could count from
        ends = pairwise((*origins, (len(rows), 0)))
        return Events.concatenate(
            [
                PackedEvents(rows[start:stop], origin_us, lambda: rows, 0, start)
                for (start, origin_us), (stop, _) in ends
            ]
        )
    origin_us = origins[0][1]
    if packet is None:
        return PackedEvents(rows, origin_us, lambda: rows, 0)
    return PackedEvents(rows, origin_us, partial(_rows_again, *packet), packet[1].size)


def _rows_again(
    codec: Codec, octets: Octets, time_base_ns: int, size: tuple[int, int], before: bytes
) -> Rows:
    """Return the rows of a packet, from the memory that the decoder had before it."""
    (rows,) = _decode_again(codec, octets, time_base_ns, size, before)
    return rows


def _columns_again(
    codec: Codec, octets: Octets, time_base_ns: int, size: tuple[int, int], before: bytes
) -> Events:
    """Return the events of a packet, from the memory that the decoder had before it."""
    return Events(*_decode_again(codec, octets, time_base_ns, size, before))


def _decode_again(
    codec: Codec, octets: Octets, time_base_ns: int, size: tuple[int, int], before: bytes
) -> tuple[NDArray[Any], ...]:
    memory = np.frombuffer(before, np.int64).copy()
    state, counts = memory[: layout.STATE_SIZE], memory[layout.STATE_SIZE :]
    most, triggers = codec.count(octets)
    room = _room_for(codec, most)
    working = state, counts, _room_for_breaks()
    after, _, _ = _decode(codec, octets, time_base_ns, size, working, room, _edges_of(triggers))
    return tuple(column[: after[layout.EVENTS]] for column in room)


def _room_for(codec: Codec, count: int) -> tuple[NDArray[Any], ...]:
    """Return arrays for so many events and the one more that kernels may touch."""
    return (np.empty(count + 1, np.int64),) if codec.packs else columns_of(count + 1)


def _octets_of(payload: Payload) -> Octets:
    """Return a read-only view of any kind of payload: kernels are compiled once."""
    if not isinstance(payload, bytes):
        view = payload.data if isinstance(payload, np.ndarray) else memoryview(payload)
        payload = view.cast("B").toreadonly()
    return np.frombuffer(payload, np.uint8)


def _is_lasting(payload: Payload) -> bool:
    """Whether a payload can be kept as it is: nobody changes it, and it is most of its message."""
    if isinstance(payload, bytes):
        return True
    if not isinstance(payload, memoryview) or not isinstance(payload.obj, bytes):
        return False
    return 2 * payload.nbytes >= len(payload.obj)


def _edges_of(count: int) -> tuple[Int64s, UInt8s, UInt16s]:
    return np.empty(count, np.int64), np.empty(count, np.uint8), np.empty(count, np.uint16)


def _room_for_breaks() -> Int64s:
    return np.empty((layout.BREAK_CAPACITY, 3), np.int64)


_NO_EDGES = _edges_of(0)
