"""Tensors that were computed for clips and stay valid, least recently used given up first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

from dae_ros.distillation.online.observation import EventClip


class ClipCache:
    """Keeps tensors by observation, up to a number of bytes.

    A hit returns what a computation would: same network, same clip, one at a time. So what is
    learned does not depend on the size of the cache.

    Args:
        byte_limit: of all tensors together; 0 keeps nothing.

    Attributes:
        byte_count: of all tensors at present.
    """

    def __init__(self, byte_limit: int) -> None:
        self._limit = byte_limit
        # The observation is kept with its tensors, so that its id stays its own.
        self._entries: OrderedDict[int, tuple[EventClip, list[Tensor], int]] = OrderedDict()
        self.byte_count = 0

    def get(
        self, observation: EventClip, compute: Callable[[EventClip], list[Tensor]]
    ) -> list[Tensor]:
        """Return the tensors of an observation, computed now if they are not kept."""
        entry = self._entries.get(id(observation))
        if entry is not None:
            self._entries.move_to_end(id(observation))
            return entry[1]
        tensors = compute(observation)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if size <= self._limit:
            self._entries[id(observation)] = (observation, tensors, size)
            self.byte_count += size
            while self.byte_count > self._limit:
                _, (_, _, freed) = self._entries.popitem(last=False)
                self.byte_count -= freed
        return tensors

    def clear(self) -> None:
        """Give up everything; it is computed again when it is asked for."""
        self._entries.clear()
        self.byte_count = 0
