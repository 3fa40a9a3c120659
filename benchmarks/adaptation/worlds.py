"""Worlds of the adaptation benchmark: what the student knows, and where it is deployed.

A, which the student was trained in, are rooms and corridors at walking pace or from a drone, by
day, at dusk and at night, in clear air. B are streets and warehouses from a car or a cart: facades,
asphalt and trees, or racks, cardboard and sheet metal, at other distances and speeds, in fog or
haze that A never has; and a sensor whose threshold, imbalance, spread, noise and leakage lie
outside of what any sensor of A was drawn from (a test compares them with the recipes of the
training clips). Every world of a seed is another place:

| | seeds of the simulator | is |
|---|---|---|
| drive | 2000 + k | where the student learns, a recording |
| elsewhere | 2100 + 2k and the next | other places of B to score on, clips |
| return | 2200 + k | A again, a recording |

Three sets of A are shared by all seeds of the benchmark, because one place says little: errors of
one room rise and those of the next fall with the same change of weights.

| | seeds of the simulator | is |
|---|---|---|
| known | 2300 and 2350 on, 45 of each | rooms and corridors to measure forgetting by, clips |
| watched | 2400 and 2450 on, 45 of each; rooms 2800 on, 60 | what the guard measures by, clips |
| replayed | 2600 and 2700 on, 60 of each; rooms 2900 on, 300 | what is replayed, clips |

Training sees seeds below 1100 only; its rooms and corridors are replayed as well. There are more
rooms than corridors, since some look like B: a wall of bricks that fills the image could be a
facade, and it is lost first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.adaptation.cache import keyed, write_once
from dae_ros.bags.simulated import SimulatedBag
from dae_ros.distillation.clip_build import build_clips
from dae_ros.distillation.clip_recipe import read_recipe
from dae_ros.distillation.clip_sources import WorldSource
from dae_ros.distillation.clip_store import (
    SEQUENCE_FILE,
    SPLITS,
    STORE_FILE,
    ClipStore,
    digest_of_facts,
    open_clip_store,
    read_facts,
)
from dae_ros.model.durable_files import write_durably
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.simulation import START_NS, Simulation

KNOWN_KINDS = ("room", "corridor")
NEW_KINDS = ("warehouse", "street")
HEIGHT, WIDTH = 130, 173
DRIVE, RETURN, CLIPS = "drive", "return", "clips"
KNOWN_PLACES, WATCHED_PLACES, REPLAYED_PLACES = 45, 45, 60  # of each kind
WATCHED_ROOMS, REPLAYED_ROOMS = 60, 300  # beside these

_TAUGHT = Path(__file__).parents[2] / "config" / "train" / "clips_first_weights.yaml"

_WORLDS: Mapping[str, Mapping[str, Any]] = {
    "room": {"scene": "room", "light": {"choice": ["day", "dusk"]}, "motion": "walk"},
    "corridor": {"scene": "corridor", "light": {"choice": ["day", "dusk"]}},
    # Day and dusk are in A as well; light that is scattered on its way to the camera is not. With
    # much more of it frames lose contrast and events no longer fit them, which the gate refuses.
    "warehouse": {
        "scene": "warehouse", "light": {"choice": ["day", "dusk"]}, "visibility_m": 250.0,
        "motion": "car", "speed": {"uniform": [0.8, 1.2]},
    },
    "street": {
        "scene": "street", "light": {"choice": ["day", "dusk"]}, "visibility_m": 120.0,
        "motion": "car", "speed": {"uniform": [0.6, 1.0]},
    },
}  # fmt: skip
# Of A: drawn by each world's seed from what training drew from.
_KNOWN_SENSOR: Mapping[str, Any] = {
    "contrast_threshold": {"log_uniform": [0.12, 0.4]}, "threshold_spread": 0.1,
    "noise_hz": {"log_uniform": [0.05, 2.0]}, "bandwidth_hz": 1000.0,
}  # fmt: skip
# Of B: one camera, blunter and noisier than any that training saw.
_NEW_SENSOR: Mapping[str, Any] = {
    "contrast_threshold": 0.5, "off_ratio": 1.4, "threshold_spread": 0.2, "noise_hz": 3.0,
    "leak_hz": 0.3, "bandwidth_hz": 600.0, "hot_pixels": 0.001, "exposure_s": 0.015,
    "stop_every_s": 30.0, "stop_s": 2.0,
}  # fmt: skip


@dataclass(frozen=True)
class Lengths:
    """How long the worlds of a seed are, s.

    Attributes:
        drive_s: of learning in B.
        return_s: of A afterwards.
        place_s: of each place of B to score on.
        known_s: of each place of A, to score on, for the guard and to replay.
    """

    drive_s: float
    return_s: float
    place_s: float
    known_s: float = 5.0


def new_kind(seed: int) -> str:
    """Return what B is for a seed of the benchmark; by turns."""
    return NEW_KINDS[seed % len(NEW_KINDS)]


def recipes(seed: int, lengths: Lengths) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two recipes as `dae-ros clips` reads them.

    Returns:
        The worlds of the two recordings, drive and return; and the clips: the drive's to train
        offline on, places elsewhere held out.
    """
    # The recordings come first, and are of A where the seed is even and odd by turns as well.
    kind, back = new_kind(seed), KNOWN_KINDS[seed // 2 % 2]
    drives = _recipe(
        [_world(kind, 2000 + seed, 1, lengths.drive_s), _world(back, 2200 + seed, 1,
                                                               lengths.return_s)],
        [],
    )  # fmt: skip
    clips = _recipe(
        [{"recordings": [DRIVE], "ends": "frame"}],
        [_world(kind, 2100 + 2 * seed, 2, lengths.place_s)],
    )
    return drives, clips


def known_recipe(lengths: Lengths) -> dict[str, Any]:
    """Return the recipe of the places of A that forgetting is measured by."""
    return _recipe([], _places_of_a(2300, 2350, KNOWN_PLACES, lengths))


def watched_recipe(lengths: Lengths) -> dict[str, Any]:
    """Return the recipe of the places of A that the guard measures with."""
    rooms = _world("room", 2800, WATCHED_ROOMS, lengths.known_s)
    return _recipe([], [*_places_of_a(2400, 2450, WATCHED_PLACES, lengths), rooms])


def replayed_recipe(lengths: Lengths) -> dict[str, Any]:
    """Return the recipe of the places of A that are replayed, beside those of training."""
    rooms = _world("room", 2900, REPLAYED_ROOMS, lengths.known_s)
    return _recipe([*_places_of_a(2600, 2700, REPLAYED_PLACES, lengths), rooms], [])


def taught_recipe() -> dict[str, Any]:
    """Return the recipe of what the student is taught with: A, of the first weights' worlds.

    Held out are worlds that its training is scored on, and that the guard measures with as well.
    """
    recipe: dict[str, Any] = yaml.safe_load(_TAUGHT.read_text(encoding="utf-8"))
    of_a = {
        split: [entry for entry in recipe[split] if entry["world"].get("scene") in KNOWN_KINDS]
        for split in SPLITS
    }
    return {**recipe, **of_a}


def known_folder(work: Path, lengths: Lengths) -> Path:
    """Return where the clips to measure forgetting by are."""
    return keyed(work, "known", {"recipe": known_recipe(lengths)})


def build_places(folder: Path, recipe: Mapping[str, Any]) -> Path:
    """Render clips of a recipe that has worlds alone, and return their folder."""
    write_once(folder / "clips.yaml", yaml.safe_dump(dict(recipe), sort_keys=False))
    build_clips(read_recipe(folder / "clips.yaml", folder), folder / CLIPS)
    return folder / CLIPS


def worlds_folder(work: Path, seed: int, lengths: Lengths) -> Path:
    """Return where the worlds of a seed are: named after their recipes, below `work`."""
    return keyed(work, f"worlds_{seed}", {"recipes": recipes(seed, lengths)})


def prepare_seed(folder: Path, seed: int, lengths: Lengths, say: Callable[[str], None]) -> None:
    """Render what a seed needs and is not there yet.

    Args:
        folder: `worlds_folder`.
        seed: of the benchmark.
        lengths: of its worlds.
        say: told how far it is.
    """
    drives, clips = recipes(seed, lengths)
    for name, content in (("drives.yaml", drives), ("clips.yaml", clips)):
        write_once(folder / name, yaml.safe_dump(content, sort_keys=False))
    worlds = read_recipe(folder / "drives.yaml").sources.values()
    for name, world in zip((DRIVE, RETURN), worlds, strict=True):
        if not isinstance(world, WorldSource):
            raise TypeError("a drive is a world")
        record_world(SimulatorParameters.from_mapping(world.parameters), folder / name, say)
    say(f"{CLIPS}: places to score on")
    build_clips(read_recipe(folder / "clips.yaml", folder), folder / CLIPS)


def record_world(parameters: SimulatorParameters, path: Path, say: Callable[[str], None]) -> None:
    """Write a world as a recording; nothing has the final name before it is whole."""
    if path.exists():
        return
    making = path.with_name(f"{path.name}.{os.getpid()}.making")
    shutil.rmtree(making, ignore_errors=True)
    simulation = Simulation(parameters)
    begun, told = time.monotonic(), 0
    with contextlib.closing(SimulatedBag(making, simulation, parameters.encoding)) as writer:
        for item in simulation.items():
            writer.write(item)
            stamp_ns = getattr(item, "stamp_ns", START_NS)
            percent = int((stamp_ns - START_NS) / parameters.duration_s / 1e7)
            if percent >= told + 10:
                told = percent
                say(f"{path.name}: {percent} % rendered in {time.monotonic() - begun:.0f} s")
    making.rename(path)


def linked_clips(sources: Sequence[Path], folder: Path) -> ClipStore:
    """Make a store of the sequences of other stores: links, no copies.

    Args:
        sources: finished stores of one size and encoder, whose sequences have different names.
        folder: of the new one; what is there is completed.
    """
    facts = read_facts(sources[0] / STORE_FILE)
    if facts is None:
        raise FileNotFoundError(f"{sources[0]} is no finished store of clips")
    links = {
        item.name: (source / item.name).resolve()
        for source in sources
        for item in open_clip_store(source).sequences
    }
    for name, target in links.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.readlink() != target:
            link.unlink()  # the source was moved
        if not link.is_symlink():
            link.symlink_to(target)
    found = [read_facts(folder / name / SEQUENCE_FILE) for name in links]
    chosen = [item for item in found if item is not None]
    facts |= {
        "sequences": list(links),
        "windows": sum(item["windows"] for item in chosen),
        "digest": digest_of_facts(chosen),
    }
    write_durably(folder / STORE_FILE, json.dumps(facts, indent=1))
    return open_clip_store(folder)


def _places_of_a(rooms: int, corridors: int, count: int, lengths: Lengths) -> list[dict[str, Any]]:
    """Return entries of so many rooms and corridors from two seeds on."""
    firsts = zip(KNOWN_KINDS, (rooms, corridors), strict=True)
    return [_world(kind, first, count, lengths.known_s) for kind, first in firsts]


def _recipe(train: Sequence[Any], heldout: Sequence[Any]) -> dict[str, Any]:
    # Depth would be most of a recording; clips have it at every window's end all the same.
    every = {"height": HEIGHT, "width": WIDTH, "depth_hz": 4.0}
    return {"every_world": every, "train": list(train), "heldout": list(heldout)}


def _world(kind: str, seed: int, count: int, duration_s: float) -> dict[str, Any]:
    sensor = _KNOWN_SENSOR if kind in KNOWN_KINDS else _NEW_SENSOR
    return {
        "world": {**_plain(_WORLDS[kind]), **_plain(sensor), "duration_s": duration_s},
        "seeds": [seed, seed + count - 1],
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy: YAML writes what occurs twice as a reference."""
    copied: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return copied
