"""What a store's events add up to, in SQL: much faster than reading them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

import duckdb

from topicwarden.cli.signals import Interrupt
from topicwarden.events import Notice
from topicwarden.events.observed import Observed
from topicwarden.sources import Counters, SourceOptions
from topicwarden.store.analysis import observed
from topicwarden.store.reader import Store
from topicwarden.store.views import Scope, Views

_LOOK_SECONDS: Final = 0.1


def add_up(
    store: Store, options: SourceOptions, gaps: Sequence[Notice], counters: Counters, interrupt: Interrupt
) -> Observed:
    """Return what a store's events of a time and broker add up to, and count them; nothing when interrupted."""
    brokers = None if options.broker is None else [options.broker]
    with Views(store, Scope(options.first_ns, options.last_ns)) as views, _ended_by(interrupt, views):
        try:
            found = observed(views, brokers)
            _count(views, counters)
        except duckdb.InterruptException:
            return Observed()
    found.lost += sum(gap.count for gap in gaps)
    counters.lost += found.lost
    counters.gaps += len(gaps)
    return found


def _count(views: Views, counters: Counters) -> None:
    """Count what there is, as when it is read."""
    for table in ("events", "hosts"):
        counters.events += views.rows(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608 - ours
    for code, scope, times, count in views.rows(
        "SELECT code, scope, count(*), sum(count)::BIGINT FROM notices WHERE code IN ('TW901', 'TW903') GROUP BY ALL"
    ):
        if code == "TW901":
            counters.gaps += times
        else:
            counters.error(scope or "recording", count)


@contextmanager
def _ended_by(interrupt: Interrupt, views: Views) -> Iterator[None]:
    """End the statement that runs when the user wants to; the signal itself only leaves a note."""
    over = Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            if interrupt.happened:
                views.interrupt()

    thread = Thread(target=look, name="interrupt")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
