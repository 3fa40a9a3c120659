"""The published evaluation protocols as data: sequences, windows, crops, distances.

Facts read from the authors' code (github.com/bartn8/depthanyevent, commit 7dfcc47:
`dataset/*/constants.py`, `dataset/*/sbt/*_sequence.py`, `configs/test/*.json`, `test.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dae_ros.evaluation.scoring import PUBLISHED, Scoring

MS = 1_000_000


@dataclass(frozen=True, slots=True)
class DatasetProtocol:
    """How a data set is split, cut into windows and scored.

    Attributes:
        name: of the data set.
        height, width: of the sensor, px.
        rows: first and one past the last row that is used, after encoding; all columns are.
        splits: split -> sequence -> frames with depth on disk.
        skipped_frames: at the start of each sequence, because no events precede them.
        window_ns: length of the event window [stamp - window, stamp) of a frame.
        event_encoder: what the network is fed, a name of `Meaning.event_encoder`.
        scoring: the published one. The recurrent state is carried through a sequence and reset
            between sequences only.
    """

    name: str
    height: int
    width: int
    rows: tuple[int, int]
    splits: Mapping[str, Mapping[str, int]]
    skipped_frames: int
    window_ns: int
    event_encoder: str
    scoring: Scoring

    def scored_frames(self, split: str) -> dict[str, int]:
        """Return sequence -> number of frames that the published code scores."""
        return {name: frames - self.skipped_frames for name, frames in self.splits[split].items()}

    def part_in_words(self, names: Iterable[str]) -> str:
        """Say which part of a split some sequences are; nothing where they are a whole one."""
        wanted = set(names)
        for split, sequences in self.splits.items():
            if wanted < set(sequences):
                return (
                    f"{len(wanted)} of the {len(sequences)} of the split '{split}', so that the "
                    "paper's numbers do not stand beside"
                )
        return ""


MVSEC = DatasetProtocol(
    name="mvsec",
    height=260,
    width=346,
    rows=(0, 260),
    splits=MappingProxyType(
        {
            "train": {
                "train/mvsec_dataset_day2/train": 8524,
                "train/mvsec_dataset_day2/validation": 1827,
            },
            "validation": {"train/mvsec_dataset_day2/test": 1827},
            "test": {
                "test/mvsec_outdoor_day1": 5125,
                "test/mvsec_outdoor_night1": 5111,
                "test/mvsec_outdoor_night2": 5478,
                "test/mvsec_outdoor_night3": 5411,
            },
        }
    ),
    skipped_frames=0,
    window_ns=50 * MS,
    event_encoder="tencode_voxel",
    scoring=PUBLISHED,
)

# The official training set, split again; the published tests run on `validation`.
DSEC = DatasetProtocol(
    name="dsec",
    height=480,
    width=640,
    rows=(80, 400),
    splits=MappingProxyType(
        {
            "train": {
                "interlaken_00_c": 269,
                "interlaken_00_d": 996,
                "interlaken_00_e": 996,
                "zurich_city_00_a": 470,
                "zurich_city_00_b": 732,
                "zurich_city_01_a": 341,
                "zurich_city_01_b": 663,
                "zurich_city_01_c": 489,
                "zurich_city_01_d": 398,
                "zurich_city_01_e": 996,
                "zurich_city_01_f": 787,
                "zurich_city_02_a": 118,
                "zurich_city_02_b": 613,
                "zurich_city_02_c": 1442,
                "zurich_city_02_d": 922,
                "zurich_city_02_e": 923,
                "zurich_city_03_a": 442,
                "zurich_city_04_a": 351,
                "zurich_city_04_b": 135,
                "zurich_city_04_c": 591,
                "zurich_city_04_d": 479,
                "zurich_city_04_e": 135,
                "zurich_city_04_f": 430,
                "zurich_city_09_a": 907,
                "zurich_city_09_b": 184,
                "zurich_city_09_c": 662,
                "zurich_city_09_e": 409,
                "zurich_city_10_a": 1158,
                "zurich_city_11_a": 233,
                "zurich_city_11_b": 967,
                "zurich_city_11_c": 979,
            },
            "validation": {
                "interlaken_00_f": 746,
                "interlaken_00_g": 668,
                "thun_00_a": 120,
                "zurich_city_05_a": 877,
                "zurich_city_05_b": 815,
                "zurich_city_06_a": 762,
                "zurich_city_07_a": 732,
                "zurich_city_08_a": 394,
                "zurich_city_09_d": 850,
                "zurich_city_10_b": 1203,
            },
        }
    ),
    skipped_frames=1,
    window_ns=50 * MS,
    event_encoder="tencode",
    scoring=PUBLISHED,
)

PROTOCOLS = MappingProxyType({protocol.name: protocol for protocol in (MVSEC, DSEC)})
TEST_SPLIT = MappingProxyType({"mvsec": "test", "dsec": "validation"})
