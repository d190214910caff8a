"""How events that match a rule add up: so many of one cause within a time, or at regular intervals."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Final

from topicwarden.findings import Detection, Regular
from topicwarden.hosts.ecs import EcsEvent

CAPACITY: Final = 1 << 12
"""Causes of one rule that are remembered."""
MAX_EVENTS: Final = 4
"""Events of a cause that are kept; of the others the time. They are most of what groups take."""
SECOND: Final = 1_000_000_000

Scope = tuple[str, ...]


@dataclass(slots=True)
class Seen:
    """One match of a group."""

    time_ns: int
    witness: str | None
    told: bool = False
    """Whether a finding counted it."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The intervals of a group."""

    interval: float
    """Their median in seconds."""
    deviation: float
    """Their median absolute deviation, as a share of the median."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A group has enough: what of it no finding has counted."""

    seen: tuple[Seen, ...]
    events: tuple[EcsEvent, ...]
    rhythm: Rhythm | None


@dataclass(slots=True)
class _Group:
    seen: deque[Seen]
    kept: list[EcsEvent] = field(default_factory=list)
    """The first that still counts, and the last."""

    def keep(self, event: EcsEvent) -> None:
        self.kept = [kept for kept in self.kept if kept.time_ns >= self.seen[0].time_ns]
        if len(self.kept) == MAX_EVENTS:
            del self.kept[1]
        self.kept.append(event)


class Groups:
    """The groups of one rule: a sliding window over each. An event is counted once, whatever windows it is in."""

    def __init__(self, detection: Detection, capacity: int = CAPACITY) -> None:
        self.dropped = 0
        """Groups that were forgotten before their time because there were too many."""
        self._regular = detection.regular
        self._needed = max(detection.at_least, detection.regular.at_least if detection.regular else 1)
        self._within_ns = round(detection.within * SECOND)
        self._capacity = capacity
        self._groups: OrderedDict[Scope, _Group] = OrderedDict()
        """The one that has waited longest for an event first."""

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, scope: Scope, event: EcsEvent, witness: str | None) -> Reached | None:
        """Count an event; return what is to be told when its group has enough."""
        seen = Seen(event.time_ns, witness)
        if self._needed == 1:
            return Reached((seen,), (event,), None)
        group = self._groups.pop(scope, None) or _Group(deque(maxlen=self._needed))
        group.seen.append(seen)
        group.keep(event)
        self._groups[scope] = group
        self._forget(event.time_ns)
        if len(group.seen) < self._needed or event.time_ns - group.seen[0].time_ns > self._within_ns:
            return None
        rhythm = None
        if self._regular is not None:
            rhythm = regularity([entry.time_ns for entry in group.seen][-self._regular.at_least :], self._regular)
            if rhythm is None:
                return None
        fresh = tuple(entry for entry in group.seen if not entry.told)
        for entry in fresh:
            entry.told = True
        return Reached(fresh, tuple(group.kept), rhythm)

    def _forget(self, now_ns: int) -> None:
        while self._groups:
            scope, oldest = next(iter(self._groups.items()))
            if oldest.seen[-1].time_ns < now_ns - self._within_ns:
                del self._groups[scope]
            elif len(self._groups) > self._capacity:
                del self._groups[scope]
                self.dropped += 1
            else:
                return


def regularity(times_ns: list[int], regular: Regular) -> Rhythm | None:
    """Return the rhythm of events in time order, None when they have none.

    A median absolute deviation is not moved by the odd beat that was missed or late (Rousseeuw and Croux 1993), nor,
    up to half of them, by any others: so the rhythm must also explain half of the time that they took.
    """
    intervals = [(later - earlier) / SECOND for earlier, later in pairwise(times_ns)]
    middle = median(intervals)
    if middle < regular.shortest or sum(intervals) > 2 * middle * len(intervals):
        return None
    deviation = median(abs(interval - middle) for interval in intervals) / middle
    return Rhythm(middle, deviation) if deviation <= regular.deviation else None
