"""Turns the text of a `weights` parameter into a network."""

from __future__ import annotations

import dataclasses

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint
from dae_ros.model.configuration import ModelConfig
from dae_ros.model.dav2 import metric_config, relative_config
from dae_ros.model.fetch import digest_of
from dae_ros.model.manifest import Entry, Manifest, file_of, find_entry, read_manifest
from dae_ros.model.untrained import PREFIX, offered, untrained
from dae_ros.paths import named_path


def load_weights(weights: str) -> LoadedModel:
    """Load what a user names.

    Args:
        weights: `untrained:vits` (or another of `untrained.NAMES`), a name from
            models/manifest.yaml, or a file.

    Raises:
        WeightsError: if there is no such thing, or the file is not what it should be.
    """
    if not weights:
        raise WeightsError(
            "no weights are given. `dae-ros models list` shows the known ones; without any, "
            f"with random numbers, run {offered()}"
        )
    if weights.startswith(PREFIX):
        return untrained(weights.removeprefix(PREFIX))
    manifest = read_manifest()
    path = named_path(weights)
    if weights in {entry.name for entry in manifest.entries}:
        return _load_entry(manifest, find_entry(manifest, weights))
    if not path.is_file() and path.name == weights and not path.suffix:
        raise WeightsError(
            f"there is no model '{weights}'. Known are "
            f"{', '.join(entry.name for entry in manifest.entries)}; or give the path of a file, "
            f"or, for random weights, {offered()}",
            name=weights,
        )
    return load_checkpoint(path)


def _load_entry(manifest: Manifest, entry: Entry) -> LoadedModel:
    path = file_of(manifest, entry)
    if path is None:
        raise WeightsError(
            f"the file of {entry.name} is not here. {entry.how_to_get()}", name=entry.name
        )
    # Before the file is opened: a wrong file is better called wrong than misread.
    digest = None if entry.sha256 is None else digest_of(path)
    if digest != entry.sha256:
        raise WeightsError(
            f"{path} is not {entry.name}: its sha256 is {digest}, the manifest says "
            f"{entry.sha256}. Remove it and get it again. {entry.how_to_get()}",
            path=str(path),
            digest=digest,
            expected=entry.sha256,
        )
    loaded = load_checkpoint(path, config=_config_of(entry), name=entry.name)
    encoder = loaded.config.summary()["encoder"]
    if entry.encoder not in (None, encoder):
        raise WeightsError(
            f"{path} is not {entry.name}: it holds {encoder}, the manifest says {entry.encoder}",
            path=str(path),
        )
    if loaded.meaning.orientation == "unknown":
        # The authors' files do not say it; the manifest does once somebody measured it.
        meaning = dataclasses.replace(entry.meaning, event_encoder=loaded.meaning.event_encoder)
        return dataclasses.replace(loaded, meaning=meaning)
    return loaded


def _config_of(entry: Entry) -> ModelConfig | None:
    # Official files of Depth Anything V2 say nothing about themselves; all others do.
    if entry.network != "depth_anything_v2" or entry.encoder is None:
        return None
    if entry.meaning.scale == "relative":
        return relative_config(entry.encoder)
    return metric_config(entry.encoder, entry.output_scale)
