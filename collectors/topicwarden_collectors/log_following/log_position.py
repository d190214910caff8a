"""Where a reader of a log stands, kept over restarts and SIGKILL.

A batch is claimed before it is handed out and marked as done when its consumer asks for the next one: after a crash
nothing is given twice, and what was claimed but not done is counted as lost. A place is an offset in a file and a hash
of the bytes before it, so that it is found again after the file was renamed or compressed.

Who is connected is kept beside it, less often, with the place it was true at; the lines from there to the position are
read again without giving events.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from topicwarden.errors import ConfigurationError, ObservationError, Problem

PRINT_BYTES: Final = 256
"""Bytes before a place that its fingerprint covers."""
_MAGIC: Final = b"TWLOG\r\n\x02"
_RECORD: Final = struct.Struct("<QQQQQQQ16s")
_CHECKED: Final = struct.Struct(f"<{_RECORD.size}sI")
_SIZE: Final = len(_MAGIC) + 2 * _CHECKED.size
_MAX_SNAPSHOT: Final = 64 << 20


def fingerprint(before: bytes) -> bytes:
    """Return the fingerprint of a place after these bytes."""
    return hashlib.sha256(before[-PRINT_BYTES:]).digest()[:16]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a log file, after a whole line."""

    device: int
    inode: int
    offset: int
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Saved:
    """What the position file held."""

    place: Place
    settled: int
    """Offset in that file, at or before the place, where what waited for further lines was last decided without."""
    unconfirmed: int
    """Events claimed that the consumer may never have judged."""


class LogPosition:
    """The files that keep one reader's place in one log."""

    def __init__(self, folder: Path, log: Path) -> None:
        """Open or create them; raises ConfigurationError when the folder cannot be used, ObservationError when another
        process has them in use.
        """
        digest = hashlib.sha256(os.fsencode(log.absolute())).hexdigest()[:16]
        self.path = folder / f"log-{digest}.position"
        self._sessions_path = folder / f"log-{digest}.sessions.json"
        self.saved: Saved | None = None
        """What was kept when it was opened."""
        self.damaged = False
        """Whether something was kept that could not be read."""
        self._turn = 0
        self._claimed = self._done = 0
        self._place: Place | None = None
        self._settled = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file: int | None = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(
                Problem(
                    f"the reading position cannot be kept: {os.strerror(error.errno or 0)}",
                    str(self.path),
                    hint="give --state-dir a folder this account may write to",
                )
            ) from error
        try:
            self._begin(self._file)
        except BaseException:
            self.close()
            raise

    def _begin(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ObservationError(
                Problem(
                    "another topicwarden is reading this log with the same state folder",
                    str(self.path),
                    hint="stop it, or give this one a --state-dir of its own",
                )
            ) from error
        data = os.pread(file, _SIZE + 1, 0)
        if len(data) == _SIZE and data.startswith(_MAGIC):
            for i in range(2):
                self._load(data, len(_MAGIC) + i * _CHECKED.size)
            self.damaged = self.saved is None and any(data[len(_MAGIC) :])
        else:
            self.damaged = bool(data)
            os.ftruncate(file, 0)
            os.pwrite(file, _MAGIC.ljust(_SIZE, b"\0"), 0)

    def _load(self, data: bytes, at: int) -> None:
        body, checksum = _CHECKED.unpack_from(data, at)
        turn, device, inode, offset, settled, claimed, done, digest = _RECORD.unpack(body)
        if turn > self._turn and checksum == zlib.crc32(body):
            self._turn = turn
            self.saved = Saved(Place(device, inode, offset, digest), settled, max(0, claimed - done))

    def claim(self, place: Place, events: int, *, settled: int) -> None:
        """Record, before a batch of so many events is handed out, that everything before `place` is.

        `settled`: see `Saved`.
        """
        self._place, self._settled = place, settled
        self._claimed += events
        self._write()

    def done(self) -> None:
        """Record that the consumer is done with what was claimed."""
        if self._done != self._claimed:
            self._done = self._claimed
            self._write()

    def _write(self) -> None:
        place = self._place
        if self._file is None or place is None:
            return
        self._turn += 1
        body = _RECORD.pack(
            self._turn,
            place.device,
            place.inode,
            place.offset,
            self._settled,
            self._claimed,
            self._done,
            place.fingerprint,
        )
        try:
            os.pwrite(self._file, _CHECKED.pack(body, zlib.crc32(body)), len(_MAGIC) + self._turn % 2 * _CHECKED.size)
        except OSError as error:
            raise ObservationError(
                Problem(
                    f"the reading position cannot be kept any more: {os.strerror(error.errno or 0)}",
                    str(self.path),
                    hint="without it events could be given twice; make room, or watch without --state-dir",
                )
            ) from error

    def keep_sessions(self, place: Place, snapshot: dict[str, Any]) -> None:
        """Keep who is connected at `place`; a failure only costs what the log must be read again for."""
        data = json.dumps(
            {
                "device": place.device,
                "inode": place.inode,
                "offset": place.offset,
                "fingerprint": place.fingerprint.hex(),
                **snapshot,
            }
        ).encode()
        new = self._sessions_path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as out:
                out.write(data)
            new.replace(self._sessions_path)

    def kept_sessions(self) -> tuple[Place, dict[str, Any]] | None:
        """Return what `keep_sessions` kept last; None when there is nothing of use."""
        try:
            file = os.open(self._sessions_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(file, "rb") as source:
                snapshot = json.loads(source.read(_MAX_SNAPSHOT))
            place = Place(
                int(snapshot["device"]),
                int(snapshot["inode"]),
                int(snapshot["offset"]),
                bytes.fromhex(snapshot["fingerprint"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return place, snapshot

    def close(self) -> None:
        """Release the file; closing twice is no error."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
