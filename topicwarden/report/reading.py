"""What a report needs of a store's rows, through the documented views."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Self

import pyarrow as pa

from topicwarden.output import wording
from topicwarden.report.findings import SEVERITIES
from topicwarden.report.model import Query
from topicwarden.store.reader import Store
from topicwarden.store.views import Scope, Views, failures

NANOSECONDS: Final = 1_000_000_000
MAX_ROWS: Final = 500
"""Rows of a table; more are counted, and the query beside it gives them all."""
MAX_FINDINGS: Final = 5_000
"""Findings that are read whole; of the others only the numbers are known."""
MAX_STEPS: Final = 62
"""Bars over time: a month of days fits, and a year of weeks."""
_STEPS: Final = tuple(
    seconds * NANOSECONDS
    for seconds in (1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86_400, 7 * 86_400, 28 * 86_400, 364 * 86_400)
)
_LONGEST: Final = 364 * 86_400 * NANOSECONDS * 20
"""A step for times so long that even years are too many."""
_EARLIEST: Final = -(1 << 63) + 2
_LATEST: Final = (1 << 63) - 2
"""The ends of what DuckDB takes for a time."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in nanoseconds since the epoch, both ends included."""

    from_ns: int
    to_ns: int

    @property
    def step(self) -> int:
        """The length of a step for charts: a round one, at most `MAX_STEPS` of which touch the time."""
        length = self.to_ns - self.from_ns + 1
        return next((step for step in _STEPS if length <= step * (MAX_STEPS - 1)), _LONGEST)

    @property
    def step_said(self) -> str:
        """The length of a step in words: `15 min`, `7 days`."""
        seconds = self.step // NANOSECONDS
        unit, length = next(
            one for one in (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1)) if seconds % one[1] == 0
        )
        return wording.counted(seconds // length, unit) if unit == "day" else f"{seconds // length} {unit}"

    def steps(self) -> list[int]:
        """Return when each step begins; the first one may begin before the time does."""
        step = self.step
        return [number * step for number in range(self.from_ns // step, self.to_ns // step + 1)]


@dataclass(frozen=True, slots=True)
class Totals:
    """How many findings there are of one kind."""

    code: str
    name: str
    severity: str
    difference: str
    accepted: bool
    findings: int
    occurrences: int


class Reading:
    """Reads one period of a store; a context manager."""

    def __init__(self, store: Store, span: Span, told: Callable[[Reading], None] = lambda _: None) -> None:
        """Raises ObservationError when the store cannot be read; `told` is called before anything is read."""
        self.span = Span(max(span.from_ns, _EARLIEST), min(span.to_ns, _LATEST))
        with ExitStack() as opened:
            self._seen = opened.enter_context(Views(store, Scope(self.span.from_ns, self.span.to_ns)))
            self._all = opened.enter_context(Views(store))
            told(self)
            # Every list of clients and names is made of these: they are read once.
            for name in ("stored.uses", "main.clients", "main.topics"):
                self._materialise(self._seen, name)
            self._run(f"CREATE TEMP TABLE found AS {_found(self.span)}")
            self._run("CREATE TEMP TABLE gone AS FROM found LIMIT 0")
            self._run("CREATE TEMP TABLE fresh (document VARCHAR, now_ns BIGINT)")
            self.unreadable = int(self.found(f"select count(*) from found where {_DAMAGED}")[0][0])  # noqa: S608
            """Stored findings that say too little of themselves to be counted with others."""
            self._run(f"DELETE FROM found WHERE {_DAMAGED}")  # noqa: S608 - words of ours
            self._opened = opened.pop_all()
        self._superseded: str | None = None

    def kept(self, runs: Iterable[int]) -> dict[int, int]:
        """Return how many findings some writers kept, by the number of the run."""
        numbers = ", ".join(map(str, runs))
        if not numbers:
            return {}
        return dict(self.found(f"select run, count(*) from stored.tellings where run in ({numbers}) group by run"))  # noqa: S608 - numbers

    def set_apart(self, superseded: str) -> None:
        """Take findings away that stand no longer; `superseded`: what of `finding_history` says nothing any more."""
        self._superseded = superseded
        self._run(f"INSERT INTO gone FROM found WHERE NOT ({self.standing('fingerprint')})")
        self._run("DELETE FROM found WHERE fingerprint IN (SELECT fingerprint FROM gone)")

    def standing(self, fingerprint: str) -> str | None:
        """Return the condition that a finding stands, as SQL over the documented views; None: all do."""
        if self._superseded is None:
            return None
        told = f"select fingerprint from finding_history where ({self._superseded}) is not true"  # noqa: S608 - ours
        return f"{fingerprint} in ({told} and fingerprint is not null)"

    def findings_in(self, where: str = "", what: str = "f.*", *, gone: bool = False) -> Query:
        """Return the query of the findings of the period that stand, or of those that are gone.

        `where`: further conditions on `f`, what the view has.
        """
        standing = self.standing("f.fingerprint")
        if standing is not None and gone:
            standing = f"not {standing}"
        return findings_in(self.span, " and ".join(filter(None, (where, standing))), what)

    def told_by(self, fingerprints: Iterable[str]) -> dict[str, list[int]]:
        """Return the numbers of the runs that told of each of some findings."""
        listed = ", ".join(f"'{one}'" for one in fingerprints if one.isalnum())
        return dict(
            self.found(
                "select fingerprint, list(distinct run) from stored.tellings "  # noqa: S608 - hex digits
                f"where fingerprint in ({listed}) group by fingerprint"
            )
            if listed
            else ()
        )

    def rows(self, query: Query, limit: int = MAX_ROWS) -> tuple[list[tuple[Any, ...]], int]:
        """Return the first rows that a query gives, times in nanoseconds, and how many it gives in all."""
        views = self._seen if query.of_period else self._all
        with failures():
            # Asked once, for the first rows and for their number.
            views.connection.execute(f"CREATE OR REPLACE TEMP TABLE asked AS {query.sql}")
            reader = views.connection.sql(f"FROM asked LIMIT {limit}").to_arrow_reader(limit)
            found = next(iter(reader), None)
            reader.close()
        columns = [] if found is None else [_values(column) for column in found.columns]
        return list(zip(*columns, strict=True)), int(views.rows("SELECT count(*) FROM asked")[0][0])

    def number(self, query: Query) -> int:
        """Return the one number that a query gives; nothing is 0."""
        views = self._seen if query.of_period else self._all
        return int(views.rows(query.sql)[0][0] or 0)

    def events_by_step(self) -> dict[int, tuple[int, int]]:
        """Return the events and refusals of each step by its number: when it begins, divided by its length."""
        rows = self._seen.rows(
            f"select time_ns // {self.span.step}, sum(count), sum(count) filter (outcome = 2) "  # noqa: S608 - numbers
            "from stored.events group by 1"
        )
        return {int(number): (int(events), int(denied or 0)) for number, events, denied in rows}

    def ends(self) -> tuple[int | None, int | None]:
        """Return when the first and the last event were."""
        first, last = self._seen.rows("select min(first_ns), max(last_ns) from stored.uses")[0]
        return first, last

    def different(self) -> int:
        """Return how many different (client, action, name) were let pass, or not reported as refused."""
        return int(
            self._seen.rows(
                "select count(*) from (select distinct c.principal, u.resource, u.action from stored.uses u "
                "left join stored.principals c on c.id = u.client "
                "where u.events > u.denied and u.action in (4, 5, 8))"
            )[0][0]
        )

    def add_findings(self, documents: Sequence[Mapping[str, Any]], now_ns: int) -> None:
        """Add findings that were made for this report; they replace those that were stored of the same cause."""
        rows = [(json.dumps(document), now_ns) for document in documents]
        if not rows:
            return
        with failures():
            self._all.connection.executemany("INSERT INTO fresh VALUES (?, ?)", rows)
        for table in ("found", "gone"):
            self._run(f"DELETE FROM {table} WHERE fingerprint IN (SELECT document->>'$.fingerprint' FROM fresh)")  # noqa: S608
        self._run(
            f"INSERT INTO found BY NAME SELECT {_FIELDS}, d.count AS count, now_ns AS first_ns, now_ns AS last_ns, "  # noqa: S608
            f"1 AS runs FROM (SELECT now_ns, from_json(document, '{_SHAPE}') AS d FROM fresh)"
        )

    def found(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query of `found` gives: a row for each cause that overlaps the period."""
        return self._all.rows(sql)

    def totals(self) -> list[Totals]:
        """Return how many findings there are of each code, severity and state."""
        return [
            Totals(*row)
            for row in self.found(
                "select code, name, severity, difference, accepted is not null, count(*), sum(count)::bigint "
                "from found group by all order by all"
            )
        ]

    def documents(self, table: str = "found", most: int = MAX_FINDINGS) -> list[tuple[Any, ...]]:
        """Return fingerprint, count, first, last, runs and document of the gravest findings, or of those `gone`."""
        self._run(
            f"CREATE OR REPLACE TEMP TABLE gravest AS FROM {table} "
            f"ORDER BY severity_rank(severity) DESC, code, count DESC, fingerprint LIMIT {most}"
        )
        what = "g.fingerprint, g.count, g.first_ns, g.last_ns, g.runs, s.document"
        # Only these are read whole; a place is a row of one file, and the fingerprint tells files apart.
        return self.found(
            f"SELECT {what} FROM gravest g JOIN stored.findings s ON s.segment = g.place.segment "  # noqa: S608 - ours
            "AND s.time_ns = g.place.time_ns AND s.row = g.place.row "
            f"WHERE s.document->>'$.fingerprint' = g.fingerprint UNION ALL SELECT {what} FROM gravest g "
            "JOIN fresh s ON s.document->>'$.fingerprint' = g.fingerprint WHERE g.place IS NULL"
        )

    def interrupt(self) -> None:
        """End the statement that runs; from any thread."""
        self._seen.interrupt()
        self._all.interrupt()

    def close(self) -> None:
        """Close what was opened."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, statement: str) -> None:
        with failures():
            self._all.connection.execute(statement)

    @staticmethod
    def _materialise(views: Views, name: str) -> None:
        """Put a table in the place of a view that gives the same."""
        with failures():
            views.connection.execute(f"CREATE TABLE {name}_kept AS FROM {name}")
            views.connection.execute(f"DROP VIEW {name}")
            views.connection.execute(f"ALTER TABLE {name}_kept RENAME TO {name.partition('.')[2]}")


def _values(column: Any) -> list[Any]:
    """Return a column as Python has it; a time's nanoseconds are more than `datetime` can hold."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns")).cast(pa.int64())
    found: list[Any] = column.to_pylist()
    return [int(value) if isinstance(value, Decimal) else value for value in found]


_SHAPE: Final = json.dumps(
    {
        **dict.fromkeys(("fingerprint", "code", "name", "severity", "difference", "accepted", "first_seen"), "VARCHAR"),
        "count": "BIGINT",
        "attack": ["VARCHAR"],
    }
)
"""What of a finding's document is needed of every one."""
_FIELDS: Final = ", ".join(
    f"d.{name} AS {name}" for name in ("fingerprint", "code", "name", "severity", "difference", "accepted", "attack")
)
_DAMAGED: Final = (
    "NOT regexp_full_match(coalesce(fingerprint, ''), '[0-9a-f]{32}') OR count IS NULL OR code IS NULL "
    f"OR name IS NULL OR difference IS NULL OR coalesce(severity, '') NOT IN {SEVERITIES}"
)


def moment(time_ns: int) -> str:
    """Return a time as SQL."""
    return f"timestamp_ns '{wording.timestamp(time_ns, 9)[:-1].replace('T', ' ')}'"


def counted_in(span: Span) -> str:
    """Return SQL of the occurrences of each cause in the runs that overlap a time, from the documented views."""
    return (
        "select fingerprint, sum(n)::bigint as count from (select fingerprint, run, max(count) as n, "  # noqa: S608
        "least(min(first_seen), min(time)) as begun, max(time) as ended from finding_history group by all) "
        f"where begun <= {moment(span.to_ns)} and ended >= {moment(span.from_ns)} group by fingerprint"
    )


def findings_in(span: Span, where: str = "", what: str = "f.*") -> Query:
    """Return the query of the findings of a time; `where`: further conditions on `f`, what the view has."""
    condition = f" where {where}" if where else ""
    return Query(
        f"select {what} from findings f join ({counted_in(span)}) h using (fingerprint){condition}"  # noqa: S608 - ours
        " order by severity_rank(f.severity) desc, f.code, h.count desc, fingerprint",
        of_period=False,
    )


def _found(span: Span) -> str:
    """Each cause once; the same rows as `findings_in` gives, read in one pass."""
    return f"""
        WITH said AS (
            SELECT {{'segment': f.segment, 'time_ns': f.time_ns, 'row': f.row}} AS place, time_ns,
                coalesce(r.run, 0) AS run, d, d.fingerprint AS fingerprint
            FROM (SELECT segment, time_ns, row, from_json(document, '{_SHAPE}') AS d FROM stored.findings) f
                ASOF LEFT JOIN stored.runs r ON f.segment >= r.first_segment),
        runs AS (
            SELECT fingerprint, run, max(d.count) AS count, max(time_ns) AS ended, max(place) AS place,
                least(min(epoch_ns(try_cast(d.first_seen AS TIMESTAMP_NS))), min(time_ns)) AS begun,
                arg_max(d, place) AS d
            FROM said GROUP BY fingerprint, run)
        SELECT {_FIELDS.replace("d.fingerprint AS fingerprint", "fingerprint")}, count, first_ns, last_ns, runs, place
        FROM (
            SELECT fingerprint, sum(count)::BIGINT AS count, min(begun) AS first_ns, max(ended) AS last_ns,
                count(*) AS runs, arg_max(d, place) AS d, max(place) AS place
            FROM runs WHERE begun <= {span.to_ns} AND ended >= {span.from_ns} GROUP BY fingerprint)"""  # noqa: S608
