"""Lifecycle transitions through the harness: of a real node, and where requests get lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from dae_ros.nodes import process_harness
from dae_ros.nodes.process_harness import ProcessError, ProcessHarness
from dae_ros.nodes.processes import Process

CONFIGURE = Transition.TRANSITION_CONFIGURE


class Lost(Exception):
    """What a service raises so that no answer leaves, as if request or answer had been lost."""


class LossyServices:
    """The services of a lifecycle node `stand_in` whose first answers are lost.

    Args:
        lost: how many.
        carried_out: whether the lost ones are carried out all the same.
    """

    def __init__(self, lost: int, carried_out: bool) -> None:
        self.lost, self.carried_out = lost, carried_out
        self.requests, self.state = 0, State.PRIMARY_STATE_UNCONFIGURED
        self.node = Node("stand_in")
        self.node.create_service(ChangeState, "~/change_state", self._change)
        self.node.create_service(GetState, "~/get_state", self._get)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _change(self, request: Any, response: Any) -> Any:
        assert request.transition.id == CONFIGURE
        self.requests += 1
        is_lost = self.requests <= self.lost
        response.success = self.state == State.PRIMARY_STATE_UNCONFIGURED
        if response.success and (self.carried_out or not is_lost):
            self.state = State.PRIMARY_STATE_INACTIVE
        if is_lost:
            raise Lost
        return response

    def _get(self, _: Any, response: Any) -> Any:
        response.current_state.id = self.state
        return response

    def _spin(self) -> None:
        while not self._stopping.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.05)
            except Lost:
                continue

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def lossy(ros: None) -> Iterator[Callable[..., LossyServices]]:
    """Make services that lose answers; all are closed afterwards."""
    made: list[LossyServices] = []

    def make(lost: int, carried_out: bool) -> LossyServices:
        made.append(LossyServices(lost, carried_out))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessHarness]:
    """Run a process without services of its own, and ask again soon."""
    nodes = tmp_path / "dae_ros" / "nodes"
    nodes.mkdir(parents=True)
    for folder in (nodes.parent, nodes):
        (folder / "__init__.py").touch()
    (nodes / "stand_in.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process_harness, "ASK_AGAIN_S", 0.5)
    with ProcessHarness([Process("dae_ros", "stand_in", "stand_in")]) as running:
        yield running


@pytest.mark.parametrize("carried_out", [False, True], ids=["request", "answer"])
def test_a_lost_request_or_answer_is_asked_for_again(
    lossy: Callable[..., LossyServices], harness: ProcessHarness, carried_out: bool
) -> None:
    """The transition is made once, and reported as made, whichever direction was not matched."""
    services = lossy(2, carried_out)
    assert harness.change_state("stand_in", CONFIGURE, 20.0)
    assert services.requests >= 3
    assert services.state == State.PRIMARY_STATE_INACTIVE


def test_a_refused_transition_is_not_taken_for_a_made_one(
    lossy: Callable[..., LossyServices], harness: ProcessHarness
) -> None:
    """A node that is in the wrong state says no, at once or after a lost answer."""
    for lost in (0, 1):
        services = lossy(lost, carried_out=False)
        services.state = State.PRIMARY_STATE_ACTIVE
        assert not harness.change_state("stand_in", CONFIGURE, 20.0)
        assert services.requests > lost
        services.close()


def test_who_never_answers_is_named(
    lossy: Callable[..., LossyServices], harness: ProcessHarness
) -> None:
    """Waiting ends in time, with the service's name, whether it is there or not."""
    with pytest.raises(ProcessError, match="nobody offers the service /stand_in/change_state"):
        harness.change_state("stand_in", CONFIGURE, 0.3)
    lossy(1000, carried_out=False)
    with pytest.raises(ProcessError, match=r"/stand_in/change_state did not answer in 2 s"):
        harness.change_state("stand_in", CONFIGURE, 2.0)


def test_a_real_node_goes_through_its_states(ros: None) -> None:
    """A depth node that does not start itself is configured, activated and taken back."""
    process = Process(
        "dae_ros",
        "depth_node",
        "depth",
        parameters={
            "weights": "untrained:tiny",
            "device": "cpu",
            "threads": 1,
            "autostart": False,
        },
    )
    with ProcessHarness([process]) as running:
        for transition, made in (
            (Transition.TRANSITION_ACTIVATE, False),
            (CONFIGURE, True),
            (Transition.TRANSITION_ACTIVATE, True),
            (Transition.TRANSITION_DEACTIVATE, True),
            (Transition.TRANSITION_CLEANUP, True),
        ):
            assert running.change_state("depth", transition, 60.0) == made
        assert running["depth"].exit_code is None
