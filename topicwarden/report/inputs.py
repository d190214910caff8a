"""What a report is made from, gathered by whoever runs the command; nothing in `report` reads a clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topicwarden.policy import Policy
from topicwarden.report.controls import Framework
from topicwarden.report.model import Integrity, PolicyFacts
from topicwarden.report.reading import Span
from topicwarden.report.scans import KeptScan
from topicwarden.store.model import Entry
from topicwarden.store.reader import Store


@dataclass(frozen=True, slots=True)
class Run:
    """A writer of the store: from when it began to the last that the log has of it."""

    opened: Entry
    last_ns: int


@dataclass(frozen=True, slots=True)
class GrantsRead:
    """The grants of one broker, as a scan found them: one made for the report, or the newest kept in the period."""

    title: str
    broker: str
    grants: int
    accounts: int
    undecided: int
    unused_known: bool
    """Whether they were compared with what was observed."""
    configuration: str = ""
    """What was named to be scanned."""
    judged: bool = True
    """Whether they were held against the report's policy; where it has none, against any."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a report is made from but the rows, which `Reading` has."""

    store: Store
    runs: Sequence[Run]
    entries: Sequence[Entry]
    """The log's entries but those of segments, as `read_log` keeps them."""
    span: Span
    now_ns: int
    version: str
    integrity: Integrity
    directory: str = "DIR"
    host: str | None = None
    open_start: bool = False
    """Whether nobody asked for a start: it is that of what the store has."""
    open_end: bool = False
    intended: Policy | None = None
    policy: PolicyFacts | None = None
    """Given whenever `intended` is."""
    grants: Sequence[GrantsRead] = ()
    grants_spots: Sequence[tuple[str, str, str | None]] = ()
    """What could not be read of the grants: title, what, what would help."""
    scanned: Sequence[Mapping[str, Any]] = ()
    """Documents of findings of that scan."""
    scanned_whole: bool = True
    """Whether it had room for all that it found."""
    frameworks: Sequence[Framework] = ()
    """Whose controls are judged; none: that is not done."""
    verified: bool | None = None
    """Whether the store was found unchanged; None: nobody looked at its rows."""
    previous: tuple[str, Mapping[str, Any]] | None = None
    """An earlier report's file and JSON form."""
    versions: Mapping[str, str] = field(default_factory=dict)
    allowed_gap_ns: int = 0
    """How long gaps may be, together, for a control to be satisfied all the same."""
    at_work: bool = False
    """Whether a writer has the store open: then the last run goes on, however long nothing happened."""

    @property
    def grants_read(self) -> bool:
        """Whether grants were read: for this report, or by a scan that was kept in its period."""
        return bool(self.grants)

    grants_told: bool = False
    """Whether the store has findings of scans."""
    scans: Sequence[KeptScan] = ()
    """Scans that were kept in the period."""
    hosts_watched: bool = False
