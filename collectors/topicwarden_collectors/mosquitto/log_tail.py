"""Follows Mosquitto's log file through rotation, truncation and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError
from topicwarden.events import EventBatch, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.mosquitto.log_blind_spots import LOG_BLIND_SPOTS, log_blind_spots
from topicwarden_collectors.mosquitto.log_decode import LogDecoder
from topicwarden_collectors.mosquitto.log_file import (
    DamagedFileError,
    LogFile,
    chunks,
    find_place,
    holds_place,
    rotated,
    same_file,
)
from topicwarden_collectors.mosquitto.log_position import LogPosition, Place, Saved
from topicwarden_collectors.mosquitto.log_read import GAP, batches_of, broker_name, read_log, zone_of
from topicwarden_collectors.mosquitto.log_sink import LOST, MALFORMED

__all__ = ["LOG_BLIND_SPOTS", "LogCollector", "read_log"]

WARM_UP_BYTES: Final = 16 << 20
"""How much of a log is read without giving events, to learn who is connected, before following its end."""
LAST_BYTES: Final = 1 << 20
"""Most bytes still read after `close`."""
_BUSY_S: Final = 0.005
_IDLE_S: Final = 0.02
_SETTLE_AFTER: Final = 3
"""Looks in a row that found nothing new before what waits for further lines is decided without them."""
_SESSIONS_EVERY_S: Final = 10.0
_UNREADABLE_S: Final = 10.0
"""How long the file that took the log's place may be unreadable, as between logrotate's steps."""


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
        self._clock = clock
        self._from_start = options.from_start
        self._decoder = LogDecoder(
            tables or Tables(), self.broker, zone=zone_of(options.timezone), base_ns=clock(), counters=self.counters
        )
        self._log = LogFile(path)
        self._end_at_first = self._log.size
        self._position: LogPosition | None = None
        if options.state_dir is not None:
            try:
                self._position = LogPosition(options.state_dir, path)
            except BaseException:
                self._log.close()
                raise
        self._origin = 0
        """Bytes fed to the decoder before the first byte of the file being read."""
        self._settled = False
        self._sessions_kept = 0.0
        self._unreadable_since: float | None = None
        self._stop_at: int | None = None
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
        if self._stopping() is not None:
            return
        self._iterating = True
        try:
            for batch in self._begin():
                yield batch
                self._done()
            idle = 0
            while True:
                stop_at = self._stopping()
                data = b""
                if (stop_at is None or self._decoder.fed < stop_at) and self._log.unchanged():
                    data = self._log.read()
                steps = self._decode(data) if data else self._look(settle=stop_at is not None or idle >= _SETTLE_AFTER)
                idle = 0 if data else idle + 1
                for batch in steps:
                    idle = 0
                    yield batch
                    self._done()
                if stop_at is not None and not data:
                    self._keep_sessions(now=True)
                    return
                self._keep_sessions()
                await asyncio.sleep(0 if data else _BUSY_S if idle <= _SETTLE_AFTER else _IDLE_S)
        finally:
            self._release()

    async def close(self) -> None:
        """Stop; `batches` hands over what the log holds now (the next `LAST_BYTES` of it), and ends."""
        if self._stop_at is None:
            self._stop_at = self._decoder.fed + LAST_BYTES
        if not self._iterating:
            self._release()

    def _stopping(self) -> int | None:
        return self._stop_at

    def _release(self) -> None:
        self._log.close()
        if self._position is not None:
            self._position.close()

    # Where to begin

    def _begin(self) -> Iterator[EventBatch]:
        position = self._position
        saved = None if position is None else position.saved
        if saved is not None:
            yield from self._resume(saved)
        elif not self._from_start:
            self._learn(self.path, max(0, self._end_at_first - WARM_UP_BYTES), self._end_at_first)
            self._read_on(self._end_at_first)
        # Only now: what is said while learning is not kept.
        if position is not None and position.damaged:
            self.counters.error("reading-position")
            self._decoder.sink.notice(MALFORMED, "reading-position", self._clock())
        yield from self._claimed(batches_of(self._decoder))

    def _resume(self, saved: Saved) -> Iterator[EventBatch]:
        """Go on where the last run stopped, though the log may have been rotated since."""
        place = saved.place
        old = self.path if self._log.inode == place.inode and self._log.holds(place) else find_place(self.path, place)
        if old is None and self._log.holds(place):
            old = self.path
        if old is None:
            self._restore(place, exact=False)
            self._gap("the log was truncated, or rotated and removed, before it was read to its end")
            self._say_unconfirmed(saved)
            return
        self._learn_to(old, place)
        if saved.settled:
            self._decoder.sink.muted = True
            self._decoder.settle()
            self._decoder.sink.muted = False
            self._settled = True
        self._say_unconfirmed(saved)
        if old == self.path:
            self._read_on(place.offset)
            return
        rest = LogFile(old)
        if not rest.packed:
            # It is read like the log itself, until `_follow` finds what came after it.
            self._log.close()
            self._log = rest
            self._read_on(place.offset)
            return
        later = rotated(self.path, rest.modified_ns)
        rest.close()
        yield from self._read_through(old, place.offset)
        for path in later:
            yield from self._read_through(path, 0)
        self._read_on(0)

    def _say_unconfirmed(self, saved: Saved) -> None:
        if saved.unconfirmed:
            self.counters.lost += saved.unconfirmed
            self.counters.gaps += 1
            why = {"why": "handed out before the last run ended, and perhaps never judged"}
            sink = self._decoder.sink
            sink.notice(LOST, "reader-restart", self._clock(), count=saved.unconfirmed, evidence=why)

    def _learn_to(self, log: Path, place: Place) -> None:
        """Learn who was connected at `place` in this file, from what was kept and the lines since."""
        start = self._restore(place, exact=True)
        self._learn(log, max(0, place.offset - WARM_UP_BYTES) if start is None else start, place.offset)

    def _restore(self, place: Place, *, exact: bool) -> int | None:
        """Take over what was kept; return the offset it was true at, when that is in the same file and before."""
        kept = None if self._position is None else self._position.kept_sessions()
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

    def _learn(self, path: Path, start: int, stop: int) -> None:
        """Read lines without giving events, only to know who is connected."""
        decoder, left = self._decoder, stop - start
        decoder.sink.muted = True
        with contextlib.suppress(DamagedFileError):
            for data in chunks(path, start):
                decoder.feed(data[:left])
                while decoder.backlog:
                    decoder.take()
                left -= len(data[:left])
                if left <= 0:
                    break
        decoder.sink.muted = False

    def _read_on(self, offset: int) -> None:
        """Read the file now open from `offset` on, where the decoder stands."""
        self._log.seek(offset)
        self._origin = self._decoder.fed - offset

    # Going on

    def _decode(self, data: bytes) -> Iterator[EventBatch]:
        self._decoder.clock.base_ns = self._clock()
        self._settled = False
        self._decoder.feed(data)
        yield from self._claimed(batches_of(self._decoder))

    def _claimed(self, batches: Iterable[EventBatch]) -> Iterator[EventBatch]:
        """Record each batch before it is handed out."""
        for batch in batches:
            if len(batch):
                self.counters.lag_ns = self._clock() - int(batch.time_ns[-1])
            self._claim(len(batch))
            yield batch
        self._claim(0)

    def _claim(self, events: int) -> None:
        if self._position is not None:
            self._position.claim(self._place(), events, settled=self._settled)

    def _done(self) -> None:
        if self._position is not None:
            self._position.done()

    def _place(self) -> Place:
        return self._log.place(max(0, self._decoder.offset - self._origin))

    def _look(self, *, settle: bool) -> Iterator[EventBatch]:
        """There is nothing more to read now: see whether the file is still the log."""
        if not self._log.unchanged():
            yield from self._truncated()
        elif same_file(self.path, self._log) is False:
            yield from self._follow()
        elif settle and self._decoder.waiting:
            self._settled = True
            self._decoder.settle()
            yield from self._claimed(batches_of(self._decoder))

    def _truncated(self) -> Iterator[EventBatch]:
        """The log was emptied under us, as logrotate's copytruncate does: the rest of it may be in the copy."""
        read_to = self._log.read_place()
        copy = find_place(self.path, read_to)
        self._log.seek(0)
        if copy is not None:
            yield from self._read_through(copy, read_to.offset)
        self._gap(
            "the log was truncated; what the broker wrote between the last copy and that is lost"
            if copy is not None
            else "the log was truncated; what the broker wrote since our last look is lost",
            read=read_to.offset,
        )
        self._origin = self._decoder.fed
        yield from self._claimed(batches_of(self._decoder))
        self._keep_sessions(now=True)

    def _follow(self) -> Iterator[EventBatch]:
        """Go to the file that comes after this one, once the broker has written to it."""
        try:
            successor = LogFile(self.path)
        except ObservationError:
            now = time.monotonic()
            self._unreadable_since = self._unreadable_since or now
            if now - self._unreadable_since > _UNREADABLE_S and self.path.exists():
                raise
            return
        self._unreadable_since = None
        # The broker writes to the old file until it is told to reopen its log, and closes it before it opens the new.
        if not successor.size:
            successor.close()
            return
        while data := self._log.read():
            yield from self._decode(data)
        old, here = self._log, self._log.read_place()
        if self._decoder.unfinished:
            self._gap("the rotated log ends in the middle of a line", cut=self._decoder.unfinished)
        self._log = successor
        self._origin = self._decoder.fed
        for path in rotated(self.path, old.modified_ns):
            # Files rotated while we did not look. A copy of the old one is none of them.
            if same_file(path, old) is False and not holds_place(path, here):
                yield from self._read_through(path, 0)
        old.close()
        self._origin = self._decoder.fed
        yield from self._claimed(batches_of(self._decoder))
        self._keep_sessions(now=True)

    def _read_through(self, path: Path, start: int) -> Iterator[EventBatch]:
        """Read the rest of a file that is not the log any more.

        The position recorded meanwhile is the beginning of the log: if we are killed here, the rest counts as lost.
        """
        try:
            for data in chunks(path, start):
                self._decoder.feed(data)
                for batch in batches_of(self._decoder):
                    self._origin = self._decoder.offset
                    self._claim(len(batch) + 1)
                    yield batch
        except DamagedFileError as error:
            self._gap("a rotated log is damaged", file=str(path), error=str(error))
        except ObservationError:
            self._gap("a rotated log could not be read", file=str(path))
        if self._decoder.unfinished:
            self._gap("a rotated log ends in the middle of a line", cut=self._decoder.unfinished)

    def _gap(self, why: str, **evidence: str | int) -> None:
        self._decoder.gap(self._clock(), GAP, why=why, **evidence)

    def _keep_sessions(self, *, now: bool = False) -> None:
        decoder, position = self._decoder, self._position
        if position is None or decoder.waiting or not decoder.sessions.changed:
            return
        if now or time.monotonic() - self._sessions_kept >= _SESSIONS_EVERY_S:
            self._sessions_kept = time.monotonic()
            decoder.sessions.changed = False
            position.keep_sessions(self._place(), decoder.snapshot())
