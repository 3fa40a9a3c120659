"""The benchmark of faults: what it finds on disk and in shared memory, and a few real kills."""

from __future__ import annotations

import itertools
import json
import mmap
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_faults import CALM, run, summary, table
from benchmarks.faults.disk import look
from benchmarks.faults.kills import Kill, longest_gap_s
from benchmarks.faults.plot import absences, histogram, kills_plot, stems
from benchmarks.faults.segments import SHARED, held_by, remove_orphans
from benchmarks.live.online_stand import Deployment, Image
from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.bags.messages import write_image
from dae_ros.bags.writer import BagWriter
from dae_ros.distillation.online.persistence import OnlineStore
from dae_ros.events.cdr import write_packet
from dae_ros.events.frame import Frame
from dae_ros.runtime.snapshots import SnapshotStore
from test.reference.prepared_learner import prepare, write_files
from test.reference.wall_deployment import items

pytestmark = pytest.mark.ros


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A learner's folder with two versions and two states."""
    with SnapshotStore(tmp_path / "snapshots") as snapshots:
        for content in (b"one", b"two"):
            snapshots.publish(lambda path, c=content: path.write_bytes(c), step=0, score=1.0)
    with OnlineStore(tmp_path / "learner") as learner:
        for steps in (3, 5):
            learner.save({"steps": steps, "learner": {"accepted_steps": steps - 1}}, [])
    return tmp_path


def test_a_whole_folder_has_no_problems_and_one_that_is_not_there_neither(
    folder: Path, tmp_path: Path
) -> None:
    """Versions, the latest of them, and the steps of the newest state are read."""
    disk = look(folder)
    assert disk.problems == () and disk.unfinished == ()
    assert (disk.latest, set(disk.versions), disk.rollback) == (2, {1, 2}, False)
    assert (disk.steps, disk.accepted_steps) == (5, 4)
    assert look(tmp_path / "nothing").problems == ()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("w_000001.safetensors", b"oNe", "w_000001.json names w_000001.safetensors, which has"),
        ("w_000001.safetensors", b"on", "w_000001.json names w_000001.safetensors, which has"),
        ("w_000001.safetensors", None, "w_000001.json names w_000001.safetensors: No such file"),
        ("w_000001.json", b"{", "w_000001.json cannot be read"),
        ("LATEST.json", b'{"version": 2', "LATEST.json cannot be read"),
    ],
)
def test_every_damage_to_a_version_is_found(
    folder: Path, name: str, content: bytes | None, problem: str
) -> None:
    """A changed byte, a cut file, a missing one, a description that cannot be read."""
    path = folder / "snapshots" / name
    path.unlink() if content is None else path.write_bytes(content)
    assert any(found.startswith(problem) for found in look(folder).problems)


def test_a_damaged_state_is_replaced_by_the_one_before_and_two_are_a_problem(
    folder: Path,
) -> None:
    """Steps are those of the newest whole state; files under way are named."""
    (folder / "learner" / "state.bin").write_bytes(b"DAEONL04" + bytes(40))
    assert (look(folder).steps, look(folder).problems) == (3, ())
    (folder / "learner" / "state.previous.bin").write_bytes(b"")
    assert look(folder).problems == ("no learner's state is whole",)
    (folder / "snapshots" / "w_000003.safetensors").touch()
    (folder / "snapshots" / "LATEST.json.tmp").touch()
    assert look(folder).unfinished == ("LATEST.json.tmp", "w_000003.safetensors")


def test_pictures_show_who_was_away_when_and_how_long_depth_stopped() -> None:
    """A kill while starting makes an absence longer; gaps are those of kills that came back."""
    kills = [
        {"victim": "depth", "at_s": 10.0, "back_s": None, "stopped_s": 0.0},
        {"victim": "depth", "at_s": 12.0, "back_s": 3.0, "stopped_s": 3.1},
        {"victim": "distillation", "at_s": 20.0, "back_s": 4.0, "stopped_s": 0.1},
        {"victim": "depth", "at_s": 30.0, "back_s": 2.0, "stopped_s": 2.2},
    ]
    x, y = absences(kills, "depth")
    assert np.array_equal(x, [10.0, 15.0, np.nan, 30.0, 32.0, np.nan], equal_nan=True)
    assert np.array_equal(y, [1.0, 1.0, np.nan, 1.0, 1.0, np.nan], equal_nan=True)
    x, y = stems(kills, "depth")
    assert np.array_equal(x, [12.0, 12.0, np.nan, 30.0, 30.0, np.nan], equal_nan=True)
    assert np.array_equal(y, [0.0, 3.1, np.nan, 0.0, 2.2, np.nan], equal_nan=True)
    x, y = histogram(kills, "depth")
    assert sum(y[1:-1:2]) == 2 and x[0] == 0.0 and x[-1] == pytest.approx(3.1)
    assert histogram(kills[:2], "distillation") == ([], [])
    assert kills_plot(kills).shape == (3 * 440, 800, 3)
    assert kills_plot([]).shape == (3 * 440, 800, 3)


HOLDER = """
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
print("held", flush=True)
time.sleep(60)
"""


def test_only_segments_that_no_living_process_holds_are_removed() -> None:
    """One that is mapped stays until its process is killed; other names are never touched."""
    name = f"fastdds_{uuid.uuid4().hex[:16]}"
    path, other = SHARED / name, SHARED / f"other_{uuid.uuid4().hex}"
    for made in (path, other):
        made.write_bytes(bytes(mmap.PAGESIZE))
    try:
        command = [sys.executable, "-c", HOLDER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            assert held_by(holder.pid) == {name}
            assert remove_orphans([name]) == [] and path.exists()
            holder.kill()
        assert held_by(holder.pid) == set()
        assert remove_orphans([name]) == [name] and not path.exists()
        assert other.exists() and remove_orphans([name]) == []
    finally:
        for made in (path, other):
            made.unlink(missing_ok=True)


def test_a_gap_counts_from_and_to_the_ends_of_the_time_looked_at() -> None:
    """No image at the beginning or the end is a gap as well."""
    images = [Image(t, 0, 0, 1, "", 1.0) for t in (0.0, 2.0, 2.5, 9.0)]
    assert longest_gap_s(images, 1.0, 3.0) == 1.0
    assert longest_gap_s(images, 2.2, 6.5) == 4.0
    assert longest_gap_s([], 1.0, 3.0) == 2.0


def test_the_table_has_a_row_for_kills_of_each_process_and_for_each_fault() -> None:
    """What failed is named below."""
    kills = [
        Kill("depth", "running", 5.0, (), 2, 3, 3, None, back_s=2.0, stopped_s=2.0),
        Kill("distillation", "starting", 1.0, ("a.tmp",), 1, 3, 3, 4, problems=("it was bad",)),
    ]
    found = summary(kills)
    assert found["distillation"]["lost_steps_most"] == 4
    results = {
        "summary": found,
        "kills": [kill.to_dict() for kill in kills],
        "faults": [{"fault": "full disk", "happened": "nothing", "passed": True}],
        "versions_published": 3,
        "segments_removed": 3,
        "segments_left": 0,
        "windows_of_the_original_after_restarts": 7,
    }
    rows = table(results).splitlines()
    assert rows[2].startswith("| kill -9 of depth, 1 times | 0 while it started, 0 left a file")
    assert rows[3].endswith("| **1 failed** |") and rows[-1] == "* it was bad"
    assert rows[4] == "| full disk | nothing | passed |"


@pytest.mark.slow
def test_depth_and_learner_survive_a_few_kills_and_a_full_disk(tmp_path: Path) -> None:
    """Real processes: weights stay whole, depth comes back, learning goes on from the disk."""
    seen = items(1, 1000)
    with BagWriter(tmp_path / "recording") as bag:
        for item in seen:
            if isinstance(item, Frame):
                data = write_image(item.image, item.stamp_ns, "camera")
                bag.write("/image_raw", IMAGE, item.stamp_ns, data)
            else:
                bag.write("/events", EVENT_PACKET, item.stamp_ns, write_packet(item))
    values = write_files(tmp_path, seen)
    learned = tmp_path / "learned"
    prepare(values, seen, learned)
    own = {"weights", "teacher", "device"}
    deployment = Deployment(
        values["weights"],
        values["teacher"],
        learned,
        # No window is lost on a busy machine, which learning would hold for.
        depth={
            **CALM,
            "overload": "queue",
            "follow_snapshots": True,
            "snapshots": str(learned / "snapshots"),
        },
        learner={
            **{name: value for name, value in values.items() if name not in own},
            "degraded_share": 1.0,
            "recovery_s": 1.0,
        },
        use_sim_time=True,
    )
    results = run(
        deployment,
        tmp_path / "recording",
        kills=2,
        aimed=1,
        seed=2,
        rate=0.25,
        warm_up_s=30.0,
        faults="full disk",
        keep_own=True,
    )
    json.dumps(results)
    assert [kill["problems"] for kill in results["kills"]] == [(), (), ()], results["kills"]
    assert {kill["victim"] for kill in results["kills"]} == {"depth", "distillation"}
    assert [one["passed"] for one in results["faults"]] == [True], results["faults"]
    assert results["versions_published"] >= 2 and results["segments_removed"] > 0
    for before, after in itertools.pairwise(results["kills"]):
        assert before["latest"] <= after["latest"]
