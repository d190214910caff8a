"""Replaying what was observed against grants: what would be denied, and whether the policy means it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.compare.plain_grants import TOPICS, PlainGrants
from tests.engine.scenario import batches
from topicwarden.compare.replay import SHOWN, Outcome, Replay, Replayed
from topicwarden.events import Action, Client, Resource, ResourceKind
from topicwarden.events.observed import Observed
from topicwarden.grants import Unsaid
from topicwarden.patterns import Anything, KeyPattern, Names, Regex, parse, parse_binding
from topicwarden.patterns.mqtt import matches
from topicwarden.policy import Policy, Space, parse_policy

PUBLISH, SUBSCRIBE, CONFIGURE = Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE
POLICY = """\
topicwarden: 1
roles:
  sensor:
    members: [{user: "s*"}, {address: 10.0.0.0/8}]
    publish: [{topic: "plant/%u/out"}, {topic: "own/%c"}]
    subscribe: [{topic: "plant/%u/#"}]
"""
Listed = Mapping[tuple[Action, Space], Sequence[tuple[bool, Names]]]


def policy_of(text: str = POLICY) -> Policy:
    return parse_policy(text, "policy.yaml")


def observed(*events: Mapping[str, Any], capacity: int = 100) -> Observed:
    found = Observed(capacity)
    for batch in batches(list(events)):
        found.add(batch)
    return found


def replayed(users: Mapping[str | None, Listed], events: Observed, *said: Unsaid, policy: str = POLICY) -> Replayed:
    return Replay(policy_of(policy), [PlainGrants(users)], said).run(events)


def allowing(*patterns: str) -> Listed:
    rules = [(True, parse(pattern)) for pattern in patterns]
    return {(PUBLISH, TOPICS): rules, (SUBSCRIBE, TOPICS): rules}


def test_what_the_grants_allow_is_not_told() -> None:
    events = observed({"publish": "plant/s1/out", "user": "s1", "repeat": 3}, {"subscribe": "plant/s1/#", "user": "s1"})
    result = replayed({"s1": allowing("plant/s1/#")}, events)
    assert (result.events, result.denied, result.undecided, result.denials) == (4, 0, 0, [])


def test_what_the_policy_denies_too_is_told_apart_from_what_only_the_export_denies() -> None:
    events = observed(
        {"publish": "plant/s1/out", "user": "s1", "repeat": 2},
        {"publish": "plant/s2/out", "user": "s1", "repeat": 5},
    )
    result = replayed({"s1": allowing("nothing")}, events)
    assert (result.events, result.denied, result.by_policy, result.by_export, result.unexplained) == (7, 7, 5, 2, 2)
    # What only the export denies comes first, however seldom it was.
    first, second = result.denials
    assert (first.resource.name, first.intended, first.count, first.outcome) == ("plant/s1/out", True, 2, "denied")
    assert (second.resource.name, second.intended, second.count) == ("plant/s2/out", False, 5)
    assert second.last_ns - second.first_ns == 4_000_000_000


def test_what_the_exporter_said_explains_a_denial_by_its_place() -> None:
    events = observed({"publish": "own/c", "user": "s1", "client": "c"}, {"publish": "plant/s1/out", "user": "s1"})
    said = Unsaid("no client ids", "roles.sensor.publish[1]")
    result = replayed({"s1": {}}, events, said)
    assert (result.by_export, result.unexplained) == (2, 1)
    assert {one.resource.name: one.explained for one in result.denials} == {"own/c": True, "plant/s1/out": False}
    assert replayed({"s1": {}}, events, Unsaid("no patterns", "roles.sensor.members[0]")).unexplained == 0
    assert replayed({"s1": {}}, events, Unsaid("in general")).unexplained == 2
    # Who is unknown to the export was said to get nothing.
    assert replayed({}, events).unexplained == 0


def test_a_member_by_address_counts_as_one_for_addresses_are_not_kept() -> None:
    result = replayed({}, observed({"publish": "plant/x/out", "user": "x", "address": "10.1.1.1"}))
    assert (result.denied, result.by_export) == (1, 1)


def test_what_the_broker_refused_then_is_not_replayed() -> None:
    events = observed(
        {"publish": "other", "user": "s1", "outcome": "denied", "repeat": 4},
        {"publish": "plant/s1/out", "user": "s1"},
    )
    result = replayed({"s1": allowing("#")}, events)
    assert (result.events, result.refused, result.denied) == (1, 4, 0)


def test_names_that_were_cut_are_counted_and_not_judged() -> None:
    events = observed({"publish": "plant/s1/ou", "user": "s1", "length": 900})
    result = replayed({"s1": {}}, events)
    assert (result.events, result.unreadable, result.denied) == (0, 1, 0)


def test_a_filter_is_allowed_if_all_it_stands_for_is_and_partly_if_some_is() -> None:
    def outcome(*rules: tuple[bool, Names], wanted: str = "a/#") -> Outcome:
        grants = PlainGrants({"u": {(SUBSCRIBE, TOPICS): rules}})
        client = Client("b", "mqtt", "", "u")
        return Replay(policy_of(), [grants], []).outcome(client, SUBSCRIBE, Resource(ResourceKind.TOPIC, wanted))

    everything: Names = Anything()
    assert outcome((True, parse("#"))) is Outcome.ALLOWED
    assert outcome((True, parse("a")), (True, parse("a/+/#"))) is Outcome.ALLOWED
    assert outcome((True, parse("a/b"))) is Outcome.PARTLY
    assert outcome((True, parse("b/#"))) is Outcome.DENIED
    assert outcome() is Outcome.DENIED
    assert outcome((False, parse("a/secret")), (True, parse("#"))) is Outcome.PARTLY
    assert outcome((False, parse("b/secret")), (True, parse("#"))) is Outcome.ALLOWED
    assert outcome((True, parse("a/#")), (False, everything)) is Outcome.ALLOWED
    assert outcome((False, everything), (True, parse("a/#"))) is Outcome.DENIED
    assert outcome((False, parse("a/#")), (True, parse("a/b"))) is Outcome.DENIED
    assert outcome((True, Regex(r"^(a)\1"))) is Outcome.UNDECIDED


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["#", "a/#", "a/+", "+/b", "a/b", "c", "+"])), max_size=4),
    st.sampled_from(["#", "a/#", "a/+", "+/b", "a/b", "+/+/c"]),
)
def test_filters_are_judged_as_if_every_name_were_asked_about(rules: list[tuple[bool, str]], wanted: str) -> None:
    grants = PlainGrants({"u": {(SUBSCRIBE, TOPICS): [(allow, parse(pattern)) for allow, pattern in rules]}})
    client = Client("b", "mqtt", "", "u")
    outcome = Replay(policy_of(), [grants], []).outcome(client, SUBSCRIBE, Resource(ResourceKind.TOPIC, wanted))
    levels = ("a", "b", "c", "x")
    names = [*levels, *(f"{a}/{b}" for a in levels for b in levels)]
    names += [f"{name}/{c}" for name in names for c in levels if "/" in name]
    answers = {
        next((allow for allow, pattern in rules if matches(pattern, name)), False)
        for name in names
        if matches(wanted, name)
    }
    whole = Outcome.ALLOWED if answers == {True} else Outcome.DENIED
    expected = Outcome.PARTLY if len(answers) > 1 else whole
    assert outcome is expected


def test_partly_allowed_subscriptions_count_as_denied_and_are_told_as_such() -> None:
    events = observed({"subscribe": "plant/s1/#", "user": "s1"})
    result = replayed({"s1": allowing("plant/s1/in")}, events)
    assert (result.denied, result.partly, result.by_export) == (1, 1, 1)
    assert result.denials[0].outcome is Outcome.PARTLY


def test_keys_need_their_exchange_and_a_binding_is_made_whole_or_not_at_all() -> None:
    keys, exchange = Space("key", "x"), Space("exchange")
    one: KeyPattern = parse_binding("x")
    users: dict[str | None, Listed] = {
        "u": {
            (SUBSCRIBE, exchange): [(True, one)],
            (PUBLISH, exchange): [(True, one)],
            (SUBSCRIBE, keys): [(True, Regex(r"^a\.[^.]*\z")), (True, parse_binding("b.c"))],
            (PUBLISH, keys): [(True, parse_binding("a.#"))],
        },
        "v": {(SUBSCRIBE, keys): [(True, parse_binding("#"))]},
    }
    replay = Replay(policy_of(), [PlainGrants(users)], [])

    def outcome(user: str, action: Action, name: str, kind: ResourceKind = ResourceKind.BINDING) -> Outcome:
        return replay.outcome(Client("b", "amqp", "", user), action, Resource(kind, name, within="x"))

    assert outcome("u", SUBSCRIBE, "a.*") is Outcome.ALLOWED
    assert outcome("u", SUBSCRIBE, "a.#") is Outcome.DENIED
    assert outcome("u", SUBSCRIBE, "b.*") is Outcome.DENIED
    assert outcome("u", SUBSCRIBE, "b.c") is Outcome.ALLOWED
    assert outcome("u", PUBLISH, "a.b.c", ResourceKind.KEY) is Outcome.ALLOWED
    assert outcome("u", PUBLISH, "b", ResourceKind.KEY) is Outcome.DENIED
    assert outcome("v", SUBSCRIBE, "a") is Outcome.DENIED


def test_what_cannot_be_told_is_undecided_and_never_allowed_or_denied() -> None:
    rules: Listed = {(PUBLISH, TOPICS): [(True, Regex("(?R)?plant"))]}
    result = replayed({"s1": rules}, observed({"publish": "plant/s1/out", "user": "s1"}))
    assert (result.denied, result.undecided, result.undecided_intended) == (0, 1, 1)


def test_what_any_of_several_grants_allows_is_allowed() -> None:
    both = [PlainGrants({"s1": {}}), PlainGrants({"s1": allowing("plant/#")})]
    events = observed({"publish": "plant/s1/out", "user": "s1"})
    assert Replay(policy_of(), both, []).run(events).denied == 0


def test_a_client_without_a_virtual_host_is_judged_in_the_only_one_there_is() -> None:
    class InOne(PlainGrants):
        @property
        def accounts(self) -> Sequence[Client]:
            return [Client("b", "amqp", "", "s1", vhost="v")]

        def rights(self, client: Client) -> Any:
            return super().rights(client) if client.vhost == "v" else None

    grants = InOne({"s1": allowing("#")})
    assert Replay(policy_of(), [grants], []).run(observed({"publish": "plant/s1/out", "user": "s1"})).denied == 0


def test_only_so_many_denials_are_listed_the_largest_ones_and_the_others_counted() -> None:
    events = observed(*({"publish": f"t/{n}", "user": "s1", "repeat": n + 1} for n in range(SHOWN + 5)))
    result = replayed({}, events)
    assert result.different == SHOWN + 5
    assert [one.count for one in result.denials] == list(range(SHOWN + 5, 5, -1))


def test_progress_is_told_for_every_different_event() -> None:
    seen: list[int] = []
    events = observed({"publish": "a", "user": "s1"}, {"publish": "b", "user": "s1"})
    Replay(policy_of(), [PlainGrants({})], []).run(events, seen.append)
    assert seen == [0, 1]
