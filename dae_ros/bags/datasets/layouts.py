"""Which data set a path belongs to, told by what is in it, not by its name."""

from __future__ import annotations

from pathlib import Path

from dae_ros.bags.container import Container
from dae_ros.bags.datasets import dsec, eventscape, voxel_folder
from dae_ros.bags.datasets.dsec import DsecSequence
from dae_ros.bags.datasets.eventscape import EventScapeSequence
from dae_ros.errors import RecordingError


def is_sequence_folder(path: Path) -> bool:
    """Return whether a folder is a sequence that `open_sequence_folder` opens."""
    return (path / dsec.EVENTS_FILE).is_file() or (path / eventscape.EVENTS).is_dir()


def open_sequence_folder(path: Path, size: tuple[int, int] | None) -> Container | None:
    """Open the folder of a data set's sequence; None where it is none.

    Args:
        path: an existing folder.
        size: (height, width) of the sensor in px, None for the data set's own.

    Raises:
        ConfigurationError: a package is missing that the data set needs.
        RecordingError: a sequence that is incomplete or damaged, or without events.
    """
    if (path / dsec.EVENTS_FILE).is_file():
        return DsecSequence(path, size)
    if (path / eventscape.EVENTS).is_dir():
        return EventScapeSequence(path, size)
    if voxel_folder.is_voxel_folder(path):
        raise RecordingError(
            f"{path} holds voxel grids instead of events, so that it cannot be run as a "
            f"recording; training and evaluation read it (labelled_windows)",
            path=str(path),
        )
    return None
