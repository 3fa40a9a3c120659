"""What of PyTorch belongs to the whole process."""

from __future__ import annotations

import os

import pytest
import torch

from dae_ros.runtime.torch_process import repeatable


@pytest.mark.parametrize(("device", "set_inside"), [("cuda:0", True), ("cpu", False)])
def test_a_run_on_a_gpu_has_every_deterministic_switch(
    monkeypatch: pytest.MonkeyPatch, device: str, set_inside: bool
) -> None:
    """As long as it runs: then all are as they were; on a CPU nothing is touched."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with repeatable(torch.device(device)):
        assert torch.are_deterministic_algorithms_enabled() is set_inside
        assert torch.backends.cudnn.benchmark is not set_inside
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is set_inside
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.benchmark
