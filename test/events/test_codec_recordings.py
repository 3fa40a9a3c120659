"""Decoders on real recordings: against straight-line Python and the published sums."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from dae_ros.events.codecs import Decoder, create_decoder
from dae_ros.events.packet import Events, Triggers
from test.reference.codec_oracles import ORACLES, assert_same
from test.reference.recordings import evt3_messages, libcaer_cmp_messages, read_fields

pytestmark = pytest.mark.recordings


def _decode_all(messages: Iterable[bytes]) -> tuple[Decoder, Events, Triggers, int]:
    decoder = None
    packets = []
    for message in messages:
        width, height, time_base_ns, encoding, payload = read_fields(message)
        if decoder is None:
            decoder = create_decoder(encoding, width, height)
            oracle = ORACLES[encoding](width, height)
        packet = decoder.decode_packet(payload, time_base_ns)
        assert_same(packet, oracle.decode(payload, time_base_ns))
        packets.append(packet)
    assert decoder is not None
    triggers = Triggers(
        np.concatenate([packet.triggers.t for packet in packets]),
        np.concatenate([packet.triggers.edge for packet in packets]),
        np.concatenate([packet.triggers.channel for packet in packets]),
    )
    events = Events.concatenate([part for packet in packets for part in packet.segments])
    return decoder, events, triggers, len(packets)


def test_evt3_recording() -> None:
    """A SilkyEvCam: every event as the straight-line decoder gives it, and the known sums."""
    decoder, events, triggers, packets = _decode_all(evt3_messages())
    assert (packets, len(events), len(triggers)) == (517, 343_474, 4_157)
    assert np.bincount(events.p).tolist() == [218_291, 125_183]
    assert events.t[0] == 7_139_845_000
    assert int((events.t // 1000).sum() + (triggers.t // 1000).sum()) == 2_885_601_049_874
    assert {reason for reason, number in decoder.counts.items() if number} == {"skipped_word"}


def test_libcaer_cmp_recording() -> None:
    """A DAVIS346: every event as the straight-line decoder gives it, and the known sums."""
    decoder, events, _, packets = _decode_all(libcaer_cmp_messages())
    assert (packets, len(events)) == (100, 571_266)
    assert np.bincount(events.p).tolist() == [360_223, 211_043]
    assert events.t[0] // 1000 == 1_744_227_144_732_712
    assert int((events.t // 1000 - events.t[0] // 1000).sum()) == 335_555_680_277
    assert not any(decoder.counts.values())
