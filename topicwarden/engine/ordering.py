"""Puts what several sources tell into the order of its times, as far as that can be waited for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

MAX_WAITING: Final = 1 << 17

T = TypeVar("T")


class InOrder(Generic[T]):
    """Holds things back until nothing older is to be expected.

    Sources are read side by side, so a batch that begins at a time says that the others are nearly as far;
    `disorder_ns` is what is allowed for clocks that differ and for sources that lag. What comes later than that goes
    out at once, out of order, and is counted.
    """

    def __init__(self, disorder_ns: int, capacity: int = MAX_WAITING) -> None:
        self.late = 0
        """Things that came when younger ones had gone out already."""
        self._disorder_ns = disorder_ns
        self._capacity = capacity
        self._waiting: list[tuple[int, int, T]] = []
        self._put = 0
        self._reached: int | None = None
        self._gone = -(1 << 63)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, time_ns: int, thing: T) -> None:
        """Add a thing; equal times keep their order."""
        if time_ns < self._gone:
            self.late += 1
        self._put += 1
        heapq.heappush(self._waiting, (time_ns, self._put, thing))

    def reach(self, time_ns: int) -> None:
        """Note that sources have come as far as this time."""
        self._reached = time_ns if self._reached is None else max(self._reached, time_ns)

    def ready(self) -> Iterator[tuple[int, T]]:
        """Yield what needs not wait any longer, in order."""
        until = -(1 << 63) if self._reached is None else self._reached - self._disorder_ns
        while self._waiting and (self._waiting[0][0] <= until or len(self._waiting) > self._capacity):
            yield self._take()

    def rest(self) -> Iterator[tuple[int, T]]:
        """Yield everything: nothing more will come."""
        while self._waiting:
            yield self._take()

    def _take(self) -> tuple[int, T]:
        time_ns, _, thing = heapq.heappop(self._waiting)
        self._gone = max(self._gone, time_ns)
        return time_ns, thing
