"""The store's log on disk: entries as lines that are only ever appended, and signed checkpoints over them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from topicwarden.store.merkle import Frontier, Tree, leaf_hash
from topicwarden.store.model import Entry, EntryKind, Kind, Part
from topicwarden.store.notes import KEPT, PREVIOUS, Checkpoint, NoteError, Signer, Verifier, open_note

MAX_LINE: Final = 1 << 20
"""Bytes of an entry; a segment with more parts is cut in two before."""
ENTRIES_A_FILE: Final = 1 << 16
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_NAME: Final = re.compile(r"entries-(\d{12})\.jsonl")


class LogDamageError(ValueError):
    """An entry that cannot be read; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"entry {line}: {what}")
        self.line = line
        self.what = what


def entry_line(entry: Entry) -> bytes:
    """Return an entry's line without the line feed: the leaf's data. The keys' order is part of the format."""
    row: dict[str, Any] = {"index": entry.index, "kind": entry.kind.value, "time_ns": entry.time_ns}
    if entry.segment is not None:
        row["segment"] = entry.segment
    if entry.parts:
        row["parts"] = [
            {
                "kind": part.kind.value,
                "broker": part.broker,
                "hour": part.hour,
                "rows": part.rows,
                "sha256": part.digest,
                "first_ns": part.first_ns,
                "last_ns": part.last_ns,
            }
            for part in entry.parts
        ]
    if entry.facts:
        row["facts"] = entry.facts
    # Not ASCII only where it must be: a lone surrogate of a broker's name stays an escape.
    return json.dumps(row, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def entry_from_line(line: bytes, number: int) -> Entry:
    """Read an entry; `number` is its line, from 1. Raises LogDamageError, also when it is another's."""
    entry = parsed_entry(line, number)
    if entry.index != number - 1:
        raise LogDamageError(number, f"its index is {entry.index}, not {number - 1}: entries are missing or were moved")
    return entry


def parsed_entry(line: bytes, number: int) -> Entry:
    """Read an entry, whatever its index; raises LogDamageError."""
    try:
        row = json.loads(line)
        return Entry(
            index=_whole(row["index"]),
            kind=EntryKind(row["kind"]),
            time_ns=_whole(row["time_ns"]),
            segment=None if row.get("segment") is None else _count(row["segment"]),
            parts=tuple(_part(part) for part in row.get("parts", ())),
            facts=_facts(row.get("facts")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogDamageError(number, f"not an entry of the log ({error!r})") from error


class Log:
    """A log as it stands on disk, for reading; entries are read as they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError when there is none."""
        self.folder = folder
        self.files: list[tuple[int, Path]] = _files(folder)
        """The number of each file's first entry, and the file."""
        self.torn = 0
        """Bytes behind the last line feed of the last file: an entry that was being written. Known once it was read."""

    def lines(self, start: int = 0) -> Iterator[bytes]:
        """Yield the lines of entries from number `start` on; raises LogDamageError for files that do not follow."""
        expected = None
        for place, (first, path) in enumerate(self.files):
            last = place == len(self.files) - 1
            if expected is not None and first != expected:
                raise LogDamageError(expected + 1, f"missing: {path.name} begins with entry {first + 1}")
            if not last and self.files[place + 1][0] <= start:
                expected = self.files[place + 1][0]
                continue
            data = path.read_bytes()
            whole, feed, rest = data.rpartition(b"\n")
            found = whole.split(b"\n") if feed else []
            if rest and not last:
                raise LogDamageError(first + len(found) + 1, f"cut short, at the end of {path.name}")
            self.torn = len(rest)
            yield from found[max(0, start - first) :]
            expected = first + len(found)

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
        files = _files(folder)
        # A full one too: what is torn stands in it, and `append` begins the next.
        self._file = self._opened(files[-1][1] if files else _file(folder, self.size))
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
        entry = None
        if frontier.size:
            # Only the last of what was signed is looked at here: all of it is what `verify` is for.
            entry = next(log.entries(frontier.size - 1), None)
            if entry is None:
                raise LogDamageError(frontier.size, f"missing: {frontier.size} entries were signed")
        for entry in log.entries(frontier.size):
            frontier.append(leaf_hash(entry_line(entry)))
            if signed is not None and frontier.size == signed.size and frontier.root() != signed.root:
                raise LogDamageError(frontier.size, "the entries up to here are not those that were signed")
        if signed is not None and frontier.size < signed.size:
            raise LogDamageError(frontier.size + 1, f"missing: {signed.size} entries were signed")
        self.last, self.cut = entry, log.torn
        return frontier

    def _opened(self, path: Path) -> int:
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
            following = self._opened(_file(self._folder, entry.index))
            os.close(self._file)
            self._file, self._end = following, 0
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


def _file(folder: Path, first: int) -> Path:
    return folder / f"entries-{first:012}.jsonl"


def _files(folder: Path) -> list[tuple[int, Path]]:
    found = [(match[1], path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)) is not None]
    return sorted((int(first), path) for first, path in found)


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


def _part(row: Mapping[str, Any]) -> Part:
    digest = row["sha256"]
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None or not isinstance(row["broker"], str):
        raise TypeError("a part's digest is 64 hex digits, its broker text")
    return Part(
        Kind(row["kind"]),
        row["broker"],
        _whole(row["hour"]),
        _whole(row["rows"]),
        digest,
        _whole(row["first_ns"]),
        _whole(row["last_ns"]),
    )


def _facts(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError("facts are an object")
    return value


def _count(value: Any) -> int:
    if _whole(value) < 0:
        raise ValueError(f"{value} is no number of a segment")
    return int(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number that does not fit in 64 bits")
    return value
