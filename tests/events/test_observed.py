"""Sums in columns against sums in a dictionary."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.events import Action, Client, EventBuilder, Outcome, Resource, ResourceKind, Tables
from topicwarden.events import observed as module
from topicwarden.events.observed import Observed, Seen

CLIENTS = [
    Client(broker, "mqtt", name, user, address, port)
    for broker in ("b", "c")
    for name, user in (("x", "u"), ("x", None), ("y", "u"))
    for address, port in ((None, None), ("10.0.0.1", 7))
]
RESOURCES = [Resource(ResourceKind.TOPIC, name) for name in ("a", "a/b", "")] + [
    Resource(ResourceKind.KEY, "a", within="x"),
    Resource(ResourceKind.QUEUE, "a"),
]
ACTIONS = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE, Action.CONNECT, Action.DELIVER)
rows = st.lists(
    st.tuples(
        st.integers(-5, 5),
        st.sampled_from(ACTIONS),
        st.sampled_from(CLIENTS),
        st.sampled_from(RESOURCES),
        st.sampled_from(Outcome),
        st.integers(1, 3),
    ),
    max_size=12,
)
Rows = list[tuple[int, Action, Client, Resource, Outcome, int]]
Plain = dict[tuple[Client, Action, Resource], Seen]


def added(told: list[Rows], capacity: int = 1000) -> Observed:
    tables, found = Tables(), Observed(capacity)
    for batch in told:
        builder = EventBuilder(tables)
        for time_ns, action, client, resource, outcome, count in batch:
            builder.add(time_ns, action, client, resource, outcome, count=count)
        found.add(builder.take())
    return found


def plainly(told: list[Rows]) -> Plain:
    found: Plain = {}
    for time_ns, action, client, resource, outcome, count in (row for batch in told for row in batch):
        if action not in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE):
            continue
        key = (replace(client, address=None, port=None), action, resource)
        seen = found.setdefault(key, Seen(0, 0, time_ns, time_ns))
        seen.count += count
        seen.denied += count * (outcome is Outcome.DENIED)
        seen.first_ns, seen.last_ns = min(seen.first_ns, time_ns), max(seen.last_ns, time_ns)
    return found


def held(found: Observed) -> Plain:
    return {(client, action, resource): seen for client, action, resource, seen in found}


@given(st.lists(rows, max_size=4), st.sampled_from((0, 1, 1 << 18)))
def test_the_sums_are_those_of_a_plain_loop(told: list[Rows], waiting: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WAITING", waiting)
        found = added(told)
        wanted = plainly(told)
        assert held(found) == wanted
        assert (len(found), found.overflow) == (len(wanted), 0)
        assert found.events == sum(seen.count for seen in wanted.values())
        times = [row[0] for batch in told for row in batch]
        assert (found.first_ns, found.last_ns) == (min(times, default=None), max(times, default=None))
        assert found.brokers == {client.broker for client, _, _ in wanted}
        assert found.principals == len({client.principal for client, _, _ in wanted})
        assert found.names == len({resource for _, _, resource in wanted})
        assert found.denied == sum(seen.denied for seen in wanted.values())
        assert set(found.let_pass) == {client for (client, _, _), seen in wanted.items() if seen.count > seen.denied}
        part = found.at("b")
        assert held(part) == {key: seen for key, seen in wanted.items() if key[0].broker == "b"}
        assert (part.first_ns, part.last_ns) == (found.first_ns, found.last_ns)


@given(st.lists(rows, max_size=3), st.lists(rows, max_size=3))
def test_merged_is_what_all_together_would_be(one: list[Rows], other: list[Rows]) -> None:
    merged = added(one)
    merged.merge(added(other))
    together = added([*one, *other])
    assert held(merged) == held(together)
    assert (merged.events, merged.first_ns, merged.last_ns) == (together.events, together.first_ns, together.last_ns)


@given(st.lists(rows, max_size=4), st.integers(1, 4), st.sampled_from((0, 1 << 18)))
def test_nothing_is_counted_twice_or_not_at_all_when_there_are_too_many(
    told: list[Rows], capacity: int, waiting: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WAITING", waiting)
        found, wanted = added(told, capacity), plainly(told)
        kept = held(found)
        assert len(found) == min(capacity, len(wanted))
        assert sum(seen.count for seen in kept.values()) + found.overflow == found.events
        assert kept.keys() <= wanted.keys()


def test_more_names_than_are_told_apart_are_counted_as_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMED", 2)
    client = CLIENTS[0]
    told: Rows = [
        (0, Action.PUBLISH, client, Resource(ResourceKind.TOPIC, f"t/{n}"), Outcome.ALLOWED, 2) for n in range(5)
    ]
    found = added([told])
    assert (len(found), found.events, found.overflow) == (2, 10, 6)
