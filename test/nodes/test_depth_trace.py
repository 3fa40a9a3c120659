"""The service ~/trace on a real node over DDS: the file, its slices, and what it says."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from dae_ros.events.cdr import write_packet
from dae_ros.nodes.depth_trace import trace_folder
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.stage_times import STAGES

AHEAD_NS = round(4e9 * DepthParameters().hop_s)


class Traced:
    """A depth node with a camera, a listener and a client of its trace."""

    def __init__(self, graph, depth, camera, **parameters):
        self.graph, self.camera = graph, camera
        self.images = graph.listen(Image, "depth/relative")
        self.node = depth(overload="queue", **parameters)
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.publisher = graph.publisher(EventPacket, "events")
        graph.until(lambda: self.publisher.get_subscription_count() == 1)
        self.client = graph.peer.create_client(SetBool, "/depth/trace")

    def step(self, windows: int) -> None:
        """Publish until so many images have come of windows that end in packets from now on."""
        begin_ns = self.camera.stamp_ns()

        def seen() -> bool:
            stamps = self.published_ns()
            # A network that is slow today gets its next window when it has done the one before.
            if self.camera.stamp_ns() - max([begin_ns, *stamps]) < AHEAD_NS:
                self.publisher.publish(write_packet(self.camera.packet()))
            return sum(stamp > begin_ns for stamp in stamps) >= windows

        self.graph.until(seen)

    def published_ns(self) -> list[int]:
        """Return the stamps of the images so far.

        Windows that waited are published before the recording begins and after it ends as well.
        """
        stamps = [image.header.stamp for image in self.images]
        return [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps]

    def until_published(self, stamp_ns: int) -> list[int]:
        """Wait for the image of this stamp; return the stamps of all up to it."""
        self.graph.until(lambda: stamp_ns in self.published_ns())
        return [stamp for stamp in self.published_ns() if stamp <= stamp_ns]

    def ask(self, data: bool) -> SetBool.Response:
        """Call the service once; the first call of a test may be repeated by `call`."""
        future = self.client.call_async(SetBool.Request(data=data))
        self.graph.until(future.done)
        return future.result()

    def begin(self) -> None:
        assert self.graph.call(self.client, SetBool.Request(data=True)) is not None
        assert self.node._trace._recorder is not None


@pytest.fixture
def traced(graph, depth, camera, tmp_path):
    """Make a traced node whose files go to tmp_path/traces."""

    def make(**parameters):
        return Traced(
            graph, depth, camera, **{"trace_folder": str(tmp_path / "traces"), **parameters}
        )

    return make


def content(message: str) -> tuple[Path, dict]:
    """Return the path that an answer begins with, and what is in the file."""
    path = Path(message.partition(": ")[0])
    return path, json.loads(path.read_text())


def threads(document: dict) -> dict[str, list[dict]]:
    """Return the slices of each thread by its name; every slice belongs to one."""
    names = {
        event["tid"]: event["args"]["name"]
        for event in document["traceEvents"]
        if event["name"] == "thread_name"
    }
    found: dict[str, list[dict]] = {name: [] for name in names.values()}
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            found[names[event["tid"]]].append(event)
    return found


def stamps_ns(document: dict) -> list[int]:
    """Return the stamps of the windows of a trace, each once, in order."""
    events = document["traceEvents"]
    return sorted({e["args"]["stamp_ns"] for e in events if "stamp_ns" in e["args"]})


def check_nesting(slices: list[dict]) -> None:
    """Two slices of one thread are apart, or one holds the other, as viewers demand."""
    open_ends: list[int] = []
    for event in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
        assert event["dur"] >= 0
        while open_ends and open_ends[-1] <= event["ts"]:
            open_ends.pop()
        end = event["ts"] + event["dur"]
        assert not open_ends or end <= open_ends[-1], event
        open_ends.append(end)


def test_a_trace_has_every_stage_of_every_window(traced, tmp_path):
    """The file opens as JSON; slices nest, follow each other, and carry the window's facts."""
    made = traced()
    made.step(1)
    assert made.node._trace._recorder is None, "nothing is recorded before it is asked for"
    made.begin()
    made.step(5)
    answer = made.ask(False)
    assert answer.success, answer.message
    path, document = content(answer.message)
    assert path.parent == tmp_path / "traces" and list(path.parent.iterdir()) == [path]
    recorded = stamps_ns(document)
    published = [stamp for stamp in made.until_published(recorded[-1]) if stamp >= recorded[0]]
    count = len(published)
    assert recorded == published and count >= 5
    assert answer.message == f"{path}: {count} windows"
    about = document["otherData"]
    assert (about["windows"], about["windows_dropped"]) == (count, 0)
    assert "note" not in about and len(about["sha256"]) == 64
    by_thread = threads(document)
    assert {name.rstrip(" 0123456789") for name in by_thread} == {"depth_worker", "waiting"}
    for slices in by_thread.values():
        check_nesting(slices)
    everything = [event for slices in by_thread.values() for event in slices]
    ends = sorted({event["args"]["window_end_ns"] for event in everything})
    assert len(ends) == count
    last_us = 0
    for end, stamp in zip(ends, published, strict=True):
        own = {e["name"]: e for e in everything if e["args"]["window_end_ns"] == end}
        assert set(own) == {*STAGES, "waiting", "window"}
        assert {event["args"]["stamp_ns"] for event in own.values()} == {stamp}
        assert own["infer"]["args"]["event_count"] == 2000
        at_us = own["waiting"]["ts"]
        for stage in STAGES:
            assert own[stage]["ts"] == at_us
            at_us += own[stage]["dur"]
        assert own["window"]["ts"] + own["window"]["dur"] == at_us
        assert own["window"]["ts"] >= last_us
        last_us = at_us


def test_windows_that_wait_at_once_have_threads_of_their_own(traced):
    """Where several windows close while one is stepped, no two slices of a thread overlap."""
    made = traced()
    made.begin()
    wanted = len(made.images) + 6
    for _ in range(80):
        made.publisher.publish(write_packet(made.camera.packet()))
    made.graph.until(lambda: len(made.images) >= wanted)
    by_thread = threads(content(made.ask(False).message)[1])
    assert "waiting 2" in by_thread
    for slices in by_thread.values():
        check_nesting(slices)


def test_a_full_trace_keeps_the_newest_windows_and_says_so(traced):
    """The answer and the file say how many are missing; the size may change at run time."""
    made = traced()
    assert made.node.set_parameters([Parameter("trace_windows", value=3)])[0].successful
    made.begin()
    made.step(5)
    answer = made.ask(False)
    path, document = content(answer.message)
    recorded = stamps_ns(document)
    published = made.until_published(recorded[-1])
    assert recorded == published[-3:]
    missing = len(published) - 3
    assert missing > 0
    assert answer.message == (
        f"{path}: 3 windows; {missing} earlier ones did not fit, raise 'trace_windows' to keep them"
    )
    assert document["otherData"]["windows_dropped"] == missing
    assert str(missing) in document["otherData"]["note"]
    ends = [e["args"]["window_end_ns"] for e in threads(document)["depth_worker"]]
    assert len(set(ends)) == 3 and ends == sorted(ends)
    assert max(ends) == max(
        e["args"]["window_end_ns"] for e in document["traceEvents"] if "window_end_ns" in e["args"]
    )


def test_questions_out_of_turn_are_refused(traced):
    """Writing without recording, and recording twice, change nothing and say what to do."""
    made = traced()
    made.graph.until(made.client.service_is_ready)
    refused = made.graph.call(made.client, SetBool.Request(data=False))
    assert not refused.success and "with true first" in refused.message
    made.begin()
    again = made.ask(True)
    assert not again.success and "recording since" in again.message
    answer = made.ask(False)
    assert answer.success and answer.message.endswith(": 0 windows")
    assert content(answer.message)[1]["otherData"]["windows"] == 0


def test_a_folder_that_cannot_be_keeps_the_recording(traced, tmp_path):
    """The refusal names the parameter; after a change of it the same windows are written."""
    blocked = tmp_path / "blocked"
    blocked.write_text("in the way")
    made = traced(trace_folder=str(blocked / "below"))
    made.begin()
    made.step(2)
    refused = made.ask(False)
    assert not refused.success and "'trace_folder'" in refused.message
    parameter = Parameter("trace_folder", value=str(tmp_path / "free"))
    assert made.node.set_parameters([parameter])[0].successful
    answer = made.ask(False)
    recorded = stamps_ns(content(answer.message)[1])
    assert recorded == made.until_published(recorded[-1])
    assert answer.success and answer.message.endswith(f": {len(recorded)} windows")


def test_a_node_that_ends_writes_what_it_records(traced, tmp_path, capfd):
    """Closing writes the file and logs its path; no thread is left."""
    made = traced()
    made.begin()
    made.step(2)
    made.graph.remove(made.node)
    (path,) = (tmp_path / "traces").iterdir()
    assert json.loads(path.read_text())["otherData"]["windows"] >= 2
    assert str(path) in capfd.readouterr().err
    assert not any(thread.name == "trace_writer" for thread in threading.enumerate())


def test_traces_lie_beside_the_logs_of_ros(monkeypatch, tmp_path):
    """ROS_LOG_DIR, else log below ROS_HOME, else ~/.ros/log; a chosen folder wins."""
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("ROS_HOME", str(tmp_path / "home"))
    assert trace_folder("~/mine") == Path.home() / "mine"
    assert trace_folder("") == tmp_path / "logs"
    monkeypatch.delenv("ROS_LOG_DIR")
    assert trace_folder("") == tmp_path / "home" / "log"
    monkeypatch.delenv("ROS_HOME")
    assert trace_folder("") == Path.home() / ".ros" / "log"
