"""Who is behind a connection, a channel or a queue, as the broker's own events say. Pure, and bounded.

RabbitMQ names a connection in three ways: by its addresses (`192.0.2.7:49242 -> 192.0.2.1:5672`) in traces and log
messages, by its Erlang process in events about channels and exclusive queues, and its channels by processes of their
own in events about consumers. Here all three lead to one `Client`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from topicwarden.events import Client, Identity
from topicwarden_collectors.rabbitmq.erlang_terms import address_of, as_logged
from topicwarden_collectors.rabbitmq.event_messages import (
    INTERNAL,
    ChannelCreated,
    ConnectionCreated,
    ConsumerChanged,
    ObjectChanged,
)
from topicwarden_collectors.rabbitmq.naming import is_plumbing

CAPACITY: Final = 1 << 16
"""Most connections, channels and queues remembered; the one not heard of for longest is forgotten first."""
_RECENT: Final = 4096
"""Most ended connections remembered: what they did last may reach us after their end."""
_MQTT_QUEUE: Final = "mqtt-subscription-"
_STOMP_QUEUE: Final = "stomp-subscription-"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A bounded map that forgets what was not used for longest."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.forgotten = 0
        self._rows: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, key: K, value: V) -> None:
        """Keep a value as the one used last."""
        self._rows[key] = value
        self._rows.move_to_end(key)
        if len(self._rows) > self.capacity:
            self._rows.popitem(last=False)
            self.forgotten += 1

    def get(self, key: K) -> V | None:
        """Return a value, which counts as a use of it."""
        value = self._rows.get(key)
        if value is not None:
            self._rows.move_to_end(key)
        return value

    def pop(self, key: K) -> V | None:
        """Take a value out."""
        return self._rows.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()


@dataclass(frozen=True, slots=True)
class Known:
    """A connection of the management API's list."""

    name: str
    user: str
    vhost: str
    protocol: str
    client_id: str | None
    """None: an MQTT client whose id is not told."""
    address: str | None
    port: int | None
    server_port: int | None
    tls_subject: str | None = None
    pid: str | None = None


class Connections:
    """The connections, channels and gateway queues of one broker that are there now."""

    def __init__(self, broker: str, capacity: int = CAPACITY) -> None:
        self.broker = broker
        self.complete = False
        """Whether the connections that were there before we looked are known too."""
        self._clients: Recent[str, Client] = Recent(capacity)
        self._ended: Recent[str, Client] = Recent(_RECENT)
        self._processes: Recent[str, str] = Recent(capacity * 2)
        """Names of connections by process: the connection's own and its channels', in full and as the log has them."""
        self._owners: Recent[tuple[str, str], str] = Recent(capacity)
        """Names of connections by exclusive queue."""
        self._readers: Recent[tuple[str, str], str] = Recent(capacity)
        """Names of connections by gateway queue they consume from."""
        self._mqtt: Recent[tuple[str, str], str] = Recent(capacity)
        """Names of connections by virtual host and MQTT client id."""
        self._stomp: dict[tuple[str, str | None], set[str]] = {}
        self._protocols: dict[int, str] = {}
        """Protocol by the port the broker listens on."""

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def forgotten(self) -> int:
        """How many entries were forgotten to make room."""
        tables = (self._clients, self._processes, self._owners, self._readers, self._mqtt)
        return sum(table.forgotten for table in tables)

    def clear(self) -> None:
        """Forget all but the listeners: what happened meanwhile was not seen, and addresses may have new clients."""
        for table in (self._clients, self._ended, self._processes, self._owners, self._readers, self._mqtt):
            table.clear()
        self._stomp.clear()
        self.complete = False

    # What the broker says ---------------------------------------------------------------------------------------------

    def created(self, fact: ConnectionCreated) -> Client:
        """Take over a connection that was made; returns its client, without a user when its MQTT id is unreadable."""
        identity = Identity.CLAIMED if fact.mechanism == "ANONYMOUS" else Identity.VERIFIED
        known = fact.client_id is not None
        client = Client(
            self.broker,
            fact.protocol,
            fact.client_id or "",
            fact.user if known else None,
            fact.address,
            fact.port,
            fact.tls_subject,
            fact.vhost,
            identity if known else Identity.UNKNOWN,
        )
        self._add(fact.name, client)
        self._process(fact.pid, fact.name)
        self.listens(fact.server_port, fact.protocol)
        return client

    def listed(self, rows: Iterable[Known], *, complete: bool) -> None:
        """Take over the connections there are; what events told of the same ones stays."""
        for row in rows:
            if row.client_id is None or self._clients.get(row.name) is not None:
                continue
            client = Client(
                self.broker, row.protocol, row.client_id, row.user, row.address, row.port, row.tls_subject, row.vhost,
                Identity.VERIFIED,
            )  # fmt: skip
            self._add(row.name, client)
            if row.pid is not None:
                self._process(row.pid, row.name)
            self.listens(row.server_port, row.protocol)
        self.complete = self.complete or complete

    def _add(self, name: str, client: Client) -> None:
        before = self._clients.get(name)
        if before is not None:
            self._end(name, before)
        self._clients.put(name, client)
        if client.protocol == "mqtt" and client.user is not None:
            self._mqtt.put((client.vhost or "", client.client_id), name)
        elif client.protocol == "stomp":
            key = (client.vhost or "", client.user)
            if key in self._stomp or len(self._stomp) < self._clients.capacity:
                self._stomp.setdefault(key, set()).add(name)

    def closed(self, name: str, pid: str) -> Client | None:
        """Take over that a connection ended; returns its client, None when it is not known."""
        self._drop(pid)
        client = self._clients.get(name)
        if client is not None:
            self._end(name, client)
        return client

    def _end(self, name: str, client: Client) -> None:
        self._clients.pop(name)
        self._ended.put(name, client)
        key = (client.vhost or "", client.client_id)
        if client.protocol == "mqtt" and self._mqtt.get(key) == name:
            self._mqtt.pop(key)
        names = self._stomp.get((client.vhost or "", client.user))
        if names is not None:
            names.discard(name)
            if not names:
                del self._stomp[client.vhost or "", client.user]

    def channel_created(self, fact: ChannelCreated) -> None:
        """Take over a channel."""
        name = self._processes.get(fact.connection)
        if name is None and fact.connection_name:
            # Its connection was made before we looked.
            name = fact.connection_name
            if self.by_name(name, fact.user, fact.vhost) is None:
                self.traced(name, fact.user, fact.vhost)
            self._process(fact.connection, name)
        if name is not None:
            self._process(fact.pid, name)

    def channel_closed(self, pid: str) -> None:
        """Forget a channel. Events of its consumers come before."""
        self._drop(pid)

    def _process(self, pid: str, name: str) -> None:
        self._processes.put(pid, name)
        self._processes.put(as_logged(pid), name)

    def _drop(self, pid: str) -> None:
        self._processes.pop(pid)
        self._processes.pop(as_logged(pid))

    def listens(self, port: int | None, protocol: str) -> None:
        """Take over which protocol the broker speaks on a port of its own."""
        if port is not None and protocol in ("amqp", "mqtt", "stomp") and len(self._protocols) < _RECENT:
            self._protocols[port] = protocol

    # Whose it is ------------------------------------------------------------------------------------------------------

    def by_name(self, name: str, user: str | None = None, vhost: str | None = None) -> Client | None:
        """Return the client of a connection; with `user` and `vhost` only if they are its own, now or just before."""
        for table in (self._clients, self._ended):
            client = table.get(name)
            if client is not None and (user is None or (client.user, client.vhost) == (user, vhost)):
                return client
        return None

    def by_process(self, pid: str) -> Client | None:
        """Return the client of a connection's or channel's process, given in full or as `logged` gives it."""
        name = self._processes.get(pid)
        return None if name is None else self.by_name(name)

    def name_of(self, pid: str) -> str | None:
        """Return the name of a process's connection."""
        return self._processes.get(pid)

    def traced(self, name: str, user: str, vhost: str) -> Client | None:
        """Return, and remember, the client of a connection that only a trace tells of.

        None when its protocol is not known or its clients have ids, which a trace does not tell.
        """
        peer, _, server = name.partition(" -> ")
        protocol = self._protocols.get(_port(server) or 0)
        if protocol not in ("amqp", "stomp"):
            return None
        address = address_of(peer.rpartition(":")[0].strip("[]"))
        client = Client(self.broker, protocol, "", user, address, _port(peer), vhost=vhost, identity=Identity.VERIFIED)
        self._add(name, client)
        return client

    def stranger(self, name: str | None) -> Client:
        """Return a client of which only the address is known: `name` is its connection's."""
        peer, _, server = (name or "").partition(" -> ")
        protocol = self._protocols.get(_port(server) or 0, "amqp")
        return Client(
            self.broker, protocol, "", None, address_of(peer.rpartition(":")[0].strip("[]")), _port(peer),
            identity=Identity.UNKNOWN,
        )  # fmt: skip

    def heard(self, name: str | None, protocol: str) -> None:
        """Take over which protocol a connection speaks, and so which is spoken on the broker's port."""
        self.listens(_port((name or "").partition(" -> ")[2]), protocol)

    def declared(self, fact: ObjectChanged) -> Client | None:
        """Return who declared or deleted a queue or exchange; None when only the user is known."""
        key = (fact.vhost, fact.name)
        if fact.kind == "queue":
            if fact.owner is not None and fact.created:
                name = self._processes.get(fact.owner)
                if name is not None:
                    self._owners.put(key, name)
                    return self.by_name(name)
            reader = self._gateway(fact.vhost, fact.name, fact.by)
            if not fact.created:
                self._readers.pop(key)
                self._owners.pop(key)
            return reader
        return None

    def consumed(self, fact: ConsumerChanged) -> Client | None:
        """Return who consumes; None when the channel is not known."""
        name = self._processes.get(fact.channel)
        client = None if name is None else self.by_name(name)
        if client is None or name is None:
            return None
        if fact.created and is_plumbing(client.protocol, client.client_id, fact.queue):
            self._readers.put((fact.vhost, fact.queue), name)
        return client

    def bound(self, vhost: str, queue: str, by: str | None) -> Client | None:
        """Return who made a binding to a queue; None when only the user is known.

        A gateway consumes from its queue before it binds it (3.10.8), and only its owner can bind an exclusive queue.
        """
        name = self._readers.get((vhost, queue)) or self._owners.get((vhost, queue))
        client = None if name is None else self.by_name(name)
        if client is not None and client.user == by:
            return client
        return self._gateway(vhost, queue, by)

    def _gateway(self, vhost: str, queue: str, by: str | None) -> Client | None:
        """Return the MQTT client whose queue this is, if it is the same user's; a STOMP client if there is just one."""
        name: str | None = None
        if queue.startswith(_MQTT_QUEUE) and queue.endswith(("qos0", "qos1")):
            name = self._mqtt.get((vhost, queue[len(_MQTT_QUEUE) : -4]))
        elif is_plumbing("stomp", "", queue):
            names = self._stomp.get((vhost, by), set())
            name = next(iter(names)) if len(names) == 1 else None
        client = None if name is None else self.by_name(name)
        return client if client is not None and client.user == by else None

    def may_be_gateway(self, vhost: str, queue: str, by: str | None) -> bool:
        """Whether this may be the queue of an MQTT or STOMP client that we do not know."""
        if queue.startswith(_MQTT_QUEUE) and queue.endswith(("qos0", "qos1")):
            # A known client of this id with another user: then it is that other user meddling.
            return not self.complete and self._mqtt.get((vhost, queue[len(_MQTT_QUEUE) : -4])) is None
        if not is_plumbing("stomp", "", queue):
            return False
        return not self.complete or bool(self._stomp.get((vhost, by)))

    def only_user(self, user: str | None, vhost: str | None) -> Client:
        """Return a client of which only the user is known."""
        if not user or user == INTERNAL:
            return Client(self.broker, "amqp", "", vhost=vhost, identity=Identity.UNKNOWN)
        return Client(self.broker, "amqp", "", user, vhost=vhost, identity=Identity.VERIFIED)


def _port(end: str) -> int | None:
    digits = end.rpartition(":")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else None
