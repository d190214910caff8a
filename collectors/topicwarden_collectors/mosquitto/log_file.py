"""A log file on disk, and the files it was rotated to."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.mosquitto.log_position import PRINT_BYTES, Place, fingerprint

CHUNK: Final = 1 << 16
"""Bytes read at once."""
MAX_SIBLINGS: Final = 64
"""Most rotated files looked at."""
GZIP_MAGIC: Final = b"\x1f\x8b"
_ROTATED: Final = re.compile(r"[.-]\d[\d.-]*(\.gz)?")


class LogFile:
    """An open log, read from `offset` on. It stays the same file when its name goes to another one."""

    def __init__(self, path: Path) -> None:
        """Open it; raises ObservationError when it cannot be read."""
        self.path = path
        try:
            # O_NONBLOCK: a pipe in the log's place must not hang us.
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise ObservationError(_cannot_read(path, error)) from error
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._file)
            raise ObservationError(
                Problem("not a regular file", str(path), hint="name the file in `log_dest file` of mosquitto.conf")
            )
        self.device, self.inode = status.st_dev, status.st_ino
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

    @property
    def packed(self) -> bool:
        """Whether it is gzipped."""
        return os.pread(self._file, 2, 0) == GZIP_MAGIC

    def read(self) -> bytes:
        """Return the next bytes; b'' at the end."""
        data = os.pread(self._file, CHUNK, self.offset)
        self.offset += len(data)
        self._before = (self._before + data)[-PRINT_BYTES:] if data else self._before
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
        """Whether a place is in this file, by what stands before it."""
        if place.offset == 0:
            return (self.device, self.inode) == (place.device, place.inode)
        return self.size >= place.offset and fingerprint(self.before(place.offset)) == place.fingerprint

    def close(self) -> None:
        """Close it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _cannot_read(path: Path, error: OSError) -> Problem:
    what = f"the log cannot be read: {os.strerror(error.errno or 0)}"
    if isinstance(error, PermissionError):
        hint = "let this account read it, for example by adding it to the log's group (adm or mosquitto)"
    elif isinstance(error, FileNotFoundError):
        hint = "check `log_dest file` in mosquitto.conf; it names where the broker writes"
    else:
        hint = "name the file in `log_dest file` of mosquitto.conf"
    return Problem(what, str(path), hint=hint)


def same_file(path: Path, log: LogFile) -> bool | None:
    """Whether a path leads to this open file; None when it leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) == (log.device, log.inode)


def rotated(path: Path, newer_than_ns: int = 0) -> list[Path]:
    """Return the files that logrotate moved a log to (`.1`, `-20261123`, `.2.gz` …), the oldest first.

    Only those last written after a time: compressing keeps that time. At most `MAX_SIBLINGS`, the newest.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(path.name) and _ROTATED.fullmatch(entry.name, len(path.name)):
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode) and status.st_mtime_ns > newer_than_ns:
                        found.append((status.st_mtime_ns, entry.name))
    return [path.parent / name for _, name in sorted(found)[-MAX_SIBLINGS:]]


class DamagedFileError(Exception):
    """A compressed file ends early or is not what it says."""


def chunks(path: Path, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a log from `start` on, unpacked when gzipped.

    Raises ObservationError when it cannot be opened, DamagedFileError after what could be read of a damaged one.
    """
    log = LogFile(path)
    try:
        if log.packed:
            yield from _unpacked(path, start)
            return
        log.seek(min(start, log.size))
        while data := log.read():
            yield data
    finally:
        log.close()


def _unpacked(path: Path, start: int) -> Iterator[bytes]:
    try:
        with gzip.open(path) as source:
            skip = start
            while skip and (data := source.read(min(skip, CHUNK))):
                skip -= len(data)
            # read1: what was unpacked before the damage is given.
            while data := source.read1(CHUNK):
                yield data
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedFileError(str(error)) from error


def find_place(path: Path, place: Place) -> Path | None:
    """Return which rotated file holds a place; compressed ones are unpacked to look."""
    return next((candidate for candidate in reversed(rotated(path)) if holds_place(candidate, place)), None)


def holds_place(path: Path, place: Place) -> bool:
    """Whether a file, plain or gzipped, holds a place; False when it cannot be read."""
    try:
        log = LogFile(path)
    except ObservationError:
        return False
    try:
        return _packed_holds(path, place) if log.packed else log.holds(place)
    finally:
        log.close()


def _packed_holds(path: Path, place: Place) -> bool:
    before = b""
    position = 0
    try:
        with gzip.open(path) as source:
            while position < place.offset:
                data = source.read(min(CHUNK, place.offset - position))
                if not data:
                    return False
                position += len(data)
                before = (before + data)[-PRINT_BYTES:]
    except (OSError, EOFError, zlib.error):
        return False
    return place.offset > 0 and fingerprint(before) == place.fingerprint
