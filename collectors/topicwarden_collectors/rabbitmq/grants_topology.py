"""What routes messages in a virtual host: exchanges, queues, bindings, alternate and dead letter exchanges, shovels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from topicwarden_collectors.rabbitmq.definitions import Definitions, Policy, Queue
from topicwarden_collectors.rabbitmq.exchanges import AUDIT, BUILT_IN, DEFAULT, EVENTS, LOG, OBSERVING, TRACE
from topicwarden_collectors.rabbitmq.permissions import Expressions
from topicwarden_collectors.rabbitmq.shovels import Shovel

STREAMS: Final = (TRACE, EVENTS, LOG, AUDIT)
"""What the broker is audited by; all internal, so that nobody can publish to them directly."""
DEFAULT_VHOST: Final = "/"
_QUEUE_KINDS: Final[Mapping[str, str]] = {"classic": "classic_queues", "quorum": "quorum_queues", "stream": "streams"}


@dataclass(frozen=True, slots=True)
class Lead:
    """Where messages go on to from an exchange or a queue that has them left over."""

    exchange: str
    key: str | None = None
    """The routing key they get; None: they keep theirs."""
    sure: bool = True


@dataclass(slots=True)
class KnownExchange:
    """An exchange."""

    name: str
    type: str | None
    """None: it is only known from a binding or a topic permission."""
    internal: bool = False
    alternates: list[Lead] = field(default_factory=list)
    to_exchanges: list[tuple[str, str]] = field(default_factory=list)
    """Binding keys and the exchanges they lead to."""
    to_queues: list[tuple[str, str]] = field(default_factory=list)
    shovels: list[tuple[str, Shovel]] = field(default_factory=list)

    @property
    def bound(self) -> list[str]:
        """All binding keys."""
        return [key for key, _ in (*self.to_exchanges, *self.to_queues)]


@dataclass(slots=True)
class KnownQueue:
    """A queue."""

    name: str
    dead_letters: list[Lead] = field(default_factory=list)
    shovels: list[tuple[str, Shovel]] = field(default_factory=list)


class Topology:
    """One virtual host."""

    def __init__(self, vhost: str) -> None:
        self.vhost = vhost
        self.exchanges: dict[str, KnownExchange] = {}
        self.queues: dict[str, KnownQueue] = {}
        for name, kind in {**BUILT_IN, **(OBSERVING if vhost == DEFAULT_VHOST else {})}.items():
            self.exchanges[name] = KnownExchange(name, kind, name in STREAMS)

    @property
    def streams(self) -> list[str]:
        """The audit streams that are here."""
        return [name for name in STREAMS if name in self.exchanges]


def topologies(definitions: Definitions) -> dict[str, Topology]:
    """Return what routes messages, by virtual host."""
    found: dict[str, Topology] = {}

    def at(vhost: str) -> Topology:
        if vhost not in found:
            found[vhost] = Topology(vhost)
        return found[vhost]

    leads = _Leads(definitions.policies)
    for vhost in definitions.vhosts:
        at(vhost.name)
    for exchange in definitions.exchanges:
        if exchange.name and exchange.name not in at(exchange.vhost).exchanges:
            internal = exchange.internal or exchange.name in STREAMS
            at(exchange.vhost).exchanges[exchange.name] = KnownExchange(exchange.name, exchange.type or None, internal)
    for queue in definitions.queues:
        at(queue.vhost).queues[queue.name] = KnownQueue(queue.name, list(leads.of_queue(queue)))
    for binding in definitions.bindings:
        here = at(binding.vhost)
        # rabbitmqctl exports no internal exchanges (3.10.8), but their bindings.
        for name in (binding.source, *([binding.destination] if binding.to_exchange else ())):
            if name and name not in here.exchanges:
                here.exchanges[name] = KnownExchange(name, None, internal=True)
        source = here.exchanges[binding.source or DEFAULT]
        if source.name != DEFAULT:  # every queue is bound to it by its own name
            bound = source.to_exchanges if binding.to_exchange else source.to_queues
            bound.append((binding.key, binding.destination))
    arguments = {(one.vhost, one.name): one.arguments for one in definitions.exchanges}
    for here in found.values():
        for known in here.exchanges.values():
            known.alternates = list(leads.of_exchange(here.vhost, known, arguments.get((here.vhost, known.name), {})))
    for parameter in definitions.parameters:
        if parameter.shovel is not None:
            _add_shovel(found, parameter.name, parameter.shovel)
    return found


def _add_shovel(found: Mapping[str, Topology], name: str, shovel: Shovel) -> None:
    # Paths are told within a virtual host.
    here = found.get(shovel.from_vhost or "")
    if here is None or not shovel.inside or shovel.to_vhost != shovel.from_vhost:
        return
    if shovel.from_queue is not None and shovel.from_queue in here.queues:
        here.queues[shovel.from_queue].shovels.append((name, shovel))
    elif shovel.from_exchange is not None and shovel.from_exchange in here.exchanges:
        here.exchanges[shovel.from_exchange].shovels.append((name, shovel))


class _Leads:
    """Finds where exchanges and queues pass on what they have left over: by argument, else by policy (3.10.8)."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._expressions = Expressions()
        self._policies: dict[str, list[Policy]] = defaultdict(list)
        for policy in sorted(policies, key=lambda one: -one.priority):
            self._policies[policy.vhost].append(policy)

    def of_exchange(self, vhost: str, exchange: KnownExchange, arguments: Mapping[str, object]) -> Iterator[Lead]:
        if exchange.name == DEFAULT:
            return
        found = arguments.get("alternate-exchange")
        if isinstance(found, str):
            yield Lead(found or DEFAULT)
            return
        for policy, sure in self._applying(vhost, exchange.name, ("all", "exchanges")):
            found = policy.definition.get("alternate-exchange")
            if isinstance(found, str):
                yield Lead(found or DEFAULT, sure=sure)

    def of_queue(self, queue: Queue) -> Iterator[Lead]:
        kind = queue.arguments.get("x-queue-type")
        if kind == "stream":  # it keeps everything and hands nothing on
            return
        exchange, key = (queue.arguments.get(f"x-dead-letter-{what}") for what in ("exchange", "routing-key"))
        kinds = ("all", "queues", _QUEUE_KINDS.get(str(kind), "classic_queues"))
        definitions = [(one.definition, sure) for one, sure in self._applying(queue.vhost, queue.name, kinds)]
        for definition, sure in definitions or [({}, True)]:
            to = exchange if isinstance(exchange, str) else definition.get("dead-letter-exchange")
            with_key = key if isinstance(key, str) else definition.get("dead-letter-routing-key")
            if isinstance(to, str):
                yield Lead(to or DEFAULT, with_key if isinstance(with_key, str) else None, sure)

    def _applying(self, vhost: str, name: str, kinds: Sequence[str]) -> Iterator[tuple[Policy, bool]]:
        """Yield the policies that apply, or may apply, and whether that is sure: only one does."""
        top: list[tuple[Policy, bool | None]] = []
        for policy in self._policies.get(vhost, ()):
            sure = [one for one, matches in top if matches]
            if sure and policy.priority < sure[0].priority:
                break
            if policy.apply_to in kinds:
                # An empty permission means ^$, an empty pattern of a policy what it says.
                matches = self._expressions.allows(policy.pattern, name) if policy.pattern else True
                if matches is not False:
                    top.append((policy, matches))
        for policy, matches in top:
            yield policy, len(top) == 1 and matches is True
