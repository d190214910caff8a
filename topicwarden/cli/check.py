"""`check`: judge recordings and logs; the same events give the same findings as live."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.options import RunOptions
from topicwarden.cli.pipeline import Pipeline, about_sources, open_pipeline
from topicwarden.cli.recorded import blind_spots, is_store, recorded_sources, runs_on
from topicwarden.cli.signals import Interrupt
from topicwarden.cli.sources import broker_for, host_package_for, read_head
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import EventBatch
from topicwarden.events.observed import Observed
from topicwarden.events.recording import Recording, is_recording
from topicwarden.output.summary import SourceSummary
from topicwarden.sources import BlindSpot, Broker, Counters, SourceOptions, load_brokers, load_hosts

STATUS_SECONDS: Final = 0.2
"""How often the status line is redrawn."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file ready to be read."""

    batches: Iterable[EventBatch]
    sources: Sequence[SourceSummary]
    """What it holds; the first one's counters count what is read."""
    kinds: Mapping[str, str]
    """The kind of each broker by its name."""
    runs_on: Mapping[str, str] = field(default_factory=dict)
    """The host each broker runs on, where that is known."""
    add_up: Callable[[Interrupt], Observed] | None = None
    """Returns what all batches add up to, where there is a faster way than to read them."""

    @property
    def of_hosts(self) -> bool:
        """Whether it tells of a host."""
        return any(source.host for source in self.sources)


def run(files: Sequence[str], options: RunOptions, source_options: SourceOptions) -> int:
    """Read each file to its end and print findings and the summary.

    Files are read one after the other; when some of them tell of hosts, side by side as their times go.

    Raises ObservationError for a file that cannot be read, ConfigurationError for one nobody recognises.
    """
    _refuse_what_is_no_store(files, options, source_options)
    brokers = load_brokers()
    opened = [open_file(file, brokers, options.broker_kind, source_options) for file in files]
    kinds = {name: kind for one in opened for name, kind in one.kinds.items()}
    sources = [source for one in opened for source in one.sources]
    hosts = any(one.of_hosts for one in opened)
    places = {broker: host for one in opened for broker, host in one.runs_on.items()} if hosts else None
    about = about_sources("check", sources, kinds, places)
    streams = (sys.stdout, sys.stderr)
    with (
        Interrupt() as interrupt,
        open_pipeline("check", options, streams, about=about, kinds=kinds, broker_hosts=places) as pipeline,
    ):
        if hosts:
            _judge(side_by_side([one.batches for one in opened]), pipeline, sources, interrupt)
        else:
            for one in opened:
                _judge(one.batches, pipeline, sources, interrupt)
        pipeline.advance(None)
        pipeline.close_store()
        pipeline.live.finish(pipeline.summary(sources, interrupted=interrupt.happened))
    if not pipeline.events or pipeline.unkept:
        return EXIT_BLIND
    return EXIT_FINDINGS if pipeline.failed() else EXIT_CLEAN


def _refuse_what_is_no_store(files: Sequence[str], options: RunOptions, source_options: SourceOptions) -> None:
    """Raise ConfigurationError for a period of something else than a store, and for a store that is to keep itself."""
    if source_options.first_ns is not None or source_options.last_ns is not None:
        for file in files:
            if not is_store(file):
                raise ConfigurationError(
                    Problem("--from and --to are for stores", file, hint="leave them out, or name a store's folder")
                )
    for file in files:
        if options.store is not None and is_store(file) and options.store.resolve() == Path(file).resolve():
            raise ConfigurationError(Problem("a store cannot be read into itself", file, hint="name a new folder"))


def _judge(
    batches: Iterable[EventBatch], pipeline: Pipeline, sources: Sequence[SourceSummary], interrupt: Interrupt
) -> None:
    """Feed a file's batches, showing progress."""
    began = drawn = time.monotonic()
    before = pipeline.events
    for batch in batches:
        pipeline.feed(batch)
        if interrupt.happened:
            return
        if (now := time.monotonic()) - drawn > STATUS_SECONDS:
            pipeline.live.status(pipeline.status((pipeline.events - before) / (now - began), sources))
            drawn = now


def side_by_side(files: Sequence[Iterable[EventBatch]]) -> Iterator[EventBatch]:
    """Yield the batches of several files, each time the one that begins first."""
    running = [iter(file) for file in files]
    waiting: list[tuple[int, int, EventBatch]] = []
    times = [0] * len(running)
    for number in range(len(running)):
        _take(running, times, waiting, number)
    while waiting:
        _, number, batch = heapq.heappop(waiting)
        yield batch
        _take(running, times, waiting, number)


def _take(
    running: Sequence[Iterator[EventBatch]],
    times: list[int],
    waiting: list[tuple[int, int, EventBatch]],
    number: int,
) -> None:
    """Put the next batch of a file among those that wait; one that holds no event counts as its predecessor does."""
    batch = next(running[number], None)
    if batch is None:
        return
    first = [int(batch.time_ns.min())] if len(batch) else []
    first += [event.time_ns for event in batch.hosts]
    times[number] = min(first, default=times[number])
    heapq.heappush(waiting, (times[number], number, batch))


def open_file(file: str, brokers: Mapping[str, Broker], kind: str | None, options: SourceOptions) -> Opened:
    """Open a recording, a store, or the log of a host or broker; raises ObservationError or ConfigurationError."""
    if "://" not in file and is_store(file):
        # Not at the top: a store's libraries take as long to load as everything else together.
        from topicwarden.cli.stored import open_store

        opened = open_store(Path(file), options)
        counters = Counters()
        sources = [replace(opened.sources[0], counters=counters), *opened.sources[1:]]
        batches = _counted(opened.batches, counters)
        return Opened(batches, sources, opened.kinds, opened.runs_on, lambda asked: opened.add_up(counters, asked))
    if kind is None and is_recording(read_head(file) if "://" not in file and not file.startswith("log:") else b""):
        return _open_recording(Path(file))
    package = host_package_for(load_hosts(), file, named=kind is not None)
    if package is not None:
        counters = Counters()
        about = package.about_file(file, options)
        source = SourceSummary(about.title, about.broker, about.blind_spots, counters, host=True)
        return Opened(package.read(file, options, counters), [source], {})
    broker = broker_for(brokers, file, kind)
    counters = Counters()
    about = broker.about_file(file, options)
    source = SourceSummary(about.title, about.broker, about.blind_spots, counters)
    return Opened(broker.read(file, options, counters), [source], {about.broker: broker.name})


def _open_recording(path: Path) -> Opened:
    recording = Recording(path)
    counters = Counters()
    sources = [
        SourceSummary(
            f"recording {path} of {row['title']}",
            str(row["broker"]),
            blind_spots(row),
            Counters(),
            host=row.get("host") is True,
        )
        for row in recorded_sources(recording.about)
    ] or [SourceSummary(f"recording {path}", "", [BlindSpot("what was watched and how is not recorded")], counters)]
    first = sources[0]
    sources[0] = replace(first, counters=counters)
    rows = recorded_sources(recording.about)
    kinds = {str(row["broker"]): str(row["kind"]) for row in rows if row.get("host") is not True}
    return Opened(_counted(recording, counters), sources, kinds, runs_on(rows))


def _counted(batches: Iterable[EventBatch], counters: Counters) -> Iterator[EventBatch]:
    """Count what a recording holds; its losses are those its own notices tell of."""
    for batch in batches:
        counters.events += len(batch) + len(batch.hosts)
        for notice in batch.notices:
            if notice.code == "TW901":
                counters.lost += notice.count
                counters.gaps += 1
            elif notice.code == "TW903":
                counters.error(notice.scope or "recording", notice.count)
        yield batch
