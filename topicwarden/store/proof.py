"""Proves of one segment, and of an event in it, that the log has it: without reading any other rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from topicwarden.errors import ObservationError, Problem
from topicwarden.store.files import RowFile, files_in, folder_of, open_rows
from topicwarden.store.identity import StoreInfo, read_info
from topicwarden.store.log import Log, LogDamageError, parsed_entry
from topicwarden.store.log_files import LogFile
from topicwarden.store.log_summary import Summary, read_summary
from topicwarden.store.merkle import inclusion_by, leaf_hash, verify_inclusion
from topicwarden.store.model import Entry, EntryKind, Kind, Part
from topicwarden.store.notes import Checkpoint, NoteError, Verifier
from topicwarden.store.parquet_layout import read_layout
from topicwarden.store.rows import SCHEMAS, SEGMENT, digest_of
from topicwarden.store.verify_log import signed_checkpoint


@dataclass(frozen=True, slots=True)
class PartProof:
    """A part of the segment."""

    part: Part
    file: str
    """The file that has its rows, within the store; '' when none has."""
    digest: str
    """That of the rows; '' when there are none or they cannot be read."""

    @property
    def holds(self) -> bool:
        """Whether the rows are those of the entry."""
        return self.digest == self.part.digest


@dataclass(frozen=True, slots=True)
class Proof:
    """That a segment's entry is in the tree that a checkpoint signs, and that its rows are what the entry says."""

    verifier: Verifier
    own_key: bool
    """Whether the key came from the store itself."""
    entry: Entry
    line: bytes
    """The leaf's data."""
    leaf: bytes
    proof: tuple[bytes, ...]
    """The inclusion proof, RFC 9162 section 2.1.3."""
    checkpoint: Checkpoint
    note: bytes
    """The checkpoint as it was signed."""
    included: bool
    """Whether the proof shows it."""
    parts: tuple[PartProof, ...]
    row: Mapping[str, Any] | None
    """The event that was asked for."""

    @property
    def holds(self) -> bool:
        """Whether everything is as it should be."""
        return self.included and all(part.holds for part in self.parts)


def prove(
    folder: Path, segment: int, row: int | None = None, *, verifier: Verifier | None = None, note: bytes | None = None
) -> Proof:
    """Prove a segment to be in the log as signed; raises ObservationError when that cannot be tried.

    `row`: which event of the segment, from 0, as its entry's parts have them. `note`: a checkpoint kept elsewhere to
    prove it by; None: the newest of the store.
    """
    info = read_info(folder)
    key = verifier or info.verifier
    try:
        note = note if note is not None else (folder / "log" / "checkpoint").read_bytes()
        checkpoint = signed_checkpoint(note, info, key)
        log = Log(folder / "log")
        summaries = _summaries(log, info)
        proved = _proved(log, summaries, segment, checkpoint)
        if summaries and (proved is None or not proved.included):
            # What is only derived accuses nobody.
            proved = _proved(log, {}, segment, checkpoint)
    except NoteError as error:
        raise _cannot(folder, f"the checkpoint: {error}") from error
    except LogDamageError as error:
        raise _cannot(folder, f"its log: {error}") from error
    except ValueError as error:
        raise _cannot(folder, f"the checkpoint signs more than the log has: {error}") from error
    except OSError as error:
        raise _cannot(folder, f"its log cannot be read: {error.strerror}") from error
    if proved is None:
        raise _cannot(folder, f"there is no segment {segment}")
    entry = proved.entry
    if entry.index >= checkpoint.size:
        raise _cannot(folder, f"the checkpoint signs {checkpoint.size} entries, segment {segment} is in a later one")
    found = [_part(folder, entry, part) for part in entry.parts]
    event = None if row is None else _event(folder, segment, row, found)
    return Proof(
        key,
        verifier is None,
        entry,
        proved.line,
        leaf_hash(proved.line),
        tuple(proved.proof),
        checkpoint,
        note,
        proved.included,
        tuple(one for one, _ in found),
        event,
    )


def _cannot(folder: Path, what: str) -> ObservationError:
    return ObservationError(Problem(what, str(folder), hint="`topicwarden verify` without --segment says more"))


@dataclass(frozen=True, slots=True)
class _Proved:
    entry: Entry
    line: bytes
    proof: Sequence[bytes]
    included: bool


def _summaries(log: Log, info: StoreInfo) -> dict[int, Summary]:
    """Return the summaries of files, by their places in the log."""
    found: dict[int, Summary] = {}
    for place, ((first, _), (following, _)) in enumerate(itertools.pairwise(log.files)):
        summary = read_summary(LogFile(log.folder, first), info.verifier, info.origin)
        if summary is not None and first + summary.entries == following:
            found[place] = summary
    return found


def _proved(log: Log, summaries: Mapping[int, Summary], segment: int, checkpoint: Checkpoint) -> _Proved | None:
    """Find a segment's entry and prove it; None: there is none. Raises OSError, LogDamageError and ValueError."""
    for place, (first, _) in enumerate(log.files):
        summary = summaries.get(place)
        if summary is not None and (summary.segment is None or summary.segment < segment):
            continue
        line = _line(log, place, segment)
        if line is None:
            continue
        entry = parsed_entry(line, first + 1)
        if entry.index >= checkpoint.size:
            return _Proved(entry, line, (), included=False)
        nodes = _nodes(log, summaries, entry.index, checkpoint.size)
        proof, _ = inclusion_by(nodes, entry.index, checkpoint.size)
        leaf = leaf_hash(line)
        included = verify_inclusion(leaf, entry.index, checkpoint.size, proof, checkpoint.root)
        return _Proved(entry, line, proof, included)
    return None


def _line(log: Log, place: int, segment: int) -> bytes | None:
    wanted = b'"segment":%d,' % segment
    for line in log.lines_of(place):
        if wanted in line:
            entry = parsed_entry(line, log.files[place][0] + 1)
            if entry.kind is EntryKind.SEGMENT and entry.segment == segment:
                return line
    return None


def _nodes(log: Log, summaries: Mapping[int, Summary], index: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the roots of files that the proof does not cut, and the leaves of others, each with its level."""
    for place, (first, _) in enumerate(log.files):
        summary = summaries.get(place)
        if summary is not None and summary.level is not None:
            end = first + summary.entries
            if end <= size and not first <= index < end:
                yield summary.level, summary.root
                continue
        yield from ((0, leaf_hash(line)) for line in log.lines_of(place))


def _part(folder: Path, entry: Entry, part: Part) -> tuple[PartProof, Any]:
    place = folder_of(folder, part.kind, part.broker, part.hour)
    assert entry.segment is not None
    for file in files_in(place, part.kind):
        if file.first <= entry.segment <= file.last:
            where = str(file.path.relative_to(folder))
            try:
                rows = _rows(file, entry.segment)
            except (OSError, pa.ArrowException, ValueError, KeyError):
                return PartProof(part, where, ""), None
            return PartProof(part, where, digest_of(rows)), rows
    return PartProof(part, "", ""), None


def _rows(file: RowFile, segment: int) -> Any:
    """Return a segment's rows; other row groups are not read."""
    read_layout(file.path, SCHEMAS[file.kind])
    found: list[Any] = []
    with open_rows(file.path) as opened:
        for place in range(opened.num_row_groups):
            numbers = opened.read_row_group(place, [SEGMENT]).column(0)
            if pc.any(pc.equal(numbers, segment)).as_py():
                found.append(opened.read_row_group(place).filter(pc.field(SEGMENT) == segment))
    return pa.concat_tables(found) if found else SCHEMAS[file.kind].empty_table()


def _event(folder: Path, segment: int, row: int, parts: list[tuple[PartProof, Any]]) -> Mapping[str, Any]:
    before = 0
    for one, rows in _events(parts):
        if row < before + one.part.rows:
            if rows is None or row - before >= len(rows):
                raise _cannot(folder, f"row {row} of segment {segment} cannot be read")
            event: Mapping[str, Any] = rows.slice(row - before, 1).to_pylist()[0]
            return {**event, "broker": one.part.broker}
        before += one.part.rows
    raise _cannot(folder, f"segment {segment} has {before} events, so no row {row}")


def _events(parts: list[tuple[PartProof, Any]]) -> Iterator[tuple[PartProof, Any]]:
    return ((one, rows) for one, rows in parts if one.part.kind is Kind.EVENTS)
