"""Live metrics over real DDS: pairs by stamp, alignment, running means, the report at the end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from dae_ros.bags.messages import write_image
from dae_ros.nodes.conversions import header
from dae_ros.nodes.diagnostics import OK, WARN, status
from dae_ros.nodes.gt_node import GroundTruthNode
from dae_ros.nodes.processes import NOTHING_COMPARED, launch_plan
from test.reference.full_disk import no_room_beyond

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 12, 16
S = 1_000_000_000
MS = 1_000_000


class Bench:
    """A gt node with publishers of depth, truth and status, and what it publishes."""

    def __init__(self, graph, topic="depth/image", **parameters):
        self.graph = graph
        self.node = graph.add(
            GroundTruthNode(
                cli_args=["--ros-args", "-r", "ground_truth:=/lidar/depth"],
                parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()],
            )
        )
        self.depth = graph.publisher(Image, topic)
        self.truth = graph.publisher(Image, "/lidar/depth")
        self.status = graph.publisher(DiagnosticArray, "depth/status")
        self.metrics = graph.listen(DiagnosticArray, "metrics")
        graph.until(
            lambda: (
                self.depth.get_subscription_count()
                and self.truth.get_subscription_count()
                and self.status.get_subscription_count()
                and self.graph.peer.count_publishers("metrics")
            )
        )
        graph.spin(0.1)

    def say(self, orientation, stamp_ns=S):
        values = {"orientation": orientation, "weight_version": 3, "sha256": "ab" * 32}
        message = status("depth", OK, "relative", values)
        self.status.publish(DiagnosticArray(header=header(stamp_ns, "cam"), status=[message]))

    def send(self, stamp_ns, prediction, depth, offset_ns=0):
        self.depth.publish(write_image(prediction, stamp_ns + offset_ns, "cam"))
        self.truth.publish(write_image(depth, stamp_ns, "lidar"))

    def came(self):
        """Return how many depth images, truths and unreadable images the node has had."""
        return self.node._depths, self.node._truths, self.node._unreadable

    def values(self, index, name):
        """Return the values of a status of one message by key."""
        found = next(item for item in self.metrics[index].status if item.name == name)
        return {item.key: item.value for item in found.values}


def frame(seed):
    """Return prediction and truth below the clip distance of 80 m."""
    random = np.random.default_rng(seed)
    depth = random.uniform(2, 60, (HEIGHT, WIDTH)).astype(np.float32)
    return (depth * random.uniform(0.8, 1.3, depth.shape)).astype(np.float32), depth


def abs_rel(prediction, depth):
    return float(np.mean(np.abs(prediction - depth) / depth, dtype=np.float64))


def test_metric_depth_is_compared_as_it_is(graph):
    """Each pair gives its own Abs Rel and the mean so far, with the stamp of the truth."""
    bench = Bench(graph)
    pairs = [frame(seed) for seed in range(3)]
    for index, (prediction, depth) in enumerate(pairs):
        bench.send(S + index * 50 * MS, prediction, depth)
    graph.until(lambda: len(bench.metrics) == 3)
    errors = [abs_rel(*pair) for pair in pairs]
    for index, message in enumerate(bench.metrics):
        stamp = message.header.stamp
        assert stamp.sec * S + stamp.nanosec == S + index * 50 * MS
        assert message.header.frame_id == "cam"
        found = bench.values(index, "frame")
        assert float(found["abs_rel"]) == pytest.approx(errors[index], rel=1e-5)
        assert (found["alignment"], float(found["offset_ms"])) == ("none", 0.0)
        running = bench.values(index, "running")
        assert float(running["abs_rel"]) == pytest.approx(np.mean(errors[: index + 1]), rel=1e-5)
        assert running["frames"] == str(index + 1)


def test_metric_depth_is_scored_after_least_squares_too(graph):
    """Metres that are a factor off are wrong as they are and right after the fit, beside it."""
    bench = Bench(graph)
    _, depth = frame(7)
    bench.send(S, 0.5 * depth + 1, depth)
    graph.until(lambda: bench.metrics)
    assert [item.name for item in bench.metrics[0].status] == ["frame", "running", "running_lstsq"]
    as_it_is, fitted = bench.values(0, "running"), bench.values(0, "running_lstsq")
    assert float(as_it_is["abs_rel"]) == pytest.approx(abs_rel(0.5 * depth + 1, depth), rel=1e-5)
    assert (as_it_is["alignment"], fitted["alignment"]) == ("none", "lstsq")
    assert float(fitted["abs_rel"]) < 1e-5
    constants = [abs_rel(np.full_like(depth, value), depth) for value in np.arange(2, 30, 0.01)]
    assert float(fitted["best_constant_abs_rel"]) == pytest.approx(min(constants), abs=1e-4)


def test_pairs_are_found_within_the_tolerance(graph):
    """A truth 10 ms away is used and its distance told; one 40 ms away is counted, not used."""
    bench = Bench(graph)
    prediction, depth = frame(1)
    bench.send(S, prediction, depth, offset_ns=10 * MS)
    bench.send(2 * S, prediction, depth, offset_ns=-40 * MS)
    bench.send(3 * S, prediction, depth)
    graph.until(lambda: len(bench.metrics) == 2)
    assert float(bench.values(0, "frame")["offset_ms"]) == 10.0
    running = bench.values(1, "running")
    assert (running["frames"], running["largest_offset_ms"]) == ("2", "10.0")
    assert (running["depth_without_truth"], running["truth_without_depth"]) == ("1", "1")


def test_relative_depth_waits_for_its_direction_and_is_aligned(graph):
    """Nothing is guessed before depth/status; then scale and shift are fitted and published."""
    bench = Bench(graph, "depth/relative")
    _, depth = frame(2)
    bench.send(S, (depth - 5) / 10, depth)
    graph.until(lambda: bench.came() == (1, 1, 0))
    assert not bench.metrics
    bench.say("depth")
    graph.until(lambda: bench.node._status)
    bench.send(2 * S, (depth - 5) / 10, depth)
    graph.until(lambda: bench.metrics)
    found = bench.values(0, "frame")
    assert (found["alignment"], found["weight_version"]) == ("lstsq", "3")
    assert float(found["scale"]) == pytest.approx(10, rel=1e-4)
    assert float(found["shift"]) == pytest.approx(5, rel=1e-4)
    assert float(found["abs_rel"]) < 1e-5


def said(capfd, text):
    """Return the logged lines with `text` since the last call."""
    return [line for line in "".join(capfd.readouterr()).splitlines() if text in line]


@pytest.mark.parametrize("orientation", ["inverse_depth", "unknown"])
def test_what_does_not_grow_with_depth_is_not_scored(graph, capfd, monkeypatch, orientation):
    """Relative depth of another or an unknown direction: no metrics, said once, and at the end."""
    monkeypatch.setattr("dae_ros.nodes.gt_node.NOTICE_PERIOD_S", 0.01)  # no throttle hides it
    bench = Bench(graph, "depth/relative")
    bench.say(orientation)
    graph.until(lambda: bench.node._status)
    for index in range(3):
        bench.send(S + index * 50 * MS, *frame(3))
        graph.until(lambda count=index + 1: bench.came() == (count, count, 0))
    graph.spin(0.2)
    assert not bench.metrics
    why = "grows with inverse depth" if orientation == "inverse_depth" else "do not say which"
    assert len(said(capfd, why)) == 1
    bench.node.close()
    (last,) = said(capfd, NOTHING_COMPARED)
    assert why in last


def test_the_end_says_what_was_missing(graph, capfd):
    """Without a pair the last sentence names the one true reason, each another one."""
    prediction, depth = frame(8)
    sent = {
        "neither depth nor ground truth came": ((0, 0, 0), lambda bench: None),
        "no ground truth came, but 1 depth image": (
            (1, 0, 0), lambda bench: bench.depth.publish(write_image(prediction, S, "cam"))
        ),
        "no depth image came, but 1 truth; 1 could not be read": (
            (0, 1, 1),
            lambda bench: (
                bench.truth.publish(write_image(depth, S, "lidar")),
                bench.truth.publish(write_image(np.zeros((4, 4, 3), np.uint8), S, "lidar")),
            ),
        ),
        "no depth image lies within 0.025 s of a truth (1 depth image, 1 truth)": (
            (1, 1, 0), lambda bench: bench.send(S, prediction, depth, offset_ns=40 * MS)
        ),
        "1 pair of depth and ground truth had different sizes": (
            (1, 1, 0), lambda bench: bench.send(S, prediction, depth[:6])
        ),
    }  # fmt: skip
    for reason, (came, publish) in sent.items():
        bench = Bench(graph)
        publish(bench)
        graph.until(lambda bench=bench, came=came: bench.came() == came)
        bench.node.close()
        (last,) = said(capfd, NOTHING_COMPARED)
        assert f"{NOTHING_COMPARED}{reason}" in last
        graph.remove(bench.node)
    bench = Bench(graph, "depth/relative")
    bench.send(S, prediction, depth)
    graph.until(lambda: bench.came() == (1, 1, 0))
    bench.node.close()
    assert "no 'depth/status' came" in said(capfd, NOTHING_COMPARED)[0]


def test_alignment_and_range_are_parameters(graph):
    """`median` makes a factor vanish; truth outside of the range of depths does not count."""
    bench = Bench(graph, alignment="median", clip_distance_m=30.0, minimum_depth_m=5.0)
    _, depth = frame(4)
    depth[0, :3] = 0, -1, np.inf
    bench.send(S, 3 * depth, depth)
    graph.until(lambda: bench.metrics)
    found = bench.values(0, "frame")
    assert float(found["abs_rel"]) < 1e-5
    assert float(found["scale"]) == pytest.approx(1 / 3)
    assert float(found["valid_pixels"]) == ((depth >= 5) & (depth < 30)).sum() > 0


def test_bad_images_are_left_out(graph):
    """Another size and colours are counted; a frame without truth warns; the next one is scored."""
    bench = Bench(graph)
    prediction, depth = frame(5)
    bench.send(S, prediction, depth[:6])
    bench.truth.publish(write_image(np.zeros((4, 4, 3), np.uint8), 2 * S, "lidar"))
    bench.send(3 * S, prediction, np.full_like(depth, np.nan))
    bench.send(4 * S, prediction, depth)
    graph.until(lambda: len(bench.metrics) == 2)
    assert [message.status[0].level for message in bench.metrics] == [WARN, OK]
    running = bench.values(1, "running")
    assert (running["wrong_size"], running["unreadable"]) == ("1", "1")
    assert (running["frames"], running["frames_without_pixels"]) == ("2", "1")
    assert float(running["abs_rel"]) == pytest.approx(abs_rel(prediction, depth), rel=1e-5)


def test_a_loop_of_the_recording_goes_on(graph):
    """When stamps run back, pairs of the second pass are found."""
    bench = Bench(graph)
    for start_ns in (5 * S, S):
        for index in range(3):
            bench.send(start_ns + index * 50 * MS, *frame(index))
    graph.until(lambda: len(bench.metrics) == 6)
    stamps = [message.header.stamp.sec for message in bench.metrics]
    assert stamps == [5, 5, 5, 1, 1, 1]


def test_the_report_is_written_at_the_end(graph, tmp_path, monkeypatch):
    """Closing scores what waits and leaves the means as JSON and Markdown."""
    monkeypatch.setenv("HOME", str(tmp_path))
    bench = Bench(graph, report="~/live")
    bench.say("depth")
    pairs = [frame(seed) for seed in range(2)]
    # The second prediction might still have a closer one behind it.
    for index, pair in enumerate(pairs):
        bench.send(S + index * 50 * MS, *pair, offset_ns=5 * MS)
    graph.until(lambda: bench.metrics)
    graph.spin(0.3)
    bench.node.close()
    bench.node.close()
    document = json.loads((tmp_path / "live" / "evaluation.json").read_text())
    assert [table["scoring"]["alignment"] for table in document["tables"]] == ["none", "lstsq"]
    (sequence,) = document["tables"][0]["sequences"]
    assert sequence["frames"] == 2
    assert sequence["metrics"]["abs_rel"] == pytest.approx(
        np.mean([abs_rel(*pair) for pair in pairs]), rel=1e-5
    )
    assert document["network"] == "sha256 abababababab"
    assert (tmp_path / "live" / "evaluation.md").is_file()


def test_a_report_that_does_not_fit_costs_nothing_else(graph, tmp_path):
    """On a full disk, and where a file is in the way, the node closes as ever."""
    for folder in (tmp_path / "full", tmp_path / "taken" / "inside"):
        bench = Bench(graph, report=str(folder))
        bench.send(S, *frame(0))
        bench.send(2 * S, *frame(1))
        graph.until(lambda bench=bench: bench.metrics)
        (tmp_path / "taken").touch()
        with no_room_beyond(100):
            bench.node.close()
        assert not (folder / "evaluation.json").exists()


def test_the_process_ends_with_its_summary(graph):
    """SIGINT ends it with 0 and the means in the log; a bad parameter ends it with a sentence."""
    command = [sys.executable, "-u", "-m", "dae_ros.nodes.gt_node", "--ros-args"]
    bad = subprocess.run(
        [*command, "-p", "clip_distance_m:=0.001", "-p", "minimum_depth_m:=1.0"],
        cwd=ROOT, capture_output=True, text=True, timeout=120.0, check=False,
    )  # fmt: skip
    assert bad.returncode == 1
    assert "must be below 'clip_distance_m'" in bad.stderr
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        depth = graph.publisher(Image, "depth/image")
        truth = graph.publisher(Image, "ground_truth")
        metrics = graph.listen(DiagnosticArray, "metrics")
        graph.until(lambda: depth.get_subscription_count() and truth.get_subscription_count())
        prediction, target = frame(6)
        stamp_ns = S
        # What is sent before both sides know each other is lost.
        while not metrics:
            depth.publish(write_image(prediction, stamp_ns, "cam"))
            truth.publish(write_image(target, stamp_ns, "cam"))
            stamp_ns += S
            graph.spin(0.5)
            assert child.poll() is None, child.communicate()[0]
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=120.0)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 0, output
    words = rf"(\d+) frames, alignment none: abs_rel {abs_rel(prediction, target):.3f}"
    found = re.search(words, output)
    assert found is not None, output
    assert int(found[1]) >= len(metrics) >= 1


def test_a_launch_starts_it_where_a_truth_is_named():
    """`ground_truth:=` adds the node, remapped, and the source waits for it."""
    names = [process.name for process in launch_plan({"source": "simulator"})]
    assert names == ["depth", "simulator"]
    plan = launch_plan({"source": "simulator", "ground_truth": "depth_truth", "namespace": "cam0"})
    assert [process.name for process in plan] == ["depth", "gt", "simulator"]
    assert (plan[1].executable, plan[1].namespace) == ("gt_node", "cam0")
    assert plan[1].remappings == (("ground_truth", "depth_truth"),)
    assert plan[2].parameters["wait_topics"].split(",")[-1] == "depth_truth"
