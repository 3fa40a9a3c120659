"""What the precision `auto` is on PyTorch."""

from __future__ import annotations

import torch

from dae_ros.model.ereformer import EReFormerConfig
from dae_ros.model.networks import NetworkConfig
from dae_ros.runtime.torch_step import Precision

# Compute capabilities (CUDA Programming Guide, Arithmetic Instructions): from Ampere on the units
# have bfloat16, which is emulated before. Volta and Turing have float16 at full speed; what is
# older mostly has it slower than float32.
_HAS_BFLOAT16 = (8, 0)
_HAS_FLOAT16 = (7, 0)


def usual_torch_precision(device: torch.device, config: NetworkConfig) -> Precision:
    """Return the fastest arithmetic of a device that the network bears; float32 on a CPU."""
    if device.type == "cpu":
        return "float32"
    capability = torch.cuda.get_device_capability(device)
    if capability >= _HAS_BFLOAT16:
        return "bfloat16"
    # Its attention has no denominator: values reach 10^6.
    overflows = isinstance(config, EReFormerConfig)
    return "float16" if capability >= _HAS_FLOAT16 and not overflows else "float32"


def precision_note(device: torch.device, precision: Precision) -> tuple[str, ...]:
    """Return a sentence where `auto` is another precision than on other GPUs, else none."""
    if device.type == "cpu" or precision == "bfloat16":
        return ()
    major, minor = torch.cuda.get_device_capability(device)
    emulating = f"GPUs of compute capability {major}.{minor} emulate bfloat16, which is slow"
    return (f"it computes in {precision} here: {emulating}",)
