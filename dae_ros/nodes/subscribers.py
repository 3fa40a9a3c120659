"""Waiting for those who must receive what a source publishes, before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

# Other subscribers of the same process are matched shortly after the ones that are waited for.
SETTLE_S = 0.3
POLL_S = 0.02


def split_names(text: str) -> list[str]:
    """Return the topic names of a parameter that lists them with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def wait_for_subscribers(
    publishers: Iterable[Any], wanted: int, timeout_s: float, note: Callable[[str], object]
) -> Generator[None, None, str]:
    """Wait until each publisher has so many subscribers; yields wherever it would sleep on.

    Args:
        publishers: of rclpy, one per topic.
        wanted: subscribers of each of them; 0 waits for nothing.
        timeout_s: when to give up.
        note: called once with what is waited for, if subscribers are missing at first.

    Returns:
        '', or, after the timeout, which topics lack subscribers, without a verb for what follows.
    """
    waiting = list(publishers) if wanted else []
    deadline_s = time.monotonic() + timeout_s
    noted = False
    while lacking := [item for item in waiting if item.get_subscription_count() < wanted]:
        if time.monotonic() >= deadline_s:
            found = " and ".join(
                f"'{item.topic_name}' has {item.get_subscription_count()}" for item in lacking
            )
            return f"{found} subscribers after {timeout_s:g} s, not {wanted}"
        if not noted:
            noted = True
            names = " and ".join(f"'{item.topic_name}'" for item in lacking)
            note(f"waiting up to {timeout_s:g} s until {names} has {_counted(wanted)}")
        time.sleep(POLL_S)
        yield
    settled_s = time.monotonic() + (SETTLE_S if waiting else 0.0)
    while time.monotonic() < settled_s:
        time.sleep(POLL_S)
        yield
    return ""


def _counted(subscribers: int) -> str:
    return "a subscriber" if subscribers == 1 else f"{subscribers} subscribers"
