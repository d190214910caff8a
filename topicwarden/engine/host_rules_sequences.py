"""Sequences of events that share a key: what EQL calls `sequence by … with maxspan`, bounded.

They mean what they mean to the `eql` package: of one key, the newest beginning counts; an event continues the sequence
that has come farthest; a sequence that has come to its end is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from topicwarden.engine.host_rules_query import Key, Query
from topicwarden.hosts.ecs import EcsEvent

CAPACITY: Final = 1 << 14
"""Sequences of one rule that wait at one of its terms."""


class Sequences:
    """The sequences of one rule that are not complete."""

    def __init__(self, query: Query, capacity: int = CAPACITY) -> None:
        assert query.max_span_ns is not None
        self.dropped = 0
        """Sequences that were let go before their time because there were too many."""
        self._query = query
        self._max_span_ns = query.max_span_ns
        self._capacity = capacity
        self._waiting: list[OrderedDict[Key, list[EcsEvent]]] = [OrderedDict() for _ in query.terms]
        """By the number of the term that is next."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    def step(self, event: EcsEvent, terms: Sequence[int], *, until: bool) -> list[list[EcsEvent]]:
        """Take an event that matches these terms, or ends sequences; return the sequences that it completes."""
        if until and self._query.until is not None:
            self._end(self._query.until.key(event))
        completed = []
        # The last first, so that one event is not two steps of a sequence.
        for position in sorted(terms, reverse=True):
            key = self._query.terms[position].key(event)
            if key is None:
                continue
            found = [event] if position == 0 else self._take(position, key, event)
            if found is None:
                continue
            if position == len(self._query.terms) - 1:
                completed.append(found)
            else:
                self._wait(position + 1, key, found, event.time_ns)
        return completed

    def _take(self, position: int, key: Key, event: EcsEvent) -> list[EcsEvent] | None:
        found = self._waiting[position].pop(key, None)
        if found is None or found[0].time_ns < event.time_ns - self._max_span_ns:
            return None
        found.append(event)
        return found

    def _wait(self, position: int, key: Key, found: list[EcsEvent], time_ns: int) -> None:
        waiting = self._waiting[position]
        waiting.pop(key, None)
        waiting[key] = found
        oldest = next(iter(waiting.values()))
        while len(waiting) > 1 and oldest[0].time_ns < time_ns - self._max_span_ns:
            waiting.popitem(last=False)
            oldest = next(iter(waiting.values()))
        if len(waiting) > self._capacity:
            waiting.popitem(last=False)
            self.dropped += 1

    def _end(self, key: Key | None) -> None:
        if key is not None:
            for waiting in self._waiting:
                waiting.pop(key, None)
