"""What the rules about hosts are asked about: the types of `ecs.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topicwarden.events import Action, Client, Outcome, Process, SeenPayload
from topicwarden.hosts.commands import Command
from topicwarden.hosts.join import SessionJoin, Sureness

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AtBroker:
    """What a client did at a broker: a publish or a subscribe of a batch's rows."""

    time_ns: int
    client: Client
    action: Action
    """PUBLISH or SUBSCRIBE."""
    name: str
    """Topic, filter or routing key."""
    outcome: Outcome = Outcome.UNKNOWN
    payload: SeenPayload | None = None
    score: int | None = None
    """Its TopicAnomalyScore; None: not judged."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is known about an event beyond what it says itself; None: not known, or there is none."""

    process: Process | None = None
    """Who did it. For what was done at a broker, the process that was joined."""
    started_ns: int | None = None
    """When that process was started; the same for all its events, or left out for all."""
    command: Command | None = None
    """Its command line as it was read."""
    approved: bool | None = None
    """Whether the destination, or the broker named in the command line, is in the inventory."""
    inventory: bool | None = None
    """Whether the policy has an inventory of brokers: then "not known" may mean an approved one."""
    sanctioned: bool | None = None
    """Whether the inventory has the process among its tools."""
    application_host: bool | None = None
    """Whether the host usually publishes through an application, and never by hand."""
    session: SessionJoin | None = None
    """The broker session behind a connection."""
    sureness: Sureness | None = None
    """How sure it is that `process` did this at a broker."""


@dataclass(frozen=True, slots=True)
class EcsEvent:
    """An event as a rule sees it."""

    category: str
    """EQL's event class: `process` or `network`."""
    time_ns: int
    document: Document

    def get(self, path: str) -> Any:
        """Return the field of this dotted name, None when there is none."""
        return field_of(self.document, path)


def field_of(document: Mapping[str, Any], path: str) -> Any:
    """Return a document's field by its dotted name, None when there is none."""
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value
