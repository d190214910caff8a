"""Runs the helper topicwarden-attribute, which Mosquitto's plugin asks whose a connection is, and reads what it found.

The helper needs privileges that we do not: it is a program of its own (`brokers/mosquitto/attribute.c`), takes nothing
from the broker but numbers, and ends when we do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import socket as sockets
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.events import HostEvent
from topicwarden.findings import data_dir
from topicwarden.sources import Counters
from topicwarden_collectors.host import procfs
from topicwarden_collectors.host.attributor_records import HEAD, Record, RecordDecoder, Result, host_events

PROGRAM: Final = "topicwarden-attribute"
START_SECONDS: Final = 10.0
RESTART_SECONDS: Final = 2.0
"""How long a helper may take to be started again: so long the caller waits."""
_PIPE_BYTES: Final = 1 << 20
"""What the kernel gives anybody; thousands of records wait there for us."""
_READ_BYTES: Final = 1 << 18
_RESTARTS: Final = 3
_RESTARTS_WITHIN: Final = 60.0
"""A helper that ends more often than `_RESTARTS` times in so many seconds is not started again."""
_END_SECONDS: Final = 2.0
_WRONG_USAGE: Final = 2
_STEADY_NS: Final = 10_000_000


class Attributor:
    """The running helper. `fileno` is readable when there is something to `read`."""

    def __init__(
        self,
        socket: Path,
        counters: Counters,
        *,
        host: str | None = None,
        allow: Sequence[str] = (),
        program: Path | None = None,
    ) -> None:
        """Start it; it listens when this returns. `socket`: as in the plugin's option `plugin_opt_attribute`.

        `host`: this machine's name in events. `allow`: the users, by name or number, whose brokers may ask; none: root
        and `mosquitto`. Raises ConfigurationError when there is no such program or it does not take the socket, and
        ObservationError when it cannot work here.
        """
        self._command = [str(program or find_program())]
        for user in allow:
            self._command += ["--allow", user]
        self._command.append(str(socket.absolute()))
        self._host = sockets.gethostname() if host is None else host
        self._counters = counters
        self._booted_ns = 0
        self._dropped_before = 0
        self._dropped_now = 0
        self._ends: deque[float] = deque(maxlen=_RESTARTS)
        self._process: subprocess.Popen[bytes] | None = None
        self._output = -1
        self._decoder = RecordDecoder()
        # Stays the same when the helper is started anew.
        self._poll = select.epoll()
        try:
            self._start(START_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def dropped(self) -> int:
        """How many records were lost because we did not read in time."""
        return self._dropped_before + self._dropped_now

    @property
    def running(self) -> bool:
        """Whether the helper runs; it is not started again once it ended too often."""
        return self._process is not None

    def fileno(self) -> int:
        """Return a descriptor that is readable when `read` has something to do."""
        return self._poll.fileno()

    def read(self) -> list[HostEvent]:
        """Return what has come, without waiting: of each question the process and its connection, as far as found.

        A helper that has ended is started again.
        """
        if self._process is None:
            return []
        self._note_boot()
        events: list[HostEvent] = []
        records, ended = self._take()
        for record in records:
            self._count(record)
            events += host_events(record, self._host, self._booted_ns)
        if ended:
            self._start_again()
        return events

    def close(self) -> None:
        """End the helper; its socket is gone then. Closing twice is no error."""
        self._stop()
        if not self._poll.closed:
            self._poll.close()

    def _start(self, seconds: float) -> None:
        """Start the helper and wait until it listens."""
        self._decoder = RecordDecoder()
        with tempfile.TemporaryFile() as complaints:
            self._launch(complaints)
            deadline = time.monotonic() + seconds
            while not self._ready():
                left = deadline - time.monotonic()
                if self._ended() or left <= 0:
                    raise self._failed(complaints)
                select.select([self._output], [], [], min(left, 0.05))

    def _launch(self, complaints: IO[bytes]) -> None:
        self._output, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                self._command, stdin=subprocess.PIPE, stdout=theirs, stderr=complaints, start_new_session=True, cwd="/"
            )
        except OSError as error:
            raise ConfigurationError(Problem(f"it cannot be run: {error.strerror}", self._command[0])) from error
        finally:
            os.close(theirs)
        self._poll.register(self._output, select.EPOLLIN)

    def _ready(self) -> bool:
        """Whether the first record has come; what follows it stays in the pipe."""
        return [record.ready for record in self._decoder.feed(self._next(HEAD.size) or b"")] == [True]

    def _next(self, most: int = _READ_BYTES) -> bytes | None:
        """Return what is in the pipe; None when nothing is; b'' when the helper has ended."""
        try:
            return os.read(self._output, most)
        except BlockingIOError:
            return None

    def _take(self) -> tuple[list[Record], bool]:
        """Return the records in the pipe, up to what it holds, and whether the helper has ended."""
        records: list[Record] = []
        for _ in range(_PIPE_BYTES // _READ_BYTES):
            data = self._next()
            if data is None:
                break
            records += self._decoder.feed(data)
            if self._decoder.broken:
                self._counters.error("attributor")
            if not data or self._decoder.broken:
                return records, True
        return records, False

    def _count(self, record: Record) -> None:
        if record.dropped > self._dropped_now:
            self._counters.lost += record.dropped - self._dropped_now
            self._counters.gaps += 1
            self._dropped_now = record.dropped
        name = "attributed" if record.result is Result.FOUND else f"attribution_{record.result.name.lower()}"
        self._counters.source[name] = self._counters.source.get(name, 0) + 1

    def _note_boot(self) -> None:
        """Note when the machine started, by its clock as it is now; the same while nobody sets that."""
        booted_ns = procfs.utc_of_start(0)
        if abs(booted_ns - self._booted_ns) > _STEADY_NS:
            self._booted_ns = booted_ns

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _start_again(self) -> None:
        self._stop()
        self._dropped_before += self._dropped_now
        self._dropped_now = 0
        self._counters.source["attributor_ended"] = self._counters.source.get("attributor_ended", 0) + 1
        now = time.monotonic()
        if len(self._ends) == _RESTARTS and now - self._ends[0] < _RESTARTS_WITHIN:
            return
        self._ends.append(now)
        try:
            self._start(RESTART_SECONDS)
        except (ConfigurationError, ObservationError):
            self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._output >= 0:
            with contextlib.suppress(OSError, ValueError):
                self._poll.unregister(self._output)
            os.close(self._output)
            self._output = -1

    def _failed(self, complaints: IO[bytes]) -> ConfigurationError | ObservationError:
        """Return the error that says why it did not start."""
        complaints.seek(0)
        said = complaints.read(2000).decode("utf-8", "replace").strip().removeprefix(f"{PROGRAM}: ")
        status = None if self._process is None else self._process.poll()
        if status == _WRONG_USAGE:
            return ConfigurationError(Problem(f"{PROGRAM} does not take this: {said}", self._command[-1]))
        return ObservationError(
            Problem(
                f"{PROGRAM} cannot work here: {said or 'it does not answer'}",
                self._command[-1],
                hint="run topicwarden as root, with the socket in a folder that is root's alone",
            )
        )


def find_program() -> Path:
    """Return where the helper is: built in this checkout, or installed. Raises ConfigurationError when it is not."""
    built = data_dir("brokers").parent / "build" / PROGRAM
    if built.is_file():
        return built
    installed = shutil.which(PROGRAM)
    if installed is not None:
        return Path(installed)
    source = data_dir("brokers") / "mosquitto"
    raise ConfigurationError(
        Problem(
            f"the helper {PROGRAM} is not installed",
            hint=f"make -C {source} attribute OUT=/usr/local/sbin",
        )
    )
