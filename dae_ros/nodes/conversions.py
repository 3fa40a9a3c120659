"""Times to ROS stamps and headers, for the small messages that rclpy builds.

Bulk goes past message objects in both directions: bytes are written and read by
`dae_ros.events.cdr` and `dae_ros.bags.messages`, by the live nodes and by recordings alike.
"""

from __future__ import annotations

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from dae_ros.events.cdr import stamp_fields


def ns_to_stamp(time_ns: int) -> Time:
    """Return ns as a stamp.

    Raises:
        ConfigurationError: it does not fit; the message's own setter would wrap it silently.
    """
    seconds, nanoseconds = stamp_fields(time_ns)
    return Time(sec=seconds, nanosec=nanoseconds)


def header(stamp_ns: int, frame_id: str) -> Header:
    """Return a header."""
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)
