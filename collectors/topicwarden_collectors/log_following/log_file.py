"""A log file on disk, plain or gzipped, read by places that are found again after it was renamed or compressed."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.log_following.log_position import PRINT_BYTES, Place, fingerprint

CHUNK: Final = 1 << 16
"""Bytes read at once."""
GZIP_MAGIC: Final = b"\x1f\x8b"
CHECK_PATH: Final = "check the path"


class MissingLogError(ObservationError):
    """There is no file of that name."""


class DamagedFileError(Exception):
    """A compressed file ends early or is not what it says."""


class LogFile:
    """An open log, read from `offset` on. It stays the same file when its name goes to another one."""

    def __init__(self, path: Path, hint: str = CHECK_PATH) -> None:
        """Open it; raises MissingLogError when it is not there, ObservationError when it cannot be read.

        `hint` says where the right path is found.
        """
        self.path = path
        try:
            # O_NONBLOCK: a pipe in the log's place must not hang us.
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise _cannot_read(path, error, hint) from error
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._file)
            raise ObservationError(Problem("not a regular file", str(path), hint=hint))
        self.device, self.inode = status.st_dev, status.st_ino
        self.packed = os.pread(self._file, 2, 0) == GZIP_MAGIC
        """Whether it is gzipped; only `chunks` and `holds` unpack."""
        self.offset = 0
        """Where the next byte is read."""
        self._before = b""
        """The bytes before it, as they were when read."""

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._file).st_size

    @property
    def modified_ns(self) -> int:
        """When it was last written, by the file system's clock."""
        return os.fstat(self._file).st_mtime_ns

    def seek(self, offset: int) -> None:
        """Read from `offset` on."""
        self.offset = offset
        self._before = self.before(offset)

    def before(self, offset: int) -> bytes:
        """Return the bytes before an offset that its fingerprint covers."""
        start = max(0, offset - PRINT_BYTES)
        return os.pread(self._file, offset - start, start)

    def read(self) -> bytes:
        """Return the next bytes; b'' at the end, or when the file is not `unchanged` any more.

        That is looked at after reading: bytes read from a file that was written anew in between are of no place.
        """
        data = os.pread(self._file, CHUNK, self.offset)
        if not data or not self.unchanged():
            return b""
        self.offset += len(data)
        self._before = (self._before + data)[-PRINT_BYTES:]
        return data

    def unchanged(self) -> bool:
        """Whether what was read is still there: the file was neither cut short nor written anew."""
        return (
            self.size >= self.offset
            and os.pread(self._file, len(self._before), self.offset - len(self._before)) == self._before
        )

    def place(self, offset: int) -> Place:
        """Return the place after `offset` bytes."""
        return Place(self.device, self.inode, offset, fingerprint(self.before(offset)))

    def read_place(self) -> Place:
        """Return the place up to which it was read, by what was read: it may have changed since."""
        return Place(self.device, self.inode, self.offset, fingerprint(self._before))

    def holds(self, place: Place) -> bool:
        """Whether a place is in this file, by what stands before it; a packed one is unpacked to look."""
        if self.packed:
            return self._packed_holds(place)
        if place.offset == 0:
            return (self.device, self.inode) == (place.device, place.inode)
        return self.size >= place.offset and fingerprint(self.before(place.offset)) == place.fingerprint

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `start` on, unpacked when gzipped; `offset` stays.

        Raises DamagedFileError after what could be read of a damaged one.
        """
        if self.packed:
            yield from self._unpacked(start)
            return
        at = min(start, self.size)
        while data := os.pread(self._file, CHUNK, at):
            at += len(data)
            yield data

    def _unpacked(self, start: int) -> Iterator[bytes]:
        try:
            with os.fdopen(os.dup(self._file), "rb") as packed, gzip.GzipFile(fileobj=packed) as source:
                packed.seek(0)
                skip = start
                while skip and (data := source.read(min(skip, CHUNK))):
                    skip -= len(data)
                # read1: what was unpacked before the damage is given.
                while data := source.read1(CHUNK):
                    yield data
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedFileError(str(error)) from error

    def _packed_holds(self, place: Place) -> bool:
        before, position = b"", 0
        with contextlib.suppress(DamagedFileError):
            for data in self._unpacked(0):
                before = (before + data[: place.offset - position])[-PRINT_BYTES:]
                position += len(data)
                if position >= place.offset:
                    return place.offset > 0 and fingerprint(before) == place.fingerprint
        return False

    def close(self) -> None:
        """Close it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _cannot_read(path: Path, error: OSError, hint: str) -> ObservationError:
    what = f"the log cannot be read: {os.strerror(error.errno or 0)}"
    if isinstance(error, FileNotFoundError):
        return MissingLogError(Problem(what, str(path), hint=hint))
    if isinstance(error, PermissionError):
        hint = "let this account read it, for example by adding it to the group of the file"
    return ObservationError(Problem(what, str(path), hint=hint))


def same_file(path: Path, log: LogFile) -> bool | None:
    """Whether a path leads to this open file; None when it leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) == (log.device, log.inode)


def chunks(path: Path, hint: str = CHECK_PATH) -> Iterator[bytes]:
    """Yield all bytes of a log, unpacked when gzipped; raises as `LogFile` and `LogFile.chunks` do."""
    log = LogFile(path, hint)
    try:
        yield from log.chunks()
    finally:
        log.close()
