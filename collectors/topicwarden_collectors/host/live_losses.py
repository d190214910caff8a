"""Says what was lost while this machine was watched, and what overflowed: each loss once, with how much it was."""

from __future__ import annotations

import time
from typing import Final

from topicwarden.events import EventBuilder, Notice
from topicwarden.sources import Counters

LOST: Final = "TW901"
OVERFLOWED: Final = "TW902"


class Losses:
    """Makes notices of counts that grow."""

    def __init__(self, host: str, counters: Counters, builder: EventBuilder) -> None:
        self._host = host
        self._counters = counters
        self._builder = builder
        self._told: dict[tuple[str, str], int] = {}

    def lost(self, count: int, what: str, why: str) -> None:
        """Say that so many events happened that were not seen."""
        self._counters.lost += count
        self._counters.gaps += 1
        self._notice(LOST, what, count, why)

    def total(self, count: int, what: str, why: str) -> None:
        """Say how many were lost in all; what was told already is not told again."""
        more = self._more(count, what, why)
        if more:
            self.lost(more, what, why)

    def counted(self, count: int, what: str, why: str) -> None:
        """Say the same of what another has already added to `Counters.lost`."""
        more = self._more(count, what, why)
        if more:
            self._notice(LOST, what, more, why)

    def overflowed(self, count: int, what: str) -> None:
        """Say how often in all a table was too small."""
        more = self._more(count, what, "overflow")
        if more:
            self._builder.notice(
                Notice(OVERFLOWED, time.time_ns(), self._host, what, more, evidence={"what": what}, of_host=True)
            )

    def _notice(self, code: str, what: str, count: int, why: str) -> None:
        self._builder.notice(Notice(code, time.time_ns(), self._host, what, count, evidence={"why": why}, of_host=True))

    def _more(self, count: int, what: str, why: str) -> int:
        more = count - self._told.get((what, why), 0)
        if more > 0:
            self._told[what, why] = count
        return max(0, more)
