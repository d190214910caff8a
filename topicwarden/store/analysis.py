"""Questions to a store, each one statement over its views, with typed answers; `observed` is what scans compare with.

All times are nanoseconds since the epoch. Lists are bounded by `limit`; who needs to know how many there are in all
asks `Inventory`'s counts or the views. Text in the answers is as hostile as in events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import NO_RESOURCE, Action
from topicwarden.events.observed import Numbers, Observed, Uses
from topicwarden.store.files import HOUR_NS
from topicwarden.store.rows import NO_RESOURCE_ID, client_of, resource_of
from topicwarden.store.views import Views, failures

_BATCH: Final = 1 << 20
"""Rows of numbers taken at once."""
_ROWS: Final = 1 << 14
"""Rows of text taken at once."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Who:
    """A client, wherever it came from."""

    broker: str
    vhost: str | None
    protocol: str
    user: str | None
    client_id: str


@dataclass(frozen=True, slots=True)
class Talker:
    """A client by how much it did."""

    who: Who
    events: int
    publishes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class HourlyTalker:
    """One of the busiest clients of an hour."""

    hour_ns: int
    rank: int
    """1 for the busiest."""
    who: Who
    events: int


@dataclass(frozen=True, slots=True)
class Refused:
    """What a broker refused a client."""

    who: Who
    attempts: int
    names: int
    """Different names it was refused."""
    example: str | None
    """One of them: the most frequent."""
    actions: Sequence[str]
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of grants."""

    time_ns: int
    broker: str
    vhost: str | None
    user: str | None
    what: str
    by: str | None
    """Who changed it; None: the broker does not say."""
    before: str | None
    after: str | None
    gained: Sequence[str]
    lost: Sequence[str]
    unlisted: int
    powers: Sequence[str]


class Step(StrEnum):
    """How finely time is cut."""

    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Told:
    """Findings of one severity in an hour or on a day."""

    start_ns: int
    severity: str
    opened: int
    """Causes whose first occurrence was then."""
    occurrences: int
    """Occurrences told of then: those since the last time, which was some minutes before, or a power of ten."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time for which rows may be missing."""

    from_ns: int | None
    until_ns: int | None
    lost: int | None
    """None: not known."""
    reason: str


@dataclass(frozen=True, slots=True)
class Covered:
    """What the store has of a time, and what it has not."""

    first_ns: int | None
    """The first and last event; None: there is none."""
    last_ns: int | None
    events: int
    hours: Sequence[int]
    """Starts of the hours that have an event."""
    gaps: Sequence[Gap]
    noticed: int
    """Events that sources said they had not seen (TW901)."""

    @property
    def empty_hours(self) -> int:
        """Hours between the first and the last event that have none."""
        if self.first_ns is None or self.last_ns is None:
            return 0
        return self.last_ns // HOUR_NS - self.first_ns // HOUR_NS + 1 - len(self.hours)


@dataclass(frozen=True, slots=True)
class Inventoried:
    """A client as it was observed."""

    who: Who
    identity: str
    """The weakest it was seen with."""
    addresses: int
    last_address: str | None
    events: int
    publishes: int
    subscribes: int
    denied: int
    names: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """Who was observed."""

    clients: int
    topics: int
    """Different names at all brokers."""
    uses: int
    """Different (client, action, name), clients told apart as in `Who`."""
    rows: Sequence[Inventoried]
    """The busiest first."""


_WHO: Final = 'c.broker, c.vhost, c.protocol, c."user", c.client_id'
_HOUR: Final = f"(time_ns // {HOUR_NS} - (time_ns % {HOUR_NS} < 0)::INTEGER)"
"""Hours since the epoch; DuckDB's // cuts towards zero."""


def top_talkers(views: Views, limit: int = 20) -> list[Talker]:
    """Return the busiest clients, by what they did and tried."""
    rows = views.rows(
        f"""
        WITH told AS (
            SELECT client, sum(count) AS events, coalesce(sum(count) FILTER (action = 4), 0) AS publishes,
                coalesce(sum(size * count) FILTER (size >= 0), 0) AS bytes
            FROM stored.events GROUP BY client),
        summed AS (
            SELECT p.principal, sum(events)::BIGINT AS events, sum(publishes)::BIGINT AS publishes,
                sum(bytes)::BIGINT AS bytes
            FROM told t JOIN stored.principals p ON p.id = t.client
            GROUP BY p.principal ORDER BY events DESC, p.principal LIMIT $limit)
        SELECT {_WHO}, s.events, s.publishes, s.bytes
        FROM summed s JOIN stored.clients_by_id c ON c.id = s.principal
        ORDER BY s.events DESC, s.principal""",  # noqa: S608 - columns of ours
        {"limit": limit},
    )
    return [Talker(Who(*row[:5]), *row[5:]) for row in rows]


def top_talkers_by_hour(views: Views, each: int = 5) -> list[HourlyTalker]:
    """Return the busiest clients of each hour."""
    rows = views.rows(
        f"""
        WITH told AS (
            SELECT client, {_HOUR} AS hour, sum(count) AS events FROM stored.events GROUP BY ALL),
        summed AS (
            SELECT hour, p.principal, sum(events)::BIGINT AS events
            FROM told t JOIN stored.principals p ON p.id = t.client GROUP BY hour, p.principal),
        ranked AS (
            SELECT *, row_number() OVER (PARTITION BY hour ORDER BY events DESC, principal) AS place
            FROM summed QUALIFY place <= $each)
        SELECT {_WHO}, r.hour, r.place, r.events
        FROM ranked r JOIN stored.clients_by_id c ON c.id = r.principal ORDER BY r.hour, r.place""",  # noqa: S608 - ours
        {"each": each},
    )
    return [HourlyTalker(row[5] * HOUR_NS, row[6], Who(*row[:5]), row[7]) for row in rows]


def refused(views: Views, limit: int = 100) -> list[Refused]:
    """Return whom a broker refused something, those with most attempts first."""
    rows = views.rows(
        f"""
        WITH denied AS (
            SELECT client, resource, action, sum(count) AS n, min(time_ns) AS first_ns, max(time_ns) AS last_ns
            FROM stored.events WHERE outcome = 2 GROUP BY ALL),
        named AS (
            SELECT p.principal, resource, sum(n) AS n, min(first_ns) AS first_ns, max(last_ns) AS last_ns,
                list(DISTINCT action) AS actions
            FROM denied d JOIN stored.principals p ON p.id = d.client GROUP BY p.principal, resource),
        summed AS (
            SELECT principal, sum(n)::BIGINT AS attempts, count(*) FILTER (resource <> 0) AS names,
                arg_max(resource, (n, resource)) FILTER (resource <> 0) AS example,
                list_distinct(flatten(list(actions))) AS actions, min(first_ns) AS first_ns, max(last_ns) AS last_ns
            FROM named GROUP BY principal ORDER BY attempts DESC, principal LIMIT $limit)
        SELECT {_WHO}, s.attempts, s.names, r.name,
            list_sort(list_transform(s.actions, lambda one: action_word(one))), s.first_ns, s.last_ns
        FROM summed s JOIN stored.clients_by_id c ON c.id = s.principal
            LEFT JOIN stored.resources_by_id r ON r.id = s.example
        ORDER BY s.attempts DESC, s.principal""",  # noqa: S608 - columns of ours
        {"limit": limit},
    )
    return [Refused(Who(*row[:5]), *row[5:]) for row in rows]


def grant_changes(views: Views, limit: int = 1000) -> list[Changed]:
    """Return changes of grants and who made them, the newest first."""
    rows = views.rows(
        """
        SELECT (mended(document)->>'$.time_ns')::BIGINT AS time_ns, g.broker, g.vhost, g."user", g.what,
            coalesce(g.by_user, nullif(g.by_client_id, ''), g.by_address), g.before, g.after, g.gained, g.lost,
            g.unlisted, coalesce(g.powers, [])
        FROM grants g ORDER BY 1 DESC LIMIT $limit""",
        {"limit": limit},
    )
    return [Changed(*row) for row in rows]


def findings_over_time(views: Views, step: Step = Step.DAY) -> list[Told]:
    """Return how many findings there were in each hour or on each day that has one, by severity, in order.

    A finding belongs to the severity it had when told of; one that was accepted is `info`.
    """
    span = HOUR_NS if step is Step.HOUR else 24 * HOUR_NS
    rows = views.rows(
        f"""
        WITH grown AS (
            SELECT time_ns, document->>'$.severity' AS severity, fingerprint,
                greatest(0, count - lag(count, 1, 0) OVER (
                    PARTITION BY fingerprint, run ORDER BY segment, time_ns, row)) AS occurrences
            FROM (SELECT segment, time_ns, row, document, run, fingerprint, count FROM stored.tellings)),
        first AS (
            SELECT fingerprint, min(time_ns) AS time_ns, arg_min(severity, time_ns) AS severity
            FROM grown GROUP BY fingerprint),
        counted AS (
            SELECT time_ns, severity, 0 AS opened, occurrences FROM grown
            UNION ALL SELECT time_ns, severity, 1, 0 FROM first)
        SELECT time_ns // {span} - (time_ns % {span} < 0)::INTEGER AS start, severity, sum(opened)::BIGINT,
            sum(occurrences)::BIGINT
        FROM counted GROUP BY start, severity ORDER BY start, severity_rank(severity) DESC"""  # noqa: S608 - a number of ours
    )
    return [Told(row[0] * span, *row[1:]) for row in rows]


def covered(views: Views) -> Covered:
    """Return what time the store has events of, and what it may miss."""
    hours = views.rows(
        f"""
        SELECT {_HOUR} AS hour, min(time_ns), max(time_ns), sum(count)::BIGINT
        FROM stored.events GROUP BY hour ORDER BY hour"""  # noqa: S608 - a column of ours
    )
    gaps = views.rows("SELECT from_ns, until_ns, lost, reason FROM stored.gaps ORDER BY from_ns")
    noticed = views.rows("SELECT coalesce(sum(count), 0)::BIGINT FROM notices WHERE code = 'TW901'")
    return Covered(
        first_ns=min((row[1] for row in hours), default=None),
        last_ns=max((row[2] for row in hours), default=None),
        events=sum(row[3] for row in hours),
        hours=[row[0] * HOUR_NS for row in hours],
        gaps=[Gap(*row) for row in gaps],
        noticed=noticed[0][0],
    )


def inventory(views: Views, limit: int = 1000) -> Inventory:
    """Return who was observed, the busiest first."""
    rows = views.rows(
        f"""
        WITH used AS MATERIALIZED (
            SELECT client, resource, action, events, denied, first_ns, last_ns FROM stored.uses),
        named AS (
            SELECT p.principal, u.resource, u.action, sum(u.events) AS events, sum(u.denied) AS denied,
                min(u.first_ns) AS first_ns, max(u.last_ns) AS last_ns
            FROM used u JOIN stored.principals p ON p.id = u.client
            GROUP BY p.principal, u.resource, u.action),
        summed AS (
            SELECT principal, sum(events)::BIGINT AS events,
                coalesce(sum(events) FILTER (action = 4), 0)::BIGINT AS publishes,
                coalesce(sum(events) FILTER (action = 5), 0)::BIGINT AS subscribes, sum(denied)::BIGINT AS denied,
                count(DISTINCT resource) FILTER (resource <> 0) AS names, count(*) FILTER (resource <> 0) AS uses,
                min(first_ns) AS first_ns, max(last_ns) AS last_ns
            FROM named GROUP BY principal),
        totals AS (SELECT count(*) AS clients, coalesce(sum(uses), 0)::BIGINT AS uses FROM summed),
        shown AS (SELECT * FROM summed ORDER BY events DESC, principal LIMIT $limit),
        seen AS (
            SELECT p.principal, arg_min(p.identity, identity_rank(p.identity)) AS identity,
                count(DISTINCT p.address) AS addresses
            FROM stored.principals p GROUP BY p.principal),
        last AS (
            SELECT p.principal, arg_max(p.address, e.last_ns) AS address
            FROM (SELECT client, max(last_ns) AS last_ns FROM used GROUP BY client) e
                JOIN stored.principals p ON p.id = e.client GROUP BY p.principal),
        topics AS (
            SELECT count(*) AS topics FROM (
                SELECT DISTINCT u.resource, c.broker
                FROM (SELECT DISTINCT client, resource FROM used WHERE resource <> 0) u
                    JOIN stored.clients_by_id c ON c.id = u.client JOIN stored.resources_by_id r ON r.id = u.resource
                WHERE r.kind <> 'grant'))
        SELECT {_WHO}, seen.identity, seen.addresses, last.address, s.events, s.publishes, s.subscribes, s.denied,
            s.names, s.first_ns, s.last_ns, totals.clients, totals.uses, topics.topics
        FROM shown s JOIN stored.clients_by_id c ON c.id = s.principal JOIN seen ON seen.principal = s.principal
            JOIN last ON last.principal = s.principal CROSS JOIN totals CROSS JOIN topics
        ORDER BY s.events DESC, s.principal""",  # noqa: S608 - columns of ours
        {"limit": limit},
    )
    clients, uses, topics = rows[0][-3:] if rows else (0, 0, 0)
    return Inventory(clients, topics, uses, [Inventoried(Who(*row[:5]), *row[5:-3]) for row in rows])


def observed(views: Views, brokers: Sequence[str] | None = None) -> Observed:
    """Return who used which names, as `Observed` has it when all events are added to it: in SQL, and much faster.

    Raises ObservationError for names that are damaged.
    """
    found = Observed()
    span = views.rows("SELECT min(time_ns), max(time_ns) FROM stored.events")
    found.first_ns, found.last_ns = span[0]
    lost = views.rows("SELECT coalesce(sum(count), 0)::BIGINT FROM notices WHERE code = 'TW901'")
    found.lost = lost[0][0]
    actions = ", ".join(str(action.value) for action in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE))
    client_ids, clients = _entries(views, "SELECT * FROM stored.clients_by_id ORDER BY id", client_of)
    resource_ids, resources = _entries(views, "SELECT * FROM stored.resources_by_id ORDER BY id", resource_of)
    resource_ids = np.concatenate((np.array([NO_RESOURCE_ID], np.uint64), resource_ids))
    resources = [NO_RESOURCE, *resources]
    wanted = np.array([brokers is None or client.broker in brokers for client in clients], bool)
    columns = ("action", "events", "denied", "first_ns", "last_ns")
    with failures():
        for batch in views.reader(
            f"SELECT client, resource, {', '.join(columns)} FROM stored.uses WHERE action IN ({actions})",  # noqa: S608
            _BATCH,
        ):
            who = _places(client_ids, batch.column("client").to_numpy(), views)
            what = _places(resource_ids, batch.column("resource").to_numpy(), views)
            numbers = [batch.column(name).to_numpy().astype(np.int64) for name in columns]
            rows = np.flatnonzero(wanted[who])
            found.put(clients, resources, Uses(*(column[rows] for column in (who, what, *numbers))))
    return found


def _entries(
    views: Views, sql: str, read: Callable[[Mapping[str, Any]], _T]
) -> tuple[npt.NDArray[np.uint64], list[_T]]:
    """Return the numbers of clients or resources in ascending order, and what they stand for."""
    numbers: list[int] = []
    entries: list[_T] = []
    with failures():
        for batch in views.reader(sql, _ROWS):
            for row in batch.to_pylist():
                numbers.append(row["id"])
                entries.append(_named(read, row, views))
    return np.array(numbers, np.uint64), entries


def _places(numbers: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64], views: Views) -> Numbers:
    """Return where in `numbers` each of the wanted ones stands; raises ObservationError when one does not."""
    if not len(numbers):
        raise _missing(views)
    places = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    if not np.array_equal(numbers[places], wanted):
        raise _missing(views)
    return places


def _named(read: Callable[[Mapping[str, Any]], _T], row: Mapping[str, Any], views: Views) -> _T:
    try:
        return read(row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _missing(views) from error


def _missing(views: Views) -> ObservationError:
    return ObservationError(
        Problem(
            "clients or names that events need are missing or damaged",
            str(views.store.folder),
            hint="`topicwarden verify` says what was retired or damaged",
        )
    )
