"""Turns facts of the event exchange into events, and keeps the connections and grants up to date. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from topicwarden.events import NO_RESOURCE, Action, Client, Identity, Outcome
from topicwarden_collectors.rabbitmq import naming
from topicwarden_collectors.rabbitmq.erlang_terms import incarnation_of
from topicwarden_collectors.rabbitmq.event_messages import (
    INTERNAL,
    Authenticated,
    BindingChanged,
    ChannelClosed,
    ChannelCreated,
    ConnectionClosed,
    ConnectionCreated,
    ConsumerChanged,
    Fact,
    Headers,
    ObjectChanged,
    Undecodable,
    decode_event,
    pairs_of,
)
from topicwarden_collectors.rabbitmq.naming import PREDECLARED
from topicwarden_collectors.rabbitmq.stock_sink import FORGED_MESSAGE, GAP, RESTARTED, SWITCHED_OFF, Sink
from topicwarden_collectors.rabbitmq.stock_waiting import WAIT_NS, Waiting
from topicwarden_collectors.rabbitmq.trace_messages import MAX_TRACED_NAME

T = TypeVar("T")

AUDIT_EXCHANGES: Final = ("amq.rabbitmq.trace", "amq.rabbitmq.event", "amq.rabbitmq.log")
GATEWAYS: Final = "clients of MQTT or STOMP that connected before we looked"
_PLUGIN: Final = "rabbitmq_event_exchange"
_LIMITS: Final = frozenset({"max-length", "max-length-bytes", "message-ttl", "expires"})
"""What in a policy makes a queue drop messages."""
_LOGINS: Final = 4096
_NODES: Final = 64
_GRANT_EVENTS: Final = ("user.", "permission.", "topic.permission.", "vhost.", "policy.", "parameter.")


@dataclass(slots=True)
class Login:
    """A login that a gateway made for a client: the event has no address, the log has."""

    time_ns: int
    user: str
    accepted: bool
    reason: str
    until_ns: int


class EventSteps:
    """Decodes messages of `amq.rabbitmq.event`."""

    def __init__(self, sink: Sink, waiting: Waiting) -> None:
        self.sink = sink
        self.waiting = waiting
        """What waits for a connection to become known, by its name."""
        self.firehose: frozenset[str] = frozenset()
        """Virtual hosts whose firehose we read."""
        self.own: frozenset[str] = frozenset()
        """Names of our own connections: our coming and going is not the broker's clients' doing."""
        self.switched_off = False
        """Whether the event exchange was taken away, so that nothing will come from our queue any more."""
        self.logins: deque[Login] = deque(maxlen=_LOGINS)
        """Gateways' logins of the last moment."""
        self.logged_in: dict[str, Authenticated] = {}
        """Accepted logins by connection, until the connection is let into its virtual host."""
        self._own_names: set[str] = set()
        self._own_channels: set[str] = set()
        self._own_queues: set[str] = set()
        self._incarnations: dict[str, int] = {}
        self._internal_is_a_user = False

    def ours(self, connections: frozenset[str], queues: frozenset[str]) -> None:
        """Take over what of our own there is now."""
        self.own = connections
        if len(self._own_queues) < _LOGINS:
            self._own_queues |= queues

    def decode(self, event: str, headers: Headers) -> None:
        """Take over one message."""
        fact = decode_event(event, headers)
        if isinstance(fact, Undecodable):
            self.sink.counters.error("event")
            return
        self._take(fact, event, headers)

    def forget(self) -> None:
        """Forget all connections: what happened meanwhile was not seen."""
        self.sink.connections.clear()
        self.logged_in.clear()
        for mine in (self._own_names, self._own_channels, self._own_queues):
            mine.clear()

    def _take(self, fact: Fact, event: str, headers: Headers) -> None:
        connections = self.sink.connections
        match fact:
            case ConnectionCreated():
                self._connected(fact)
            case ConnectionClosed():
                self._own_names.discard(fact.name)
                self.logged_in.pop(fact.name, None)
                client = connections.closed(fact.name, fact.pid)
                if client is not None:
                    self.sink.add(fact.time_ns, Action.DISCONNECT, client)
            case ChannelCreated():
                self._notice_restart(fact.pid, fact.time_ns)
                if self._is_own_process(fact.connection) or fact.connection_name in self.own:
                    self._remember(self._own_channels, fact.connection)
                    self._remember(self._own_channels, fact.pid)
                else:
                    connections.channel_created(fact)
            case ChannelClosed():
                connections.channel_closed(fact.pid)
                self._own_channels.discard(fact.pid)
            case Authenticated():
                self._authenticated(fact)
            case ConsumerChanged():
                self._consumed(fact)
            case BindingChanged():
                self.sink.grants.apply(fact.time_ns, event, pairs_of(headers))
                self._bound(fact)
            case ObjectChanged():
                self.sink.grants.apply(fact.time_ns, event, pairs_of(headers))
                if self._may_be_ours(fact):
                    self.waiting.add(f"queue {fact.name}", lambda _: self._declared(fact), self.sink.now_ns)
                else:
                    self._declared(fact)
            case _:
                if event == "plugins.changed":
                    self._plugins_changed(fact.time_ns, headers)
                elif event == "queue.policy.updated":
                    self._policy_updated(fact.time_ns, headers)
                elif event.startswith(_GRANT_EVENTS):
                    pairs = pairs_of(headers)
                    if event == "user.created" and pairs.get("name") == INTERNAL:
                        self._internal_is_a_user = True
                    self.sink.changed(fact.time_ns, event, pairs)

    # Connections ----------------------------------------------------------------------------------------------------

    def _connected(self, fact: ConnectionCreated) -> None:
        self._notice_restart(fact.pid, fact.time_ns)
        self.logged_in.pop(fact.name, None)
        if fact.protocol not in ("amqp", "amqp10", "stream"):
            self._login_of(fact.user, accepted=True)
        if fact.name in self.own:
            self._remember(self._own_names, fact.name)
            self._remember(self._own_channels, fact.pid)
            return
        if fact.user == INTERNAL:
            self._internal_is_a_user = True
        client = self.sink.connections.created(fact)
        if client.user is None:
            self.sink.counters.error("client id")
        self.sink.add(fact.time_ns, Action.CONNECT, client)
        self.waiting.known(fact.name)

    def _authenticated(self, fact: Authenticated) -> None:
        if fact.connection is None:
            until = self.sink.now_ns + WAIT_NS
            if len(self.logins) == self.logins.maxlen:
                self._give_up(self.logins.popleft())
            self.logins.append(Login(fact.time_ns, fact.user, fact.accepted, fact.reason, until))
            return
        if not fact.accepted:
            self.refused_login(fact.time_ns, fact.user, fact.protocol or "amqp", fact.address, fact.port)
            return
        if len(self.logged_in) >= _LOGINS:
            self.logged_in.pop(next(iter(self.logged_in)))
        self.logged_in[fact.connection] = fact

    def refused_login(
        self, time_ns: int, user: str | None, protocol: str, address: str | None, port: int | None
    ) -> None:
        """Append a refused login; the user is what the client claimed to be."""
        identity = Identity.UNKNOWN if user is None else Identity.CLAIMED
        client = Client(self.sink.broker, protocol, "", user, address, port, identity=identity)
        self.sink.add(time_ns, Action.AUTHENTICATE, client, NO_RESOURCE, Outcome.DENIED)

    def login_of(self, quoted: str, *, accepted: bool) -> Login | None:
        """Take out the gateway's login that a log message quotes: `vhost:user` or `user`."""
        for login in self.logins:
            if login.accepted == accepted and (quoted == login.user or quoted.endswith(f":{login.user}")):
                self.logins.remove(login)
                return login
        return None

    def _login_of(self, user: str, *, accepted: bool) -> None:
        for login in self.logins:
            if login.accepted == accepted and login.user == user:
                self.logins.remove(login)
                return

    def pass_time(self) -> None:
        """Append refused logins for which the log did not give an address."""
        now = self.sink.now_ns
        while self.logins and not self.logins[0].until_ns - WAIT_NS <= now < self.logins[0].until_ns:
            self._give_up(self.logins.popleft())

    def finish(self) -> None:
        """Wait no longer."""
        while self.logins:
            self._give_up(self.logins.popleft())

    def _give_up(self, login: Login) -> None:
        if not login.accepted:
            # Which of its gateways it was, the broker says only in its log.
            self.refused_login(login.time_ns, login.user, "direct", None, None)

    def _notice_restart(self, pid: str, time_ns: int) -> None:
        node = incarnation_of(pid)
        if node is None:
            return
        name, incarnation = node
        before = self._incarnations.get(name)
        if before is not None and before != incarnation:
            self.sink.notice(RESTARTED, name, time_ns=time_ns)
        if name in self._incarnations or len(self._incarnations) < _NODES:
            self._incarnations[name] = incarnation

    # Queues, exchanges, bindings ------------------------------------------------------------------------------------

    def _consumed(self, fact: ConsumerChanged) -> None:
        if fact.channel in self._own_channels or fact.queue in self._own_queues:
            return
        if not fact.created and self._is_internal(fact.by):
            return
        connections = self.sink.connections
        client = connections.consumed(fact)
        if client is not None and naming.is_plumbing(client.protocol, client.client_id, fact.queue):
            return
        if client is None and connections.may_be_gateway(fact.vhost, fact.queue, fact.by):
            self.sink.unresolved(GATEWAYS, fact.by, fact.vhost)
            return
        action = Action.SUBSCRIBE if fact.created else Action.UNSUBSCRIBE
        client = client or connections.only_user(fact.by, fact.vhost)
        self.sink.add(fact.time_ns, action, client, naming.configured("queue", fact.queue))

    def _bound(self, fact: BindingChanged) -> None:
        if fact.destination in self._own_queues and not fact.to_exchange:
            return
        if fact.to_exchange and fact.created and fact.destination in AUDIT_EXCHANGES:
            # Nothing but forged messages can come of it.
            who = self.sink.connections.only_user(fact.by, fact.vhost)
            witness = f"user {fact.by!r} bound exchange {fact.source!r} of virtual host {fact.vhost!r} to it"
            evidence: dict[str, str | int | float] = {"exchange": fact.destination}
            self.sink.notice(
                FORGED_MESSAGE, fact.destination, time_ns=fact.time_ns, witness=witness, client=who, evidence=evidence
            )
        if not fact.created and self._is_internal(fact.by):
            return
        connections = self.sink.connections
        client = None
        if not fact.to_exchange:
            client = connections.bound(fact.vhost, fact.destination, fact.by)
            if client is None and connections.may_be_gateway(fact.vhost, fact.destination, fact.by):
                self.sink.unresolved(GATEWAYS, fact.by, fact.vhost)
                return
        client = client or connections.only_user(fact.by, fact.vhost)
        protocol = client.protocol
        if protocol == "mqtt" and not naming.is_plumbing(protocol, client.client_id, fact.destination):
            protocol = "amqp"
        kind = self.sink.grants.exchange_type(fact.vhost, fact.source) or PREDECLARED.get(fact.source)
        resource = naming.bound(protocol, fact.source, kind, fact.key)
        action = Action.SUBSCRIBE if fact.created else Action.UNSUBSCRIBE
        self.sink.add(fact.time_ns, action, client, resource)

    def _may_be_ours(self, fact: ObjectChanged) -> bool:
        """Whether this may be a queue of ours: the event can overtake the answer that tells us its name."""
        if fact.owner is None or not fact.created or fact.name in self._own_queues:
            return False
        return not self._is_own_process(fact.owner) and self.sink.connections.name_of(fact.owner) is None

    def _declared(self, fact: ObjectChanged) -> bool:
        if fact.owner is not None and self._is_own_process(fact.owner):
            self._remember(self._own_queues, fact.name)
            return True
        if fact.name in self._own_queues and fact.kind == "queue":
            if not fact.created:
                self._own_queues.discard(fact.name)
                if not self._is_internal(fact.by):
                    who = self.sink.connections.only_user(fact.by, fact.vhost)
                    witness = f"user {fact.by!r} deleted our queue {fact.name!r}"
                    what = {"what": f"our queue in {fact.vhost}"}
                    scope = f"queue {fact.vhost}"
                    self.sink.notice(
                        SWITCHED_OFF, scope, time_ns=fact.time_ns, witness=witness, client=who, evidence={**what}
                    )
            return True
        if fact.created and fact.vhost in self.firehose and _too_long(fact.name):
            who = self.sink.connections.only_user(fact.by, fact.vhost)
            why = (
                f"the {fact.kind}'s name is longer than {MAX_TRACED_NAME} bytes: each use of it ends the connection of "
                "whoever reads the firehose (seen with RabbitMQ 3.10.8)"
            )
            self.sink.notice(
                GAP,
                f"untraceable name in {fact.vhost}",
                time_ns=fact.time_ns,
                witness=f"user {fact.by!r} declared the {fact.kind} {fact.name!r}",
                client=who,
                evidence={"why": why},
            )
        if not fact.created and self._is_internal(fact.by):
            return True
        connections = self.sink.connections
        client = connections.declared(fact)
        if fact.kind == "queue":
            if client is not None and naming.is_plumbing(client.protocol, client.client_id, fact.name):
                return True
            if client is None and connections.may_be_gateway(fact.vhost, fact.name, fact.by):
                # No loss: the queue is no more than the sign of a subscription that is counted as such.
                return True
        client = client or connections.only_user(fact.by, fact.vhost)
        self.sink.add(fact.time_ns, Action.CONFIGURE, client, naming.configured(fact.kind, fact.name))
        return True

    def _plugins_changed(self, time_ns: int, headers: Headers) -> None:
        """The last event there is before the event exchange goes (3.10.8); our queue stays, bound to nothing."""
        disabled = (headers or {}).get("disabled")
        if isinstance(disabled, list) and _PLUGIN in disabled:
            self.switched_off = True
            evidence: dict[str, str | int | float] = {"what": f"the plugin {_PLUGIN}"}
            self.sink.notice(SWITCHED_OFF, "amq.rabbitmq.event", time_ns=time_ns, evidence=evidence)

    def _policy_updated(self, time_ns: int, headers: Headers) -> None:
        """A policy can bound a queue of ours tighter than we do, and the broker then drops from it."""
        pairs, definition = pairs_of(headers), (headers or {}).get("definition")
        if pairs.get("name") not in self._own_queues or not isinstance(definition, Mapping):
            return
        limits = sorted(_LIMITS & set(definition))
        if limits:
            by, vhost = pairs.get("user_who_performed_action"), pairs.get("vhost")
            self.sink.notice(
                SWITCHED_OFF,
                f"queue {vhost}",
                time_ns=time_ns,
                witness=f"user {by!r} set a policy on our queue: {', '.join(limits)}",
                client=self.sink.connections.only_user(by, vhost),
                evidence={"what": f"keeping of messages in our queue in {vhost}"},
            )

    def _is_internal(self, by: str | None) -> bool:
        """Whether the broker did it by itself, as a consequence of something else."""
        return not by or (by == INTERNAL and not self._internal_is_a_user)

    def _is_own_process(self, pid: str) -> bool:
        return pid in self._own_channels

    @staticmethod
    def _remember(mine: set[T], one: T) -> None:
        if len(mine) < _LOGINS:
            mine.add(one)


def _too_long(name: str) -> bool:
    return len(name.encode("utf-8", "surrogateescape")) > MAX_TRACED_NAME
