"""What the tests of checkpoints share: an untrained network."""

from __future__ import annotations

import pytest

from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.untrained import untrained


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    """The tiny recurrent network."""
    return untrained("tiny")
