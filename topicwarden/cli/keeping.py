"""Keeps what is watched and found in a store, and says at once when that fails."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from topicwarden.cli.key import store_signer
from topicwarden.cli.options import RunOptions
from topicwarden.events import EventBatch, Notice
from topicwarden.findings import Change, Finding
from topicwarden.output import wording
from topicwarden.output.escape import visible
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.live import Live
from topicwarden.output.origin import Origin
from topicwarden.output.summary import Kept
from topicwarden.store.identity import locked
from topicwarden.store.model import Entry
from topicwarden.store.retention import parse_retention
from topicwarden.store.writer import MAX_PENDING, StoreWriter

WAIT_SECONDS: Final = 0.02
UNSEEN: Final = "TW901"
TELL_SECONDS: Final = 300.0
"""How often the counts of findings that grew are kept, so that a crash loses no more of them."""
MOST_TOLD: Final = 1000
"""Findings told of at once so."""


class Keeper:
    """A store that is being written."""

    def __init__(self, writer: StoreWriter, folder: Path, live: Live, origin: Origin, *, patient: bool) -> None:
        """`patient`: whether whoever hands over batches can wait until they are kept, as a recording can."""
        self._writer = writer
        self._folder = folder
        self._live = live
        self._origin = origin
        self._patient = patient
        self._told: str | None = None
        self._warned: set[str] = set()
        self._dropped = 0
        self._closed = False
        self._counts: dict[int, int] = {}
        """The count each finding was kept with, by its identity: findings stay in the ledger."""
        self._told_at = time.monotonic()

    def batch(self, batch: EventBatch) -> None:
        """Keep a batch."""
        if self._patient:
            while self._writer.waiting > MAX_PENDING // 8 and self._writer.error is None:
                time.sleep(WAIT_SECONDS)
        self._writer.write(batch)

    def finding(self, change: Change, finding: Finding) -> None:
        """Keep what is said of a finding that opened or grew."""
        self._finding(Event.OPENED if change is Change.OPENED else Event.UPDATED, finding)

    def tell(self, findings: Callable[[], Sequence[Finding]]) -> None:
        """Keep the counts of findings that grew, once in a while; call it often."""
        now = time.monotonic()
        if self._patient or now - self._told_at < TELL_SECONDS:
            return
        self._told_at = now
        grown = [one for one in findings() if one.count != self._counts.get(id(one))]
        # When there are too many, those that grew most; the others come when these have not.
        grown.sort(key=lambda one: self._counts.get(id(one), 0) - one.count)
        for finding in grown[:MOST_TOLD]:
            self._finding(Event.UPDATED, finding)

    def _finding(self, event: Event, finding: Finding) -> None:
        self._counts[id(finding)] = finding.count
        about = finding.broker if finding.host is None else finding.host
        document = json.loads(encode(finding_document(event, finding, self._origin)))
        self._writer.finding(finding.last_ns, about, finding.type.code, document)

    def scanned(self, finding: Finding, now_ns: int) -> None:
        """Keep what a scan found, as of the moment it looked: what it was compared with has a time of its own."""
        document = json.loads(encode(finding_document(Event.OPENED, finding, self._origin)))
        moment = wording.timestamp(now_ns, 9)
        document |= {"first_seen": moment, "last_seen": moment}
        self._writer.finding(now_ns, finding.broker, finding.type.code, document)

    def look(self) -> None:
        """Say so when writing fails, when rows are let go, and when all is well again; call it often."""
        error = None if self._writer.error is None else self._writer.error.strerror or str(self._writer.error)
        place = visible(str(self._folder))
        if error is not None and error != self._told:
            self._live.message(f"error: evidence is not being kept: {error}: {place}")
        elif error is None and self._told is not None:
            self._live.message(f"evidence is being kept again: {place}")
        self._told = error
        if self._writer.dropped and not self._dropped:
            self._live.message(f"error: evidence is being lost, too much waits to be written: {place}")
        self._dropped = self._writer.dropped
        for what, failed in (
            ("the store is not tidied", self._writer.tidy_error),
            ("no authority vouches for the time of checkpoints", self._stamping_error()),
        ):
            problem = None if failed is None else f"{what}: {failed}"
            if problem is not None and problem not in self._warned:
                self._warned.add(problem)
                self._live.message(f"warning: {visible(problem)}: {place}")

    def _stamping_error(self) -> object:
        stamping = self._writer.timestamps
        return None if stamping is None else stamping.error

    def close(self, findings: Sequence[Finding] = ()) -> None:
        """Keep the final state of findings that grew since they were told of, and seal everything; once."""
        if self._closed:
            return
        self._closed = True
        for finding in findings:
            if finding.count != self._counts.get(id(finding)):
                self._finding(Event.FINAL, finding)
        self._writer.close()
        self.look()

    @property
    def sealed(self) -> int:
        """Rows that are safe."""
        return self._writer.sealed

    @property
    def dropped(self) -> int:
        """Rows that could not be kept."""
        return self._writer.dropped

    @property
    def error(self) -> OSError | None:
        """Why the last attempt to write failed."""
        return self._writer.error

    @property
    def failed(self) -> bool:
        """Whether evidence is missing from the store; known once it is closed."""
        return bool(self._writer.dropped) or self._writer.error is not None

    def kept(self) -> Kept:
        """Return what the summary says."""
        writer = self._writer
        error = None if writer.error is None else writer.error.strerror or str(writer.error)
        return Kept(str(self._folder), writer.sealed, writer.dropped, writer.gap_ns, error)


@contextmanager
def open_keeper(
    folder: Path, options: RunOptions, about: Mapping[str, Any], live: Live, origin: Origin, *, patient: bool
) -> Iterator[Keeper]:
    """Open or begin a store that is closed when left; raises ConfigurationError or ObservationError as it does."""
    retention = parse_retention(options.retain, options.retain_size)
    signer = store_signer(options.store_key)
    writer = StoreWriter(folder, signer, about=about, retention=retention, timestamp_url=options.timestamp_url)
    keeper = Keeper(writer, folder, live, origin, patient=patient)
    try:
        yield keeper
    finally:
        keeper.close()


def check_keeping(folder: Path, key: Path | None) -> None:
    """Raise what is wrong with a key or a store, or that another writes to it, before there is anything to keep."""
    store_signer(key)
    os.close(locked(folder))


def gap_at_start(keeper: Keeper, about: Mapping[str, Any]) -> list[Notice]:
    """Return what is to be said of what was not kept before this writer began."""
    gap = keeper.kept().gap_ns
    if gap is None:
        return []
    return gap_notices(
        about, {"reason": "the writer before ended without closing the store", "from_ns": gap[0], "until_ns": gap[1]}
    )


def store_gaps(
    opened: Sequence[Entry], gaps: Sequence[Entry], first_ns: int | None = None, last_ns: int | None = None
) -> list[Notice]:
    """Return the gaps of a time that a store's log has as notices, about what was watched at the time."""
    notices: list[Notice] = []
    for gap in gaps:
        since, until = (_whole((gap.facts or {}).get(name)) for name in ("from_ns", "until_ns"))
        if first_ns is not None and until is not None and until < first_ns:
            continue
        if last_ns is not None and since is not None and since > last_ns:
            continue
        before = [entry for entry in opened if entry.index < gap.index]
        facts = before[-1].facts if before else None
        about = (facts or {}).get("about")
        notices += gap_notices(about if isinstance(about, Mapping) else {}, gap.facts or {})
    return notices


def gap_notices(about: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Notice]:
    """Return a gap as a notice for each broker and host that was watched.

    How many events are missing is told where it is known of the one that was watched; else each has one gap.
    """
    rows = about.get("sources")
    watched = {
        (str(row.get("broker", "")), row.get("host") is True)
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    } or {("", False)}
    lost, since, until = (_whole(facts.get(name)) for name in ("lost", "from_ns", "until_ns"))
    evidence: dict[str, str | int | float] = {"why": str(facts.get("reason", "not said"))}
    if since is not None:
        evidence["min_from"] = wording.timestamp(since, 3)
    if until is not None:
        evidence["last_until"] = wording.timestamp(until, 3)
    if lost and len(watched) > 1:
        evidence["sum_lost_of_all"] = lost
    count = lost if lost and len(watched) == 1 else 1
    return [
        Notice(UNSEEN, until or since or 0, name, "store", count, evidence=evidence, of_host=of_host)
        for name, of_host in sorted(watched)
    ]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
