"""`dae-ros bag` where the recording has ground truth: metrics in the summary."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dae_ros.bags.message_types import IMAGE
from dae_ros.bags.messages import read_depth, write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.cli import main as command_line
from test.reference.mvsec_bag import HEIGHT, START_NS, WIDTH, write_data_bag

MS = 1_000_000


@pytest.fixture(autouse=True)
def only_this_verb(monkeypatch):
    """Import no other verb than the one under test."""
    monkeypatch.setattr(command_line, "VERBS", ("bag",))


def truths(path, topic="/davis/left/depth_truth", shift_ns=0, size=(HEIGHT, WIDTH)):
    """Write a depth image near the end of every window, and one more in between."""
    random = np.random.default_rng(3)
    written = {}
    with BagWriter(path) as bag:
        bag.add_topic(topic, IMAGE)
        for k in range(7):
            # Windows end at multiples of 50 ms.
            stamp_ns = START_NS // (50 * MS) * (50 * MS) + (k + 1) * 50 * MS + shift_ns
            depth = random.uniform(1, 20, size).astype(np.float32)
            bag.write(topic, IMAGE, stamp_ns, write_image(depth, stamp_ns, "cam"))
            written[stamp_ns] = depth
    return written


def run(*arguments, code=0):
    tiny = ("--weights", "untrained:tiny", "--device", "cpu", "--threads", "1")
    assert command_line.main(["bag", *map(str, arguments), *tiny]) == code
    out = arguments[list(arguments).index("--out") + 1]
    return json.loads((out / "summary.json").read_text())["metrics"] if code == 0 else None


@pytest.mark.parametrize("shift_ms", [-20, 0, 3])
def test_each_window_meets_the_truth_closest_to_its_end(tmp_path, capsys, shift_ms):
    """The mean over the windows in the depth bag, with plain arithmetic, is that of the summary."""
    write_data_bag(tmp_path / "data.bag")
    written = truths(tmp_path / "truth", shift_ns=shift_ms * MS)
    found = run(
        tmp_path / "data.bag", tmp_path / "truth", "--out", tmp_path / "out",
        "--orientation", "depth", "--scale", "3", "--shift", "4",
    )  # fmt: skip
    errors = []
    with open_recording(tmp_path / "out" / "depth") as recording:
        for message in recording.messages(["/depth/image"]):
            image = read_depth(message.data)
            depth = written[image.stamp_ns + shift_ms * MS]
            p = np.clip(image.depth, 1e-3, 80)
            known = np.isfinite(p)
            errors.append(float(np.mean(np.abs(p - depth)[known] / depth[known], dtype=np.float64)))
    assert len(errors) == found["windows"] >= 4
    first = found["tables"][0]
    assert (first["scoring"]["alignment"], first["pixels"]) == ("none", "with ground truth")
    assert first["metrics"]["abs_rel"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["largest_offset_s"] == pytest.approx(abs(shift_ms) / 1e3)
    assert found["truth"] == "/davis/left/depth_truth"
    assert f"Abs Rel {np.mean(errors):.3f}" in capsys.readouterr().out


def test_what_cannot_be_compared_says_why(tmp_path, capsys):
    """A number of unknown direction, another size, another time, a missing topic, no truth."""
    write_data_bag(tmp_path / "data.bag")
    truths(tmp_path / "truth")
    both = (tmp_path / "data.bag", tmp_path / "truth")
    unknown = run(*both, "--out", tmp_path / "a")
    assert "do not say which" in unknown["not_scored_because"]
    assert "Not compared" in capsys.readouterr().out
    truths(tmp_path / "small", size=(13, 17))
    depth = ("--orientation", "depth")
    small = run(tmp_path / "data.bag", tmp_path / "small", "--out", tmp_path / "b", *depth)
    assert (small["windows"], small["wrong_size"] > 3) == (0, True)
    assert "of depth and ground truth had different sizes" in capsys.readouterr().out
    truths(tmp_path / "late", shift_ns=3600_000 * MS, topic="/lidar/depth")
    late = ("--truth", "/lidar/depth", *depth)
    other = run(tmp_path / "data.bag", tmp_path / "late", "--out", tmp_path / "c", *late)
    assert (other["windows"], other["tables"][0]["frames"]) == (0, 0)
    assert other["tables"][0]["metrics"] == {}
    assert "no depth image lies within 0.025 s of a truth" in capsys.readouterr().out
    run(*both, "--out", tmp_path / "d", "--truth", "/nope", code=1)
    assert "there is no topic /nope" in capsys.readouterr().err
    assert run(tmp_path / "data.bag", "--out", tmp_path / "e") is None
