"""Events whose columns are made when somebody asks for them."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.packet import Events


class LazyEvents(Events):
    """A run of events that knows how many it has, and when the first and the last one were.

    Not thread-safe while `let_go` may be called: one owner.
    """

    __slots__ = ("_columns", "_count", "_first", "_last")
    # Those of a frozen dataclass with slots are not for subclasses with fields of their own.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __init__(self, count: int, ends_ns: tuple[int, int]) -> None:
        self._count = count
        self._first, self._last = ends_ns
        self._columns: Events | None = None

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[type[Events], tuple[object, ...]]:
        """Copies, also in other processes, are columns."""
        return Events, (self.t, self.x, self.y, self.p)

    @property
    def t(self) -> NDArray[np.int64]:  # type: ignore[override]  # made when asked for
        """int64[N], as in `Events`."""
        return self._kept().t

    @property
    def x(self) -> NDArray[np.uint16]:  # type: ignore[override]  # made when asked for
        """uint16[N], as in `Events`."""
        return self._kept().x

    @property
    def y(self) -> NDArray[np.uint16]:  # type: ignore[override]  # made when asked for
        """uint16[N], as in `Events`."""
        return self._kept().y

    @property
    def p(self) -> NDArray[np.uint8]:  # type: ignore[override]  # made when asked for
        """uint8[N], as in `Events`."""
        return self._kept().p

    @property
    def first_ns(self) -> int:
        """Time of the first event; there has to be one."""
        return self._first

    @property
    def last_ns(self) -> int:
        """Time of the last event; there has to be one."""
        return self._last

    @abstractmethod
    def _make(self) -> Events:
        """Return the columns."""

    def _kept(self) -> Events:
        # Each column is asked for by itself.
        if self._columns is None:
            self._columns = self._make()
        return self._columns
