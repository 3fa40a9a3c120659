"""What the tests of online learning share: a small student and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dae_ros.model.checkpoint import LoadedModel, save_checkpoint
from dae_ros.parameters.distillation import OnlineParameters
from test.reference import first_deployment
from test.reference.echo_onnx import write_echo
from test.reference.running_learner import SEEN, Make, Running
from test.reference.taught_student import taught_student
from test.reference.wall_deployment import PARAMETERS, EchoTeacher, deployment, run

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
def student() -> Iterator[LoadedModel]:
    """A metric `micro` for 28 x 42 px that has seen a few wedges; its depth correlates.

    All tests of a process share it; who changes weights changes a copy.
    """
    taught = taught_student()
    before = {name: value.clone() for name, value in taught.network.state_dict().items()}
    yield taught
    after = taught.network.state_dict()
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []


@pytest.fixture(scope="session")
def teacher(student: LoadedModel) -> EchoTeacher:
    """Says 1.2 times what the student says."""
    return EchoTeacher(student, first_deployment.SEEN, 1.2)


@pytest.fixture(scope="session")
def first_run(
    student: LoadedModel, teacher: EchoTeacher, tmp_path_factory: pytest.TempPathFactory
) -> first_deployment.FirstRun:
    """A deployment that has seen everything; who goes on with its folder copies it."""
    folder = tmp_path_factory.mktemp("first")
    distiller = deployment(student, teacher, folder)
    reports = list(run(distiller, first_deployment.SEEN))
    distiller.save()
    status = distiller.status().to_dict()
    distiller.close()
    return folder, reports, status


@pytest.fixture(scope="session")
def learner_files(student: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, and a teacher that says 1.2 times what it says."""
    folder = tmp_path_factory.mktemp("files")
    save_checkpoint(folder / "student.safetensors", student.network, student.meaning)
    write_echo(folder, EchoTeacher(student, SEEN, 1.2).known, 1.2)
    return folder


@pytest.fixture
def make(learner_files: Path, tmp_path: Path) -> Iterator[Make]:
    """Begin to learn with the parameters of a test; closed at its end."""
    made: list[Running] = []

    def build(**changes: Any) -> Running:
        values = {
            **PARAMETERS, "pinned_clips": 2, "weights": str(learner_files / "student.safetensors"),
            "teacher": str(learner_files / "echo.yaml"), "folder": str(tmp_path / "folder"),
            "device": "cpu", "threads": 1, "duty": 1.0, "hold_after_s": 5.0, **changes,
        }  # fmt: skip
        made.append(Running(values))
        return made[-1]

    yield build
    for running in made:
        running.live.close()
