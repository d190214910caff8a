"""Reads a log of Mosquitto's, plain or gzipped, to its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import EventBatch, Tables
from topicwarden.sources import Counters, SourceOptions
from topicwarden_collectors.log_following.log_file import DamagedFileError, LogFile
from topicwarden_collectors.mosquitto.log_decode import LogDecoder

GAP: Final = "log"
"""Scope of the notices about gaps in a log."""
LOG_HINT: Final = "name the file in `log_dest file` of mosquitto.conf; it is where the broker writes"


def zone_of(name: str | None) -> tzinfo | None:
    """Return the zone of this IANA name; None for None. Raises ConfigurationError for a name that is none."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = "use an IANA name such as Europe/Berlin, or UTC"
        raise ConfigurationError(Problem(f"there is no time zone {name!r}", hint=hint)) from error


def broker_name(path: Path) -> str:
    """Return a broker's name by its log: the file's name up to `.log`."""
    return path.name.partition(".log")[0] or path.name


def read_log(path: Path, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
    """Read a log, plain or gzipped, to its end; raises ObservationError when it cannot be opened."""
    log = LogFile(path, LOG_HINT)
    try:
        base_ns = log.modified_ns
        broker = options.broker or broker_name(path)
        decoder = LogDecoder(Tables(), broker, zone=zone_of(options.timezone), base_ns=base_ns, counters=counters)
        try:
            for data in log.chunks():
                decoder.feed(data)
                yield from batches_of(decoder)
        except DamagedFileError as error:
            counters.error("gzip")
            decoder.gap(base_ns, GAP, why=f"the compressed file is damaged: {error}")
    finally:
        log.close()
    decoder.finish()
    yield from batches_of(decoder)


def batches_of(decoder: LogDecoder) -> Iterator[EventBatch]:
    """Yield what the decoder has, in batches that its tables can hold."""
    while True:
        batch = decoder.take()
        if len(batch) or batch.notices or batch.new_clients or batch.new_resources:
            yield batch
        if not decoder.backlog:
            return
