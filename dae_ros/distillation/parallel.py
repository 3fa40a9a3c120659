"""Data-parallel training: one process per GPU or machine, started by torchrun, or one alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from dae_ros.model.device import device_of

# How long a process waits for another. PyTorch's 10 minutes on GPUs and 30 on CPUs are less than
# the first one may score held-out clips for, and a run would end there each time that it goes on.
# A process that ends is noticed without it: its connections close, and torchrun ends the others.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Workers:
    """The processes that train one network together.

    Attributes:
        index, count: of this process.
        device: of this process.
    """

    index: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.index == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place, with one message.

        Tensors are laid one behind the other, so every process must bring the same shapes.
        """
        if self.count == 1:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        distributed.all_reduce(flat)
        begin = 0
        for tensor in tensors:
            part = flat[begin : begin + tensor.numel()]
            tensor.detach().copy_(part.reshape(tensor.shape))
            begin += tensor.numel()

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.count > 1:
            distributed.barrier()


@contextlib.contextmanager
def join_workers(device: str) -> Iterator[Workers]:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: auto, cpu, cuda or cuda:N. Under torchrun `auto` and `cuda` are the GPU of the
            process' local rank; gradients go through NCCL then, through gloo on CPUs.

    Raises:
        ConfigurationError: a device that is not there.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and (device == "cuda" or (device == "auto" and torch.cuda.is_available())):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    chosen = device_of(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Workers(0, 1, chosen)
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Workers(distributed.get_rank(), distributed.get_world_size(), chosen)
    finally:
        distributed.destroy_process_group()
