"""Reads Sysmon's events from the journal, by way of `journalctl`, which is stopped whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import IO, Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import EventBatch, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.host.blind_spots import Seen, blind_spots
from topicwarden_collectors.host.host_sink import HostSink
from topicwarden_collectors.host.journal import CURSOR
from topicwarden_collectors.host.journal_position import JournalPosition
from topicwarden_collectors.host.kinds import KINDS
from topicwarden_collectors.host.log_read import read_pieces
from topicwarden_collectors.host.sysmon import SysmonDecoder
from topicwarden_collectors.log_following.follower import BUSY_SECONDS, IDLE_SECONDS, LAST_BYTES, LOOKS

JOURNALCTL: Final = ("journalctl",)
NAME: Final = "journal"
_EXPORT: Final = ("-q", "--no-pager", "-o", "export", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_UID")
_SYSMON: Final = "SYSLOG_IDENTIFIER=sysmon"
_CHUNK: Final = 1 << 16
_ANSWER_SECONDS: Final = 20.0
_END_SECONDS: Final = 1.0
_WAIT_SECONDS: Final = 0.2
_HINT: Final = "let this account read the journal, for example by adding it to the group systemd-journal"


class JournalCollector:
    """Follows Sysmon's entries in the journal; `topicwarden.sources.Collector`."""

    title = "Sysmon for Linux (journal)"

    def __init__(
        self,
        options: SourceOptions,
        *,
        command: Sequence[str] = JOURNALCTL,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Find where to begin and start `journalctl`; raises ObservationError when it cannot read the journal.

        `command` is what is run as journalctl; `clock`: nanoseconds since the epoch, for the lag and for notices.
        """
        self.broker = options.host or socket.gethostname()
        self.counters = Counters()
        self._clock = clock
        self._seen = Seen()
        self._sink = HostSink(Tables(), self.counters, self._seen, host=self.broker, clock=clock)
        self._decoder = SysmonDecoder(self.counters, host=self.broker)
        self._position = None if options.state_dir is None else JournalPosition(options.state_dir)
        self._closed = False
        self._iterating = False
        self._child: _Journalctl | None = None
        try:
            self._child = _Journalctl((*command, *_EXPORT, "-f", "--no-tail", *self._begin(command, options), _SYSMON))
            self._claim(None)
        except BaseException:
            self._release()
            raise

    def _begin(self, command: Sequence[str], options: SourceOptions) -> Sequence[str]:
        """Return from which entry on to read: the one after the last one read, else after the journal's last."""
        position = self._position
        if position is not None and position.damaged:
            self.counters.error("reading-position")
        if position is not None and position.cursor is not None:
            if _first_cursor(command, f"--cursor={position.cursor}") != position.cursor:
                self._sink.gap(NAME, "the journal no longer has the entry that was read last")
            if position.unconfirmed:
                self._sink.restarted(NAME, position.unconfirmed)
            last: str | None = position.cursor
        else:
            last = None if options.from_start else _first_cursor(command, "-n", "1")
        if last is None:
            return []
        # The entry itself is left out by the decoder. --after-cursor skips one more where the entry is none of those
        # asked for (systemd 252), and -n 0 what comes while journalctl starts.
        self._decoder.cursor = self._decoder.passed = last.encode()
        return [f"--cursor={last}"]

    @property
    def observing(self) -> bool:
        """From the start: what comes after the entry that was the journal's last is read."""
        return True

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What the journal as read so far does not show."""
        spots = blind_spots("sysmon", self._seen)
        if os.geteuid() == 0:
            return spots
        return (BlindSpot("entries of the journal that this account may not read", _HINT), *spots)

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed; raises ObservationError when journalctl ends by itself."""
        child = self._child
        if self._is_closed() or child is None:
            return
        self._iterating = True
        idle, left = 0, LAST_BYTES
        try:
            while True:
                closing = self._is_closed()
                data = child.read()
                for event in self._decoder.feed(data or b""):
                    self._sink.add(event)
                batch = self._sink.take(NAME)
                self._claim(batch)
                if batch is not None:
                    yield batch
                    if self._position is not None:
                        self._position.done()
                left -= len(data or b"") if closing else 0
                if closing and (not data or left <= 0):
                    return
                if data is None:
                    raise child.failure()
                idle = 0 if data else idle + 1
                await asyncio.sleep(0 if data else BUSY_SECONDS if idle <= LOOKS else IDLE_SECONDS)
        finally:
            self._release()

    def _is_closed(self) -> bool:
        return self._closed

    def _claim(self, batch: EventBatch | None) -> None:
        events = 0
        if batch is not None and batch.hosts:
            events = len(batch.hosts)
            self.counters.lag_ns = self._clock() - batch.hosts[-1].time_ns
        if self._position is not None and self._decoder.cursor is not None:
            self._position.claim(self._decoder.cursor.decode("ascii", "replace"), events)

    async def close(self) -> None:
        """Stop; `batches` hands over what journalctl has written, and ends."""
        self._closed = True
        if not self._iterating:
            self._release()

    def _release(self) -> None:
        if self._child is not None:
            self._child.close()
        if self._position is not None:
            self._position.close()


def read_journal(
    options: SourceOptions, counters: Counters, *, command: Sequence[str] = JOURNALCTL
) -> Iterator[EventBatch]:
    """Read Sysmon's entries in the journal to its end; raises ObservationError at once when it cannot be read."""
    child = _Journalctl((*command, *_EXPORT, _SYSMON))
    return _read(child, options, counters)


def _read(child: _Journalctl, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
    try:
        yield from read_pieces(KINDS["sysmon"], child.pieces(), options, counters, Tables(), NAME, time.time_ns())
        if child.wait() != 0:
            raise child.failure()
    finally:
        child.close()


class _Journalctl:
    """A running journalctl, read without waiting."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise ObservationError(
                Problem(f"{command[0]} cannot be run: {error.strerror}", hint="it is part of systemd")
            ) from error
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)

    def read(self) -> bytes | None:
        """Return what it has written, b'' when that is nothing yet, None when it has ended."""
        try:
            return os.read(self._output.fileno(), _CHUNK) or None
        except BlockingIOError:
            return b""

    def pieces(self) -> Iterator[bytes]:
        """Yield what it writes until it ends; b'' now and then while it writes nothing."""
        while (data := self.read()) is not None:
            yield data
            if not data:
                select.select([self._output], [], [], _WAIT_SECONDS)

    def wait(self) -> int:
        """Return its exit code once it has closed its output."""
        return self._process.wait(_ANSWER_SECONDS)

    def failure(self) -> ObservationError:
        """Return what it said when it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._errors.seek(0)
        said = self._errors.read(4096).decode("utf-8", "replace").strip() or f"exit code {self._process.returncode}"
        return ObservationError(Problem(f"journalctl ended: {said}", hint=_HINT))

    def close(self) -> None:
        """Stop it; closing twice is no error."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()
        self._errors.close()


def _first_cursor(command: Sequence[str], *arguments: str) -> str | None:
    """Return the cursor of the first entry that journalctl gives; raises ObservationError when it cannot read."""
    child = _Journalctl((*command, *_EXPORT, *arguments))
    deadline = time.monotonic() + _ANSWER_SECONDS
    before = b""
    try:
        for data in child.pieces():
            before += data
            if b"\n" in before or time.monotonic() > deadline:
                break
        else:
            if child.wait() != 0:
                raise child.failure()
        name, _, cursor = before.partition(b"\n")[0].partition(b"=")
        return cursor.decode("ascii", "replace") if name == CURSOR else None
    finally:
        child.close()
