"""The engine equals the plain oracle, however the events are cut; and its promises about floods and hostile input."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.oracle import Oracle, summary
from tests.engine.scenario import batches
from topicwarden.engine import Engine
from topicwarden.findings import load_catalogue
from topicwarden.policy import Policy

CATALOGUE = load_catalogue()
KNOWN = [*CATALOGUE, *(t.name for t in CATALOGUE.values())]
USERS = ["a", "A", "b1", "bl"]
CLIENTS = ["a", "c2", "b1"]

filters = st.sampled_from(
    [
        "p/%u/t",
        "p/+/t",
        "p/a/t",
        "p/#",
        "#",
        "p/%c/#",
        "%u/%c",
        "%u/x/%u",
        "q/%u",
        "q/tell/+",
        "q/+/%u",
        "+/%u/#",
        "p/A/t",
    ]
)
topics = st.sampled_from(
    ["p/a/t", "p/A/t", "p/b1/t", "p/bl/t", "q/a", "q/tell/x", "q/te1l/x", "q/tell/a", "a/a", "a/c2", "a/x/a", "a/x/b1",
     "b1/a", "p", "r/s", "p/а/t", "p/​a/t", "p/Tell/t", "p/tell/t", "x/y/z/u/v", "$SYS/a"]
)  # fmt: skip
wanted = st.sampled_from(
    ["p/a/t", "p/#", "#", "+/#", "q/+", "$share/g/p/+/t", "$SYS/#", "p/a", "a/+", "p/+/t", "q/tell/x", "p/#/x"]
)
rates = st.sampled_from(["1/s", "2/s", "3/min", "1000/s"])


def optional(**keys: Any) -> Any:
    return st.fixed_dictionaries({}, optional=keys)


limits: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"rate": rates},
        optional={"burst": st.integers(1, 5), "byte_rate": st.sampled_from(["10/s", "7/min", "3MiB/h"])},
    ),
    st.fixed_dictionaries({"byte_rate": st.sampled_from(["10/s", "1KiB/min"]), "byte_burst": st.integers(900, 2000)}),
)
publish_rule = st.builds(
    lambda topic, limit, size: {"topic": topic, **limit, **size},
    filters,
    limits,
    st.sampled_from([{}, {}, {"max_size": 100}, {"max_size": 500}]),
)
member = st.one_of(
    st.sampled_from(USERS).map(lambda u: {"user": u}),
    st.just({"user": "*"}),
    st.sampled_from(CLIENTS).map(lambda c: {"client": c}),
    st.just({"anonymous": True}),
    st.just({"client": "c*", "user": "a"}),
    st.just({"address": "10.0.0.1"}),
)
role = st.builds(
    lambda members, publish, subscribe, limit: {
        "members": members,
        "publish": publish,
        "subscribe": [{"topic": t} for t in subscribe],
        **limit,
    },
    st.lists(member, min_size=1, max_size=2),
    st.lists(publish_rule, max_size=4),
    st.lists(filters, max_size=2),
    limits,
)
policies = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"topicwarden": st.just(1), "roles": st.dictionaries(st.sampled_from(["r", "s", "t"]), role, max_size=3)},
        optional={
            "naming": st.just(
                [
                    {"within": {"topic": "p/#"}, "levels": ["p", "[a-z]1?", "t"]},
                    {"within": {"topic": "+/x/#"}, "levels": ["a", "x"], "more": True},
                ]
            ),
            "payload": st.just(
                {"max_entropy": 7.0, "min_size_for_entropy": 32, "text_only": ["p/#"], "no_encoded": ["+/a/#", "q/+"]}
            ),
            "thresholds": st.just(
                {
                    "denials": "2/min",
                    "login_failures": "1/min",
                    "new_topics": "1/min",
                    "max_name_length": 8,
                    "max_levels": 4,
                }
            ),
            "exceptions": st.just(
                [
                    {"finding": "TW201", "client": "a", "reason": "soon", "until": "2026-06-01"},
                    {"finding": "TW201", "client": "*", "topic": "p/#", "reason": "past", "until": "2026-05-31"},
                    {"finding": "rate.messages", "client": "c*", "reason": "later", "until": "2026-05-01"},
                ]
            ),
        },
    ),
)
who = {
    "user": st.sampled_from(USERS),
    "client": st.sampled_from(CLIENTS),
    "address": st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    "outcome": st.sampled_from(["allowed", "allowed", "denied", "unknown"]),
    "certainty": st.sampled_from(["exact", "inferred"]),
    "identity": st.sampled_from(["verified", "unknown"]),
    "every": st.sampled_from([0, 0.2, 0.9, 7, 400]),
    "repeat": st.integers(1, 4),
    "count": st.integers(1, 3),
}
publish = st.fixed_dictionaries(
    {"publish": topics},
    optional={
        **who,
        "size": st.sampled_from([0, 5, 64, 101, 256, 1000]),
        "entropy": st.sampled_from([4.0, 5.8, 7.2]),
        "shape": st.sampled_from(["binary", "hex", "base64", "text", "unknown"]),
        "length": st.just(40),
        "back": st.sampled_from([0.5, 2, 5000]),
    },
)
others = st.one_of(
    st.fixed_dictionaries({"subscribe": wanted}, optional=who),
    st.fixed_dictionaries({"login": st.just("")}, optional=who),
    st.fixed_dictionaries({"connect": st.just("")}, optional=who),
)
scenarios = st.lists(st.one_of(publish, publish, publish, others), max_size=30)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies, scenarios, st.integers(1, 40))
def test_the_engine_equals_the_oracle_however_events_are_cut(
    written: dict[str, Any] | None, scenario: list[dict[str, Any]], size: int
) -> None:
    policy = None if written is None else Policy.model_validate(written, context={"known_findings": KNOWN})
    oracle = Oracle(CATALOGUE, policy)
    expected = summary(oracle.run(batches(scenario)))
    whole, parts = Engine(CATALOGUE, policy), Engine(CATALOGUE, policy)
    for batch in batches(scenario):
        whole.step(batch)
    for batch in batches(scenario, size):
        parts.step(batch)
    assert summary(whole.ledger) == expected
    assert summary(parts.ledger) == expected
    assert [f.evidence for f in whole.ledger.findings()] == [f.evidence for f in parts.ledger.findings()]
    assert [f.fingerprint for f in whole.ledger.findings()] == [f.fingerprint for f in parts.ledger.findings()]


EXCHANGES = ["x", "y", "amq.topic"]
keys = st.sampled_from(["a", "a.b", "a.b.c", "", "a.B", "b1.a", "bl.a", "a..b", "u.a", "amq.gen-x", "p.т"])
key_patterns = st.sampled_from(["#", "a.#", "a.*", "*", "%u.a", "a.%c.#", "#.b", "a.#.c", "bl.a", "", "p.t", "#.#.#.#"])
queues = st.sampled_from(["q.a", "q.b", "amq.gen-1", "u.q"])
queue_patterns = st.sampled_from(["q.*", "#", "%u.q", "q.a"])
amqp_place = st.builds(
    lambda exchange, key: {"exchange": exchange, "key": key}, st.sampled_from(EXCHANGES), key_patterns
)
amqp_role = st.builds(
    lambda members, publish, subscribe, consume, configure, limit: {
        "members": members,
        "publish": publish,
        "subscribe": subscribe,
        "consume": [{"queue": queue} for queue in consume],
        "configure": configure,
        **limit,
    },
    st.lists(member, min_size=1, max_size=2),
    st.lists(st.builds(lambda place, limit: {**place, **limit}, amqp_place, limits) | publish_rule, max_size=4),
    st.lists(amqp_place | filters.map(lambda topic: {"topic": topic}), max_size=2),
    st.lists(queue_patterns, max_size=2),
    st.lists(
        st.one_of(
            queue_patterns.map(lambda queue: {"queue": queue}),
            st.sampled_from(["x", "#"]).map(lambda exchange: {"exchange": exchange}),
        ),
        max_size=2,
    ),
    limits,
)
amqp_policies = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"topicwarden": st.just(1), "roles": st.dictionaries(st.sampled_from(["r", "s"]), amqp_role, max_size=2)},
        optional={
            "naming": st.just(
                [
                    {"within": {"exchange": "x", "key": "a.#"}, "levels": ["a", "[bc]"], "more": True},
                    {"within": {"exchange": "y", "key": "*.*"}, "levels": ["[a-z]+", "[a-z]"]},
                    {"within": {"queue": "q.*"}, "levels": ["q", "a"]},
                ]
            ),
            "thresholds": st.just({"new_topics": "1/min", "max_levels": 2}),
            "exceptions": st.just(
                [
                    {
                        "finding": "TW201",
                        "user": "a",
                        "exchange": "x",
                        "key": "a.#",
                        "reason": "soon",
                        "until": "2026-06-01",
                    },
                    {
                        "finding": "TW203",
                        "client": "*",
                        "exchange": "x",
                        "key": "a.#",
                        "reason": "x",
                        "until": "2026-07-01",
                    },
                    {"finding": "TW202", "user": "*", "queue": "q.*", "reason": "past", "until": "2026-05-31"},
                ]
            ),
        },
    ),
)
amqp_events = st.one_of(
    st.builds(
        lambda name, exchange, rest: {"publish": name, "exchange": exchange, **rest},
        keys,
        st.sampled_from(EXCHANGES),
        optional(**who, size=st.sampled_from([0, 64, 1000])),
    ),
    st.builds(
        lambda name, exchange, literal, rest: {"subscribe": name, "exchange": exchange, "literal": literal, **rest},
        key_patterns.filter(lambda key: "%" not in key),
        st.sampled_from(EXCHANGES),
        st.booleans(),
        optional(**who),
    ),
    st.builds(lambda name, rest: {"consume": name, **rest}, queues, optional(**who)),
    st.builds(lambda name, rest: {"configure": name, **rest}, queues, optional(**who, kind=st.just("exchange"))),
    publish,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(amqp_policies, st.lists(amqp_events, max_size=30), st.integers(1, 40))
def test_keys_queues_and_exchanges_are_judged_as_the_oracle_does(
    written: dict[str, Any] | None, scenario: list[dict[str, Any]], size: int
) -> None:
    policy = None if written is None else Policy.model_validate(written, context={"known_findings": KNOWN})
    expected = summary(Oracle(CATALOGUE, policy).run(batches(scenario)))
    engine = Engine(CATALOGUE, policy)
    for batch in batches(scenario, size):
        engine.step(batch)
    assert summary(engine.ledger) == expected
