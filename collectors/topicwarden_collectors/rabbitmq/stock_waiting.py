"""Holds back what came before we know whose it is. Pure.

Events, log messages and traces come through three queues, and the broker itself writes them from different processes:
a publish may arrive before its connection's `connection.created`. What waits for a connection stays in its order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

WAIT_NS: Final = 500_000_000
"""How long something waits for its connection to become known."""
CAPACITY: Final = 1 << 14
"""Most things that wait; when there are more, the oldest wait no longer."""

Step: TypeAlias = Callable[[bool], bool]
"""Tries to go on; the argument says whether this is the last try. Returns whether it is done."""


@dataclass(slots=True)
class _Line:
    until_ns: int
    steps: deque[Step] = field(default_factory=deque)


class Waiting:
    """Steps that wait for something named to become known, in lines by that name."""

    def __init__(self) -> None:
        self.overflowed = 0
        """Steps that could not wait as long as they should have."""
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def waits(self, name: str) -> bool:
        """Whether something waits in this line, so that what follows has to queue up behind it."""
        return name in self._lines

    def add(self, name: str, step: Step, now_ns: int) -> None:
        """Wait for `name`."""
        if self._count >= CAPACITY:
            self.overflowed += 1
            self._finish(next(iter(self._lines)))
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(now_ns + WAIT_NS)
        line.steps.append(step)
        self._count += 1

    def known(self, name: str) -> None:
        """`name` became known: go on with what waited for it."""
        line = self._lines.get(name)
        while line is not None and line.steps:
            if not line.steps[0](False):
                return
            line.steps.popleft()
            self._count -= 1
        if line is not None:
            del self._lines[name]

    def pass_time(self, now_ns: int) -> None:
        """Go on with everything that has waited long enough."""
        for name in list(self._due(now_ns)):
            self._finish(name)

    def finish(self) -> None:
        """Go on with everything."""
        for name in list(self._lines):
            self._finish(name)

    def _due(self, now_ns: int) -> Iterator[str]:
        for name, line in self._lines.items():
            # A clock that was set back must not make anything wait for ever.
            if not line.until_ns - WAIT_NS <= now_ns < line.until_ns:
                yield name
            else:
                return

    def _finish(self, name: str) -> None:
        line = self._lines.pop(name)
        self._count -= len(line.steps)
        for step in line.steps:
            step(True)
