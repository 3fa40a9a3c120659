"""Recordings of any format into rosbag2, with the times that they had.

Record times are kept. Event arrays are repacked with every event as it is, to the ns; or, on
request, encoded into EventPackets, which takes a third to a half of the room and needs no
`dvs_msgs` to be played, but cuts event times to whole microseconds (all encodings but `mono`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.message_types import EVENT_PACKET
from dae_ros.bags.recording import Recording
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError, PacketError, RecordingError
from dae_ros.events.cdr import event_types, write_packet
from dae_ros.events.codecs import Decoder, create_decoder
from dae_ros.events.packet import EventPacket, Events
from dae_ros.simulation.encoders import create_encoder, longest_payload_ns

PACKET_ENCODINGS = ("evt3", "libcaer_cmp", "libcaer", "mono")


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted.

    Attributes:
        messages: topic -> messages written.
        skipped: topic -> why nothing of it could be written.
        damaged: topic -> messages that contradict their own layout and were left out.
        events: topic -> reason -> events that re-encoding dropped or moved (`docs/time.md`).
        event_bytes: of the event messages written.
        interrupted: whether it was stopped before its end.
        damage: the error that ended the source before its end, None for a whole one.
    """

    messages: dict[str, int]
    skipped: dict[str, str]
    damaged: dict[str, int]
    events: dict[str, dict[str, int]]
    event_bytes: int
    interrupted: bool
    damage: RecordingError | None


def convert(
    recording: Recording,
    target: Path,
    *,
    storage: str = "mcap",
    event_packets: str | None = None,
    topics: Collection[str] | None = None,
    report: Callable[[float | None, int], None],
    stopped: Callable[[], bool],
) -> Conversion:
    """Write a recording as rosbag2.

    Args:
        recording: opened.
        target: folder that does not exist yet.
        storage: `mcap` or `sqlite3`.
        event_packets: encoding of EventPackets that replace event arrays, None to keep arrays.
        topics: what to convert, None for all.
        report: called with (fraction of record time or None, messages so far).
        stopped: asked between messages; True ends with what is written so far, whole.

    Raises:
        RecordingError: a topic that is not there, a target that cannot be written.
        ConfigurationError: event times that the encoding cannot hold.
    """
    encoders: dict[str, _ArrayEncoder] = {}
    messages: Counter[str] = Counter()
    damaged: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    event_bytes = 0
    damage: RecordingError | None = None
    interrupted = False
    source = recording.messages(topics)
    done = 0
    with BagWriter(target, storage) as bag:
        while True:
            if stopped():
                interrupted = True
                break
            try:
                message = next(source, None)
            except RecordingError as error:
                damage = error
                break
            if message is None:
                break
            done += 1
            report(_fraction(recording, message.time_ns), done)
            if message.topic in skipped:
                continue
            is_events = message.type in event_types()
            outputs: list[tuple[str, bytes | memoryview]]
            try:
                if is_events and event_packets is not None and message.type != EVENT_PACKET:
                    encoder = encoders.setdefault(message.topic, _ArrayEncoder(event_packets))
                    packet = recording.read_packet(message)
                    outputs = [(EVENT_PACKET, data) for data in encoder.convert(packet)]
                else:
                    outputs = [(message.type, recording.to_cdr(message))]
                    if message.topic not in messages:
                        _announce(recording, bag, message)
            except PacketError:
                damaged[message.topic] += 1
                continue
            except RecordingError as error:
                if message.topic in messages:
                    damaged[message.topic] += 1
                else:
                    skipped[message.topic] = error.message
                continue
            for type_name, data in outputs:
                bag.write(message.topic, type_name, message.time_ns, data)
                messages[message.topic] += 1
                event_bytes += len(data) if is_events else 0
    events = {topic: encoder.counts() for topic, encoder in encoders.items() if encoder.counts()}
    return Conversion(
        dict(messages), skipped, dict(damaged), events, event_bytes, interrupted, damage
    )


def _announce(recording: Recording, bag: BagWriter, message: RecordedMessage) -> None:
    """Announce a topic with the definition and the QoS of the source."""
    info = recording.topics[message.topic]
    bag.add_topic(message.topic, message.type, info.definition, info.qos)


def _fraction(recording: Recording, time_ns: int) -> float | None:
    if recording.start_ns is None or recording.end_ns is None:
        return None
    length_ns = recording.end_ns - recording.start_ns
    return (time_ns - recording.start_ns) / length_ns if length_ns > 0 else None


def _pieces(events: Events, span_ns: int | None) -> Iterator[Events]:
    """Cut events so that each piece ends less than `span_ns` after its start; one where None."""
    start = 0
    while span_ns is not None and start < len(events):
        # from the whole microsecond on, as time bases are
        end_ns = int(events.t[start]) // 1000 * 1000 + span_ns
        stop = int(np.searchsorted(events.t, end_ns, side="left"))
        if stop == len(events):
            break
        yield events.slice(start, stop)
        start = stop
    yield events.slice(start, len(events))


class _ArrayEncoder:
    """Turns the event arrays of one topic into EventPackets, numbered from 0."""

    def __init__(self, encoding: str) -> None:
        if encoding not in PACKET_ENCODINGS:
            raise ConfigurationError(
                f"event arrays cannot be encoded as '{encoding}'; choose one of "
                f"{', '.join(PACKET_ENCODINGS)}",
                encoding=encoding,
            )
        self._encoding = encoding
        self._shape: tuple[str, int, int] | None = None
        self._seq = 0
        self._decoder: Decoder | None = None
        self._earlier: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """Return what the decoders dropped or moved, by reason, without zeros."""
        total = self._earlier + Counter(self._decoder.counts if self._decoder else {})
        return dict(sorted(total.items()))

    def convert(self, packet: EventPacket) -> Iterator[bytes]:
        """Yield the messages for one array.

        One, and one more wherever time ran back in it and wherever it is longer than what a payload
        holds. Such pieces are stamped as the array is: so long after their first event, or after
        their last one if the array's stamp is nearer to that.
        """
        shape = (packet.encoding, packet.width, packet.height)
        if shape != self._shape:
            self._shape = shape
            self._earlier = Counter(self.counts())
            self._decoder = create_decoder(*shape)
            self._encoder = create_encoder(self._encoding, packet.width, packet.height)
        if self._decoder is None:
            raise RuntimeError("the first packet always makes a decoder")
        decoded = self._decoder.decode_packet(packet.payload)
        pieces = [
            (back_ns if number == 0 else None, piece)
            for back_ns, events, _ in decoded.parts()
            for number, piece in enumerate(_pieces(events, longest_payload_ns(self._encoding)))
        ]
        delays_ns = [
            0 if len(piece) == 0 else packet.stamp_ns - int(piece.t[index])
            for (_, piece), index in ((pieces[0], 0), (pieces[-1], -1))
        ]
        stamped = 0 if abs(delays_ns[0]) <= abs(delays_ns[1]) else -1
        for back_ns, events in pieces:
            if back_ns is not None:
                # A clock that was set back: the words go on from nothing.
                self._encoder = create_encoder(self._encoding, packet.width, packet.height)
            payload, base_ns = self._encoder.encode(events)
            stamp_ns = packet.stamp_ns
            if self._encoding == "evt3" and len(events):
                # The words hold only the low 24 bits of the microseconds; the stamp of the first
                # event is what leads back to the recorded clock.
                stamp_ns = int(events.t[0])
            elif len(pieces) > 1 and stamp_ns != 0:
                stamp_ns = int(events.t[stamped]) + delays_ns[stamped]
            yield self._packet(packet, payload, base_ns, stamp_ns)

    def _packet(self, packet: EventPacket, payload: bytes, base_ns: int, stamp_ns: int) -> bytes:
        self._seq += 1
        return write_packet(
            EventPacket(
                self._encoding,
                packet.height,
                packet.width,
                payload,
                base_ns,
                stamp_ns,
                self._seq - 1,
                packet.frame_id,
            )
        )
