"""Weights of an announced version, verified and loaded beside those in use."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

from dae_ros.errors import InferenceError, WeightsError
from dae_ros.model.fetch import digest_of
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.background import BackgroundWork, in_background
from dae_ros.runtime.estimator import ReloadableEstimator
from dae_ros.runtime.snapshots import withdrawn


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Weights beside those in use.

    Attributes:
        estimator: with no state yet.
        change: |w - w_in_use| / |w_in_use|.
    """

    estimator: ReloadableEstimator
    change: float


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why there are none: a stable word, and a sentence."""

    code: str
    reason: str


Result: TypeAlias = "LoadedWeights | Unusable"


def load_announced(announcement: Announcement, in_use: ReloadableEstimator) -> Result:
    """Check size and digest of a file and load it; raises nothing.

    Returns:
        The weights, or one of the codes `missing`, `size`, `sha256`, `damaged`, `other_network`,
        `other_meaning`, `backend`, `memory`; or `blacklisted` where its folder says that it was
        withdrawn.
    """
    path = announcement.path
    try:
        # First: where the trainer's folder is not to be reached, no list in it is damaged.
        size = path.stat().st_size
        reason = withdrawn(path.parent).get(announcement.sha256)
        if reason is not None:
            return Unusable("blacklisted", f"it was withdrawn by its trainer: {reason}")
        if size != announcement.size:
            return Unusable("size", f"{path} has {size} bytes, announced are {announcement.size}")
        digest = digest_of(path)
        if digest != announcement.sha256:
            return Unusable("sha256", f"{path} has sha256 {digest}, not {announcement.sha256}")
        estimator = in_use.successor(path, announcement.version)
        if estimator.digest != announcement.sha256:
            return Unusable("sha256", f"{path} was replaced while it was read")
        return LoadedWeights(estimator, estimator.weight_change(in_use))
    except OSError as error:
        return Unusable("missing", f"{path} cannot be read ({error})")
    except WeightsError as error:
        return Unusable(str(error.data.get("refusal", "damaged")), error.message)
    except InferenceError as error:
        return Unusable("memory", error.message)
    except Exception as error:  # noqa: BLE001 - what a file can cause has no end, and depth asks
        # for the result between two windows: whatever it is must not end depth, with weights in
        # use that are as good as before.
        reason = f"{path} cannot be loaded ({type(error).__name__}: {error})"
        return Unusable("damaged", reason)


class WeightLoader:
    """Loads one version, on a thread of low priority or at once.

    Args:
        announcement: of the version.
        in_use: the weights in use; they may step meanwhile.
        background: whether on a thread.
    """

    def __init__(
        self, announcement: Announcement, in_use: ReloadableEstimator, *, background: bool
    ) -> None:
        self.announcement = announcement
        self._work: BackgroundWork[Result] | None = None
        self._result: Future[Result] = Future()
        if not background:
            self._result.set_result(load_announced(announcement, in_use))
            return
        self._result = self._work = in_background(lambda: load_announced(announcement, in_use))

    def take(self) -> Result | None:
        """Return the result, None while it loads."""
        return self._result.result() if self._result.done() else None

    def join(self, timeout_s: float) -> None:
        """Wait so long for the end of the loading."""
        if self._work is not None:
            self._work.join(timeout_s)
