"""What learning online changed, to look at: places that nobody learned from, before and after.

Part of bench_adaptation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation.jobs import Job
from benchmarks.adaptation.runs import LAST
from benchmarks.adaptation.verdicts import live_at
from benchmarks.adaptation.worlds import CLIPS
from benchmarks.depth_rows import depth_row
from benchmarks.heldout import depth_at
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.loop import SNAPSHOTS
from dae_ros.model.checkpoint import load_checkpoint
from dae_ros.representation.render import Picture


def places_picture(job: Job, seeds: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw the middle of the first place elsewhere of each seed, whatever is seen there.

    Args:
        job: where the weights are.
        seeds: what is finished.

    Returns:
        Rows of events, ground truth, and depth of weights that were frozen, of the version that
        depth had at the end of the drive, and of those distilled offline; None where the weights
        of a seed are not in the folder, because it was finished on another machine.
    """
    rows: list[Picture] = []
    for facts in seeds:
        if "numbers" not in facts:
            continue
        contenders = _contenders(job, facts)
        if not all(path.exists() for path in contenders.values()):
            return None
        store = open_clip_store(job.worlds(facts["seed"]) / CLIPS)
        place = store.split("heldout")[0]
        index = len(place) // 2
        maps = {
            name: depth_at(load_checkpoint(path), store, place, index)
            for name, path in contenders.items()
        }
        rows.append(depth_row(place, index, maps))
    return np.concatenate(rows) if rows else None


def _contenders(job: Job, facts: Mapping[str, Any]) -> dict[str, Path]:
    setting, seed = job.setting, facts["seed"]
    length_s = setting.lengths.drive_s
    version = live_at(facts["timeline"], length_s)
    learned = job.folder(seed) / "online" / SNAPSHOTS / f"w_{version:06d}.safetensors"
    return {
        "frozen": setting.student,
        f"online, {length_s:g} s": learned,
        "offline": setting.offline_folder(job.work, seed) / LAST,
    }
