"""Which version depth should have: what it watched is noted, what it does not want is withdrawn."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.publisher import Publisher
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshots import SnapshotStore, read_latest, withdrawn
from dae_ros.runtime.weight_stages import Outcome
from test.reference.wall_deployment import depth_says

ELSEWHERE = Announcement(7, Path("/elsewhere"), "7" * 64, 1)


class Folder:
    """A publisher, and every version that it published."""

    def __init__(self, folder: Path, student: LoadedModel) -> None:
        self.folder = folder
        self._original = ClipNetwork(student.network, student.meaning)
        self.open()
        self.versions = {1: self.publisher.live.announcement}

    def open(self) -> None:
        """Begin, or go on after a restart."""
        self.publisher = Publisher(SnapshotStore(self.folder), self._original)

    def publish(self, count: int) -> None:
        """Publish so many versions, each with other weights."""
        for _ in range(count):
            weights = dict(self._original.network.state_dict())
            name = next(iter(weights))
            weights[name] = weights[name] + 1e-3 * len(self.versions)
            candidate = self._original.with_weights(weights)
            made = self.publisher.publish(candidate, Verdict((), {}), 0)
            self.versions[made.version] = made.announcement

    def confirm(self, *versions: int) -> None:
        """Let depth keep versions."""
        for version in versions:
            self.publisher.confirm(self.versions[version].sha256)

    def way_back(self, version: int, code: str, live: Announcement | None = None) -> int | None:
        """Let depth say no to a version; return where that leads."""
        outcome: Outcome = "rolled_back" if code == "requested" else "refused"
        says = depth_says(self.versions[version], outcome, code, live)
        return self.publisher.way_back(says)


@pytest.fixture
def folder(student: LoadedModel, tmp_path: Path) -> Iterator[Folder]:
    """Versions 1 to 5, of which depth has kept 2 and 3."""
    made = Folder(tmp_path, student)
    made.publish(4)
    made.confirm(2, 3)
    yield made
    made.publisher.close()


def test_the_original_is_confirmed_from_the_beginning(student: LoadedModel, tmp_path: Path) -> None:
    """Depth began with it; a folder that was begun before that was noted learns it at a start."""
    made = Folder(tmp_path, student)
    assert made.publisher.live.announcement.confirmed
    made.publish(1)
    assert not made.publisher.live.confirmed
    made.publisher.close()
    facts = tmp_path / "w_000001.json"
    facts.write_text(facts.read_text().replace('"confirmed": true', '"confirmed": false'))
    made.open()
    assert made.publisher.first.confirmed and '"confirmed": true' in facts.read_text()
    assert made.publisher.live.version == 2 and not made.publisher.live.confirmed
    made.publisher.close()


def test_what_depth_kept_is_noted_although_another_is_announced(folder: Folder) -> None:
    """Of the version that it is, whatever came after it; of one that was withdrawn nothing is."""
    assert [one.confirmed for one in folder.publisher.kept()] == [True, True, True, False, False]
    latest = read_latest(folder.folder)
    assert latest is not None and (latest.version, latest.confirmed) == (5, False)
    folder.confirm(5)
    latest = read_latest(folder.folder)
    assert latest is not None and latest.confirmed and folder.publisher.live.confirmed
    folder.publisher.go_back(3, "so")
    folder.confirm(4)
    assert [one.confirmed for one in folder.publisher.kept()][3] is False


def test_a_version_that_depth_does_not_want_leads_to_the_one_that_it_has(folder: Folder) -> None:
    """Also where it is not the announced one; by what its file is, not by its number."""
    assert folder.way_back(5, "flicker", folder.versions[4]) == 4
    assert folder.way_back(4, "requested", folder.versions[2]) == 2
    assert folder.way_back(4, "flicker", folder.versions[5]) == 3, "5 came after it"
    assert folder.way_back(5, "flicker", dataclasses.replace(ELSEWHERE, version=4)) == 3


def test_a_depth_node_that_began_anew_does_not_cost_what_was_kept(folder: Folder) -> None:
    """It has the original, and refuses what is far: the newest that is confirmed comes next."""
    assert folder.way_back(5, "scale_step") == 3
    assert folder.way_back(3, "slow") == 2
    assert folder.way_back(3, "requested") == 1, "a person went back to the original"
    assert folder.way_back(1, "slow") is None
    folder.publisher.go_back(3, "so")
    assert folder.way_back(5, "scale_step") is None, "it is withdrawn already"
    assert folder.publisher.live.announcement.rollback and folder.publisher.live.confirmed
    assert len(withdrawn(folder.folder)) == 2


def test_a_way_back_leads_past_what_is_not_whole(folder: Folder) -> None:
    """To the newest confirmed version of before, whose file is."""
    folder.versions[3].path.write_bytes(b"damaged")
    assert folder.publisher.go_back(3, "so").version == 2
    assert torch.equal(
        next(iter(folder.publisher.network.network.state_dict().values())),
        next(iter(folder.publisher._read(folder.publisher.live).network.state_dict().values())),
    )


def test_a_list_that_is_damaged_later_is_noticed(folder: Folder) -> None:
    """Also where the file looks as old as it was when it was whole; and so is its repair."""
    path, publisher = folder.folder / "WITHDRAWN.json", folder.publisher
    assert publisher.damage() is None
    publisher.go_back(3, "so")
    assert publisher.damage() is None and publisher.damage() is None
    whole, stamp = path.read_bytes(), path.stat()
    path.write_bytes(whole[:-5])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    for _ in range(2):
        refusal = publisher.damage()
        assert refusal is not None and "WITHDRAWN.json" in refusal.detail
    path.write_bytes(whole)
    assert publisher.damage() is None


def test_a_damaged_list_is_no_answer(folder: Folder) -> None:
    """Neither is anything confirmed then, nor does a way lead back."""
    (folder.folder / "WITHDRAWN.json").write_text("{")
    with pytest.raises(WeightsError, match="WITHDRAWN"):
        folder.way_back(5, "flicker")
    with pytest.raises(WeightsError, match="WITHDRAWN"):
        folder.confirm(5)
