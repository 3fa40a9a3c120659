"""The event message packages: of the released type, and complete."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("event_camera_msgs.msg", reason="no event_camera_msgs: not set up with ROS")
pytestmark = pytest.mark.ros

HASHES = {
    # Released event_camera_msgs, as recorded in bags of event_camera_py.
    "event_camera_msgs.msg.EventPacket": (
        "RIHS01_d6fa176260b1f37e5a40845305315e150a0f18191241eb64f407442aa29844aa"
    ),
    # Computed by the rosbags library from the ROS 2 port of dvs_msgs.
    "dvs_msgs.msg.EventArray": (
        "RIHS01_0ea4aa5f4670adab1336550158b2e3c9bf60fe515a284c4215ed605bd559c995"
    ),
}
CODE = """
import importlib, sys
import rclpy
from sensor_msgs.msg import CameraInfo
package, _, name = sys.argv[1].rpartition(".")
kind = getattr(importlib.import_module(package), name)
rclpy.init()
node = rclpy.create_node("interfaces")
node.create_publisher(kind, "events", 1)
node.create_subscription(CameraInfo, "camera_info", print, 1)
print(node.get_publishers_info_by_topic("/events")[0].topic_type_hash)
"""


@pytest.mark.parametrize("name", list(HASHES))
def test_types_are_the_released_ones(name: str) -> None:
    """The type hash on the graph is the released one, and no type support is found missing.

    Fast DDS complains on stderr, about the next type, where a type has no introspection.
    """
    pytest.importorskip(name.rpartition(".")[0], reason=f"no {name} here")
    result = subprocess.run(
        [sys.executable, "-c", CODE, name], capture_output=True, text=True, check=True
    )
    assert (result.stdout.strip(), result.stderr.strip()) == (HASHES[name], "")
