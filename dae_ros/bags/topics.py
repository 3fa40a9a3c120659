"""Which topics of a recording belong together, where the user does not say."""

from __future__ import annotations

from collections.abc import Mapping

from dae_ros.bags.container import TopicInfo
from dae_ros.bags.message_types import CAMERA_INFO, IMAGE
from dae_ros.errors import RecordingError
from dae_ros.events.cdr import event_types

# Names of well-known drivers and data sets, the left camera of a pair first: MVSEC, rpg_dvs_ros
# and ECD, metavision_driver and libcaer_driver, M3ED.
_EVENT_TOPICS = (
    "/davis/left/events",
    "/dvs/events",
    "/event_camera/events",
    "/prophesee/left/events",
)
# Images that are no camera frames.
_NOT_FRAMES = ("depth", "blended", "color", "events")


def require_topic(topics: Mapping[str, TopicInfo], topic: str, kind: str | None = None) -> None:
    """Check that a topic is there, and of the type `kind` where that is given.

    Raises:
        RecordingError: it is not; the text lists what is.
    """
    if topic not in topics:
        raise RecordingError(
            f"there is no topic {topic} in the recording; it has {describe(topics)}",
            topic=topic,
            topics=sorted(topics),
        )
    if kind is not None and topics[topic].type != kind:
        raise RecordingError(
            f"{topic} holds {topics[topic].type}, not {kind}; the recording has {describe(topics)}",
            topic=topic,
            topics=sorted(topics),
        )


def describe(topics: Mapping[str, TopicInfo]) -> str:
    """Return the topics with their types and counts, in one line."""

    def one(name: str, info: TopicInfo) -> str:
        count = "" if info.count is None else f", {info.count} messages"
        return f"{name} ({info.type}{count})"

    return ", ".join(one(name, info) for name, info in topics.items()) or "no topics"


def choose_events_topic(topics: Mapping[str, TopicInfo], wanted: str | None) -> str:
    """Return the events topic: the wanted one, a well-known one, or the first by name.

    Raises:
        RecordingError: it is not there, or is of another type, or no topic has events; the text
            lists what is there.
    """
    if wanted is not None:
        require_topic(topics, wanted)
        if topics[wanted].type not in event_types():
            raise RecordingError(
                f"{wanted} holds {topics[wanted].type}, no events; the recording has "
                f"{describe(topics)}",
                topic=wanted,
                topics=sorted(topics),
            )
        return wanted
    candidates = sorted(name for name, info in topics.items() if info.type in event_types())
    if not candidates:
        raise RecordingError(
            f"the recording has no events topic; it has {describe(topics)}", topics=sorted(topics)
        )
    return next((name for name in _EVENT_TOPICS if name in candidates), candidates[0])


def choose_image_topic(topics: Mapping[str, TopicInfo], events: str) -> str | None:
    """Return the camera images beside the events (`<namespace>/image_raw`), None without any.

    Images of another namespace are taken only where they are the only ones: frames of another
    camera do not share the events' pixel grid.
    """
    images = [name for name, info in topics.items() if info.type == IMAGE and not _is_derived(name)]
    beside = [name for name in images if _namespace(name) == _namespace(events)]
    preferred = f"{_namespace(events)}/image_raw"
    if preferred in beside:
        return preferred
    if beside:
        return beside[0]
    return images[0] if len(images) == 1 else None


def choose_depth_topic(topics: Mapping[str, TopicInfo], events: str) -> str | None:
    """Return the true depth of the events' pixels (`<namespace>/depth_truth`), None without any.

    `depth_image_raw` is MVSEC's name for it; its `depth_image_rect` belongs to other pixels.
    """
    names = (f"{_namespace(events)}/{name}" for name in ("depth_truth", "depth_image_raw"))
    return next((name for name in names if name in topics and topics[name].type == IMAGE), None)


def choose_camera_info_topic(topics: Mapping[str, TopicInfo], events: str) -> str | None:
    """Return the calibration beside the events (`<namespace>/camera_info`), None without it."""
    preferred = camera_info_beside(events)
    if preferred in topics and topics[preferred].type == CAMERA_INFO:
        return preferred
    infos = [
        name for name, info in topics.items() if info.type == CAMERA_INFO and "depth" not in name
    ]
    return infos[0] if len(infos) == 1 else None


def camera_info_beside(events: str) -> str:
    """Return the name that the calibration of an events topic has, `<namespace>/camera_info`.

    Beside a name without a namespace it has none either.
    """
    namespace, slash, _ = events.rpartition("/")
    return f"{namespace}{slash}camera_info"


def _is_derived(topic: str) -> bool:
    """Whether the last two parts of an image topic's name say that it is no camera frame."""
    return any(word in part for part in topic.split("/")[-2:] for word in _NOT_FRAMES)


def _namespace(topic: str) -> str:
    return topic.rpartition("/")[0]
