"""The list of known checkpoints, models/manifest.yaml, and where their files lie. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.installation import share_folder
from dae_ros.model.configuration import Meaning
from dae_ros.paths import named_path

NETWORKS = ("depth_any_event", "depth_any_event_r", "depth_anything_v2", "e2depth")
_FIELDS = {
    "name", "network", "encoder", "file", "url", "source", "size_bytes", "sha256", "licence",
    "input_height", "input_width", "output", "output_scale", "meaning",
}  # fmt: skip
_SHIPPED = "shipped"  # may be absent


@dataclass(frozen=True)
class Entry:
    """One known checkpoint.

    Attributes:
        name: what users write.
        network: one of `NETWORKS`.
        encoder: vits, vitb, vitl, vitt or micro; None where only the file says it.
        file: path below the models folder, with forward slashes.
        url: from where it can be fetched (then sha256 is known), None where it must be got by
            hand.
        source: who publishes it and where, a sentence.
        size_bytes, sha256: of the file, None where nobody published them.
        licence: of the weights.
        input_height, input_width: lower bounds of the network's input in px, None where the
            file itself says it.
        output: what the number is, a sentence.
        output_scale: largest depth in metres of a metric Depth Anything V2, 1 otherwise.
        meaning: the same for programs. What the file says about itself goes before.
        shipped: whether the file lies beside the manifest and comes with this package (then
            size_bytes and sha256 are known).
    """

    name: str
    network: str
    encoder: str | None
    file: str
    url: str | None
    source: str
    size_bytes: int | None
    sha256: str | None
    licence: str
    input_height: int | None
    input_width: int | None
    output: str
    output_scale: float
    meaning: Meaning
    shipped: bool = False

    def how_to_get(self) -> str:
        """Return a sentence: how the file comes here."""
        if self.shipped:
            return "It comes with dae_ros: install the package again, or restore its models folder"
        if self.url is not None:
            return f"Get it with `dae-ros models fetch {self.name}`"
        return (
            f"It has no direct address: {self.source}. Put it, as it is, at "
            f"{download_folder() / self.file}"
        )


@dataclass(frozen=True)
class Manifest:
    """All entries, and the folder that the manifest and the weights shipped beside it lie in."""

    entries: tuple[Entry, ...]
    folder: Path


def download_folder() -> Path:
    """Return where fetched weights are kept: $DAE_ROS_MODELS or $XDG_DATA_HOME/dae_ros/models."""
    chosen = os.environ.get("DAE_ROS_MODELS")
    if chosen:
        return named_path(chosen)
    data = os.environ.get("XDG_DATA_HOME")
    root = Path(data) if data else Path.home() / ".local" / "share"
    return root / "dae_ros" / "models"


def read_manifest(folder: Path | None = None) -> Manifest:
    """Read models/manifest.yaml.

    Args:
        folder: that holds manifest.yaml; the one of this installation if not given.

    Raises:
        WeightsError: if it is missing or does not follow its own rules.
    """
    folder = share_folder() / "models" if folder is None else folder
    path = folder / "manifest.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", path=str(path)) from error
    rows = content.get("models") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise WeightsError(f"{path} has no list 'models'", path=str(path))
    entries = tuple(_entry(path, row) for row in rows)
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise WeightsError(f"{path} names a model twice", path=str(path), names=names)
    return Manifest(entries, folder)


def _entry(path: Path, row: Any) -> Entry:
    if not isinstance(row, dict) or set(row) - {_SHIPPED} != _FIELDS:
        given = set(row) - {_SHIPPED} if isinstance(row, dict) else set()
        raise WeightsError(
            f"{path}: entry {row.get('name') if isinstance(row, dict) else row!r} must have "
            f"exactly the fields {sorted(_FIELDS)}; wrong are {sorted(given ^ _FIELDS)}",
            path=str(path),
        )
    try:
        entry = Entry(**{**row, "meaning": Meaning.from_dict(row["meaning"])})
    except (ConfigurationError, TypeError) as error:
        raise WeightsError(f"{path}: entry {row['name']}: {error}", path=str(path)) from error
    inside = PurePosixPath(entry.file)
    digest_fits = entry.sha256 is None or (
        len(entry.sha256) == 64 and set(entry.sha256) <= set("0123456789abcdef")
    )
    if inside.is_absolute() or ".." in inside.parts or not digest_fits:
        raise WeightsError(
            f"{path}: entry {entry.name}: 'file' must stay below the models folder and 'sha256' "
            "be 64 hex digits or null",
            path=str(path),
        )
    if entry.url is not None and (
        entry.sha256 is None or not entry.url.startswith(("https://", "http://"))
    ):
        raise WeightsError(
            f"{path}: entry {entry.name}: what is fetched must come by http(s) and have a sha256",
            path=str(path),
        )
    if entry.shipped and (entry.url or entry.size_bytes is None or entry.sha256 is None):
        raise WeightsError(
            f"{path}: entry {entry.name}: what is shipped has size_bytes and sha256, and no url",
            path=str(path),
        )
    if entry.network not in NETWORKS:
        raise WeightsError(
            f"{path}: entry {entry.name}: there is no network '{entry.network}'", path=str(path)
        )
    return entry


def find_entry(manifest: Manifest, name: str) -> Entry:
    """Return the entry of this name.

    Raises:
        WeightsError: with the known names.
    """
    for entry in manifest.entries:
        if entry.name == name:
            return entry
    raise WeightsError(
        f"there is no model '{name}'. Known are {', '.join(e.name for e in manifest.entries)}; "
        "or give the path of a file",
        name=name,
    )


def file_of(manifest: Manifest, entry: Entry) -> Path | None:
    """Return where the file of an entry lies, None if it is not here."""
    # A file of that name among the downloads may be of another version of this package.
    for folder in (manifest.folder,) if entry.shipped else (download_folder(), manifest.folder):
        path = folder / entry.file
        if path.is_file():
            return path
    return None
