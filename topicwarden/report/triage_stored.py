"""Findings that a store keeps."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from topicwarden.output import wording
from topicwarden.report.scans import Succession, complete, scans_of
from topicwarden.report.triage import Place, Wanted
from topicwarden.report.triage_documents import read_document
from topicwarden.store.files import RowFile
from topicwarden.store.model import Kind
from topicwarden.store.reader import Store
from topicwarden.store.rows import SEGMENT

_PART: Final = 4096


class StoredTellings:
    """What a store was told. A place is segment, file and row."""

    noun = "store"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files = store.files(Kind.FINDINGS)
        scans = scans_of(store.opened)
        self._scans = [replace(scan, number=number) for number, scan in enumerate(scans)]
        by_run = {scan.number: number for number, scan in enumerate(scans)}
        # Of writers that sealed nothing, the last one has the segments that follow.
        runs = {0 if one.segment is None else one.segment + 1: run for run, one in enumerate(store.opened)}
        self._first = sorted(runs)
        self._scan_from = [by_run.get(runs[first]) for first in self._first]
        self._kept = Counter[int]()

    def all(self, wanted: Wanted) -> Iterator[tuple[Place, int | None, dict[str, Any] | None]]:
        """Yield as `Tellings` says."""
        # As it is written; a string inside of a document cannot hold these quotes.
        begins = f'"fingerprint":"{wanted.prefix}'
        self._kept.clear()
        for number, file in enumerate(self._files):
            for row, segment, what, text in self._rows(file):
                scan = self._scan_of(segment) if self._scans else None
                if scan is not None:
                    self._kept[scan] += 1
                if (not wanted.codes or what in wanted.codes) and (not wanted.prefix or begins in text):
                    yield (segment, number, row), scan, read_document(text)

    def again(self, places: Iterable[Place]) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield as `Tellings` says, reading only the files that have one."""
        wanted: dict[int, set[int]] = {}
        for _, file, row in places:
            wanted.setdefault(file, set()).add(row)
        for number, rows in sorted(wanted.items()):
            for row, segment, _, text in self._rows(self._files[number]):
                document = read_document(text) if row in rows else None
                if document is not None:
                    yield (segment, number, row), document

    def succession(self) -> Succession:
        """Return as `Tellings` says."""
        return Succession(self._scans, complete(self._scans, self._kept))

    def unreadable(self, count: int) -> str:
        """Return as `Tellings` says."""
        return f"{wording.counted(count, 'stored document')} could not be read: see `topicwarden verify`"

    def _scan_of(self, segment: int) -> int | None:
        place = bisect_right(self._first, segment) - 1
        return self._scan_from[place] if place >= 0 else None

    def _rows(self, file: RowFile) -> Iterator[tuple[int, int, str, str]]:
        """Yield number, segment, code and document of each row."""
        row = 0
        for part in self._store.parts(file, _PART):
            columns = (part.column(name).to_pylist() for name in (SEGMENT, "what", "document"))
            for segment, what, text in zip(*columns, strict=True):
                yield row, segment, what, text
                row += 1
