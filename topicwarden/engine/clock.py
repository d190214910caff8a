"""A clock for rates that survives brokers whose clock is set back, or whose log has forged or coarse timestamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from topicwarden.engine.gcra import MAX_TIME
from topicwarden.engine.grouping import Int64

SECOND: Final = 1_000_000_000
STEP_NS: Final = SECOND
"""Going back by more than this is a step of the clock; less is the disorder that sources with several writers have."""
LEAP_NS: Final = 3600 * SECOND
"""Going forward by more than this takes back what earlier steps added."""


@dataclass(slots=True)
class SteadyClock:
    """Turns a source's times into times that never go back by more than a second, so that no meter stands still.

    When the clock is set back, the time that seems to be lost is added to all later times: for the meters no time
    passes between the event before the step and the one after it. When it leaps forward again by more than an hour,
    the addition shrinks, so that a clock swinging between two times cannot run away. Events of the same timestamp
    (logs with whole seconds) stay simultaneous: a burst allowance has to cover what arrives within one second.
    """

    newest_ns: int = -1
    """The largest steady time so far; -1 before the first event."""
    added_ns: int = 0
    first_ns: int = -1
    """The steady time of the very first event."""

    def advance(self, time_ns: Int64) -> tuple[Int64, Int64]:
        """Return the steady time of each row, in [0, 2**61), and by how many ns the clock was set back at each row."""
        back = np.zeros(len(time_ns), np.int64)
        if not len(time_ns):
            return time_ns, back
        time_ns = np.clip(time_ns, 0, MAX_TIME - 1)
        if self.first_ns < 0:
            self.first_ns = int(time_ns[0])
        steady = time_ns + self.added_ns
        newest = np.maximum.accumulate(steady)
        np.maximum(newest, self.newest_ns, out=newest)
        leaps = self.added_ns > 0 and bool((np.diff(newest, prepend=self.newest_ns) > LEAP_NS).any())
        if leaps or bool((newest - steady > STEP_NS).any()):
            steady = self._advance_stepwise(time_ns, back)
        else:
            self.newest_ns = int(newest[-1])
        return np.minimum(steady, MAX_TIME - 1), back

    def _advance_stepwise(self, time_ns: Int64, back: Int64) -> Int64:
        """Do the same event by event; `back` is filled in."""
        result = []
        newest, added = self.newest_ns, self.added_ns
        for row, time in enumerate(time_ns.tolist()):
            steady = time + added
            if newest - steady > STEP_NS:
                back[row] = newest - steady
                added += newest - steady
                steady = newest
            elif added and newest >= 0 and steady - newest > LEAP_NS:
                added = max(0, newest - time)
                steady = time + added
            newest = max(newest, steady)
            result.append(min(steady, MAX_TIME - 1))
        self.newest_ns, self.added_ns = min(newest, MAX_TIME - 1), min(added, MAX_TIME - 1)
        return np.asarray(result, np.int64)
