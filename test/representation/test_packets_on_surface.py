"""Packets that go onto the surface while they are decoded, against filtering all history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.events.codecs import create_decoder, supported_encodings
from dae_ros.events.packet import Events
from dae_ros.events.ring_buffer import EventRing
from dae_ros.representation.surface import TencodeSurface
from dae_ros.simulation.encoders import create_encoder
from test.reference.surface_windows import (
    HEIGHT,
    MS,
    US,
    WIDTH,
    S,
    assert_code_of,
    filtered,
    random_events,
)


@pytest.mark.parametrize("encoding", ["evt3", "evt2", "libcaer_cmp", "mono"])
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_packets_on_the_surface_can_be_asked_for_again(encoding: str, seed: int) -> None:
    """Whatever `follow` put on the surface and let go, any window equals filtering all history."""
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dae_ros.representation.surface._WORTHWHILE_EVENTS", int(rng.integers(1, 99)))
        ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
        encoder = create_encoder(encoding, WIDTH, HEIGHT)
        decoder = create_decoder(encoding, WIDTH, HEIGHT)
        history: list[Events] = []
        for number in range(12):
            begin_ns = 5 * S + number * 3 * MS
            count = int(rng.integers(1, 80))
            made = random_events(rng, begin_ns // US, (begin_ns + 3 * MS) // US, count)
            events = Events(made.t * US, made.x, made.y, made.p)
            history.append(events)
            for part in decoder.decode_packet(*encoder.encode(events)).segments:
                ring.push(part)
            end_ns = begin_ns + int(rng.integers(-5, 4)) * MS
            surface.follow(ring, end_ns)
            if rng.random() < 0.6:
                end_ns -= int(rng.choice([0, 0, 9])) * MS
                start_ns = end_ns - int(rng.integers(1, 12)) * MS
                expected = filtered(history, start_ns, end_ns)
                encoded = surface.encode(ring, start_ns, end_ns)
                assert_code_of(encoded, expected)
                assert encoded.event_count == len(expected)
        surface.encode(ring, int(events.t[-1]) // US * US, 6 * S)
        kept = ring.between(ring.oldest_index, ring.total_pushed)
        assert sum(part.let_go() for part in kept) == 0  # that was done
        for start_ns in range(5 * S, 5 * S + 36 * MS, 4 * MS):
            expected = filtered(history, start_ns, start_ns + 9 * MS)
            found = ring.window(start_ns, start_ns + 9 * MS)
            for name in "txyp":
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("encoding", supported_encodings())
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_packets_that_were_put_on_the_surface_are_on_it_once(encoding: str, seed: int) -> None:
    """Put at once or not, in one piece or in several: any window equals filtering all history."""
    rng = np.random.default_rng(seed)
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    encoder, decoder = (
        create(encoding, WIDTH, HEIGHT) for create in (create_encoder, create_decoder)
    )
    history: list[Events] = []
    end_ns = 5 * S + 4 * MS
    for number in range(14):
        begin_ns = 5 * S + number * 3 * MS
        made = random_events(rng, begin_ns // US, begin_ns // US + 3000, int(rng.integers(1, 80)))
        events = Events(made.t * US, made.x, made.y, made.p)
        history.append(events)
        onto = surface.direct(ring, end_ns) if rng.random() < 0.8 else None
        for part in decoder.decode_packet(*encoder.encode(events), onto).segments:
            cut = int(rng.integers(0, len(part) + 1)) if rng.random() < 0.3 else 0
            for piece in (part.slice(0, cut), part.slice(cut, len(part)) if cut else part):
                ring.push(piece)
                if rng.random() < 0.5:
                    surface.follow(ring, end_ns)
        if rng.random() < 0.1:  # the camera's time begins anew
            ring.clear()
            history.clear()
        while (ring.newest_ns or 0) >= end_ns:
            start_ns = end_ns - int(rng.integers(1, 12)) * MS
            expected = filtered(history, start_ns, end_ns) if history else Events.empty()
            encoded = surface.encode(ring, start_ns, end_ns)
            assert_code_of(encoded, expected)
            assert encoded.event_count == len(expected)
            end_ns += int(rng.integers(1, 6)) * MS


@pytest.mark.parametrize("encoding", supported_encodings())
def test_healthy_packets_are_put_and_not_scattered(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the first one, before which the surface follows no ring, no event is touched."""
    rng = np.random.default_rng(0)
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    encoder, decoder = (
        create(encoding, WIDTH, HEIGHT) for create in (create_encoder, create_decoder)
    )
    scattered: list[tuple[int, int]] = []
    end_ns, scatter = 5 * S + 6 * MS, surface._scatter

    def spy(ring: EventRing, start: int, stop: int) -> None:
        scattered.append((start, stop))
        scatter(ring, start, stop)

    monkeypatch.setattr(surface, "_scatter", spy)
    for number in range(12):
        begin_us = 5_000_000 + 3000 * number
        made = random_events(rng, begin_us, begin_us + 3000, 60)
        packet = encoder.encode(Events(made.t * US, made.x, made.y, made.p))
        onto = surface.direct(ring, end_ns)
        for part in decoder.decode_packet(*packet, onto).segments:
            ring.push(part)
        surface.follow(ring, end_ns)
        if number % 2:
            surface.encode(ring, end_ns - 6 * MS, end_ns)
            end_ns += 6 * MS
    assert {ends for ends in scattered if ends[0] < ends[1]} == {(0, 60)}


def test_what_was_put_and_never_pushed_is_forgotten() -> None:
    """The surface begins anew when the ring was not given what a decoder put on it."""
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    encoder, decoder = (
        create("evt3", WIDTH, HEIGHT) for create in (create_encoder, create_decoder)
    )
    rng = np.random.default_rng(3)
    packets = []
    for number in range(4):
        made = random_events(rng, 5_000_000 + 1000 * number, 5_001_000 + 1000 * number, 60)
        packets.append(encoder.encode(Events(made.t * US, made.x, made.y, made.p)))
    assert surface.direct(ring, 6 * S) is None  # nothing is known of this ring yet
    for number, (payload, base_ns) in enumerate(packets):
        onto = surface.direct(ring, 6 * S)
        assert (onto is None) == (number in (0, 3))
        (events,) = decoder.decode_packet(payload, base_ns, onto).segments
        assert onto is None or onto.put == len(events)
        if number != 2:
            ring.push(events)
            surface.follow(ring, 6 * S)
    window = ring.window(5 * S, 6 * S)
    assert len(window) == 180
    encoded = surface.encode(ring, 5 * S, 6 * S)
    assert_code_of(encoded, window)
    # As where the packet was dropped in the middle.
    onto = surface.direct(ring, 7 * S)
    assert onto is not None
    onto.entries[:], onto.spoiled = 77, True
    encoded = surface.encode(ring, 5 * S, 6 * S)
    assert_code_of(encoded, window)
    onto = surface.direct(ring, 7 * S)
    assert onto is not None and not onto.spoiled
    onto.entries[:], onto.spoiled = 77, True
    assert surface.direct(ring, 7 * S) is None


@pytest.mark.parametrize("ahead", ["direct", "follow"])
def test_what_came_before_an_empty_window_is_left_out(
    ahead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A surface that begins with an empty window takes no events from before it."""
    monkeypatch.setattr("dae_ros.representation.surface._WORTHWHILE_EVENTS", 1)
    rng = np.random.default_rng(5)
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    for begin_us in (5_000_000, 5_004_000):
        made = random_events(rng, begin_us, begin_us + 1000, 60)
        ring.push(Events(made.t * US, made.x, made.y, made.p))
    assert surface.encode(ring, 5_002_000 * US, 5_004_000 * US).event_count == 0
    getattr(surface, ahead)(ring, 5_010_000 * US)
    window = 5_003_000 * US, 5_006_000 * US
    assert_code_of(surface.encode(ring, *window), ring.window(*window))


def test_nothing_is_put_where_times_do_not_fit() -> None:
    """Beyond 31 bits of microseconds, and where events of the next window have come already."""
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    ring.push(random_events(np.random.default_rng(1), 0, MS, 10))
    surface.follow(ring, 9 * MS)
    assert surface.direct(ring, 9 * MS) is not None
    assert surface.direct(ring, (2**31 + 1_000) * US) is None
    assert surface.direct(ring, MS // 2) is None
