"""From where a client receives by way of queues that others have bound: reading the queue is all it takes (3.10.8)."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from topicwarden.events import Action, Certainty
from topicwarden.grants import Path, Rights
from topicwarden.patterns import Anything, Names, literal_key, parse_binding
from topicwarden.policy import Space
from topicwarden_collectors.rabbitmq.exchanges import DEFAULT
from topicwarden_collectors.rabbitmq.grants_rules import EXCHANGES, QUEUES, Decider, Row
from topicwarden_collectors.rabbitmq.grants_topology import KnownExchange, Topology

MAX_STEPS: Final = 256
"""Exchanges and queues looked back to from one queue."""
MAX_PATHS: Final = 10_000
_EVERYTHING: Final = Anything()


_Place = tuple[str, str]
"""`exchange` or `queue`, and its name."""


@dataclass(frozen=True, slots=True)
class _Feed:
    """Something that messages come from."""

    place: _Place
    names: Names
    """Their keys."""
    step: str
    sure: bool = True


def received(row: Row, rights: Rights, decider: Decider) -> Iterator[Path]:
    """Yield what flows into queues that a client may read, out of exchanges that it may not read so."""
    feeds = _feeds(decider.topology)
    count = 0
    for queue, sure in decider.matched_queues(row.permission.read).items():
        if not sure or ("queue", queue) not in feeds:
            continue
        for path in _into(row, rights, feeds, queue):
            count += 1
            if count > MAX_PATHS:
                return
            yield path


def _into(row: Row, rights: Rights, feeds: Mapping[_Place, list[_Feed]], queue: str) -> Iterator[Path]:
    waiting: deque[tuple[_Place, tuple[str, ...], bool]] = deque([(("queue", queue), (), True)])
    seen: set[_Place] = {("queue", queue)}
    while waiting and len(seen) < MAX_STEPS:
        place, steps, sure = waiting.popleft()
        for feed in feeds.get(place, ()):
            further = (feed.step, *steps)
            certain = sure and feed.sure
            kind, name = feed.place
            if not _open(rights, feed.place):
                yield Path(
                    Action.SUBSCRIBE,
                    Space("key", name) if kind == "exchange" else QUEUES,
                    feed.names if kind == "exchange" else literal_key(name),
                    ", then ".join(further),
                    row.read,
                    Certainty.EXACT if certain else Certainty.INFERRED,
                    queue=queue,
                )
            origin = feed.place
            if origin not in seen:
                seen.add(origin)
                # What comes from further back has to get through all bindings on the way.
                waiting.append((origin, further, certain and feed.names == _EVERYTHING))


def _open(rights: Rights, place: _Place) -> bool:
    """Whether the client may receive everything from there anyway; nobody can bind to the default exchange."""
    kind, name = place
    if name == DEFAULT:
        return True
    if kind == "queue":
        return bool(rights.rules(Action.SUBSCRIBE, QUEUES).decide(name).allowed)
    if not rights.rules(Action.SUBSCRIBE, EXCHANGES).decide(name).allowed:
        return False
    return any(rule.names == _EVERYTHING for rule in rights.rules(Action.SUBSCRIBE, Space("key", name)).rules)


_KNOWN: WeakKeyDictionary[Topology, dict[_Place, list[_Feed]]] = WeakKeyDictionary()


def _feeds(topology: Topology) -> Mapping[_Place, list[_Feed]]:
    """Return for each queue and exchange where its messages come from."""
    found = _KNOWN.get(topology)
    if found is None:
        found = defaultdict(list)
        for exchange in topology.exchanges.values():
            _from_exchange(exchange, found)
        for queue in topology.queues.values():
            for lead in queue.dead_letters:
                step = f"dead letters of queue {queue.name!r}"
                target = ("queue", lead.key) if lead.exchange == DEFAULT and lead.key else ("exchange", lead.exchange)
                found[target].append(_Feed(("queue", queue.name), _EVERYTHING, step, lead.sure))
        _KNOWN[topology] = found
    return found


def _from_exchange(exchange: KnownExchange, found: dict[_Place, list[_Feed]]) -> None:
    for bound, kind in ((exchange.to_queues, "queue"), (exchange.to_exchanges, "exchange")):
        for key, target in bound:
            names, sure = _names(exchange, key)
            step = f"the binding of {exchange.name!r} to {kind} {target!r}"
            found[kind, target].append(_Feed(("exchange", exchange.name), names, step, sure))
    for lead in exchange.alternates:
        step = f"the alternate exchange of {exchange.name!r}"
        sure = lead.sure and not exchange.bound
        found["exchange", lead.exchange].append(_Feed(("exchange", exchange.name), _EVERYTHING, step, sure))


def _names(exchange: KnownExchange, key: str) -> tuple[Names, bool]:
    match exchange.type:
        case "topic":
            return parse_binding(key), True
        case "direct":
            return literal_key(key), True
        case "fanout":
            return _EVERYTHING, True
        case _:
            return _EVERYTHING, False
