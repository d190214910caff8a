"""Turns what a log file says into events: who tried what, and was refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

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
    Tables,
)
from topicwarden.sources import Counters
from topicwarden_collectors.rabbitmq.log_facts import (
    ConnectionAccepted,
    ConnectionClosed,
    Fact,
    LoginRefused,
    NodeStarted,
    NodeStopping,
    Refused,
    Suspicious,
    TracingSwitched,
    UserAuthenticated,
)

CONNECTIONS: Final = 1 << 16
"""Most connections kept in mind; beyond it the oldest are forgotten, and their events say less."""
ENDPOINTS: Final = 256
MAX_NOTICES: Final = 64
FORBIDDEN: Final = frozenset(("permission", "user_id", "internal exchange", "reserved name"))
"""Reasons that are about what a client may do; the others are mistakes, or the state of things."""

LOST: Final = "TW901"
UNREADABLE: Final = "TW903"
FORGED: Final = "TW905"
RESTARTED: Final = "TW906"


@dataclass(slots=True)
class _Connection:
    protocol: str
    client_id: str = ""
    user: str | None = None
    vhost: str | None = None


class LogEvents:
    """Builds batches from facts in the log's order; keeps who is behind which connection, as far as the log says."""

    def __init__(self, tables: Tables, broker: str, counters: Counters, *, lossy: bool = False) -> None:
        self.broker = broker
        self.counters = counters
        self.lossy = lossy
        """Whether names that hold line feeds are not whole: text logs drop spaces at the ends of lines."""
        self._builder = EventBuilder(tables)
        self._connections: OrderedDict[str, _Connection] = OrderedDict()
        self._protocols: dict[str, str] = {}
        """Protocol by the server's address and port."""
        self._notices: dict[tuple[str, str, Client | None], Notice] = {}
        self._begun = False

    @property
    def full(self) -> bool:
        """Whether the batch in progress should be taken."""
        return len(self._builder) >= 1 << 14 or self._builder.tables.must_flush

    def add(self, facts: Iterable[Fact]) -> None:
        """Add what one message said."""
        for fact in facts:
            self._add(fact)

    def _add(self, fact: Fact) -> None:
        match fact:
            case Refused():
                self._refused(fact)
            case LoginRefused():
                self._login_refused(fact)
            case UserAuthenticated():
                self._authenticated(fact)
            case ConnectionAccepted():
                self._accepted(fact)
            case ConnectionClosed():
                self._closed(fact)
            case Suspicious():
                self._suspicious(fact)
            case TracingSwitched():
                self._count("tracing switched")
            case NodeStarted():
                self._connections.clear()
                if self._begun:
                    self._notice(Notice(RESTARTED, fact.time_ns, self.broker, "log"))
            case NodeStopping():
                self._count("node stopping")
        self._begun = True

    def _refused(self, fact: Refused) -> None:
        # Not what a client may not do, but what nobody could do just then.
        if fact.reason not in FORBIDDEN and not fact.ambiguous:
            self._count(f"not carried out: {fact.reason}")
            return
        client = self._client(fact.connection, fact.quoted_user, fact.vhost)
        if fact.ambiguous or fact.action is None or self._lost(fact.resource.name, fact.resource.within, client.user):
            self._count("refusals that can be read in more than one way")
            if not fact.ambiguous:
                self._notice(self._forged(fact.time_ns, client, fact.resource.label))
            return
        self._builder.add(fact.time_ns, fact.action, client, fact.resource, Outcome.DENIED, Certainty.EXACT)

    def _lost(self, *names: str | None) -> bool:
        return self.lossy and any(name is not None and "\n" in name for name in names)

    def _login_refused(self, fact: LoginRefused) -> None:
        if fact.reason == "limit" or (fact.protocol == "http" and fact.reason in ("permission", "vhost")):
            # Logged in; a limit is no refusal of this client, and what it asked of the HTTP API is not told.
            self._count(f"{fact.protocol} refusals: {fact.reason}")
            return
        user = None if self._lost(fact.quoted_user) else fact.quoted_user
        vhost = None if self._lost(fact.vhost) else fact.vhost
        action, identity = Action.AUTHENTICATE, Identity.CLAIMED
        if fact.reason in ("vhost", "no such vhost"):
            action = Action.CONNECT
            if fact.protocol == "amqp":
                identity = Identity.VERIFIED  # AMQP asks for the virtual host after the login
        client = self._client(fact.connection, None, None, fact.protocol)
        client = replace(client, user=user, vhost=vhost, identity=Identity.UNKNOWN if user is None else identity)
        self._builder.add(fact.time_ns, action, client, NO_RESOURCE, Outcome.DENIED, Certainty.EXACT)

    def _authenticated(self, fact: UserAuthenticated) -> None:
        client = self._client(fact.connection, fact.quoted_user, fact.vhost, fact.protocol)
        self._builder.add(fact.time_ns, Action.CONNECT, client, NO_RESOURCE, Outcome.ALLOWED, Certainty.EXACT)

    def _accepted(self, fact: ConnectionAccepted) -> None:
        if fact.connection is None or fact.client_name is not None:
            return
        self._remember(fact.connection, fact.protocol)
        if fact.protocol != "mqtt":
            return  # has yet to log in
        self._connections[fact.connection].client_id = "" if self._lost(fact.client_id) else fact.client_id or ""
        client = self._client(fact.connection, None, None)
        self._builder.add(fact.time_ns, Action.CONNECT, client, NO_RESOURCE, Outcome.ALLOWED, Certainty.EXACT)

    def _closed(self, fact: ConnectionClosed) -> None:
        if fact.connection is None or fact.connection not in self._connections:
            return
        client = self._client(fact.connection, None, None)
        del self._connections[fact.connection]
        if client.user is not None or client.client_id:
            self._builder.add(fact.time_ns, Action.DISCONNECT, client, NO_RESOURCE, Outcome.ALLOWED, Certainty.EXACT)

    def _remember(self, connection: str, protocol: str) -> _Connection:
        known = self._connections.get(connection)
        if known is not None and known.protocol == protocol:
            return known
        if len(self._connections) >= CONNECTIONS:
            self._connections.popitem(last=False)
            self._count("connections forgotten")
        known = self._connections[connection] = _Connection(protocol)
        if len(self._protocols) < ENDPOINTS:
            self._protocols.setdefault(connection.partition(" -> ")[2], protocol)
        return known

    def _client(
        self, connection: str | None, user: str | None, vhost: str | None, protocol: str | None = None
    ) -> Client:
        """Return who is behind a connection; `user` and `vhost` as the message states them, else as one before did."""
        if self._lost(user, vhost):
            user = vhost = None
        if connection is None:
            return Client(self.broker, protocol or "unknown", "", user, vhost=vhost)
        if protocol is None:
            protocol = self._protocols.get(connection.partition(" -> ")[2], "unknown")
        known = self._connections.get(connection) or self._remember(connection, protocol)
        known.user, known.vhost = user or known.user, vhost or known.vhost
        address, _, port = connection.partition(" -> ")[0].rpartition(":")
        return Client(
            self.broker,
            known.protocol,
            known.client_id,
            known.user,
            address.strip("[]"),
            int(port),
            vhost=known.vhost,
            identity=Identity.UNKNOWN if known.user is None else Identity.VERIFIED,
        )

    def _suspicious(self, fact: Suspicious) -> None:
        client = None if fact.connection is None else self._client(fact.connection, None, None)
        if fact.kind == "forged":
            self._notice(self._forged(fact.time_ns, client, fact.witness))
        else:
            self.error("message", fact.time_ns, fact.witness)

    def _forged(self, time_ns: int, client: Client | None, witness: str) -> Notice:
        return Notice(FORGED, time_ns, self.broker, "log", client=client, witness=witness)

    def error(self, stage: str, time_ns: int, witness: str, count: int = 1) -> None:
        """Count lines or messages that cannot be read, and say so."""
        self.counters.error(stage, count)
        self._notice(Notice(UNREADABLE, time_ns, self.broker, stage, count, witness=witness))

    def gap(self, time_ns: int, why: str) -> None:
        """Say that part of the log is missing."""
        self.counters.gaps += 1
        self._notice(Notice(LOST, time_ns, self.broker, "log", evidence={"why": why}))

    def _notice(self, notice: Notice) -> None:
        key = (notice.code, notice.scope, notice.client)
        known = self._notices.get(key)
        if known is not None:
            self._notices[key] = replace(known, count=known.count + notice.count)
        elif len(self._notices) < MAX_NOTICES:
            self._notices[key] = notice
        else:
            self._count("notices dropped")

    def _count(self, what: str) -> None:
        self.counters.source[what] = self.counters.source.get(what, 0) + 1

    def take(self) -> EventBatch | None:
        """Return what was collected since the last call; None when that is nothing."""
        for notice in self._notices.values():
            self._builder.notice(notice)
        self._notices = {}
        if self._builder.empty:
            return None
        batch = self._builder.take()
        self.counters.events += len(batch)
        return batch
