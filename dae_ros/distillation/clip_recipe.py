"""Recipes of clips: a YAML file that names worlds, recordings and data sets for each split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from dae_ros.bags.datasets.dsec import RECTIFIED
from dae_ros.bags.datasets.dsec_frames import WARPED
from dae_ros.bags.labelled_recording import Ends
from dae_ros.bags.truth_beside import pairs_of
from dae_ros.distillation.clip_sources import RecordingSource, Source, WorldSource
from dae_ros.distillation.clip_store import SPLITS
from dae_ros.distillation.configuration import find_yaml, read_yaml, recipes
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.evaluation.protocols import PROTOCOLS
from dae_ros.evaluation.splits import eventscape_sequences, mvsec_recordings, published_sequences
from dae_ros.parameters import DepthParameters, SimulatorParameters, Value
from dae_ros.runtime.window_encoder import EVENT_ENCODERS
from dae_ros.simulation.presets import PRESETS

# What stamps of frames mark, by the same parameters as of the live node.
_STAMPS = ("image_stamp", "exposure_s")
_TOP = {"event_encoder", "window_s", "every_world", *SPLITS}
_ENTRY = {
    "world": {"world", "seeds"},
    "recordings": {"recordings", "ends", "events", "label", "rows", *_STAMPS},
    "dataset": {"dataset", "split", "sequences", "ends", "rows", *_STAMPS},
}


@dataclass(frozen=True)
class Recipe:
    """What a clip store is made of.

    Attributes:
        event_encoder: `tencode`, `tencode_voxel` or `voxel_grid` (5 bins, normalised).
        window_ns: length of a window, and the distance of windows in worlds.
        sources: name below the store (`train/0000_room_100`) -> source.
    """

    event_encoder: str
    window_ns: int
    sources: Mapping[str, Source]


def read_recipe(path: Path | str, root: Path | str = ".") -> Recipe:
    """Read a recipe; docs/training.md describes the format.

    Args:
        path: the YAML file, or the name of a recipe in `config/train`.
        root: the folder that paths of recordings and data sets are below.

    Raises:
        ConfigurationError: with a sentence; unknown keys, values out of range, a place that is in
            both splits, patterns that match nothing.
        RecordingError: a data set that is not whole.
    """
    path = find_yaml(path, "recipe", recipes())
    content = read_yaml(path)
    try:
        return _recipe(content, Path(root))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}", path=str(path)) from error


def _recipe(content: Any, root: Path) -> Recipe:
    _check_keys("a recipe", content, _TOP)
    encoder = content.get("event_encoder", "tencode")
    if encoder not in EVENT_ENCODERS:
        raise ConfigurationError(
            f"event_encoder must be one of {', '.join(EVENT_ENCODERS)}, not '{encoder}'"
        )
    window_s = content.get("window_s", 0.05)
    if not _are_numbers([window_s]) or window_s <= 0 or round(window_s * 1e9) % 1000:
        raise ConfigurationError(
            f"window_s must be a number of seconds above 0, in whole microseconds, not {window_s!r}"
        )
    window_ns = round(window_s * 1e9)
    every_world = _mapping("every_world", content.get("every_world", {}))
    sources: dict[str, Source] = {}
    places: dict[str, str] = {}
    for split in SPLITS:
        entries = content.get(split, [])
        if not isinstance(entries, list):
            raise ConfigurationError(f"'{split}' must be a list of entries")
        found = [source for entry in entries for source in _sources(entry, every_world, root)]
        for index, source in enumerate(found):
            for place in source.places:
                if place in places:
                    raise ConfigurationError(
                        f"{place} is in {places[place]} and again in {split}; give each world a "
                        "seed of its own and each recording one split"
                    )
                places[place] = split
            sources[f"{split}/{index:04d}_{source.label}"] = source
    if not sources:
        raise ConfigurationError(f"there is nothing in it; give {' or '.join(SPLITS)} an entry")
    return Recipe(encoder, window_ns, sources)


def _sources(entry: Any, every_world: Mapping[str, Any], root: Path) -> Iterator[Source]:
    kinds = [kind for kind in _ENTRY if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1:
        raise ConfigurationError(f"an entry has one of {', '.join(_ENTRY)}, not {entry!r}")
    kind = kinds[0]
    _check_keys(f"an entry with '{kind}'", entry, _ENTRY[kind])
    if kind == "world":
        yield from _worlds(entry, every_world)
    else:
        stamps = DepthParameters.from_mapping(
            {name: entry[name] for name in _STAMPS if name in entry}
        )
        for source in _recordings(entry, root) if kind == "recordings" else _dataset(entry, root):
            yield dataclasses.replace(
                source, image_stamp=stamps.image_stamp, exposure_s=stamps.exposure_s
            )


def _worlds(entry: Mapping[str, Any], every_world: Mapping[str, Any]) -> Iterator[Source]:
    """Yield a world per seed; ranges and choices are drawn by the seed, so a seed is a world."""
    wanted = {**every_world, **_mapping("world", entry["world"])}
    name = wanted.pop("preset", None)
    if name is not None and (not isinstance(name, str) or name not in PRESETS):
        raise ConfigurationError(f"there is no preset '{name}'; known are {', '.join(PRESETS)}")
    seeds = entry.get("seeds")
    if (
        not isinstance(seeds, list)
        or len(seeds) != 2
        or not all(type(seed) is int and seed >= 0 for seed in seeds)
        or seeds[0] > seeds[1]
    ):
        raise ConfigurationError(f"'seeds' must be [first, last], not {seeds!r}")
    for seed in range(seeds[0], seeds[1] + 1):
        random = np.random.default_rng([seed, 7])
        # In the order of the names, so that a recipe may be written in any order.
        drawn = {key: _draw(key, wanted[key], random) for key in sorted(wanted)}
        values = {**(PRESETS[name] if name else {}), **drawn, "seed": seed}
        parameters = SimulatorParameters.from_mapping(values)
        if parameters.duration_s <= 0:
            raise ConfigurationError("a world needs 'duration_s' above 0")
        yield WorldSource({**values, "scene": parameters.scene})


def _draw(name: str, wanted: Any, random: np.random.Generator) -> Value:
    if not isinstance(wanted, dict):
        value: Value = wanted
        return value
    kind, values = next(iter(wanted.items()), ("", []))
    draws: dict[str, Callable[[list[Any]], Any]] = {
        "uniform": lambda ends: float(random.uniform(*ends)),
        "log_uniform": lambda ends: float(np.exp(random.uniform(*np.log(ends)))),
        "choice": lambda values: values[int(random.integers(len(values)))],
    }
    if len(wanted) != 1 or not _drawable(kind, values):
        raise ConfigurationError(
            f"'{name}' must be a value, {{uniform: [low, high]}}, {{log_uniform: [low, high]}} "
            f"above 0, or {{choice: [...]}}, not {wanted!r}"
        )
    drawn: Value = draws[kind](values)
    # Times of the simulator are whole microseconds.
    return round(drawn, 6) if isinstance(drawn, float) else drawn


def _drawable(kind: object, values: object) -> bool:
    if not isinstance(values, list):
        return False
    if kind == "choice":
        return len(values) > 0
    ends = len(values) == 2 and _are_numbers(values) and values[0] <= values[1]
    return ends and (kind == "uniform" or (kind == "log_uniform" and values[0] > 0))


def _recordings(entry: Mapping[str, Any], root: Path) -> Iterator[RecordingSource]:
    """Yield a source per match; a list inside of the list is read as one recording.

    As everywhere `NAME_gt` beside `NAME_data` is read with it.
    """
    ends = _ends(entry)
    wanted = entry["recordings"]
    items = wanted if isinstance(wanted, list) else []
    lists = [item if isinstance(item, list) else [item] for item in items]
    if not all(lists) or not all(
        isinstance(part, str) and part for parts in lists for part in parts
    ):
        lists = []
    if not lists:
        raise ConfigurationError(
            f"'recordings' must be a list of patterns, or of lists of files that are read as one, "
            f"not {wanted!r}"
        )
    for item in items:
        if isinstance(item, list):
            groups = [tuple(str(root / part) for part in item)]
        else:
            # A pattern may begin at /, which pathlib does not take.
            pattern = Path(item)
            top = Path(pattern.anchor) if pattern.is_absolute() else root
            try:
                paths = sorted(top.glob(str(pattern.relative_to(pattern.anchor))), key=str)
            except (IndexError, NotImplementedError, ValueError) as error:
                raise ConfigurationError(
                    f"'{item}' is no pattern of paths ({error}); write a/*.bag, or a/**/b.bag for "
                    "any folders in between"
                ) from error
            # Windows that end at frames need no depth.
            found = pairs_of(paths) if ends == "depth" else [(path,) for path in paths]
            groups = [tuple(map(str, group)) for group in found]
        if not groups:
            raise ConfigurationError(f"nothing matches {root / item}; is --root right?")
        for group in groups:
            yield RecordingSource(
                group, ends, entry.get("events"), entry.get("label"), _rows(entry)
            )


def _dataset(entry: Mapping[str, Any], root: Path) -> Iterator[RecordingSource]:
    name, split = str(entry["dataset"]), str(entry.get("split", "train"))
    rows, ends, only = _rows(entry), _ends(entry), entry.get("sequences", [])
    if not isinstance(only, list) or not all(isinstance(item, str) for item in only):
        raise ConfigurationError(f"'sequences' must be a list of names, not {only!r}")
    if name in PROTOCOLS:
        protocol = PROTOCOLS[name]
        rows = protocol.rows if rows is None else rows
        for path in published_sequences(protocol, split, root, only).values():
            if name == "dsec" and ends == "frame":
                yield _dsec_frames(path, rows)
            else:
                yield RecordingSource((str(path),), ends, rows=rows)
    elif name == "mvsec_recordings":
        for paths in mvsec_recordings(split, root, only).values():
            yield RecordingSource(tuple(map(str, paths)), ends, rows=rows)
    elif name == "eventscape":
        if only:
            raise ConfigurationError(
                "'sequences' is not for eventscape, of which all that are there are taken"
            )
        for path in eventscape_sequences(split, root):
            yield RecordingSource((str(path),), ends, rows=rows)
    else:
        raise ConfigurationError(
            f"there is no data set '{name}'; known are {', '.join(PROTOCOLS)}, mvsec_recordings "
            "and eventscape"
        )


def _dsec_frames(path: Path, rows: tuple[int, int] | None) -> RecordingSource:
    """Return a sequence whose windows end at its frames, which must be of the events' pixels."""
    if not (path / WARPED).is_dir():
        raise RecordingError(
            f"{path} has no frames of the events' pixels; make them from those of its other "
            f"camera: dae-ros clips --warp-dsec {path}",
            path=str(path),
        )
    events, frames = f"{RECTIFIED}/events", f"{RECTIFIED}/image_raw"
    return RecordingSource((str(path),), "frame", events, frames, rows)


def _ends(entry: Mapping[str, Any]) -> Ends:
    ends = entry.get("ends", "depth")
    if ends not in get_args(Ends):
        raise ConfigurationError(f"'ends' must be depth or frame, not {ends!r}")
    return cast("Ends", ends)


def _rows(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    rows = entry.get("rows")
    if rows is None:
        return None
    whole = isinstance(rows, list) and len(rows) == 2 and all(type(row) is int for row in rows)
    if not whole or not 0 <= rows[0] < rows[1]:
        raise ConfigurationError(f"'rows' must be [first, one past the last], not {rows!r}")
    return (rows[0], rows[1])


def _mapping(what: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigurationError(f"'{what}' must be a mapping of parameters, not {content!r}")
    for key in content:
        if not isinstance(key, str):
            raise ConfigurationError(
                f"'{what}' has the key {key!r}, which is no name; YAML takes on, off, yes, no and "
                "numbers for values, put them into quotes"
            )
    return content


def _are_numbers(values: list[Any]) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _check_keys(what: str, content: Any, known: set[str]) -> None:
    if not isinstance(content, dict):
        raise ConfigurationError(f"{what} must be a mapping, not {content!r}")
    unknown = sorted(map(str, set(content) - known))
    if unknown:
        raise ConfigurationError(f"{what} has no {unknown}; known are {sorted(known)}")
