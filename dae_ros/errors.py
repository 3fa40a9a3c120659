"""The error taxonomy: every error carries its data and a stable code.

The code is also the key under which a node counts the error in `/diagnostics`.
Gaps, empty windows and rejected candidates are ordinary return values, not errors.
"""

from __future__ import annotations

import os


class DaeError(Exception):
    """Root of all errors of this package.

    Args:
        message: one or two sentences: what is wrong, and what to do next.
        data: the facts behind the message (path, expected, actual, ...), kept as `.data`.
    """

    code = "error"

    def __init__(self, message: str, **data: object) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, object] = data


class ConfigurationError(DaeError):
    """A parameter, a combination of parameters or a missing optional package."""

    code = "configuration"


class WeightsError(DaeError):
    """A checkpoint that is missing, damaged, of another network, or not trusted."""

    code = "weights"


class PacketError(DaeError):
    """A message from the event stream that cannot be used; the stream goes on without it."""

    code = "packet"


class UnsupportedEncoding(PacketError):
    """An encoding for which there is no decoder."""

    code = "unsupported_encoding"


class MalformedPacket(PacketError):
    """Serialized bytes or a payload that contradict their own layout."""

    code = "malformed_packet"


class TimeDisorder(PacketError):
    """Event time ran back further than disorder can explain; `.segments` holds all events."""

    code = "time_disorder"


class RecordingError(DaeError):
    """A recording that is missing, truncated or of an unknown layout."""

    code = "recording"


class InferenceError(DaeError):
    """A failure of the backend during one step."""

    code = "inference"


class NonFiniteState(InferenceError):
    """The network's output or recurrent state holds NaN or infinity."""

    code = "non_finite_state"


class DistillationError(DaeError):
    """A failure of the learning side; depth is never touched by it."""

    code = "distillation"


def reason_of(error: OSError) -> str:
    """Return why the system refused, such as `No space left on device`, without HDF5's page."""
    return os.strerror(error.errno) if error.errno else str(error)
