"""Reads logs of hosts and sensors to their end: files, plain or gzipped, a folder of Zeek's, or standard input."""

from __future__ import annotations

import heapq
import os
import re
import select
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import EventBatch, Tables
from topicwarden.sources import Counters, SourceOptions
from topicwarden_collectors.host.blind_spots import Seen
from topicwarden_collectors.host.host_sink import HostSink
from topicwarden_collectors.host.kinds import STANDARD_INPUT, Kind
from topicwarden_collectors.host.zeek import PATHS
from topicwarden_collectors.log_following.log_file import CHUNK, DamagedFileError, LogFile

BATCH: Final = 1000
"""Most events of one batch."""
MAX_FILES: Final = 4096
"""Most logs read of a folder, the last ones."""
_QUIET_BYTES: Final = 1 << 20
"""After so much without an event an empty batch is given, so that reading can be interrupted."""
_WAIT_SECONDS: Final = 0.2
_ZEEK_LOG: Final = re.compile(rf"({'|'.join(PATHS)})(?:[.-]\d[\d.:_-]*)?\.log(?:\.gz)?")


def read_logs(
    kind: Kind, logs: Sequence[Sequence[Path]], options: SourceOptions, counters: Counters
) -> Iterator[EventBatch]:
    """Read several logs, each of several files one after the other, side by side by their times.

    Raises ObservationError at once for a file that cannot be opened.
    """
    for path in (path for files in logs for path in files):
        if str(path) != STANDARD_INPUT:
            LogFile(path, kind.hint).close()
    tables = Tables()
    reading = [_read(kind, files, options, counters, tables) for files in logs]
    return reading[0] if len(reading) == 1 else heapq.merge(*reading, key=_first_ns)


def _first_ns(batch: EventBatch) -> int:
    return batch.hosts[0].time_ns if batch.hosts else 0


def _read(
    kind: Kind, files: Sequence[Path], options: SourceOptions, counters: Counters, tables: Tables
) -> Iterator[EventBatch]:
    for path in files:
        yield from read_log(kind, path, options, counters, tables)


def read_log(
    kind: Kind, path: Path, options: SourceOptions, counters: Counters, tables: Tables
) -> Iterator[EventBatch]:
    """Read one log to its end; raises ObservationError when it cannot be opened."""
    if str(path) == STANDARD_INPUT:
        yield from read_pieces(kind, _standard_input(), options, counters, tables, "standard input", time.time_ns())
        return
    log = LogFile(path, kind.hint)
    try:
        yield from read_pieces(kind, log.chunks(), options, counters, tables, str(path), log.modified_ns)
    finally:
        log.close()


def read_pieces(
    kind: Kind,
    pieces: Iterable[bytes],
    options: SourceOptions,
    counters: Counters,
    tables: Tables,
    name: str,
    now_ns: int,
) -> Iterator[EventBatch]:
    """Decode the pieces of a log, b'' for none now; raises nothing of its own. `now_ns`: the time of notices."""
    host = options.host or ""
    sink = HostSink(tables, counters, Seen(), host=host, clock=lambda: now_ns)
    decoder = kind.decoder(counters, host=host)
    quiet = 0
    try:
        for data in pieces:
            for event in decoder.feed(data):
                sink.add(event)
                if len(sink) >= BATCH:
                    quiet = 0
                    yield from _taken(sink, name)
            quiet += len(data) or _QUIET_BYTES
            if quiet >= _QUIET_BYTES:
                quiet = 0
                batch = sink.take(name)
                yield sink.empty() if batch is None else batch
    except DamagedFileError as error:
        counters.error("gzip")
        sink.gap(name, f"the compressed file is damaged: {error}")
    if decoder.unfinished:
        # Of a last line without its end nobody can tell whether it is whole.
        counters.error("cut")
    for event in decoder.finish():
        sink.add(event)
        if len(sink) >= BATCH:
            yield from _taken(sink, name)
    yield from _taken(sink, name)


def _taken(sink: HostSink, name: str) -> Iterator[EventBatch]:
    batch = sink.take(name)
    if batch is not None:
        yield batch


def _standard_input() -> Iterator[bytes]:
    source = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([source], [], [], _WAIT_SECONDS)
        if not ready:
            yield b""
        elif data := os.read(source, CHUNK):
            yield data
        else:
            return


def zeek_logs(folder: Path) -> Sequence[Sequence[Path]]:
    """Return the logs in a folder of Zeek's, the current ones or an archive's: the files of each, oldest first.

    Raises ObservationError when there is none.
    """
    found: dict[str, list[Path]] = {}
    try:
        for path in folder.iterdir():
            match = _ZEEK_LOG.fullmatch(path.name)
            if match is not None and path.is_file():
                found.setdefault(match[1], []).append(path)
    except OSError as error:
        problem = Problem(f"the folder cannot be read: {error.strerror}", str(folder), hint="check the path")
        raise ObservationError(problem) from error
    if not found:
        hint = "it is where conn.log and mqtt_*.log are"
        raise ObservationError(Problem("no log of Zeek's that matters is in this folder", str(folder), hint=hint))
    # By name: an archive's have their times in it, and `conn.log`, the current one, comes after them.
    return [sorted(files)[-MAX_FILES:] for _, files in sorted(found.items())]
