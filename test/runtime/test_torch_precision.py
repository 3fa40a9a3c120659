"""Which arithmetic `precision: auto` is on GPUs of every age, and that it is told."""

from __future__ import annotations

import pytest
import torch

from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import torch_estimator
from dae_ros.runtime.torch_estimator import create_torch_estimator
from dae_ros.runtime.torch_precision import precision_note, usual_torch_precision

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "network", "expected"),
    [
        ((9, 0), "tiny", "bfloat16"),
        ((8, 0), "tiny_ereformer", "bfloat16"),
        ((8, 7), "tiny", "bfloat16"),  # Jetson Orin
        ((7, 5), "tiny", "float16"),
        ((7, 2), "tiny_e2depth", "float16"),  # Jetson Xavier
        ((7, 0), "tiny_ereformer", "float32"),
        ((6, 1), "tiny", "float32"),
        ((5, 3), "tiny", "float32"),
    ],
)
def test_auto_is_never_emulated_and_never_overflows(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], network: str, expected: str
) -> None:
    """bfloat16 from Ampere on, float16 on Volta and Turing where the network bears it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    precision = usual_torch_precision(CUDA, untrained(network).config)
    assert precision == expected
    said = precision_note(CUDA, precision)
    assert len(said) == (expected != "bfloat16")
    assert all(f"in {expected} here" in note and f"{capability[0]}.{capability[1]}" in note
               for note in said)  # fmt: skip


def test_an_older_gpu_is_a_note_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads with `auto` sees it; whoever names the precision, or has a CPU, does not."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    plain = untrained("tiny").notes
    tiny = DepthParameters(weights="untrained:tiny", device="cpu")
    assert create_torch_estimator(tiny).notes == plain
    made: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(torch_estimator, "device_of", lambda _: CUDA)
    monkeypatch.setattr(
        torch_estimator,
        "TorchEstimator",
        lambda loaded, *, precision, **_: made.append((precision, loaded.notes)),
    )
    for precision in ("auto", "bfloat16"):
        create_torch_estimator(DepthParameters(weights="untrained:tiny", precision=precision))
    (auto, notes), named = made
    assert auto == "float16" and "capability 7.5 emulate bfloat16" in notes[-1]
    assert named == ("bfloat16", plain)
