"""`watch`: live collectors, engine, findings."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN, EXIT_FINDINGS, print_error
from topicwarden.cli.options import RunOptions
from topicwarden.cli.pipeline import Pipeline, about_sources, open_pipeline
from topicwarden.cli.sources import broker_for, default_sources, host_package_for, live_hosts, runs_here, this_host
from topicwarden.errors import ConfigurationError, ObservationError, Problem, TopicwardenError
from topicwarden.output.escape import visible
from topicwarden.output.metrics import DEFAULT_ADDRESS, MetricsServer
from topicwarden.output.summary import SourceSummary
from topicwarden.policy import load_policy
from topicwarden.sources import Broker, Collector, SourceOptions, load_brokers, load_hosts

STATUS_SECONDS: Final = 0.25
"""How often the status line is redrawn."""
BEGIN_SECONDS: Final = 0.02
"""How often collectors are asked whether they observe yet."""
CLOSE_SECONDS: Final = 10
"""How long collectors get to hand over what they have when we end."""


@dataclass
class Watching:
    """The collectors of one run and how it ended."""

    collectors: Sequence[Collector]
    kinds: Mapping[str, str]
    """The kind of each broker by its name."""
    hosts: Collection[Collector] = ()
    """Those of the collectors that tell of hosts."""
    runs_on: Mapping[str, str] = field(default_factory=dict)
    """The host each broker runs on, where that is known."""
    failures: list[TopicwardenError] = field(default_factory=list)
    interrupted: bool = False

    @property
    def broker_hosts(self) -> Mapping[str, str] | None:
        """What the engine is to know of the brokers' hosts; None when no host is observed."""
        return self.runs_on if self.hosts else None

    def summaries(self) -> list[SourceSummary]:
        """Return what the summary says of each source now."""
        return [
            SourceSummary(
                collector.title,
                collector.broker,
                collector.blind_spots(),
                collector.counters,
                host=collector in self.hosts,
            )
            for collector in self.collectors
        ]


def run(
    sources: Sequence[str],
    options: RunOptions,
    source_options: SourceOptions,
    *,
    host: bool = False,
    metrics: str | None = None,
    seconds: float | None = None,
) -> int:
    """Watch until stopped (signal, `seconds`, or every source at its end) and return the exit code.

    Raises ConfigurationError or ObservationError when it cannot begin.
    """
    brokers = load_brokers()
    wanted = list(sources or default_sources(brokers, optional=host))
    if host and not any(source.startswith(live) for live in live_hosts(load_hosts()) for source in wanted):
        wanted += live_hosts(load_hosts())
    if options.policy is not None:
        approved = load_policy(options.policy).inventory.brokers
        source_options = replace(source_options, ports=sorted({port for broker in approved for port in broker.ports}))
    watching = open_collectors(wanted, brokers, options.broker_kind, source_options)
    about = about_sources("watch", watching.summaries(), watching.kinds, watching.broker_hosts)
    streams = (sys.stdout, sys.stderr)
    with open_pipeline(
        "watch", options, streams, about=about, kinds=watching.kinds, broker_hosts=watching.broker_hosts
    ) as pipeline:
        with _served(pipeline, watching, metrics):
            asyncio.run(watch(watching, pipeline, stop_after=seconds))
        finish(pipeline, watching)
    if watching.failures or pipeline.unkept:
        return EXIT_BLIND
    return EXIT_FINDINGS if pipeline.failed() else EXIT_CLEAN


def open_collectors(
    sources: Sequence[str], brokers: Mapping[str, Broker], kind: str | None, options: SourceOptions
) -> Watching:
    """Build a collector for each source; raises ConfigurationError or ObservationError when one cannot work."""
    if options.state_dir is not None:
        _make_state_dir(options.state_dir)
    known = load_hosts()
    collectors: list[Collector] = []
    hosts: list[Collector] = []
    kinds: dict[str, str] = {}
    runs_on: dict[str, str] = {}
    for source in sources:
        package = host_package_for(known, source, named=kind is not None)
        if package is not None:
            hosts.append(package.watch(source, options))
            collectors.append(hosts[-1])
            continue
        broker = broker_for(brokers, source, kind)
        collector = broker.watch(source, options)
        collectors.append(collector)
        kinds[collector.broker] = broker.name
        if runs_here(source):
            runs_on[collector.broker] = this_host()
    return Watching(collectors, kinds, hosts, runs_on)


def _announce(pipeline: Pipeline, watching: Watching) -> None:
    """Say on stderr which mode each source is in and what it cannot see, before anything is found."""
    for source in watching.summaries():
        noun = "host " if source.host else ""
        pipeline.live.message(f"watching {noun}{visible(source.broker)}: {visible(source.title)}")
        for spot in source.blind_spots:
            pipeline.live.message(f"  cannot see: {visible(spot.what)}")


def finish(pipeline: Pipeline, watching: Watching) -> None:
    """Show the summary, then what went wrong."""
    pipeline.advance(None)
    pipeline.close_store()
    summary = pipeline.summary(watching.summaries(), interrupted=watching.interrupted, now_ns=time.time_ns())
    pipeline.live.finish(summary)
    for failure in watching.failures:
        print_error(failure)


async def watch(
    watching: Watching,
    pipeline: Pipeline,
    *,
    stop_after: float | None = None,
    until: Callable[[], bool] | None = None,
    begun: Callable[[], None] | None = None,
) -> None:
    """Say what is watched, and feed the pipeline until the collectors end, a signal comes, time is up, or `until()`.

    `begun()` is called once, when every collector observes.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        watching.interrupted = True
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    # From the first line on, whoever reads it can end us well.
    _announce(pipeline, watching)
    tasks = [asyncio.ensure_future(_collect(collector, pipeline, watching)) for collector in watching.collectors]
    status = asyncio.ensure_future(_show_status(pipeline, watching, until, stop))
    beginning = asyncio.ensure_future(_tell_when_begun(pipeline, watching, begun))
    everything = asyncio.ensure_future(asyncio.wait(tasks))
    everything.add_done_callback(lambda _: stop.set())
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), stop_after)
    finally:
        for collector in watching.collectors:
            await collector.close()
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for task in (status, beginning, everything, *tasks):
            task.cancel()
        # What a task died of is either kept as a failure or a defect of ours, and then must be seen.
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _collect(collector: Collector, pipeline: Pipeline, watching: Watching) -> None:
    """Feed one collector's batches; its failure ends it, not the others."""
    try:
        async for batch in collector.batches():
            pipeline.feed(batch)
    except TopicwardenError as error:
        watching.failures.append(error)
        if len(watching.collectors) > 1:
            pipeline.live.message(f"no longer watching {visible(collector.broker)}: {visible(str(error))}")


async def _tell_when_begun(pipeline: Pipeline, watching: Watching, begun: Callable[[], None] | None) -> None:
    """Say of each collector that was not at once observing from when on it is; then call `begun`."""
    waiting = [collector for collector in watching.collectors if not collector.observing]
    while waiting:
        await asyncio.sleep(BEGIN_SECONDS)
        for collector in [one for one in waiting if one.observing]:
            pipeline.live.message(f"{visible(collector.broker)} is being observed from now on")
            waiting.remove(collector)
    if begun is not None:
        begun()


async def _show_status(
    pipeline: Pipeline, watching: Watching, until: Callable[[], bool] | None, stop: asyncio.Event
) -> None:
    """Redraw the status line a few times a second, with the rate of the last seconds."""
    rate, before, then = 0.0, 0, time.monotonic()
    while True:
        await asyncio.sleep(STATUS_SECONDS)
        now = time.monotonic()
        # Half of it new: steady enough to read, quick enough to follow.
        rate = rate / 2 + (pipeline.events - before) / (now - then) / 2
        before, then = pipeline.events, now
        pipeline.advance(time.time_ns())
        pipeline.live.status(pipeline.status(rate, watching.summaries()))
        if until is not None and until():
            stop.set()


@contextlib.contextmanager
def _served(pipeline: Pipeline, watching: Watching, address: str | None) -> Iterator[None]:
    """Serve metrics while entered, when an address is given."""
    if address is None:
        yield
        return
    host, colon, port = address.rpartition(":")
    if not port.isdecimal():
        raise ConfigurationError(
            Problem(f"--metrics {address!r} is no [HOST:]PORT", hint="such as 9464 or 0.0.0.0:9464")
        )
    for collector in watching.collectors:
        pipeline.metrics.add_source(collector.broker, collector.counters)
    with MetricsServer(pipeline.metrics, int(port), host.strip("[]") if colon else DEFAULT_ADDRESS) as server:
        pipeline.live.message(f"metrics on http://{visible(host) if colon else DEFAULT_ADDRESS}:{server.port}/metrics")
        yield


def _make_state_dir(folder: Path) -> None:
    """Make sure the folder is there and can be written; raises ObservationError otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ObservationError(
            Problem(
                f"the reading position cannot be kept: {error.strerror}",
                str(folder),
                hint="name another folder with --state, or do without: --no-state",
            )
        ) from error
