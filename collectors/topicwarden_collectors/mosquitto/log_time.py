"""Timestamps of Mosquitto log lines: found out from the first lines, then required of every line.

Mosquitto 2.0 and 2.1 write `SECONDS: ` by default, `log_timestamp_format` (strftime) plus `: ` when that is set, and
nothing with `log_timestamp false`. syslog and journald put their own prefix before that. The resolution is one second
in every form but syslog's ISO one, and it is left at that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

SECOND: Final = 1_000_000_000
LAST_SECOND: Final = (1 << 63) // SECOND - 1
"""The last whole second an int64 of nanoseconds can hold (year 2262)."""
MAX_STRAY_LINES: Final = 32
"""Lines in a row that are not in the format found, but all in another one, before that one is taken instead."""

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}
_ISO: Final = rb"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))? ?(Z|[+-]\d\d:?\d\d)?"
_NO_YEAR: Final = rb"([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)"
_PROGRAM: Final = rb" \S+ [^ :\[\]]*mosquitto[^ :\[\]]*(?:\[\d+\])?: "
"""Host name, program and process id, as syslog and journald write them; other programs' lines do not match."""


def _read_epoch(match: re.Match[bytes], zone: tzinfo | None, base_ns: int) -> int | None:  # noqa: ARG001 - one signature
    seconds = int(match[1])
    return seconds * SECOND if seconds <= LAST_SECOND else None


def _read_iso(match: re.Match[bytes], zone: tzinfo | None, base_ns: int) -> int | None:  # noqa: ARG001 - one signature
    offset = match[8]
    if offset == b"Z":
        zone = UTC
    elif offset:
        minutes = int(offset[1:3]) * 60 + int(offset[-2:])
        if minutes >= 24 * 60:
            return None
        zone = timezone(timedelta(minutes=-minutes if offset[:1] == b"-" else minutes))
    fraction = int((match[7] or b"0").ljust(9, b"0"))
    return _to_ns([int(match[i]) for i in range(1, 7)], zone, fraction)


def _read_day_first(match: re.Match[bytes], zone: tzinfo | None, base_ns: int) -> int | None:  # noqa: ARG001 - one signature
    return _to_ns([int(match[i]) for i in (3, 2, 1, 4, 5, 6)], zone)


def _read_no_year(match: re.Match[bytes], zone: tzinfo | None, base_ns: int) -> int | None:
    """Take the latest year that does not put the time more than a day after the base."""
    month = _MONTHS.get(match[1])
    if month is None:
        return None
    rest = [int(match[i]) for i in range(2, 6)]
    latest = datetime.fromtimestamp(min(base_ns // SECOND, LAST_SECOND), UTC).year + 1
    for year in range(latest, latest - 9, -1):  # nine: 29 February may be eight years off
        time_ns = _to_ns([year, month, *rest], zone)
        if time_ns is not None and time_ns <= base_ns + 86_400 * SECOND:
            return time_ns
    return None


def _to_ns(parts: list[int], zone: tzinfo | None, fraction: int = 0) -> int | None:
    """Return nanoseconds since the epoch of year, month, day, hour, minute, second; None when there is no such time.

    A time that a clock change makes ambiguous is read as the earlier one.
    """
    year, month, day, hour, minute, second = parts
    try:
        seconds = int(datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone).timestamp())
    except (ValueError, OverflowError, OSError):
        return None
    return seconds * SECOND + fraction if 0 <= seconds < LAST_SECOND else None


@dataclass(frozen=True, slots=True)
class _Stamp:
    """One way to write a time."""

    pattern: re.Pattern[bytes]
    read: Callable[[re.Match[bytes], tzinfo | None, int], int | None]


_OUTER: Final[tuple[_Stamp | None, ...]] = (
    None,
    _Stamp(re.compile(_ISO + _PROGRAM), _read_iso),
    _Stamp(re.compile(rb"(?:<\d{1,3}>)?" + _NO_YEAR + _PROGRAM), _read_no_year),
)
"""What syslog or journald put before the broker's text."""
_INNER: Final[tuple[_Stamp | None, ...]] = (
    _Stamp(re.compile(rb"(\d{1,10}): "), _read_epoch),
    _Stamp(re.compile(_ISO + rb": "), _read_iso),
    _Stamp(re.compile(rb"(\d\d)\.(\d\d)\.(\d{4}) (\d\d):(\d\d):(\d\d): "), _read_day_first),
    _Stamp(re.compile(_NO_YEAR + rb": "), _read_no_year),
    None,
)
"""What the broker put before its message."""


@dataclass(frozen=True, slots=True)
class _Format:
    outer: _Stamp | None
    inner: _Stamp | None

    def split(self, line: bytes, zone: tzinfo | None, base_ns: int) -> tuple[int, int, int] | None:
        """Return time, where the broker's own text begins, where its message begins; None when it does not fit."""
        start, time_ns = 0, base_ns
        if self.outer is not None:
            match = self.outer.pattern.match(line)
            read = self.outer.read(match, zone, base_ns) if match else None
            if match is None or read is None:
                return None
            start, time_ns = match.end(), read
        if self.inner is None:
            return time_ns, start, start
        match = self.inner.pattern.match(line, start)
        read = self.inner.read(match, zone, base_ns) if match else None
        # The broker's own clock wins over syslog's.
        return None if match is None or read is None else (read, start, match.end())


_FORMATS: Final = tuple(_Format(outer, inner) for outer in _OUTER for inner in _INNER)
_BARE: Final = _Format(None, None)


class LogClock:
    """Splits lines into time and message by the one format this log has.

    `looks_right(message)` says whether a message is one Mosquitto writes; only such a line decides on the format. Once
    decided, a line in any other format is not the broker's: that is what makes a line break inside a name harmless in
    most logs.
    """

    def __init__(self, zone: tzinfo | None, base_ns: int, looks_right: Callable[[bytes], object]) -> None:
        self.zone = zone
        """Zone of stamps that carry none; None: this machine's local time."""
        self.base_ns = base_ns
        """The time of lines that have none, and what a missing year is guessed from."""
        self._looks_right = looks_right
        self._format: _Format | None = None
        self._stray = 0
        self._last = _NO_PREFIX

    @property
    def stamped(self) -> bool | None:
        """Whether lines carry a time; None as long as no line has told."""
        return None if self._format is None else self._format != _BARE

    @property
    def shared(self) -> bool:
        """Whether other programs write to the same log (syslog, journald)."""
        return self._format is not None and self._format.outer is not None

    def forget(self) -> None:
        """Find the format out anew, as after a reload that may have changed it."""
        self._format = None
        self._stray = 0
        self._last = _NO_PREFIX

    def split(self, line: bytes) -> tuple[int, int, int] | None:
        """Return the line's time, where the broker's text begins (after syslog's prefix) and where its message begins.

        None when the line is not in this log's format.
        """
        prefix, time_ns, start = self._last
        if line.startswith(prefix):
            return time_ns, start, len(prefix)
        if self._format is None:
            first = next(self._fitting(line), None)
            if first is None:
                return None
            self._format, fitted = first
            return fitted
        found = self._format.split(line, self.zone, self.base_ns)
        if found is not None and self._format != _BARE:
            self._stray = 0
            self._last = (line[: found[2]], found[0], found[1])
        return found

    def confirm(self) -> None:
        """Note that a line in this format was one of the broker's."""
        self._stray = 0

    def reconsider(self, line: bytes) -> tuple[int, int, int] | None:
        """Take another format when this line, which does not fit, shows that the log has changed; else None.

        A broker that starts may well have another configuration than the one before. Otherwise it takes many lines in
        a row, so that no client can blind us by naming itself like a stamped line.
        """
        for format_, found in self._fitting(line):
            if format_ == self._format:
                continue
            self._stray += 1
            starts = self._format != _BARE and _STARTING.fullmatch(line, found[2])
            if starts or self._stray >= MAX_STRAY_LINES:
                self._format, self._stray, self._last = format_, 0, _NO_PREFIX
                return found
            return None
        return None

    def _fitting(self, line: bytes) -> Iterator[tuple[_Format, tuple[int, int, int]]]:
        for format_ in _FORMATS:
            found = format_.split(line, self.zone, self.base_ns)
            if found is not None and self._looks_right(line[found[2] :]):
                yield format_, found


_STARTING: Final = re.compile(rb"mosquitto version \S{1,40} starting")
_NO_PREFIX: Final = (b"\n", 0, 0)
"""A prefix no line has."""
