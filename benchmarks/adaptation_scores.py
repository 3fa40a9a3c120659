"""True errors of weights on other places of a seed: equal weights are scored once.

A mean over places says little where one of them is lost, so each place's errors are kept as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.adaptation_cache import digest_of, write_once
from benchmarks.adaptation_worlds import CLIPS
from benchmarks.heldout import rounded, score_network
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.loop import SNAPSHOTS
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint

ELSEWHERE, KNOWN = "elsewhere", "known"
PARTS = (ELSEWHERE, KNOWN)
NUMBERS = (
    "aligned_abs_rel", "aligned_delta_1", "aligned_positive_scale", "metric_abs_rel",
    "metric_delta_1",
)  # fmt: skip
ERRORS = ("aligned_abs_rel", "metric_abs_rel")
PLACES = "places"
# Name -> mean over places; under `PLACES`, place -> name of an error -> score.
Scores: TypeAlias = dict[str, Any]


def score_versions(
    run: Path, versions: Sequence[int], worlds: Path, parts: Sequence[str] = PARTS
) -> dict[int, dict[str, Scores]]:
    """Return version -> part -> name -> score of versions that a run has published.

    Args:
        run: its folder.
        versions: which.
        worlds: of the seed.
        parts: which of `PARTS`.
    """
    return {
        version: score_file(run / SNAPSHOTS / f"w_{version:06d}.safetensors", worlds, parts)
        for version in sorted(set(versions))
    }


def score_file(
    path: Path, worlds: Path, parts: Sequence[str] = PARTS, windows: int = 0
) -> dict[str, Scores]:
    """Return part -> scores; what was scored before is looked up.

    Args:
        path: a checkpoint.
        worlds: of a seed. Scores are kept where the clips are, by the weights' own digest, whoever
            published them.
        parts: which of `PARTS`.
        windows: of each place at most; 0 for all.
    """
    loaded = load_checkpoint(path)
    weights, scores = weights_digest(loaded), {}
    for part in parts:
        folder = worlds if part == ELSEWHERE else worlds / KNOWN
        store = open_clip_store(folder / CLIPS)
        key = digest_of(
            {"weights": weights, "store": store.digest, "windows": windows, PLACES: ERRORS}
        )
        kept = folder / "scores" / f"{part}_{key}.json"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            found = score_network(loaded, store, windows=windows)
            places = {
                place: rounded({name: scores[name] for name in ERRORS})
                for place, scores in found.sequences.items()
            }
            mean = rounded({name: found.mean[name] for name in NUMBERS})
            write_once(kept, json.dumps({**mean, PLACES: places}, indent=1))
        scores[part] = json.loads(kept.read_text(encoding="utf-8"))
    return scores


def weights_digest(loaded: LoadedModel) -> str:
    """Return the sha256 of tensors and meaning: equal for files that differ in what they note."""
    digest = hashlib.sha256(repr(loaded.meaning).encode())
    tensors: Mapping[str, Any] = loaded.network.state_dict()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
