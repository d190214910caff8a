"""What a follower asks of whatever reads the lines of a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from topicwarden.events import EventBatch
from topicwarden.sources import Counters
from topicwarden_collectors.log_following.log_file import LogFile
from topicwarden_collectors.log_following.log_position import LogPosition, Place


class LogReader(Protocol):
    """What the lines of a followed log go to."""

    @property
    def counters(self) -> Counters:
        """What is counted."""
        ...

    @property
    def warm_up_bytes(self) -> int:
        """How much before the place where reading goes on is read without giving events."""
        ...

    @property
    def quiet_seconds(self) -> float:
        """How long nothing must have come before `settle` is called."""
        ...

    @property
    def fed(self) -> int:
        """Bytes fed so far."""
        ...

    @property
    def offset(self) -> int:
        """Bytes fed that were decoded: where the first line that was not begins."""
        ...

    @property
    def unfinished(self) -> int:
        """Bytes of the last line that has no end yet."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether something decoded waits for the lines after it."""
        ...

    def feed(self, data: bytes) -> None:
        """Add bytes of the log, cut anywhere."""
        ...

    def batches(self) -> Iterator[EventBatch]:
        """Yield what the bytes fed so far have come to."""
        ...

    def settle(self) -> None:
        """Nothing more has come for a while: decide what waits with what is known."""
        ...

    def gap(self, why: str, **evidence: str | int) -> None:
        """Say that lines are, or may be, missing here; give up the unfinished one."""
        ...

    def restarted(self, unconfirmed: int) -> None:
        """Count as lost the events that the last run handed out and that were perhaps never judged."""
        ...

    def position_damaged(self) -> None:
        """Say that the kept reading position could not be read."""
        ...

    def learning(self) -> AbstractContextManager[None]:
        """While it lasts, lines give no events and nothing is counted."""
        ...

    def restore(self, position: LogPosition, place: Place, *, exact: bool) -> int | None:
        """Take over what was kept beside the position, if the reader keeps something.

        With `exact` the log holds `place`; returns the offset in the same file up to which it then needs no lines.
        """
        ...

    def head(self, log: LogFile, start: int) -> None:
        """Before lines from `start` on are learnt: read what at the log's beginning they cannot be read without."""
        ...
