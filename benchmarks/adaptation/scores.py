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

from benchmarks.adaptation.cache import digest_of, write_once
from benchmarks.adaptation.worlds import CLIPS
from benchmarks.heldout import Scores as HeldoutScores
from benchmarks.heldout import rounded, score_networks
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.loop import SNAPSHOTS
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint

ELSEWHERE, KNOWN = "elsewhere", "known"
PARTS = (ELSEWHERE, KNOWN)
NUMBERS = (
    "aligned_abs_rel", "aligned_delta_1", "aligned_positive_scale", "metric_abs_rel",
    "metric_delta_1",
)  # fmt: skip
# Of so many windows one is scored, and nothing is decoded for the others.
EVERY = 5
# Weights that share a pass of the encoder, and are lost together where it is cut.
AT_ONCE = 4
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
    ordered = sorted(set(versions))
    paths = [run / SNAPSHOTS / f"w_{version:06d}.safetensors" for version in ordered]
    return dict(zip(ordered, score_files(paths, worlds, parts), strict=True))


def score_file(
    path: Path, worlds: Path, parts: Sequence[str] = PARTS, windows: int = 0
) -> dict[str, Scores]:
    """Return part -> scores of one checkpoint; see `score_files`."""
    return score_files([path], worlds, parts, windows)[0]


def score_files(
    paths: Sequence[Path], worlds: Path, parts: Sequence[str] = PARTS, windows: int = 0
) -> list[dict[str, Scores]]:
    """Return part -> scores of each checkpoint; see `score_weights`."""
    return score_weights([load_checkpoint(path) for path in paths], worlds, parts, windows)


def score_weights(
    loaded: Sequence[LoadedModel], worlds: Path, parts: Sequence[str] = PARTS, windows: int = 0
) -> list[dict[str, Scores]]:
    """Return part -> scores of each of some weights; what was scored before is looked up.

    Args:
        loaded: weights of one configuration.
        worlds: of a seed. Scores are kept where the clips are, by the weights' own digest, whoever
            published them.
        parts: which of `PARTS`.
        windows: of each place at most; 0 for all.
    """
    digests = [weights_digest(one) for one in loaded]
    scores: list[dict[str, Scores]] = [{} for _ in loaded]
    for part in parts:
        folder = worlds if part == ELSEWHERE else worlds / KNOWN
        store = open_clip_store(folder / CLIPS)
        facts = {"store": store.digest, "windows": windows, "every": EVERY, PLACES: ERRORS}
        kept = [
            folder / "scores" / f"{part}_{digest_of({'weights': weights, **facts})}.json"
            for weights in digests
        ]
        # Equal weights are one.
        missing = {path: one for path, one in zip(kept, loaded, strict=True) if not path.exists()}
        kept[0].parent.mkdir(exist_ok=True)
        for begin in range(0, len(missing), AT_ONCE):
            batch = dict(list(missing.items())[begin : begin + AT_ONCE])
            found = score_networks(list(batch.values()), store, windows=windows, every=EVERY)
            for path, result in zip(batch, found, strict=True):
                write_once(path, json.dumps(_plain(result), indent=1))
        for own, path in zip(scores, kept, strict=True):
            own[part] = json.loads(path.read_text(encoding="utf-8"))
    return scores


def _plain(scores: HeldoutScores) -> Scores:
    places = {
        place: rounded({name: found[name] for name in ERRORS})
        for place, found in scores.sequences.items()
    }
    return {**rounded({name: scores.mean[name] for name in NUMBERS}), PLACES: places}


def weights_digest(loaded: LoadedModel) -> str:
    """Return the sha256 of tensors and meaning: equal for files that differ in what they note."""
    digest = hashlib.sha256(repr(loaded.meaning).encode())
    tensors: Mapping[str, Any] = loaded.network.state_dict()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
