"""What the decoders share: bytes cut into lines on line feeds only, and JSON objects out of lines."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from topicwarden.events import HostEvent
from topicwarden.sources import Counters

MAX_LINE_BYTES: Final = 4 << 20
"""A longer line is dropped and counted: a command line has at most 2 MiB on Linux, seldom twice that in JSON."""
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class LineSplitter:
    """Keeps the unfinished last line until it is completed, up to `MAX_LINE_BYTES` of it."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self.too_long = 0
        """Lines dropped for their length."""
        self.fed = 0
        """Bytes fed so far."""
        self.unfinished = 0
        """Bytes of the last line, which has no line feed yet."""
        self._limit = limit
        self._rest: list[bytes] = []
        self._length = 0
        self._dropping = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines these bytes complete, without their line feeds. Exhaust it before the next call."""
        self.fed += len(data)
        last = data.rfind(b"\n")
        self.unfinished = self.unfinished + len(data) if last < 0 else len(data) - last - 1
        start = 0
        if self._rest or self._dropping:
            end = data.find(b"\n")
            if end < 0:
                self._keep(data)
                return
            self._keep(data[:end])
            start = end + 1
            if not self._dropping:
                yield self._take()
            self._dropping = False
        lines = data[start:].split(b"\n")
        self._keep(lines.pop())
        for line in lines:
            if len(line) > self._limit:
                self.too_long += 1
            else:
                yield line

    def finish(self) -> Iterator[bytes]:
        """Yield the last line when it has no line feed."""
        if self._rest:
            yield self._take()
        self._dropping = False
        self.unfinished = 0

    def drop_rest(self) -> None:
        """Give the unfinished line up; what is fed next begins a new one."""
        self._rest, self._length, self._dropping = [], 0, False
        self.unfinished = 0

    def _keep(self, data: bytes) -> None:
        if self._dropping or not data:
            return
        if self._length + len(data) > self._limit:
            self._rest, self._length, self._dropping = [], 0, True
            self.too_long += 1
        else:
            self._rest.append(data)
            self._length += len(data)

    def _take(self) -> bytes:
        line = b"".join(self._rest)
        self._rest, self._length = [], 0
        return line


class LineDecoder(ABC):
    """A decoder of a log of lines; raises nothing, whatever the log holds."""

    has_head = False
    """Whether the log begins with lines, starting with `#`, that the others cannot be read without."""

    def __init__(self, counters: Counters, *, host: str | None = None) -> None:
        """`host` is the name of the machine whose log it is; the log's own word for it comes first."""
        self.counters = counters
        self.host = host or ""
        self._splitter = LineSplitter()

    @property
    def fed(self) -> int:
        """Bytes fed so far."""
        return self._splitter.fed

    @property
    def unfinished(self) -> int:
        """Bytes of the last line that has no end yet."""
        return self._splitter.unfinished

    @property
    def waiting(self) -> int:
        """Events that wait for lines after theirs."""
        return 0

    def drop_rest(self) -> None:
        """Give the unfinished line up: the log goes on elsewhere."""
        self._splitter.drop_rest()

    def settle(self) -> Iterator[HostEvent]:
        """Yield what waits, with what there is of it; lines that come late for it are known to be."""
        for event in self._waiting():
            self.counters.events += 1
            yield event

    def feed(self, data: bytes) -> Iterator[HostEvent]:
        """Add bytes of the log, cut anywhere, and yield the events they complete. Exhaust it before the next call."""
        for line in self._splitter.feed(data):
            for event in self._line(line):
                self.counters.events += 1
                yield event
        self._count_too_long()

    def finish(self) -> Iterator[HostEvent]:
        """Yield what waits: nothing more will come."""
        for line in self._splitter.finish():
            for event in self._line(line):
                self.counters.events += 1
                yield event
        self._count_too_long()
        for event in self._rest():
            self.counters.events += 1
            yield event

    @abstractmethod
    def _line(self, line: bytes) -> Iterable[HostEvent]:
        """Return the events that a line completes."""

    def _waiting(self) -> Iterable[HostEvent]:
        """Return the events that wait, to be handed out as they are."""
        return ()

    def _rest(self) -> Iterable[HostEvent]:
        """Return the events that wait for lines that will not come."""
        return ()

    def _count_too_long(self) -> None:
        if self._splitter.too_long:
            self.counters.error("too_long", self._splitter.too_long)
            self._splitter.too_long = 0


def json_object(line: bytes) -> Mapping[str, Any] | None:
    """Return the JSON object that a line is, else None; bytes that are not UTF-8 become lone surrogates.

    Lone surrogates that JSON itself spells become U+FFFD: so every text can be encoded again with `surrogateescape`.
    """
    try:
        value = json.loads(line.decode("utf-8", "surrogateescape"))
        if b"\\u" in line and _SURROGATE_ESCAPE.search(line) is not None:
            value = _without_lone(value)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _without_lone(value: object) -> object:
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_lone(key): _without_lone(inner) for key, inner in value.items()}
    return [_without_lone(inner) for inner in value] if isinstance(value, list) else value


def text_of(value: object) -> str | None:
    """Return a JSON value that is a text, or the first of a list of texts, else None; '' is None."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value else None


def number_of(value: object) -> int | None:
    """Return a JSON value that is a whole number of at most 64 bits, also written as text, else None."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str) and 0 < len(value) <= 20 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        return None
    return value
