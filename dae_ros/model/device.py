"""From the name of a device to the device, for whoever runs or trains a network."""

from __future__ import annotations

import torch

from dae_ros.errors import ConfigurationError


def device_of(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: `auto` (the first GPU where there is one), `cpu`, `cuda` (the first one) or `cuda:N`.

    Returns:
        A GPU with its number.

    Raises:
        ConfigurationError: it is none of them, or is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(
            f"there is no device '{name}'; use auto, cpu, cuda or cuda:N",
            device=name,
            parameter="device",
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(
            f"device '{name}' is not supported; use auto, cpu, cuda or cuda:N",
            device=name,
            parameter="device",
        )
    if device.type == "cpu":
        return device
    # With its number: `torch.cuda.set_device` takes no other.
    device = torch.device("cuda", device.index or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.index >= count:
        raise ConfigurationError(
            f"device '{name}' is not there: PyTorch {torch.__version__} sees {count} CUDA devices. "
            "Use device cpu, or install a CUDA build of PyTorch and the driver",
            device=name,
            parameter="device",
        )
    return device
