"""Where a client's messages get although no permission of its own says so, and whose it receives.

Each way was tried with RabbitMQ 3.10.8 (`tests/rabbitmq/test_grants_paths.py` does it on a running node):

- Routing keys in the headers CC and BCC are routed by, and before 4.0.3 not held against topic permissions. Where they
  are, all of a message's keys must be permitted by the first exchange, and every exchange after that sees all of them:
  a binding that one key gets through lets the message on with the others.
- Topic permissions are asked about the exchange that a client publishes to, and not about those that messages get to
  from there. So whoever may write to an exchange can bind it to another one that it may read and write, and send any
  key. The same goes for an exchange of one's own with an alternate exchange, which asks for the same permissions, and
  for a queue of one's own with a dead letter exchange: configure and read on the queue, write on the exchange.
- That is also how internal exchanges are reached, and with them the audit streams.
- Bindings between exchanges, alternate exchanges, dead letter exchanges and shovels that are there already ask nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from topicwarden.events import Action, Certainty
from topicwarden.grants import Path, Rights
from topicwarden.patterns import (
    Anything,
    KeyPattern,
    Names,
    NameUnion,
    Regex,
    Witness,
    literal_key,
    names_match,
    names_overlap,
    parse_binding,
)
from topicwarden.patterns.nfa import Automaton
from topicwarden.patterns.pattern_automata import EVERY_NAME, key_automaton
from topicwarden.patterns.regex import regex_names
from topicwarden.policy import Space
from topicwarden_collectors.rabbitmq.automaton_text import difference
from topicwarden_collectors.rabbitmq.exchanges import DEFAULT
from topicwarden_collectors.rabbitmq.grants_receiving import received
from topicwarden_collectors.rabbitmq.grants_rules import Decider, Row, regex_of, reserved_but
from topicwarden_collectors.rabbitmq.grants_topology import KnownExchange, KnownQueue
from topicwarden_collectors.rabbitmq.grants_versions import Behaviour
from topicwarden_collectors.rabbitmq.shovels import Shovel

MAX_FLOWS: Final = 20_000
"""Ways followed for one client."""
MAX_WAYS: Final = 4
"""Ways to the same keys of one exchange that are told; those found first are the shortest."""
_OWN_QUEUE: Final = "amq.gen-AAAAAAAAAAAAAAAAAAAAAA"
"""What a queue that the server names is called: 22 letters of base64."""
_MAX_TAKEN: Final = 2000
_RESERVED: Final = reserved_but(frozenset())
_EVERYTHING: Final = Anything()


def paths_of(row: Row, rights: Rights, decider: Decider, behaviour: Behaviour) -> Sequence[Path]:
    """Return what a client reaches in indirect ways."""
    return [*_Reach(row, rights, decider, behaviour).paths(), *received(row, rights, decider)]


@dataclass(frozen=True, slots=True)
class _Flow:
    """Messages of a client that get into an exchange with these keys."""

    names: Names
    how: tuple[str, ...] = ()
    """The way, step by step; empty: it publishes there itself."""
    certainty: Certainty = Certainty.EXACT
    having: tuple[tuple[Names, bool], ...] = ()
    """Sets of keys of each of which every message has one, whatever others of `names` it has in a CC header: the one
    that the client is permitted, those that bindings let through. False: it has one of a part of the set."""

    def on(self, step: str, names: Names | None = None, *, sure: bool = True) -> _Flow:
        """Return the flow one step further; with other `names`, these are all the keys there are."""
        certainty = self.certainty if sure else min(self.certainty, Certainty.INFERRED)
        having = self.having if names is None else ()
        return _Flow(self.names if names is None else names, (*self.how, step), certainty, having)


class _Reach:
    def __init__(self, row: Row, rights: Rights, decider: Decider, behaviour: Behaviour) -> None:
        self._row = row
        self._rights = rights
        self._decider = decider
        self._behaviour = behaviour
        self._exchanges = decider.topology.exchanges
        self._queues = decider.topology.queues
        self._own = _Own(row, rights, decider)
        self._flows: dict[str, list[_Flow]] = {}
        self._waiting: deque[tuple[str, _Flow]] = deque()
        self._count = 0

    def paths(self) -> Iterator[Path]:
        writable = self._decider.matched(self._row.permission.write)
        for name, sure in writable.items():
            for flow in self._begin(self._exchanges[name]):
                self._reach(name, flow if sure else replace(flow, certainty=Certainty.INFERRED))
        while self._waiting:
            name, flow = self._waiting.popleft()
            for target, further in self._onward(self._exchanges[name], flow):
                if target in self._exchanges:
                    self._reach(target, further)
        for name, flows in self._flows.items():
            indirect = [flow for flow in flows if flow.how]
            if any(flow.names == _EVERYTHING and not flow.how for flow in flows):
                continue
            ways: dict[tuple[Names, Certainty], list[str]] = {}
            for flow in indirect:
                ways.setdefault((flow.names, flow.certainty), []).append(", then ".join(flow.how))
            for (names, certainty), hows in ways.items():
                how = ", or ".join(hows[:MAX_WAYS])
                if len(hows) > MAX_WAYS:
                    how += f", or in {len(hows) - MAX_WAYS} more ways"
                yield Path(Action.PUBLISH, Space("key", name), names, how, self._row.write, certainty)

    def _reach(self, name: str, flow: _Flow) -> None:
        known = self._flows.setdefault(name, [])
        if self._count >= MAX_FLOWS or any(self._is_in(flow, other) for other in known):
            return
        self._count += 1
        known.append(flow)
        self._waiting.append((name, flow))

    @staticmethod
    def _is_in(flow: _Flow, other: _Flow) -> bool:
        """Whether another way makes this one not worth telling: one is enough, but for those of the client's own."""
        if other.certainty < flow.certainty or other.names not in (flow.names, _EVERYTHING):
            return False
        if not set(other.having) <= set(flow.having):
            return False  # it may not go where this one does
        return len(flow.how) != 1 or not other.how or flow.how == other.how or len(other.how) < len(flow.how)

    def _begin(self, exchange: KnownExchange) -> Iterator[_Flow]:
        """Yield what a client can send to an exchange that it may write to: by itself, then around its keys."""
        rules = self._rights.rules(Action.PUBLISH, Space("key", exchange.name)).rules
        direct = [] if exchange.internal else [rule for rule in rules if _holds_any(rule.names)]
        for rule in direct:
            yield _Flow(rule.names, certainty=rule.certainty)
        if any(rule.names == _EVERYTHING for rule in direct):
            return
        copies = self._behaviour.checks_copies
        if direct and copies is not True:
            version = "" if self._behaviour.version is None else f" by RabbitMQ {self._behaviour.version}"
            step = f"a CC header, whose keys are not checked{version}"
            certainty = Certainty.INFERRED if copies is None else Certainty.EXACT
            for rule in direct:
                yield _Flow(_EVERYTHING, (step,), certainty, ((rule.names, True),))
        for step in self._own.ways(exchange.name):
            yield _Flow(_EVERYTHING, (step,))

    def _onward(self, exchange: KnownExchange, flow: _Flow) -> Iterator[tuple[str, _Flow]]:
        """Yield where a message goes from an exchange."""
        for key, target in exchange.to_exchanges:
            sure = _passes(exchange, key, flow.names)
            if sure is not False:
                others = _with_key(exchange, key, flow.names)
                further = flow.on(f"the binding of {exchange.name!r} to {target!r}{others}", sure=sure is True)
                if others:
                    needed: tuple[Names, bool] = (_bound(exchange, key), flow.names == _EVERYTHING)
                    further = replace(further, having=tuple(dict.fromkeys((*flow.having, needed))))
                yield target, further
        left_over = _left_over(exchange, flow.names) if exchange.alternates else None
        for lead in exchange.alternates if left_over is not None else ():
            assert left_over is not None
            names, sure = left_over
            step = f"the alternate exchange of {exchange.name!r}"
            # A message goes there only if none of its keys is bound, those it must have included.
            needs: list[tuple[Names, bool]] = []
            for one, whole in flow.having:
                left = _left_over(exchange, one)
                if left is None:
                    break
                needs.append((left[0], whole))
                sure = sure and whole and left[1]
            else:
                yield lead.exchange, replace(flow.on(step, names, sure=sure and lead.sure), having=tuple(needs))
        for queue, sure, keys in self._queued(exchange, flow.names):
            having = tuple(dict.fromkeys((*flow.having, *keys)))
            yield from self._from_queue(queue, replace(flow, having=having), sure=sure)
        for title, shovel in exchange.shovels:
            if _passes(exchange, shovel.from_key or "", flow.names):
                yield from self._shovelled(title, shovel, flow)

    def _queued(
        self, exchange: KnownExchange, names: Names
    ) -> Iterator[tuple[KnownQueue, bool, Sequence[tuple[Names, bool]]]]:
        """Yield the queues that keys get into and something is passed on from, whether they surely do, and which key a
        message needs for it."""
        if exchange.name == DEFAULT:
            for queue in self._queues.values():
                if (queue.dead_letters or queue.shovels) and names_match(names, queue.name):
                    yield queue, True, [(literal_key(queue.name), True)]
            return
        for key, name in exchange.to_queues:
            found = self._queues.get(name)
            if found is not None and (found.dead_letters or found.shovels):
                sure = _passes(exchange, key, names)
                if sure is not False:
                    needed = _with_key(exchange, key, names) != ""
                    yield found, sure is True, [(_bound(exchange, key), names == _EVERYTHING)] if needed else []

    def _from_queue(self, queue: KnownQueue, flow: _Flow, *, sure: bool) -> Iterator[tuple[str, _Flow]]:
        for lead in queue.dead_letters:
            names = None if lead.key is None else literal_key(lead.key)
            step = f"dead letters of queue {queue.name!r} (messages that are rejected, expire or overflow)"
            yield lead.exchange, flow.on(step, names, sure=sure and lead.sure)
        for title, shovel in queue.shovels:
            yield from self._shovelled(title, shovel, flow)

    def _shovelled(self, title: str, shovel: Shovel, flow: _Flow) -> Iterator[tuple[str, _Flow]]:
        if shovel.to_queue is not None:
            target, key = DEFAULT, shovel.to_queue
        elif shovel.to_exchange is not None:
            target, key = shovel.to_exchange or DEFAULT, shovel.to_key or ""
        else:
            return
        found = self._exchanges.get(target)
        if found is not None and not found.internal:  # a shovel publishes like a client
            yield target, flow.on(f"shovel {title!r}", literal_key(key) if key else None)


class _Own:
    """What a client can put up for itself to get around the keys it is permitted."""

    def __init__(self, row: Row, rights: Rights, decider: Decider) -> None:
        self._row = row
        self._rights = rights
        self._decider = decider
        self._found: tuple[str | None, str | None, str | None] | None = None

    def ways(self, target: str) -> Iterator[str]:
        """Yield how any key can be sent to an exchange that the client may write to."""
        if target == DEFAULT:
            return
        if self._found is None:
            self._found = self._exchange_there(), self._exchange_to_be(), self._queue()
        there, to_be, queue = self._found
        if there is not None and there != target:
            yield f"the exchange {there!r}, which it may bind to {target!r}"
        elif to_be is not None:
            yield f"an exchange of its own ({to_be!r}), which it may bind to {target!r}"
        if queue is not None and self._fed(queue, target):
            yield f"a queue of its own ({_shown(queue)}) whose dead letters go to {target!r}"

    def _exchange_there(self) -> str | None:
        """Return an exchange that any key can be published to and bound from."""
        readable = self._decider.matched(self._row.permission.read)
        for name, sure in self._decider.matched(self._row.permission.write).items():
            if sure and readable.get(name) and self._open(Action.PUBLISH, name) and self._open(Action.SUBSCRIBE, name):
                return name
        return None

    def _open(self, action: Action, exchange: str) -> bool:
        rules = self._rights.rules(action, Space("key", exchange)).rules
        return any(rule.names == _EVERYTHING and rule.certainty is Certainty.EXACT for rule in rules)

    def _exchange_to_be(self) -> str | None:
        """Return a name for an exchange of which nothing is there yet."""
        permission = self._row.permission
        asked = permission.configure, permission.read, permission.write
        return _name_in(asked, _common([self._decider.matched(one) for one in asked]))

    def _queue(self) -> str | None:
        permission = self._row.permission
        asked = permission.configure, permission.read
        if all(names_match(regex_of(one), _OWN_QUEUE) for one in asked):
            return _OWN_QUEUE
        return _name_in(asked, _common([self._decider.matched_queues(one) for one in asked]))

    def _fed(self, queue: str, target: str) -> bool:
        """Whether the client can get messages into a queue of its own."""
        writable = self._decider.matched(self._row.permission.write)
        if writable.get(DEFAULT):
            return True
        if not names_match(regex_of(self._row.permission.write), queue):
            return False
        readable = self._decider.matched(self._row.permission.read)
        known = [target, *(name for name in writable if name != target)]
        return any(self._loop(name) for name in known if writable.get(name) and readable.get(name))

    def _loop(self, exchange: str) -> bool:
        """Whether something the client may publish to an exchange is among what it may receive from there."""
        space = Space("key", exchange)
        sent = [rule.names for rule in self._rights.rules(Action.PUBLISH, space).rules]
        got = [rule.names for rule in self._rights.rules(Action.SUBSCRIBE, space).rules]
        return any(names_overlap(one, other) for one in sent for other in got)


def _shown(queue: str) -> str:
    return "named by the server" if queue == _OWN_QUEUE else repr(queue)


def _common(known: Sequence[Mapping[str, bool | None]]) -> tuple[str, ...]:
    """Return the names that all have."""
    first, *others = known
    return tuple(name for name in first if all(name in other for other in others) and not name.startswith("amq."))


@lru_cache(maxsize=4096)
def _name_in(permissions: tuple[str, ...], taken: tuple[str, ...]) -> str | None:
    """Return a name that permissions have in common and nothing has yet; None when none is known."""
    wanted = [regex_of(one) for one in dict.fromkeys(permissions)]
    answer = NameUnion([_RESERVED]).uncovered(*wanted, newlines=False, empty=False)
    if isinstance(answer, Witness) and answer.topic in taken:
        others = map(literal_key, taken[:_MAX_TAKEN])
        answer = NameUnion([_RESERVED, *others]).uncovered(*wanted, newlines=False, empty=False)
    return answer.topic if isinstance(answer, Witness) and answer.topic not in taken else None


@lru_cache(maxsize=4096)
def _holds_any(names: Names) -> bool:
    """Whether a set of keys holds any, as far as can be told."""
    return isinstance(NameUnion([]).uncovered(names), Witness)


def _bound(exchange: KnownExchange, key: str) -> KeyPattern:
    return parse_binding(key) if exchange.type in ("topic", None) else literal_key(key)


def _passes(exchange: KnownExchange, key: str, names: Names) -> bool | None:
    """Whether a binding lets some of the keys through; None: perhaps."""
    match exchange.type:
        case "fanout":
            return True
        case "topic" | "direct":
            return _overlap(_bound(exchange, key), names)
        case _:  # headers decides by what a client writes into headers, types of plugins by what they like
            return None


@lru_cache(maxsize=1 << 14)
def _overlap(a: Names, b: Names) -> bool | None:
    return names_overlap(a, b)


def _with_key(exchange: KnownExchange, key: str, names: Names) -> str:
    """Say which key gets through, where not all do: the others come along in a CC header."""
    if exchange.type not in ("topic", "direct"):
        return ""
    if isinstance(_uncovered(_bound(exchange, key), names), Witness):
        return f" (with a key that {key!r} lets through beside the others, in a CC header)"
    return ""


@lru_cache(maxsize=1 << 14)
def _uncovered(by: Names, wanted: Names) -> object:
    return NameUnion([by]).uncovered(wanted)


def _left_over(exchange: KnownExchange, names: Names) -> tuple[Names, bool] | None:
    """Return the keys that no binding takes, and whether they are exactly these; None: there are none."""
    bound = exchange.bound
    if not bound:
        return names, True
    match exchange.type:
        case "fanout":
            return None
        case "topic" | "direct":
            return _without(names, tuple(dict.fromkeys(_bound(exchange, key) for key in bound)))
        case _:
            return names, False


@lru_cache(maxsize=1024)
def _without(names: Names, taken: tuple[KeyPattern, ...]) -> tuple[Names, bool] | None:
    if not isinstance(NameUnion(taken).uncovered(names), Witness):
        return None
    wanted: Automaton | None = None
    match names:
        case Anything():
            wanted = EVERY_NAME
        case KeyPattern():
            wanted = key_automaton(names)
        case Regex(expression):
            wanted = regex_names(expression)
    text = None if wanted is None else difference(wanted, [key_automaton(one) for one in taken])
    return (names, False) if text is None else (Regex(text), True)
