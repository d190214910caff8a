"""Events of hosts, whatever told them: the kernel, auditd, Sysmon, an agent, a network sensor.

They stand beside the events of brokers in a batch. Everything in them is as hostile as the programs that ran: arguments
are bounded and have their secrets taken out before an event is built, no payload is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from topicwarden.events.batch import Certainty, Shape

MAX_ARGUMENTS = 64
"""Arguments kept of a command line."""
MAX_ARGUMENT = 1024
"""Characters kept of one argument; of a longer one the beginning."""


@lru_cache(maxsize=4096)
def executable_name(path: str) -> str:
    """Return a program's file name; of either kind of path."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection."""

    address: str
    """IP address without brackets or zone; an IPv4 address mapped into IPv6 is written as IPv4."""
    port: int


@dataclass(frozen=True, slots=True)
class SeenPayload:
    """What is kept of a message found in a command line. Its place there reads `<payload>`."""

    size: int
    """Bytes."""
    entropy: float
    """Bits per byte of its first 1024 bytes."""
    shape: Shape


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was when seen."""

    host: str
    pid: int
    executable: str = ""
    """Path of the program; '' = not known."""
    arguments: tuple[str, ...] = ()
    """The command line with secrets replaced by `***`; at most MAX_ARGUMENTS of MAX_ARGUMENT characters."""
    cut: bool = False
    """Whether arguments are missing or were shortened."""
    parent_pid: int | None = None
    parent_executable: str | None = None
    user: str | None = None
    """Name, or number where the source gives no name, of the user it runs as."""
    login_user: str | None = None
    """Who logged in, where the source knows (auditd's auid); None: nobody did, or it is not known."""
    terminal: str | None = None
    """The terminal it was started from (`pts0`); None: from none, or not known."""
    container: str | None = None
    """Identifier of the container it runs in; None: in none, or not known."""
    payload: SeenPayload | None = None
    """What a message given among the arguments looked like; the text itself is not kept there (see `SeenPayload`)."""


@dataclass(frozen=True, slots=True)
class Executed:
    """A program was started in a process; a process may do so several times."""

    time_ns: int
    process: Process


@dataclass(frozen=True, slots=True)
class Exited:
    """A process ended; its number may be given to another at once."""

    time_ns: int
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection was made, or tried, from a host."""

    time_ns: int
    host: str
    remote: Endpoint
    local: Endpoint | None = None
    """None where the source does not tell (auditd's connect)."""
    pid: int | None = None
    executable: str | None = None
    user: str | None = None
    transport: str = "tcp"
    established: bool | None = None
    """Whether it came to stand; None: not known."""
    sent: int | None = None
    """Bytes sent, where the source tells them when the connection has ended."""
    duration_ns: int | None = None


class Spoken(StrEnum):
    """What was said on a connection."""

    CONNECT = "connect"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Spoke:
    """A network sensor saw a publish/subscribe protocol on a connection. It names nobody whom a broker verified."""

    time_ns: int
    sensor: str
    """The host that told it."""
    client: Endpoint
    server: Endpoint
    protocol: str
    """`mqtt`, `amqp`, `stomp`, `xmpp`."""
    what: Spoken
    client_id: str | None = None
    user: str | None = None
    name: str | None = None
    """The topic or filter."""
    size: int | None = None
    """Bytes of payload."""
    entropy: float | None = None
    """Bits per byte of the part of the payload that the sensor logged."""
    shape: Shape = Shape.UNKNOWN
    certainty: Certainty = Certainty.EXACT


HostEvent = Executed | Exited | Dialled | Spoke
