"""Changes of grants: what is remembered of them stays bounded, and the kindest reading of the policy counts."""

from __future__ import annotations

import pytest

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


ACCEPTING = """
topicwarden: 1
roles: {r: {members: [{user: "s-*"}], publish: [{exchange: readings, key: "#"}]}}
exceptions:
  - {%s, reason: rollout, until: %s}
"""
GAINED = Right(Action.PUBLISH, exchange("orders"))
LOST = Right(Action.PUBLISH, exchange("readings"))


def accepted(exception: str, until: str = "2026-06-01", **more: object) -> dict[str, bool]:
    """Return which findings about one change an exception accepts; the change is made on 2026-06-01."""
    made = {"gained": [GAINED], "lost": [LOST], "powers": ["administrator"], "vhost": "plant", "user": "s-1", **more}
    grantee = Client("b", "amqp", "", made["user"], vhost=made["vhost"])  # type: ignore[arg-type] # of any type
    engine = Engine(CATALOGUE, parse_policy(ACCEPTING % (exception, until), "case"))
    rights = (made["gained"], made["lost"])
    engine.step(changed(GrantChange(START_NS, grantee, "permission", None, "", "", *rights, 0, made["powers"])))  # type: ignore[arg-type] # of any type
    return {finding.type.code: finding.accepted is not None for finding in engine.ledger.findings()}


EVERY = {"TW101": False, "TW103": False, "TW110": False, "TW111": False}


@pytest.mark.parametrize(
    ("exception", "codes"),
    [
        ("finding: TW110, user: s-1", {"TW110"}),
        ("finding: grant.changed, user: 's-*', broker: b, vhost: plant, change: permission", {"TW110"}),
        ("finding: TW110, vhost: 'p*', change: '*'", {"TW110"}),
        ("finding: TW110, user: s-2", set()),
        ("finding: TW110, user: s-1, broker: c", set()),
        ("finding: TW110, user: s-1, vhost: office", set()),
        ("finding: TW110, user: s-1, change: tags", set()),
        ("finding: TW111, user: s-1, change: administrator", {"TW111"}),
        ("finding: TW111, client: s-1", {"TW111"}),
        ("finding: TW111, user: s-1, change: monitoring", set()),
        ("finding: TW111, user: s-1, change: permission", set()),
        ("finding: TW101, user: s-1, change: permission", {"TW101"}),
        ("finding: TW103, user: s-1, change: perm*", {"TW103"}),
        # How grants stand is another question.
        ("finding: TW101, user: s-1", set()),
        ("finding: TW103, user: s-1", set()),
        ("finding: TW101, grant: permission", set()),
        ("finding: TW110, user: s-1, exchange: orders, key: '#'", set()),
    ],
)
def test_changes_of_grants_are_accepted_by_user_and_what_was_changed(exception: str, codes: set[str]) -> None:
    assert accepted(exception) == EVERY | dict.fromkeys(codes, True)


def test_a_change_after_the_last_day_is_open_and_says_that_the_exception_ran_out() -> None:
    assert accepted("finding: TW101, user: s-1, change: permission", until="2026-05-31") == EVERY | {"TW910": False}


def test_changes_that_are_of_no_user_are_accepted_by_virtual_host() -> None:
    exception = "finding: TW110, vhost: plant, change: permission"
    assert accepted(exception, user=None) == {"TW110": True, "TW111": False}
    assert accepted(exception, user=None, vhost="office") == {"TW110": False, "TW111": False}
    assert accepted("finding: TW110, user: '*'", user=None) == {"TW110": False, "TW111": False}
