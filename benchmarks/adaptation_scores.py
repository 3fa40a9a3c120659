"""True errors of weights on other places of a seed: equal weights are scored once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.adaptation_cache import digest_of, write_once
from benchmarks.adaptation_worlds import CLIPS, KNOWN_KINDS
from benchmarks.heldout import kind_of, rounded, score_network
from dae_ros.distillation.clip_store import ClipStore, open_clip_store
from dae_ros.distillation.online.loop import SNAPSHOTS
from dae_ros.distillation.validation import mean_of_scores
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint

ELSEWHERE, KNOWN = "elsewhere", "known"
PARTS = (ELSEWHERE, KNOWN)
NUMBERS = (
    "aligned_abs_rel", "aligned_delta_1", "aligned_positive_scale", "metric_abs_rel",
    "metric_delta_1",
)  # fmt: skip
Scores: TypeAlias = dict[str, float | None]


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
    """Return part -> name -> mean score over its places; what was scored before is looked up.

    Args:
        path: a checkpoint.
        worlds: of a seed; scores are kept there by the weights' own digest, whoever published them.
        parts: which of `PARTS`.
        windows: of each place at most; 0 for all.
    """
    loaded, store = load_checkpoint(path), open_clip_store(worlds / CLIPS)
    key = digest_of({"weights": weights_digest(loaded), "store": store.digest, "windows": windows})
    scores = {}
    for part in parts:
        kept = worlds / "scores" / f"{part}_{key}.json"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            write_once(kept, json.dumps(_score(loaded, store, part, windows), indent=1))
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


def _score(loaded: LoadedModel, store: ClipStore, part: str, windows: int) -> Scores:
    kinds: dict[str, Callable[[str], bool]] = {
        ELSEWHERE: lambda name: kind_of(name) not in KNOWN_KINDS,
        KNOWN: lambda name: kind_of(name) in KNOWN_KINDS,
    }
    chosen = tuple(
        item for item in store.sequences if item.split == "heldout" and kinds[part](item.name)
    )
    only = ClipStore(
        store.folder, store.event_encoder, store.height, store.width, chosen, store.digest
    )
    found = score_network(loaded, only, windows=windows)
    mean = mean_of_scores(list(found.sequences.values()))
    return rounded({name: mean[name] for name in NUMBERS})
