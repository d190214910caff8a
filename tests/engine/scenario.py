"""The compact event syntax of the rules' cases, turned into event batches.

One event is a mapping: `{publish|subscribe|connect|login|disconnect: NAME, user, client, address, outcome, certainty,
identity, at, back, count, size, entropy, shape, qos, retain, length, repeat, every}`. With `exchange`, NAME is a key to
publish with or a binding key (`literal: true`: of a direct exchange) to subscribe with; `consume: QUEUE` and
`configure: QUEUE` are about queues, `configure` with `kind: exchange` about exchanges. A change of grants is `{grant:
USER, what, by, vhost, before, after, gained, lost, powers, at}`; its rights are written `publish exchange X`. `client`
defaults to the user; without a user the client is
anonymous. `at` is in seconds from the scenario's start, by default one second after the
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
    GrantChange,
    Identity,
    Notice,
    Outcome,
    Resource,
    ResourceKind,
    Right,
    Shape,
    Tables,
)
from topicwarden.findings import Catalogue, Finding
from topicwarden.policy import parse_baseline, parse_policy

SECOND = 1_000_000_000
START_NS = 1_780_272_000 * SECOND
"""2026-06-01 00:00 UTC."""
ACTIONS = {
    "publish": Action.PUBLISH,
    "subscribe": Action.SUBSCRIBE,
    "connect": Action.CONNECT,
    "login": Action.AUTHENTICATE,
    "disconnect": Action.DISCONNECT,
    "consume": Action.SUBSCRIBE,
    "configure": Action.CONFIGURE,
}
KEYS = {
    *ACTIONS,
    "user",
    "client",
    "address",
    "outcome",
    "certainty",
    "identity",
    "at",
    "size",
    "entropy",
    "shape",
    "qos",
    "retain",
    "length",
    "repeat",
    "every",
    "count",
    "back",
    "exchange",
    "literal",
    "kind",
    "vhost",
}
CHANGE_KEYS = {"grant", "what", "by", "vhost", "before", "after", "gained", "lost", "powers", "at"}  # fmt: skip


def client_of(event: Mapping[str, Any]) -> Client:
    user = event.get("user")
    known = Identity.ANONYMOUS if user is None else Identity.VERIFIED
    return Client(
        broker="b",
        protocol="amqp" if {"exchange", "consume", "configure", "vhost"} & set(event) else "mqtt",
        client_id=event.get("client", user or ""),
        user=user,
        vhost=event.get("vhost"),
        address=event.get("address"),
        identity=Identity(event.get("identity", known)),
    )


def resource_of(event: Mapping[str, Any], kind: str, name: str) -> Resource:
    length = event.get("length", -1)
    if kind in ("consume", "configure"):
        return Resource(ResourceKind[event.get("kind", "queue").upper()], name, length)
    if "exchange" in event:
        pattern = kind == "subscribe" and not event.get("literal", False)
        return Resource(ResourceKind.BINDING if pattern else ResourceKind.KEY, name, length, event["exchange"])
    return Resource(ResourceKind.TOPIC, name, length) if name else NO_RESOURCE


def change_of(event: Mapping[str, Any], time_ns: int) -> GrantChange:
    def rights(key: str) -> list[Right]:
        split = [text.split(" ", 2) for text in event.get(key, ())]
        return [Right(Action[a.upper()], Resource(ResourceKind[k.upper()], name)) for a, k, name in split]

    assert set(event) <= CHANGE_KEYS, event
    by = event.get("by")
    return GrantChange(
        time_ns,
        Client("b", "amqp", "", event["grant"], vhost=event.get("vhost")),
        event.get("what", "permission"),
        None if by is None else Client("b", "amqp", "", by),
        event.get("before"),
        event.get("after"),
        rights("gained"),
        rights("lost"),
        powers=event.get("powers", ()),
    )


def expanded(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any], str, str]]:
    """Yield each single event: time, its mapping, kind and name."""
    now = -1.0
    for event in events:
        if "notice" in event:
            yield START_NS, event, "notice", event["notice"]
            continue
        if "grant" in event:
            now = event.get("at", now + 1)
            yield START_NS + round(now * SECOND), event, "grant", event["grant"]
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
        if kind == "grant":
            builder.change(change_of(event, time_ns))
            continue
        outcome = Outcome[event.get("outcome", "allowed").upper()]
        builder.add(
            time_ns,
            ACTIONS[kind],
            client_of(event),
            resource_of(event, kind, name),
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
    catalogue: Catalogue,
    policy: str | None,
    events: Sequence[Mapping[str, Any]],
    size: int = 1 << 30,
    *,
    baseline: str | None = None,
    scoring: bool = False,
) -> list[Finding]:
    """Return all findings of a scenario; publishes are scored with a baseline, or when asked to."""
    engine = Engine(
        catalogue,
        None if policy is None else parse_policy(policy, "case"),
        baseline=None if baseline is None else parse_baseline(baseline, "case"),
        scoring=scoring,
    )
    for batch in batches(events, size):
        engine.step(batch)
    return engine.ledger.findings()
