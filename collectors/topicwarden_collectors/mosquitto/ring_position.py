"""Where a reader of a ring stands, kept over restarts and SIGKILL.

A batch is claimed before it is handed out and marked as done when its consumer asks for the next one. After a crash
the reader goes on after what was claimed: nothing is given twice, and what was claimed but not done is counted as lost.

The file holds two records that are written in turn, each with a checksum, so that one whole record is always there.
It is written with `pwrite`, which survives the death of the process as a map would, but cannot end in SIGBUS on a full
disk. It need not survive a power cut: the ring does not either.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, ObservationError, Problem

_MAGIC: Final = b"TWPOS\r\n\x01"
_HEAD: Final = struct.Struct("<8s32s24x")
_RECORD: Final = struct.Struct("<QQQQQQ")
_CHECKED: Final = struct.Struct(f"<{_RECORD.size}sI12x")
_SIZE: Final = _HEAD.size + 2 * _CHECKED.size
_NO_SEQUENCE: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a ring's stream."""

    position: int
    """Slots before it."""
    sequence: int | None
    """The next event's number; None when no event has been seen yet."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a reader came in one generation of a ring."""

    generation: int
    claimed: Place
    done: Place


class ReadingPosition:
    """The file that keeps one reader's position in one ring."""

    def __init__(self, folder: Path, ring: Path) -> None:
        """Open or create the file; raises ConfigurationError when the folder cannot be used, ObservationError when
        another process has the file in use.
        """
        digest = hashlib.sha256(os.fsencode(ring.absolute())).digest()
        self.path = folder / f"ring-{digest.hex()[:16]}.position"
        self.saved: Reading | None = None
        """What the file held when it was opened."""
        self.problem: str | None = None
        """Why what it held could not be used; None when nothing was wrong."""
        self._head = _HEAD.pack(_MAGIC, digest)
        self._turn = 0
        self._now: Reading | None = None
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
            self._begin(self._file, digest)
        except BaseException:
            self.close()
            raise

    def _begin(self, file: int, digest: bytes) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ObservationError(
                Problem(
                    "another topicwarden is reading this ring with the same state folder",
                    str(self.path),
                    hint="stop it, or give this one a --state-dir of its own",
                )
            ) from error
        data = os.pread(file, _SIZE + 1, 0)
        if data:
            self._load(data, digest)
        if len(data) != _SIZE or self.problem:
            os.ftruncate(file, 0)
            os.pwrite(file, self._head.ljust(_SIZE, b"\0"), 0)

    def _load(self, data: bytes, digest: bytes) -> None:
        if len(data) != _SIZE:
            self.problem = "it has the wrong size"
            return
        magic, ring = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            self.problem = "it is damaged or of another version"
            return
        if ring != digest:
            self.problem = "it belongs to another ring"
            return
        for i in range(2):
            body, checksum = _CHECKED.unpack_from(data, _HEAD.size + i * _CHECKED.size)
            turn, generation, *numbers = _RECORD.unpack(body)
            if turn <= self._turn or checksum != zlib.crc32(body):
                continue
            places = [Place(numbers[at], None if numbers[at + 1] == _NO_SEQUENCE else numbers[at + 1]) for at in (0, 2)]
            self._turn, self.saved = turn, Reading(generation, *places)
        if self.saved is None and any(data[_HEAD.size :]):
            self.problem = "it is damaged"

    def claim(self, place: Place, first_sequence: int | None = None) -> None:
        """Record, before a batch is handed out, that everything before `place` is.

        `first_sequence`: the number of the first event of all, which the place to start at could not know.
        """
        if self._now is None:
            raise RuntimeError("a claim before start()")
        done = self._now.done
        if done.sequence is None:
            done = replace(done, sequence=first_sequence)
        self._write(Reading(self._now.generation, place, done))

    def start(self, generation: int, place: Place, done: Place | None = None) -> None:
        """Record where reading begins, and up to where its consumer was done, if that is not the same."""
        self._write(Reading(generation, place, done or place))

    def done(self) -> None:
        """Record that the consumer is done with what was claimed."""
        if self._now is not None and self._now.done != self._now.claimed:
            self._write(replace(self._now, done=self._now.claimed))

    def _write(self, reading: Reading) -> None:
        if self._file is None:
            return
        self._now = reading
        self._turn += 1
        numbers = [
            number
            for place in (reading.claimed, reading.done)
            for number in (place.position, _NO_SEQUENCE if place.sequence is None else place.sequence)
        ]
        body = _RECORD.pack(self._turn, reading.generation, *numbers)
        record = _CHECKED.pack(body, zlib.crc32(body))
        try:
            os.pwrite(self._file, record, _HEAD.size + self._turn % 2 * _CHECKED.size)
        except OSError as error:
            raise ObservationError(
                Problem(
                    f"the reading position cannot be kept any more: {os.strerror(error.errno or 0)}",
                    str(self.path),
                    hint="without it events could be given twice; make room, or watch without --state-dir",
                )
            ) from error

    def close(self) -> None:
        """Release the file; closing twice is no error."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
