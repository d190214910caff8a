"""What a store is made of: segments of rows, and the log of what was sealed, lost and retired.

    DIR/store.json                                  format, identity and public key of the store
    DIR/lock                                        held by the one writer
    DIR/log/entries-FIRST.jsonl                     the log: one entry a line, only ever appended to
    DIR/log/entries-FIRST.jsonl.gz                  a full file of it, compressed
    DIR/log/entries-FIRST.summary                   what was derived from a full file, signed; can be deleted
    DIR/log/checkpoint                              the newest signed checkpoint (C2SP tlog-checkpoint)
    DIR/log/checkpoints/SIZE                        earlier ones
    DIR/events/broker=NAME/hour=YYYYMMDDTHH/FIRST-LAST.parquet
    DIR/clients|resources/hour=…/FIRST-LAST.parquet what the numbers in `events` stand for
    DIR/notices|changes|hosts|findings/hour=…/FIRST-LAST.parquet

FIRST and LAST are the numbers of the segments whose rows a file holds; every row carries its segment's number. A
segment is what was written at once (under a second): its entry in the log has a digest of the *content* of each of its
parts, not of files, so files may be merged (compaction) and everything still be verified, row for row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

FORMAT: Final = 2
"""Version of all of the above; a store of a newer one is refused. Of format 1, the log stays as it was written."""
PACKED_FORMAT: Final = 2
"""The first one whose log has compressed files and summaries."""


class Kind(StrEnum):
    """A class of rows, kept and retired by itself."""

    EVENTS = "events"
    CLIENTS = "clients"
    RESOURCES = "resources"
    NOTICES = "notices"
    CHANGES = "changes"
    HOSTS = "hosts"
    FINDINGS = "findings"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one kind, broker and hour in a segment."""

    kind: Kind
    broker: str
    """The broker of `events`; '' for all other kinds."""
    hour: int
    """Hours since the epoch, of the rows' times (for clients and resources: of the events that need them)."""
    rows: int
    digest: str
    """SHA-256 of the rows' content in canonical form, 64 hex digits."""
    first_ns: int
    last_ns: int


class EntryKind(StrEnum):
    """What an entry of the log says."""

    OPENED = "opened"
    """A writer began: when, which version, what it watches."""
    SEGMENT = "segment"
    """Rows were sealed."""
    GAP = "gap"
    """Rows are missing: a writer died before it sealed them, or could not keep up or write."""
    RETIRED = "retired"
    """Parts were deleted by a rule of retention."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of the log. Its line's bytes, without the line feed, are what is hashed (RFC 9162, section 2.1.1)."""

    index: int
    kind: EntryKind
    time_ns: int
    """When it was written, by the writer's clock, which may jump."""
    segment: int | None = None
    """The segment's number; of other entries the newest segment's, None when there is none yet."""
    parts: Sequence[Part] = ()
    facts: Mapping[str, Any] | None = None
    """What else the kind of entry has: `reason`, `lost`, `from_ns`, `until_ns`, `segments` …"""
