"""The names a RabbitMQ has, as far as they are known: exchanges with their types, queues, binding and routing keys.

All tables are bounded; what did not fit is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from topicwarden.events import Action, Resource, ResourceKind
from topicwarden_collectors.rabbitmq.definitions import Definitions
from topicwarden_collectors.rabbitmq.exchanges import BUILT_IN, DEFAULT, OBSERVING

MAX_VHOSTS: Final = 10_000
MAX_NAMES: Final = 50_000
"""Exchanges and queues of one virtual host."""
MAX_ALL_NAMES: Final = 500_000
MAX_KEYS: Final = 64
"""Routing keys remembered of an exchange, and binding keys: the latest."""
MAX_KEYED: Final = 4_096
"""Exchanges keys are remembered of: the latest used."""
MAX_NAME_BYTES: Final = 255


@dataclass(slots=True)
class _Vhost:
    exchanges: dict[str, str | None] = field(default_factory=dict)
    """Name to type, built-in ones excepted."""
    queues: dict[str, None] = field(default_factory=dict)


class Names:
    """The names of one broker."""

    def __init__(self, default_vhost: str = "/") -> None:
        self.overflowed = 0
        """Names that did not fit."""
        self._default_vhost = default_vhost
        self._vhosts: dict[str, _Vhost] = {}
        self._count = 0
        self._keys = _Recent()
        self._bindings = _Recent()

    def load(self, definitions: Definitions) -> None:
        """Take over definitions: a whole broker's replace all names, one virtual host's only its own."""
        if definitions.whole:
            self._vhosts, self._count, self.overflowed = {}, 0, 0
            self._bindings = _Recent()
        for vhost in definitions.vhosts:
            self.remove_vhost(vhost.name)
            self.add_vhost(vhost.name)
        for exchange in definitions.exchanges:
            self._add_exchange(exchange.vhost, exchange.name, exchange.type or None)
        for queue in definitions.queues:
            self._add_queue(queue.vhost, queue.name)
        for binding in definitions.bindings:
            self._bindings.add(binding.vhost, binding.source, binding.key)
            # rabbitmqctl exports no internal exchanges (3.10.8), but their bindings.
            for name in (binding.source, *([binding.destination] if binding.to_exchange else ())):
                if self.exchange_type(binding.vhost, name) is None:
                    self._add_exchange(binding.vhost, name, None)

    def apply(self, event: str, pairs: Mapping[str, str]) -> bool:
        """Take over an event about an exchange, a queue or a binding; False when it is about something else."""
        kind, _, what = event.partition(".")
        if kind not in ("exchange", "queue", "binding"):
            return False
        vhost, name = pairs.get("vhost"), pairs.get("name")
        if vhost is None:
            return True
        match kind, what:
            case "exchange", "created" if name is not None:
                self._add_exchange(vhost, name, pairs.get("type"))
            case "exchange", "deleted" if name is not None and vhost in self._vhosts:
                self._count -= self._vhosts[vhost].exchanges.pop(name, self) is not self
            case "queue", "created" if name is not None and pairs.get("exclusive", "").lower() != "true":
                # An exclusive queue is closed to all but its own connection, whatever permissions say.
                self._add_queue(vhost, name)
            case "queue", "deleted" if name is not None and vhost in self._vhosts:
                self._count -= self._vhosts[vhost].queues.pop(name, self) is not self
            case "binding", "created" if "routing_key" in pairs:
                source = pairs.get("source_name", pairs.get("source", ""))
                self._bindings.add(vhost, source, pairs["routing_key"])
        return True

    def add_vhost(self, vhost: str) -> None:
        """Remember that a virtual host exists."""
        if vhost not in self._vhosts:
            if len(self._vhosts) < MAX_VHOSTS:
                self._vhosts[vhost] = _Vhost()
            else:
                self.overflowed += 1

    def remove_vhost(self, vhost: str) -> None:
        """Forget a virtual host and what is in it."""
        gone = self._vhosts.pop(vhost, None)
        if gone is not None:
            self._count -= len(gone.exchanges) + len(gone.queues)

    def exchange_type(self, vhost: str, name: str) -> str | None:
        """Return an exchange's type, None when it is not known."""
        found = self._vhosts.get(vhost)
        if found is not None and name in found.exchanges:
            return found.exchanges[name]
        return BUILT_IN.get(name or DEFAULT) or OBSERVING.get(name)

    def resources(self, vhost: str, action: Action) -> Iterable[Resource]:
        """Return what exists that a permission for an action may be about.

        Writing to an internal exchange lets a client put messages there through a binding, so they are among them.
        What is called `amq.` can be declared and deleted by no client, the broker's own queues excepted.
        """
        found = self._vhosts.get(vhost) or _Vhost()
        exchanges = [*BUILT_IN, *(OBSERVING if vhost == self._default_vhost else ())]
        exchanges += [name for name in found.exchanges if name not in BUILT_IN and name not in exchanges]
        match action:
            case Action.CONFIGURE:
                exchanges = [name for name in exchanges if not name.startswith("amq.")]
            case Action.SUBSCRIBE:
                exchanges.remove(DEFAULT)  # nothing can be bound to it
        resources = [Resource(ResourceKind.EXCHANGE, name) for name in exchanges]
        if action is not Action.PUBLISH:
            resources += [Resource(ResourceKind.QUEUE, name) for name in found.queues]
        return resources

    def saw_key(self, vhost: str, exchange: str, key: str) -> None:
        """Remember a routing key as used."""
        self._keys.add(vhost, exchange, key)

    def keys(self, vhost: str, exchange: str) -> Iterable[Resource]:
        """Return routing keys known for an exchange: those used, and those bound that have no wildcard."""
        bound = [key for key in self._bindings.of(vhost, exchange) if not {"*", "#"} & set(key.split("."))]
        keys = dict.fromkeys([*self._keys.of(vhost, exchange), *bound])
        return [Resource(ResourceKind.KEY, key, within=exchange) for key in keys]

    def bindings(self, vhost: str, exchange: str) -> Iterable[Resource]:
        """Return binding keys known for an exchange, and `#`, which anybody may think of."""
        keys = dict.fromkeys(["#", *self._bindings.of(vhost, exchange)])
        return [Resource(ResourceKind.BINDING, key, within=exchange) for key in keys]

    def _add_exchange(self, vhost: str, name: str, exchange_type: str | None) -> None:
        if not name or name in BUILT_IN:
            return
        found = self._room(vhost, name)
        if found is not None:
            self._count += name not in found.exchanges
            found.exchanges[name] = exchange_type

    def _add_queue(self, vhost: str, name: str) -> None:
        found = self._room(vhost, name)
        if found is not None:
            self._count += name not in found.queues
            found.queues[name] = None

    def _room(self, vhost: str, name: str) -> _Vhost | None:
        self.add_vhost(vhost)
        found = self._vhosts.get(vhost)
        if found is None:
            return None
        known = name in found.exchanges or name in found.queues
        full = len(found.exchanges) + len(found.queues) >= MAX_NAMES or self._count >= MAX_ALL_NAMES
        if (full and not known) or len(name) > MAX_NAME_BYTES:
            self.overflowed += 1
            return None
        return found


class _Recent:
    """The latest keys of the latest exchanges."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[str, str], OrderedDict[str, None]] = OrderedDict()

    def add(self, vhost: str, exchange: str, key: str) -> None:
        keys = self._keys.setdefault((vhost, exchange), OrderedDict())
        self._keys.move_to_end((vhost, exchange))
        keys[key] = None
        keys.move_to_end(key)
        if len(keys) > MAX_KEYS:
            keys.popitem(last=False)
        if len(self._keys) > MAX_KEYED:
            self._keys.popitem(last=False)

    def of(self, vhost: str, exchange: str) -> list[str]:
        return list(self._keys.get((vhost, exchange), ()))
