"""Clips on disk: encoded windows with depth and frames, memory-mapped, in one folder per sequence.

```
STORE/
  store.json               what is in it; written last, when every sequence is there
  heldout/0003_room_1003/  one sequence: a world and a path, or one pass over a recording
    sequence.json          its source, lengths and sha256 of the arrays
    windows.npy            uint8[N, H, W] of `clip_codes`, or float16[N, bins, H, W]
    depth.npy              float16[N, H, W], metres, NaN unknown; absent without depth
    frames.npy             uint8[N, H, W]; absent without frames
    times.npy              int64[N, 3]: end ns, frame - end in us, 1 where the state must restart
```

A sequence is in one split, `train` or `heldout`, whole: neighbouring windows are nearly equal, so
a split inside of a sequence would measure memory, not learning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.damage import DAMAGE
from dae_ros.errors import RecordingError

FORMAT = 1
SPLITS = ("train", "heldout")
STORE_FILE, SEQUENCE_FILE = "store.json", "sequence.json"
END_NS, FRAME_OFFSET_US, RESTARTS = range(3)
NO_FRAME_US = 2**31 - 1  # in place of a frame's offset
# Beyond this a frame's pixels have moved away from the window's events.
FRAME_TOLERANCE_US = 5000
# Array -> the types and numbers of dimensions that it may have.
_ARRAYS = {
    "windows": (("uint8", 3), ("float16", 4)),
    "depth": (("float16", 3),),
    "frames": (("uint8", 3),),
    "times": (("int64", 2),),
}
# File -> what it must say.
_FACTS: dict[str, dict[str, type]] = {
    STORE_FILE: {
        "event_encoder": str, "height": int, "width": int, "sequences": list, "digest": str,
    },
    SEQUENCE_FILE: {"source": dict, "windows": int, "sha256": dict},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ClipSequence:
    """One sequence; arrays are memory maps.

    Attributes:
        name: below the store, with its split: `train/0000_room_100`.
        split: `train` or `heldout`.
        windows: uint8[N, H, W] or float16[N, bins, H, W].
        depth: float16[N, H, W] in metres, or None.
        frames: uint8[N, H, W], or None.
        times: int64[N, 3], see the module.
        facts: what sequence.json says.
    """

    name: str
    split: str
    windows: NDArray[Any]
    depth: NDArray[np.float16] | None
    frames: NDArray[np.uint8] | None
    times: NDArray[np.int64]
    facts: dict[str, Any]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield [first, last + 1) of each stretch over which a state may be carried."""
        starts = [0, *(int(i) for i in np.flatnonzero(self.times[:, RESTARTS]) if i > 0)]
        yield from zip(starts, [*starts[1:], len(self)], strict=True)

    def has_frame(self, first: int, last: int) -> NDArray[np.bool_]:
        """Return which of the windows [first, last) end at a frame, within `FRAME_TOLERANCE_US`."""
        return np.abs(self.times[first:last, FRAME_OFFSET_US]) <= FRAME_TOLERANCE_US


@dataclass(frozen=True, eq=False)
class ClipStore:
    """All sequences of a folder, of one size and one encoder.

    Attributes:
        folder: where it lies.
        event_encoder: a name of `Meaning.event_encoder`.
        height, width: of the windows, px.
        sequences: by name.
        digest: sha256 over what all sequences say of themselves, their arrays' digests included.
    """

    folder: Path
    event_encoder: str
    height: int
    width: int
    sequences: tuple[ClipSequence, ...]
    digest: str

    def split(self, split: str) -> tuple[ClipSequence, ...]:
        """Return the sequences of one split."""
        return tuple(item for item in self.sequences if item.split == split)

    def verify(self) -> None:
        """Compare every array with its digest.

        Raises:
            RecordingError: one differs.
        """
        for sequence in self.sequences:
            for name, digest in sequence.facts["sha256"].items():
                path = self.folder / sequence.name / f"{name}.npy"
                if file_digest(path) != digest:
                    raise RecordingError(
                        f"{path} is not what was written (its sha256 differs). Remove the folder "
                        f"{path.parent} and {self.folder / STORE_FILE}, and make the clips again",
                        path=str(path),
                    )


def open_clip_store(folder: Path | str) -> ClipStore:
    """Open a folder of clips.

    Raises:
        RecordingError: missing, not finished, damaged, or of another format.
    """
    folder = Path(folder)
    facts = read_facts(folder / STORE_FILE)
    if facts is None:
        raise RecordingError(
            f"{folder} holds no finished clips (no {STORE_FILE}); run `dae-ros clips RECIPE --out "
            f"{folder}`, which goes on where it was stopped",
            path=str(folder),
        )
    sequences = tuple(_open_sequence(folder, name, facts) for name in facts["sequences"])
    digest = digest_of_facts([sequence.facts for sequence in sequences])
    if digest != facts["digest"]:
        raise RecordingError(
            f"the sequences of {folder} are not those of its {STORE_FILE}; remove that file and "
            "make the clips again",
            path=str(folder),
        )
    return ClipStore(
        folder, facts["event_encoder"], facts["height"], facts["width"], sequences, digest
    )


def read_facts(path: Path) -> dict[str, Any] | None:
    """Read store.json or sequence.json; None where there is none.

    Raises:
        RecordingError: damaged, or written by another version.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DAMAGE as error:
        raise RecordingError(
            f"{path} cannot be read: {error}. {_remedy(path)}", path=str(path)
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise RecordingError(
            f"{path} was not written by this version (format {FORMAT}). {_remedy(path)}",
            path=str(path),
        )
    wrong = [
        name for name, kind in _FACTS[path.name].items() if not isinstance(facts.get(name), kind)
    ]
    if wrong:
        raise RecordingError(
            f"{path} is damaged: it lacks {', '.join(wrong)}. {_remedy(path)}",
            path=str(path),
            lacks=wrong,
        )
    return facts


def _remedy(path: Path) -> str:
    """Say how to get a file of facts anew, without what is whole beside it."""
    remains = path if path.name == STORE_FILE else path.parent
    return f"Remove {remains} and make the clips again; what is whole is kept"


def digest_of_facts(facts: list[dict[str, Any]]) -> str:
    """Return the sha256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open_sequence(folder: Path, name: object, store: dict[str, Any]) -> ClipSequence:
    facts = read_facts(folder / name / SEQUENCE_FILE) if isinstance(name, str) else None
    if facts is None or not isinstance(name, str):
        raise RecordingError(
            f"{folder} lacks the {SEQUENCE_FILE} of {name}. {_remedy(folder / STORE_FILE)}",
            path=str(folder),
            sequence=name,
        )
    path = folder / name
    present = [array for array in _ARRAYS if array in facts["sha256"]]
    lacking = [array for array in ("windows", "times") if array not in present]
    if lacking:
        raise RecordingError(
            f"{path / SEQUENCE_FILE} is damaged: it lacks the sha256 of {', '.join(lacking)}. "
            f"{_remedy(path / SEQUENCE_FILE)}",
            path=str(path),
            lacks=lacking,
        )
    arrays = {array: map_array(path / f"{array}.npy") for array in present}
    sizes = {array: len(values) for array, values in arrays.items()}
    size = (store["height"], store["width"])
    wrong = [a for a, values in arrays.items() if a != "times" and values.shape[-2:] != size]
    if set(sizes.values()) != {facts["windows"]} or wrong:
        raise RecordingError(
            f"{path} is damaged: its arrays have {sizes} windows, {facts['windows']} were written "
            f"at {size[1]}x{size[0]} px. Remove it and make the clips again",
            path=str(path),
            sizes=sizes,
        )
    return ClipSequence(
        name=name,
        split=name.partition("/")[0],
        windows=arrays["windows"],
        depth=arrays.get("depth"),
        frames=arrays.get("frames"),
        times=arrays["times"],
        facts=facts,
    )


def map_array(path: Path) -> NDArray[Any]:
    """Map an array of a sequence.

    Raises:
        RecordingError: missing, damaged, or no such array.
    """
    array: Any
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found = (array.dtype.name, array.ndim)
    except DAMAGE as error:
        raise RecordingError(
            f"{path} is missing or damaged ({error}). Remove the folder {path.parent} and make "
            "the clips again",
            path=str(path),
        ) from error
    if found not in _ARRAYS[path.stem]:
        raise RecordingError(
            f"{path} is damaged: it holds {found[0]} of {found[1]} dimensions. Remove the folder "
            f"{path.parent} and make the clips again",
            path=str(path),
        )
    mapped: NDArray[Any] = array
    return mapped
