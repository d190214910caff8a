"""The files of a store's log: what they are called, and their lines, which a full file holds compressed.

A compressed file is one member of gzip (RFC 1952) without any field that may be left out, and nothing behind it: every
tool reads the same in it. It is hostile as all files are, so memory does not depend on what it claims to unpack to.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from topicwarden.store.log_entries import ENTRIES_A_FILE, MAX_LINE, LogDamageError

BLOCK: Final = 1 << 19
"""Bytes that are read, and unpacked, at once."""
GZIP: Final = 31
"""zlib's number for gzip with the largest window."""
_HEAD: Final = b"\x1f\x8b\x08\x00"
_NAME: Final = re.compile(r"entries-([0-9]{12})\.(jsonl|jsonl\.gz|summary)")
_LISTINGS: Final = 16


@dataclass(frozen=True, slots=True)
class LogFile:
    """The entries from one number on, in whichever form they are just now."""

    folder: Path
    first: int

    @property
    def plain(self) -> Path:
        """The file that is appended to."""
        return self.folder / f"entries-{self.first:012}.jsonl"

    @property
    def packed(self) -> Path:
        """The compressed file; if both are there, this one counts: it was whole before it got its name."""
        return self.folder / f"entries-{self.first:012}.jsonl.gz"

    @property
    def summary(self) -> Path:
        """What was derived from it."""
        return self.folder / f"entries-{self.first:012}.summary"


@dataclass(frozen=True, slots=True)
class Listing:
    """Numbers of first entries, each kind of file by itself."""

    plain: frozenset[int]
    packed: frozenset[int]
    summaries: frozenset[int]
    others: tuple[Path, ...]
    """Whatever else is in the folder."""

    @property
    def firsts(self) -> list[int]:
        """Those of files that have the entries."""
        return sorted(self.plain | self.packed)


def listed(folder: Path) -> Listing:
    """Return which files there are; raises OSError."""
    before = _names(folder)
    for _ in range(_LISTINGS):
        # While a file is compressed, one listing may have neither form.
        after = _names(folder)
        if after == before:
            break
        before = after
    found: dict[str, set[int]] = {"jsonl": set(), "jsonl.gz": set(), "summary": set()}
    others = []
    for name in before:
        match = _NAME.fullmatch(name)
        if match is None:
            others.append(folder / name)
        else:
            found[match[2]].add(int(match[1]))
    plain, packed, summaries = map(frozenset, found.values())
    return Listing(plain, packed, summaries, tuple(others))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Lines:
    """One reading of a file's lines."""

    def __init__(self, file: LogFile) -> None:
        self.path = file.plain
        """The file that is read; known once it was opened."""
        self.count = 0
        """Lines so far."""
        self.rest = b""
        """What is behind the last line feed."""
        self._file = file

    def blocks(self) -> Iterator[list[bytes]]:
        """Yield the lines, some at a time; raises OSError, and LogDamageError for what is no file of the log."""
        # It may be compressed between two attempts.
        for path in (self._file.packed, self._file.plain, self._file.packed):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
            break
        else:
            raise FileNotFoundError(2, "No such file or directory", str(self._file.plain))
        with file:
            self.path = path
            packed = path == self._file.packed
            for data in unpacked(file, self._file.first) if packed else _blocks(file):
                found = (self.rest + data).split(b"\n")
                self.rest = found.pop()
                if found and not self.rest and not packed and b"\0" in found[-1]:
                    # The last entry when power was lost: its end came to the disk before its beginning.
                    self.rest = found.pop() + b"\n"
                # All others are shorter than a block.
                if len(self.rest) > MAX_LINE or (found and len(found[0]) > MAX_LINE):
                    raise self._damage(f"longer than {MAX_LINE} bytes")
                if packed and self.count + len(found) > ENTRIES_A_FILE:
                    raise self._damage(f"{path.name} has more than {ENTRIES_A_FILE} entries")
                yield found
                self.count += len(found)
            if packed and self.rest:
                raise self._damage(f"cut short, at the end of {path.name}")

    def _damage(self, what: str) -> LogDamageError:
        return LogDamageError(self._file.first + self.count + 1, what)


def content(path: Path, first: int) -> Iterator[bytes]:
    """Yield what a file has, unpacked if it is compressed, a block at a time; raises OSError and LogDamageError."""
    with path.open("rb", buffering=0) as file:
        yield from unpacked(file, first) if path.suffix == ".gz" else _blocks(file)


def unpacked(file: BinaryIO, first: int) -> Iterator[bytes]:
    """Yield what a compressed file unpacks to, a block at a time; raises OSError and LogDamageError.

    `first`: the number of its first entry.
    """
    lines = 0
    try:
        for block in _inflated(file):
            lines += block.count(b"\n")
            yield block
    except zlib.error as error:
        raise LogDamageError(first + lines + 1, f"the compressed file is damaged: {error}") from error


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    inflate = zlib.decompressobj(GZIP)
    size = 0
    data = file.read(BLOCK)
    if not data.startswith(_HEAD):
        raise zlib.error("it does not begin as a compressed file does")
    while data:
        block = inflate.decompress(data, BLOCK)
        while block:
            size += len(block)
            if size > ENTRIES_A_FILE * (MAX_LINE + 1):
                raise zlib.error("it unpacks to more than any file of the log has")
            yield block
            block = inflate.decompress(inflate.unconsumed_tail, BLOCK)
        if inflate.eof and (inflate.unused_data or file.read(1)):
            raise zlib.error("something is behind its end")
        data = b"" if inflate.eof else file.read(BLOCK)
    if not inflate.eof:
        raise zlib.error("it is cut short")


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(BLOCK):
        yield data
