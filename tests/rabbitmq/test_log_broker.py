"""What the log exchange of a running node says, held against what clients really did."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.rabbitmq.logs.record import Tap, decode
from tests.rabbitmq.logs.scenarios import Stage, Truth, everyday, hostile
from topicwarden.events import NO_RESOURCE
from topicwarden_collectors.rabbitmq.log_facts import Fact, LoginRefused, Refused, Suspicious, UserAuthenticated
from topicwarden_collectors.rabbitmq.log_spelling import Spelling
from topicwarden_collectors.rabbitmq.node import Node, quoted

VHOST = "log-scenario"


@pytest.fixture(scope="module", params=[everyday, hostile], ids=lambda scenario: str(scenario.__name__))
def told(request: pytest.FixtureRequest, rabbit: Node) -> Iterator[tuple[Stage, list[Fact]]]:
    """Play a scenario; return what was done and what the log said of it."""
    scenario: Callable[[Stage], None] = request.param
    stage = Stage(rabbit, VHOST)
    before = {user["name"] for user in rabbit.api("GET", "/users")}
    tap = Tap(rabbit)
    try:
        tap.wait_until_it_speaks()
        scenario(stage)
        rabbit.add_user("the end", "x")
        facts = decode(tap.take(b"Created user 'the end'"), Spelling.BYTES)
        yield stage, facts
    finally:
        tap.close()
        rabbit.api("DELETE", f"/vhosts/{quoted(VHOST)}")
        for user in rabbit.api("GET", "/users"):
            if user["name"] not in before:
                rabbit.api("DELETE", f"/users/{quoted(user['name'])}")


def _port(fact: Fact) -> int | None:
    return None if fact.connection is None else int(fact.connection.partition(" -> ")[0].rpartition(":")[2])


def _told_by(facts: list[Fact], truth: Truth) -> list[Refused]:
    return [fact for fact in facts if isinstance(fact, Refused) and _port(fact) == truth.port]


def test_every_refusal_is_told_and_by_the_connection_that_was_refused(told: tuple[Stage, list[Fact]]) -> None:
    stage, facts = told
    for port in {truth.port for truth in stage.truths}:
        done = [truth for truth in stage.truths if truth.port == port]
        assert len(_told_by(facts, done[0])) == len(done), done


def test_what_is_told_without_doubt_is_what_was_done(told: tuple[Stage, list[Fact]]) -> None:
    stage, facts = told
    clear = 0
    for port in {truth.port for truth in stage.truths}:
        done = [truth for truth in stage.truths if truth.port == port]
        for truth, fact in zip(done, _told_by(facts, done[0]), strict=True):
            if fact.ambiguous:
                assert fact.resource == NO_RESOURCE
                continue
            clear += 1
            assert (fact.operation, fact.resource, fact.quoted_user, fact.vhost) == (
                truth.operation,
                truth.resource,
                truth.user,
                truth.vhost,
            )
    assert clear > len(stage.truths) / 2


def test_nobody_who_was_not_there_is_ever_named(told: tuple[Stage, list[Fact]]) -> None:
    _, facts = told
    for fact in facts:
        if isinstance(fact, Refused | UserAuthenticated):
            assert fact.quoted_user not in ("admin", "root"), fact
        if fact.connection is not None:
            assert fact.connection.startswith("127.0.0.1:")
            assert "10.0.0." not in fact.connection


def test_an_everyday_log_leaves_no_doubt(told: tuple[Stage, list[Fact]], request: pytest.FixtureRequest) -> None:
    if request.node.callspec.id != "everyday":
        return  # the same fixture's other scenario is made to leave doubts
    _, facts = told
    assert not [fact for fact in facts if isinstance(fact, Suspicious) or getattr(fact, "ambiguous", False)]
    reasons = {(fact.protocol, fact.reason) for fact in facts if isinstance(fact, LoginRefused)}
    assert reasons == {
        ("amqp", "credentials"),
        ("amqp", "vhost"),
        ("amqp", "no such vhost"),
        ("http", "credentials"),
        ("http", "permission"),
        ("mqtt", "credentials"),
        ("mqtt", "vhost"),
        ("mqtt", "no such vhost"),
        ("stomp", "credentials"),
        ("stomp", "vhost"),
    }
    peers = {fact.protocol for fact in facts if isinstance(fact, LoginRefused) and fact.connection is None}
    assert peers == {"http"}


def test_with_the_log_exchange_alone_configured_a_node_writes_no_log_file(rabbit: Node) -> None:
    """3.10.8: `log.exchange = true` takes the place of the log file, unless `log.file` is set, too."""
    assert "log.file" not in (rabbit.folder / "rabbitmq.conf").read_text()
    assert not rabbit.log.exists()
