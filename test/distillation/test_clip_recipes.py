"""Recipes of clips: what they may say, and what is refused before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from dae_ros.bags.messages import write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.cli.main import main
from dae_ros.distillation.clip_build import build_clips
from dae_ros.distillation.clip_recipe import read_recipe
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError
from dae_ros.installation import share_folder
from test.reference.clip_recipes import RECIPE, write_recipe


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("seeds: [2, 2]", "seeds: [2, 2]\n    wrong: 1"), "has no"),
        (("scene: corridor", "scene: room"), "is in train and again in heldout"),
        (("seeds: [1, 2]", "seeds: [2, 1]"), r"\[first, last\]"),
        (("{uniform: [0.15, 0.4]}", "{normal: [0, 1]}"), "log_uniform"),
        (("{uniform: [0.15, 0.4]}", "9.0"), "at most 2"),
        (("event_encoder: tencode", "event_encoder: picture"), "one of tencode"),
        (("duration_s: 0.15", "duration_s: 0.0"), "duration_s"),
        (("- world: {scene: room}\n    seeds: [1, 2]", "- recordings: ['*.bag']"), "matches"),
        (("- world: {scene: room}\n    seeds: [1, 2]", "- dataset: kitti"), "no data set"),
        (("- world: {scene: room}\n    seeds: [1, 2]", "- dataset: [dsec]"), "no data set"),
        (("event_encoder: tencode", "window_s: abc"), "window_s must be a number"),
        (("event_encoder: tencode", "window_s: 0"), "window_s must be a number"),
        (("event_encoder: tencode", "1: 2"), "has no"),
        (
            (RECIPE[RECIPE.index("  height") : RECIPE.index("train")], "  [3]\n"),
            "'every_world' must be",
        ),
        (("- world: {scene: room}", "- world:"), "'world' must be a mapping"),
        (("{scene: room}", "{scene: room, on: 1}"), "'world' .* key True.* quote"),
        (("contrast_threshold:", "off: 1\n  contrast_threshold:"), "'every_world' .* key False"),
        (("{scene: room}", "{preset: [a]}"), r"no preset '\['a'\]'; known are"),
        (
            ("- world: {scene: room}\n    seeds: [1, 2]", "- recordings: ['a**b']"),
            "'a\\*\\*b' is no",
        ),
        (("- world: {scene: room}\n    seeds: [1, 2]", "- recordings: ['']"), "'recordings' must"),
        (("{uniform: [0.15, 0.4]}", "{choice: []}"), "log_uniform"),
        (("{uniform: [0.15, 0.4]}", "{uniform: [a, b]}"), "log_uniform"),
        (("{uniform: [0.15, 0.4]}", "{log_uniform: [0, 1]}"), "log_uniform"),
        (("- world: {scene: room}\n    seeds: [1, 2]", "- recordings:"), "'recordings' must be"),
        (("- world: {scene: room}\n    seeds: [1, 2]", "- recordings: a"), "'recordings' must be"),
        (
            ("- world: {scene: room}\n    seeds: [1, 2]", "- recordings: [3]"),
            "'recordings' must be",
        ),
        (
            ("- world: {scene: room}\n    seeds: [1, 2]", "- recordings: [[]]"),
            "'recordings' must be",
        ),
        (
            (
                "- world: {scene: room}\n    seeds: [1, 2]",
                "- recordings: [['a']]\n    rows: [x, y]",
            ),
            "'rows' must be",
        ),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    """Unknown keys, one world in both splits and values out of range are said by name."""
    text = RECIPE.replace("seeds: [1000, 1000]", "seeds: [2, 2]").replace(*change)
    assert text != RECIPE
    with pytest.raises(ConfigurationError, match=sentence):
        read_recipe(write_recipe(tmp_path, text), tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"train: [", b"a: 2020-13-40"])
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    """A picture, a bag or half a recipe in its place: the sentence names the file."""
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"recipe\.yaml cannot be read .* a text in YAML"):
        read_recipe(tmp_path / "recipe.yaml")


def test_true_depth_is_read_with_the_events_that_it_lies_beside(tmp_path: Path) -> None:
    """A pattern pairs NAME_data with NAME_gt as evaluation does; ends of frames need no depth."""
    for name in ("x_data.bag", "x_gt.bag", "y_data.bag", "z_gt.bag"):
        (tmp_path / name).touch()

    def groups(ends: str) -> list[list[str]]:
        text = f"train: [{{recordings: ['*.bag'], ends: {ends}}}]"
        sources = read_recipe(write_recipe(tmp_path, text), tmp_path).sources.values()
        return [source.facts()["recording"] for source in sources]

    assert groups("depth") == [["x_data.bag", "x_gt.bag"], ["y_data.bag"], ["z_gt.bag"]]
    assert groups("frame") == [["x_data.bag"], ["x_gt.bag"], ["y_data.bag"], ["z_gt.bag"]]


@pytest.mark.parametrize(
    ("train", "heldout"),
    [
        ("[drive]", "[drive/drive_0.mcap]"),
        ("['drive/*.mcap']", "[drive]"),
        ("[drive]", "[linked]"),
        ("['x_*.bag']", "[[x_gt.bag, x_data.bag]]"),
        ("['x_*.bag']", "[[other_data.bag, x_gt.bag]]"),
        ("['x_*.bag']", "[[drive/../x_data.bag]]"),
        ("[[drive, drive/drive_0.mcap]]", "[]"),
    ],
)
def test_one_recording_by_two_names_is_in_one_split(
    tmp_path: Path, train: str, heldout: str
) -> None:
    """Whatever its first path and however that is written: files decide, all of them."""
    for folder in ("drive", "linked"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metadata.yaml").touch()
    for name in ("drive/drive_0.mcap", "x_data.bag", "x_gt.bag", "other_data.bag"):
        (tmp_path / name).touch()
    (tmp_path / "linked" / "linked_0.mcap").symlink_to(tmp_path / "drive" / "drive_0.mcap")
    text = f"train: [{{recordings: {train}}}]\nheldout: [{{recordings: {heldout}}}]"
    with pytest.raises(ConfigurationError, match="is in train and again in"):
        read_recipe(write_recipe(tmp_path, text), tmp_path)


def test_a_recipe_says_what_stamps_of_frames_mark(tmp_path: Path) -> None:
    """Clips of frames stamped at the start are those of the same frames stamped in the middle."""
    bag = ["--height", "40", "--width", "56", "--duration", "0.4", "--scene", "room"]
    assert main(["simulate", "--out", str(tmp_path / "a"), "--exposure-s", "0.02", *bag]) == 0
    with open_recording(tmp_path / "a") as recording, BagWriter(tmp_path / "b") as other:
        for topic, info in recording.topics.items():
            other.add_topic(topic, info.type)
        for message in recording.messages(list(recording.topics)):
            data = bytes(message.data)
            if message.topic == "/image_raw":
                frame = recording.read_frame(message)
                data = write_image(frame.image, frame.stamp_ns - 10_000_000, frame.frame_id)
            other.write(message.topic, recording.topics[message.topic].type, message.time_ns, data)
    marks = ", image_stamp: start, exposure_s: 0.02"
    for ends in ("frame", "depth"):
        found = []
        for name, more in (("a", ""), ("b", marks)):
            text = f"train: [{{recordings: [{name}], ends: {ends}{more}}}]"
            recipe = read_recipe(write_recipe(tmp_path, text), tmp_path)
            store = build_clips(recipe, tmp_path / f"{ends}_{name}").store
            assert store is not None
            found.append(store.sequences[0])
        np.testing.assert_array_equal(found[0].times, found[1].times)
        np.testing.assert_array_equal(found[0].windows, found[1].windows)
        assert found[1].has_frame(0, len(found[1])).any()


def test_recipes_without_stamps_of_frames_are_as_they_were(tmp_path: Path) -> None:
    """What a finished store was made of is still that; the default may be written out."""
    (tmp_path / "a.bag").write_bytes(b"12345")

    def facts(more: str) -> dict[str, object]:
        text = f"train: [{{recordings: [a.bag]{more}}}]"
        (source,) = read_recipe(write_recipe(tmp_path, text), tmp_path).sources.values()
        return source.facts()

    known = {
        "recording": ["a.bag"], "bytes": [5], "ends": "depth", "events": None, "label": None,
        "rows": None,
    }  # fmt: skip
    assert facts("") == facts(", image_stamp: mid, exposure_s: 0.02") == known
    assert facts(", image_stamp: end, exposure_s: 0.02") == {
        **known, "image_stamp": "end", "exposure_s": 0.02,
    }  # fmt: skip
    for more, sentence in (
        (", image_stamp: middle", "'image_stamp' must be one of mid, start, end, not 'middle'"),
        (", image_stamp: [mid]", "'image_stamp' must be"),
        (", exposure_s: 20", "'exposure_s' must be at most 1, not 20"),
        (", exposure_s: x", "'exposure_s' must be"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            facts(more)


def test_a_recipe_takes_single_sequences_of_a_data_set(tmp_path: Path) -> None:
    """`sequences` names those of the split that are wanted; a text is no list."""
    for kind in ("data", "gt"):
        (tmp_path / f"outdoor_night1_{kind}.bag").touch()
    entry = "{dataset: mvsec_recordings, split: test, sequences: [outdoor_night1]}"
    found = read_recipe(write_recipe(tmp_path, f"heldout: [{entry}]"), tmp_path).sources
    assert list(found) == ["heldout/0000_outdoor_night1_data"]
    text = f"heldout: [{entry.replace('[', '').replace(']', '')}]"
    with pytest.raises(ConfigurationError, match="'sequences' must be a list"):
        read_recipe(write_recipe(tmp_path, text), tmp_path)


def test_a_recipe_may_be_named_as_a_preset_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names in config/train are found from anywhere; others are answered with all there are."""
    shipped = share_folder() / "config" / "train" / "clips_anchors.yaml"
    assert read_recipe("clips_anchors") == read_recipe(shipped)
    assert main(["clips", "clips_mvsec", "--root", str(tmp_path), "--out", "x"]) == 1
    assert "lacks 2 of the 2 sequences" in capsys.readouterr().err
    for stranger in ("clips_nothing", "mvsec_supervised"):
        with pytest.raises(ConfigurationError, match=f"no recipe {stranger}; .*clips_anchors"):
            read_recipe(stranger)


def test_held_out_worlds_alone_make_a_store(
    tmp_path: Path, settings: Callable[..., TrainingParameters], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `train` there is a store to score on, which training refuses with a sentence."""
    text = RECIPE[: RECIPE.index("train:")] + RECIPE[RECIPE.index("heldout:") :]
    store = tmp_path / "store"
    assert main(["clips", str(write_recipe(tmp_path, text)), "--out", str(store)]) == 0
    assert "train: 0 windows in 0 sequences" in capsys.readouterr().out
    assert [item.name for item in open_clip_store(store).sequences] == [
        "heldout/0000_corridor_1000"
    ]
    with pytest.raises(ConfigurationError, match="no clips to train on: all of its 1 sequences"):
        train(settings(clips=str(store)), tmp_path / "run")
    nothing = write_recipe(tmp_path, text[: text.index("heldout:")])
    with pytest.raises(ConfigurationError, match="give train or heldout an entry"):
        read_recipe(nothing)


def test_worlds_that_decide_nothing_are_in_no_training() -> None:
    """No recipe trains on a yard or on a seed from 1000 on; unseen worlds have seeds of their own,
    and all of them are held out.
    """
    folder = Path(__file__).resolve().parents[2] / "config" / "train"
    seeds: dict[str, dict[str, list[int]]] = {}
    for path in folder.glob("clips_*.yaml"):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        for split in ("train", "heldout"):
            for entry in recipe.get(split, []):
                if "world" in entry:
                    first, last = entry["seeds"]
                    found = seeds.setdefault(path.name, {}).setdefault(split, [])
                    found += range(first, last + 1)
                    assert split == "heldout" or entry["world"].get("scene") != "yard", path
    for splits in seeds.values():
        assert max(splits.get("train", [0])) < 1000
    unseen = seeds.pop("clips_unseen_worlds.yaml")
    assert list(unseen) == ["heldout"] and min(unseen["heldout"]) >= 3000
    assert len(set(unseen["heldout"])) == len(unseen["heldout"])
    assert all(max(splits["heldout"]) < 2000 for splits in seeds.values())
    read = read_recipe(folder / "clips_unseen_worlds.yaml")
    assert len(read.sources) == len(unseen["heldout"])
