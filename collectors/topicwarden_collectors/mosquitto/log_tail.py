"""Follows Mosquitto's log file through rotation, truncation and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.events import EventBatch, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.log_following.follower import Follower
from topicwarden_collectors.log_following.log_file import LogFile
from topicwarden_collectors.log_following.log_position import LogPosition, Place
from topicwarden_collectors.mosquitto.log_blind_spots import LOG_BLIND_SPOTS, log_blind_spots
from topicwarden_collectors.mosquitto.log_decode import LogDecoder
from topicwarden_collectors.mosquitto.log_read import GAP, LOG_HINT, batches_of, broker_name, read_log, zone_of
from topicwarden_collectors.mosquitto.log_sink import LOST, MALFORMED

__all__ = ["LOG_BLIND_SPOTS", "LogCollector", "read_log"]

WARM_UP_BYTES: Final = 16 << 20
"""How much of a log is read without giving events, to learn who is connected, before following its end."""
_SESSIONS_EVERY_S: Final = 10.0


class LogCollector:
    """Follows a log; `topicwarden.sources.Collector`."""

    def __init__(
        self,
        path: Path,
        options: SourceOptions | None = None,
        *,
        tables: Tables | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open the log; raises ObservationError when it cannot be read, ConfigurationError for a wrong option.

        `clock`: nanoseconds since the epoch, for the lag, for lines without a time and for notices.
        """
        options = options or SourceOptions()
        self.path = path
        self.broker = options.broker or broker_name(path)
        self.counters = Counters()
        self._decoder = LogDecoder(
            tables or Tables(), self.broker, zone=zone_of(options.timezone), base_ns=clock(), counters=self.counters
        )
        self._log = Follower(path, _Reader(self._decoder, clock), options, clock=clock, hint=LOG_HINT)
        self._log.on_new_file = lambda: self._keep_sessions(now=True)
        self._sessions_kept = 0.0
        self._closed = False
        self._iterating = False

    @property
    def title(self) -> str:
        """The mode in a few words."""
        return f"mosquitto log ({self.path})"

    @property
    def observing(self) -> bool:
        """From the start: the log was opened, and its end noted."""
        return True

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What the log as read so far does not show."""
        return log_blind_spots(self._decoder)

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed.

        Raises ObservationError when the file that took the log's place cannot be read.
        """
        if self._closed:
            return
        self._iterating = True
        log = self._log
        try:
            for batch in log.begin():
                yield batch
                log.done()
            while not log.finished:
                for batch in log.step():
                    yield batch
                    log.done()
                self._keep_sessions(now=log.finished)
                await asyncio.sleep(log.wait_seconds)
        finally:
            self._release()

    async def close(self) -> None:
        """Stop; `batches` hands over what the log holds now (the next `LAST_BYTES` of it), and ends."""
        self._closed = True
        self._log.stop()
        if not self._iterating:
            self._release()

    def _release(self) -> None:
        self._log.release()

    def _keep_sessions(self, *, now: bool = False) -> None:
        decoder, position, place = self._decoder, self._log.position, self._log.place
        if position is None or place is None or decoder.waiting or not decoder.sessions.changed:
            return
        if now or time.monotonic() - self._sessions_kept >= _SESSIONS_EVERY_S:
            self._sessions_kept = time.monotonic()
            decoder.sessions.changed = False
            position.keep_sessions(place, decoder.snapshot())


class _Reader:
    """The decoder as what a `Follower` feeds; who is connected is kept beside the reading position."""

    warm_up_bytes = WARM_UP_BYTES
    quiet_seconds = 0.0

    def __init__(self, decoder: LogDecoder, clock: Callable[[], int]) -> None:
        self.counters = decoder.sink.counters
        self._decoder = decoder
        self._clock = clock

    @property
    def fed(self) -> int:
        return self._decoder.fed

    @property
    def offset(self) -> int:
        return self._decoder.offset

    @property
    def unfinished(self) -> int:
        return self._decoder.unfinished

    @property
    def waiting(self) -> bool:
        return self._decoder.waiting

    def feed(self, data: bytes) -> None:
        self._decoder.clock.base_ns = self._clock()
        self._decoder.feed(data)

    def batches(self) -> Iterator[EventBatch]:
        yield from batches_of(self._decoder)

    def settle(self) -> None:
        self._decoder.settle()

    def gap(self, why: str, **evidence: str | int) -> None:
        self._decoder.gap(self._clock(), GAP, why=why, **evidence)

    def restarted(self, unconfirmed: int) -> None:
        self.counters.lost += unconfirmed
        self.counters.gaps += 1
        why = {"why": "handed out before the last run ended, and perhaps never judged"}
        self._decoder.sink.notice(LOST, "reader-restart", self._clock(), count=unconfirmed, evidence=why)

    def position_damaged(self) -> None:
        self.counters.error("reading-position")
        self._decoder.sink.notice(MALFORMED, "reading-position", self._clock())

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        self._decoder.sink.muted = True
        try:
            yield
        finally:
            self._decoder.sink.muted = False

    def restore(self, position: LogPosition, place: Place, *, exact: bool) -> int | None:
        kept = position.kept_sessions()
        if kept is None:
            return None
        at, snapshot = kept
        try:
            self._decoder.restore(snapshot)
        except (ValueError, TypeError, KeyError, AttributeError):
            self.counters.error("reading-position")
            return None
        if exact and (at.device, at.inode) == (place.device, place.inode) and at.offset <= place.offset:
            return at.offset
        self._decoder.forget_context()
        return None

    def head(self, log: LogFile, start: int) -> None:
        """Every line stands for itself."""
