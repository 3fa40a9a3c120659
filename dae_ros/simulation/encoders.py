"""Events to payloads, the inverse of `dae_ros.events.codecs`: for the simulator and for tests.

`create_encoder` makes the stateful encoder of one simulated camera, `encode` encodes one payload
on its own. Times of all encodings but `mono` and the event arrays have whole microseconds: what
remains is cut off, as a sensor's own counter does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, UnsupportedEncoding
from dae_ros.events.packet import Events, Triggers
from dae_ros.simulation import evt_words, fixed_records

_NO_TIME = -1


class Encoder:
    """Encodes the events of one simulated camera, payload after payload.

    Attributes:
        encoding, width, height: as given to `create_encoder`; sizes in px.
    """

    def __init__(self, encoding: str, width: int, height: int, vectors: bool) -> None:
        self.encoding = encoding
        self.width = width
        self.height = height
        self._vectors = vectors
        self._state = np.full(4, _NO_TIME, np.int64)

    def encode(self, events: Events, triggers: Triggers | None = None) -> tuple[bytes, int]:
        """Return (payload, time_base_ns) for events that follow those of the last call.

        Args:
            events: sorted by time, inside the sensor, times >= 0.
            triggers: external edges, for `evt3`, `evt2` and `evt2.1` only.

        Raises:
            ConfigurationError: events outside the sensor or unsorted, times that the encoding
                cannot hold, or triggers in an encoding without them.
        """
        _check_events(events, self.width, self.height)
        if triggers is None:
            triggers = Triggers.empty()
        _check_times(triggers.t)
        if self.encoding in _RECORDS:
            if len(triggers) > 0:
                raise ConfigurationError(
                    f"Encoding {self.encoding} carries no triggers; use evt3, evt2 or evt2.1.",
                    encoding=self.encoding,
                )
            time_base_ns = _time_base(self.encoding, events)
            return _encode_records(self.encoding, events, time_base_ns, self._vectors), time_base_ns
        words = _WORDS[self.encoding](
            events.t, events.x, events.y, events.p, triggers.t, triggers.edge, triggers.channel,
            self._vectors, self._state,
        )  # fmt: skip
        return words.tobytes(), 0


def create_encoder(encoding: str, width: int, height: int, *, vectors: bool = True) -> Encoder:
    """Return an encoder for `encoding`.

    Args:
        encoding: one of `encodable`.
        width, height: sensor size in px.
        vectors: pack events that share time, row and polarity into vector words (`evt3`), or
            events of one column (`libcaer_cmp`); False writes one address word per event.
            `evt2.1` knows only vectors.

    Raises:
        UnsupportedEncoding: no such encoding.
        ConfigurationError: the sensor is larger than the encoding's addresses.
    """
    if encoding not in encodable():
        raise UnsupportedEncoding(
            f"No encoder for '{encoding}'; use one of {', '.join(encodable())}.",
            encoding=encoding,
            supported=encodable(),
        )
    widest, highest = _LIMITS[encoding]
    if width > widest or height > highest:
        raise ConfigurationError(
            f"Encoding {encoding} has addresses up to {widest}x{highest} px, not {width}x{height}. "
            "Use mono or an event array.",
            encoding=encoding,
            width=width,
            height=height,
        )
    return Encoder(encoding, width, height, vectors)


def encodable() -> tuple[str, ...]:
    """Return the names of the encodings that can be written."""
    return (*_WORDS, *_RECORDS)


def longest_payload_ns(encoding: str) -> int | None:
    """Return the exclusive upper bound of times after the time base, None where there is none."""
    return None if encoding in _WORDS else _RECORDS[encoding][1]


def encode(
    encoding: str,
    events: Events,
    width: int,
    height: int,
    *,
    time_base_ns: int = 0,
    vectors: bool = True,
    triggers: Triggers | None = None,
) -> bytes:
    """Encode one payload that needs no other: what a camera writes first after its start.

    Args:
        time_base_ns: what the times of `libcaer`, `libcaer_cmp` and `mono` are relative to; the
            other encodings do not use it.
        encoding, events, width, height, vectors, triggers: see `create_encoder` and
            `Encoder.encode`.
    """
    encoder = create_encoder(encoding, width, height, vectors=vectors)
    if encoding in _RECORDS and triggers is None:
        _check_events(events, width, height)
        if encoding.startswith("event_array"):
            time_base_ns = 0
        return _encode_records(encoding, events, time_base_ns, vectors)
    return encoder.encode(events, triggers)[0]


def _check_events(events: Events, width: int, height: int) -> None:
    _check_times(events.t)
    if len(events) > 0 and (int(events.x.max()) >= width or int(events.y.max()) >= height):
        raise ConfigurationError(
            f"Events lie outside the sensor of {width}x{height} px. Give the encoder the size of "
            "the sensor that made them.",
            width=width,
            height=height,
        )


def _check_times(t: NDArray[np.int64]) -> None:
    if len(t) > 0 and (int(t[0]) < 0 or bool((t[1:] < t[:-1]).any())):
        raise ConfigurationError(
            "Events and triggers must be sorted by time and not negative. Sort them before "
            "encoding."
        )


def _time_base(encoding: str, events: Events) -> int:
    if encoding.startswith("event_array") or len(events) == 0:
        return 0
    if encoding == "mono":
        return int(events.t[0])
    return int(events.t[0]) // 1000 * 1000


def _encode_records(encoding: str, events: Events, time_base_ns: int, vectors: bool) -> bytes:
    write, span_ns = _RECORDS[encoding]
    if len(events) > 0:
        first, last = int(events.t[0]) - time_base_ns, int(events.t[-1]) - time_base_ns
        if first < 0 or last >= span_ns:
            raise ConfigurationError(
                f"Encoding {encoding} holds times from 0 to {span_ns / 1e9:.3f} s after the time "
                f"base; these events span {first / 1e9:.3f} to {last / 1e9:.3f} s. Encode shorter "
                "packets or give another time_base_ns.",
                encoding=encoding,
                first_ns=first,
                last_ns=last,
            )
    return write(events.t - time_base_ns, events.x, events.y, events.p, vectors).tobytes()


# width and height that the address fields can hold
_LIMITS = {
    "evt3": (2048, 2048),
    "evt2": (2048, 2048),
    "evt2.1": (2048, 2048),
    "libcaer": (32768, 32768),
    "libcaer_cmp": (2048, 2048),
    "mono": (65535, 32768),
    "event_array_cdr": (65535, 65535),
    "event_array_ros1": (65535, 65535),
}

_Words = Callable[..., NDArray[np.generic]]
_WORDS: dict[str, _Words] = {
    "evt3": evt_words.evt3,
    "evt2": evt_words.evt2,
    "evt2.1": evt_words.evt21,
}
# the encoder kernel and the exclusive upper bound of its times
_RECORDS: dict[str, tuple[_Words, int]] = {
    "libcaer": (fixed_records.libcaer, 2**31 * 1000),
    "libcaer_cmp": (fixed_records.libcaer_cmp, 2**24 * 1000),
    "mono": (fixed_records.mono, 2**32),
    "event_array_cdr": (fixed_records.event_array_cdr, 2**31 * 1_000_000_000),
    "event_array_ros1": (fixed_records.event_array_ros1, 2**32 * 1_000_000_000),
}
