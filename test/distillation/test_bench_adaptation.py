"""The benchmark of online adaptation: its worlds and its faults."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from benchmarks.adaptation.controls import worse
from benchmarks.adaptation.faults import (
    SHIFT_PX,
    SLOW_LABEL_S,
    TEACHER_FAULTS,
    Clock,
    Drive,
    FailingFrames,
    Fault,
)
from benchmarks.adaptation.worlds import (
    KNOWN_KINDS,
    NEW_KINDS,
    Lengths,
    known_recipe,
    linked_clips,
    recipes,
    record_world,
    replayed_recipe,
    taught_recipe,
    watched_recipe,
)
from dae_ros.bags.recording import open_recording
from dae_ros.distillation.clip_recipe import read_recipe
from dae_ros.distillation.clip_sources import RecordingSource, WorldSource
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.events.codecs import create_decoder
from dae_ros.model.untrained import untrained
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.indoors import corridor, room, warehouse
from dae_ros.simulation.scene import Builder
from dae_ros.simulation.street import street
from test.reference.moving_wedge import WedgeSource, wedge_clips

CONFIGURATION = Path(__file__).parents[2] / "config" / "train"


def test_worlds_of_a_seed_are_places_of_their_own(tmp_path: Path) -> None:
    """No seed of the simulator occurs twice, in no benchmark seed and in no training."""
    seen: set[tuple[object, object]] = set()
    lengths = Lengths(30.0, 10.0, 5.0)
    ours = (known_recipe, 90), (watched_recipe, 150), (replayed_recipe, 420)
    shared = (([recipe(lengths)], count) for recipe, count in ours)
    for contents, count in (*shared, *((recipes(seed, lengths), 4) for seed in range(6))):
        worlds = []
        for content in contents:
            path = tmp_path / "recipe.yaml"
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            (tmp_path / "drive").mkdir(exist_ok=True)
            sources = read_recipe(path, tmp_path).sources.values()
            worlds += [source for source in sources if isinstance(source, WorldSource)]
            assert all(isinstance(s, (WorldSource, RecordingSource)) for s in sources)
        assert len(worlds) == count
        for world in worlds:
            place = (world.parameters["scene"], world.parameters["seed"])
            assert place not in seen and int(str(place[1])) >= 2000
            seen.add(place)
            noisy = float(str(world.parameters["noise_hz"])) > 2.0
            assert noisy == (place[0] in NEW_KINDS)


def test_b_lies_outside_of_what_the_student_was_taught(tmp_path: Path) -> None:
    """Another threshold, noise, air, motion and material than any room or corridor of training."""
    training = [yaml.safe_load(p.read_text("utf-8")) for p in CONFIGURATION.glob("clips_*.yaml")]
    known = [
        {**content["every_world"], **entry["world"]}
        for content in training
        for entry in content.get("train", [])
        if entry.get("world", {}).get("scene") in KNOWN_KINDS
    ]
    assert {world["scene"] for world in known} == set(KNOWN_KINDS)
    path = tmp_path / "recipe.yaml"
    for seed in range(2):
        path.write_text(yaml.safe_dump(recipes(seed, Lengths(30.0, 10.0, 5.0))[0]), "utf-8")
        drive = next(iter(read_recipe(path).sources.values()))
        assert isinstance(drive, WorldSource)
        for world in known:
            for name in (
                "contrast_threshold", "off_ratio", "threshold_spread", "noise_hz", "leak_hz",
            ):  # fmt: skip
                (ends,) = world[name].values()
                assert float(str(drive.parameters[name])) > 1.1 * max(ends), name
            assert drive.parameters["visibility_m"] and "visibility_m" not in world
            motions = world.get("motion", "auto")
            assert "car" not in (motions["choice"] if isinstance(motions, dict) else [motions])
        built = {"street": lambda b: street(b, None), "warehouse": warehouse}
        new = materials(built[str(drive.parameters["scene"])])
        old = materials(room) + materials(corridor)
        assert sum(area for name, area in new.items() if name not in old) > 0.5 * new.total()


def materials(build: Callable[[Builder], None]) -> Counter[str]:
    """Return of which material how much of a scene's surface is, m^2."""
    builder, found = Builder(2000), Counter[str]()
    build(builder)
    for face in builder.rectangles:
        found[face.material] += float(np.linalg.norm(face.right) * np.linalg.norm(face.down))
    return found


def test_anchors_show_what_the_student_knew(tmp_path: Path) -> None:
    """Only rooms and corridors are taught, in both halves, as they are for the first weights."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(taught_recipe()), encoding="utf-8")
    taught = read_recipe(path).sources
    every = read_recipe(CONFIGURATION / "clips_first_weights.yaml").sources.values()
    of_a = {s.places for s in every if s.label.startswith(KNOWN_KINDS)}
    assert {source.label.partition("_")[0] for source in taught.values()} == set(KNOWN_KINDS)
    assert {name.partition("/")[0] for name in taught} == {"train", "heldout"}
    assert len(taught) == 76 and {source.places for source in taught.values()} <= of_a


def test_stores_are_joined_by_links(tmp_path: Path) -> None:
    """Every sequence of each store, in both halves; one that was moved is linked anew."""
    for name, train, heldout in (("one", [1, 2], [3]), ("two", [], [5, 6])):
        sources = ([WedgeSource(seed, windows=2) for seed in seeds] for seeds in (train, heldout))
        wedge_clips(tmp_path / name, *sources)
    both = linked_clips([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    both.verify()
    assert len(both.split("train")) == 2 and len(both.split("heldout")) == 3
    (tmp_path / "one").rename(tmp_path / "moved")
    again = linked_clips([tmp_path / "moved", tmp_path / "two"], tmp_path / "both")
    again.verify()
    assert again.digest == both.digest
    with pytest.raises(FileNotFoundError, match="one is no finished store"):
        linked_clips([tmp_path / "one"], tmp_path / "other")


@pytest.mark.parametrize("name", TEACHER_FAULTS)
def test_a_teacher_fails_only_while_the_fault_goes_on(name: str) -> None:
    """Before and after it says what its network says; meanwhile something else, or late."""

    def frames_as_depth(frames: Tensor) -> Tensor:
        return 1.0 + frames.float()

    fault = Fault(name, 10.0, 20.0, Clock(), seed=3)
    teacher = FailingFrames(frames_as_depth, fault)
    images = torch.randint(0, 255, (2, 26, 35), generator=torch.Generator().manual_seed(1)).byte()
    said = {}
    for second in (5.0, 12.0, 15.0, 20.0):
        fault.clock.now_s = second
        said[second] = teacher(images.roll(int(second), dims=2))
        assert torch.isfinite(said[second]).all() and (said[second] > 0).all()
        assert fault.label_s() == (SLOW_LABEL_S if name == "slow" and 10 <= second < 20 else 0.0)
    for second in (5.0, 20.0):
        assert torch.equal(said[second], frames_as_depth(images.roll(int(second), dims=2)))
    healthy = frames_as_depth(images.roll(15, dims=2))
    assert torch.equal(said[15.0], healthy) == (name == "slow")
    if name == "frozen":
        assert torch.equal(said[12.0], said[15.0])
    factors = {"doubled": (2.0, 2.0), "drifting": (2.0 ** (2 / 60), 2.0 ** (5 / 60))}
    for second, factor in zip((12.0, 15.0), factors.get(name, ()), strict=False):
        assert torch.allclose(said[second], factor * frames_as_depth(images.roll(int(second), 2)))
    if name == "inverted":
        assert healthy[0].flatten()[said[15.0][0].argmax()] == healthy[0].min()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "drive"
    parameters = SimulatorParameters(
        scene="room", height=32, width=48, duration_s=0.4, depth_hz=10.0, seed=2000
    )
    record_world(parameters, path, lambda words: None)
    return path


def seen(
    path: Path, name: str, begin_s: float, end_s: float, length_s: float | None = None,
    start_s: float = 0.0,
) -> Any:  # fmt: skip
    """Return stamps and images of the frames, and the events, of a drive with a fault."""
    fault = Fault(name, begin_s, end_s, Clock(), seed=1)
    frames, events, decoder = [], [], None
    with open_recording(path) as recording:
        drive = Drive(recording, fault, length_s, start_s=start_s)
        for message in drive.messages():
            if message.topic == "/image_raw":
                frame = drive.read_frame(message)
                frames.append((frame.stamp_ns, frame.image))
            elif message.topic == "/events":
                packet = drive.read_packet(message)
                decoder = decoder or create_decoder(packet.encoding, packet.width, packet.height)
                events.append(decoder.decode(packet.payload, packet.time_base_ns))
    return frames, np.concatenate([part.t for part in events]) if events else np.empty(0)


def test_faults_of_the_cameras_change_what_they_say(recording: Path) -> None:
    """Each changes its own part of the drive, while it goes on, and nothing else."""
    frames, times = seen(recording, "none", 0.0, 9.0)
    assert len(frames) >= 7 and len(times) > 100
    for name in ("black_frames", "blinded"):
        dark, _ = seen(recording, name, 0.18, 9.0)
        assert [bool(image.any()) for _, image in dark] == [
            stamp - frames[0][0] < 0.13e9 for stamp, _ in frames
        ]
    moved, same = seen(recording, "shifted", 0.0, 9.0)
    assert np.array_equal(moved[3][1][:, SHIFT_PX:], frames[3][1][:, :-SHIFT_PX])
    assert np.array_equal(same, times)
    late, _ = seen(recording, "late", 0.0, 9.0)
    assert {b - a for (a, _), (b, _) in zip(frames, late, strict=True)} == {60_000_000}
    _, none = seen(recording, "no_events", 0.0, 9.0)
    assert len(none) == 0
    short, _ = seen(recording, "none", 0.0, 9.0, length_s=0.2)
    assert len(short) == sum(stamp - frames[0][0] < 0.15e9 for stamp, _ in frames)


def test_a_part_of_a_drive_is_what_the_whole_shows_then(recording: Path) -> None:
    """The fault's seconds are those of the part, and every frame of the rest is there."""
    frames, _ = seen(recording, "none", 0.0, 9.0)
    part, _ = seen(recording, "black_frames", 0.0, 0.1, start_s=0.2)
    stamps = [stamp for stamp, _ in part]
    assert stamps == [stamp for stamp, _ in frames][-len(part) :] and 3 <= len(part) < len(frames)
    dark = [not image.any() for _, image in part]
    assert dark == sorted(dark, reverse=True) and dark[0] and not dark[-1]


def test_a_flood_adds_events_and_leaves_the_others(recording: Path) -> None:
    """Outside of the fault the same times come out; inside many more, still in order."""
    _, times = seen(recording, "none", 0.0, 9.0)
    _, flooded = seen(recording, "flood", 0.2, 0.3)
    begin = times[0]
    quiet = times[times < begin + 150_000_000]
    assert np.array_equal(flooded[: len(quiet)], quiet)
    assert len(flooded) - len(times) == pytest.approx(60 * 32 * 48 * 0.1, rel=0.2)
    assert (np.diff(flooded) >= 0).all()


def test_worse_weights_are_worse_as_their_names_say() -> None:
    """Depth is scaled by its factor; backwards is the other way; nothing else is touched."""
    loaded = untrained("micro")
    original = ClipNetwork(loaded.network.eval().requires_grad_(False), loaded.meaning)
    moved = {
        name: tensor + 0.5 if tensor.is_floating_point() else tensor
        for name, tensor in original.network.state_dict().items()
    }
    published = original.with_weights(moved)
    first, own = original.network.state_dict(), published.network.state_dict()
    found = worse("scaled", 2.0, published, original, torch.Generator())
    different = [name for name in own if not torch.equal(own[name], found[name])]
    assert len(different) == 1 and different[0].endswith("output_conv2.2.bias")
    assert torch.allclose(found[different[0]] - own[different[0]], torch.tensor(math.log(2.0)))
    back = worse("backwards", 1.0, published, original, torch.Generator())
    name = different[0]
    assert torch.allclose(back[name], 2 * first[name] - own[name])
    for kind in ("noise", "unlearned"):
        drawn = worse(kind, 0.1, published, original, torch.Generator().manual_seed(0))
        assert not torch.equal(drawn[name], own[name])
