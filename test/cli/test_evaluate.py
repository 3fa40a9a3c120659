"""`dae-ros evaluate`: which sequences it runs, how it scores them, and how it fails."""

from __future__ import annotations

import dataclasses
import json
import signal
from types import MappingProxyType

import cv2
import pytest

from dae_ros.cli import main as command_line
from dae_ros.cli.progress import ProgressBar
from dae_ros.evaluation import protocols
from dae_ros.evaluation.evaluation_run import OUTPUTS
from dae_ros.evaluation.published_results import PUBLISHED_ROWS
from test.reference.bag_runs import files_of
from test.reference.dataset_layouts import (
    write_dsec,
    write_eventscape,
    write_mvsec,
    write_voxel_folder,
)
from test.reference.mvsec_bag import write_data_bag, write_truth_bag

TINY = ("--weights", "untrained:tiny", "--device", "cpu", "--threads", "1")


@pytest.fixture(autouse=True)
def only_this_verb(monkeypatch):
    """Import no other verb than the one under test."""
    monkeypatch.setattr(command_line, "VERBS", ("evaluate",))


@pytest.fixture
def walk(tmp_path):
    """A pair of MVSEC-like bags of 0.3 s."""
    write_data_bag(tmp_path / "walk_data.bag")
    write_truth_bag(tmp_path / "walk_gt.bag", images=6)
    return tmp_path / "walk_data.bag"


def run(*arguments, direction=("--orientation", "depth")):
    return command_line.main(["evaluate", *map(str, arguments), *TINY, *direction])


def document_of(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_a_bag_with_its_truth(tmp_path, walk, capsys):
    """Tables, plots and pictures stand in the folder, the means on the terminal."""
    out = tmp_path / "out"
    assert run(walk, "--out", out) == 0
    assert {item.name for item in out.iterdir()} == set(OUTPUTS)
    document = document_of(out)
    (sequence,) = document["tables"][0]["sequences"]
    assert (sequence["name"], sequence["frames"]) == ("walk", 4)
    assert document["dataset"] == "recordings"
    for picture in document["pictures"]:
        assert cv2.imread(str(out / picture["path"])) is not None
    printed = capsys.readouterr()
    mean = document["tables"][0]["mean"]
    assert f"standard:lstsq, pixels with ground truth: Abs Rel {mean['abs_rel']:.3f}" in printed.out
    assert f"best constant of each frame: {mean['best_constant_abs_rel']:.3f}" in printed.out
    assert "untrained" in printed.out


def test_what_is_metric_is_scored_in_metres_first(tmp_path, walk):
    """With a scale the first table is without alignment; --reset and --frames are written down."""
    out = tmp_path / "out"
    arguments = ("--scale", "2", "--reset", "every_window", "--frames", "2", "--clip", "5")
    assert run(walk, "--out", out, *arguments) == 0
    document = document_of(out)
    scorings = [table["scoring"] for table in document["tables"]]
    assert [s["alignment"] for s in scorings] == ["none", "none", "lstsq", "lstsq"]
    assert {s["clip_distance_m"] for s in scorings} == {5.0}
    assert document["tables"][0]["sequences"][0]["frames"] == 2
    assert document["facts"]["recurrent state"] == "cleared before every window"
    assert document["facts"]["only"].startswith("the first 2 ")


def test_scorings_can_be_chosen(tmp_path, walk):
    """Each --scoring gives its two tables, in this order."""
    out = tmp_path / "out"
    chosen = ("published:lstsq_published", "standard:median", "standard:lad")
    assert run(walk, "--out", out, *(x for text in chosen for x in ("--scoring", text))) == 0
    scorings = [table["scoring"] for table in document_of(out)["tables"]]
    assert [f"{s['variant']}:{s['alignment']}" for s in scorings[::2]] == list(chosen)


def test_simulations_and_recordings_in_one_table(tmp_path, walk):
    """Sequences of all kinds stand in one table."""
    out = tmp_path / "out"
    simulation = "room:height=32,width=40,duration_s=0.3"
    assert run(walk, "--simulator", simulation, "--out", out) == 0
    names = [item["name"] for item in document_of(out)["tables"][0]["sequences"]]
    assert names == ["walk", "room height=32,width=40,duration_s=0.3"]


def small(monkeypatch, name, **changes):
    """Shrink a published protocol to what a test can write."""
    protocol = dataclasses.replace(protocols.PROTOCOLS[name], **changes)
    monkeypatch.setattr(protocols, "PROTOCOLS", MappingProxyType({name: protocol}))
    monkeypatch.setattr("dae_ros.evaluation.report.PROTOCOLS", protocols.PROTOCOLS)


def test_the_published_protocol_of_dsec(tmp_path, monkeypatch):
    """All sequences of the split, cropped, first frames skipped: the paper's rows stand beside."""
    root = tmp_path / "DSEC"
    for name in ("thun_00_a", "zurich_city_05_a"):
        write_dsec(root / "train" / name)
    monkeypatch.setattr("dae_ros.bags.datasets.dsec.SIZE", (48, 64))
    splits = {"validation": {"thun_00_a": 6, "zurich_city_05_a": 6}}
    small(monkeypatch, "dsec", height=48, width=64, rows=(8, 40), splits=splits)
    out = tmp_path / "out"
    assert run(root, "--dataset", "dsec", "--out", out) == 0
    document = document_of(out)
    table = document["tables"][0]
    assert [(s["name"], s["frames"]) for s in table["sequences"]] == [
        ("thun_00_a", 5), ("zurich_city_05_a", 5),
    ]  # fmt: skip
    assert table["not_comparable_because"] is None
    assert "events" in document["tables"][1]["not_comparable_because"]
    assert document["facts"]["event encoder"] == "tencode"
    text = (out / "evaluation.md").read_text()
    paper = [row for row in PUBLISHED_ROWS if row.dataset == "dsec"]
    assert text.count("| DepthAnyEvent-R |") == sum(r.network == "DepthAnyEvent-R" for r in paper)
    # With less than all frames nothing stands beside; the windows are always the protocol's.
    settings = tmp_path / "robot.yaml"
    settings.write_text("depth: {ros__parameters: {window_s: 0.1}}\n")
    few = ("--frames", "3", "--params", settings)
    assert run(root, "--dataset", "dsec", "--out", tmp_path / "few", *few) == 0
    assert document_of(tmp_path / "few")["facts"]["windows"].startswith("50 ms")
    assert "not all frames" in document_of(tmp_path / "few")["tables"][0]["not_comparable_because"]
    cleared = tmp_path / "cleared"
    assert run(root, "--dataset", "dsec", "--out", cleared, "--reset", "every_window") == 0
    assert "cleared" in document_of(cleared)["tables"][0]["not_comparable_because"]


def test_a_part_of_dsec_follows_the_protocol_too(tmp_path, monkeypatch, capsys):
    """The refusal names the option that takes what is there, and the paper is not beside it."""
    root = tmp_path / "DSEC"
    write_dsec(root / "train" / "zurich_city_04_a")
    monkeypatch.setattr("dae_ros.bags.datasets.dsec.SIZE", (48, 64))
    splits = {
        "train": {"zurich_city_04_a": 6, "zurich_city_04_b": 6},
        "validation": {"thun_00_a": 6},
    }
    small(monkeypatch, "dsec", height=48, width=64, rows=(8, 40), splits=splits)
    out = tmp_path / "out"
    assert run(root, "--dataset", "dsec", "--out", out) == 1
    way = "--split train --sequences zurich_city_04_a"
    assert way in capsys.readouterr().err
    assert run(root, "--dataset", "dsec", "--out", out, *way.split()) == 0
    document = document_of(out)
    assert document["facts"]["protocol"] == "dsec, rows 8 to 39"
    assert document["facts"]["sequences"].startswith("1 of the 2 of the split 'train'")
    assert "not all frames" in document["tables"][0]["not_comparable_because"]
    assert "| DepthAnyEvent-R |" not in (out / "evaluation.md").read_text()
    assert "sequences: 1 of the 2" in capsys.readouterr().out


def test_the_published_protocol_of_mvsec(tmp_path, monkeypatch):
    """E2Depth's folders are fed as voxel grids, with the names of the protocol."""
    write_voxel_folder(tmp_path / "root" / "test" / "mvsec_outdoor_day1")
    splits = {"test": {"test/mvsec_outdoor_day1": 6}}
    small(monkeypatch, "mvsec", height=26, width=34, rows=(0, 26), splits=splits)
    out = tmp_path / "out"
    assert run(tmp_path / "root", "--dataset", "mvsec", "--out", out) == 0
    document = document_of(out)
    assert document["facts"]["event encoder"] == "tencode_voxel"
    assert document["tables"][0]["not_comparable_because"] is None
    assert (out / "strips" / "test_mvsec_outdoor_day1.png").is_file()


def test_a_voxel_folder_by_itself(tmp_path, capsys):
    """Weights that take events name the way out, and with it the folder is scored."""
    write_voxel_folder(tmp_path / "day1")
    assert run(tmp_path / "day1", "--out", tmp_path / "out") == 1
    assert "Give --event-encoder tencode_voxel" in capsys.readouterr().err
    out = tmp_path / "voxels"
    assert run(tmp_path / "day1", "--out", out, "--event-encoder", "tencode_voxel") == 0
    assert document_of(out)["facts"]["event encoder"] == "tencode_voxel"


def test_other_data_sets_by_split(tmp_path, monkeypatch):
    """MVSEC's own files and EventScape are found below their roots, without a protocol."""
    monkeypatch.setattr("dae_ros.evaluation.splits.MVSEC_RECORDINGS", {"test": ("outdoor_day1",)})
    monkeypatch.setattr("dae_ros.evaluation.splits.EVENTSCAPE_TOWNS", {"test": ("Town05",)})
    monkeypatch.setattr("dae_ros.bags.datasets.eventscape.SIZE", (24, 40))
    (tmp_path / "mvsec").mkdir()
    write_mvsec(tmp_path / "mvsec")
    write_eventscape(tmp_path / "carla" / "Town05" / "sequence_7")
    for dataset, root, name in (
        ("mvsec_recordings", "mvsec", "outdoor_day1"),
        ("eventscape", "carla", "Town05/sequence_7"),
    ):
        out = tmp_path / f"out_{root}"
        assert run(tmp_path / root, "--dataset", dataset, "--out", out) == 0
        table = document_of(out)["tables"][0]
        assert [s["name"] for s in table["sequences"]] == [name]
        assert table["scoring"]["variant"] == "standard"


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        ((), "nothing to evaluate", 2),
        (("{missing}",), "no readable recording", 1),
        (("{walk}", "--scoring", "standard:best"), "There is no scoring 'standard:best'", 2),
        (("{walk}", "--scoring", "standard:none"), "without alignment mean nothing", 1),
        (("{walk}", "--split", "test"), "--split belongs to --dataset", 2),
        (("{walk}", "--dataset", "dsec", "--window-s", "0.02"), "leave out --window-s", 2),
        (
            ("{walk}", "--dataset", "dsec", "--event-encoder", "tencode"),
            "leave out --event-encoder",
            2,
        ),
        (("--dataset", "dsec"), "--dataset takes one SEQUENCE", 2),
        (("{walk}", "--dataset", "dsec", "--size", "64x48"), "--dataset takes one SEQUENCE", 2),
        (("--simulator", "room", "--truth", "/depth"), "leave out --truth", 2),
        (
            ("--simulator", "room", "--events", "/e", "--size", "9x9"),
            "leave out --events and --size",
            2,
        ),
        (("{walk}", "--dataset", "dsec"), "lacks 10 of the 10 sequences", 1),
        (("{walk}", "--dataset", "dsec"), "a part is enough with --sequences", 1),
        (("{walk}", "--dataset", "dsec", "--sequences", "x"), "x is not in the split", 2),
        (("{walk}", "--dataset", "eventscape", "--sequences", "x"), "not for eventscape", 2),
        (("{walk}", "--sequences", "thun_00_a"), "--sequences belongs to --dataset", 2),
        (("{walk}", "--truth", "/nope"), "there is no topic /nope", 1),
        (("{walk}", "{walk}"), "Two sequences are named walk", 1),
        (("--simulator", "moon"), "no simulator preset 'moon'", 2),
        (("{walk}", "--params", "{missing}"), "cannot be read", 2),
        (("{walk}", "--clip", "0"), "0 < minimum depth < clip", 2),
    ],
)
def test_what_cannot_be_evaluated_is_explained(tmp_path, walk, capsys, arguments, text, code):
    """Each mistake has its own sentence and exit code, and leaves no report."""
    places = {"{missing}": str(tmp_path / "missing"), "{walk}": str(walk)}
    arguments = [places.get(argument, argument) for argument in arguments]
    assert run(*arguments, "--out", tmp_path / "out") == code
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_missing_truth_is_named_once(tmp_path, walk, capsys):
    """Without its _gt a _data file is answered with the name of what is missing, in one line."""
    (tmp_path / "walk_gt.bag").unlink()
    assert run(walk, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.count("walk_gt.bag is not beside") == error.count("no depth images") == 1
    assert "right/events" not in error


def test_numbers_of_unknown_direction_are_not_scored(tmp_path, walk, capsys):
    """Whether an untrained network's number grows with depth is not guessed."""
    assert run(walk, "--out", tmp_path / "out", direction=()) == 1
    assert "Set 'orientation'" in capsys.readouterr().err


def test_an_earlier_evaluation_is_replaced_only_on_request(tmp_path, walk, capsys):
    """--overwrite removes what an evaluation left, and nothing else ever is."""
    out = tmp_path / "out"
    assert run(walk, "--out", out) == 0
    assert run(walk, "--out", out) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run(walk, "--out", out, "--overwrite") == 0
    (out / "thesis.tex").touch()
    assert run(walk, "--out", out, "--overwrite") == 1
    assert "holds thesis.tex" in capsys.readouterr().err


def test_an_earlier_evaluation_outlives_a_refused_one(tmp_path, walk, capsys):
    """What cannot be opened, or has no truth, costs no table."""
    out = tmp_path / "out"
    assert run(walk, "--out", out) == 0
    before = files_of(out)
    assert run(tmp_path / "missing", "--out", out, "--overwrite") == 1
    assert "missing" in capsys.readouterr().err
    assert run(walk, "--out", out, "--overwrite", "--truth", "/nope") == 1
    assert "/nope" in capsys.readouterr().err
    assert files_of(out) == before


def test_ctrl_c_leaves_a_whole_report(tmp_path, walk, monkeypatch):
    """The first Ctrl-C ends with exit code 130 and the windows scored so far."""
    monkeypatch.setattr(ProgressBar, "update", lambda *_: signal.raise_signal(signal.SIGINT))
    out = tmp_path / "out"
    assert run(walk, "--out", out) == 130
    assert document_of(out)["facts"]["interrupted"].startswith("yes")
    assert {item.name for item in out.iterdir()} == set(OUTPUTS)


def test_a_cut_recording_is_scored_up_to_the_cut(tmp_path, walk, capsys):
    """The report holds what came before; the error says where, with exit code 1."""
    data = walk.read_bytes()
    walk.write_bytes(data[: int(len(data) * 0.8)])
    assert run(walk, "--out", tmp_path / "out") == 1
    assert "was cut" in capsys.readouterr().err
    assert "was cut" in document_of(tmp_path / "out")["facts"]["damage"]


def test_help_teaches_with_examples(capsys):
    """--help names what is written and shows complete commands."""
    with pytest.raises(SystemExit) as ended:
        command_line.main(["evaluate", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.count("  dae-ros evaluate ") >= 5
    for name in ("evaluation.md", "frames.csv", "strips/", "timing.json"):
        assert name in text
