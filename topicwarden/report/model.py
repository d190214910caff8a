"""What a report holds: facts, figures and tables, each with the query that gives the rows behind it.

Nothing here reads or writes; `build` fills it, and each format is a rendering of the same model. All text in it may be
hostile: names are kept as they are, and every renderer escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from topicwarden.output import wording
from topicwarden.report.controls import ControlResult
from topicwarden.report.coverage import Coverage

FORMAT: Final = 1
"""Version of the report's JSON form; `--previous` refuses a newer one."""

Cell = str | int | float | None | tuple[str, ...]
"""What stands in a table: text, several texts, a number, a time in nanoseconds, or None: not known."""


class Kind(StrEnum):
    """What a column holds, which says how it is shown and sorted."""

    TEXT = "text"
    """Our own words."""
    NAME = "name"
    """A name of a client, topic, broker …: hostile."""
    NAMES = "names"
    NUMBER = "number"
    TIME = "time"
    """Nanoseconds since the epoch, UTC."""
    DAY = "day"
    """A day as `2027-06-30`."""
    SEVERITY = "severity"
    STATUS = "status"
    TEXTS = "texts"
    SAID = "said"
    """A sentence with names in it that are fit for people already."""
    SAID_ALL = "said-all"
    FINDING = "finding"
    """A fingerprint."""
    FINDINGS = "findings"
    COMMAND = "command"


def clock(time_ns: int) -> str:
    """Return a time, UTC, as people read it: `2026-11-28 20:15:30`, with milliseconds where there are any."""
    return wording.timestamp(time_ns).replace("T", " ").removesuffix("Z").removesuffix(".000")


@dataclass(frozen=True, slots=True)
class Query:
    """What a reader asks the store to see the rows behind a number."""

    sql: str
    """Without double quotes, dollars, backticks and backslashes: it stands in double quotes in a shell."""
    of_period: bool = True
    """Whether it is to be asked of the report's period only; of findings it is not, whose time is a span."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    key: str
    title: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind, at most so many that a reader and a browser can take them."""

    id: str
    """Its anchor, and the name of its CSV file; lower-case words with hyphens."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: int
    """Rows there are; more than `rows` when it was cut."""
    query: Query | None = None
    """Gives all of the rows; None: they do not come from the store's rows."""
    note: str | None = None
    """How to read it."""
    empty: str = "None."
    """What is said when there are no rows."""

    @property
    def more(self) -> int:
        """Rows that are not shown."""
        return self.total - len(self.rows)

    def column(self, key: str) -> list[Cell]:
        """Return the cells of one column; raises KeyError when there is none."""
        for number, column in enumerate(self.columns):
            if column.key == key:
                return [row[number] for row in self.rows]
        raise KeyError(key)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number a reader takes away, and the way to what it counts."""

    id: str
    label: str
    value: int | None
    """None: it was not looked at, and `note` says why."""
    table: str | None = None
    """The table with the rows behind it."""
    query: Query | None = None
    """Gives the number itself."""
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """The time the report is about, both ends included."""

    from_ns: int
    to_ns: int
    first_ns: int | None
    """The first event in it; None: there is none."""
    last_ns: int | None
    open_start: bool = False
    """Whether nobody asked for the start: it is that of what the store has."""
    open_end: bool = False


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store the report is made from."""

    id: str
    created_ns: int
    sealed: int
    """Segments that are sealed."""
    writers: int
    """How many times a writer began."""


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """The policy everything was held against."""

    file: str
    sha256: str
    roles: int
    permissions: int
    exceptions: int
    recorded: tuple[str, ...] = ()
    """SHA-256 of the policies that the writers of the store judged by in the period, as far as they say so."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One of the six differences between the sets."""

    number: int
    """1 to 6: its mark in the picture."""
    name: str
    """In the design's words: `granted − intended`."""
    reads_as: str
    figure: Figure
    """Open findings."""
    occurrences: int


@dataclass(frozen=True, slots=True)
class Sets:
    """Granted, observed and intended, and how they differ."""

    granted: Figure
    observed: Figure
    intended: Figure
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """A process behind a finding."""

    host: str
    user: str | None
    command: str
    """As a person would type it, without secrets."""
    parent: str | None
    sureness: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportFinding:
    """A cause, with everything that was said of it in the period."""

    fingerprint: str
    code: str
    name: str
    severity: str
    title: str
    """Fit for people already: names in it are escaped."""
    broker: str
    host: str | None
    client: Mapping[str, Any] | None
    count: int
    certainty: str
    first_ns: int
    last_ns: int
    runs: int
    """Runs that told of it."""
    witnesses: tuple[tuple[str, int], ...]
    more_witnesses: int
    evidence: Mapping[str, str | int | float | None]
    behind: tuple[Behind, ...]
    more_behind: int
    accepted: str | None
    difference: str
    meaning: str
    why: str
    fix: str
    limits: tuple[str, ...]
    attack: tuple[str, ...]
    controls: Mapping[str, tuple[str, ...]]
    gap_ns: tuple[int, int] | None = None
    """From when to when, of a finding that only repeats a gap in the store's log."""

    @property
    def who(self) -> str:
        """The user, else the client id, else whoever has the grant, else the host or broker it is about."""
        if self.client is not None:
            name = self.client.get("user")
            if isinstance(name, str):
                return name
            identifier = self.client.get("client_id")
            if isinstance(identifier, str) and identifier:
                return identifier
            return "(no user, no client id)"
        holder = self.evidence.get("holder")
        if isinstance(holder, str):
            return holder
        return self.host if self.host is not None else self.broker


@dataclass(frozen=True, slots=True)
class Integrity:
    """What the store's log commits to, and what the report itself has checked of it."""

    origin: str
    key: str
    """The public key, as `NAME+HASH+KEY`."""
    checkpoint: str | None
    """The newest checkpoint, word for word; None: there is none."""
    size: int
    """Entries it commits to."""
    entries: int
    """Entries in the log now."""
    verdict: str
    """What was checked and came of it, in a sentence."""
    holds: bool
    signed_ns: int | None


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter, in the order of the report."""

    id: str
    title: str
    intro: tuple[str, ...] = ()
    """Paragraphs, our own words."""
    warnings: tuple[str, ...] = ()
    """What must not be read over."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values; the values may be hostile."""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report. Sections have ids that never change: renderers add their pictures by them."""

    generated_ns: int
    version: str
    host: str | None
    """The machine that made it; None in tests and where it is to be the same everywhere."""
    period: Period
    store: StoreFacts
    policy: PolicyFacts | None
    grants_read: bool
    sets: Sets
    sections: tuple[Section, ...]
    findings: tuple[ReportFinding, ...]
    """Gravest first, at most `MAX_FINDINGS`."""
    findings_total: int
    integrity: Integrity
    controls: tuple[ControlResult, ...] = ()
    coverage: Coverage | None = None
    """What controls were judged by."""
    directory: str = "DIR"
    """The store's folder, as printed commands name it."""
    versions: Mapping[str, str] = field(default_factory=dict)

    def tables(self) -> Iterator[Table]:
        """Yield every table, in order."""
        for section in self.sections:
            yield from section.tables

    def figures(self) -> Iterator[Figure]:
        """Yield every figure, in order."""
        yield self.sets.granted
        yield self.sets.observed
        yield self.sets.intended
        for difference in self.sets.differences:
            yield difference.figure
        for section in self.sections:
            yield from section.figures

    def table(self, table_id: str) -> Table:
        """Return a table; raises KeyError when there is none."""
        for table in self.tables():
            if table.id == table_id:
                return table
        raise KeyError(table_id)

    def section(self, section_id: str) -> Section:
        """Return a section; raises KeyError when there is none."""
        for section in self.sections:
            if section.id == section_id:
                return section
        raise KeyError(section_id)
