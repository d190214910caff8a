"""Findings about the observing itself: what the sources say, clocks that are set back, tables that overflow."""

from __future__ import annotations

import numpy as np

from topicwarden.engine.clock import SECOND
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.events import EventBatch
from topicwarden.findings import Ledger


def report_notices(ledger: Ledger, batch: EventBatch) -> None:
    """Record what the source has to say."""
    for notice in batch.notices:
        ledger.record(
            notice.code,
            broker="" if notice.of_host else notice.broker,
            host=notice.broker if notice.of_host else None,
            client=notice.client,
            scope=(notice.scope,) if notice.scope else (),
            first_ns=notice.time_ns,
            last_ns=notice.time_ns,
            count=notice.count,
            witnesses={notice.witness: notice.count} if notice.witness is not None else None,
            evidence=notice.evidence,
        )


def report_clock(ledger: Ledger, lane: Lane, batch: EventBatch, back_ns: Int64) -> None:
    """TW904: the broker's clock was set back by more than a second."""
    for row in np.flatnonzero(back_ns).tolist():
        time = int(batch.time_ns[row])
        ledger.record(
            "TW904",
            broker=lane.client(int(batch.client[row])).broker,
            first_ns=time,
            last_ns=time,
            evidence={"max_step_seconds": round(int(back_ns[row]) / SECOND, 3)},
        )


def report_overflow(ledger: Ledger, lane: Lane, batch: EventBatch) -> None:
    """TW902: a bounded table was too small, here or in the source."""
    evicted = (lane.tables.clients.evicted, lane.tables.resources.evicted)
    if evicted == lane.evicted or not len(batch):
        return
    for what, before, now in zip(("clients", "topics"), lane.evicted, evicted, strict=True):
        if now > before:
            _overflowed(ledger, lane, batch, what, now - before)
    lane.evicted = evicted


def report_uncounted(ledger: Ledger, lane: Lane, batch: EventBatch, what: str, before: int, now: int) -> None:
    """TW902: there was no room for something new (`what`: findings, novelties). How often, when last called and now."""
    if now > before and len(batch):
        _overflowed(ledger, lane, batch, what, now - before)


def _overflowed(ledger: Ledger, lane: Lane, batch: EventBatch, what: str, count: int) -> None:
    time = int(batch.time_ns[-1])
    ledger.record(
        "TW902",
        broker=lane.client(int(batch.client[-1])).broker,
        scope=(what,),
        first_ns=time,
        last_ns=time,
        count=count,
        evidence={"what": what},
    )
