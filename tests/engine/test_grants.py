"""Changes of grants: what is remembered of them stays bounded, and the kindest reading of the policy counts."""

from __future__ import annotations

from tests.engine.scenario import START_NS
from topicwarden.engine import Engine
from topicwarden.engine.grants import MAX_REVOKED
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    GrantChange,
    Outcome,
    Resource,
    ResourceKind,
    Right,
    Tables,
)
from topicwarden.findings import load_catalogue
from topicwarden.policy import parse_policy

CATALOGUE = load_catalogue()
POLICY = """
topicwarden: 1
roles:
  sensor:
    members: [{user: "s-*", client: "c-*", vhost: plant}]
    publish: [{topic: "plant/%u/%c"}, {exchange: readings, key: "%u.%c"}]
    consume: [{queue: "%u.%c.in"}]
"""


def exchange(name: str) -> Resource:
    return Resource(ResourceKind.EXCHANGE, name)


def change(user: str, *, vhost: str | None = "plant", **rights: list[Right]) -> GrantChange:
    return GrantChange(START_NS, Client("b", "amqp", "", user, vhost=vhost), "permission", **rights)  # type: ignore[arg-type] # gained, lost


def publish(user: str, exchange_name: str, at: int) -> EventBatch:
    builder = EventBuilder(Tables())
    builder.add(
        START_NS + at,
        Action.PUBLISH,
        Client("b", "amqp", "", user, vhost="plant"),
        Resource(ResourceKind.KEY, "k", within=exchange_name),
        Outcome.ALLOWED,
        Certainty.EXACT,
    )
    return builder.take()


def changed(*changes: GrantChange) -> EventBatch:
    builder = EventBuilder(Tables())
    for one in changes:
        builder.change(one)
    return builder.take()


def codes(engine: Engine) -> list[str]:
    return [finding.type.code for finding in engine.ledger.findings() if finding.type.code != "TW110"]


def test_a_revocation_is_remembered_until_too_many_others_came_after_it() -> None:
    engine = Engine(CATALOGUE, None)
    engine.step(changed(change("a", lost=[Right(Action.PUBLISH, exchange("x"))])))
    engine.step(publish("a", "x", at=1))
    assert "TW207" in codes(engine)
    engine = Engine(CATALOGUE, None)
    engine.step(changed(change("a", lost=[Right(Action.PUBLISH, exchange("x"))])))
    for number in range(MAX_REVOKED):
        engine.step(changed(change(f"u{number}", lost=[Right(Action.PUBLISH, exchange("x"))])))
    engine.step(publish("a", "x", at=1))
    engine.step(publish(f"u{MAX_REVOKED - 1}", "x", at=1))
    (stale,) = [finding for finding in engine.ledger.findings() if finding.type.code == "TW207"]
    assert stale.client is not None
    assert stale.client.user == f"u{MAX_REVOKED - 1}"


def test_a_publish_after_a_revocation_is_said_to_be_that_and_not_an_excess_of_the_grants() -> None:
    engine = Engine(CATALOGUE, parse_policy(POLICY, "case"))
    engine.step(changed(change("other", lost=[Right(Action.PUBLISH, exchange("x"))])))
    engine.step(changed(change("s-1", lost=[Right(Action.PUBLISH, exchange("x"))])))
    engine.step(publish("s-1", "x", at=2_500_000_000))
    (stale,) = [finding for finding in engine.ledger.findings() if finding.type.code == "TW207"]
    assert stale.evidence["max_seconds"] == 2.5
    assert "TW201" not in codes(engine)


def test_rights_that_only_some_client_of_the_user_needs_are_not_held_against_the_user() -> None:
    engine = Engine(CATALOGUE, parse_policy(POLICY, "case"))
    intended = [
        Right(Action.PUBLISH, exchange("amq.topic")),
        Right(Action.PUBLISH, exchange("readings")),
        Right(Action.SUBSCRIBE, Resource(ResourceKind.QUEUE, "s-1.anything.in")),
    ]
    engine.step(changed(change("s-1", gained=intended)))
    assert codes(engine) == []
    engine.step(changed(change("s-1", gained=[Right(Action.SUBSCRIBE, Resource(ResourceKind.QUEUE, "s-2.c.in"))])))
    engine.step(changed(change("s-1", vhost="office", gained=intended[:1])))
    assert codes(engine) == ["TW101", "TW101"]


def test_a_change_that_concerns_all_virtual_hosts_is_judged_by_the_roles_of_any() -> None:
    engine = Engine(CATALOGUE, parse_policy(POLICY, "case"))
    engine.step(changed(change("s-1", vhost=None, gained=[Right(Action.PUBLISH, exchange("readings"))])))
    assert codes(engine) == []
