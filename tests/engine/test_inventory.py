"""The inventory counts what a plain loop counts, and stays bounded."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.scenario import SECOND, batches, client_of, expanded
from topicwarden.engine import Inventory

events = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "publish": st.sampled_from(["a", "a/b", "c"]),
                "user": st.sampled_from(["u", "v"]),
                "client": st.sampled_from(["x", "y"]),
                "outcome": st.sampled_from(["allowed", "denied", "unknown"]),
                "size": st.integers(-1, 10),
                "every": st.sampled_from([0, 0.4, 1]),
                "repeat": st.integers(1, 4),
            }
        ),
        st.fixed_dictionaries({"subscribe": st.sampled_from(["a", "#"]), "user": st.just("u")}),
        st.fixed_dictionaries({"connect": st.just(""), "user": st.just("v")}),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(events, st.integers(1, 20))
def test_counts_equal_those_of_a_plain_loop(scenario: list[dict[str, Any]], size: int) -> None:
    inventory = Inventory()
    for batch in batches(scenario, size):
        inventory.update(batch)
    publishes: Counter[object] = Counter()
    volume: Counter[object] = Counter()
    denied: Counter[object] = Counter()
    seconds: Counter[tuple[object, int]] = Counter()
    topics: dict[object, set[str]] = {}
    used: Counter[str] = Counter()
    for time, event, kind, name in expanded(scenario):
        who = client_of(event).principal
        topics.setdefault(who, set())
        if event.get("outcome") == "denied":
            denied[who] += 1
        elif kind == "publish":
            publishes[who] += 1
            volume[who] += max(event["size"], 0)
            seconds[who, time // SECOND] += 1
            used[name] += 1
        if name:
            topics[who].add(name)
    entries = inventory.top_clients(100)
    assert inventory.clients == len(entries) == len(topics)
    assert inventory.topics == len(set().union(*topics.values()))
    assert [e.publishes for e in entries] == sorted((e.publishes for e in entries), reverse=True)
    for entry in entries:
        who = entry.client.principal
        assert entry.publishes == publishes[who]
        assert entry.bytes == volume[who]
        assert entry.denied == denied[who]
        assert entry.topics == len(topics[who])
        assert entry.max_rate == max((n for (w, _), n in seconds.items() if w == who), default=0)
    assert dict(inventory.top_topics(10)) == dict(used)


def test_clients_past_the_capacity_are_counted_together() -> None:
    inventory = Inventory(capacity=5)
    for batch in batches([{"publish": "t", "user": f"u{n}"} for n in range(40)], 7):
        inventory.update(batch)
    entries = inventory.top_clients(100)
    assert inventory.clients == 6
    assert (entries[0].client.client_id, entries[0].publishes) == ("(further clients)", 35)
    assert sum(entry.publishes for entry in entries) == 40


def test_a_rate_is_per_second_of_observation() -> None:
    inventory = Inventory()
    for batch in batches([{"publish": "t", "user": "u", "repeat": 21, "every": 0.5}]):
        inventory.update(batch)
    (entry,) = inventory.top_clients(1)
    assert entry.mean_rate == 2.1
    assert entry.max_rate == 2
