"""Cuts what one packet brought where it is too long to be taken in at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from dae_ros.events.stream import StreamPart


def cut(part: StreamPart, longest_ns: int, most_events: int) -> Iterator[StreamPart]:
    """Cut a part into pieces, each with the triggers and the newest time that belong to it.

    Args:
        part: of any length.
        longest_ns: between the first and the last event of a piece; a pause that is longer lies
            between two of them.
        most_events: of a piece.

    Yields:
        The part itself where it is short enough.
    """
    events, start, size = part.events, 0, len(part.events)
    while size - start > most_events or (
        start < size and events.last_ns - events.time_of(start) > longest_ns
    ):
        stop = min(
            int(np.searchsorted(events.t, events.t[start] + longest_ns, side="right")),
            start + most_events,
        )
        newest_ns = int(events.t[stop - 1])
        triggers = part.triggers
        past = int(np.searchsorted(triggers.t, newest_ns, side="right"))
        yield dataclasses.replace(
            part,
            events=events.slice(start, stop),
            triggers=triggers.slice(0, past),
            newest_time_ns=newest_ns,
        )
        part = dataclasses.replace(part, gap=None, triggers=triggers.slice(past, len(triggers)))
        start = stop
    yield part if start == 0 else dataclasses.replace(part, events=events.slice(start, size))
