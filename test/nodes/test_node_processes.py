"""Nodes as processes: their own start, their signals, their exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from event_camera_msgs.msg import EventPacket
from sensor_msgs.msg import Image

from dae_ros.events.cdr import write_packet
from dae_ros.nodes.depth_worker import DepthWorker
from dae_ros.parameters import DepthParameters
from test.reference.replay_runs import output_of

TINY = ("-p", "weights:=untrained:tiny", "-p", "device:=cpu", "-p", "threads:=1",
        "-p", "backend:=torch")  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_the_depth_node_starts_itself_works_and_ends_with_zero(graph, camera, process, number):
    """autostart reaches active, remapped topics carry depth, a signal ends with exit code 0."""
    images = graph.listen(Image, "/robot/depth/relative")
    publisher = graph.publisher(EventPacket, "/camera/events")
    child = process("depth_node", *TINY, "-r", "events:=/camera/events", "-r", "__ns:=/robot")
    graph.until(lambda: publisher.get_subscription_count() == 1 or child.poll() is not None)
    while len(images) < 3:
        assert child.poll() is None, output_of(child)
        publisher.publish(write_packet(camera.packet()))
        graph.spin(0.005)
    child.send_signal(number)
    assert child.wait(120.0) == 0
    log = output_of(child)
    assert "Traceback" not in log
    assert "untrained:tiny" in log
    assert "first depth image on 'depth/relative': relative depth, not metres, 64x48 px" in log


def test_no_thread_of_a_node_waits_five_milliseconds_for_another():
    """While a node spins, and not longer: what a process was before, it is again."""
    script = textwrap.dedent(
        """
        import sys
        from rclpy.node import Node
        from dae_ros.nodes.command_line import Usage
        from dae_ros.nodes.entry import run

        class Short(Node):
            exit_code = None

            def __init__(self):
                super().__init__("short")
                self.create_timer(0.01, self.look)

            def look(self):
                print("spinning", sys.getswitchinterval())
                self.exit_code = 0

            def close(self):
                pass

        assert run(Short, Usage("short", "", main="", examples=()), []) == 0
        print("after", sys.getswitchinterval())
        """
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert "spinning 0.0005" in found.stdout and "after 0.005" in found.stdout


def test_a_signal_while_the_network_loads_ends_the_node_soon(graph, process, tmp_path, monkeypatch):
    """`ros2 launch` gives a process 5 s; compiling for the first time takes longer than that."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "empty"))
    child = process("depth_node", *TINY, "-r", "__ns:=/loading")
    name = ("depth", "/loading")
    graph.until(lambda: name in graph.peer.get_node_names_and_namespaces())
    graph.until(lambda: "loading the network" in output_of(child))
    child.send_signal(signal.SIGINT)
    assert child.wait(120.0) == 0
    log = output_of(child)
    assert "interrupted while the network was being loaded" in log
    assert "Traceback" not in log


def test_an_interrupt_frees_who_waits_and_leaves_out_waiting_windows(ros, camera):
    """A receiver that is held back goes on at once, and the worker ends after its window."""
    entered, release, published = threading.Event(), threading.Event(), []

    def publish(frame):
        published.append(frame)
        entered.set()
        release.wait(120.0)

    worker = DepthWorker(
        DepthParameters(
            weights="untrained:tiny",
            threads=1,
            overload="queue",
            inbox_mb=1,
            window_s=0.001,
            hop_s=0.001,
        ),
        publish=publish,
        warn=print,
        failed=print,
    )
    worker.start()
    camera.count = 2000

    def feed():
        for _ in range(400):
            worker.put_events(write_packet(camera.packet()), "event_camera_msgs/msg/EventPacket")

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    assert entered.wait(120.0)
    feeder.join(2.0)
    assert feeder.is_alive(), "nothing holds the receiver back"
    worker.interrupt()
    feeder.join(120.0)
    assert not feeder.is_alive()
    release.set()
    assert worker.stop(120.0)
    assert len(published) == 1


def test_a_bad_parameter_ends_the_process_with_one_and_the_sentence(graph, process):
    """A value out of range on the command line is refused before anything starts."""
    child = process("depth_node", *TINY, "-p", "hop_s:=9.0")
    assert child.wait(120.0) == 1
    log = output_of(child)
    assert "'hop_s' must be at most 2, not 9" in log
    assert "Traceback" not in log
