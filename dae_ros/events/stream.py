"""One camera: packets in, ordered parts of events out.

packet -> continuity -> decoder (created from the packet's encoding and size) -> clock -> parts.
The owner of the stream handles the parts in order: reacts to the gap (clears the ring where
`gap.breaks_time`), pushes the events into `ring`, closes windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dae_ros.errors import ConfigurationError, MalformedPacket, PacketError
from dae_ros.events.codecs import Decoder, create_decoder
from dae_ros.events.continuity import Continuity, Gap
from dae_ros.events.last_events import LastEvents
from dae_ros.events.packet import DecodedPacket, EventPacket, Events, Triggers
from dae_ros.events.ring_buffer import EventRing
from dae_ros.events.sensor_clock import SensorClock


@dataclass(frozen=True, slots=True, eq=False)
class StreamPart:
    """A run of events without a break.

    Attributes:
        gap: what lies between this part and what came before; None for a healthy stream.
        events: may be empty.
        triggers: external edges on the part's side of a break; may be empty.
        newest_time_ns: newest sensor time seen, from events or from time words without events.
            Windows that end at or before it are complete.
        stamp_ns: `header.stamp` of the packet.
        clock: converts this part's times, and those of all before back to the last gap that
            breaks time. Where a packet holds such a break, its parts have different clocks; that
            of what lies after it is provisional until the next packet, because the stamp is that
            of the packet's beginning.
    """

    gap: Gap | None
    events: Events
    triggers: Triggers
    newest_time_ns: int
    stamp_ns: int
    clock: SensorClock


class EventStream:
    """Decodes one camera's packets and keeps its ring and its clock.

    Not thread-safe: one owner.

    Args:
        ring_length_ns, ring_capacity_bytes: bounds of the ring (`EventRing`).

    Attributes:
        ring: filled by the owner, part by part.
        clock: that of the newest part; another one since time last broke.
    """

    def __init__(
        self, ring_length_ns: int = 3_000_000_000, ring_capacity_bytes: int = 256_000_000
    ) -> None:
        self.ring = EventRing(ring_length_ns, ring_capacity_bytes)
        self.clock = SensorClock(absolute=True)
        self._continuity = Continuity()
        self._decoder: Decoder | None = None
        self._pending: Gap | None = None
        self._newest_time_ns: int | None = None
        self._counts: Counter[str] = Counter()

    @property
    def height(self) -> int | None:
        """Rows of the sensor in px, None before the first packet."""
        return self._decoder.height if self._decoder else None

    @property
    def width(self) -> int | None:
        """Columns of the sensor in px, None before the first packet."""
        return self._decoder.width if self._decoder else None

    @property
    def encoding(self) -> str | None:
        """Encoding of the last usable packet, None before the first."""
        return self._decoder.encoding if self._decoder else None

    @property
    def newest_time_ns(self) -> int | None:
        """Newest sensor time seen since time last broke, None before the first."""
        return self._newest_time_ns

    def counts(self) -> Mapping[str, int]:
        """Return everything that was dropped or odd, by reason, since the stream was made.

        `lost_packets` and `gap_<cause>`; `duplicate_packets` and `late_packets`; the error code
        of packets that were refused; the decoders' reasons (`docs/time.md`); `evicted_events` for
        those that left the ring.
        """
        total = self._counts + Counter(self._decoder.counts if self._decoder else {})
        total.update(self._continuity.counts)
        total["evicted_events"] = self.ring.evicted_count
        return dict(total)

    def feed(self, packet: EventPacket, onto: LastEvents | None = None) -> list[StreamPart]:
        """Decode one packet.

        Args:
            packet: the next one.
            onto: see `Decoder.decode_packet`.

        Returns:
            The parts in order: one for a healthy packet, one more for each place where time ran
            back, none while not even a time is known, and none for a packet that repeats
            another or comes after its successors (`Continuity.surplus`): it is only counted.

        Raises:
            PacketError: the packet cannot be used; it is counted and the stream goes on with the
                next one, before which it then is missing (`lost`).
        """
        surplus = self._continuity.surplus(packet)
        if surplus is not None:
            self._counts[surplus] += 1
            return []
        found = self._continuity.check(packet)
        try:
            # What the pending gap asks for has been done; again, it would undo what came since.
            decoder = self._decoder_for(packet, found)
            decoded = decoder.decode_packet(packet.payload, packet.time_base_ns, onto)
        except PacketError as error:
            self._counts[error.code] += 1
            if self._decoder is not None:
                self._decoder.forget_position()
            raise
        if decoder is not self._decoder:
            self._replace(decoder)
        self._continuity.accept(packet)
        return self._parts(packet, _worse(self._pending, found), decoder, decoded)

    def note_drop(self) -> None:
        """Say that messages before the next packet were dropped unread; see `Continuity`."""
        self._continuity.note_drop()

    def reset(self) -> None:
        """Forget the past: ring, clock, the decoder's state; the counts stay."""
        self.ring.clear()
        self._continuity.reset()
        self._pending = None
        if self._decoder is not None:
            self._decoder.reset()
        self._forget_time()

    def _decoder_for(self, packet: EventPacket, gap: Gap | None) -> Decoder:
        """Return the decoder, prepared for what the gap before this packet says is missing."""
        decoder = self._decoder
        wanted = (packet.encoding, packet.width, packet.height)
        if decoder is None or (decoder.encoding, decoder.width, decoder.height) != wanted:
            try:
                return create_decoder(*wanted)
            except ConfigurationError as error:  # a size that no sensor has
                raise MalformedPacket(error.message, **error.data) from error
        if gap is not None and gap.breaks_time:
            decoder.reset()
        elif gap is not None:
            decoder.forget_position()
        return decoder

    def _replace(self, decoder: Decoder) -> None:
        if self._decoder is not None:
            self._counts.update(self._decoder.counts)
        self._decoder = decoder
        self.clock = SensorClock(decoder.has_absolute_time)

    def _parts(
        self, packet: EventPacket, gap: Gap | None, decoder: Decoder, decoded: DecodedPacket
    ) -> list[StreamPart]:
        parts = []
        found = list(decoded.parts())
        inside = False  # whether a part of this packet lies before
        for index, (back_ns, events, triggers) in enumerate(found):
            if back_ns is not None:
                gap = _worse(gap, _backward(back_ns))
            last = index == len(found) - 1
            first_ns = _first(events, triggers)
            newest_ns = decoder.latest_time_ns if last else _newest(events, triggers)
            if gap is not None and gap.breaks_time:
                resumed_ns = newest_ns if first_ns is None else first_ns
                self._forget_time(resumed_ns if inside else None)
            if len(events) > 0:
                # The stamp does not belong to what follows a break inside the packet; and where
                # there is one, drivers that stamp the end have stamped the other side.
                if len(found) == 1:
                    gap = self._compare(gap, events, packet.stamp_ns)
                if not inside:
                    self.clock.update(events.first_ns, packet.stamp_ns)
                if gap is not None and self._newest_time_ns is not None:
                    missing_ns = max(0, events.first_ns - self._newest_time_ns)
                    gap = replace(gap, duration_ns=missing_ns)
            inside = inside or first_ns is not None
            if newest_ns is not None:
                self._newest_time_ns = newest_ns
            if self._newest_time_ns is None:
                continue  # nothing to date a part with; what comes next starts after this gap too
            if gap is not None:
                self._continuity.count(gap)
            newest_ns = self._newest_time_ns
            parts.append(StreamPart(gap, events, triggers, newest_ns, packet.stamp_ns, self.clock))
            gap = None
        self._pending = gap
        return parts

    def _compare(self, gap: Gap | None, events: Events, stamp_ns: int) -> Gap | None:
        """Compare a whole packet's times with the packet before; forget the time at a jump."""
        first_ns = events.first_ns
        span_ns = events.last_ns - first_ns
        absolute = self.clock.absolute
        jump = self._continuity.check_time(first_ns, stamp_ns, absolute=absolute, span_ns=span_ns)
        if jump is None:
            return gap
        self._forget_time()
        self._continuity.check_time(first_ns, stamp_ns, absolute=absolute, span_ns=span_ns)
        return _worse(gap, jump)

    def _forget_time(self, resumed_ns: int | None = None) -> None:
        """Begin a new time axis.

        Args:
            resumed_ns: its first time, where no stamp tells when that was. Until one does, it is
                taken for the moment at which the old axis ended; where ROS time was sensor time
                (a `.raw` file, no stamps), it stays so.
        """
        offset_ns = 0
        if resumed_ns is not None and self._newest_time_ns is not None:
            ended_ns = self.clock.to_ros(self._newest_time_ns)
            offset_ns = ended_ns - resumed_ns if ended_ns != self._newest_time_ns else 0
        self._newest_time_ns = None
        self._continuity.forget_time()
        self.clock = SensorClock(self.clock.absolute, offset_ns)


def _first(events: Events, triggers: Triggers) -> int | None:
    first_ns = events.first_ns if len(events) else None
    if not len(triggers):
        return first_ns
    return min(int(triggers.t[0]), int(triggers.t[0]) if first_ns is None else first_ns)


def _newest(events: Events, triggers: Triggers) -> int | None:
    last_ns = events.last_ns if len(events) else None
    if not len(triggers):
        return last_ns
    return max(int(triggers.t[-1]), int(triggers.t[-1]) if last_ns is None else last_ns)


def _backward(by_ns: int) -> Gap:
    return Gap("time_backward", by_ns, 0, f"Event time ran back by {by_ns / 1e9:.6f} s.")


def _worse(first: Gap | None, second: Gap | None) -> Gap | None:
    """Join two findings about one place; the first that breaks time names the cause."""
    if first is None or second is None:
        return first or second
    if first.breaks_time:
        return replace(first, lost_packets=first.lost_packets + second.lost_packets)
    return replace(second, lost_packets=first.lost_packets + second.lost_packets)
