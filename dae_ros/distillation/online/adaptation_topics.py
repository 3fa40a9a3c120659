"""Which topics of recordings are learned from, and by which versions are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from dae_ros.bags.recording import Recording
from dae_ros.bags.topics import choose_depth_topic, choose_events_topic, choose_image_topic
from dae_ros.errors import RecordingError


@dataclass(frozen=True, slots=True)
class Topics:
    """Of one recording.

    Attributes:
        events, image, truth: names; None for what is not there, or not needed.
    """

    events: str
    image: str | None
    truth: str | None

    @classmethod
    def of(cls, recording: Recording) -> Topics:
        """Return what belongs to a recording's events.

        Raises:
            RecordingError: there are none.
        """
        try:
            events = choose_events_topic(recording.topics, None)
        except RecordingError as error:
            raise RecordingError(f"{recording.name}: {error.message}", **error.data) from error
        image = choose_image_topic(recording.topics, events)
        return cls(events, image, choose_depth_topic(recording.topics, events))

    @classmethod
    def to_learn(cls, recording: Recording) -> Topics:
        """Return those of a recording to learn on.

        Raises:
            RecordingError: no events, or no camera frames.
        """
        topics = cls.of(recording)
        if topics.image is None:
            raise RecordingError(
                f"{recording.name} has no camera frames of the events' pixels, and a teacher sees "
                "frames only; learn on a recording of a sensor that gives both",
                recording=recording.name,
            )
        return topics

    @classmethod
    def to_score(cls, recording: Recording) -> Topics:
        """Return those of a recording to score versions on, which needs no frames.

        Raises:
            RecordingError: no events, or no true depth.
        """
        topics = cls.of(recording)
        if topics.truth is None:
            raise RecordingError(
                f"{recording.name} has no true depth of the events' pixels to score versions by; "
                "leave it out, or give one that has",
                recording=recording.name,
            )
        return dataclasses.replace(topics, image=None)

    @property
    def all(self) -> set[str]:
        """Names of what is there."""
        return {name for name in (self.events, self.image, self.truth) if name is not None}


def check_topics(recordings: Iterable[Recording], elsewhere: Iterable[Recording]) -> None:
    """Look whether everything is there to learn from some recordings and to be scored on others.

    Raises:
        RecordingError: no events, no frames to learn from, or no true depth to score by.
    """
    for recording in recordings:
        Topics.to_learn(recording)
    for recording in elsewhere:
        Topics.to_score(recording)
