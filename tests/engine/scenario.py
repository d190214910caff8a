"""The compact event syntax of the rules' cases, turned into event batches.

One event is a mapping: `{publish|subscribe|connect|login|disconnect: NAME, user, client, address, outcome, certainty,
identity, at, back, count, size, entropy, shape, qos, retain, length, repeat, every}`. `client` defaults to the user;
without a user the client is anonymous. `at` is in seconds from the scenario's start, by default one second after the
event before, or `back` seconds less. `repeat: n` makes n of them `every` (1) seconds apart, with `{n}` in the name
replaced by their number. A notice is `{notice: CODE, scope, count, witness, evidence}`. The broker is called `b`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from topicwarden.engine import Engine
from topicwarden.events import (
    NO_RESOURCE,
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    Identity,
    Notice,
    Outcome,
    Resource,
    ResourceKind,
    Shape,
    Tables,
)
from topicwarden.findings import Catalogue, Finding
from topicwarden.policy import parse_policy

SECOND = 1_000_000_000
START_NS = 1_780_272_000 * SECOND
"""2026-06-01 00:00 UTC."""
ACTIONS = {
    "publish": Action.PUBLISH,
    "subscribe": Action.SUBSCRIBE,
    "connect": Action.CONNECT,
    "login": Action.AUTHENTICATE,
    "disconnect": Action.DISCONNECT,
}
KEYS = {
    *ACTIONS, "user", "client", "address", "outcome", "certainty", "identity", "at", "size", "entropy", "shape", "qos",
    "retain", "length", "repeat", "every", "count", "back",
}  # fmt: skip


def client_of(event: Mapping[str, Any]) -> Client:
    user = event.get("user")
    known = Identity.ANONYMOUS if user is None else Identity.VERIFIED
    return Client(
        broker="b",
        protocol="mqtt",
        client_id=event.get("client", user or ""),
        user=user,
        address=event.get("address"),
        identity=Identity(event.get("identity", known)),
    )


def expanded(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any], str, str]]:
    """Yield each single event: time, its mapping, kind and name."""
    now = -1.0
    for event in events:
        if "notice" in event:
            yield START_NS, event, "notice", event["notice"]
            continue
        unknown = set(event) - KEYS
        assert not unknown, f"unknown keys {unknown} in {event}"
        (kind,) = [key for key in event if key in ACTIONS]
        every = event.get("every", 1)
        now = event.get("at", now + 1 - event.get("back", 0)) - every
        for number in range(event.get("repeat", 1)):
            now += every
            yield START_NS + round(now * SECOND), event, kind, event[kind].replace("{n}", str(number))


def batches(events: Sequence[Mapping[str, Any]], size: int = 1 << 30) -> Iterator[EventBatch]:
    """Build the scenario's batches of at most `size` events."""
    builder = EventBuilder(Tables())
    for time_ns, event, kind, name in expanded(events):
        if kind == "notice":
            rest = {key: event[key] for key in ("scope", "count", "witness", "evidence") if key in event}
            builder.notice(Notice(name, time_ns, "b", **rest))
            continue
        outcome = Outcome[event.get("outcome", "allowed").upper()]
        builder.add(
            time_ns,
            ACTIONS[kind],
            client_of(event),
            Resource(ResourceKind.TOPIC, name, event.get("length", -1)) if name else NO_RESOURCE,
            outcome,
            Certainty[event.get("certainty", "unknown" if outcome is Outcome.UNKNOWN else "exact").upper()],
            **{key: event[key] for key in ("size", "entropy", "qos", "retain", "count") if key in event},
            shape=Shape[event.get("shape", "unknown").upper()],
        )
        if len(builder) >= size or builder.tables.must_flush:
            yield builder.take()
    if not builder.empty:
        yield builder.take()


def run(
    catalogue: Catalogue, policy: str | None, events: Sequence[Mapping[str, Any]], size: int = 1 << 30
) -> list[Finding]:
    """Return all findings of a scenario."""
    engine = Engine(catalogue, None if policy is None else parse_policy(policy, "case"))
    for batch in batches(events, size):
        engine.step(batch)
    return engine.ledger.findings()
