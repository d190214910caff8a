"""What a command line tells: the types of `commands.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from topicwarden.events import SeenPayload


class Does(StrEnum):
    """What a command does at a broker."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    BOTH = "both"
    MANAGE = "manage"
    CONNECT = "connect"
    """It opens a connection; what it does there cannot be told from its arguments."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line as its program reads it."""

    tool: str
    """The program by its common name: `mosquitto_pub`, `nc`, `python`."""
    does: Does
    protocol: str | None = None
    """`mqtt`, `amqp`, `stomp`, `xmpp`; None: cannot be told."""
    host: str | None = None
    """The broker as written, or the program's default; None: cannot be told.

    Of a process that is `cut` what is written may not be the last word: it names a broker, it excuses none.
    """
    port: int | None = None
    """As written, or the default for what it does."""
    names: tuple[str, ...] = ()
    """Topics, filters, routing keys or queues, as written; at most 16."""
    payload: SeenPayload | None = None
    secret: bool = False
    """Whether a password stood in the command line (it was taken out)."""
    library: str | None = None
    """`paho`, `pika`, `stomp`, `slixmpp`: what a script imports."""
    raw: bool = False
    """Whether it pipes bytes into a connection (nc, socat) instead of speaking a protocol itself."""
    shell: bool = False
    """Whether it was found inside a shell's `-c` argument: its own process is told too, where it starts one."""
