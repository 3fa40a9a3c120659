"""Decoders of all event encodings, one object per camera: `create_decoder(...)`.

Rules that the formats leave open (synchronisation, wraps, disorder, loss, what is counted) are
written in `docs/time.md`.
"""

from __future__ import annotations

from collections.abc import Callable

from dae_ros.errors import UnsupportedEncoding
from dae_ros.events import packed
from dae_ros.events.codecs import absolute, absolute_put, evt2, evt2_put, evt3, evt3_put
from dae_ros.events.codecs.decoder import Codec, Decoder

__all__ = ["Decoder", "create_decoder", "supported_encodings", "trigger_encodings", "warm_up"]


def _whole(word: int) -> Callable[[int], int]:
    return lambda size: size // word * word


_CODECS = {
    codec.encoding: codec
    for codec in (
        Codec(
            "evt3",
            False,
            evt3.count,
            evt3.decode,
            evt3_put.put,
            _whole(2),
            evt3.forget_position,
            has_triggers=True,
            packs=True,
        ),
        Codec(
            "libcaer_cmp",
            True,
            absolute.count_libcaer_cmp,
            absolute.decode_libcaer_cmp,
            absolute_put.put_libcaer_cmp,
            _whole(2),
        ),
        Codec(
            "libcaer",
            True,
            absolute.count_mono,
            absolute.decode_libcaer,
            absolute_put.put_libcaer,
            _whole(8),
        ),
        Codec(
            "mono",
            True,
            absolute.count_mono,
            absolute.decode_mono,
            absolute_put.put_mono,
            _whole(8),
        ),
        Codec(
            "event_array_cdr",
            True,
            absolute.count_cdr,
            absolute.decode_cdr,
            absolute_put.put_cdr,
            absolute.whole_array_octets,
        ),
        Codec(
            "event_array_ros1",
            True,
            absolute.count_ros1,
            absolute.decode_ros1,
            absolute_put.put_ros1,
            _whole(13),
        ),
        Codec(
            "evt2",
            False,
            evt2.count_evt2,
            evt2.decode_evt2,
            evt2_put.put_evt2,
            _whole(4),
            has_triggers=True,
        ),
        Codec(
            "evt2.1",
            False,
            evt2.count_evt21,
            evt2.decode_evt21,
            evt2_put.put_evt21,
            _whole(8),
            has_triggers=True,
        ),
    )
}


def supported_encodings() -> tuple[str, ...]:
    """Return the names of the encodings that `create_decoder` knows."""
    return tuple(_CODECS)


def trigger_encodings() -> tuple[str, ...]:
    """Return the names of the encodings whose packets can hold external triggers."""
    return tuple(name for name, codec in _CODECS.items() if codec.has_triggers)


def create_decoder(encoding: str, width: int, height: int) -> Decoder:
    """Return the decoder of one camera.

    Args:
        encoding: `EventPacket.encoding`.
        width, height: sensor size in px; events outside are dropped and counted.

    Raises:
        UnsupportedEncoding: no such encoding; `.data["supported"]` lists those that are.
        ConfigurationError: an impossible sensor size.
    """
    if encoding not in _CODECS:
        raise UnsupportedEncoding(
            f"There is no decoder for encoding '{encoding}'; supported are "
            f"{', '.join(_CODECS)}. Set the camera driver to one of these.",
            encoding=encoding,
            supported=supported_encodings(),
        )
    return Decoder(_CODECS[encoding], width, height)


def warm_up(encoding: str) -> None:
    """Compile or load the kernels of `encoding`, so that the first packet is not delayed.

    Raises:
        UnsupportedEncoding: no such encoding.
    """
    create_decoder(encoding, 1, 1).warm_up()
    packed.warm_up()
