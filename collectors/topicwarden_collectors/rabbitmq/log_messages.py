"""Reads RabbitMQ's log messages: bodies of `amq.rabbitmq.log` and lines of a JSON log file. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden_collectors.rabbitmq.log_facts import Fact

JOIN_CAPACITY: Final = 4096
"""Most processes whose half-told story a joiner keeps."""


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One log event, as the broker's JSON formatter gives it."""

    time_ns: int
    """Nanoseconds since the epoch, UTC."""
    level: str
    msg: str
    """Its text; lines are told apart by line feeds, which names can hold too."""
    domain: str
    """`rabbitmq.channel`, `rabbitmq.connection` …; '' when there is none."""
    pid: str
    """`<0.784.0>`; '' when there is none."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A body that is no log message."""

    reason: str


def decode_log(body: bytes) -> LogMessage | Undecodable:
    """Decode one JSON log message; never raises."""
    return Undecodable("not yet")


def facts(message: LogMessage) -> Sequence[Fact]:
    """Return what one message says by itself; never raises.

    A message of MQTT or STOMP that says only half (a failed login without its connection) gives a fact whose
    `connection` is None; `LogJoiner` completes it.
    """
    return ()


class LogJoiner:
    """Completes facts that take two messages of one process; keeps at most `JOIN_CAPACITY` processes in mind."""

    def __init__(self) -> None:
        self.forgotten = 0
        """Processes dropped to make room."""

    def feed(self, message: LogMessage) -> Sequence[Fact]:
        """Return `facts(message)`, completed by what the same process said before; call it instead of `facts`."""
        return facts(message)

    def flush(self) -> Sequence[Fact]:
        """Return what still waits for its second half, as it is."""
        return ()
