"""Verifies the entries of a store's log, file by file, and what was derived from the files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from topicwarden.store.identity import INFO, STORE_DIGEST, StoreInfo
from topicwarden.store.log import Log
from topicwarden.store.log_entries import LogDamageError, parsed_entry, segment_line
from topicwarden.store.log_files import Lines, LogFile, content
from topicwarden.store.log_summary import Summarizing
from topicwarden.store.merkle import Frontier
from topicwarden.store.model import Entry, EntryKind
from topicwarden.store.notes import MAX_NOTE, NoteError, open_note
from topicwarden.store.verify_model import Damage, Found, Verification

if TYPE_CHECKING:
    from topicwarden.store.verify_log import Parts


class EntriesVerifying:
    """One reading of all entries."""

    def __init__(self, folder: Path, info: StoreInfo, digest: str, report: Verification, parts: Parts) -> None:
        """`folder`: the store's; `digest`: that of its `store.json`."""
        self.tree = Frontier()
        self.tops: dict[int, bytes] = {}
        """The tree's roots at the sizes that were asked for."""
        self._folder = folder
        self._info = info
        self._digest = digest
        self._report = report
        self._parts = parts
        self._place = 0
        """Lines so far."""
        self._shift = 0
        """By how much entries' indices are ahead of their places."""
        self._last: int | None = None
        """The newest segment's number."""

    def run(self, wanted: Collection[int]) -> Iterator[int]:
        """Read the log; `wanted`: the sizes at which the tree's roots are. Yields how many entries were read."""
        sizes = iter(sorted(wanted))
        size = next(sizes, None)
        log = Log(self._folder / "log")
        for number, (first, path) in enumerate(log.files):
            where = str(path.relative_to(self._folder))
            self._begins(first, where)
            summarizing = Summarizing(first, self._info.origin) if first in log.listing.summaries else None
            reading = Lines(LogFile(log.folder, first))
            try:
                for lines in reading.blocks():
                    leaves = [sha256(b"\x00" + line).digest() for line in lines]
                    if summarizing is not None:
                        summarizing.add(leaves)
                    done, before = 0, self._place
                    while size is not None and size <= before + len(leaves):
                        self.tree.extend(leaves[done : size - before])
                        done = size - before
                        self.tops[size] = self.tree.root()
                        size = next(sizes, None)
                    self.tree.extend(leaves[done:])
                    if not self._take(lines, where, summarizing):
                        summarizing = None
                    yield self._place
            except LogDamageError as error:
                self._damaged(where, error.what)
                continue
            if reading.rest:
                self._cut(where, reading.rest, last=number == len(log.files) - 1)
            self._beside(log, first, reading.path, summarizing)

    def _begins(self, first: int, where: str) -> None:
        place = self._place
        if first != place:
            what, word = (Damage.MISSING, "missing") if first > place else (Damage.INSERTED, "there twice")
            some = span("entry", "entries", min(first, place), max(first, place) - 1)
            message = f"it begins with entry {first}, not {place}: {some} {word}"
            self._report.add([Found(what, where, message, entry=place)])

    def _damaged(self, where: str, what: str) -> None:
        place = self._place
        self._report.add([Found(Damage.UNREADABLE, where, f"from entry {place} on: {what}", entry=place)])

    def _cut(self, where: str, rest: bytes, *, last: bool) -> None:
        if last:
            message = f"{where}: {len(rest)} bytes of an entry that is being written, or never was whole"
            self._report.remarks.append(message)
        else:
            message = f"entry {self._place} is cut short"
            self._report.add([Found(Damage.CHANGED, where, message, entry=self._place)])

    def _take(self, lines: Sequence[bytes], where: str, summarizing: Summarizing | None) -> bool:
        """Take a block's lines; returns whether all could be read."""
        whole = True
        for line in lines:
            segment = segment_line(line)
            if segment is not None:
                if segment.entry != self._place + self._shift:
                    self._index(segment.entry, where)
                self._follow(segment.entry, segment.segment, segment.time_ns)
                self._parts.add_segment(segment)
                if summarizing is not None:
                    summarizing.note(EntryKind.SEGMENT, segment.segment, line)
            else:
                whole = self._other(line, where, summarizing) and whole
            self._place += 1
        return whole

    def _other(self, line: bytes, where: str, summarizing: Summarizing | None) -> bool:
        try:
            entry = parsed_entry(line, self._place + 1)
        except LogDamageError as error:
            message = f"entry {self._place}: {error.what}"
            self._report.add([Found(Damage.CHANGED, where, message, entry=self._place)])
            return False
        self._index(entry.index, where)
        if entry.kind is EntryKind.SEGMENT and entry.segment is not None:
            self._follow(entry.index, entry.segment, entry.time_ns)
        else:
            self._heed(entry)
        self._parts.add(entry)
        if summarizing is not None:
            summarizing.note(entry.kind, entry.segment, line)
        return True

    def _index(self, index: int, where: str) -> None:
        expected = self._place + self._shift
        if index == expected:
            return
        message = f"entry {expected} was expected, entry {index} is there"
        if index > expected:
            some = span("entry", "entries", expected, index - 1)
            one = Found(Damage.MISSING, where, f"{message}: {some} missing, or moved", entry=expected)
        else:
            message = f"{message}: entries were inserted, repeated or moved"
            one = Found(Damage.REORDERED, where, message, entry=expected)
        self._report.add([one])
        self._shift = index - self._place

    def _follow(self, index: int, segment: int, time_ns: int) -> None:
        """Note a segment."""
        report = self._report
        expected = 0 if self._last is None else self._last + 1
        if segment > expected:
            message = f"no entry has {span('segment', 'segments', expected, segment - 1).rpartition(' ')[0]}"
            report.add([Found(Damage.MISSING, "log", message, expected, segment - 1, entry=index)])
        elif segment < expected:
            message = f"segment {segment} comes after segment {expected - 1}"
            report.add([Found(Damage.REORDERED, "log", message, segment, entry=index)])
        report.segments += 1
        report.sealed, report.sealed_ns = max(segment, report.sealed or 0), time_ns
        self._last = segment

    def _heed(self, entry: Entry) -> None:
        """Note what an entry says that is no segment."""
        facts = entry.facts or {}
        if entry.kind is EntryKind.OPENED and facts.get(STORE_DIGEST, self._digest) != self._digest:
            message = f"it is not what the writer of entry {entry.index} found"
            self._report.add([Found(Damage.CHANGED, INFO, message, entry=entry.index)])
        elif entry.kind is EntryKind.GAP:
            self._report.gaps += 1
            lost = facts.get("lost", 0)
            self._report.lost += lost if isinstance(lost, int) else 0

    def _beside(self, log: Log, first: int, path: Path, summarizing: Summarizing | None) -> None:
        """Compare a file with what was derived from it, and with the plain one where both are there."""
        file = LogFile(log.folder, first)
        if first in log.listing.plain & log.listing.packed:
            self._doubled(file)
        if summarizing is None:
            return
        where = str(file.summary.relative_to(self._folder))
        try:
            note = b"" if file.summary.stat().st_size > MAX_NOTE else file.summary.read_bytes()
            text = open_note(note, self._report.verifier)
        except FileNotFoundError:
            return
        except (NoteError, OSError) as error:
            self._report.add([Found(Damage.FORGED, where, str(error))])
            return
        if text != summarizing.text():
            message = f"it is not what {path.name} says, and whoever reads the store believes it; it can be deleted"
            self._report.add([Found(Damage.CHANGED, where, message, entry=first)])

    def _doubled(self, file: LogFile) -> None:
        where = str(file.plain.relative_to(self._folder))
        try:
            same = _digest(file.packed, file.first) == _digest(file.plain, file.first)
        except (FileNotFoundError, LogDamageError):
            return  # compressed meanwhile; or it was named
        if same:
            self._report.remarks.append(f"{where}: it was compressed, and will be removed")
        else:
            message = f"it is not what {file.packed.name} has"
            self._report.add([Found(Damage.CHANGED, where, message, entry=file.first)])


def _digest(path: Path, first: int) -> bytes:
    found = sha256()
    for block in content(path, first):
        found.update(block)
    return found.digest()


def span(one: str, many: str, first: int, last: int) -> str:
    """Return that something from `first` to `last` is or are."""
    return f"{one} {first} is" if first == last else f"{many} {first} to {last} are"
