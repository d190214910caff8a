"""Follows one log file through rotation, truncation, deletion and restarts, for whatever reads its lines.

Where the reader stands is recorded before a batch is handed out, so that after SIGKILL nothing is given twice, and what
may never have been judged is counted as lost. What a reader must know of earlier lines it learns by reading them again
without giving events.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError
from topicwarden.events import EventBatch
from topicwarden.sources import SourceOptions
from topicwarden_collectors.log_following.log_file import (
    CHECK_PATH,
    DamagedFileError,
    LogFile,
    MissingLogError,
    same_file,
)
from topicwarden_collectors.log_following.log_position import LogPosition, Place, Saved
from topicwarden_collectors.log_following.log_reader import LogReader
from topicwarden_collectors.log_following.rotated import between, find_place

LAST_BYTES: Final = 1 << 20
"""Most bytes still read after `stop`."""
BUSY_SECONDS: Final = 0.005
IDLE_SECONDS: Final = 0.02
"""How long to wait before the next step when the last found nothing new, for the first and for later ones."""
LOOKS: Final = 3
"""Looks in a row that found nothing new before a log counts as quiet."""
_UNREADABLE_SECONDS: Final = 10.0
"""How long the file that took the log's place may be unreadable, as between logrotate's steps."""


class Follower:
    """One log being followed: call `begin`, then `step` again and again; `done` when a batch was judged."""

    def __init__(
        self,
        path: Path,
        reader: LogReader,
        options: SourceOptions,
        *,
        clock: Callable[[], int],
        hint: str = CHECK_PATH,
        may_be_missing: bool = False,
    ) -> None:
        """Open the log; raises ObservationError when it cannot be read, ConfigurationError for a wrong state folder.

        With `may_be_missing`, a log that is not there yet is waited for, provided its folder is there. `hint` says
        where the right path is found; `clock`: nanoseconds since the epoch, for the lag.
        """
        self.path = path
        self._reader = reader
        self._clock = clock
        self._hint = hint
        self._from_start = options.from_start
        self.position: LogPosition | None = None
        self._later: deque[LogFile] = deque()
        """Files rotated since, and last the log itself: what is read after the open one."""
        self._log: LogFile | None = None
        try:
            self._log = LogFile(path, hint)
        except MissingLogError:
            if not may_be_missing or not path.parent.is_dir():
                raise
        self._end_at_first = 0 if self._log is None else self._log.size
        if options.state_dir is not None:
            try:
                self.position = LogPosition(options.state_dir, path)
            except BaseException:
                self.release()
                raise
        self._origin = 0
        """Bytes fed to the reader before the first byte of the file being read."""
        self._settled = 0
        """Offset in the open file where the reader last settled."""
        self._idle = 0
        self._quiet_since = time.monotonic()
        self._unreadable_since: float | None = None
        self._stop_at: int | None = None
        self.finished = False
        """Whether it has read all that it reads after `stop`."""
        self.on_new_file: Callable[[], None] | None = None
        """Called when reading has gone to the beginning of another file."""

    @property
    def missing(self) -> bool:
        """Whether the log has not been there yet."""
        return self._log is None

    @property
    def wait_seconds(self) -> float:
        """How long to wait before the next step."""
        return 0 if self._idle == 0 else BUSY_SECONDS if self._idle <= LOOKS else IDLE_SECONDS

    @property
    def place(self) -> Place | None:
        """Where the reader stands; None while the log is missing.

        A place in a compressed file cannot be told: it is the beginning of the log, and if we are killed before it is
        reached, what is claimed counts as lost.
        """
        if self._log is None:
            return None
        if self._log.packed:
            return self._later[-1].place(0) if self._later else None
        return self._log.place(max(0, self._reader.offset - self._origin))

    def stop(self) -> None:
        """Read only what the log holds now, the next `LAST_BYTES` of it, and then be `finished`."""
        if self._stop_at is None:
            self._stop_at = self._reader.fed + LAST_BYTES

    def release(self) -> None:
        """Close everything; releasing twice is no error."""
        if self._log is not None:
            self._log.close()
        for log in self._later:
            log.close()
        if self.position is not None:
            self.position.close()

    def done(self) -> None:
        """Record that the batch handed out last was judged."""
        if self.position is not None:
            self.position.done()

    # Where to begin

    def begin(self) -> Iterator[EventBatch]:
        """Go to where reading begins."""
        position = self.position
        if position is not None and position.saved is not None:
            # Without a log yet, it is gone on once there is one.
            if self._log is not None:
                yield from self._resume(position, position.saved, self._log)
        elif not self._from_start and self._log is not None:
            end = self._end_at_first
            self._learn(self._log, max(0, end - self._reader.warm_up_bytes), end)
            self._read_on(end)
        # Only now: what is said while learning is not kept.
        if position is not None and position.damaged:
            self._reader.position_damaged()
        yield from self._claimed(self._reader.batches())

    def _resume(self, position: LogPosition, saved: Saved, log: LogFile) -> Iterator[EventBatch]:
        """Go on where the last run stopped, though the log may have been rotated since."""
        place = saved.place
        here = log.holds(place)
        old = log if here and log.inode == place.inode else find_place(self.path, place) or (log if here else None)
        if old is None:
            self._reader.restore(position, place, exact=False)
            self._reader.gap("the log was truncated, or rotated and removed, before it was read to its end")
            self._say_unconfirmed(saved)
            return
        self._learn_to(position, old, saved)
        self._say_unconfirmed(saved)
        if old is log:
            self._read_on(place.offset, saved.settled)
            return
        # It is read like the log itself; then what was rotated since, and the log.
        files, _ = between(self.path, old, log)
        self._log = old
        self._later.extend((*files, log))
        if old.packed:
            yield from self._read_packed(old, place.offset)
        else:
            self._read_on(place.offset, saved.settled)

    def _say_unconfirmed(self, saved: Saved) -> None:
        if saved.unconfirmed:
            self._reader.restarted(saved.unconfirmed)

    def _learn_to(self, position: LogPosition, log: LogFile, saved: Saved) -> None:
        """Learn what was known at a place in this file, from what was kept and the lines since."""
        stop = saved.place.offset
        start = self._reader.restore(position, saved.place, exact=True)
        if start is None:
            start = max(0, stop - self._reader.warm_up_bytes)
        if start <= saved.settled <= stop:
            self._learn(log, start, saved.settled)
            with self._reader.learning():
                self._reader.settle()
            start = saved.settled
        self._learn(log, start, stop)

    def _learn(self, log: LogFile, start: int, stop: int) -> None:
        """Read lines without giving events, only for what they teach."""
        left = stop - start
        with self._reader.learning(), contextlib.suppress(DamagedFileError):
            self._reader.head(log, start)
            if left <= 0:
                return
            for data in log.chunks(start):
                self._reader.feed(data[:left])
                for _ in self._reader.batches():
                    pass
                left -= len(data[:left])
                if left <= 0:
                    return

    def _read_on(self, offset: int, settled: int = 0) -> None:
        """Read the file now open from `offset` on, where the reader stands."""
        self._settled = settled
        if self._log is not None:
            self._log.seek(offset)
            self._origin = self._reader.fed - offset

    # Going on

    def step(self) -> Iterator[EventBatch]:
        """Read on, or see what became of the log when there is nothing more to read."""
        if self.finished:
            return
        stop_at = self._stop_at
        data = b""
        if self._log is not None and (stop_at is None or self._reader.fed < stop_at):
            data = self._log.read()
        if data:
            self._idle = 0
            self._quiet_since = time.monotonic()
            yield from self._decode(data)
            return
        self._idle += 1
        before = self._log
        for batch in self._look(settle=stop_at is not None or self._quiet()):
            self._idle = 0
            yield batch
        self.finished = stop_at is not None and (self._log is before or self._reader.fed >= stop_at)

    def _quiet(self) -> bool:
        return self._idle > LOOKS and time.monotonic() - self._quiet_since >= self._reader.quiet_seconds

    def _decode(self, data: bytes) -> Iterator[EventBatch]:
        self._reader.feed(data)
        yield from self._claimed(self._reader.batches())

    def _claimed(self, batches: Iterable[EventBatch]) -> Iterator[EventBatch]:
        """Record each batch before it is handed out."""
        for batch in batches:
            newest = newest_ns(batch)
            if newest is not None:
                self._reader.counters.lag_ns = self._clock() - newest
            self._claim(len(batch) + len(batch.hosts))
            yield batch
        self._claim(0)

    def _claim(self, events: int) -> None:
        place = self.place
        if self.position is not None and place is not None:
            self.position.claim(place, events, settled=self._settled)

    def _look(self, *, settle: bool) -> Iterator[EventBatch]:
        """There is nothing more to read now: see whether the file is still the log."""
        log = self._log
        if log is None:
            yield from self._appear()
        elif not log.unchanged():
            yield from self._truncated(log)
        elif self._later:
            yield from self._advance(log)
        elif same_file(self.path, log) is False:
            yield from self._follow(log)
        elif settle and self._reader.waiting:
            self._settled = max(0, self._reader.offset - self._origin)
            self._reader.settle()
            yield from self._claimed(self._reader.batches())

    def _appear(self) -> Iterator[EventBatch]:
        """The log was not there: see whether it is now."""
        try:
            self._log = log = LogFile(self.path, self._hint)
        except MissingLogError:
            return
        self._read_on(0)
        if self.position is not None and self.position.saved is not None:
            yield from self._resume(self.position, self.position.saved, log)

    def _truncated(self, log: LogFile) -> Iterator[EventBatch]:
        """The log was emptied under us, as logrotate's copytruncate does: the rest of it may be in the copy."""
        read_to = log.read_place()
        copy = find_place(self.path, read_to)
        log.seek(0)
        if copy is not None:
            try:
                yield from self._read_through(copy, read_to.offset)
            finally:
                copy.close()
        self._reader.gap(
            "the log was truncated; what was written between the last copy and that is lost"
            if copy is not None
            else "the log was truncated; what was written since our last look is lost",
            read=read_to.offset,
        )
        yield from self._at_beginning()

    def _follow(self, log: LogFile) -> Iterator[EventBatch]:
        """Go to the file that comes after this one, once something was written to it."""
        try:
            successor = LogFile(self.path, self._hint)
        except ObservationError:
            now = time.monotonic()
            self._unreadable_since = self._unreadable_since or now
            if now - self._unreadable_since > _UNREADABLE_SECONDS and self.path.exists():
                raise
            return
        self._unreadable_since = None
        # A writer goes on with the old file until it is told to reopen its log, and closes it before it opens the new.
        if not successor.size:
            successor.close()
            return
        files, missed = between(self.path, log, successor)
        self._later.extend((*files, successor))
        yield from self._advance(log, missed=missed)

    def _advance(self, log: LogFile, *, missed: bool = False) -> Iterator[EventBatch]:
        """Read the open file to its end, which it has, and go to the next."""
        while data := log.read():
            yield from self._decode(data)
        if not log.unchanged():
            self._reader.gap("the rotated log was truncated before it was read to its end")
        if self._reader.unfinished:
            self._reader.gap("the rotated log ends in the middle of a line", cut=self._reader.unfinished)
        if missed:
            self._reader.gap("the log was rotated so often that some of it may be gone unread")
        log.close()
        self._log = log = self._later.popleft()
        yield from self._at_beginning()
        if log.packed:
            yield from self._read_packed(log, 0)

    def _read_packed(self, log: LogFile, start: int) -> Iterator[EventBatch]:
        yield from self._read_through(log, start)
        log.seek(log.size)

    def _at_beginning(self) -> Iterator[EventBatch]:
        self._origin = self._reader.fed
        self._settled = 0
        yield from self._claimed(self._reader.batches())
        if self.on_new_file is not None:
            self.on_new_file()

    def _read_through(self, log: LogFile, start: int) -> Iterator[EventBatch]:
        """Read the rest of a copy or of a compressed file. Position: the beginning of what is read next."""
        try:
            for data in log.chunks(start):
                self._reader.feed(data)
                for batch in self._reader.batches():
                    self._origin = self._reader.offset
                    self._claim(len(batch) + len(batch.hosts) + 1)
                    yield batch
        except DamagedFileError as error:
            self._reader.gap("a rotated log is damaged", file=str(log.path), error=str(error))
        if self._reader.unfinished:
            self._reader.gap("a rotated log ends in the middle of a line", cut=self._reader.unfinished)


def newest_ns(batch: EventBatch) -> int | None:
    """Return the time of a batch's last event, of a broker or else of a host; None when it has none."""
    if len(batch):
        return int(batch.time_ns[-1])
    return batch.hosts[-1].time_ns if batch.hosts else None
