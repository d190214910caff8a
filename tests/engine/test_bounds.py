"""What attackers make up costs bounded memory and hides nothing."""

from __future__ import annotations

import pytest

from tests.engine.oracle import Oracle, summary
from tests.engine.scenario import START_NS, batches
from topicwarden.engine import Engine
from topicwarden.engine import classify as classes
from topicwarden.engine.lanes import SlotPool
from topicwarden.engine.novelty import TopicMemory
from topicwarden.engine.reporter import MAX_CAUSES
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBuilder,
    Identity,
    Outcome,
    Resource,
    ResourceKind,
    Table,
    Tables,
)
from topicwarden.findings import MAX_WITNESSES, load_catalogue
from topicwarden.policy import Policy

CATALOGUE = load_catalogue()
POLICY = Policy.model_validate(
    {"topicwarden": 1, "roles": {"r": {"members": [{"user": "u*"}], "publish": [{"topic": "own/%u"}]}}}
)


def test_a_flood_of_unknown_clients_is_counted_together_and_hides_no_other_finding() -> None:
    engine = Engine(CATALOGUE, POLICY)
    for batch in batches([{"publish": "x", "user": f"eve{n}"} for n in range(MAX_CAUSES + 500)], 1000):
        engine.step(batch)
    for batch in batches([{"publish": "x", "user": "u1"}]):
        engine.step(batch)
    unknown = [f for f in engine.ledger.findings() if f.type.code == "TW230"]
    assert len(unknown) == MAX_CAUSES + 1
    assert next(f for f in unknown if f.client is None).count == 500
    assert [f.count for f in engine.ledger.findings() if f.type.code == "TW201"] == [1]


def test_a_full_ledger_is_itself_a_finding() -> None:
    engine = Engine(CATALOGUE, POLICY)
    engine.ledger.capacity = 3
    for batch in batches([{"publish": "x", "user": f"u{n}"} for n in range(10)], 4):
        engine.step(batch)
    (overflow,) = [f for f in engine.ledger.findings() if f.type.code == "TW902"]
    assert overflow.scope == ("findings",)
    assert overflow.count == engine.ledger.overflow == 7


def test_a_storm_keeps_few_witnesses_and_counts_the_rest() -> None:
    engine = Engine(CATALOGUE, POLICY)
    for batch in batches([{"publish": "x/{n}", "user": "u1", "repeat": 3000, "every": 0.001}], 700):
        engine.step(batch)
    (outside,) = [f for f in engine.ledger.findings() if f.type.code == "TW201"]
    assert list(outside.witnesses) == [f"x/{n}" for n in range(MAX_WITNESSES)]
    assert outside.count == 3000
    assert outside.more_witnesses == 3000 - MAX_WITNESSES


def test_numbers_that_get_a_new_meaning_are_judged_by_the_new_one() -> None:
    tables = Tables(clients=Table[Client](16), resources=Table[Resource](16))
    engine, builder = Engine(CATALOGUE, POLICY), EventBuilder(tables)
    for number in range(400):
        user = f"u{number % 90}"
        client = Client("b", "mqtt", user, user, identity=Identity.VERIFIED)
        wrong = number % 7 == 0
        topic = Resource(ResourceKind.TOPIC, f"own/{'nobody' if wrong else user}")
        builder.add(START_NS + number * 10**9, Action.PUBLISH, client, topic, Outcome.ALLOWED, Certainty.EXACT)
        if tables.must_flush:
            engine.step(builder.take())
    engine.step(builder.take())
    outside = [f for f in engine.ledger.findings() if f.type.code == "TW201"]
    assert sum(f.count for f in outside) == len(range(0, 400, 7))
    assert all(list(f.witnesses) == ["own/nobody"] for f in outside)
    overflows = {f.scope for f in engine.ledger.findings() if f.type.code == "TW902"}
    assert overflows == {("clients",), ("topics",)}
    (lane,) = engine._lanes.values()
    assert len(lane.slots._held) <= 3 * 16


def test_meters_are_given_back_when_nobody_holds_them_and_start_anew() -> None:
    pool = SlotPool()
    first = pool.acquire("a", 2)
    assert pool.acquire("a", 2) == first
    pool.tat[first] = 7
    pool.release("a")
    assert pool.acquire("b", 2) != first
    pool.release("a")
    assert pool.acquire("c", 2) == first
    assert pool.tat[first] == 0


def test_decisions_stay_exact_when_the_table_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_MAX_TOPIC_CLASSES", 4)
    monkeypatch.setattr(classes, "_MAX_IDENTITIES", 3)
    roles = {
        f"r{n}": {
            "members": [{"user": f"u{n}"}],
            "publish": [{"topic": f"t/{n}/#"}, {"topic": f"+/{n}/%u", "rate": "1/s"}],
        }
        for n in range(8)
    }
    policy = Policy.model_validate({"topicwarden": 1, "roles": roles})
    scenario = [
        {"publish": f"{a}/{n}/{b}", "user": f"u{m}", "every": 0.1, "repeat": 2}
        for n in range(8)
        for m in (n, (n + 1) % 8)
        for a, b in (("t", "x"), ("s", f"u{m}"), ("s", "x"))
    ]
    engine = Engine(CATALOGUE, policy)
    for batch in batches(scenario):
        engine.step(batch)
    assert engine._classifier is not None
    assert engine._classifier.overflow
    assert summary(engine.ledger) == summary(Oracle(CATALOGUE, policy).run(batches(scenario)))
    assert {f.type.code for f in engine.ledger.findings()} >= {"TW201", "TW211"}


def test_a_topic_is_new_once_for_each_broker() -> None:
    memory = TopicMemory()
    assert memory.is_new("b", "t")
    assert not memory.is_new("b", "t")
    assert memory.is_new("c", "t")
    assert memory.is_new("b", "\ud800")


def test_two_sources_do_not_share_numbers() -> None:
    engine = Engine(CATALOGUE, POLICY)
    for user in ("u1", "eve", "u2"):
        for batch in batches([{"publish": f"own/{user}", "user": user}]):
            engine.step(batch)
    assert [f.type.code for f in engine.ledger.findings()] == ["TW230"]
