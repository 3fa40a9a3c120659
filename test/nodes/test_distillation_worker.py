"""The thread that learns: what it does while a piece of work is in hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from dae_ros.distillation.online.health import Health
from dae_ros.distillation.online.live import LiveDistillation
from dae_ros.distillation.online.reports import LiveStatus, LoopReport
from dae_ros.events.frame import Frame
from dae_ros.nodes.distillation_outputs import _budget
from dae_ros.nodes.distillation_worker import (
    Activate,
    DepthImage,
    DistillationSnapshot,
    DistillationWorker,
    DroppedWindows,
)
from dae_ros.parameters import DistillationNodeParameters
from test.reference.prepared_learner import SECOND, write_files
from test.reference.running_learner import SEEN


def test_depth_is_heard_and_the_status_goes_on_within_a_piece_of_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither waits for the end of a step; what depth lost is in the status before that."""
    threads = torch.get_num_threads()
    said: list[LoopReport | DistillationSnapshot] = []
    parameters = DistillationNodeParameters.from_mapping(
        {**write_files(tmp_path, SEEN), "folder": str(tmp_path / "folder"), "recovery_s": 1.0}
    )
    worker = DistillationWorker(
        parameters,
        announce=lambda _: None,
        reported=lambda report, _: said.append(report),
        changed=said.append,
        warn=pytest.fail,
        failed=lambda fault: pytest.fail(fault.message),
    )
    clock = itertools.count(0, SECOND // 50)
    # Without its thread, on a clock of the test; otherwise as the thread opens it.
    worker._live = live = LiveDistillation(
        parameters,
        announce=lambda _: None,
        interrupted=worker._interrupted,
        clock_ns=lambda: next(clock),
    )
    assert live._distiller is not None
    learner = live._distiller._learner
    undisturbed = learner.step
    begun = []

    def disturbed(*arguments: Any) -> Any:
        begun.append(len(said))
        worker.put_command(DepthImage(2.0))
        worker.put_command(DroppedWindows(3))
        return undisturbed(*arguments)

    monkeypatch.setattr(learner, "step", disturbed)
    worker.put_command(Activate(True))
    for item in SEEN:
        live.add_frame(item) if isinstance(item, Frame) else live.feed(item)
        worker._turn()
        if begun:
            break
    live.close()
    torch.set_num_threads(threads)
    reports = [one for one in said if isinstance(one, LoopReport)]
    assert reports[-1].action == "learned"
    within = said[begun[0] : said.index(reports[-1])]
    assert within and isinstance(within[0], DistillationSnapshot)
    assert within[0].live.health.text == "holding:windows_dropped" and within[0].live.duty == 0.0


@pytest.mark.parametrize(
    ("rest_ns", "said"),
    [(None, ""), (0, "0.00"), (1_500_000_000, "1.50"), (10**13, ""), (10**27, "")],
)
def test_a_rest_that_the_growing_share_will_shorten_is_not_told(
    rest_ns: int | None, said: str
) -> None:
    """At a share near 0 it would be centuries, and it is over in minutes."""
    live = LiveStatus(Health("active"), None, 1e-18, rest_ns, None, "", {})
    values = {item.key: item.value for item in _budget(live).values}
    assert values["rest_s"] == said
