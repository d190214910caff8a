"""Times of logs as nanoseconds since the epoch."""

from __future__ import annotations

import calendar
import re
from functools import lru_cache
from typing import Final

_ISO: Final = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?\s?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
MAX_SECONDS: Final = 1 << 33
"""Seconds since the epoch, in the year 2242; a later time is a mistake and would not fit 64 bits of nanoseconds."""


def iso_time(text: str) -> int | None:
    """Return nanoseconds of an RFC 3339 time (also with a space, or a zone without colon); no zone is UTC."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    minute, second, fraction, zone = match.groups()
    start = _minute(minute, zone)
    if start is None or not 0 <= start <= MAX_SECONDS:
        return None
    return (start + int(second)) * 10**9 + (int(fraction.ljust(9, "0")) if fraction else 0)


@lru_cache(maxsize=256)
def _minute(text: str, zone: str | None) -> int | None:
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    hour, minute = int(text[11:13]), int(text[14:16])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and year >= 1):
        return None
    seconds = calendar.timegm((year, month, day, hour, minute, 0))
    if zone is not None and zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        seconds += -offset if zone[0] == "+" else offset
    return seconds


def epoch_time(value: object) -> int | None:
    """Return nanoseconds of a time as Zeek writes it: seconds with up to microseconds, or an RFC 3339 text."""
    if isinstance(value, str):
        try:
            seconds = float(value)
        except ValueError:
            return iso_time(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        return None
    return round(seconds * 1e6) * 1000 if 0 <= seconds <= MAX_SECONDS else None
