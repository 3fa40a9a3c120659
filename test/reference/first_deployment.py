"""What a deployment at the wall sees first, and what its reports say."""

from __future__ import annotations

from pathlib import Path

from dae_ros.distillation.online.reports import LoopReport
from test.reference.wall_deployment import items

SEEN = items(1, 2000)
# Folder, reports, status at the end.
FirstRun = tuple[Path, list[LoopReport], dict[str, object]]


def published(reports: list[LoopReport]) -> list[int]:
    """Return the versions that were announced."""
    return [r.announcement.version for r in reports if r.announcement is not None]
