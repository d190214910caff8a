"""Compresses the log's full files and derives their summaries, a little at a time, between two seals.

Crash-safe as merging is: the compressed file is whole, synced, and read back before it has its name; only then the
plain one goes. Who reads in between finds both, which have the same lines; a writer that begins takes the plain one
away, once it has looked.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import zlib
from collections.abc import Generator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from topicwarden.store.log import sync_folder, write_whole
from topicwarden.store.log_entries import LogDamageError
from topicwarden.store.log_files import BLOCK, GZIP, Lines, LogFile, content, listed, unpacked
from topicwarden.store.log_summary import Summarizing, read_summary
from topicwarden.store.notes import Signer

LEVEL: Final = 6
STRATEGY: Final = zlib.Z_FILTERED
"""Takes no short matches, which digests are full of and which cost more than they save: a tenth smaller."""


class Packer:
    """Finds full files and packs them, one bounded step at a call. Not for two threads."""

    def __init__(self, folder: Path, signer: Signer, origin: str) -> None:
        """`folder`: the log's."""
        self.packed = 0
        """Files that were compressed."""
        self.damaged: set[int] = set()
        """First entries of files that are not what their names say: they are left as they are, for `verify` to name."""
        self._folder = folder
        self._signer = signer
        self._origin = origin
        self._done: set[int] = set()
        self._failed: dict[int, int] = {}
        """Files that could not be read or written, and which one was the newest then."""
        self._begun: int | None = None
        """First entry of the newest file when all before it were last looked at."""
        self._work: Iterator[None] | None = None

    def step(self, newest: int) -> bool:
        """Do a little; returns whether there is more to do at once.

        `newest`: the first entry of the file that is appended to; those before it are full. Raises OSError when one
        cannot be read or written; that is tried again once another one is full, so that nothing else waits for it.
        """
        if self._work is None:
            if newest == self._begun:
                return False
            self._work = self._all(newest)
        try:
            next(self._work)
        except StopIteration:
            self._work = None
        except BaseException:
            self.abandon()
            raise
        return True

    def abandon(self) -> None:
        """Give up what is being done: nothing of it remains, and nothing is lost."""
        work, self._work = self._work, None
        if isinstance(work, Generator):
            work.close()

    def _all(self, newest: int) -> Iterator[None]:
        firsts = [first for first in listed(self._folder).firsts if first <= newest]
        for first, following in itertools.pairwise(firsts):
            if first not in self._done and self._failed.get(first) != newest:
                try:
                    yield from self._one(LogFile(self._folder, first), following - first)
                except LogDamageError:
                    self.damaged.add(first)
                except OSError:
                    self._failed[first] = newest
                    raise
                self._done.add(first)
                yield
        self._begun = newest

    def _one(self, file: LogFile, entries: int) -> Iterator[None]:
        if not file.packed.exists():
            yield from self._pack(file, entries)
            yield
        elif file.plain.exists():
            packed = yield from _digest(file.packed, file.first)
            plain = yield from _digest(file.plain, file.first)
            if packed != plain:
                raise LogDamageError(file.first + 1, "its two files differ")
            # Whoever compressed it may have died before the name was on disk.
            sync_folder(self._folder)
        if file.plain.exists():
            file.plain.unlink()
            sync_folder(self._folder)
        yield
        if read_summary(file, self._signer.verifier, self._origin) is None:
            yield from self._summarize(file, entries)

    def _pack(self, file: LogFile, entries: int) -> Iterator[None]:
        temporary = file.packed.with_name(f".{file.packed.name}.new")
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP, strategy=STRATEGY)
        written, lines, end = sha256(), 0, b""
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            with os.fdopen(descriptor, "w+b") as target, file.plain.open("rb", buffering=0) as source:
                while block := source.read(BLOCK):
                    written.update(block)
                    lines, end = lines + block.count(b"\n"), block[-1:]
                    target.write(deflate.compress(block))
                    yield
                if lines != entries or end != b"\n":
                    raise LogDamageError(file.first + lines + 1, f"{file.plain.name} does not have {entries} entries")
                target.write(deflate.flush())
                target.flush()
                os.fsync(target.fileno())
                yield
                target.seek(0)
                read = sha256()
                for block in unpacked(target, file.first):
                    read.update(block)
                    yield
                if read.digest() != written.digest():
                    raise LogDamageError(file.first + 1, f"{file.plain.name} was changed")
            temporary.replace(file.packed)
            sync_folder(self._folder)
            self.packed += 1
        finally:
            with contextlib.suppress(OSError):  # it is overwritten the next time, then
                temporary.unlink(missing_ok=True)

    def _summarize(self, file: LogFile, entries: int) -> Iterator[None]:
        summarizing, reading = Summarizing(file.first, self._origin), Lines(file)
        for block in reading.blocks():
            summarizing.feed(block)
            yield
        text = summarizing.text()
        if text is not None and reading.count == entries:
            write_whole(file.summary, self._signer.sign(text))


def _digest(path: Path, first: int) -> Generator[None, None, bytes]:
    found = sha256()
    for block in content(path, first):
        found.update(block)
        yield
    return found.digest()
