"""Waiting for those who must receive what a source publishes, before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

from dae_ros.errors import ConfigurationError

# Other subscribers of the same process are matched shortly after the ones that are waited for.
SETTLE_S = 0.3
POLL_S = 0.02


def split_names(text: str) -> list[str]:
    """Return the topic names of a parameter that lists them with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def awaited_topics(text: str, fewest: int) -> dict[str, int]:
    """Return how many subscribers each topic of `wait_topics` must have.

    Args:
        text: topic names with commas between them, `NAME:N` where N must take it.
        fewest: `wait_subscribers`, of each of them; 0 waits for nobody, whatever N is.

    Raises:
        ConfigurationError: what follows a name is no number of subscribers.
    """
    awaited: dict[str, int] = {}
    for entry in split_names(text):
        name, colon, digits = entry.partition(":")
        if not name or (colon and not (digits.isascii() and digits.isdigit() and int(digits))):
            raise ConfigurationError(
                f"'wait_topics' has '{entry}': write NAME, or NAME:N with the number of its "
                "subscribers, 1 or more",
                parameter="wait_topics",
            )
        wanted = max(fewest, int(digits or 1)) if fewest else 0
        awaited[name] = max(wanted, awaited.get(name, 0))
    return awaited


def wait_for_subscribers(
    publishers: Iterable[tuple[Any, int]], timeout_s: float, note: Callable[[str], object]
) -> Generator[None, None, str]:
    """Wait until each publisher has its subscribers; yields wherever it would sleep on.

    Args:
        publishers: of rclpy, one per topic, and how many subscribers it must have.
        timeout_s: when to give up.
        note: called once with what is waited for, if subscribers are missing at first.

    Returns:
        '', or, after the timeout, which topics lack subscribers, without a verb for what follows.
    """
    waiting = [(publisher, wanted) for publisher, wanted in publishers if wanted]
    deadline_s = time.monotonic() + timeout_s
    noted = False
    while lacking := [
        (item, wanted) for item, wanted in waiting if item.get_subscription_count() < wanted
    ]:
        if time.monotonic() >= deadline_s:
            counts = [(item.topic_name, item.get_subscription_count(), n) for item, n in lacking]
            found = " and ".join(
                f"'{topic}' has {count} subscribers, not {wanted},"
                for topic, count, wanted in counts
            )
            return f"{found} after {timeout_s:g} s"
        if not noted:
            noted = True
            names = " and ".join(
                f"'{item.topic_name}' has {_counted(wanted)}" for item, wanted in lacking
            )
            note(f"waiting up to {timeout_s:g} s until {names}")
        time.sleep(POLL_S)
        yield
    settled_s = time.monotonic() + (SETTLE_S if waiting else 0.0)
    while time.monotonic() < settled_s:
        time.sleep(POLL_S)
        yield
    return ""


def _counted(subscribers: int) -> str:
    return "a subscriber" if subscribers == 1 else f"{subscribers} subscribers"
