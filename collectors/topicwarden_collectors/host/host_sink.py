"""Collects what a decoder of a log gives into batches, and says what was damaged or lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from topicwarden.events import EventBatch, EventBuilder, HostEvent, Notice, Tables
from topicwarden.sources import Counters
from topicwarden_collectors.host import sysmon
from topicwarden_collectors.host.blind_spots import Seen

LOST: Final = "TW901"
MALFORMED: Final = "TW903"
FORGED: Final = "TW905"
LEFT_OUT: Final = "topics_left_out"
"""The decoders' own count of what one line held too much of."""


class HostSink:
    """Collects events of one source's logs. What no decoder could read they count; here it becomes a notice."""

    def __init__(self, tables: Tables, counters: Counters, seen: Seen, *, host: str, clock: Callable[[], int]) -> None:
        """`host` is what notices name; `clock`: nanoseconds since the epoch, for them."""
        self.counters = counters
        self._seen = seen
        self._host = host
        self._clock = clock
        self._builder = EventBuilder(tables)
        self._told = dict(counters.decode_errors)
        self._left_out = counters.source.get(LEFT_OUT, 0)

    def __len__(self) -> int:
        return len(self._builder)

    def add(self, event: HostEvent) -> None:
        """Add an event."""
        self._seen.add(event)
        self._builder.host(event)

    def learn(self, event: HostEvent) -> None:
        """Take note only of what kind of event the log has."""
        self._seen.add(event)

    def gap(self, log: str, why: str, **evidence: str | int) -> None:
        """Say that lines of a log are, or may be, missing here."""
        self.counters.gaps += 1
        self._notice(LOST, "log", 1, {"log": log, "why": why, **evidence})

    def lost(self, log: str, scope: str, count: int, why: str) -> None:
        """Count events that happened and were not, or perhaps not, judged."""
        self.counters.lost += count
        self.counters.gaps += 1
        self._notice(LOST, scope, count, {"log": log, "why": why})

    def restarted(self, log: str, unconfirmed: int) -> None:
        """Say that the last run ended before so many events that it handed out were judged for certain."""
        self.lost(log, "reader-restart", unconfirmed, "handed out before the last run ended, and perhaps never judged")

    def _notice(
        self, code: str, scope: str, count: int, evidence: Mapping[str, str | int], witness: str | None = None
    ) -> None:
        # No line is a witness: it may hold a password.
        notice = Notice(code, self._clock(), self._host, scope, count, witness=witness, evidence=evidence, of_host=True)
        self._builder.notice(notice)

    def take(self, log: str) -> EventBatch | None:
        """Return what was collected of a log since the last call; None when that is nothing."""
        for stage, count in self.counters.decode_errors.items():
            more = count - self._told.get(stage, 0)
            if more:
                forged = stage == sysmon.FORGED
                witness = "an event of Sysmon's whose sender is not root" if forged else None
                self._notice(FORGED if forged else MALFORMED, stage, more, {"log": log}, witness)
                self._told[stage] = count
        more = self.counters.source.get(LEFT_OUT, 0) - self._left_out
        if more:
            self._left_out += more
            self.lost(log, "topics", more, "a line held more topics than are read of one")
        return None if self._builder.empty else self._builder.take()

    def empty(self) -> EventBatch:
        """Return a batch without events, so that whoever reads on can be interrupted."""
        return self._builder.take()
