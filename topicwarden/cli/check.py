"""`check`: judge recordings and logs; the same events give the same findings as live."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.options import RunOptions
from topicwarden.cli.pipeline import Pipeline, about_sources, open_pipeline
from topicwarden.cli.signals import Interrupt
from topicwarden.cli.sources import broker_for, read_head
from topicwarden.events import EventBatch
from topicwarden.events.recording import Recording, is_recording
from topicwarden.output.summary import SourceSummary
from topicwarden.sources import BlindSpot, Broker, Counters, SourceOptions, load_brokers

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


def run(files: Sequence[str], options: RunOptions, source_options: SourceOptions) -> int:
    """Read each file to its end, one after the other, and print findings and the summary.

    Raises ObservationError for a file that cannot be read, ConfigurationError for one nobody recognises.
    """
    brokers = load_brokers()
    opened = [open_file(file, brokers, options.broker_kind, source_options) for file in files]
    kinds = {name: kind for one in opened for name, kind in one.kinds.items()}
    sources = [source for one in opened for source in one.sources]
    about = about_sources("check", sources, kinds)
    streams = (sys.stdout, sys.stderr)
    with Interrupt() as interrupt, open_pipeline("check", options, streams, about=about, kinds=kinds) as pipeline:
        for one in opened:
            _judge(one.batches, pipeline, sources, interrupt)
        pipeline.live.finish(pipeline.summary(sources, interrupted=interrupt.happened))
    if not pipeline.events:
        return EXIT_BLIND
    return EXIT_FINDINGS if pipeline.failed() else EXIT_CLEAN


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


def open_file(file: str, brokers: Mapping[str, Broker], kind: str | None, options: SourceOptions) -> Opened:
    """Open a recording or a broker's log; raises ObservationError or ConfigurationError when it is neither."""
    if kind is None and is_recording(read_head(file) if "://" not in file and not file.startswith("log:") else b""):
        return _open_recording(Path(file))
    broker = broker_for(brokers, file, kind)
    counters = Counters()
    about = broker.about_file(file, options)
    source = SourceSummary(about.title, about.broker, about.blind_spots, counters)
    return Opened(broker.read(file, options, counters), [source], {about.broker: broker.name})


def _open_recording(path: Path) -> Opened:
    recording = Recording(path)
    counters = Counters()
    sources = [
        SourceSummary(f"recording {path} of {row['title']}", str(row["broker"]), _spots(row), Counters())
        for row in _recorded_sources(recording.about)
    ] or [SourceSummary(f"recording {path}", "", [BlindSpot("what was watched and how is not recorded")], counters)]
    first = sources[0]
    sources[0] = SourceSummary(first.title, first.broker, first.blind_spots, counters)
    kinds = {str(row["broker"]): str(row["kind"]) for row in _recorded_sources(recording.about)}
    return Opened(_counted(recording, counters), sources, kinds)


def _recorded_sources(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the well-formed rows of what the recording says of its sources; a recording is input like any other."""
    rows = about.get("sources")
    wanted = {"title", "broker", "kind"}
    return [row for row in rows if isinstance(row, dict) and wanted <= row.keys()] if isinstance(rows, list) else []


def _spots(row: Mapping[str, Any]) -> list[BlindSpot]:
    spots = row.get("blind_spots")
    if not isinstance(spots, list):
        return []
    return [
        BlindSpot(str(spot.get("what")), None if spot.get("fix") is None else str(spot["fix"]))
        for spot in spots
        if isinstance(spot, dict)
    ]


def _counted(batches: Iterable[EventBatch], counters: Counters) -> Iterator[EventBatch]:
    """Count what a recording holds; its losses are those its own notices tell of."""
    for batch in batches:
        counters.events += len(batch)
        for notice in batch.notices:
            if notice.code == "TW901":
                counters.lost += notice.count
                counters.gaps += 1
            elif notice.code == "TW903":
                counters.error(notice.scope or "recording", notice.count)
        yield batch
