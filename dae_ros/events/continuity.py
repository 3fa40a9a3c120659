"""Finds the places where a stream of packets does not continue what came before.

`Continuity` sees each packet twice: `surplus` and `check` before it is decoded (counter, size,
encoding) and `accept` and `check_time` after (event time against `header.stamp`). A packet that
could not be decoded is not accepted: the next one is compared with the last usable one, so that the
loss shows. A `Gap` is a return value, not an error.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from dae_ros.events.packet import EventPacket

Cause: TypeAlias = Literal[
    "lost", "time_backward", "time_jump", "restart", "resolution", "encoding"
]
Surplus: TypeAlias = Literal["duplicate_packets", "late_packets"]

# Event time and stamps that disagree by more than this between two packets do not belong to one
# run of the sensor's clock. Host delays are milliseconds, so a second is far outside.
TIME_JUMP_NS: Final = 1_000_000_000
# Some drivers leave the stamp empty or write it in another unit; absolute event times that are
# this far from the stamp say nothing about each other.
_USABLE_STAMP_NS: Final = 60_000_000_000
# Transports keep the order of a publisher. Merged recordings repeat a message or put it behind its
# next neighbours; what is further out of order is a restart or a loop.
_NEIGHBOURS: Final = 2


@dataclass(frozen=True, slots=True)
class Gap:
    """A place where the stream does not continue.

    Attributes:
        cause: `lost` (messages missing by their counter), `time_backward` (event time ran back
            by more than disorder explains), `time_jump` (event time against stamps), `restart`
            (the counter fell: a driver restart or a bag that loops), `resolution`, `encoding`.
        duration_ns: event time that is missing; how far time ran back for `time_backward`; the
            disagreement for `time_jump`; None where it cannot be known.
        lost_packets: messages that the counter says are missing.
        detail: one sentence for logs and diagnostics.
    """

    cause: Cause
    duration_ns: int | None
    lost_packets: int
    detail: str

    @property
    def breaks_time(self) -> bool:
        """Whether events before and after share no time axis, so that history must be dropped."""
        return self.cause != "lost"


class _Accepted(NamedTuple):
    """What is compared of an accepted packet: all but its payload, which is let go."""

    encoding: str
    height: int
    width: int
    stamp_ns: int
    seq: int | None


class Continuity:
    """The continuity of one camera's packets.

    Not thread-safe: one owner.
    """

    def __init__(self) -> None:
        self._last: _Accepted | None = None
        # seq, stamp and octets of the newest packets of the run, the last one included
        self._newest: deque[tuple[int, int, int]] = deque(maxlen=_NEIGHBOURS + 1)
        self._first_seq: int | None = None  # where the run began
        self._event_time_ns: int | None = None
        self._stamp_ns = 0
        self._span_ns = 0
        self._dropped = False
        self._lost_packets = 0
        self._gaps: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """`lost_packets`, and `gap_<cause>` for each cause that occurred."""
        found = {f"gap_{cause}": count for cause, count in sorted(self._gaps.items())}
        return {"lost_packets": self._lost_packets, **found}

    def surplus(self, packet: EventPacket) -> Surplus | None:
        """Say why a packet has no place behind those accepted, and should be dropped.

        `duplicate_packets`: it repeats one of the last three in counter, stamp and length.
        `late_packets`: it is one of the two before the last, not seen yet, and its stamp is not
        newer. A counter that falls to where the run began is neither: the bag looped.
        """
        last, seq = self._last, packet.seq
        if last is None or last.seq is None or seq is None or seq == last.seq == 0:
            return None
        if _kind(packet) != _kind(last) or not 0 <= last.seq - seq <= _NEIGHBOURS:
            return None
        identity = _identity(packet, seq)
        if identity == self._newest[-1]:
            return "duplicate_packets"
        if identity in self._newest:
            return "duplicate_packets" if seq != self._first_seq else None
        unseen = all(accepted != seq for accepted, _, _ in self._newest)
        return "late_packets" if unseen and packet.stamp_ns <= last.stamp_ns else None

    def check(self, packet: EventPacket) -> Gap | None:
        """Compare a packet's counter, size and encoding with the last accepted packet.

        A counter that is 0 in both packets is a counter that nobody fills. Where there is none,
        `note_drop` alone tells of a loss, and nothing how many packets it was.
        """
        last = self._last
        if last is None:
            return None
        if packet.encoding != last.encoding:
            return Gap(
                "encoding",
                None,
                0,
                f"The encoding changed from {last.encoding} to {packet.encoding}.",
            )
        if (packet.height, packet.width) != (last.height, last.width):
            return Gap(
                "resolution",
                None,
                0,
                f"The sensor changed from {last.width}x{last.height} to "
                f"{packet.width}x{packet.height}.",
            )
        if packet.seq is None or last.seq is None or packet.seq == last.seq == 0:
            if self._dropped:
                return Gap("lost", None, 0, "Messages were dropped before they were read.")
            return None
        if packet.seq <= last.seq:
            return Gap(
                "restart",
                None,
                0,
                f"The message counter fell from {last.seq} to {packet.seq}: the driver "
                "restarted, the bag looped, or two publishers share the topic.",
            )
        lost = packet.seq - last.seq - 1
        if lost == 0:
            return None
        return Gap("lost", None, lost, f"{lost} messages before {packet.seq} are missing.")

    def note_drop(self) -> None:
        """Say that messages between the last packet and the next one were dropped unread."""
        self._dropped = True

    def accept(self, packet: EventPacket) -> None:
        """Make a packet that could be decoded the one that the next is compared with."""
        gap = self.check(packet)
        self._dropped = False
        if self._last is None or (gap is not None and gap.breaks_time):
            self._newest.clear()
            self._first_seq = packet.seq
        if packet.seq is not None:
            self._newest.append(_identity(packet, packet.seq))
        self._last = _Accepted(
            packet.encoding, packet.height, packet.width, packet.stamp_ns, packet.seq
        )

    def check_time(
        self, event_time_ns: int, stamp_ns: int, *, absolute: bool, span_ns: int = 0
    ) -> Gap | None:
        """Compare how far event time and stamps moved since the packet before.

        Args:
            event_time_ns: first event of the packet.
            stamp_ns: `header.stamp` of the packet.
            absolute: whether event times count from the epoch. Then only event time that runs
                ahead of the stamps is a jump (the sensor's clock was set); a host clock that was
                set does not matter. Otherwise stamps that run ahead are one too: after a long
                pause a wrapping sensor time no longer says how long it was.
            span_ns: from the first to the last event. Some drivers stamp the last event, so that
                packets of unequal length move the stamps by as much; that is no jump.
        """
        last_span_ns, self._span_ns = self._span_ns, span_ns
        last_event_ns, self._event_time_ns = self._event_time_ns, event_time_ns
        last_stamp_ns, self._stamp_ns = self._stamp_ns, stamp_ns
        if last_event_ns is None or last_stamp_ns == 0 or stamp_ns == 0:
            return None
        if absolute and abs(last_stamp_ns - last_event_ns) > _USABLE_STAMP_NS:
            return None
        ahead_ns = (event_time_ns - last_event_ns) - (stamp_ns - last_stamp_ns)
        limit_ns = TIME_JUMP_NS + max(span_ns, last_span_ns)
        if ahead_ns > limit_ns or (not absolute and ahead_ns < -limit_ns):
            return Gap(
                "time_jump",
                abs(ahead_ns),
                0,
                f"Event time moved {ahead_ns / 1e9:+.3f} s against the stamps.",
            )
        return None

    def count(self, gap: Gap) -> None:
        """Count a gap that is handed on."""
        self._gaps[gap.cause] += 1
        self._lost_packets += gap.lost_packets

    def forget_time(self) -> None:
        """Start the comparison of times afresh, because time does not continue."""
        self._event_time_ns = None

    def reset(self) -> None:
        """Forget the packets that came before; the counts stay."""
        self._last = None
        self._dropped = False
        self.forget_time()


def _kind(packet: EventPacket | _Accepted) -> tuple[str, int, int]:
    return packet.encoding, packet.height, packet.width


def _identity(packet: EventPacket, seq: int) -> tuple[int, int, int]:
    return seq, packet.stamp_ns, len(packet.payload)
