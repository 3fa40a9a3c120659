"""`dae-ros adapt`: the loop on a recording, twice the same."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.recording import Recording, open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.cli.adapt import OUTPUTS
from dae_ros.cli.main import main
from dae_ros.distillation.online.adaptation import Adaptation, AdaptationResult
from dae_ros.distillation.online.opening import open_student
from dae_ros.events.packet import EventPacket
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.parameters import DepthParameters
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.snapshots import read_latest
from test.reference.echo_onnx import write_echo
from test.reference.full_disk import no_room_beyond

FILES = ("adapt.json", "adapted.safetensors", "adapt.png", "snapshots/LATEST.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second in a simulated room, a student and a teacher that know nothing."""
    folder = tmp_path_factory.mktemp("place")
    words = ["simulate", "--out", str(folder / "room"), "--duration", "1.2", "--width", "48"]
    assert main([*words, "--height", "36"]) == 0
    student = variant("micro", input_height=28, input_width=42)
    for name, encoder in (("student", "tencode"), ("teacher", "grey")):
        config = student if name == "student" else variant("micro_frames")
        meaning = Meaning.from_dict(
            {"event_encoder": encoder, "orientation": "depth", "scale": "metric"}
        )
        save_checkpoint(folder / f"{name}.safetensors", build_network(config), meaning)
    return folder


def adapt_options(place: Path, out: Path) -> list[str]:
    return [
        "--out", str(out), "--device", "cpu",
        "--weights", str(place / "student.safetensors"),
        "--teacher", str(place / "teacher.safetensors"),
    ]  # fmt: skip


def adapt(place: Path, out: Path, *more: str) -> int:
    return main(["adapt", str(place / "room"), *adapt_options(place, out), *more])


# Clips that fit into a second.
SHORT = ["--set", "lead=1", "--set", "burn_in=1", "--set", "unroll=4"]


def copied(
    place: Path,
    path: Path,
    without: str = "none",
    cut: str = "none",
    messages: tuple[int, ...] = (),
    later_ns: int = 0,
) -> str:
    """Copy the room without a topic, or with some messages of one cut; names are last parts.

    It may have been recorded later than its stamps say.
    """
    seen = 0
    with open_recording(place / "room") as source, BagWriter(path) as writer:
        for message in source.messages():
            name = message.topic.rpartition("/")[2]
            data = bytes(source.to_cdr(message))
            if name == cut:
                data = data[:40] if seen in messages else data
                seen += 1
            if name != without:
                writer.write(message.topic, message.type, message.time_ns + later_ns, data)
    return str(path)


def facts_of(out: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((out / "adapt.json").read_text(encoding="utf-8"))
    return facts


def test_other_places_need_no_frames(place: Path, tmp_path: Path) -> None:
    """Scoring reads events and true depth; a recording of these alone gives the same error."""
    blind = copied(place, tmp_path / "blind", without="image_raw")
    both = ["--elsewhere", str(place / "room"), blind]
    assert adapt(place, tmp_path / "out", *SHORT, *both) == 0
    with_frames, without = facts_of(tmp_path / "out")["elsewhere"][0]["recordings"]
    assert with_frames == without and without["windows"] > 10


def test_damaged_event_messages_are_counted(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They end neither learning nor scoring, and nobody is told that nothing was missing."""
    holes = copied(place, tmp_path / "holes", cut="events", messages=(5, 9))
    run = ["adapt", holes, *adapt_options(place, tmp_path / "out"), *SHORT, "--elsewhere", holes]
    assert main(run) == 0
    facts = facts_of(tmp_path / "out")
    assert facts["packet_errors"] == {"malformed_packet": 2}
    (score,) = facts["elsewhere"][0]["recordings"]
    assert score["packet_errors"] == {"malformed_packet": 2} and score["windows"] > 5
    assert capsys.readouterr().out.count("2 event messages could not be used") == 2


def test_a_replay_that_was_recorded_again_is_drawn_from_its_beginning(
    place: Path, tmp_path: Path
) -> None:
    """Its stamps are those of before, a year older than the file; seconds count from the first."""
    again = copied(place, tmp_path / "again", later_ns=365 * 86_400 * 10**9)
    assert main(["adapt", again, *adapt_options(place, tmp_path / "out"), *SHORT]) == 0
    errors = facts_of(tmp_path / "out")["errors"]
    rows = [row["from_s"] for curve in errors.values() for row in curve["every_10_s"]]
    assert rows == [0.0, 0.0] and errors["frozen"]["mean"]["windows"] > 10


def test_depth_has_the_windows_that_are_learned_from(place: Path, tmp_path: Path) -> None:
    """Twice as long are half as many, while it learns and on other places."""
    window = ["--set", "window_s=0.1", "--set", "lead=0", "--set", "burn_in=1"]
    clips = ["--set", "unroll=2", "--set", "labels_per_clip=2"]
    assert adapt(place, tmp_path / "out", *window, *clips, "--elsewhere", str(place / "room")) == 0
    facts = facts_of(tmp_path / "out")
    (elsewhere,) = facts["elsewhere"][0]["recordings"]
    assert facts["errors"]["online"]["mean"]["windows"] == elsewhere["windows"]
    assert 5 < elsewhere["windows"] <= 12


@pytest.mark.parametrize(
    ("without", "option", "told"),
    [
        ("image_raw", None, "no camera frames"),
        ("depth_truth", "--elsewhere", "no true depth"),
        ("events", None, "no events"),
        ("events", "--elsewhere", "no events"),
    ],
)
def test_every_recording_is_looked_at_before_anything_is_learned(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    without: str,
    option: str | None,
    told: str,
) -> None:
    """Hours of learning must not end with what the last recording lacks."""
    poor = copied(place, tmp_path / "poor", without=without)
    options = adapt_options(place, tmp_path / "out")
    words = [str(place / "room"), poor] if option is None else [str(place / "room"), option, poor]
    assert main(["adapt", *words, *options, *SHORT]) == 1
    error = capsys.readouterr().err
    assert told in error and "poor" in error
    assert not (tmp_path / "out").exists()


def test_what_was_learned_outlives_scoring_that_fails(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A true depth that is damaged ends the scores, of which those before stay."""
    torn = copied(place, tmp_path / "torn", cut="depth_truth", messages=(5,))
    assert adapt(place, tmp_path / "out", *SHORT, "--elsewhere", str(place / "room"), torn) == 1
    assert f"what was learned is in {tmp_path / 'out'}" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "out" / "adapted.safetensors").config.network == "dpt"
    facts = facts_of(tmp_path / "out")
    assert facts["errors"]["online"]["mean"]["windows"] > 10
    assert facts["elsewhere"] == []
    assert (tmp_path / "out" / "adapt.png").exists()


def test_scoring_is_interrupted_as_learning_is(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C does not wait for every version on every other place; what was learned is whole."""
    learn, read = Adaptation.run, Recording.read_packet
    scored: list[int] = []

    def counted(self: Recording, message: RecordedMessage) -> EventPacket:
        scored.append(message.time_ns)
        if len(scored) == 3:
            signal.raise_signal(signal.SIGINT)
        return read(self, message)

    def run(self: Adaptation, *given: Any, **named: Any) -> AdaptationResult:
        result = learn(self, *given, **named)
        monkeypatch.setattr(Recording, "read_packet", counted)
        return result

    monkeypatch.setattr(Adaptation, "run", run)
    assert adapt(place, tmp_path / "out", *SHORT, "--elsewhere", str(place / "room")) == 130
    assert len(scored) == 3
    facts = facts_of(tmp_path / "out")
    assert facts["interrupted"] and facts["elsewhere"] == []
    assert "interrupted; what is written is whole" in capsys.readouterr().out


def test_a_disk_that_is_full_at_the_end_is_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there was room for is whole, and no half of a file has a name of its own."""
    learn = Adaptation.run
    with contextlib.ExitStack() as full:

        def run(self: Adaptation, *given: Any, **named: Any) -> AdaptationResult:
            result = learn(self, *given, **named)
            full.enter_context(no_room_beyond(1_000_000))
            return result

        monkeypatch.setattr(Adaptation, "run", run)
        assert adapt(place, tmp_path / "out", *SHORT) == 1
    assert "out cannot be written: File too large. Make room" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"learner", "snapshots"}
    latest = read_latest(tmp_path / "out" / "snapshots")
    assert latest is not None and latest.whole


def test_two_runs_are_equal(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are equal bit for bit; without a publication errors and weights are the original's."""
    for name in ("first", "second"):
        options = ["--set", "lead=1", "--set", "burn_in=1", "--set", "unroll=4"]
        assert adapt(place, tmp_path / name, *options, "--elsewhere", str(place / "room")) == 0
    told = capsys.readouterr().out
    assert "nothing was published" in told and "has 0 of the 12 held-out blocks" in told
    for name in FILES:
        first, second = ((tmp_path / run / name).read_bytes() for run in ("first", "second"))
        assert first == second, name
    facts = json.loads((tmp_path / "first" / "adapt.json").read_text(encoding="utf-8"))
    errors = facts["errors"]
    assert errors["frozen"] == errors["online"] and errors["frozen"]["mean"]["windows"] > 10
    # The same recording at the end gives the same error again.
    assert facts["elsewhere"][0]["recordings"][0]["abs_rel"] == pytest.approx(
        errors["frozen"]["mean"]["abs_rel"]
    )
    counts = facts["status"]["counts"]
    assert facts["status"]["version"] == 1 and any(name.startswith("label.") for name in counts)
    given = load_checkpoint(place / "student.safetensors").network.state_dict()
    adapted = load_checkpoint(tmp_path / "first" / "adapted.safetensors").network.state_dict()
    assert all(bool((tensor == adapted[name]).all()) for name, tensor in given.items())


@pytest.mark.parametrize(
    ("option", "told"),
    [("--steps-per-s=0", "from 0.001 to 1000"), ("--steps-per-s=nan", "from 0.001 to 1000"),
     ("--steps-per-s=inf", "from 0.001 to 1000"), ("--steps-per-s=1e-310", "from 0.001 to 1000"),
     ("--set=tiers=2", "no parameter 'tiers'"),
     ("--set=tier=two", "'tier' cannot be 'two'"), ("--set=tier", "not NAME=VALUE")],
)  # fmt: skip
def test_wrong_options_leave_nothing_behind(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, told: str
) -> None:
    """They are wrong usage (exit code 2), said in a sentence before a folder is made."""
    assert adapt(place, tmp_path / "out", option) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_slow_teacher_gives_fewer_labels(place: Path, tmp_path: Path) -> None:
    """While a label takes its time nothing else is worked on; the newest clip waits."""
    labels = {}
    for label_s in (0.0, 0.3, 9.0):
        parameters = OnlineParameters.from_mapping(
            {"lead": 1, "burn_in": 1, "unroll": 4, "largest_similarity": 1.0, "heldout_every": 0}
        )
        student = open_student(str(place / "student.safetensors"), None, parameters, "cpu")
        teacher = student.teacher(str(place / "teacher.safetensors"))
        distiller = student.learn(teacher, tmp_path / str(label_s))
        depth = DepthParameters(weights=str(place / "student.safetensors"), device="cpu")
        adaptation = Adaptation(distiller, depth, 2.5, lambda: label_s)  # noqa: B023  # used here
        with open_recording(place / "room") as recording:
            adaptation.run([recording], report=lambda *_: None, stopped=lambda: False)
        counts = distiller.status().counts
        labels[label_s] = sum(n for name, n in counts.items() if name.startswith("label."))
        distiller.close()
    assert labels[0.0] > labels[0.3] > labels[9.0] == 1


def test_a_teacher_that_fails_ends_the_run_with_what_to_do(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Live learning tries again; a run on a recording would no longer be what the next one is."""
    zeros = np.zeros((36, 48))
    manifest = write_echo(tmp_path, {zeros.astype(np.uint8).tobytes(): zeros.astype("f4")}, 1.0)
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("width: 48", "width: 46"), encoding="utf-8")
    options = ["--set", "lead=1", "--set", "burn_in=1", "--set", "unroll=4"]
    assert adapt(place, tmp_path / "out", *options, "--teacher", str(manifest)) == 1
    said = capsys.readouterr().err
    assert "the teacher echo" in said and "give another --teacher or --device" in said
    assert not (tmp_path / "out" / "adapt.json").exists()


def test_an_earlier_adaptation_outlives_a_refused_one(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher that is not there costs no result; a run that ends replaces it whole."""
    (tmp_path / "out" / "snapshots").mkdir(parents=True)
    for name in FILES:
        (tmp_path / "out" / name).write_text("earlier")
    (tmp_path / "out" / "snapshots" / "older").write_text("earlier")
    assert adapt(place, tmp_path / "out", "--overwrite", "--teacher", "missing.safetensors") == 1
    assert "missing.safetensors" in capsys.readouterr().err
    assert all((tmp_path / "out" / name).read_text() == "earlier" for name in FILES)
    assert adapt(place, tmp_path / "out", "--overwrite") == 0
    assert all((tmp_path / "out" / name).read_bytes() != b"earlier" for name in FILES)
    left = {item.name for item in (tmp_path / "out").iterdir()}
    assert left == {*OUTPUTS}
    assert not (tmp_path / "out" / "snapshots" / "older").exists()
