"""The benchmark of online adaptation: its worlds, its faults, and the arithmetic of its claims."""

from __future__ import annotations

import json
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

from benchmarks.adaptation_controls import worse
from benchmarks.adaptation_faults import (
    SHIFT_PX,
    SLOW_LABEL_S,
    TEACHER_FAULTS,
    Clock,
    Drive,
    FailingFrames,
    Fault,
)
from benchmarks.adaptation_report import markdown, safety_plot, shift_plot
from benchmarks.adaptation_safety import summary, verdict_on
from benchmarks.adaptation_verdicts import (
    FEWEST_SEEDS,
    gain_share,
    live_at,
    recovery_s,
    seconds_to_share,
    shift_claims,
    summary_of_seed,
    timeline_of,
    worst_excess,
)
from benchmarks.adaptation_wall import wall_plot
from benchmarks.adaptation_worlds import (
    KNOWN_KINDS,
    NEW_KINDS,
    Lengths,
    clips_of_a,
    known_recipe,
    recipes,
    record_world,
    watched_recipe,
)
from benchmarks.bench_adaptation import _plain
from dae_ros.bags.recording import open_recording
from dae_ros.distillation.clip_recipe import read_recipe
from dae_ros.distillation.clip_sources import RecordingSource, WorldSource
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.errors import ConfigurationError
from dae_ros.events.codecs import create_decoder
from dae_ros.model.untrained import untrained
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.indoors import corridor, room, warehouse
from dae_ros.simulation.scene import Builder
from dae_ros.simulation.street import street
from test.reference.moving_wedge import WedgeSource, wedge_clips

CONFIGURATION = Path(__file__).parents[2] / "config" / "train"
# Depth had 1, then 2, took 2 back, and later had 3.
SWAPS = [
    {"at_s": 70.0, "version": 2, "live_version": 2, "outcome": "swapped", "code": "replayed"},
    # What depth was started with has no number.
    {"at_s": 71.0, "version": 2, "live_version": 0, "outcome": "rolled_back", "code": "flicker"},
    {"at_s": 80.0, "version": 3, "live_version": 1, "outcome": "refused", "code": "scale_step"},
    {"at_s": 90.0, "version": 4, "live_version": 4, "outcome": "swapped", "code": "replayed"},
    {"at_s": 92.0, "version": 4, "live_version": 4, "outcome": "kept", "code": "canary"},
]
TIMELINE = [(0.0, 1), (70.0, 2), (71.0, 1), (90.0, 4)]
ERRORS = {1: 0.40, 2: 0.44, 4: 0.30}


def test_a_timeline_says_what_depth_had() -> None:
    """A version that was taken back was in use until then; one that was refused never was."""
    assert timeline_of(1, SWAPS) == TIMELINE
    assert [live_at(TIMELINE, s) for s in (0.0, 70.5, 89.9, 90.0, 500.0)] == [1, 2, 1, 4, 4]


def test_a_bad_second_is_not_forgiven() -> None:
    """The worst excess counts every version, however short, but not those of another time."""
    assert worst_excess(TIMELINE, ERRORS, 0.40) == pytest.approx(0.1)
    assert worst_excess(TIMELINE, ERRORS, 0.40, begin_s=71.0) == 0.0
    assert worst_excess(TIMELINE, ERRORS, 0.40, begin_s=95.0) == pytest.approx(-0.25)
    assert worst_excess(TIMELINE, ERRORS, 0.40, end_s=70.0) == 0.0
    assert math.isnan(worst_excess([(0.0, 1)], {1: math.nan}, 0.4))


def test_the_share_of_the_gain() -> None:
    """Half of the way to the bound is 0.5; where nothing can be gained there is no share."""
    assert gain_share(0.40, 0.30, 0.20) == pytest.approx(0.5)
    assert gain_share(0.40, 0.44, 0.20) == pytest.approx(-0.2)
    assert math.isnan(gain_share(0.40, 0.30, 0.40))
    assert seconds_to_share(TIMELINE, ERRORS, 0.40, 0.20, 0.5) == 90.0
    assert seconds_to_share(TIMELINE, ERRORS, 0.40, 0.20, 0.6) is None


def test_claims_are_of_the_worst_seed_and_of_mean_gains() -> None:
    """A claim that nothing was measured of does not hold."""
    seed = {"frozen": 0.4, "adapted": 0.3, "bound": 0.2, "worst_excess": 0.01, "forgetting": 0.0}
    better = {**seed, "adapted": 0.28}
    claims = shift_claims([*[better] * 4, {**better, "adapted": 0.3, "forgetting": 0.03}], 5)
    assert [claim.met for claim in claims] == [True, True, True, False]
    assert claims[1].value == pytest.approx(0.58) and claims[3].value == 0.03
    # Where one of them is unknown, whichever it is.
    unknown = {**seed, "worst_excess": math.nan}
    for seeds in ([*[seed] * 4, unknown], [unknown, *[seed] * 4]):
        assert not shift_claims(seeds, 5)[2].met


def test_no_claim_is_met_with_fewer_seeds_than_declared() -> None:
    """Refused ones are missing like those that are not done; fewer than five are never enough."""
    seed = {"frozen": 0.4, "adapted": 0.2, "bound": 0.2, "worst_excess": 0.0, "forgetting": 0.0}
    assert all(claim.met for claim in shift_claims([seed] * 6, 6))
    for measured, declared in ((5, 6), (1, 1), (FEWEST_SEEDS - 1, 2), (0, 5)):
        claims = shift_claims([seed] * measured, declared)
        assert not any(claim.met for claim in claims)
        assert claims[0].value == measured and claims[0].limit == max(declared, 5)


def test_recovery_is_a_label_and_a_step_after_the_fault() -> None:
    """Steps alone, on labels of before, are none."""
    samples: list[dict[str, Any]] = [
        {"at_s": 10.0, "labels": 5, "steps": 7},
        {"at_s": 20.0, "labels": 5, "steps": 9},
        {"at_s": 30.0, "labels": 6, "steps": 9},
        {"at_s": 40.0, "labels": 6, "steps": 10},
    ]
    assert recovery_s(samples, 15.0) == 25.0
    assert recovery_s(samples, 35.0) is None


def test_a_seed_is_summed_up_where_b_ends() -> None:
    """What is published in A counts for forgetting and for excess, not for the gain.

    What was given up before B was left, nobody had in A: it is told apart.
    """
    scores = {
        "elsewhere": {v: {"aligned_abs_rel": e, "metric_abs_rel": e} for v, e in ERRORS.items()},
        "known": {
            v: {"aligned_abs_rel": e, "metric_abs_rel": None}
            for v, e in {1: 0.2, 2: 0.21, 4: 0.204}.items()
        },
    }
    offline = {"aligned_abs_rel": 0.2, "metric_abs_rel": 0.2}
    found = summary_of_seed(TIMELINE, scores, offline, drive_s=85.0)
    numbers = found["numbers"]["aligned_abs_rel"]
    assert numbers["adapted"] == 0.40 and numbers["gain_share"] == 0.0
    assert numbers["forgetting"] == pytest.approx(0.02) and numbers["known_after_b"] == 0.0
    assert numbers["known_worst"] == pytest.approx(0.05)
    assert found["versions"] == 2
    assert math.isnan(found["numbers"]["metric_abs_rel"]["forgetting"])


def test_worlds_of_a_seed_are_places_of_their_own(tmp_path: Path) -> None:
    """No seed of the simulator occurs twice, in no benchmark seed and in no training."""
    seen: set[tuple[object, object]] = set()
    lengths = Lengths(30.0, 10.0, 5.0)
    shared = ([known_recipe(lengths)], 30), ([watched_recipe(lengths)], 30)
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
    """Only rooms and corridors, in both halves; a store without them is refused."""

    class Room(WedgeSource):
        @property
        def label(self) -> str:
            return f"room_{self.seed}"

    train = [Room(1, windows=2), WedgeSource(2, windows=2)]
    wedge_clips(tmp_path / "all", train, [Room(3, windows=2), WedgeSource(4, windows=2)])
    store = clips_of_a([tmp_path / "all"], tmp_path / "anchors")
    assert [s.name.partition("_")[2] for s in store.sequences] == ["room_1", "room_3"]
    store.verify()
    wedge_clips(tmp_path / "more", [], [Room(5, windows=2), Room(6, windows=2)])
    both = clips_of_a([tmp_path / "anchors", tmp_path / "more"], tmp_path / "both")
    assert [s.name.partition("_")[2] for s in both.split("heldout")] == [
        "room_3", "room_5", "room_6",
    ]  # fmt: skip
    both.verify()
    wedge_clips(tmp_path / "none", train, [WedgeSource(4, windows=2)])
    with pytest.raises(ConfigurationError, match="heldout"):
        clips_of_a([tmp_path / "none"], tmp_path / "other")


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


def test_results_become_a_table_and_pictures(tmp_path: Path) -> None:
    """Also where a seed is refused and a fault never recovered; JSON holds no NaN."""
    number = {"aligned_abs_rel": 0.4, "metric_abs_rel": 0.5, "aligned_delta_1": 0.3}
    scores = {"elsewhere": number, "known": number}
    found = summary_of_seed(
        TIMELINE,
        {part: dict.fromkeys(ERRORS, scores[part]) for part in ("elsewhere", "known")},
        number,
        85.0,
    )
    shift = {"teacher": scores, "student": scores,
             "lead": {"aligned_abs_rel": 0.05, "metric_abs_rel": None}}  # fmt: skip
    seeds = [
        {"seed": 0, "kind": "street", "shift": shift, "timeline": TIMELINE, "wall_s": 60.0,
         "work": [[70.0, 10.0], [90.0, 50.0]], "windows": 2000, "depth_s": 40.0,
         "cost": {"learned": 30.0, "judged": 20.0},
         "scores": {str(v): scores for v in ERRORS}, "offline": {**scores, "minutes": 2.0},
         **found},
        {"seed": 1, "kind": "warehouse", "shift": shift},
    ]  # fmt: skip
    run = {
        "original": 1, "begun_with": 1, "swaps": SWAPS, "seconds": 95.0,
        "cost": {"learned": 2.0}, "depth_s": 1.0,
        "samples": [
            {"at_s": 5.0, "labels": 1, "steps": 1, "state": "active",
             "counts": {"label.noisy": 1, "label.accepted": 3}},
            {"at_s": 70.0, "labels": 1, "steps": 1, "state": "active",
             "counts": {"label.noisy": 5, "label.accepted": 5, "step.accepted": 2}},
        ],
        "versions": [{"at_s": 70.0, "version": 2, "why": "published"}],
        "verdicts": [{"at_s": 70.0, "accepted": True, "refusals": []},
                     {"at_s": 74.0, "accepted": False, "refusals": [{"reason": "no_gain"}]},
                     {"at_s": 80.0, "accepted": False, "refusals": [{"reason": "worse"}]}],
    }  # fmt: skip
    fault = {"kind": "late", **summary("noisy", run, dict.fromkeys(ERRORS, scores), 60.0, 75.0)}
    assert fault["published"] == {"before": 0, "during": 1, "after": 0}
    assert fault["refused"] == {"label.noisy": 4} and not fault["harmless"]
    assert (fault["labels"], fault["proposed"], fault["accepted"]) == (2, 2, 1)
    assert fault["verdicts"] == {"no_gain": 1}
    claims = {e: [c.to_json() for c in shift_claims([found["numbers"][e]], 2)]
              for e in ("aligned_abs_rel", "metric_abs_rel")}  # fmt: skip
    results = _plain(
        {
            "student": {"kinds": ["room"]}, "steps_per_s": 2.5, "refused_seeds": [1],
            "declared_seeds": [0, 1, 2], "claims": claims,
            "lengths": {"drive_s": 85.0, "return_s": 15.0}, "seeds": seeds,
            "safety": [fault], "safety_verdict": verdict_on([fault]),
            "healthy": [{"published_s": 70.0, "seconds": 75.0}],
            "controls": {"submitted": 1, "accepted": 0, "unjudged": 0, "heldout_blocks": 6,
                         "anchors": 2, "rows": [
                             {"kind": "noise", "size": 0.1, "submitted": 1, "accepted": 0,
                              "reasons": {"worse": 1}}]},
        }
    )  # fmt: skip
    json.dumps(results, allow_nan=False)
    text = markdown(results)
    assert "| 1 | warehouse | aligned | 0.400 | 0.400 | refused" in text
    assert "Seed 1 was refused" in text and "Seed 2 is not done" in text
    assert "| late: noisy | 2, 4 | 2, 1 | no_gain 1 | 0, 1, 0 | 2 |" in text and "never" in text
    assert "Harmful: late_noisy." in text and "early_doubled" in text
    assert "| noise | 0.1 | 1 | 0" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| 0 |")}
    assert widths == {14, 8}
    assert "| 0 | 20.0 | 30, 20, 0, 0 | never | never | never | 2.2 min |" in text
    silent = {**results, "safety": [], "healthy": [{"published_s": None, "seconds": 225.0}]}
    assert "Nothing was published in 225 s without a fault: none was made" in markdown(silent)
    assert "## Faults" not in markdown({**silent, "healthy": []})
    assert wall_plot(results).shape == (440, 800, 3)
    assert shift_plot(results).shape == (4 * 440, 800, 3)
    assert safety_plot(results).shape == (2 * 440, 800, 3)
