"""Verifies a folder of rows: every part that the log names is there once, unchanged, and nothing else is."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from topicwarden.errors import ObservationError, Problem
from topicwarden.store.files import RowFile, files_in, open_rows
from topicwarden.store.model import Kind
from topicwarden.store.parquet_layout import read_layout
from topicwarden.store.rows import SCHEMAS
from topicwarden.store.verify_file import FileOfRows, Run
from topicwarden.store.verify_log import RetiredRun
from topicwarden.store.verify_model import Damage, Found

ATTEMPTS: Final = 8
"""How often a folder is looked at again that changed meanwhile."""
_HOSTILE: Final = (
    OSError,
    pa.ArrowException,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
"""What pyarrow raises for files that are damaged."""


@dataclass(slots=True)
class FolderResult:
    """What one folder held."""

    found: list[Found] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    newer: list[RowFile] = field(default_factory=list)
    """Files of segments that were sealed after the log was read, or never."""
    rows: int = 0
    files: int = 0
    bytes: int = 0
    retired: int = 0


@dataclass(frozen=True, slots=True)
class Expected:
    """What the log says of one folder."""

    folder: str
    """Within the store."""
    kind: Kind
    parts: npt.NDArray[Any]
    """As `verify_log.PART`."""
    retired: Sequence[RetiredRun]
    going: int | None
    """The entry whose files are being deleted just now."""
    sealed: int
    """The newest segment that is looked at; -1: none."""


def verify_folder(root: Path, expected: Expected) -> FolderResult:
    """Verify one folder's files against what is expected; raises ObservationError for what may not be read."""
    folder = root / expected.folder
    before = _names(folder, expected)
    for _ in range(ATTEMPTS):
        result = _Folder(root, expected).verify(before)
        after = _names(folder, expected)
        # Who merges or deletes meanwhile makes files come and go.
        if not result.found or before == after:
            break
        before = after
    return result


def _names(folder: Path, expected: Expected) -> list[RowFile]:
    return files_in(folder, expected.kind)


class _Folder:
    def __init__(self, root: Path, expected: Expected) -> None:
        self._root = root
        self._expected = expected
        self._result = FolderResult()
        parts = expected.parts[np.argsort(expected.parts["segment"], kind="stable")]
        self._parts = parts[parts["segment"] <= max(expected.sealed, 0)] if expected.sealed >= 0 else parts[:0]
        self._segments = self._parts["segment"]
        self._seen = np.zeros(len(self._parts), bool)
        self._gone = np.zeros(len(self._parts), np.int64)
        """The entry that retired each part, plus one; 0: none did."""
        for run in expected.retired:
            inside = (self._segments >= run.first) & (self._segments <= run.last) & (self._parts["entry"] < run.entry)
            self._gone[inside] = run.entry + 1

    def verify(self, files: Sequence[RowFile]) -> FolderResult:
        """Look at each file, then at what none of them has."""
        result = self._result
        whole: list[RowFile] = []
        for file in files:
            if file.first > self._expected.sealed:
                result.newer.append(file)
                continue
            double = bool(whole) and file.last <= whole[-1].last
            if double:
                result.remarks.append(f"{self._place(file)}: merged into {whole[-1].path.name}, and not deleted yet")
            else:
                whole.append(file)
            self._file(file, double=double)
        self._missing(whole)
        result.retired += int((self._gone > 0).sum())
        return result

    def _place(self, file: RowFile) -> str:
        return str(file.path.relative_to(self._root))

    def _file(self, file: RowFile, *, double: bool) -> None:
        place = self._place(file)
        try:
            self._result.bytes += file.path.stat().st_size
            groups = read_layout(file.path, SCHEMAS[file.kind])
            with open_rows(file.path) as opened:
                found = FileOfRows(opened, groups, file, place)
                runs = self._runs(found, place, double=double)
                whole = [run for run in runs if self._has_all(run, place)]
                for run, digest in zip(whole, found.digests(whole), strict=True):
                    self._judge(run, digest, place)
                self._result.found += found.found
        except FileNotFoundError:
            self._add(Damage.MISSING, place, "it is not there any more")
            return
        except _HOSTILE as error:
            if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
                raise ObservationError(
                    Problem(f"cannot be read: {error.strerror}", str(file.path), hint="verify as the store's owner")
                ) from error
            self._unreadable(file, place, error, double=double)
            return
        self._result.files += 1

    def _unreadable(self, file: RowFile, place: str, error: BaseException, *, double: bool) -> None:
        inside = (self._segments >= file.first) & (self._segments <= file.last)
        self._seen[inside] |= not double
        rows = int(self._parts["rows"][inside].sum())
        message = f"cannot be read: {' '.join(str(error).split())[:200] or type(error).__name__}"
        message += f"; the {rows} rows of its {int(inside.sum())} segments are expected"
        self._result.found.append(Found(Damage.UNREADABLE, place, message, file.first, file.last))

    def _add(self, what: Damage, place: str, message: str, run: Run | None = None, entry: int | None = None) -> None:
        if run is None:
            self._result.found.append(Found(what, place, message, entry=entry))
        else:
            rows = (run.start, run.start + run.rows - 1)
            self._result.found.append(Found(what, place, message, run.segment, None, *rows, entry))

    def _index(self, segment: int) -> int:
        """Return the place of a segment's part; -1: the log has none."""
        place = int(np.searchsorted(self._segments, segment))
        return place if place < len(self._segments) and self._segments[place] == segment else -1

    def _runs(self, file: FileOfRows, place: str, *, double: bool) -> list[Run]:
        """Return the runs of rows of one segment that the log knows, having named all others."""
        known: list[Run] = []
        for run in file.runs():
            if run.segment > self._expected.sealed:
                continue
            index = self._index(run.segment)
            if index < 0:
                message = f"{run} of segment {run.segment}: no entry of the log names them"
                self._add(Damage.INSERTED, place, message, run)
            elif self._seen[index] and not double:
                entry = int(self._parts["entry"][index])
                message = f"{run} of segment {run.segment}: its rows are there twice"
                self._add(Damage.INSERTED, place, message, run, entry)
            else:
                # Rows that only a file has which no reader looks at are missing all the same.
                self._seen[index] |= not double
                known.append(run)
                self._still(run, index, place)
        return known

    def _still(self, run: Run, index: int, place: str) -> None:
        """Say so when rows are there that were retired."""
        if not self._gone[index]:
            return
        entry = int(self._gone[index]) - 1
        self._gone[index] = 0
        message = f"{run} of segment {run.segment}: entry {entry} says they were deleted"
        if entry == self._expected.going:
            self._result.remarks.append(f"{place}: {message}; they are going, or will when a writer begins")
        else:
            self._add(Damage.LEFT, place, message, run, entry)

    def _has_all(self, run: Run, place: str) -> bool:
        """Whether a run has as many rows as its entry says; names it if not."""
        index = self._index(run.segment)
        entry, rows = int(self._parts["entry"][index]), int(self._parts["rows"][index])
        if run.rows != rows:
            what = Damage.MISSING if run.rows < rows else Damage.INSERTED
            message = f"segment {run.segment} has {run.rows} rows, entry {entry} has {rows}"
            self._add(what, place, message, run, entry)
        return run.rows == rows

    def _judge(self, run: Run, digest: str, place: str) -> None:
        index = self._index(run.segment)
        wanted = self._parts["digest"][index].tobytes().hex()
        if digest == wanted:
            self._result.rows += run.rows
            return
        entry = int(self._parts["entry"][index])
        message = f"{run} of segment {run.segment}: their digest is {digest}, that of entry {entry} {wanted}"
        self._add(Damage.CHANGED, place, message, run, entry)

    def _missing(self, whole: Sequence[RowFile]) -> None:
        """Name what is expected and was nowhere, in runs of segments."""
        lost = np.flatnonzero(~self._seen & (self._gone == 0))
        for run in np.split(lost, np.flatnonzero(np.diff(lost) != 1) + 1) if len(lost) else []:
            first, last = int(self._segments[run[0]]), int(self._segments[run[-1]])
            rows, entry = int(self._parts["rows"][run].sum()), int(self._parts["entry"][run[0]])
            inside = next((file for file in whole if file.first <= first and last <= file.last), None)
            some = f"segment {first}" if first == last else f"segments {first} to {last}"
            if inside is not None:
                place, message = self._place(inside), f"the {rows} rows of {some} are not in it; entry {entry} has them"
            else:
                place = self._expected.folder
                message = f"no file has the {rows} rows of {some}; entry {entry} has them"
            self._result.found.append(Found(Damage.MISSING, place, message, first, last, entry=entry))
