"""What the decoders of the stock mode share: the batch being built, counts, and what was told already. Pure."""

from __future__ import annotations

from typing import Final

from topicwarden.events import (
    NO_RESOURCE,
    QOS_UNKNOWN,
    SIZE_UNKNOWN,
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    Identity,
    Notice,
    Outcome,
    Resource,
    Tables,
)
from topicwarden.sources import Counters
from topicwarden_collectors.rabbitmq.connections import Connections
from topicwarden_collectors.rabbitmq.grants import Grants

GAP: Final = "TW901"
UNDECODABLE: Final = "TW903"
FORGED_TEXT: Final = "TW905"
RESTARTED: Final = "TW906"
FORGED_MESSAGE: Final = "TW907"
SWITCHED_OFF: Final = "TW908"
MAX_ROWS: Final = 8192
"""Rows after which a batch is handed over."""
_WITNESS: Final = 400


class Sink:
    """Where decoded events go."""

    def __init__(self, tables: Tables, broker: str, counters: Counters, grants: Grants) -> None:
        self.broker = broker
        self.counters = counters
        self.grants = grants
        self.connections = Connections(broker)
        self.now_ns = 0
        """Our own clock when what is being decoded arrived."""
        self.done: list[EventBatch] = []
        """Finished batches, to be handed over."""
        self._builder = EventBuilder(tables)
        self._unresolved: dict[str, int] = {}
        self._examples: dict[str, Client] = {}

    def add(
        self,
        time_ns: int,
        action: Action,
        client: Client,
        resource: Resource = NO_RESOURCE,
        outcome: Outcome = Outcome.ALLOWED,
        *,
        size: int = SIZE_UNKNOWN,
        qos: int = QOS_UNKNOWN,
    ) -> None:
        """Append an event whose outcome the broker itself stated."""
        builder = self._builder
        builder.add(time_ns, action, client, resource, outcome, Certainty.EXACT, size=size, qos=qos)
        if len(builder) >= MAX_ROWS or builder.tables.must_flush:
            self.flush()

    def changed(self, time_ns: int, event: str, pairs: dict[str, str]) -> None:
        """Give an event to the model of grants, and append the change it is, if it is one."""
        change = self.grants.apply(time_ns, event, pairs)
        if change is not None:
            self._builder.change(change)
            if self._builder.tables.must_flush:
                self.flush()

    def notice(
        self,
        code: str,
        scope: str,
        *,
        time_ns: int | None = None,
        count: int = 1,
        witness: str | None = None,
        client: Client | None = None,
        evidence: dict[str, str | int | float] | None = None,
    ) -> None:
        """Append something to say about the observing itself; without a time, that of our clock."""
        self._builder.notice(
            Notice(
                code,
                self.now_ns if time_ns is None else time_ns,
                self.broker,
                scope,
                count,
                client,
                None if witness is None else witness[:_WITNESS],
                evidence or {},
            )
        )

    def gap(self, scope: str, why: str) -> None:
        """Say that something was not seen; how much, the broker does not tell."""
        self.counters.gaps += 1
        self.notice(GAP, scope, evidence={"why": why})

    def unresolved(self, scope: str, user: str | None, vhost: str | None) -> None:
        """Count an event whose client we do not know well enough to judge it."""
        self.counters.unresolved += 1
        self._unresolved[scope] = self._unresolved.get(scope, 0) + 1
        if scope not in self._examples:
            self._examples[scope] = Client(self.broker, "amqp", "", user, vhost=vhost, identity=Identity.UNKNOWN)

    def say_unresolved(self) -> None:
        """Tell of the events counted since the last call."""
        for scope, count in self._unresolved.items():
            example = self._examples[scope]
            self.notice(
                GAP,
                scope,
                count=count,
                witness=f"user {example.user!r} in virtual host {example.vhost!r}",
                evidence={
                    "why": "the client connected before we looked, and what it is cannot be told from its traffic"
                },
            )
        self._unresolved.clear()
        self._examples.clear()

    def flush(self) -> None:
        """Finish the batch in progress."""
        if not self._builder.empty:
            batch = self._builder.take()
            self.counters.events += len(batch)
            self.done.append(batch)
