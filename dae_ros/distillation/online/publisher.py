"""The versions of one deployment: what is published, and the ways forward and back."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.observation import Refusal
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.runtime.snapshot_files import Snapshot
from dae_ros.runtime.snapshots import SnapshotStore, withdrawn

ORIGIN = "online"


class Publisher:
    """Knows what depth should have, as a file and as a network.

    The first version of a folder is the original, which is never removed.

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

    def confirm(self) -> Snapshot:
        """Note that depth has watched and kept the announced version; it is announced as that.

        Raises:
            DistillationError: it cannot be written.
        """
        self.live = self._store.confirm(self.live)
        return self.live

    def go_back(self, version: int, reason: str) -> Snapshot:
        """Announce an earlier version and withdraw those after it.

        Args:
            version: to go back to; the original is taken where it is not kept or was withdrawn.
            reason: a sentence, which stays beside the weights.

        Raises:
            DistillationError: it cannot be written.
        """
        gone = withdrawn(self._store.folder)
        kept = {found.version for found in self._store.snapshots() if found.sha256 not in gone}
        target = version if version in kept else self.first.version
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
        """Return the refusal `folder` while the list of what was taken back cannot be read."""
        try:
            withdrawn(self._store.folder)
        except WeightsError as error:
            return Refusal("folder", error.message)
        return None

    def kept(self) -> list[Snapshot]:
        """Return the versions whose files are there, oldest first."""
        return self._store.snapshots()

    def close(self) -> None:
        """Free the folder."""
        self._store.close()

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
