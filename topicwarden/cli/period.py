"""The period that `--from` and `--to` name, and lengths of time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from topicwarden.errors import ConfigurationError, Problem

_LENGTH: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) *(ms|s|min|h|d|w|y)")
_MILLISECONDS: Final = {
    "ms": 1,
    "s": 1000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 366 * 86_400_000,
}
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HINT: Final = "such as 2026-11-28, 2026-11-28T20:15 or 2026-11-28T20:15:30.5+01:00; UTC where no zone is given"
_EARLIEST: Final = -(1 << 63)
_LATEST: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when, both ends included; None: open."""

    first_ns: int | None = None
    last_ns: int | None = None


def period_named(first: str | None, last: str | None) -> Period:
    """Return the period; a date alone stands for its whole day. Raises ConfigurationError for what is no time."""
    found = Period(
        None if first is None else _nanoseconds("--from", first, end=False),
        None if last is None else _nanoseconds("--to", last, end=True),
    )
    if found.first_ns is not None and found.last_ns is not None and found.first_ns > found.last_ns:
        raise ConfigurationError(Problem(f"--from {first!r} is after --to {last!r}", hint="the other way round?"))
    return found


def moment_named(option: str, text: str) -> int:
    """Return the time that an option names, nanoseconds since the epoch; raises ConfigurationError for what is none."""
    return _nanoseconds(option, text, end=False)


def length_named(option: str, text: str) -> int:
    """Return the length of time that an option names, in nanoseconds; raises ConfigurationError for what is none."""
    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(
            Problem(f"{option} {text!r} is no length of time", hint="such as 0s, 2.5s, 10min, 8h or 1d")
        )
    return min(int(Decimal(found[1]) * _MILLISECONDS[found[2]] * 1_000_000), _LATEST)


def _nanoseconds(option: str, text: str, *, end: bool) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(Problem(f"{option} {text!r} is no date or time", hint=_HINT)) from error
    ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    if end and _DATE.fullmatch(text.strip()):
        ns += 86_400_000_000_000 - 1
    # Whoever writes the year 9999 means: for ever.
    return min(max(ns, _EARLIEST), _LATEST)
