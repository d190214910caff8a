"""Turns facts of the log exchange into denials whose client the event exchange has told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from topicwarden.events import NO_RESOURCE, Action, Client, Identity, Outcome, Resource, ResourceKind
from topicwarden_collectors.rabbitmq import naming
from topicwarden_collectors.rabbitmq.erlang_terms import logged, text_of
from topicwarden_collectors.rabbitmq.log_facts import (
    ConnectionAccepted,
    Fact,
    LoginRefused,
    Refused,
    Suspicious,
    TracingSwitched,
    UserAuthenticated,
)
from topicwarden_collectors.rabbitmq.log_messages import LogJoiner, Undecodable, decode_log
from topicwarden_collectors.rabbitmq.log_spelling import Spelling
from topicwarden_collectors.rabbitmq.stock_events import EventSteps
from topicwarden_collectors.rabbitmq.stock_sink import FORGED_TEXT, Sink
from topicwarden_collectors.rabbitmq.stock_waiting import WAIT_NS, Waiting

DENIALS: Final = frozenset({"permission", "user_id", "internal exchange", "reserved name", "locked"})
"""Refusals that are about what the client may do; others are about what is there."""
_NO_LOGIN: Final = frozenset({"credentials", "mechanism", "loopback", "other"})
"""Refusals of the login itself, of which the event exchange tells too."""
_FLUSH_NS: Final = 4 * WAIT_NS


class LogSteps:
    """Decodes messages of `amq.rabbitmq.log`."""

    def __init__(
        self, sink: Sink, waiting: Waiting, events: EventSteps, on_tracing: Callable[[TracingSwitched], None]
    ) -> None:
        self.sink = sink
        self.waiting = waiting
        self.events = events
        self.own: frozenset[str] = frozenset()
        """Names of our own connections."""
        self.has_events = False
        """Whether the event exchange is being read, and tells of failed logins itself."""
        self.info_seen = self.not_json = self.seen = False
        """Whether there was a message of level info; one that is not JSON; any at all."""
        self._on_tracing = on_tracing
        self._joiner = LogJoiner()
        self._flushed_ns = 0

    def spelling(self, spelling: Spelling) -> None:
        """Take over how the broker writes names in messages."""
        self._joiner.spelling = spelling

    def decode(self, body: bytes, content_type: str | None, headers: Mapping[Any, Any] | None) -> None:
        """Take over one message."""
        message = decode_log(body)
        if isinstance(message, Undecodable):
            self.sink.counters.error("log")
            self.not_json = self.not_json or content_type != "application/json"
            return
        self.seen, self.not_json = True, False
        self.info_seen = self.info_seen or message.level == "info"
        node = text_of((headers or {}).get("node")) or ""
        for fact in self._joiner.feed(message):
            self._take(fact, node)

    def pass_time(self) -> None:
        """Go on with messages whose second half did not come."""
        if not 0 <= self.sink.now_ns - self._flushed_ns < _FLUSH_NS:
            self.finish()

    def finish(self) -> None:
        """Wait no longer for second halves."""
        self._flushed_ns = self.sink.now_ns
        for fact in self._joiner.flush():
            self._take(fact, "")

    def _take(self, fact: Fact, node: str) -> None:
        if fact.connection is not None and fact.connection in self.own:
            return
        match fact:
            case Refused():
                if fact.reason == "unknown":
                    self.sink.counters.error("refusal")
                elif fact.reason in DENIALS:
                    line = fact.connection or logged(node, fact.pid)
                    self._try(line, lambda last: self._refused(fact, node, last))
            case LoginRefused():
                # Not behind what waits for the connection: there will never be one.
                line = f"login {fact.connection or logged(node, fact.pid)}"
                self._try(line, lambda last: self._login_refused(fact, last))
            case ConnectionAccepted() | UserAuthenticated():
                self.sink.connections.heard(fact.connection, fact.protocol)
            case TracingSwitched():
                self._on_tracing(fact)
            case Suspicious():
                if fact.kind == "forged":
                    self.sink.notice(FORGED_TEXT, "log", time_ns=fact.time_ns, witness=fact.witness)
                else:
                    self.sink.counters.error("log message")
            case _:
                pass

    def _try(self, line: str, step: Callable[[bool], bool]) -> None:
        if self.waiting.waits(line) or not step(False):
            self.waiting.add(line, step, self.sink.now_ns)

    def _refused(self, fact: Refused, node: str, last: bool) -> bool:
        connections = self.sink.connections
        client = connections.by_name(fact.connection) if fact.connection is not None else None
        client = client or connections.by_process(logged(node, fact.pid))
        if client is None:
            if not last:
                return False
            client = connections.stranger(fact.connection)
        if client.user is not None and fact.quoted_user not in (None, client.user) and not fact.ambiguous:
            self.sink.notice(
                FORGED_TEXT,
                "quoted user",
                time_ns=fact.time_ns,
                witness=f"the log quotes the user {fact.quoted_user!r}, the connection is of {client.user!r}",
                client=client,
            )
        if fact.action is None:
            # Something was refused, and the log does not tell what.
            self.sink.counters.error("refusal")
        else:
            self.sink.add(fact.time_ns, fact.action, client, _resource(fact, client), Outcome.DENIED)
        return True

    def _login_refused(self, fact: LoginRefused, last: bool) -> bool:
        broker, protocol = self.sink.broker, fact.protocol
        stranger = self.sink.connections.stranger(fact.connection)
        address, port = stranger.address, stranger.port
        before_vhost = fact.reason in _NO_LOGIN
        if protocol == "amqp":
            if before_vhost and self.has_events:
                return True
            login = self.events.logged_in.pop(fact.connection or "", None)
            user, identity = (login.user, Identity.VERIFIED) if login is not None else (None, Identity.UNKNOWN)
        else:
            found = None
            if fact.quoted_user is not None and not fact.ambiguous:
                found = self.events.login_of(fact.quoted_user, accepted=not before_vhost)
            verified = Identity.CLAIMED if before_vhost else Identity.VERIFIED
            user, identity = (found.user, verified) if found is not None else (None, Identity.UNKNOWN)
        if user is None:
            if not last and self.has_events:
                return False
            if fact.ambiguous and before_vhost and self.has_events and protocol in ("mqtt", "stomp"):
                # The event of this login is told without an address; twice would be one too many.
                return True
            if fact.quoted_user is not None and not fact.ambiguous:
                # AMQP asks for the virtual host after the login, whose event did not come in time.
                logged_in = protocol == "amqp" and not before_vhost
                user, identity = fact.quoted_user, Identity.VERIFIED if logged_in else Identity.CLAIMED
        vhost = None if fact.ambiguous else fact.vhost
        client = Client(broker, protocol, "", user, address, port, vhost=vhost, identity=identity)
        action = Action.AUTHENTICATE if before_vhost else Action.CONNECT
        self.sink.add(fact.time_ns, action, client, NO_RESOURCE, Outcome.DENIED)
        return True


def _resource(fact: Refused, client: Client) -> Resource:
    """Return what was refused, as a topic for MQTT clients, who know nothing of exchanges and keys."""
    resource = fact.resource
    if client.protocol != "mqtt" or resource.kind not in (ResourceKind.KEY, ResourceKind.BINDING):
        return resource
    if fact.action is Action.PUBLISH:
        return naming.published("mqtt", resource.within, resource.name)
    return naming.bound("mqtt", resource.within, "topic", resource.name)
