"""What hosts do usually: which programs talk to brokers there, and which brokers they connect to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from topicwarden.events import Dialled, Endpoint, Executed, HostEvent, Spoke
from topicwarden.hosts.commands import read_command
from topicwarden.learn.observations import SECOND

PORTS: Final = frozenset({1883, 8883, 5222, 5223, 5269, 5671, 5672, 61613, 61614})
"""Ports of MQTT, XMPP, AMQP and STOMP. A connection to another one is a broker's where a sensor saw it spoken there."""
MAX_SEEN: Final = 1 << 15
"""Different programs, and different endpoints, kept; further ones are counted."""
MAX_NAMES: Final = 1000
"""Users, parents or hosts kept of one of them."""
DAY_NS: Final = 24 * 3600 * SECOND


@dataclass(slots=True)
class Span:
    """How often, when, and on which days (UTC) something was seen."""

    count: int = 0
    first_ns: int = 1 << 62
    last_ns: int = 0
    days: set[int] = field(default_factory=set)

    def add(self, time_ns: int) -> None:
        """Take one more time."""
        self.count += 1
        self.first_ns, self.last_ns = min(self.first_ns, time_ns), max(self.last_ns, time_ns)
        if len(self.days) < MAX_NAMES:
            self.days.add(time_ns // DAY_NS)


@dataclass(slots=True)
class SeenTool:
    """A program on a host that talked to brokers, as its command lines tell."""

    span: Span = field(default_factory=Span)
    users: dict[str, None] = field(default_factory=dict)
    parents: dict[str, None] = field(default_factory=dict)
    does: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class SeenBroker:
    """An endpoint that hosts connected to."""

    span: Span = field(default_factory=Span)
    hosts: dict[str, None] = field(default_factory=dict)
    spoken: bool = False
    """Whether a sensor saw a publish/subscribe protocol there."""


class HostGatherer:
    """Takes the events of hosts. Bounded; what does not fit is counted."""

    def __init__(self, capacity: int = MAX_SEEN) -> None:
        self._capacity = capacity
        self.tools: dict[tuple[str, str], SeenTool] = {}
        """By host and file name of the program."""
        self.brokers: dict[Endpoint, SeenBroker] = {}
        self.events = 0
        self.overflow = 0
        """Events for which there was no room."""
        self.first_ns, self.last_ns = 1 << 62, 0

    def add(self, events: Sequence[HostEvent]) -> None:
        """Take events of hosts."""
        for event in events:
            self.events += 1
            self.first_ns, self.last_ns = min(self.first_ns, event.time_ns), max(self.last_ns, event.time_ns)
            match event:
                case Executed():
                    self._executed(event)
                case Dialled() if event.established is not False and event.transport == "tcp":
                    self._reached(event.remote, event.host, event.time_ns, spoken=False)
                case Spoke():
                    self._reached(event.server, event.client.address, event.time_ns, spoken=True)
                case _:
                    pass

    def _executed(self, event: Executed) -> None:
        process = event.process
        command = read_command(process)
        name = file_name(process.executable) or (file_name(process.arguments[0]) if process.arguments else "")
        # What a shell is told to start is told again, as the program that it starts.
        if command is None or command.shell or not name or not process.host:
            return
        seen = self.tools.get((process.host, name))
        if seen is None:
            if len(self.tools) >= self._capacity:
                self.overflow += 1
                return
            seen = self.tools[process.host, name] = SeenTool()
        seen.span.add(event.time_ns)
        _note(seen.users, process.user)
        _note(seen.parents, file_name(process.parent_executable or ""))
        _note(seen.does, command.does.value)

    def _reached(self, remote: Endpoint, host: str, time_ns: int, *, spoken: bool) -> None:
        seen = self.brokers.get(remote)
        if seen is None:
            if not spoken and remote.port not in PORTS:
                return
            if len(self.brokers) >= self._capacity:
                self.overflow += 1
                return
            seen = self.brokers[remote] = SeenBroker()
        seen.span.add(time_ns)
        seen.spoken |= spoken
        _note(seen.hosts, host)


def file_name(path: str) -> str:
    """Return a program's name without its folder."""
    return path.rstrip("/").rpartition("/")[2]


def _note(names: dict[str, None], name: str | None) -> None:
    if name and len(names) < MAX_NAMES:
        names[name] = None


def longest(names: Iterable[str], most: int = 10) -> tuple[str, ...]:
    """Return some of the names, sorted."""
    return tuple(sorted(names)[:most])
