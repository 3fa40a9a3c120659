"""Versions on disk: whole after full disks and damage; nothing goes back."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dae_ros.errors import DistillationError, WeightsError
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshot_files import Snapshot
from dae_ros.runtime.snapshots import (
    LATEST,
    WITHDRAWN,
    SnapshotStore,
    read_confirmed,
    read_latest,
    withdrawn,
)
from dae_ros.runtime.weight_loading import Unusable, load_announced
from test.reference.full_disk import no_room_beyond
from test.reference.reloadable_estimator import ReloadableEstimator


def writing(text: str) -> Callable[[Path], object]:
    """Return what writes a file of this text."""
    return lambda path: path.write_text(text, encoding="utf-8")


def publish(store: SnapshotStore, score: float = 1.0, **facts: object) -> Snapshot:
    """Publish a version whose content is its score."""
    return store.publish(writing(f"weights of {score}"), step=0, score=score, **facts)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file but the lock."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}


def test_a_version_has_a_file_its_facts_and_is_the_latest(tmp_path: Path) -> None:
    """Names, digests and facts are those of the format; versions grow by one."""
    with SnapshotStore(tmp_path / "new" / "store") as store:
        assert store.latest() is None
        first = publish(store, 0.5, metrics={"abs_rel": 0.5})
        second = store.publish(writing("abc"), step=7, score=0.25, parent=first.version)
    folder = tmp_path / "new" / "store"
    assert [first.version, second.version] == [1, 2]
    assert (folder / "w_000002.safetensors").read_text(encoding="utf-8") == "abc"
    facts = json.loads((folder / LATEST).read_text(encoding="utf-8"))
    assert facts == json.loads((folder / "w_000002.json").read_text(encoding="utf-8"))
    assert facts == {
        "file": "w_000002.safetensors", "version": 2, "size": 3, "parent": 1, "step": 7,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "score": 0.25, "metrics": {}, "rollback": False, "confirmed": False,
    }  # fmt: skip
    assert read_latest(folder) == second
    assert second.announcement.path == folder / "w_000002.safetensors"


def test_announcements_survive_json_and_others_are_refused() -> None:
    """What was written is read again; a field that is wrong or missing is no announcement."""
    announcement = Announcement(3, Path("/w/a.safetensors"), "ab" * 32, 10, rollback=True)
    assert Announcement.from_json(announcement.to_json()) == announcement
    good = {"version": 1, "path": "/a", "sha256": "0" * 64, "size": 1, "later": "ignored"}
    confirmed = dataclasses.replace(announcement, rollback=False, confirmed=True)
    assert Announcement.from_json(confirmed.to_json()) == confirmed
    plain = Announcement.from_json(json.dumps(good))
    assert not plain.rollback and not plain.confirmed
    for wrong in (
        "", "7", "[]", "{",
        *(json.dumps({k: v for k, v in good.items() if k != name}) for name in list(good)[:4]),
        *(json.dumps({**good, **change}) for change in (
            {"version": 0}, {"version": "1"}, {"version": 1.5}, {"size": 0}, {"size": True},
            {"path": 7}, {"sha256": "xy"}, {"sha256": 7}, {"rollback": 1},
            {"confirmed": "yes"},
        )),
    ):  # fmt: skip
        with pytest.raises(WeightsError, match="no announcement"):
            Announcement.from_json(wrong)


def test_the_last_the_first_and_the_best_stay(tmp_path: Path) -> None:
    """Of twelve versions with keep=3 there are the first, the best and the last three."""
    with SnapshotStore(tmp_path, keep=3) as store:
        for score in (5.0, 4.0, 1.0, 3.0, *[2.0] * 8):
            publish(store, score)
        assert [s.version for s in store.snapshots()] == [1, 3, 10, 11, 12]
        assert len(list(tmp_path.glob("*.safetensors"))) == 5
        # What is announced stays too, however old.
        store.roll_back(10, "so")
        for _ in range(4):
            publish(store, 2.0)
            store.roll_back(10, "so")
        assert [s.version for s in store.snapshots()] == [1, 3, 10, 14, 15, 16]


def test_the_newest_version_that_depth_kept_stays(tmp_path: Path) -> None:
    """However many follow it while depth is away: it is the way back for depth that is far off."""
    with SnapshotStore(tmp_path, keep=2) as store:
        store.confirm(publish(store, 1.0))
        for _ in range(2):
            store.confirm(publish(store, 2.0))
        for _ in range(5):
            publish(store, 2.0)
        assert [s.version for s in store.snapshots()] == [1, 3, 7, 8]
        found = read_confirmed(tmp_path, below=8)
        assert found is not None and found.version == 3
        store.roll_back(1, "so")
        found = read_confirmed(tmp_path, below=8)
        assert found is not None and found.version == 1, "3 is withdrawn"
        assert read_confirmed(tmp_path, below=1) is None


def test_a_damaged_version_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """Truncated, altered, missing, and in the end damaged facts: the newest whole one is found."""
    with SnapshotStore(tmp_path) as store:
        for score in (5.0, 4.0, 3.0, 2.0):
            publish(store, score)
        assert store.latest().version == 4  # type: ignore[union-attr]
        path = tmp_path / "w_000004.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        assert store.latest().version == 3  # type: ignore[union-attr]
        path = tmp_path / "w_000003.safetensors"
        path.write_bytes(path.read_bytes().replace(b"w", b"W"))
        assert store.latest().version == 2  # type: ignore[union-attr]
        (tmp_path / LATEST).write_text("{", encoding="utf-8")
        assert store.latest().version == 2  # type: ignore[union-attr]
        (tmp_path / "w_000002.safetensors").unlink()
        (tmp_path / "w_000001.json").write_text('{"version": "one"}', encoding="utf-8")
        assert store.latest() is None
        # Numbers are never used twice, whatever is left of them.
        assert publish(store).version == 5


def test_what_was_gone_back_from_is_no_way_out_of_damage(tmp_path: Path) -> None:
    """Where the version that a rollback names is damaged, an older one follows, never a newer."""
    with SnapshotStore(tmp_path) as store:
        for score in (5.0, 4.0, 3.0):
            publish(store, score)
        store.roll_back(2, "so").path.write_bytes(b"damaged")
        assert store.latest().version == 1  # type: ignore[union-attr]


def test_going_back_is_announced_as_such(tmp_path: Path) -> None:
    """A rollback names an old version, and the next one is still newer than all."""
    with SnapshotStore(tmp_path) as store:
        first = publish(store, 5.0)
        publish(store, 4.0)
        back = store.roll_back(1, "so")
        assert (back.version, back.rollback, back.sha256) == (1, True, first.sha256)
        assert store.latest() == back
        assert publish(store, 3.0).version == 3
        assert publish(store, 3.0, above=40).version == 41
        (tmp_path / "w_000002.safetensors").unlink()
        with pytest.raises(DistillationError, match="version 2 is not whole"):
            store.roll_back(2, "so")


def test_what_depth_kept_is_known_to_every_later_start(tmp_path: Path) -> None:
    """A confirmed version is announced as one, also after it was gone back to; the next is not."""
    with SnapshotStore(tmp_path) as store:
        original = publish(store, 5.0)
        confirmed = store.confirm(original)
        assert confirmed == dataclasses.replace(original, confirmed=True)
        assert confirmed.announcement.confirmed
        assert read_latest(tmp_path) == confirmed
        assert not publish(store, 4.0).confirmed
        back = store.confirm(store.roll_back(1, "so"))
        assert (back.rollback, back.confirmed) == (True, True)
        assert store.snapshots()[0] == confirmed, "its own facts say nothing of a way back"
    with SnapshotStore(tmp_path) as store:
        assert store.latest() == back
        (tmp_path / LATEST).write_text("cut", encoding="utf-8")
        assert store.latest() == confirmed


def test_facts_that_are_damaged_cost_no_weights_and_no_number(tmp_path: Path) -> None:
    """Weights without facts are a leftover; those whose facts cannot be read are none."""
    with SnapshotStore(tmp_path) as store:
        assert store.first() is None
        first = publish(store)
        publish(store)
        assert store.first() == first
    for number in (1, 2):
        (tmp_path / f"w_{number:06d}.json").write_text("{", encoding="utf-8")
    (tmp_path / LATEST).unlink()
    (tmp_path / "w_000003.safetensors").write_bytes(b"cut")
    with SnapshotStore(tmp_path) as store:
        assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
            "w_000001.safetensors", "w_000002.safetensors",
        ]  # fmt: skip
        with pytest.raises(WeightsError, match=r"w_000001\.json is damaged.*Restore it"):
            store.first()
        assert publish(store).version == 3


def test_a_version_is_published_although_the_list_of_withdrawn_ones_is_damaged(
    tmp_path: Path,
) -> None:
    """It is announced already when what it pushes out is looked for: nothing is removed then."""
    with SnapshotStore(tmp_path, keep=1) as store:
        for score in (3.0, 2.0, 1.0):
            publish(store, score)
        (tmp_path / WITHDRAWN).write_text("{", encoding="utf-8")
        assert publish(store, 0.5).version == 4
        assert [s.version for s in store.snapshots()] == [1, 2, 3, 4]
        with pytest.raises(WeightsError, match="cannot be read"):
            store.roll_back(1, "so")
        (tmp_path / WITHDRAWN).unlink()
        assert publish(store, 0.2).version == 5
        assert [s.version for s in store.snapshots()] == [1, 4, 5]


def test_a_folder_that_cannot_be_reached_is_missing_and_not_damaged(tmp_path: Path) -> None:
    """Depth on another machine, or another user: what is announced there is not to be found."""
    announcement = Announcement(3, tmp_path / ("n" * 300) / "w_000003.safetensors", "0" * 64, 5)
    refused = load_announced(announcement, ReloadableEstimator())
    assert isinstance(refused, Unusable) and refused.code == "missing"


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """A write that is cut by a real limit of the system is an error, and changes no byte."""
    with SnapshotStore(tmp_path) as store:
        publish(store)
        before = contents(tmp_path)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            # First the weights do not fit, then their facts do not.
            for most, size in ((1000, 5000), (100, 50)):
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))
                with pytest.raises(DistillationError, match="Make room") as caught:
                    store.publish(lambda p, n=size: p.write_bytes(bytes(n)), step=1, score=1.0)  # type: ignore[misc]
                assert caught.value.data["path"] == str(tmp_path)
                assert contents(tmp_path) == before
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)
        assert publish(store).version == 2


@pytest.mark.parametrize("full_at", ["weights", "facts", "latest"])
def test_a_full_disk_removes_no_version(tmp_path: Path, full_at: str) -> None:
    """Of several versions, at whichever write there is no room, none is missing afterwards."""
    with SnapshotStore(tmp_path, keep=2) as store:
        for score in (5.0, 4.0, 3.0, 2.0):
            publish(store, score)
        assert [s.version for s in store.snapshots()] == [1, 3, 4]
        before = contents(tmp_path)
        if full_at == "latest":
            (tmp_path / f"{LATEST}.tmp").mkdir()  # what cannot be written to
        with (
            no_room_beyond({"weights": 10, "facts": 100, "latest": 10_000}[full_at]),
            pytest.raises(DistillationError, match="Make room"),
        ):
            publish(store, 1.0)
        if full_at == "latest":
            (tmp_path / f"{LATEST}.tmp").rmdir()
        assert contents(tmp_path) == before
        assert publish(store, 1.0).version == 5
        assert [s.version for s in store.snapshots()] == [1, 4, 5]


def test_what_can_be_neither_written_nor_removed_is_an_error_of_the_folder(tmp_path: Path) -> None:
    """As on a disk that has become read-only; the version before is announced and whole."""
    with SnapshotStore(tmp_path) as store:
        before = publish(store)
        strange = tmp_path / "w_000002.safetensors.tmp"
        strange.mkdir()
        with pytest.raises(DistillationError, match="announced before is whole"):
            publish(store)
        assert store.latest() == before
        strange.rmdir()
        assert publish(store).version == 2


def test_what_was_gone_back_from_is_never_taken_again(tmp_path: Path) -> None:
    """Not when LATEST.json is cut, not by depth after a restart, not by another rollback."""
    with SnapshotStore(tmp_path) as store:
        for score in (5.0, 4.0, 3.0, 2.0):
            publish(store, score)
        bad = store.snapshots()[3]
        store.roll_back(3, "it trembles")
        store.roll_back(2, "it is late")
    content = (tmp_path / LATEST).read_bytes()
    (tmp_path / LATEST).write_bytes(content[: len(content) // 2])
    with SnapshotStore(tmp_path) as store:
        latest = store.latest()
        assert latest is not None and latest.version == 2
        refused = load_announced(bad.announcement, ReloadableEstimator())
        assert isinstance(refused, Unusable) and refused.code == "blacklisted"
        assert "version 4: it trembles" in refused.reason
        with pytest.raises(DistillationError, match="version 3 is not whole"):
            store.roll_back(3, "so")
        # The list is as long as the folder, and what is published later is on none.
        following = publish(store, 1.0)
        assert set(withdrawn(tmp_path)) == {found.sha256 for found in store.snapshots()[2:4]}
        assert store.latest() == following


@pytest.mark.parametrize("text", ["", "[", "[]"])
def test_a_list_of_withdrawn_versions_that_is_damaged_is_not_passed_over(
    tmp_path: Path, text: str
) -> None:
    """Nobody knows what was taken back: neither side takes a version, and both say why."""
    with SnapshotStore(tmp_path) as store:
        published = publish(store)
        publish(store)
        store.roll_back(1, "so")
    (tmp_path / WITHDRAWN).write_text(text, encoding="utf-8")
    for _ in range(2):  # the lock is free again
        with pytest.raises(WeightsError, match=r"WITHDRAWN\.json cannot be read .*Restore it"):
            SnapshotStore(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_latest(tmp_path)
    refused = load_announced(published.announcement, ReloadableEstimator())
    assert isinstance(refused, Unusable) and refused.code == "damaged"


def test_a_withdrawn_version_is_not_announced_at_any_instant(tmp_path: Path) -> None:
    """A kill between the two files of a rollback: the version before is the latest."""
    with SnapshotStore(tmp_path) as store:
        for score in (5.0, 4.0, 3.0):
            publish(store, score)
        content = (tmp_path / LATEST).read_bytes()
        store.roll_back(1, "so")
        (tmp_path / LATEST).write_bytes(content)
        latest = store.latest()
        assert latest is not None and latest.version == 1


def test_what_the_writer_raises_changes_nothing(tmp_path: Path) -> None:
    """Weights that cannot be written are refused with their own error; so is a NaN as score."""

    def refuse(path: Path) -> None:
        path.write_bytes(b"half")
        raise WeightsError("not finite")

    with SnapshotStore(tmp_path) as store:
        publish(store)
        before = contents(tmp_path)
        with pytest.raises(WeightsError, match="not finite"):
            store.publish(refuse, step=1, score=1.0)
        with pytest.raises(DistillationError, match="score is nan"):
            publish(store, float("nan"))
        assert contents(tmp_path) == before


def test_trust_that_is_not_plainly_said_is_none(tmp_path: Path) -> None:
    """Facts that say `confirmed` by anything but true or false are damaged."""
    with SnapshotStore(tmp_path) as store:
        kept = publish(store)
        publish(store)
        for name in (LATEST, "w_000002.json"):
            facts = json.loads((tmp_path / name).read_text(encoding="utf-8"))
            (tmp_path / name).write_text(json.dumps({**facts, "confirmed": "no"}), "utf-8")
        assert store.latest() == kept
