"""Joins what a broker saw to what a host saw: the process behind a session, and the session behind a connection.

Sure is only what both sides name alike: the client's address and port at a time when one process had them. All else is
weak, and says why: an address that was translated on the way, a source that tells no port, a clock that is off by more
than two connections are apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from topicwarden.events import Client, Dialled, Endpoint, Process
from topicwarden.hosts.processes import ProcessTable


class Sureness(StrEnum):
    """How sure a join is."""

    EXACT = "exact"
    """The same connection: addresses, ports and time agree, and no other process could be meant."""
    WEAK = "weak"
    """The same host, or the same port, at about the same time; it may be another's."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The process behind what a client did at a broker."""

    process: Process
    sureness: Sureness
    reason: str
    """Why it is joined, in words without full stop: `same connection 10.0.0.7:51432, 3 ms apart`."""
    time_ns: int
    """When the host saw it connect, by the host's clock."""
    remote: Endpoint
    local: Endpoint | None = None
    candidates: int = 1
    """How many processes it could be; `process` is the likeliest of them."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a broker knows of one connection."""

    client: Client
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class SessionJoin:
    """The broker session behind a connection that a host made."""

    session: Session
    sureness: Sureness
    reason: str


class Joiner:
    """Keeps what both sides told and answers for either. Bounded; what was dropped is counted."""

    def __init__(self, processes: ProcessTable, *, skew_ns: int, broker_hosts: Mapping[str, str]) -> None:
        """`skew_ns`: how far clocks may be apart. `broker_hosts`: the host a broker runs on, where that is known."""
        raise NotImplementedError

    def dialled(self, event: Dialled) -> None:
        """Keep a connection that a host made."""
        raise NotImplementedError

    def session(self, client: Client, first_ns: int, last_ns: int) -> None:
        """Keep, or prolong, a session that a broker saw. `client` has the peer's address and port."""
        raise NotImplementedError

    def process_of(self, client: Client, time_ns: int) -> Attribution | None:
        """Return the process behind what a client did at a broker at a time (the broker's clock)."""
        raise NotImplementedError

    def session_of(self, event: Dialled) -> SessionJoin | None:
        """Return the session behind a connection."""
        raise NotImplementedError
