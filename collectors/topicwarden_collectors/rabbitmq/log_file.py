"""Reads a log file RabbitMQ left, plain or gzipped, in its default text format or as JSON, to its end.

The text formatter of RabbitMQ 3.9 and later begins every line of a message with the same time, level and process, which
it also does to lines a client's name makes: so a name cannot begin a message of its own, and the lines of a message can
be told and put together again. It drops spaces at the ends of lines, so a name with a line feed in it is not whole.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import EventBatch, Tables
from topicwarden.sources import BlindSpot, Counters, FileAbout, SourceOptions
from topicwarden_collectors.mosquitto.log_lines import LineSplitter
from topicwarden_collectors.rabbitmq.log_events import LogEvents
from topicwarden_collectors.rabbitmq.log_facts import WITNESS_LENGTH
from topicwarden_collectors.rabbitmq.log_messages import (
    MAX_BODY_BYTES,
    LogJoiner,
    LogMessage,
    Undecodable,
    decode_log,
    parse_time,
)

CHUNK: Final = 1 << 16
GZIP_MAGIC: Final = b"\x1f\x8b"
_LINE: Final = re.compile(
    rb"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) \[([a-z]{3,9})\] (<\d+\.\d+\.\d+>) "
)
_BEFORE_3_9: Final = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[[a-z]{3,9}\] <\d+\.\d+\.\d+>")

LOG_BLIND_SPOTS: Final = (
    BlindSpot(
        "everything that was allowed: publishes, deliveries, subscriptions; the log has refusals and connections",
        "watch the broker with the plugin, or through its event and trace exchanges",
    ),
    BlindSpot(
        "the routing key of a publish that was refused for its exchange", "use the plugin, which records every attempt"
    ),
    BlindSpot(
        "user names of MQTT and STOMP clients that were refused nothing: the log has their addresses and client ids",
        "watch the broker's event exchange as well",
    ),
    BlindSpot(
        "which resource was refused, when names imitate the log's text: quotes in names are not escaped",
        "use the plugin; it does not mix names with text",
    ),
    BlindSpot("peer addresses of refused logins at the management API", "the management listener's own access log"),
    BlindSpot("AMQP 1.0 and stream clients: their messages are not read", None),
)
"""What no log of RabbitMQ's shows."""


def looks_like_log(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a log of RabbitMQ's, packed or plain: its own lines, or JSON."""
    if head.startswith(GZIP_MAGIC):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, CHUNK)
        except zlib.error:
            return False
    lines = head.split(b"\n")[:-1] or [head]
    if _LINE.match(lines[0]) is not None or _BEFORE_3_9.match(lines[0]) is not None:
        return True
    if not lines[0].startswith(b"{"):
        return False
    message = decode_log(lines[0])
    return isinstance(message, LogMessage) and re.fullmatch(r"<\d+\.\d+\.\d+>", message.pid, re.ASCII) is not None


def broker_name(path: Path) -> str:
    """Return a broker's name by its log: the file's name up to `.log`, which is the node's (`rabbit@host`)."""
    return path.name.partition(".log")[0] or path.name


def about_log(path: Path, options: SourceOptions) -> FileAbout:
    """Say what a log can and cannot show."""
    return FileAbout(f"RabbitMQ log {path}", options.broker or broker_name(path), LOG_BLIND_SPOTS)


def read_log(path: Path, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
    """Read a log to its end; raises ObservationError when it cannot be opened.

    Times carry their zone. Whatever cannot be read is counted and becomes a notice.
    """
    reader = _Reader(options.broker or broker_name(path), counters)
    splitter = LineSplitter()
    try:
        for data in _chunks(path):
            for line in splitter.feed(data):
                reader.line(line.raw)
                if reader.events.full and (batch := reader.events.take()) is not None:
                    yield batch
    except _DamagedError as error:
        counters.error("gzip")
        reader.events.gap(reader.time_ns, f"the compressed file is damaged: {error}")
    if splitter.rest:
        reader.give_up()
    reader.finish()
    if splitter.too_long:
        reader.events.error("line", reader.time_ns, "lines that are too long", splitter.too_long)
    if (batch := reader.events.take()) is not None:
        yield batch


class _Reader:
    """Puts lines together to messages."""

    def __init__(self, broker: str, counters: Counters) -> None:
        self.events = LogEvents(Tables(), broker, counters)
        self.time_ns = 0
        """Of the last message."""
        self._joiner = LogJoiner()
        self._prefix = b""
        self._lines: list[bytes] = []
        self._size = 0

    def line(self, raw: bytes) -> None:
        if raw.startswith(b"{"):
            self._end_message()
            self._json(raw)
            return
        match = _LINE.match(raw)
        if match is None:
            self._end_message()
            if raw.strip():
                self._stray(raw)
            return
        if match[0] != self._prefix or not self._lines:
            self._end_message()
            self._prefix = match[0]
        self._size += len(raw)
        # Crash reports are long; what is longer than any refusal is only counted, by its first lines.
        if self._size <= MAX_BODY_BYTES:
            self._lines.append(raw[match.end() :])

    def give_up(self) -> None:
        """Drop the message whose last line is not finished: cut in a name, it could be read as another one."""
        self._lines, self._size = [], 0
        self.events.error("line", self.time_ns, "the last line is not finished")

    def finish(self) -> None:
        self._end_message()
        self.events.add(self._joiner.flush())

    def _json(self, raw: bytes) -> None:
        message = decode_log(raw)
        if isinstance(message, Undecodable):
            self.events.error("line", self.time_ns, message.reason)
        else:
            self.events.lossy = False
            self._message(message)

    def _stray(self, raw: bytes) -> None:
        if _BEFORE_3_9.match(raw) is not None:
            why = "lines of RabbitMQ 3.8 or before, where a name can forge whole messages: not read"
        else:
            why = raw[:WITNESS_LENGTH].decode("utf-8", "surrogateescape")
        self.events.error("line", self.time_ns, why)

    def _end_message(self) -> None:
        if not self._lines:
            return
        lines, size = self._lines, self._size
        self._lines, self._size = [], 0
        match = _LINE.match(self._prefix)
        time_ns = None if match is None else parse_time(match[1].decode("ascii"))
        if match is None or time_ns is None:
            self.events.error("line", self.time_ns, "no such time")
            return
        if size > MAX_BODY_BYTES:
            self.events.error("message", time_ns, lines[0][:WITNESS_LENGTH].decode("utf-8", "surrogateescape"))
            return
        text = b"\n".join(lines).decode("utf-8", "surrogateescape")
        self.events.lossy = True
        self._message(LogMessage(time_ns, match[2].decode("ascii"), text, "", match[3].decode("ascii")))

    def _message(self, message: LogMessage) -> None:
        self.time_ns = message.time_ns
        self.events.add(self._joiner.feed(message))


class _DamagedError(Exception):
    """A compressed file ends early or is not what it says."""


def _chunks(path: Path) -> Iterator[bytes]:
    hint = "name a log file of RabbitMQ's; `rabbitmq-diagnostics log_location` prints where they are"
    try:
        # O_NONBLOCK: a pipe in the log's place must not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        what = f"the log cannot be read: {os.strerror(error.errno or 0)}"
        if isinstance(error, PermissionError):
            hint = "let this account read it, for example by adding it to the group rabbitmq"
        raise ObservationError(Problem(what, str(path), hint=hint)) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ObservationError(Problem("not a regular file", str(path), hint=hint))
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if not packed:
            while data := file.read(CHUNK):
                yield data
            return
        try:
            with gzip.open(file) as source:
                # read1: what was unpacked before the damage is given.
                while data := source.read1(CHUNK):
                    yield data
        except (OSError, EOFError, zlib.error) as error:
            raise _DamagedError(str(error)) from error
