"""Cuts a log into lines: on line feeds only, never on what else Unicode calls a line break."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_LINE_BYTES: Final = 1 << 16
"""A longer line is no broker's (999 bytes are the most Mosquitto writes); it is dropped and counted."""


class Line(NamedTuple):
    """One line, without its line feed."""

    raw: bytes
    begin: int
    """Bytes fed before it."""
    level: str | None = None
    """The log type, when a `$SYS/broker/log` topic gave it; then the line may hold line feeds."""


class LineSplitter:
    """Keeps the unfinished last line until it is completed, up to `MAX_LINE_BYTES` of it."""

    def __init__(self) -> None:
        self.offset = 0
        """Bytes fed before the unfinished line."""
        self.too_long = 0
        """Lines dropped for their length."""
        self.rest = b""
        """The unfinished line; empty while a line that is too long goes on."""
        self._dropped = 0
        """Bytes of the unfinished line dropped so far."""

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines these bytes complete."""
        first, *others = data.split(b"\n")
        if not others:
            self._keep(first)
            return []
        lines = []
        self._keep(first)
        begin = self.offset
        if self._dropped:
            begin += self._dropped + 1
        else:
            lines.append(Line(self.rest, begin))
            begin += len(self.rest) + 1
        self.rest, self._dropped = b"", 0
        last = others.pop()
        for raw in others:
            if len(raw) > MAX_LINE_BYTES:
                self.too_long += 1
            else:
                lines.append(Line(raw, begin))
            begin += len(raw) + 1
        self.offset = begin
        self._keep(last)
        return lines

    @property
    def fed(self) -> int:
        """Bytes fed so far."""
        return self.offset + len(self.rest) + self._dropped

    def drop_rest(self) -> None:
        """Give the unfinished line up; what is fed next begins a new one."""
        self.offset += len(self.rest) + self._dropped
        self.rest, self._dropped = b"", 0

    def _keep(self, data: bytes) -> None:
        if self._dropped:
            self._dropped += len(data)
        elif len(self.rest) + len(data) > MAX_LINE_BYTES:
            self._dropped = len(self.rest) + len(data)
            self.rest = b""
            self.too_long += 1
        else:
            self.rest += data
