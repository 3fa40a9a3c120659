"""Several containers as one: their topics together, their messages in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence, Set

from dae_ros.bags.container import Container, RecordedMessage, TopicInfo
from dae_ros.bags.datasets.messages import until_damage
from dae_ros.errors import RecordingError


def merge_messages(
    containers: Sequence[Container], topics: Set[str], start_ns: int | None
) -> Iterator[RecordedMessage]:
    """Yield messages in the order of their record times; see `Container.messages`.

    Raises:
        RecordingError: some of the files are damaged; names each, after everything readable.
    """
    damage: list[RecordingError] = []
    sources = [until_damage(item.messages(topics, start_ns), damage) for item in containers]
    if len(sources) == 1:
        yield from sources[0]
    else:
        timed = map(_timed, containers, sources)
        for _, message in heapq.merge(*timed, key=lambda item: item[0]):
            if message is not None:
                yield message
    if len(damage) == 1:
        raise damage[0]
    if damage:
        raise RecordingError(
            "; ".join(error.message for error in damage),
            paths=[error.data.get("path") for error in damage],
        ) from damage[0]


def _timed(
    container: Container, messages: Iterator[RecordedMessage]
) -> Iterator[tuple[int, RecordedMessage | None]]:
    """Yield messages with their times, None first where the container says when it begins.

    The messages of a later part of a long recording are then not touched before their time.
    """
    if container.start_ns is not None:
        yield container.start_ns, None
    for message in messages:
        yield message.time_ns, message


def merge_topics(containers: Sequence[Container]) -> dict[str, TopicInfo]:
    """Return name -> what is known of a topic over all containers.

    Raises:
        RecordingError: a topic has another type in another container.
    """
    merged: dict[str, TopicInfo] = {}
    for container in containers:
        for topic, info in container.topics.items():
            known = merged.get(topic)
            if known is not None and known.type != info.type:
                raise RecordingError(
                    f"{topic} has the type {known.type} in one file and {info.type} in another; "
                    f"read them one by one",
                    topic=topic,
                )
            if known is not None:
                counted = known.count is not None and info.count is not None
                total = (known.count or 0) + (info.count or 0)
                info = TopicInfo(info.type, total if counted else None, known.definition, known.qos)
            merged[topic] = info
    return dict(sorted(merged.items()))
