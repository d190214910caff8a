"""What a store's events add up to, in SQL: much faster than reading them."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from topicwarden.cli.signals import Interrupt, told_at_once
from topicwarden.events import Notice
from topicwarden.events.observed import Observed
from topicwarden.sources import Counters, SourceOptions
from topicwarden.store.analysis import observed
from topicwarden.store.reader import Store
from topicwarden.store.views import Scope, Views


def add_up(
    store: Store, options: SourceOptions, gaps: Sequence[Notice], counters: Counters, interrupt: Interrupt
) -> Observed:
    """Return what a store's events of a time and broker add up to, and count them; nothing when interrupted."""
    brokers = None if options.broker is None else [options.broker]
    with Views(store, Scope(options.first_ns, options.last_ns)) as views, told_at_once(views.interrupt):
        try:
            found = observed(views, brokers)
            _count(views, counters)
        except duckdb.InterruptException:
            return Observed()
    if interrupt.happened:
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
