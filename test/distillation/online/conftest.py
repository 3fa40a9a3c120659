"""What the tests of online learning share: a small student and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from dae_ros.model.checkpoint import LoadedModel
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.taught_student import taught_student

Online = Callable[..., OnlineParameters]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Learn with one thread: networks are too small for more, which would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def online() -> Online:
    """Parameters for clips of five windows; keywords change single ones."""

    def build(**changes: Any) -> OnlineParameters:
        values = {"lead": 1, "burn_in": 2, "unroll": 2, "labels_per_clip": 2}
        return OnlineParameters.from_mapping({**values, **changes})

    return build


@pytest.fixture(scope="session")
def student() -> LoadedModel:
    """A metric `micro` for 28 x 42 px that has seen a few wedges; its depth correlates."""
    return taught_student()
