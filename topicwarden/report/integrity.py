"""What the store's log commits to, and whether the log is what was signed: the quick part of `topicwarden verify`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from topicwarden.output import wording
from topicwarden.report.coverage import is_live
from topicwarden.report.inputs import Run
from topicwarden.report.model import Column, Integrity, Kind, Section, Table, clock
from topicwarden.report.reading import Span
from topicwarden.report.scans import is_scan, scan_time_ns
from topicwarden.store.log import Log, LogDamageError, entry_from_line
from topicwarden.store.merkle import Frontier, leaf_hash
from topicwarden.store.model import Entry, EntryKind
from topicwarden.store.model import Kind as RowKind
from topicwarden.store.notes import MAX_NOTE, Checkpoint, NoteError, open_note
from topicwarden.store.reader import Store
from topicwarden.store.verify_model import Verification

TIMED: Final = (RowKind.EVENTS, RowKind.NOTICES, RowKind.CHANGES, RowKind.HOSTS, RowKind.FINDINGS)
"""Kinds of rows that have times of their own."""
_TIME: Final = "time "


@dataclass(slots=True)
class LogRead:
    """What one pass over a store's log gives."""

    integrity: Integrity
    runs: list[Run]
    entries: list[Entry]
    """The entries but those of segments; of each run the last, with the latest time that any of it has."""
    held: Span | None
    """From the first to the last row that is still there, or scan; None: there are none."""


def read_log(store: Store) -> LogRead:
    """Compare the log with its newest checkpoint, and return what came of it; in memory that segments do not fill."""
    log = Log(store.folder / "log")
    text, checkpoint, problem = _newest(store)
    frontier, signed_root = Frontier(), None
    runs: list[Run] = []
    kept: list[Entry] = []
    last: Entry | None = None
    entries = 0
    there = {(kind, file.broker, file.hour) for kind in TIMED for file in store.files(kind)}
    first_ns: int | None = None
    last_ns: int | None = None
    try:
        for line in log.lines():
            entries += 1
            entry = entry_from_line(line, entries)
            frontier.append(leaf_hash(line))
            if checkpoint is not None and entries == checkpoint.size:
                signed_root = frontier.root()
            for part in entry.parts:
                if (part.kind, part.broker, part.hour) in there:
                    began = part.first_ns
                    if part.kind is RowKind.HOSTS and runs and is_live(runs[-1].opened):
                        # Programs that ran already when watching began are told with their own, earlier, beginning.
                        if part.last_ns < runs[-1].opened.time_ns:
                            continue
                        began = max(began, runs[-1].opened.time_ns)
                    first_ns = began if first_ns is None else min(first_ns, began)
                    last_ns = part.last_ns if last_ns is None else max(last_ns, part.last_ns)
            if entry.kind is EntryKind.SEGMENT:
                latest = entry.time_ns if last is None else max(last.time_ns, entry.time_ns)
                last = replace(entry, parts=(), time_ns=latest)
            else:
                kept += [] if last is None else [last]
                kept.append(entry)
                last = None
            if entry.kind is EntryKind.OPENED:
                runs.append(Run(entry, entry.time_ns))
                if is_scan(entry):
                    # One that found nothing leaves no row, and is evidence all the same.
                    moment = scan_time_ns(entry)
                    first_ns = moment if first_ns is None else min(first_ns, moment)
                    last_ns = moment if last_ns is None else max(last_ns, moment)
            elif runs and entry.kind is not EntryKind.GAP:
                runs[-1] = Run(runs[-1].opened, max(runs[-1].last_ns, entry.time_ns))
        kept += [] if last is None else [last]
    except LogDamageError as error:
        problem = f"the log was changed: {error}"
    except OSError as error:
        problem = f"the log cannot be read: {error.strerror}"
    if problem is None and checkpoint is not None:
        if checkpoint.origin != store.info.origin:
            problem = f"the checkpoint is of another log, {checkpoint.origin}"
        elif checkpoint.size > entries:
            problem = f"{checkpoint.size} entries were signed, and {entries} are there"
        elif checkpoint.size and signed_root != checkpoint.root:
            problem = "the log's entries are not those that were signed"
    if problem is None and not _as_told(store, kept):
        problem = "a summary of the log does not say what the log says"
    size = 0 if checkpoint is None else checkpoint.size
    signed_ns = None if checkpoint is None else _signed_ns(checkpoint)
    integrity = Integrity(
        origin=store.info.origin,
        key=str(store.info.verifier),
        checkpoint=text,
        size=size,
        entries=entries,
        verdict=_verdict(problem, size, entries, signed_ns),
        holds=problem is None,
        signed_ns=signed_ns,
    )
    held = None if first_ns is None or last_ns is None else Span(first_ns, last_ns)
    return LogRead(integrity, runs, kept, held)


def _as_told(store: Store, entries: Sequence[Entry]) -> bool:
    """Whether the log has what the store was opened with, which may be from summaries.

    A writer may have gone on: what came with the newest segment that the store knows, or after it, is not looked at.
    """
    for kind, told in ((EntryKind.OPENED, store.opened), (EntryKind.GAP, store.gaps)):
        said = [entry for entry in entries if entry.kind is kind]
        known = [entry for entry in said if entry.segment is None or entry.segment < store.sealed]
        if list(told) != said[: len(told)] or len(told) < len(known):
            return False
    return True


def verified(integrity: Integrity, verification: Verification) -> Integrity:
    """Return what a whole verification, made for the report, says."""
    count = len(verification.found)
    if not count:
        verdict = (
            f"Verified for this report: {wording.counted(verification.rows, 'row')} in "
            f"{wording.counted(verification.segments, 'segment')} are exactly those that the log names, and the log is "
            f"what {wording.counted(verification.checkpoints, 'checkpoint')} signed."
        )
        return replace(integrity, verdict=verdict, holds=integrity.holds)
    first = verification.found[0]
    verdict = (
        f"Do not rely on this report: the verification found {wording.counted(count, 'thing')} that are not as the log "
        f"says, first {first.place}: {first.message}. `topicwarden verify` names them all."
    )
    return replace(integrity, verdict=verdict, holds=False)


def _newest(store: Store) -> tuple[str | None, Checkpoint | None, str | None]:
    """Return the newest checkpoint's text, itself, and what is wrong with it."""
    try:
        note = (store.folder / "log" / "checkpoint").read_bytes()
    except OSError as error:
        return None, None, f"there is no checkpoint that can be read ({error.strerror})"
    text = note[:MAX_NOTE].decode("utf-8", "replace")
    try:
        return text, Checkpoint.parse(open_note(note, store.info.verifier)), None
    except NoteError as error:
        return text, None, f"the newest checkpoint does not hold: {error}"


def _verdict(problem: str | None, size: int, entries: int, signed_ns: int | None) -> str:
    if problem is not None:
        return f"Do not rely on this report: {problem}."
    when = "" if signed_ns is None else f" at {clock(signed_ns)}Z"
    return (
        f"Of the log's {wording.number(entries)} entries, the first {wording.number(size)} are exactly those that were "
        f"signed{when}. Whether the rows are those that the log names was not checked for this report: "
        "`topicwarden verify` does that."
    )


def _signed_ns(checkpoint: Checkpoint) -> int | None:
    for line in checkpoint.extensions:
        number = line.removeprefix(_TIME)
        if line.startswith(_TIME) and number.isdecimal() and len(number) < 20:
            return int(number)
    return None


def chapter(integrity: Integrity, directory: str) -> Section:
    """Return how a reader checks that this report is of what was observed."""
    steps = (
        (
            "1",
            "Check that the key of this chapter is the one your organisation keeps for this store.",
            None,
        ),
        (
            "2",
            "Check every row, file, segment and checkpoint of the store against that key.",
            f"topicwarden verify {shlex.quote(directory)} --public-key {shlex.quote(integrity.key)}",
        ),
        (
            "3",
            (
                "Keep the checkpoint of this chapter outside of the store: with it (`--checkpoint FILE`), nobody can "
                "change what it covers unnoticed."
            ),
            None,
        ),
        (
            "4",
            "Check the checkpoint's signature with any tool that reads C2SP signed notes and tlog-checkpoints.",
            None,
        ),
    )
    table = Table(
        "verify",
        "How to verify",
        (Column("step", "Step"), Column("what", "What to do"), Column("command", "Command", Kind.COMMAND)),
        steps,
        len(steps),
    )
    return Section(
        "integrity",
        "Integrity",
        (
            (
                "Everything stored is sealed in segments within a second. The segments' digests are the leaves of an "
                "append-only Merkle tree (RFC 9162), and checkpoints over it are signed with Ed25519."
            ),
        ),
        facts=(
            ("Log", integrity.origin),
            ("Entries signed", wording.number(integrity.size)),
            ("Entries in the log", wording.number(integrity.entries)),
        ),
        tables=(table,),
    )
