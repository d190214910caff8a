"""Where the parts of the log decoder put events, notices and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from topicwarden.events import (
    NO_RESOURCE,
    QOS_UNKNOWN,
    RETAIN_UNKNOWN,
    SIZE_UNKNOWN,
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    Notice,
    Outcome,
    Resource,
    ResourceKind,
    Tables,
)
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.log_sessions import name

LOST: Final = "TW901"
MALFORMED: Final = "TW903"
FORGED: Final = "TW905"

MAX_NOTICES: Final = 64
"""Most different notices in one batch; more are only counted."""
WITNESS_LENGTH: Final = 240
_RESOURCES: Final = 1 << 15


class LogSink:
    """Collects what one decoder finds."""

    def __init__(self, tables: Tables, broker: str, counters: Counters) -> None:
        self.tables = tables
        self.broker = broker
        self.counters = counters
        self.muted = False
        """While true nothing is kept or counted: lines only teach who is connected."""
        self.ignored: str | None = None
        """A client id whose events are left out: our own."""
        self._builder = EventBuilder(tables)
        self._notices: dict[tuple[str, str, Client | None], Notice] = {}
        self._topics: dict[bytes, Resource] = {}

    def __len__(self) -> int:
        return len(self._builder)

    def event(
        self,
        time_ns: int,
        action: Action,
        client: Client,
        outcome: Outcome,
        certainty: Certainty,
        *,
        topic: bytes | None = None,
        cut: bool = False,
        size: int = SIZE_UNKNOWN,
        qos: int = QOS_UNKNOWN,
        retain: int = RETAIN_UNKNOWN,
    ) -> None:
        """Add an event; with `cut`, the topic or filter is only a beginning."""
        if self.muted or (self.ignored is not None and client.client_id == self.ignored):
            return
        resource = NO_RESOURCE if topic is None else self._cut(topic) if cut else self._whole(topic)
        if outcome is Outcome.UNKNOWN:
            certainty = Certainty.UNKNOWN
        self._builder.add(time_ns, action, client, resource, outcome, certainty, size=size, qos=qos, retain=retain)

    def _whole(self, topic: bytes) -> Resource:
        resource = self._topics.get(topic)
        if resource is None:
            if len(self._topics) >= _RESOURCES:
                self._topics.clear()
            resource = self._topics[topic] = Resource(ResourceKind.TOPIC, name(topic))
        return resource

    @staticmethod
    def _cut(topic: bytes) -> Resource:
        """The full length is not known; one byte more than we have says that something is, or may be, missing."""
        text = name(topic)
        return Resource(ResourceKind.TOPIC, text, len(text.encode("utf-8", "surrogatepass")) + 1)

    def notice(
        self,
        code: str,
        scope: str,
        time_ns: int,
        *,
        client: Client | None = None,
        witness: bytes | None = None,
        count: int = 1,
        evidence: Mapping[str, str | int | float] | None = None,
    ) -> None:
        """Say something about the observing; equal notices of one batch become one with their count."""
        if self.muted:
            return
        key = (code, scope, client)
        known = self._notices.get(key)
        if known is not None:
            self._notices[key] = replace(known, count=known.count + count)
        elif len(self._notices) < MAX_NOTICES:
            text = None if witness is None else name(witness[:WITNESS_LENGTH])
            self._notices[key] = Notice(
                code, time_ns, self.broker, scope, count, client, text, {} if evidence is None else evidence
            )
        else:
            self.count("notices_dropped")

    def error(self, stage: str) -> None:
        """Count a line that gave no event and should have."""
        if not self.muted:
            self.counters.error(stage)

    def count(self, what: str, amount: int = 1) -> None:
        """Add to the source's own counts."""
        if not self.muted:
            self.counters.source[what] = self.counters.source.get(what, 0) + amount

    def take(self) -> EventBatch:
        """Return what was collected since the last call."""
        for notice in self._notices.values():
            self._builder.notice(notice)
        self._notices = {}
        batch = self._builder.take()
        self.counters.events += len(batch)
        return batch
