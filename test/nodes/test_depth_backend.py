"""A live depth node whose backend is `auto`: PyTorch at once, then OpenVINO, and it says so."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from dae_ros.events.cdr import write_packet
from dae_ros.runtime.backend_choice import missing_packages

if missing_packages():
    pytest.skip("the extra `openvino` is not installed", allow_module_level=True)


def test_a_live_node_changes_its_backend_and_says_so(
    graph, depth, camera, tmp_path, monkeypatch, capfd
):
    """No image is lost to the export; log and /diagnostics name the backend and the reason."""
    from dae_ros.model.untrained import untrained
    from dae_ros.runtime.onnx_cache import cache_folder, graph_name
    from dae_ros.runtime.onnx_export import export_onnx

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = untrained("tiny")
    export_onnx(tiny, cache_folder("onnx") / graph_name(tiny, 48, 64, "float32"), 48, 64)
    images, reports = graph.listen(Image, "depth/relative"), graph.listen(
        DiagnosticArray, "/diagnostics"
    )  # fmt: skip
    node = depth(backend="auto", overload="latest")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert "it runs on torch (until openvino has the network" in capfd.readouterr().err
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    publisher = graph.publisher(EventPacket, "events")
    graph.until(lambda: publisher.get_subscription_count() == 1)

    def reported() -> dict[str, str]:
        for status in reports[-1].status if reports else []:
            if status.name.endswith(": network"):
                return {item.key: item.value for item in status.values}
        return {}

    def taken_over() -> bool:
        publisher.publish(write_packet(camera.packet()))
        return reported().get("backend") == "openvino"

    graph.until(taken_over)
    assert "the fastest on a CPU" in reported()["backend_reason"]
    said = capfd.readouterr().err

    def logged() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "the network runs on openvino (the fastest" in said

    graph.until(logged)
    before = len(images)
    graph.until(lambda: taken_over() and len(images) > before + 2)
