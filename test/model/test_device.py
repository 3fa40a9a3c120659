"""Devices are named the same way everywhere, and what is not there is refused by a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.cuda._utils import _get_device_index

from dae_ros.distillation.online.opening import open_student
from dae_ros.distillation.parallel import join_workers
from dae_ros.errors import ConfigurationError
from dae_ros.model.device import device_of
from dae_ros.model.untrained import untrained
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.torch_estimator import TorchEstimator

BAD = ["cuda:99", "mps", "gpu"]


def test_names_that_are_there() -> None:
    """`cpu` is itself; `auto` is a GPU exactly where PyTorch sees one."""
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_is_named_by_its_number(
    name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training makes it the process's own, for which PyTorch wants the number."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: chosen.append(_get_device_index(device))
    )
    assert device_of(name) == torch.device("cuda", index)
    with join_workers(name) as workers:
        assert workers.device == torch.device("cuda", index)
    assert chosen == [index]


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_not(name: str) -> None:
    """The error names the device and the parameter to set, for depth, training and learning."""

    def train() -> None:
        with join_workers(name):
            pass

    users = (
        lambda: device_of(name),
        lambda: TorchEstimator(untrained("micro"), device=name),
        train,
        lambda: open_student("untrained:micro", None, OnlineParameters(), name),
    )
    for user in users:
        with pytest.raises(ConfigurationError, match=f"device '{name}'") as caught:
            user()
        assert caught.value.data["parameter"] == "device"


def test_nothing_else_parses_devices() -> None:
    """One way from a name to a device: the sentence stands in one module."""
    root = Path(__file__).resolve().parents[2] / "dae_ros"
    found = [p.name for p in root.rglob("*.py") if "there is no device" in p.read_text()]
    assert found == ["device.py"]
