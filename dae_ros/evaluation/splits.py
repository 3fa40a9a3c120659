"""Where the sequences of published splits lie below the root of a data set, and if they are whole.

`protocols.py` has the splits of Depth AnyEvent. MVSEC's recordings are split as its users do since
E2Depth (rpg_e2depth: training on outdoor_day2), EventScape by town; both parts of Town05 unpack
into one folder, and the list of those for validation is that of HMNet (github.com/hamarh/HMNet_pth,
commit 5a80afb, `experiments/depth/data/eventscape/scripts/merge_event_data.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.evaluation.protocols import DatasetProtocol

_Part = TypeVar("_Part")

MVSEC_RECORDINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("outdoor_day2",),
        "test": ("outdoor_day1", "outdoor_night1", "outdoor_night2", "outdoor_night3"),
    }
)
EVENTSCAPE_TOWNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"train": ("Town01", "Town02", "Town03"), "validation": ("Town05",), "test": ("Town05",)}
)
EVENTSCAPE_VALIDATION = frozenset(
    (
        *(8, 9, 23, 24, 35, 36, 37, 38, 39, 43, 44, 51, 52, 65, 85, 86, 95, 96, 98, 102, 103, 112),
        *(113, 118, 119, 121, 127, 128, 131, 133, 135, 136, 139, 141, 143, 145, 146, 149, 152, 156),
        *(159, 160, 161, 163, 164, 165, 169, 174, 177, 178, 179, 180, 189, 199, 200, 204),
        *range(206, 217),
        *(219, 220, 221, 222, 228),
        *range(230, 238),
        *(242, 243, 244, 245, 249, 250, 270, 272, 273, 280, 281),
        *(289, 290, 291, 292, 294, 295, 296, 297, 300),
    )
)
# Data set -> what precedes a sequence's name below the root, and its files of true depth.
_PLACES = {"mvsec": ("", "depth/data", "*.npy"), "dsec": ("train", "disparity/event", "*.png")}


def published_sequences(
    protocol: DatasetProtocol, split: str, root: Path, only: Sequence[str] = ()
) -> dict[str, Path]:
    """Return sequence -> folder of a split of `protocols.py`, each checked to be whole.

    Args:
        protocol: `MVSEC` (as E2Depth prepared it) or `DSEC`.
        split: one of `protocol.splits`.
        root: the folder that holds `train` (and MVSEC's `test`).
        only: names of the split's sequences that are wanted; without any all are.

    Raises:
        ConfigurationError: no such split, or no such sequence in it.
        RecordingError: sequences are missing, or have another number of frames than published.
    """
    sequences = _of_split(protocol.splits, split, protocol.name)
    prefix, folder, pattern = _PLACES[protocol.name]
    chosen = _only(only, tuple(sequences), split, protocol.name)
    paths = {name: root / prefix / name for name in chosen}
    missing = [name for name, path in paths.items() if not path.is_dir()]
    if missing:
        raise RecordingError(
            f"{root / prefix} lacks {len(missing)} of the {len(paths)} sequences of the split "
            f"'{split}' of {protocol.name}: {', '.join(missing)}. Unpack them there"
            f"{_way_in_part(protocol, split, root / prefix)}",
            path=str(root / prefix),
            missing=missing,
        )
    for name, path in paths.items():
        frames = sum(1 for _ in (path / folder).glob(pattern))
        if frames != sequences[name]:
            raise RecordingError(
                f"{path / folder} has {frames} files {pattern}, published are {sequences[name]}; "
                f"numbers of another part are not comparable, unpack the sequence again",
                path=str(path),
                frames=frames,
                published=sequences[name],
            )
    return paths


def _way_in_part(protocol: DatasetProtocol, split: str, folder: Path) -> str:
    """Return how to do with the sequences that are there, of another split if need be."""
    for candidate in (split, *protocol.splits):
        there = [name for name in protocol.splits[candidate] if (folder / name).is_dir()]
        if there:
            return (
                f", or take those that are there alone: --split {candidate} --sequences "
                f"{','.join(there)} (in a recipe 'split' and 'sequences')"
            )
    return "; a part is enough with --sequences NAME,... (in a recipe 'sequences')"


def mvsec_recordings(
    split: str, root: Path, only: Sequence[str] = ()
) -> dict[str, tuple[Path, Path]]:
    """Return sequence -> (data, gt) of MVSEC's own files, `.hdf5` before `.bag`.

    Args:
        split: `train` or `test`.
        root: anywhere above the files.
        only: names of the split's sequences that are wanted; without any all are.

    Raises:
        ConfigurationError: no such split, or no such sequence in it.
        RecordingError: a file is missing.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for name in _only(only, _of_split(MVSEC_RECORDINGS, split, "mvsec"), split, "mvsec"):
        data = next(
            (path for suffix in ("hdf5", "bag") for path in root.rglob(f"{name}_data.{suffix}")),
            None,
        )
        truth = None if data is None else data.with_name(f"{name}_gt{data.suffix}")
        if data is None or truth is None or not truth.is_file():
            raise RecordingError(
                f"below {root} there is no {name}_data.hdf5 or .bag with its {name}_gt beside it; "
                f"the split '{split}' needs both. Others alone are taken with --sequences (in a "
                f"recipe 'sequences')",
                path=str(root),
                sequence=name,
            )
        found[name] = (data, truth)
    return found


def eventscape_sequences(split: str, root: Path) -> list[Path]:
    """Return the folders of EventScape's sequences, by town and number.

    Args:
        split: `train`, `validation` or `test`.
        root: the folder that holds `Town01` ... `Town05`.

    Raises:
        ConfigurationError: no such split.
        RecordingError: a town is missing or has no sequence of the split.
    """
    found: list[Path] = []
    for town in _of_split(EVENTSCAPE_TOWNS, split, "eventscape"):
        numbered = {
            int(number): path
            for path in (root / town).glob("sequence_*")
            if (number := path.name.rpartition("_")[2]).isdigit()
        }
        chosen = [
            path
            for number, path in sorted(numbered.items())
            if split == "train" or (number in EVENTSCAPE_VALIDATION) == (split == "validation")
        ]
        if not chosen:
            raise RecordingError(
                f"{root / town} has no sequence of the split '{split}'; unpack that part of "
                f"EventScape below {root}",
                path=str(root / town),
            )
        found += chosen
    return found


def _only(
    wanted: Sequence[str], sequences: tuple[str, ...], split: str, name: str
) -> tuple[str, ...]:
    """Return the wanted sequences in the order of the split, all where none is named."""
    strangers = [item for item in wanted if item not in sequences]
    if strangers:
        raise ConfigurationError(
            f"{', '.join(strangers)} is not in the split '{split}' of {name}, which has "
            f"{', '.join(sequences)}",
            split=split,
            sequences=strangers,
        )
    return tuple(item for item in sequences if item in wanted) if wanted else sequences


def _of_split(splits: Mapping[str, _Part], split: str, name: str) -> _Part:
    if split not in splits:
        raise ConfigurationError(
            f"{name} has no split '{split}'; it has {', '.join(splits)}.", split=split
        )
    return splits[split]
