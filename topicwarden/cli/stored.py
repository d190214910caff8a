"""A store read like a recording: what was watched when it was written, what could not be seen, and its gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topicwarden.cli.keeping import store_gaps
from topicwarden.cli.recorded import of_host, recorded_sources, runs_on, sources_of
from topicwarden.cli.signals import Interrupt
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import EventBatch, EventBuilder, Notice, Tables
from topicwarden.events.observed import Observed
from topicwarden.output.summary import SourceSummary
from topicwarden.report.scans import is_scan
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden.store.model import Entry, Kind
from topicwarden.store.reader import Store


@dataclass(frozen=True, slots=True)
class StoreRead:
    """A store ready to be read."""

    batches: Iterable[EventBatch]
    sources: Sequence[SourceSummary]
    kinds: Mapping[str, str]
    """The kind of each broker by its name."""
    runs_on: Mapping[str, str]
    add_up: Callable[[Counters, Interrupt], Observed]
    """Returns what all batches add up to, much faster than they can be read."""


def open_store(path: Path, options: SourceOptions) -> StoreRead:
    """Open a store; `options` says of which time and, by its name, of which broker.

    Raises ObservationError when it cannot be read, ConfigurationError for a broker it does not have.
    """
    store = Store(path)
    watched = [entry for entry in store.opened if not is_scan(entry)]
    gaps = [gap for gap in store.gaps if not _left_by_scan(gap, store.opened)]
    rows = [row for entry in watched for row in recorded_sources(_about(entry))]
    brokers = None if options.broker is None else [options.broker]
    if brokers is not None:
        known = {str(row["broker"]) for row in rows if not of_host(row)}
        known |= {file.broker for file in store.files(Kind.EVENTS)}
        if options.broker not in known:
            raise ConfigurationError(
                Problem(
                    f"the store has no broker {options.broker!r}",
                    str(path),
                    hint=f"one of: {', '.join(map(repr, sorted(known))) or 'it is empty'}",
                )
            )
        rows = [row for row in rows if of_host(row) or row["broker"] == options.broker]
    notices = [
        notice
        for notice in store_gaps(watched, gaps, options.first_ns, options.last_ns)
        if brokers is None or notice.of_host or notice.broker in ("", *brokers)
    ]
    batches = store.batches(first_ns=options.first_ns, last_ns=options.last_ns, brokers=brokers)
    sources = sources_of(f"store {path} of", rows) or [
        SourceSummary(f"store {path}", "", [BlindSpot("what was watched and how is not recorded")], Counters())
    ]
    kinds = {str(row["broker"]): str(row["kind"]) for row in rows if not of_host(row)}

    def add_up(counters: Counters, interrupt: Interrupt) -> Observed:
        from topicwarden.cli.stored_sums import add_up  # only here is DuckDB needed

        return add_up(store, options, notices, counters, interrupt)

    return StoreRead(_all(notices, batches), sources, kinds, runs_on(rows), add_up)


def _left_by_scan(gap: Entry, opened: Sequence[Entry]) -> bool:
    """Whether it was a scan that died: no event is missing."""
    before = [entry for entry in opened if entry.index < gap.index]
    return bool(before) and is_scan(before[-1])


def _all(notices: Sequence[Notice], batches: Iterable[EventBatch]) -> Iterator[EventBatch]:
    if notices:
        builder = EventBuilder(Tables())
        for notice in notices:
            builder.notice(notice)
        yield builder.take()
    yield from batches


def _about(entry: Entry) -> Mapping[str, Any]:
    about = (entry.facts or {}).get("about")
    return about if isinstance(about, Mapping) else {}
