"""The versions of one deployment: what is published, and the ways forward and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.observation import Refusal
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.runtime.snapshot_files import Snapshot
from dae_ros.runtime.snapshots import SnapshotStore, withdrawn, withdrawn_mark
from dae_ros.runtime.weight_stages import Verdict as DepthVerdict

ORIGIN = "online"


class Publisher:
    """Knows what depth should have, as a file and as a network.

    The first version of a folder is the original, which is never removed. It is confirmed from the
    beginning, because depth began with it.

    Args:
        store: of the deployment; an empty one gets the original.
        original: from before adaptation.
        above: see the attribute.

    Attributes:
        above: versions are numbered above this, for a depth node that has seen higher ones.
        live: the version that is announced.
        network: its weights; the same object as long as these are, as a guard asks for.

    Raises:
        ConfigurationError: the folder is of another original.
        DistillationError, WeightsError: it cannot be read or written.
    """

    def __init__(self, store: SnapshotStore, original: ClipNetwork, above: int = 0) -> None:
        self._store = store
        self._original = original
        self.above = above
        self._whole: tuple[int, int] | None = None
        first = store.first()
        if first is None:
            first = self._write(original, step=0, score=1.0, parent=None, metrics={})
        self.first = first
        if not _equal(self._read(self.first).network.state_dict(), original.network.state_dict()):
            raise ConfigurationError(
                f"{store.folder} began with other weights than those that are given; give these, "
                "or another folder",
                path=str(store.folder),
            )
        if not self.first.confirmed:
            self.first = store.confirm(self.first)
        live = store.latest()
        self.live: Snapshot = self.first if live is None else live
        self.network = self._network_of(self.live)

    def publish(self, candidate: ClipNetwork, verdict: Verdict, step: int) -> Snapshot:
        """Write and announce a candidate that a guard has accepted.

        Raises:
            DistillationError: it cannot be written; everything is as it was.
        """
        snapshot = self._write(
            candidate,
            step=step,
            # Errors of different minutes are not comparable, but parts of the original's are.
            score=1.0 - verdict.numbers.get("gain_over_original", 0.0),
            parent=self.live.version,
            metrics=dict(verdict.numbers),
        )
        self.live, self.network = snapshot, candidate
        return snapshot

    def confirm(self, sha256: str) -> None:
        """Note that depth has watched and kept a version, the announced one or another.

        Nothing changes where it is not kept any more, or withdrawn.

        Raises:
            DistillationError, WeightsError: it cannot be written, or the folder not be read.
        """
        for found in self._good():
            if found.sha256 == sha256 and not found.confirmed:
                self._store.confirm(found)
                if found.version == self.live.version:
                    self.live = dataclasses.replace(self.live, confirmed=True)

    def way_back(self, answer: DepthVerdict) -> int | None:
        """Return the version to go back to where depth does not want one.

        It is the one that depth has, where that is kept here. Where depth has another, as after a
        restart, it is the newest of before that is confirmed. Where a person took depth back to
        what it began with, it is the original.

        Args:
            answer: by which depth took a version back, or refused it for what it does.

        Returns:
            None where that version is not kept any more or withdrawn, or is the original.

        Raises:
            WeightsError: the folder cannot be read.
        """
        good = self._good()
        unwanted = next((found for found in good if found.sha256 == answer.sha256), self.first)
        if unwanted.version == self.first.version:
            return None
        for found in good:
            if found.sha256 == answer.live_sha256 and found.version < unwanted.version:
                return found.version
        if answer.code == "requested" and answer.live_version == 0:
            return self.first.version
        return self._confirmed_before(unwanted.version)

    def go_back(self, version: int, reason: str) -> Snapshot:
        """Announce an earlier version and withdraw those after it.

        Args:
            version: to go back to; where it is not whole or was withdrawn, the newest of before
                that is confirmed.
            reason: a sentence, which stays beside the weights.

        Raises:
            DistillationError, WeightsError: it cannot be written, or the folder not be read.
        """
        whole = any(found.version == version and found.whole for found in self._good())
        target = version if whole else self._confirmed_before(version)
        snapshot = self._store.roll_back(target, reason)
        self.live, self.network = snapshot, self._network_of(snapshot)
        return snapshot

    def lineage(self) -> tuple[int, ...]:
        """Return the announced version and those that it was trained from, newest first.

        It ends where a version is not kept any more.
        """
        parents = {found.version: found.parent for found in self._store.snapshots()}
        found, parent = [self.live.version], self.live.parent
        while parent in parents and parent < found[-1]:
            found.append(parent)
            parent = parents[parent]
        return tuple(found)

    def damage(self) -> Refusal | None:
        """Return the refusal `folder` while the list of what was taken back cannot be read.

        Asked at every turn: what was whole is read again when it has changed.
        """
        mark = withdrawn_mark(self._store.folder)
        if mark is not None and mark == self._whole:
            return None
        try:
            withdrawn(self._store.folder)
        except WeightsError as error:
            return Refusal("folder", error.message)
        self._whole = mark
        return None

    def kept(self) -> list[Snapshot]:
        """Return the versions whose files are there, oldest first."""
        return self._store.snapshots()

    def close(self) -> None:
        """Free the folder."""
        self._store.close()

    def _good(self) -> list[Snapshot]:
        """Return the versions that are kept and were not withdrawn, oldest first."""
        gone = withdrawn(self._store.folder)
        return [found for found in self._store.snapshots() if found.sha256 not in gone]

    def _confirmed_before(self, version: int) -> int:
        """Return the newest confirmed version before another; the original is always one."""
        for found in reversed(self._good()):
            if found.version < version and found.confirmed and found.whole:
                return found.version
        return self.first.version

    def _network_of(self, snapshot: Snapshot) -> ClipNetwork:
        if snapshot.version == self.first.version:
            return self._original
        return self._read(snapshot)

    def _read(self, snapshot: Snapshot) -> ClipNetwork:
        weights = load_checkpoint(snapshot.path).network.state_dict()
        return self._original.with_weights(weights)

    def _write(
        self,
        network: ClipNetwork,
        *,
        step: int,
        score: float,
        parent: int | None,
        metrics: dict[str, float],
    ) -> Snapshot:
        extra = {"origin": ORIGIN, "step": str(step), "parent": str(parent or "")}

        def write(path: Path) -> None:
            save_checkpoint(path, network.network, network.meaning, extra=extra)

        return self._store.publish(
            write, step=step, score=score, metrics=metrics, parent=parent, above=self.above
        )


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        bool((tensor.cpu() == second[name].cpu()).all()) for name, tensor in first.items()
    )
