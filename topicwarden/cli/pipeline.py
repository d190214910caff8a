"""From batches to findings on a sink: what `watch`, `check` and `demo` share."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from topicwarden import __version__
from topicwarden.cli.options import RunOptions
from topicwarden.cli.resolving import resolve
from topicwarden.engine import Engine, HostOptions, Inventory
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import EventBatch, EventBuilder, Notice, Outcome, Tables
from topicwarden.events.recording import Recorder, open_recorder
from topicwarden.findings import Change, Finding, Severity, load_catalogue
from topicwarden.output.escape import visible
from topicwarden.output.live import Live, Status
from topicwarden.output.metrics import Metrics
from topicwarden.output.origin import Origin
from topicwarden.output.sinks import make_sink
from topicwarden.output.summary import InventoryRow, SourceSummary, Summary
from topicwarden.policy import load_baseline, load_policy

if TYPE_CHECKING:
    from topicwarden.cli.keeping import Keeper

INVENTORY_ROWS = 15
"""How many of the busiest clients the summary lists."""


class Pipeline:
    """Judges batches, shows findings, keeps events. One thread; `feed` is called with one batch after the other."""

    def __init__(
        self, command: str, options: RunOptions, live: Live, broker_hosts: Mapping[str, str] | None = None
    ) -> None:
        catalogue = load_catalogue()
        codes = [*catalogue, *(entry.name for entry in catalogue.values())]
        self._command = command
        self._options = options
        self._policy = None if options.policy is None else load_policy(options.policy, codes)
        baseline = None if options.baseline is None else load_baseline(options.baseline)
        hosts = None
        if broker_hosts is not None:
            resolved = resolve(self._policy)
            for name in resolved.unknown:
                live.message(
                    f"the approved broker {visible(name)} has no known address: connections to it look like others"
                )
            hosts = HostOptions(
                skew_ns=round(options.skew * 1e9), broker_hosts=broker_hosts, resolved=resolved.addresses
            )
        self.engine = Engine(catalogue, self._policy, baseline=baseline, hosts=hosts)
        self.inventory = Inventory()
        self.metrics = Metrics()
        self.live = live
        self.recorder: Recorder | None = None
        """Set when the events are to be kept."""
        self.keeper: Keeper | None = None
        """Set when they are to be kept in a store, with the findings."""
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._began_ns = time.time_ns() if command != "check" else -(1 << 63)
        self._denied = 0
        self._severities: dict[Severity, int] = {}
        self.events = 0

    def feed(self, batch: EventBatch) -> None:
        """Take one batch through everything: record, judge, count, show."""
        if self.recorder is not None:
            self.recorder.write(batch)
        if self.keeper is not None:
            self.keeper.batch(batch)
        for change, finding in self.engine.step(batch):
            self._show(change, finding)
        self.inventory.update(batch)
        self.events += len(batch.hosts)
        for event in batch.hosts:
            # What ran already when we began is told with the time it was started.
            if event.time_ns >= self._began_ns:
                self._span(event.time_ns, event.time_ns)
        if len(batch):
            self.events += len(batch)
            first, last = int(batch.time_ns.min()), int(batch.time_ns.max())
            self._span(first, last)
            self._denied += int(batch.count[batch.outcome == Outcome.DENIED].sum(dtype=np.int64))

    def advance(self, now_ns: int | None) -> None:
        """Tell the engine that nothing older than `now_ns` is still to come; None: nothing at all."""
        for change, finding in self.engine.advance(now_ns):
            self._show(change, finding)

    def tell(self, notices: Sequence[Notice]) -> None:
        """Judge what we have to say ourselves of the observing; where it happened it is written down already."""
        builder = EventBuilder(Tables())
        for notice in notices:
            builder.notice(notice)
        for change, finding in self.engine.step(builder.take()):
            self._show(change, finding)

    def close_store(self) -> None:
        """Keep how the findings stand at the end, and seal the store; before the summary is shown."""
        if self.keeper is not None:
            self.keeper.close(self.engine.ledger.findings())

    def _span(self, first: int, last: int) -> None:
        self._first_ns = first if self._first_ns is None else min(first, self._first_ns)
        self._last_ns = last if self._last_ns is None else max(last, self._last_ns)

    def _show(self, change: Change, finding: Finding) -> None:
        if change is Change.OPENED:
            if finding.accepted is None:
                self._severities[finding.severity] = self._severities.get(finding.severity, 0) + 1
            self.live.opened(finding)
        else:
            self.live.updated(finding)
        self.metrics.finding(change, finding)
        if self.keeper is not None:
            self.keeper.finding(change, finding)

    def status(self, rate: float, summaries: Sequence[SourceSummary]) -> Status:
        """Return what the status line says now."""
        self.metrics.clients(self.inventory.clients)
        if self.keeper is not None:
            self.keeper.look()
            self.keeper.tell(self.engine.ledger.findings)
        return Status(
            events=self.events,
            rate=rate,
            clients=self.inventory.clients,
            findings=dict(self._severities),
            lag_ns=max((source.counters.lag_ns for source in summaries), default=0),
            lost=sum(source.counters.lost for source in summaries),
            gaps=sum(source.counters.gaps for source in summaries),
        )

    def summary(self, sources: Sequence[SourceSummary], *, interrupted: bool, now_ns: int | None = None) -> Summary:
        """Return the closing summary; `now_ns` ends a live run, a recording ends with its last event."""
        last = self._last_ns or 0
        return Summary(
            command=self._command,
            sources=sources,
            findings=self.engine.ledger.findings(),
            started_ns=self._first_ns if self._first_ns is not None else now_ns or 0,
            ended_ns=max(last, now_ns or 0),
            clients=self.inventory.clients,
            topics=self.inventory.topics,
            denied=self._denied,
            inventory=self._inventory_rows(),
            overflow=self.engine.ledger.overflow,
            policy=None if self._options.policy is None else str(self._options.policy),
            interrupted=interrupted,
            not_asked=self.engine.not_asked,
            joined=self.engine.joined(),
            kept=None if self.keeper is None else self.keeper.kept(),
        )

    def _inventory_rows(self) -> Sequence[InventoryRow]:
        return [
            InventoryRow(
                broker=entry.client.broker,
                user=entry.client.user,
                client_id=entry.client.client_id,
                identity=entry.client.identity,
                address=entry.client.address,
                publishes=entry.publishes,
                rate=entry.mean_rate,
                topics=entry.topics,
                denied=entry.denied,
                first_ns=entry.first_ns,
                last_ns=entry.last_ns,
            )
            for entry in self.inventory.top_clients(INVENTORY_ROWS)
        ]

    @property
    def unkept(self) -> bool:
        """Whether evidence was to be kept and is missing; known once the store is closed."""
        return self.keeper is not None and self.keeper.failed

    def failed(self) -> bool:
        """Whether an open finding is at or above the severity that fails the run."""
        found = self.engine.ledger.findings()
        return any(finding.accepted is None and finding.severity >= self._options.fail_on for finding in found)


@contextmanager
def open_pipeline(
    command: str,
    options: RunOptions,
    streams: tuple[TextIO, TextIO],
    *,
    about: Mapping[str, object],
    kinds: Mapping[str, str],
    broker_hosts: Mapping[str, str] | None = None,
) -> Iterator[Pipeline]:
    """Open a pipeline that writes findings to `streams[0]`, status and messages to `streams[1]`.

    `about` goes to the head of a recording; `kinds` gives each broker's kind by its name, `broker_hosts` the host it
    runs on where that is known; None: no host is observed. Raises ConfigurationError for a policy, baseline, format or
    recording that will not do.
    """
    out, err = streams
    with ExitStack() as stack:
        origin = Origin(host=socket.gethostname(), kinds=kinds)
        sink = make_sink(options.output_format, out, origin=origin, live=command != "check")
        live = stack.enter_context(Live(sink, err))
        pipeline = Pipeline(command, options, live, broker_hosts)
        about = {**about, "policy": policy_facts(options.policy)}
        if options.store is None and (options.retain or options.retain_size or options.timestamp_url):
            raise ConfigurationError(
                Problem("--retain, --retain-size and --timestamp-url are about a store", hint="name it: --store DIR")
            )
        if options.store is not None:
            # Not at the top: a store's libraries take as long to load as everything else together.
            from topicwarden.cli.keeping import gap_at_start, open_keeper

            # A recording can wait until it is kept; a broker cannot.
            opening = open_keeper(options.store, options, about, live, origin, patient=command == "check")
            pipeline.keeper = stack.enter_context(opening)
            pipeline.metrics.set_store(pipeline.keeper)
            pipeline.tell(gap_at_start(pipeline.keeper, about))
        if options.record is not None:
            # Last, so that a mistake elsewhere leaves no empty recording behind.
            pipeline.recorder = stack.enter_context(open_recorder(options.record, about))
        yield pipeline


def policy_facts(policy: Path | None) -> dict[str, str] | None:
    """Return which policy events are held against; None: none."""
    if policy is None:
        return None
    return {"file": str(policy), "sha256": sha256(policy.read_bytes()).hexdigest()}


def about_sources(
    command: str,
    sources: Sequence[SourceSummary],
    kinds: Mapping[str, str],
    broker_hosts: Mapping[str, str] | None = None,
    more: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """Return what a recording says of itself at its head, so that whoever checks it knows what it cannot show.

    `more`: what else is said of each source; none: nothing.
    """
    return {
        "command": command,
        "version": __version__,
        "broker": sources[0].broker if sources else "",
        "sources": [
            {
                "title": source.title,
                "broker": source.broker,
                "kind": kinds.get(source.broker, ""),
                "host": source.host,
                "runs_on": (broker_hosts or {}).get(source.broker, ""),
                "blind_spots": [{"what": spot.what, "fix": spot.fix} for spot in source.blind_spots],
                **(more[number] if more else {}),
            }
            for number, source in enumerate(sources)
        ],
    }
