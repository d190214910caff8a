"""Summaries of the log's full files, so that a store is opened without reading all of its log.

A summary is a signed note (C2SP signed-note), `entries-FIRST.summary`, derived from its file by the store's writer:

    ORIGIN/summary
    {"first":0,"entries":65536,"segment":65533,"root":"…"}
    {"index":0,"kind":"opened",…}

`segment` is the newest one's number or null, `root` that of the tree over the file's entries; then come the lines
of all entries of the kinds in `TOLD`. One that is missing, damaged or not signed only costs time: the file is read
instead. `verify` derives it again and names one that is not what its file says. It can be deleted at any time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

from topicwarden.store.log import Log
from topicwarden.store.log_entries import ENTRIES_A_FILE, LogDamageError, entry_from_line, parsed_entry, segment_line
from topicwarden.store.log_files import LogFile
from topicwarden.store.merkle import Frontier, leaf_hash
from topicwarden.store.model import Entry, EntryKind
from topicwarden.store.notes import MAX_NOTE, NoteError, Verifier, open_note

TOLD: Final = frozenset({EntryKind.OPENED, EntryKind.GAP})
"""The kinds of entries that every reader of a store needs."""
MAX_TEXT: Final = MAX_NOTE - 4096
"""Bytes of a summary without signatures; a file that says more of such entries has none."""
_ROOT: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a full file of the log says."""

    first: int
    """Number of its first entry."""
    entries: int
    segment: int | None
    """Number of its newest segment; None: it has none."""
    root: bytes
    told: tuple[Entry, ...]
    """Its entries of the kinds in `TOLD`."""

    @property
    def level(self) -> int | None:
        """The level of its root in the whole log's tree; None: it is no node of that."""
        level = self.entries.bit_length() - 1
        return level if 1 << level == self.entries and self.first % self.entries == 0 else None


class Summarizing:
    """Derives the text of a file's summary from its lines."""

    def __init__(self, first: int, origin: str) -> None:
        self._first = first
        self._origin = origin
        self._tree = Frontier()
        self._segment: int | None = None
        self._told: list[bytes] = []
        self._size = 0

    def add(self, leaves: Sequence[bytes]) -> None:
        """Take the hashes of the next lines."""
        self._tree.extend(leaves)

    def note(self, kind: EntryKind, segment: int | None, line: bytes) -> None:
        """Take what a line says."""
        if kind is EntryKind.SEGMENT and segment is not None:
            self._segment = segment
        if kind in TOLD:
            self._size += len(line)
            if self._size < MAX_TEXT:
                self._told.append(line)

    def feed(self, lines: Sequence[bytes]) -> None:
        """Take the next lines; raises LogDamageError."""
        before = self._first + self._tree.size
        self.add([leaf_hash(line) for line in lines])
        for number, line in enumerate(lines, before + 1):
            segment = segment_line(line)
            if segment is not None and segment.entry == number - 1:
                self.note(EntryKind.SEGMENT, segment.segment, line)
            else:
                entry = entry_from_line(line, number)
                self.note(entry.kind, entry.segment, line)

    def text(self) -> bytes | None:
        """Return the summary's text, once all lines were taken; None: there is no room for it in a note."""
        row = {
            "first": self._first,
            "entries": self._tree.size,
            "segment": self._segment,
            "root": self._tree.root().hex(),
        }
        head = json.dumps(row, separators=(",", ":")).encode()
        text = b"".join(line + b"\n" for line in (f"{self._origin}/summary".encode(), head, *self._told))
        return text if max(self._size, len(text)) < MAX_TEXT else None


def read_summary(file: LogFile, verifier: Verifier, origin: str) -> Summary | None:
    """Read a file's summary; None: there is none that this key signed."""
    try:
        if file.summary.stat().st_size > MAX_NOTE:
            return None
        title, head, *lines = open_note(file.summary.read_bytes(), verifier)[:-1].split(b"\n")
        row: Any = json.loads(head)
        segment, entries = row["segment"], row["entries"]
        if title != f"{origin}/summary".encode() or row["first"] != file.first or not _ROOT.fullmatch(row["root"]):
            return None
        if type(entries) is not int or not 0 < entries <= ENTRIES_A_FILE or type(segment) not in (int, NoneType):
            return None
        told = tuple(parsed_entry(line, file.first + 1) for line in lines)
        return Summary(file.first, entries, segment, bytes.fromhex(row["root"]), told)
    except (OSError, NoteError, LogDamageError, ValueError, KeyError, TypeError):
        return None


def summarized(log: Log, verifier: Verifier, origin: str) -> Iterator[tuple[int | None, Sequence[Entry]]]:
    """Yield of each file its newest segment's number, if it has any, and its entries of the kinds in `TOLD`.

    By summaries where there are any; the newest file has none, since it goes on. Raises OSError and LogDamageError.
    """
    if log.files and log.files[0][0] != 0:
        raise LogDamageError(1, f"missing: {log.files[0][1].name} is the first file")
    for place, (first, _) in enumerate(log.files):
        summary = None
        if place < len(log.files) - 1 and first in log.listing.summaries:
            summary = read_summary(LogFile(log.folder, first), verifier, origin)
        if summary is not None and first + summary.entries == log.files[place + 1][0]:
            yield summary.segment, summary.told
        else:
            yield _read(log, place)


def _read(log: Log, place: int) -> tuple[int | None, Sequence[Entry]]:
    newest, told = None, []
    for number, line in enumerate(log.lines_of(place), log.files[place][0] + 1):
        segment = segment_line(line)
        if segment is not None and segment.entry == number - 1:
            newest = segment.segment
            continue
        entry = entry_from_line(line, number)
        if entry.kind in TOLD:
            told.append(entry)
        elif entry.kind is EntryKind.SEGMENT and entry.segment is not None:
            newest = entry.segment
    return newest, told
