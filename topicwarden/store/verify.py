"""Verifies a store: that it holds exactly the rows its log says, and that the log is what its checkpoints sign.

Works beside whoever writes: what was sealed when it begins is looked at. What this cannot show: that a log which was
rolled back to an earlier checkpoint, or made anew with the same key, is not the one it claims to be. A checkpoint that
was kept elsewhere shows that.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.store.files import RowFile, folder_of, hour_folders, is_hour, is_row_file, is_temporary
from topicwarden.store.identity import INFO, LOCK, StoreInfo, info_digest, read_info
from topicwarden.store.model import EntryKind, Kind
from topicwarden.store.notes import Verifier
from topicwarden.store.retention import marked, retired_by
from topicwarden.store.verify_log import Parts, RetiredRun, strange, tail, unexpected, verify_log
from topicwarden.store.verify_model import Damage, Found, Verification
from topicwarden.store.verify_rows import Expected, FolderResult, verify_folder

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

THREADS: Final = min(4, os.cpu_count() or 1)
_AHEAD: Final = 4
"""Folders that are given to each thread beforehand."""
_LOST: Final = (Damage.MISSING, Damage.UNREADABLE)


def verify(
    folder: Path,
    *,
    verifier: Verifier | None = None,
    checkpoints: Mapping[str, bytes] | None = None,
    roots: Sequence[Certificate] = (),
    said: Callable[[str], None] = lambda _: None,
    threads: int = THREADS,
) -> Verification:
    """Verify a store; raises ObservationError for what is none, is of a newer format, or may not be read.

    `verifier`: the key it should be signed with, as known from elsewhere; `checkpoints`: notes kept elsewhere, by
    name; `roots`: certificates of authorities whose timestamps are trusted; `said`: called very often with what is
    being done.
    """
    info = read_info(folder)
    report = Verification(info.id, verifier or info.verifier, own_key=verifier is None)
    if verifier is not None and verifier != info.verifier:
        report.add([Found(Damage.CHANGED, INFO, f"its key is {info.verifier}, not {verifier}")])
    parts = Parts()
    try:
        _Verifying(folder, report, parts, said).run(info, checkpoints or {}, roots, threads)
    except PermissionError as error:
        raise ObservationError(
            Problem(f"cannot be read: {error.strerror}", error.filename, hint="verify as the store's owner")
        ) from error
    finally:
        parts.close()
    return report


class _Verifying:
    def __init__(self, folder: Path, report: Verification, parts: Parts, said: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._parts = parts
        self._said = said
        self._newer: list[RowFile] = []
        self._late: dict[str, list[RetiredRun]] = {}
        """What was retired since the log was read."""

    def run(
        self, info: StoreInfo, checkpoints: Mapping[str, bytes], roots: Sequence[Certificate], threads: int
    ) -> None:
        """Verify the log, then every folder."""
        report = self._report
        if not (self._folder / "log").is_dir():
            report.add([Found(Damage.MISSING, "log", "there is no log, so nothing says what should be here")])
            return
        digest = info_digest(self._folder)
        for entries in verify_log(self._folder, info, digest, checkpoints, roots, report, self._parts):
            self._said(f"verifying the log: {entries} entries")
        report.add(unexpected(self._folder))
        report.add(self._unexpected())
        folders = self._folders()
        with ThreadPoolExecutor(threads) as pool:
            for number, result in enumerate(_in_order(pool, self._jobs(folders), threads * _AHEAD)):
                self._take(result)
                self._said(f"verifying rows: {report.rows} in {number + 1} of {len(folders)} folders")
        self._unsealed()

    def _folders(self) -> list[tuple[Kind, str]]:
        """Return every folder that has rows or should have."""
        there = {
            (kind, str(path.relative_to(self._folder))) for kind in Kind for path in hour_folders(self._folder, kind)
        }
        return sorted(there | {(Kind(Path(name).parts[0]), name) for name in self._parts.folders})

    def _jobs(self, folders: Iterable[tuple[Kind, str]]) -> Iterator[Callable[[], FolderResult]]:
        sealed = -1 if self._report.sealed is None else self._report.sealed
        for kind, name in folders:
            retired = self._parts.retired.get(name, ())
            expected = Expected(name, kind, self._parts.of(name), retired, marked(self._folder), sealed)

            def job(expected: Expected = expected) -> FolderResult:
                return verify_folder(self._folder, expected)

            yield job

    def _take(self, result: FolderResult) -> None:
        report = self._report
        if any(one.what in _LOST for one in result.found):
            result.found = [one for one in result.found if not self._retired_meanwhile(one)]
        report.add(result.found)
        report.remarks += result.remarks
        report.rows += result.rows
        report.files += result.files
        report.bytes += result.bytes
        report.retired += result.retired
        self._newer += result.newer

    def _retired_meanwhile(self, found: Found) -> bool:
        if found.what not in _LOST or found.segment is None:
            return False
        self._read_tail()
        place = found.place if "=" in Path(found.place).name else str(Path(found.place).parent)
        last = found.segment if found.last_segment is None else found.last_segment
        return any(run.first <= found.segment and last <= run.last for run in self._late.get(place, ()))

    def _read_tail(self) -> None:
        self._late.clear()
        for entry in tail(self._folder, self._report.entries):
            for one in retired_by(entry):
                name = str(folder_of(Path(), one.kind, one.broker, one.hour))
                self._late.setdefault(name, []).append(RetiredRun(entry.index, one.first, one.last))

    def _unsealed(self) -> None:
        """Look at files of newer segments: sealed since, or being written just now; what is neither was put there."""
        if not self._newer:
            return
        known: set[tuple[str, int]] = set()
        newest = -1 if self._report.sealed is None else self._report.sealed
        for entry in tail(self._folder, self._report.entries):
            if entry.kind is EntryKind.SEGMENT and entry.segment is not None:
                newest = entry.segment
                known |= {(str(folder_of(Path(), part.kind, part.broker, part.hour)), newest) for part in entry.parts}
        for file in self._newer:
            place = str(file.path.relative_to(self._folder))
            folder = str(file.path.parent.relative_to(self._folder))
            if {(folder, file.first), (folder, file.last)} <= known:
                continue
            if file.first == file.last == newest + 1:
                self._report.remarks.append(f"{place}: not sealed; it is being written, or was left by a crash")
            elif file.path.exists():
                message = "no entry of the log names its segments"
                self._report.add([Found(Damage.INSERTED, place, message, file.first, file.last)])

    def _unexpected(self) -> Iterator[Found]:
        """Yield what lies among the files of rows and is none."""
        for path in _sorted(self._folder):
            if path.name in {kind.value for kind in Kind}:
                yield from self._strange_in(path, ("broker=", "hour=") if path.name == Kind.EVENTS else ("hour=",))
            elif path.name not in (INFO, LOCK, "log") and not is_temporary(path):
                yield from strange(self._folder, path)

    def _strange_in(self, folder: Path, below: tuple[str, ...]) -> Iterator[Found]:
        """Yield what is strange in a folder; `below`: what the names of folders in it begin with, level by level."""
        if folder.is_symlink() or not folder.is_dir() or not (below or is_hour(folder)):
            yield from strange(self._folder, folder)
            return
        for path in _sorted(folder):
            if below and path.name.startswith(below[0]):
                yield from self._strange_in(path, below[1:])
            elif below or path.is_symlink() or not (is_row_file(path) or is_temporary(path)):
                yield from strange(self._folder, path)


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []  # retired meanwhile


def _in_order(
    pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], FolderResult]], ahead: int
) -> Iterator[FolderResult]:
    """Run jobs side by side and yield what they return in their order, with few of them waiting."""
    waiting: deque[Future[FolderResult]] = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
