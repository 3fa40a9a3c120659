"""How much better one network is than another on the same clips, and how sure that is.

Clips of one time block show the same two seconds, so that blocks are what is drawn again, each
with what both networks made of it (paired bootstrap over clusters, Efron and Tibshirani 1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import DistillationError

RESAMPLES = 2000
_DRAW = 9  # stream of random numbers beside the seed


@dataclass(frozen=True, slots=True)
class Gain:
    """By which part the error fell: 0.1 is a tenth less, below 0 it rose.

    Attributes:
        mean: over all blocks.
        lower, upper: ends of the interval that holds it with the confidence asked for.
    """

    mean: float
    lower: float
    upper: float


def paired_gain(
    errors: NDArray[np.float64],
    reference: NDArray[np.float64],
    confidence: float,
    seed: int,
) -> Gain:
    """Return 1 - sum(errors) / sum(reference), with its interval.

    The interval has two ends, so that networks without a difference end above 0 in half of
    1 - confidence of the cases. With six blocks it is about 1 - confidence: quantiles of so few
    know less than they seem to.

    Args:
        errors, reference: float64[blocks], mean error of each block; finite, the reference's sum
            above 0.
        confidence: between 0 and 1.
        seed: of the drawing.

    Raises:
        DistillationError: no blocks, errors that are not paired, or not finite.
    """
    if errors.shape != reference.shape or errors.ndim != 1 or not errors.size:
        raise DistillationError(
            f"a gain needs two errors for every block, not {errors.shape} and {reference.shape}",
            errors=errors.shape,
            reference=reference.shape,
        )
    if not (np.isfinite(errors).all() and np.isfinite(reference).all() and reference.sum() > 0):
        raise DistillationError(
            "a gain needs finite errors and a reference above 0; judge such outputs before",
            errors=errors.tolist(),
            reference=reference.tolist(),
        )
    count = len(errors)
    drawn = np.random.default_rng([seed, _DRAW]).integers(count, size=(RESAMPLES, count))
    sums = reference[drawn].sum(axis=1)
    # A draw of blocks that the reference has no error on cannot show a gain.
    gains = np.full(RESAMPLES, -np.inf)
    np.divide(errors[drawn].sum(axis=1), sums, out=gains, where=sums > 0)
    gains = np.where(sums > 0, 1.0 - gains, -np.inf)
    tail = (1.0 - confidence) / 2.0
    lower, upper = np.quantile(gains, (tail, 1.0 - tail), method="inverted_cdf")
    return Gain(float(1.0 - errors.sum() / reference.sum()), float(lower), float(upper))
