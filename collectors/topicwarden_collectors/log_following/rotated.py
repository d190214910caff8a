"""The files that a log was rotated to, in their order, while they may be renamed under our eyes."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from topicwarden.errors import ObservationError
from topicwarden_collectors.log_following.log_file import LogFile
from topicwarden_collectors.log_following.log_position import Place

MAX_ROTATED: Final = 64
"""Most rotated files looked at."""
_TRIES: Final = 16
"""How often a folder is looked at until two looks agree: files are renamed one after the other."""
_SUFFIX: Final = re.compile(r"[.-]\d[\d.:_-]*(\.gz)?")
_NUMBER: Final = re.compile(r"\.(\d{1,6})(?:\.gz)?")


class Rotated(NamedTuple):
    """A file that a log was rotated to."""

    path: Path
    device: int
    inode: int
    modified_ns: int
    number: int | None
    """As in `.1`: the higher the older. None when its name has none."""

    def is_of(self, log: LogFile) -> bool:
        """Whether it is this open file."""
        return (self.device, self.inode) == (log.device, log.inode)


def rotated(path: Path) -> list[Rotated]:
    """Return what a log was rotated to (`x.log.1`, `x.log-20261123`, `x.log.2.gz`, `x-20261123.log` …), oldest first.

    At most `MAX_ROTATED`, the newest. Where all names end in numbers these give the order, else the time of the last
    change, which compressing keeps.
    """
    found = _look(path)
    for _ in range(_TRIES):
        again = _look(path)
        if again == found:
            break
        found = again
    # A file renamed while we looked may be there under both names.
    files = list({(one.device, one.inode): one for one in found}.values())
    if all(one.number is not None for one in files):
        files.sort(key=lambda one: -(one.number or 0))
    else:
        files.sort(key=lambda one: (one.modified_ns, -(one.number or 0), one.path.name))
    return files[-MAX_ROTATED:]


def _look(path: Path) -> list[Rotated]:
    found = []
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            rest = _suffix(path, entry.name)
            if rest is None:
                continue
            with contextlib.suppress(OSError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    number = _NUMBER.fullmatch(rest)
                    found.append(
                        Rotated(
                            path.parent / entry.name,
                            status.st_dev,
                            status.st_ino,
                            status.st_mtime_ns,
                            None if number is None else int(number[1]),
                        )
                    )
    return sorted(found)


def _suffix(path: Path, name: str) -> str | None:
    """Return what a rotated file's name adds to the log's, at its end or before its extension; None for another's."""
    if name.startswith(path.name):
        rest = name[len(path.name) :]
    elif path.suffix and name.startswith(path.stem):
        rest = name[len(path.stem) :].removesuffix(".gz")
        if not rest.endswith(path.suffix):
            return None
        rest = rest.removesuffix(path.suffix) + (".gz" if name.endswith(".gz") else "")
    else:
        return None
    return rest if _SUFFIX.fullmatch(rest) else None


def find_place(path: Path, place: Place) -> LogFile | None:
    """Open the rotated file that holds a place; compressed ones are unpacked to look."""
    for one in reversed(rotated(path)):
        try:
            log = LogFile(one.path)
        except ObservationError:
            continue
        if log.holds(place):
            return log
        log.close()
    return None


class Between(NamedTuple):
    """What was rotated between an open log and the one that has its name now."""

    files: Sequence[LogFile]
    """Open, the oldest first."""
    missed: bool
    """Whether there may have been more that are gone."""


def between(path: Path, old: LogFile, successor: LogFile) -> Between:
    """Open what was rotated after `old` and before `successor`, which must have been opened before this is called.

    They are opened at once: later their names may lead to others.
    """
    for attempt in range(_TRIES):
        wanted, missed = _between(rotated(path), old, successor)
        files: list[LogFile] = []
        for one in wanted:
            try:
                file = LogFile(one.path)
            except ObservationError:
                break
            files.append(file)
            if not one.is_of(file):
                break
        else:
            return Between(files, missed)
        if attempt + 1 < _TRIES:
            for file in files:
                file.close()
    if files and not one.is_of(files[-1]):
        files.pop().close()
    return Between(files, missed=True)


def _between(files: list[Rotated], old: LogFile, successor: LogFile) -> tuple[list[Rotated], bool]:
    end = next((i for i, one in enumerate(files) if one.is_of(successor)), len(files))
    files = files[:end]
    start = next((i for i, one in enumerate(files) if one.is_of(old)), None)
    if start is not None:
        return files[start + 1 :], False
    later = [one for one in files if one.modified_ns >= old.modified_ns]
    here = old.read_place()
    # Compressed meanwhile, or a copy of it.
    start = next((i for i, one in enumerate(later) if _holds(one.path, here)), None)
    if start is not None:
        return later[start + 1 :], False
    return later, bool(later) and len(later) == len(files)


def _holds(path: Path, place: Place) -> bool:
    try:
        log = LogFile(path)
    except ObservationError:
        return False
    try:
        return log.holds(place)
    finally:
        log.close()
