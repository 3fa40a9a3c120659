"""The weights that ship: how they are packed, what their cards say, and the files themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import load_checkpoint, read_provenance, save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.fetch import digest_of
from dae_ros.model.manifest import read_manifest
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights
from scripts import ship_weights
from scripts.model_card import SHIPPED, meaning

ROOT = Path(__file__).resolve().parents[2]
TRAINED_IN = "/somewhere/else/first"
SEQUENCES = {"heldout/0081_room_1001": 0.15, "heldout/0095_domain_c_1051": 0.45}
UNSEEN = {
    "heldout/0001_yard_3001": 0.31, "heldout/0005_yard_3005": 0.52, "heldout/0006_room_3010": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return runs with untrained weights, as a training elsewhere would leave them."""
    folder = tmp_path_factory.mktemp("runs")
    digests: dict[str, str] = {}
    for run, name in (
        ("frames", "micro_frames"), ("micro_wider", "micro"), ("distilled", "micro")
    ):  # fmt: skip
        loaded = untrained(name, seed=len(digests))
        settings: dict[str, object] = {
            "weights": f"untrained:{name}", "clips": f"{TRAINED_IN}/clips", "seed": 4, "batch": 5,
            "unroll": 8, "precision": "bfloat16",
        }  # fmt: skip
        teachers = {}
        if run == "distilled":
            teacher = f"{TRAINED_IN}/frames/last.safetensors"
            settings["teachers"], teachers[teacher] = teacher, digests["frames"]
        (folder / run).mkdir()
        digests[run] = save_checkpoint(
            folder / run / "last.safetensors",
            loaded.network,
            Meaning(
                event_encoder=loaded.meaning.event_encoder, orientation="depth", scale="metric"
            ),
            extra={
                "settings": json.dumps(settings),
                "teachers": json.dumps(teachers),
                "step": "600",
                **({"encoder_from": digests["frames"]} if run != "frames" else {}),
            },
        )
    return folder


def made_up(sequences: dict[str, float], start: float) -> dict[str, Any]:
    """Return contenders with scores that count up from a start, contender by contender."""
    columns = [f"{p}{a}_{m}" for p in ("", "events_") for a in ("aligned", "metric")
               for m in ("abs_rel", "delta_1", "rmse")]  # fmt: skip
    contenders = {}
    names = ["micro", "micro_reset", "micro_memoryless", "micro_distilled", "micro_frames",
             "micro_first"]  # fmt: skip
    for index, name in enumerate([*names, "training_mean", "best_constant"]):
        scores = {column: start + index + number / 100 for number, column in enumerate(columns)}
        contenders[name] = {
            "scores": {**scores, "aligned_positive_scale": 0.998},
            "sequences": {
                sequence: {**scores, "aligned_abs_rel": value}
                for sequence, value in sequences.items()
            },
        }
    return contenders


def run_of(run: str, runs: Path) -> dict[str, Any]:
    """Return what bench_first_weights says of a run, with made-up settings."""
    network = "micro_frames" if run == "frames" else "micro"
    encoder = None if run == "frames" else digest_of(runs / "frames" / "last.safetensors")
    return {
        "run": run, "clips": "clips_wider" if run.endswith("wider") else "clips", "steps": 1800,
        "seed": 4, "batch": 5, "unroll": 8, "precision": "bfloat16", "updates_min": 41.4,
        "weights": f"untrained:{network}", "encoder_from": encoder, "sha256": "ab" * 32,
    }  # fmt: skip


def results_of(runs: Path) -> dict[str, Any]:
    """Return what bench_first_weights writes, with made-up scores."""
    contenders = made_up(SEQUENCES, 0.0)
    for item in SHIPPED:
        digest = digest_of(runs / item.run / "last.safetensors")
        contenders[item.name] |= {
            "file": f"{item.run}/last.safetensors", "sha256": digest, "step": 600,
            "runs": [run_of(item.run, runs)],
        }  # fmt: skip
    contenders["micro"]["runs"].insert(0, {**run_of("micro", runs), "updates_min": 61.0})
    clips: dict[str, Any] = {
        "digest": "c1" * 32, "height": 130, "width": 173, "train_sequences": 80,
        "train_windows": 23920, "heldout_sequences": 16, "heldout_windows": 4784,
    }  # fmt: skip
    goals = [
        {"goal": "Abs Rel <= 0.20", "pixels": "all", "value": 0.19, "met": True},
        {"goal": "δ1 >= 0.70", "pixels": "events", "value": 0.6543, "met": False},
    ]
    unseen = {
        "clips": {"digest": "d2" * 32, "heldout_sequences": 21, "heldout_windows": 5019},
        "contenders": made_up(UNSEEN, 10.0),
        "worlds": dict(zip(UNSEEN, ("night, walk", "day, car, fog 60 m", ""), strict=True)),
        "goals": [{"goal": "Abs Rel <= 0.20", "pixels": "all", "value": 0.2468, "met": False}],
    }
    results = {
        "windows_per_sequence": "all",
        "clips": clips,
        "clips_wider": {**clips, "digest": "e3" * 32, "train_sequences": 170},
        "contenders": contenders,
        "worlds": dict.fromkeys(SEQUENCES, "dusk"),
        "goals": goals,
        "unseen": unseen,
    }
    return {"results": results}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a models folder with the present manifest."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "manifest.yaml").write_bytes((ROOT / "models" / "manifest.yaml").read_bytes())
    return folder


def ship(runs: Path, models: Path) -> dict[str, bytes]:
    """Run the command; return the files that it leaves."""
    results = models.parent / "results.json"
    results.write_text(json.dumps(results_of(runs)))
    assert ship_weights.main([str(runs), "--models", str(models), "--results", str(results)]) == 0
    return {path.name: path.read_bytes() for path in models.iterdir()}


def test_runs_become_files_cards_and_entries(runs: Path, models: Path) -> None:
    """One command leaves loadable half precision, matching entries, and the same bytes again."""
    before = read_manifest(models).entries
    files = ship(runs, models)
    assert ship(runs, models) == files
    manifest = read_manifest(models)
    shipped = {entry.name: entry for entry in manifest.entries if entry.shipped}
    assert set(shipped) == {item.name for item in SHIPPED}
    kept = [entry for entry in before if not entry.shipped]
    assert [entry for entry in manifest.entries if not entry.shipped] == kept
    for item in SHIPPED:
        path = models / f"{item.name}.safetensors"
        run = load_checkpoint(runs / item.run / "last.safetensors")
        entry, loaded = shipped[item.name], load_checkpoint(path)
        assert (entry.sha256, entry.size_bytes) == (digest_of(path), len(files[path.name]))
        assert entry.meaning == loaded.meaning == run.meaning
        assert (entry.input_height, entry.input_width) == (126, 168)
        (note,) = loaded.notes
        assert "simulated worlds only" in note and f"models/{item.name}.md" in note
        for key, value in run.network.state_dict().items():
            stored = loaded.network.state_dict()[key]
            assert stored.dtype == torch.float32
            assert torch.equal(stored, value.half().float()), key
        assert TRAINED_IN not in json.dumps(read_provenance(path))
        assert "output/first_weights/clips" in read_provenance(path)["settings"]


def test_cards_say_what_was_measured(runs: Path, models: Path) -> None:
    """A card has its own scores and those to beat, the worlds worst first, data, time, teacher."""
    files = ship(runs, models)
    card = files["micro.md"].decode()
    for text in (
        f"| sha256 | `{digest_of(models / 'micro.safetensors')}` |",
        "| **`micro`** | 0.000 | 0.010 | 0.020 | 0.998 | 0.030 | 0.040 | 0.050 |",
        "| **`micro`** | 0.060 | 0.070 | 0.080 | - | 0.090 | 0.100 | 0.110 |",
        "| `micro`, state cleared before every window | 1.000 |",
        "| `micro` after the first of its two runs | 5.000 |",
        "| mean depth map of both sets of training worlds | 6.000 |",
        "| best constant of each frame, which knows its truth | 7.000 |",
        "* Seeds of train: room 100 to 119, corridor 200 to 219, street 300 to 319, warehouse",
        "* Seeds of train: room 100 to 139, corridor 200 to 229, street 300 to 349, warehouse",
        "those of update 600.",
        f"began as that of `{digest_of(runs / 'frames' / 'last.safetensors')}` (`micro_frames`",
        "metres are a guess",
        "zero_shot_micro.png",
        "Apache-2.0",
    ):
        assert text in card, text
    line = " ".join(card.split())
    for text in (
        "`config/train/clips_first_weights.yaml`: 80 worlds to train on (23920 windows of 50 ms).",
        "clips_wider_worlds.yaml`: 170 worlds to train on (23920 windows of 50 ms). Digest",
        f"of the clips: `{'e3' * 32}`",
        "Held out: `config/train/clips_first_weights.yaml`, 16 worlds (4784 windows).",
        "first_weights_micro.yaml`, seed 4: 1800 updates of 5 clips of 8 windows of `clips_first_",
        "in bfloat16; 61 minutes of updates by the clock, where 60 was the aim. It ended with `ab",
        "first_weights_micro_wider.yaml`, seed 4: 1800 updates of 5 clips of 8 windows of `clips_w",
        "in bfloat16; 41 minutes of updates by the clock. It ended with `abababababab`. *",
    ):
        assert text in line, text
    assert line.index("micro.yaml`, seed") < line.index("micro_wider.yaml`, seed")
    assert (
        "Missed goals: δ1 >= 0.70 over event pixels, it has 0.654. Memory helps after least "
        f"squares in 0 of {len(SEQUENCES)} worlds over all pixels, in {len(SEQUENCES)} over event "
        "pixels. Memory helps in metres in "
    ) in " ".join(card.split())
    worst = card.index("0095_domain_c_1051 dusk | 0.450")
    assert worst < card.index("0081_room_1001 dusk | 0.150")
    first, second = card.split("## On worlds that decided nothing")
    second, fails = second.split("## Where it fails")
    assert "`clips_unseen_worlds.yaml`" not in first
    for text in (
        "config/train/clips_unseen_worlds.yaml`, 21 of them\n  (5019 windows). Digest",
        f"of the clips: `{'d2' * 32}`",
        "* Seeds of heldout: yard 3000 to 3005, room 3010 to 3013, corridor 3020 to 3021, street",
    ):
        assert text in first, text
    for text in (
        "| **`micro`** | 10.000 | 10.010 | 10.020 | 0.998 | 10.030 | 10.040 | 10.050 |",
        "| **`micro`** | 10.060 | 10.070 | 10.080 | - | 10.090 | 10.100 | 10.110 |",
        "| best constant of each frame, which knows its truth | 17.000 |",
        "Missed goals: Abs Rel <= 0.20 over all pixels, it has 0.247. Memory helps after least",
        "| 0005_yard_3005 day, car, fog 60 m | 0.520 |",
        "first_weights_unseen.png",
    ):
        assert text in second, text
    rest = second[second.index("0005_yard_3005") :]
    assert "0001_yard_3001 night, walk | 0.310" in rest and "room_3010" in rest
    assert "yard_3005" not in fails
    assert "Teacher" not in card
    assert "(`micro_frames`, before it was packed)" in files["micro_distilled.md"].decode()
    assert "zero_shot" not in files["micro_frames.md"].decode()


def test_scores_of_other_weights_are_not_taken(runs: Path, tmp_path: Path) -> None:
    """Results count for exactly the checkpoints that were scored."""
    path = tmp_path / "results.json"
    digests = {digest_of(runs / item.run / "last.safetensors"): item.name for item in SHIPPED}
    assert ship_weights._results(path, digests) == (None, "there is no results.json")
    document = results_of(runs)
    path.write_text(json.dumps(document))
    assert ship_weights._results(path, digests) == (document["results"], "")
    document["results"]["windows_per_sequence"] = 12
    path.write_text(json.dumps(document))
    assert "some windows" in ship_weights._results(path, digests)[1]
    document["results"]["windows_per_sequence"] = "all"
    unseen = document["results"].pop("unseen")
    path.write_text(json.dumps(document))
    without = "results.json is without the worlds that decided nothing"
    assert ship_weights._results(path, digests) == (None, without)
    document["results"]["unseen"] = unseen
    document["results"]["contenders"]["micro_frames"]["sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    assert ship_weights._results(path, digests) == (None, "results.json is of other micro_frames")


def test_places_of_one_machine_are_refused() -> None:
    """Paths below the training folder get its documented name; any other place is an error."""
    settings = json.dumps({"clips": "/mnt/a/clips", "teachers": "/mnt/a/frames/x:0.5,/mnt/a/y"})
    assert json.loads(ship_weights.without_places({"settings": settings})["settings"]) == {
        "clips": "output/first_weights/clips",
        "teachers": "output/first_weights/frames/x:0.5,output/first_weights/y",
    }
    relative = json.dumps({"clips": "output/first_weights/clips", "ratio": "1/2", "rate": 1e-3})
    assert ship_weights.without_places({"settings": relative}) == {"settings": relative}
    with pytest.raises(WeightsError, match="names /data/x, a place of one machine"):
        ship_weights.without_places({"settings": settings, "teachers": '{"/data/x": "ab"}'})


def test_an_entry_is_replaced_where_it_stands() -> None:
    """Shipping again changes the entry of that name alone, comments and order stay."""
    text = "# head\nmodels:\n  - name: micro\n    file: a\n  - name: micro_frames\n    file: b\n"
    changed = ship_weights.with_entry(text, "micro", "  - name: micro\n    file: c\n")
    assert changed == text.replace("file: a", "file: c")
    added = ship_weights.with_entry(text, "new", "  - name: new\n    file: d\n")
    assert [row["name"] for row in yaml.safe_load(added)["models"]] == [
        "micro",
        "micro_frames",
        "new",
    ]


def test_shipped_files_are_whole_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the size and digest of its entry, a card that names it, and loads by its name."""
    # A file of the same name among the downloads is another version's.
    monkeypatch.setenv("DAE_ROS_MODELS", str(tmp_path))
    shipped = [entry for entry in read_manifest().entries if entry.shipped]
    assert {entry.name for entry in shipped} == {item.name for item in SHIPPED}
    total = 0
    for entry in shipped:
        path = ROOT / "models" / entry.file
        total += path.stat().st_size
        assert (path.stat().st_size, digest_of(path)) == (entry.size_bytes, entry.sha256)
        assert f"`{entry.sha256}`" in (ROOT / "models" / f"{entry.name}.md").read_text("utf-8")
        assert entry.licence == "Apache-2.0"
        (tmp_path / entry.file).write_bytes(b"of another version")
        loaded = load_weights(entry.name)
        assert loaded.meaning == entry.meaning
        assert loaded.notes and "simulated worlds only" in loaded.notes[0]
        weights = loaded.network.state_dict().values()
        assert {(weight.dtype, weight.device.type) for weight in weights} == {
            (torch.float32, "cpu")
        }
        assert ship_weights.without_places(read_provenance(path))
    assert total < ship_weights.LARGEST_MB * 1e6
    assert {path.name for path in (ROOT / "models").glob("*.safetensors")} == {
        entry.file for entry in shipped
    }


def test_a_card_counts_the_worlds_where_a_constant_is_better() -> None:
    """In metres, against each frame's own best constant, set by set."""

    def scored(*pairs: tuple[float, float]) -> dict[str, object]:
        own = {str(i): {"metric_abs_rel": metric} for i, (metric, _) in enumerate(pairs)}
        best = {str(i): {"aligned_abs_rel": best} for i, (_, best) in enumerate(pairs)}
        return {"contenders": {"micro": {"sequences": own}, "best_constant": {"sequences": best}}}

    said = meaning(SHIPPED[0], scored((0.2, 0.3), (0.4, 0.3)), scored((0.5, 0.3)))
    assert "the truth, in 1 of 2 held-out worlds and in 1 of 1 that decided" in " ".join(
        said.split()
    )
