"""Which way round a student has learned depth: measured, because the loss accepts both.

L_si fits a scale of either sign to each image, as published. A student whose number falls with
depth is taught, and scored by the published alignment, as well as one whose number grows. Falling
with depth is not being inverse depth either, so such weights are of unknown orientation.
"""

from __future__ import annotations

from collections.abc import Mapping

from dae_ros.model.configuration import Orientation

# From this share of images with a scale above 0 on, a student's number is called depth.
UPRIGHT = 0.9
# Below this share of held-out windows their score is mostly that of constants.
MEANINGFUL = 0.5
# The last fits count: halved every so many updates, and believed from so many fits on.
HALVED_EVERY, FITS_AT_LEAST = 25, 200
# Signs of an untrained student are those of a coin.
UPSIDE_DOWN = 0.75


class UprightWatch:
    """Counts the signs of fitted scales, of updates and of held-out windows.

    Args:
        metric: whether the loss compares metres, which no student can learn upside down.
    """

    def __init__(self, metric: bool) -> None:
        self._metric = metric
        self._fits = 0
        self._below = 0
        self._heldout: float | None = None

    def update(self, step: int, fits: int, below: int) -> None:
        """Take in one update.

        Args:
            step: of the update.
            fits: images whose scale was fitted.
            below: of these, with a scale below 0.
        """
        if step % HALVED_EVERY == 0:
            self._fits //= 2
            self._below //= 2
        self._fits += fits
        self._below += below

    def score(self, positive_scale: float) -> None:
        """Take in the share of held-out windows with a scale above 0; NaN says nothing."""
        if positive_scale == positive_scale:
            self._heldout = positive_scale

    @property
    def share(self) -> float | None:
        """Share of images with a scale above 0: held-out, else of the last updates; None early."""
        if self._heldout is not None:
            return self._heldout
        return 1 - self._below / self._fits if self._fits >= FITS_AT_LEAST else None

    @property
    def orientation(self) -> Orientation:
        """What the weights may say of themselves."""
        share = self.share
        return "depth" if self._metric or (share is not None and share >= UPRIGHT) else "unknown"

    @property
    def measured(self) -> str:
        """On what the orientation rests, for the checkpoint."""
        share = self.share
        if self._metric:
            return "depth: the loss compares metres"
        if share is None:
            return "unknown: not measured yet"
        where = "of the last updates' images" if self._heldout is None else "of held-out windows"
        return f"{self.orientation}: scale above 0 on {share:.3f} {where}"

    @property
    def warning(self) -> str:
        """Return what a user must know by now, a sentence; empty where all is well."""
        if self._metric:
            return ""
        learned = self._below / self._fits if self._fits >= FITS_AT_LEAST else 0.0
        scored = 0.0 if self._heldout is None else 1 - self._heldout
        if learned <= UPSIDE_DOWN and scored <= MEANINGFUL:
            return ""
        where = "held-out windows" if scored > MEANINGFUL else "the last updates' images"
        return (
            f"depth is upside down on {max(learned, scored):.0%} of {where} (fitted scale not "
            "above 0), which the published loss accepts; as it is, the checkpoint will say "
            "orientation: unknown. Begin with weights that give depth, add the normalised term, "
            "which turns a student (--set normalised_weight=0.5), or teach metres first (--set "
            "loss=log_depth)"
        )

    def state(self) -> dict[str, float | None]:
        """Return what a run that goes on needs."""
        return {"fits": self._fits, "below": self._below, "heldout": self._heldout}

    def load(self, state: Mapping[str, float | None]) -> None:
        """Go on from what `state` gave; an empty one is a beginning."""
        self._fits = int(state.get("fits") or 0)
        self._below = int(state.get("below") or 0)
        self._heldout = state.get("heldout")
