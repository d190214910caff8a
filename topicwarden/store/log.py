"""The store's log on disk: entries as lines that are only ever appended, and signed checkpoints over them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from topicwarden.store.log_entries import (
    ENTRIES_A_FILE,
    MAX_LINE,
    LogDamageError,
    entry_from_line,
    entry_line,
    parsed_entry,
)
from topicwarden.store.log_files import Lines, LogFile, listed
from topicwarden.store.merkle import Frontier, Tree, leaf_hash
from topicwarden.store.model import Entry, EntryKind, Part
from topicwarden.store.notes import KEPT, PREVIOUS, Checkpoint, NoteError, Signer, Verifier, open_note

__all__ = [
    "ENTRIES_A_FILE",
    "MAX_LINE",
    "Log",
    "LogDamageError",
    "LogWriter",
    "entry_from_line",
    "entry_line",
    "parsed_entry",
    "sync_folder",
    "write_whole",
]


class Log:
    """A log as it stands on disk, for reading; entries are read as they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError when there is none."""
        self.folder = folder
        self.listing = listed(folder)
        self.files: list[tuple[int, Path]] = [
            (first, file.packed if first in self.listing.packed else file.plain)
            for first in self.listing.firsts
            for file in (LogFile(folder, first),)
        ]
        """The number of each file's first entry, and the file."""
        self.torn = 0
        """Bytes behind the last line feed of the last file: an entry that was being written. Known once it was read."""

    def lines(self, start: int = 0) -> Iterator[bytes]:
        """Yield the lines of entries from number `start` on; raises LogDamageError for files that do not follow."""
        for place, (first, _) in enumerate(self.files):
            if place == len(self.files) - 1 or self.files[place + 1][0] > start:
                yield from self.lines_of(place, max(0, start - first))

    def lines_of(self, place: int, skipped: int = 0) -> Iterator[bytes]:
        """Yield the lines of one file but the first ones; raises LogDamageError, also when the next does not follow."""
        first, _ = self.files[place]
        reading = Lines(LogFile(self.folder, first))
        for block in reading.blocks():
            yield from block[max(0, skipped - reading.count) :]
        if place == len(self.files) - 1:
            self.torn = len(reading.rest)
            return
        following, path = self.files[place + 1]
        number = first + reading.count
        if reading.rest:
            raise LogDamageError(number + 1, f"cut short, at the end of {reading.path.name}")
        if following != number:
            raise LogDamageError(number + 1, f"missing: {path.name} begins with entry {following + 1}")

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """Yield entries from number `start` on; raises LogDamageError."""
        for number, line in enumerate(self.lines(start), start + 1):
            yield entry_from_line(line, number)

    def tree(self) -> Tree:
        """Return the tree over all entries: some 64 bytes of memory each."""
        return Tree([leaf_hash(line) for line in self.lines()])

    def checkpoints(self, verifier: Verifier) -> Iterator[tuple[Path, Checkpoint | NoteError]]:
        """Yield every checkpoint kept, by size, the newest last; for one whose signature does not hold, the error."""
        kept = self.folder / "checkpoints"
        found = sorted(
            (path for path in kept.iterdir() if path.name.isdecimal()) if kept.is_dir() else (),
            key=lambda path: int(path.name),
        )
        for path in [*found, self.folder / "checkpoint"]:
            try:
                yield path, Checkpoint.parse(open_note(path.read_bytes(), verifier))
            except NoteError as error:
                yield path, error
            except OSError as error:
                yield path, NoteError(f"cannot be read: {error.strerror}")


class LogWriter:
    """Appends to a log. One at a time: whoever makes it holds the store's lock."""

    def __init__(self, folder: Path, signer: Signer, origin: str) -> None:
        """Open or begin the log; a torn last line is cut off, and `cut` says how many bytes that were.

        Raises OSError, and LogDamageError for a log that does not continue what its last checkpoint signed.
        """
        self._folder = folder
        self._signer = signer
        self._origin = origin
        self.cut = 0
        """Bytes of an entry that was not whole."""
        self.last: Entry | None = None
        """The newest entry."""
        self.kept = 0
        """Size of the newest checkpoint that stays."""
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        self._frontier = self._resume()
        # A full one too: what is torn stands in it, and `append` begins the next.
        self.first = max(listed(folder).plain, default=self.size)
        """Number of the first entry of the file that is appended to."""
        self._file = self._opened(self.first)
        self._end = os.fstat(self._file).st_size - self.cut
        """Bytes of whole entries in the file."""
        self._cut_torn()

    def _resume(self) -> Frontier:
        """Return the tree's frontier: as kept with the newest checkpoint, and the entries since."""
        frontier, log = Frontier(), Log(self._folder)
        try:
            note = (self._folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            signed = None
        else:
            try:
                signed = Checkpoint.parse(open_note(note, self._signer.verifier))
            except NoteError as error:
                raise LogDamageError(0, f"its newest checkpoint: {error}") from error
            kept = _kept_frontier(self._folder / "frontier")
            self.kept = signed.size if signed.kept else signed.previous
            if kept is not None and (kept.size, kept.root()) == (signed.size, signed.root):
                frontier = kept
        if log.files and log.files[-1][0] in log.listing.packed:
            raise LogDamageError(log.files[-1][0] + 1, "its newest file is compressed, which no writer does")
        entry = None
        # Of what was signed only the last is looked at here: all of it is what `verify` is for.
        start = max(0, frontier.size - 1)
        for number, line in enumerate(log.lines(start)):
            if start + number < frontier.size:
                entry = entry_from_line(line, frontier.size)
                continue
            frontier.append(leaf_hash(line))
            if signed is None or frontier.size > signed.size:
                entry = entry_from_line(line, frontier.size)
            elif frontier.size == signed.size:
                if frontier.root() != signed.root:
                    raise LogDamageError(frontier.size, "the entries up to here are not those that were signed")
                entry = entry_from_line(line, frontier.size)
        if signed is not None and frontier.size < signed.size:
            raise LogDamageError(frontier.size + 1, f"missing: {signed.size} entries were signed")
        if frontier.size and entry is None:
            raise LogDamageError(frontier.size, f"missing: {frontier.size} entries were signed")
        self.last, self.cut = entry, log.torn
        return frontier

    def _opened(self, first: int) -> int:
        path = LogFile(self._folder, first).plain
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        sync_folder(self._folder)
        return descriptor

    def _cut_torn(self) -> None:
        """Take off what is behind the last whole entry: a crash, or a full disk, may have left half of one."""
        if os.fstat(self._file).st_size != self._end:
            os.ftruncate(self._file, self._end)
            os.fsync(self._file)

    @property
    def size(self) -> int:
        """Entries so far."""
        return self._frontier.size

    def append(
        self,
        kind: EntryKind,
        time_ns: int,
        *,
        segment: int | None = None,
        parts: Sequence[Part] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Append an entry and make it last; raises OSError, and then the entry is not there."""
        entry = Entry(self.size, kind, time_ns, segment, tuple(parts), facts)
        line = entry_line(entry)
        if len(line) > MAX_LINE:
            raise ValueError(f"an entry of {len(line)} bytes")
        if entry.index and entry.index % ENTRIES_A_FILE == 0:
            following = self._opened(entry.index)
            os.close(self._file)
            self._file, self._end, self.first = following, 0, entry.index
        # What the attempt before left, where it could not be taken off at once.
        self._cut_torn()
        try:
            _write_all(self._file, line + b"\n")
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                self._cut_torn()
            raise
        self._end += len(line) + 1
        self._frontier.append(leaf_hash(line))
        self.last = entry
        return entry

    def checkpoint(self, time_ns: int, *, keep: bool = True) -> Checkpoint:
        """Sign what the log is now; raises OSError.

        `keep`: for ever, so that later ones name it and none can go missing unnoticed; otherwise only until the next.
        """
        # One that is there already may have left this machine, or have been timestamped.
        keep = keep and self.size != self.kept
        said = [f"time {time_ns}", f"{PREVIOUS}{self.kept}", *([KEPT] if keep else [])]
        checkpoint = Checkpoint(self._origin, self.size, self._frontier.root(), tuple(said))
        if keep and not self.kept:
            # Never is one there that stays, and none that is the newest.
            self.checkpoint(time_ns, keep=False)
        note = self._signer.sign(checkpoint.text())
        if keep:
            write_whole(self._folder / "checkpoints" / str(self.size), note)
        roots = [None if root is None else root.hex() for root in self._frontier.roots]
        write_whole(self._folder / "frontier", json.dumps(roots).encode())
        write_whole(self._folder / "checkpoint", note)
        if keep:
            self.kept = self.size
        return checkpoint

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _kept_frontier(path: Path) -> Frontier | None:
    """Return the frontier that was kept; None when there is none, or none that can be read: it only saves time."""
    try:
        roots = [None if root is None else bytes.fromhex(root) for root in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None
    return Frontier(roots)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all; raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's names last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
