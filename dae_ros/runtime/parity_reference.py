"""What PyTorch put out at the export of a graph, kept in its file to compare any runtime with."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Rows and columns of the grid of pixels that are kept, borders included.
GRID = 32


@dataclass(frozen=True, slots=True)
class Deviation:
    """Differences from PyTorch, in standard deviations of its output; the worst step of each.

    Attributes:
        root_mean_square: over the image.
        largest: of a pixel.
        steps: compared, the state carried from one to the next.
    """

    root_mean_square: float
    largest: float
    steps: int


@dataclass(frozen=True, slots=True)
class ParityReference:
    """PyTorch's predictions in float32 over the steps of the check, at a grid of pixels.

    Attributes:
        events_sha256: of the events that the images were made of, see `onnx_parity.moving_events`.
        steps: how many predictions there are.
        values: float32, little endian: the pixels of `at_grid`, step after step.
    """

    events_sha256: str
    steps: int
    values: bytes

    @classmethod
    def of(cls, events_sha256: str, predictions: Sequence[NDArray[np.float32]]) -> ParityReference:
        """Return what is kept of whole predictions, float32[height, width] each."""
        kept = np.stack([at_grid(prediction) for prediction in predictions])
        return cls(events_sha256, len(predictions), kept.astype("<f4").tobytes())

    def to_json(self) -> str:
        """Return all as a text."""
        values = base64.b64encode(self.values).decode("ascii")
        return json.dumps(
            {"events_sha256": self.events_sha256, "steps": self.steps, "values": values}
        )

    @classmethod
    def from_json(cls, text: str) -> ParityReference:
        """Build from what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        facts = json.loads(text)
        try:
            values = base64.b64decode(facts["values"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"the values of the parity reference: {error}") from error
        steps = int(facts["steps"])
        if steps < 1 or not values or len(values) % (4 * steps):
            raise ValueError(f"{len(values)} bytes are no predictions of {steps} steps")
        return cls(str(facts["events_sha256"]), steps, values)

    def deviation_of(self, predictions: Sequence[NDArray[np.float32]]) -> Deviation:
        """Return how far other predictions of the same steps are; not finite if one is not.

        Args:
            predictions: float32[height, width] each.

        Raises:
            ValueError: they are of other steps or of another size.
        """
        expected = np.frombuffer(self.values, "<f4").astype(np.float64).reshape(self.steps, -1)
        difference = np.stack([at_grid(one) for one in predictions]).astype(np.float64) - expected
        spread = expected.std(axis=1)
        squares = np.sqrt(np.square(difference).mean(axis=1)) / spread
        largest = np.abs(difference).max(axis=1) / spread
        return Deviation(float(squares.max()), float(largest.max()), self.steps)


def at_grid(prediction: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the pixels of a grid of at most GRID x GRID, from border to border, row by row."""
    rows, columns = (
        np.linspace(0, side - 1, min(side, GRID)).round().astype(np.intp)
        for side in prediction.shape
    )
    return prediction[np.ix_(rows, columns)].ravel()
