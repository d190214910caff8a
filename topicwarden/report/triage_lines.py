"""Findings in a file of JSON lines, as `scan`, `check` and `watch` write them with `--format jsonl`.

Whoever gives the file may have it from anywhere: a line is believed to be what it says, and nothing more.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.output import wording
from topicwarden.report.scans import SCAN, KeptScan, ScannedSource, Succession
from topicwarden.report.triage import Place, Wanted
from topicwarden.report.triage_documents import read_document

MAX_LINE: Final = 8 << 20
"""Bytes of a line. The longest that we write have 8 names of 64 KiB, each byte of which may take six."""
MAX_RUNS: Final = 4096
"""Runs whose scans are told apart; what later ones in the same file say replaces nothing."""
_CHUNK: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HINT: Final = "give what `scan`, `check` or `watch --format jsonl` wrote, or a store's folder"


class LineTellings:
    """What a file says. A place is how many bytes stand before the line; a summary ends what a run said."""

    noun = "file"

    def __init__(self, path: Path) -> None:
        """Raises ObservationError when it cannot be read, or is no plain file."""
        self._path = path
        self._scans: list[KeptScan] = []
        with self._opened() as file:
            if file.read(len(_GZIP)) == _GZIP:
                raise ObservationError(Problem("it is compressed", str(path), hint="gunzip it first"))

    def all(self, wanted: Wanted) -> Iterator[tuple[Place, int | None, dict[str, Any] | None]]:
        """Yield as `Tellings` says; raises ObservationError for a file in which nothing is ours."""
        self._scans.clear()
        run = ours = damaged = 0
        with self._opened() as file:
            for begins, line in _lines(file):
                text = None if line is None else _text(line)
                document = None if text is None else read_document(text)
                if document is None:
                    summary = None if text is None else _summary(text)
                    if summary is None:
                        damaged += 1
                        yield (0, 0, begins), None, None
                        continue
                    ours += 1
                    if run < MAX_RUNS:
                        self._scans += _scan(run, summary, whole=not damaged)
                    run, damaged = run + 1, 0
                    continue
                ours += 1
                if not wanted.codes or document["code"] in wanted.codes:
                    # Whether it is a scan that says so, its summary tells.
                    yield (0, 0, begins), run if run < MAX_RUNS else None, document
        if not ours:
            raise ObservationError(Problem("not one line in it is a finding or a summary", str(self._path), hint=_HINT))

    def again(self, places: Iterable[Place]) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield as `Tellings` says; raises ObservationError when the file is not what it was."""
        with self._opened() as file:
            for place in sorted(places):
                file.seek(place[2])
                text = _text(file.readline(MAX_LINE + 1))
                document = None if text is None else read_document(text)
                if document is None:
                    raise ObservationError(
                        Problem("it was changed while it was read", str(self._path), hint="try again")
                    )
                yield place, document

    def succession(self) -> Succession:
        """Return as `Tellings` says."""
        return Succession(self._scans, [scan for scan in self._scans if scan.whole])

    def unreadable(self, count: int) -> str:
        """Return as `Tellings` says."""
        return f"{wording.counted(count, 'line')} could not be read: no finding as `--format jsonl` writes it"

    def _opened(self) -> BinaryIO:
        try:
            # A pipe is not waited for, and a device not touched.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ObservationError(Problem(f"cannot be read: {error.strerror}", str(self._path))) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObservationError(
                Problem("not a plain file: it is read more than once", str(self._path), hint="write it to a file first")
            )
        return os.fdopen(descriptor, "rb")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield how many bytes stand before each line that is not blank, and the line; None: it is too long."""
    begins = 0
    while line := file.readline(MAX_LINE + 1):
        length = len(line)
        if length > MAX_LINE and not line.endswith(b"\n"):
            while (more := file.readline(_CHUNK)) and not more.endswith(b"\n"):
                length += len(more)
            yield begins, None
            begins += length + len(more)
            continue
        if line.strip():
            yield begins, line
        begins += length


def _text(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _summary(text: str) -> Mapping[str, Any] | None:
    """Return what ends a run's lines; None: it is something else."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = isinstance(row, dict) and row.get("type") == "summary" and isinstance(row.get("command"), str)
    return row if known else None


def _scan(number: int, summary: Mapping[str, Any], *, whole: bool) -> Iterator[KeptScan]:
    """Yield the scan that a summary ends, if it ends one; `whole`: whether all its lines could be read."""
    rows, sources = summary.get("grants"), summary.get("sources")
    if summary["command"] != SCAN or not isinstance(rows, list):
        return
    compared = isinstance(sources, list) and bool(sources) and summary.get("events") not in (0, None)
    read = tuple(
        # What was named to be scanned, a summary does not say.
        ScannedSource(row["title"], row["broker"], row["title"], compared=compared)
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("title"), str) and isinstance(row.get("broker"), str)
    )
    policy = summary.get("policy")
    # Where something was observed, the times are those of that.
    ended = None if sources else _moment(summary.get("ended"))
    yield KeptScan(
        number, ended, read, policy if isinstance(policy, str) else None, whole=whole and summary.get("overflow") == 0
    )


def _moment(text: object) -> int | None:
    try:
        return (datetime.fromisoformat(str(text)) - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, TypeError, OverflowError):
        return None
