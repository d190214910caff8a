"""Follows logs of hosts and sensors; the positions they were read to are kept over restarts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.events import EventBatch, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.host.auditd import WAIT_NS
from topicwarden_collectors.host.blind_spots import Seen, blind_spots
from topicwarden_collectors.host.host_sink import HostSink
from topicwarden_collectors.host.kinds import Kind
from topicwarden_collectors.log_following.follower import Follower
from topicwarden_collectors.log_following.log_file import LogFile
from topicwarden_collectors.log_following.log_position import LogPosition, Place

QUIET_SECONDS: Final = WAIT_NS / 1e9
"""How long nothing must have come before an event that lacks records is handed out as it is."""


class HostLogCollector:
    """Follows one log, or the several of one sensor; `topicwarden.sources.Collector`."""

    def __init__(
        self,
        kind: Kind,
        paths: Sequence[Path],
        options: SourceOptions,
        *,
        name: str,
        syslog: bool = False,
        clock: Callable[[], int] = time.time_ns,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        """Open the logs; those that are not there yet are waited for, provided their folder is there.

        `name` is what the source is called; `syslog`: any program can write to it; `clock`: nanoseconds since the
        epoch, for the lag and for notices. Raises ObservationError when a log cannot be read, ConfigurationError for a
        state folder that cannot be used.
        """
        self.title = f"{kind.title} ({name})"
        self.broker = options.host or socket.gethostname()
        self.counters = Counters()
        self._kind = kind
        self._syslog = syslog
        self._seen = Seen()
        sink = HostSink(Tables(), self.counters, self._seen, host=self.broker, clock=clock)
        self._logs: list[Follower] = []
        self._closed = False
        self._iterating = False
        try:
            for path in paths:
                reader = _Reader(kind, sink, self.broker, str(path), quiet_seconds)
                self._logs.append(Follower(path, reader, options, clock=clock, hint=kind.hint, may_be_missing=True))
        except BaseException:
            self._release()
            raise

    @property
    def observing(self) -> bool:
        """From the start: the ends of the logs were noted, and one that comes to be is read from its beginning."""
        return True

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What the logs as read so far do not show."""
        missing = [
            BlindSpot(f"{log.path}: it is not there yet; it will be read from its beginning", self._kind.hint)
            for log in self._logs
            if log.missing
        ]
        return (*missing, *blind_spots(self._kind.name, self._seen, syslog=self._syslog))

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed.

        Raises ObservationError when a file that took a log's place cannot be read.
        """
        if self._closed:
            return
        self._iterating = True
        try:
            for log in self._logs:
                for batch in log.begin():
                    yield batch
                    log.done()
                await asyncio.sleep(0)
            while going_on := [log for log in self._logs if not log.finished]:
                for log in going_on:
                    for batch in log.step():
                        yield batch
                        log.done()
                await asyncio.sleep(min(log.wait_seconds for log in going_on))
        finally:
            self._release()

    async def close(self) -> None:
        """Stop; `batches` hands over what the logs hold now, up to a bound, and ends."""
        self._closed = True
        for log in self._logs:
            log.stop()
        if not self._iterating:
            self._release()

    def _release(self) -> None:
        for log in self._logs:
            log.release()


class _Reader:
    """A decoder as what a `Follower` feeds."""

    def __init__(self, kind: Kind, sink: HostSink, host: str, log: str, quiet_seconds: float) -> None:
        self.counters = sink.counters
        self.warm_up_bytes = kind.warm_up_bytes
        self.quiet_seconds = quiet_seconds
        self._decoder = kind.decoder(self.counters, host=host)
        self._sink = sink
        self._log = log
        self._learning = False

    @property
    def fed(self) -> int:
        return self._decoder.fed

    @property
    def offset(self) -> int:
        return self._decoder.fed - self._decoder.unfinished

    @property
    def unfinished(self) -> int:
        return self._decoder.unfinished

    @property
    def waiting(self) -> bool:
        return self._decoder.waiting > 0

    def feed(self, data: bytes) -> None:
        take = self._sink.learn if self._learning else self._sink.add
        for event in self._decoder.feed(data):
            take(event)

    def batches(self) -> Iterator[EventBatch]:
        # All of a piece in one batch: a place within it could not be told.
        batch = None if self._learning else self._sink.take(self._log)
        if batch is not None:
            yield batch

    def settle(self) -> None:
        take = self._sink.learn if self._learning else self._sink.add
        for event in self._decoder.settle():
            take(event)

    def gap(self, why: str, **evidence: str | int) -> None:
        if self._decoder.unfinished:
            self.counters.error("cut")
            self._decoder.drop_rest()
        self._sink.gap(self._log, why, **evidence)

    def restarted(self, unconfirmed: int) -> None:
        self._sink.restarted(self._log, unconfirmed)

    def position_damaged(self) -> None:
        self.counters.error("reading-position")

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        self._learning = True
        self._decoder.counters = Counters()
        try:
            yield
        finally:
            self._decoder.counters = self.counters
            self._learning = False

    def restore(self, position: LogPosition, place: Place, *, exact: bool) -> int | None:
        """Nothing is kept: the lines before a place tell what must be known at it."""

    def head(self, log: LogFile, start: int) -> None:
        if not start or not self._decoder.has_head:
            return
        # Zeek names the columns of a log at its beginning.
        for line in next(log.chunks(), b"").split(b"\n"):
            if not line.startswith(b"#"):
                return
            self.feed(line + b"\n")
