"""Entries of the store's log as the lines they are kept as."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from topicwarden.store.model import Entry, EntryKind, Kind, Part

MAX_LINE: Final = 1 << 20
"""Bytes of an entry; a segment with more parts is cut in two before."""
ENTRIES_A_FILE: Final = 1 << 16
_DIGEST: Final = re.compile("[0-9a-f]{64}")
# What `entry_line` writes and surely fits in 64 bits: who finds another form lets the JSON be read.
_NUMBER: Final = rb"(0|-?[1-8][0-9]{18}|-?[1-9][0-9]{0,17})"
_SEGMENT: Final = re.compile(
    rb'\{"index":%b,"kind":"segment","time_ns":%b,"segment":(0|[1-9][0-9]{0,17}),"parts":\[' % (_NUMBER, _NUMBER)
)
_PART: Final = re.compile(
    rb'\{"kind":"(%b)","broker":"([ !#-\[\]-~]*)","hour":%b,"rows":%b,"sha256":"([0-9a-f]{64})",'
    rb'"first_ns":%b,"last_ns":%b\}(?:,(?=\{)|\]\}\Z)' % ("|".join(Kind).encode(), _NUMBER, _NUMBER, _NUMBER, _NUMBER)
)


class LogDamageError(ValueError):
    """An entry that cannot be read; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"entry {line}: {what}")
        self.line = line
        self.what = what


class SegmentLine(NamedTuple):
    """A segment's entry, as far as whoever reads millions of them needs it at once."""

    entry: int
    """Its index."""
    time_ns: int
    segment: int
    parts: list[tuple[bytes, ...]]
    """Of each: kind, broker, hour, rows, digest, first and last time, as they are written."""


def entry_line(entry: Entry) -> bytes:
    """Return an entry's line without the line feed: the leaf's data. The keys' order is part of the format."""
    row: dict[str, Any] = {"index": entry.index, "kind": entry.kind.value, "time_ns": entry.time_ns}
    if entry.segment is not None:
        row["segment"] = entry.segment
    if entry.parts:
        row["parts"] = [
            {
                "kind": part.kind.value,
                "broker": part.broker,
                "hour": part.hour,
                "rows": part.rows,
                "sha256": part.digest,
                "first_ns": part.first_ns,
                "last_ns": part.last_ns,
            }
            for part in entry.parts
        ]
    if entry.facts:
        row["facts"] = entry.facts
    # Not ASCII only where it must be: a lone surrogate of a broker's name stays an escape.
    return json.dumps(row, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def entry_from_line(line: bytes, number: int) -> Entry:
    """Read an entry; `number` is its line, from 1. Raises LogDamageError, also when it is another's."""
    entry = parsed_entry(line, number)
    if entry.index != number - 1:
        raise LogDamageError(number, f"its index is {entry.index}, not {number - 1}: entries are missing or were moved")
    return entry


def parsed_entry(line: bytes, number: int) -> Entry:
    """Read an entry, whatever its index; raises LogDamageError."""
    segment = segment_line(line)
    if segment is not None:
        parts = tuple(_plain_part(*part) for part in segment.parts)
        return Entry(segment.entry, EntryKind.SEGMENT, segment.time_ns, segment.segment, parts)
    try:
        row = json.loads(line)
        return Entry(
            index=_whole(row["index"]),
            kind=EntryKind(row["kind"]),
            time_ns=_whole(row["time_ns"]),
            segment=None if row.get("segment") is None else _count(row["segment"]),
            parts=tuple(_part(part) for part in row.get("parts", ())),
            facts=_facts(row.get("facts")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogDamageError(number, f"not an entry of the log ({error!r})") from error


def segment_line(line: bytes) -> SegmentLine | None:
    """Read a segment's entry in the form that is usual: several times as fast as JSON; None: it has another form."""
    head = _SEGMENT.match(line)
    if head is None:
        return None
    index, time_ns, segment = head.groups()
    parts = []
    place = head.end()
    while place < len(line):
        part = _PART.match(line, place)
        if part is None:
            return None
        parts.append(part.groups())
        place = part.end()
    return SegmentLine(int(index), int(time_ns), int(segment), parts) if parts else None


def _plain_part(kind: bytes, broker: bytes, hour: bytes, rows: bytes, digest: bytes, first: bytes, last: bytes) -> Part:
    name, of = _KINDS[kind], broker.decode("ascii")
    return Part(name, of, int(hour), int(rows), digest.decode("ascii"), int(first), int(last))


_KINDS: Final = {kind.value.encode(): kind for kind in Kind}


def _part(row: Mapping[str, Any]) -> Part:
    digest = row["sha256"]
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None or not isinstance(row["broker"], str):
        raise TypeError("a part's digest is 64 hex digits, its broker text")
    return Part(
        Kind(row["kind"]),
        row["broker"],
        _whole(row["hour"]),
        _whole(row["rows"]),
        digest,
        _whole(row["first_ns"]),
        _whole(row["last_ns"]),
    )


def _facts(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError("facts are an object")
    return value


def _count(value: Any) -> int:
    if _whole(value) < 0:
        raise ValueError(f"{value} is no number of a segment")
    return int(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number that does not fit in 64 bits")
    return value
