"""Chapters about what was done: who was busiest, what was refused, and what was changed in the brokers' grants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from topicwarden.report.model import Cell, Column, Figure, Kind, Query, Section, Table
from topicwarden.report.reading import Reading

MAX_RIGHTS: Final = 10
"""Rights of one change that a table names."""
_WHO: Final = (
    Column("broker", "Broker", Kind.NAME),
    Column("vhost", "Virtual host", Kind.NAME),
    Column("user", "User", Kind.NAME),
    Column("client_id", "Client id", Kind.NAME),
)
_SEEN: Final = (Column("first", "First", Kind.TIME), Column("last", "Last", Kind.TIME))


def activity(reading: Reading) -> Section:
    """Return who was busiest."""
    broker_query = Query(
        "select broker, events, denied, clients, coalesce(names, 0) as names, first_seen, last_seen from (select "
        "broker, sum(events)::bigint as events, sum(denied)::bigint as denied, count(*) as clients, min(first_seen) as "
        "first_seen, max(last_seen) as last_seen from clients group by broker) left join (select broker, count(*) as "
        "names from topics group by broker) using (broker) order by events desc, broker"
    )
    client_query = Query(
        "select broker, vhost, user, client_id, identity, publishes, subscribes, denied, bytes, names, events, "
        "first_seen, last_seen from clients order by events desc, broker, vhost, user, client_id, protocol"
    )
    name_query = Query(
        "select broker, kind, within, name, publishes, publishers, subscribes, subscribers, denied, first_seen, "
        "last_seen from topics order by publishes + subscribes desc, broker, kind, within, name"
    )
    brokers, count_brokers = reading.rows(broker_query)
    clients, count_clients = reading.rows(client_query)
    names, count_names = reading.rows(name_query)
    events = Query("select coalesce(sum(events), 0) from clients")
    figures = (
        Figure("events", "events of brokers", reading.number(events), "brokers", events),
        Figure("clients", "clients", count_clients, "busiest-clients", Query("select count(*) from clients")),
        Figure("names", "topics, keys and queues", count_names, "busiest-names", Query("select count(*) from topics")),
    )
    tables = (
        Table(
            "brokers",
            "Brokers",
            (
                Column("broker", "Broker", Kind.NAME),
                Column("events", "Events", Kind.NUMBER),
                Column("denied", "Refused", Kind.NUMBER),
                Column("clients", "Clients", Kind.NUMBER),
                Column("names", "Names", Kind.NUMBER),
                *_SEEN,
            ),
            tuple(tuple(row) for row in brokers),
            count_brokers,
            broker_query,
            empty="No event was stored of this period.",
        ),
        Table(
            "busiest-clients",
            "The busiest clients",
            (
                *_WHO,
                Column("identity", "Identity"),
                Column("publishes", "Publishes", Kind.NUMBER),
                Column("subscribes", "Subscriptions", Kind.NUMBER),
                Column("denied", "Refused", Kind.NUMBER),
                Column("bytes", "Payload bytes", Kind.NUMBER),
                Column("names", "Names", Kind.NUMBER),
                Column("events", "Events", Kind.NUMBER),
                *_SEEN,
            ),
            tuple(tuple(row) for row in clients),
            count_clients,
            client_query,
            note="A client is what the broker tells apart: virtual host, protocol, user name and client id together. "
            "Identity says how far the broker vouches for the user name.",
            empty="No client was seen.",
        ),
        Table(
            "busiest-names",
            "The busiest topics, keys and queues",
            (
                Column("broker", "Broker", Kind.NAME),
                Column("kind", "Kind"),
                Column("name", "Name", Kind.NAME),
                Column("publishes", "Publishes", Kind.NUMBER),
                Column("publishers", "Publishers", Kind.NUMBER),
                Column("subscribes", "Subscriptions", Kind.NUMBER),
                Column("subscribers", "Subscribers", Kind.NUMBER),
                Column("denied", "Refused", Kind.NUMBER),
                *_SEEN,
            ),
            tuple((row[0], row[1], _label(row[2], row[3]), *row[4:]) for row in names),
            count_names,
            name_query,
            empty="No name was seen.",
        ),
    )
    return Section("activity", "Who was busiest", figures=figures, tables=tables)


def denied(reading: Reading) -> Section:
    """Return what brokers refused."""
    query = Query(
        "select broker, vhost, user, client_id, action, kind, within, name, sum(count)::bigint as refused, "
        "min(time) as first_seen, max(time) as last_seen from events where outcome = 'denied' "
        "group by broker, vhost, user, client_id, action, kind, within, name "
        "order by refused desc, 1, 2, 3, 4, 5, 6, 7, 8"
    )
    rows, total = reading.rows(query)
    sum_query = Query("select coalesce(sum(denied), 0) from clients")
    figure = Figure("denied", "attempts that brokers refused", reading.number(sum_query), "denied", sum_query)
    table = Table(
        "denied",
        "Denied attempts",
        (
            *_WHO,
            Column("action", "Action"),
            Column("name", "Name", Kind.NAME),
            Column("refused", "Refused", Kind.NUMBER),
            *_SEEN,
        ),
        tuple((*row[:5], _label(row[6], row[7]), *row[8:]) for row in rows),
        total,
        query,
        note="A refusal is either somebody probing, or a client that lacks a right it needs.",
        empty="No broker reported a refusal in the period.",
    )
    return Section("denied", "Denied attempts", figures=(figure,), tables=(table,))


def changes(reading: Reading) -> Section:
    """Return what was changed in the brokers' grants, and by whom."""
    query = Query(
        "select time, broker, vhost, user, what, by_user, by_client_id, by_address, before, after, gained, lost, "
        "unlisted, powers, certainty from grants order by time, broker, user, what"
    )
    rows, total = reading.rows(query)
    table = Table(
        "changes",
        "Changes of grants",
        (
            Column("time", "Time", Kind.TIME),
            Column("broker", "Broker", Kind.NAME),
            Column("vhost", "Virtual host", Kind.NAME),
            Column("whose", "Whose", Kind.NAME),
            Column("what", "What", Kind.NAME),
            Column("by", "Changed by", Kind.NAME),
            Column("before", "Before", Kind.NAME),
            Column("after", "After", Kind.NAME),
            Column("gained", "Rights gained", Kind.NAMES),
            Column("lost", "Rights lost", Kind.NAMES),
            Column("powers", "Powers over the broker", Kind.NAMES),
            Column("certainty", "Certainty"),
        ),
        tuple(_change(row) for row in rows),
        total,
        query,
        note="Only changes that were made while somebody watched, at brokers that report them.",
        empty="No change of a grant was reported in the period.",
    )
    figure = Figure("changes", "changes of grants", total, "changes", Query("select count(*) from grants"))
    return Section("changes", "Changes of grants, and who made them", figures=(figure,), tables=(table,))


def _change(row: Sequence[Any]) -> tuple[Cell, ...]:
    (
        time,
        broker,
        vhost,
        user,
        what,
        by_user,
        by_client,
        by_address,
        before,
        after,
        gained,
        lost,
        unlisted,
        powers,
        sure,
    ) = row
    by = by_user or by_client or "not said by the broker"
    more = (f"and {unlisted} more rights gained or lost",) if unlisted else ()
    return (
        time,
        broker,
        vhost,
        user or "everybody",
        what,
        f"{by} from {by_address}" if by_address else by,
        _cut(before),
        _cut(after),
        (*_cuts(gained), *more),
        _cuts(lost),
        tuple(powers or ()),
        sure,
    )


def _cuts(rights: Sequence[str] | None) -> tuple[str, ...]:
    found = tuple(rights or ())
    return found if len(found) <= MAX_RIGHTS else (*found[:MAX_RIGHTS], f"and {len(found) - MAX_RIGHTS} more")


def _cut(text: str | None) -> str:
    if text is None:
        return "not known"
    return text or "none"


def _label(within: str | None, name: str | None) -> str | None:
    return name if not within else f"{within}: {name}"
