"""The commands that a report prints, so that a reader sees the rows behind each number."""

from __future__ import annotations

import shlex
from typing import Final

from topicwarden.output import wording
from topicwarden.report.model import Period, Query

DAY_NS: Final = 86_400 * 10**9


def command(directory: str, period: Period, query: Query) -> str:
    """Return what a reader types to see the rows that a query gives."""
    words = ["topicwarden", "query", shlex.quote(directory)]
    if query.of_period:
        words += [] if period.open_start else ["--from", time_word(period.from_ns)]
        words += [] if period.open_end else ["--to", time_word(period.to_ns, end=True)]
    return " ".join([*words, f'"{query.sql}"'])


def time_word(time_ns: int, *, end: bool = False) -> str:
    """Return a time as `--from` and `--to` take it: a day where it is a whole one's beginning or end."""
    if (time_ns + 1 if end else time_ns) % DAY_NS == 0:
        return wording.timestamp(time_ns, 1)[:10]
    return wording.timestamp(time_ns, 6)
