"""What one log message of RabbitMQ's says, as plain values.

Names stand in messages raw, quotes and line feeds included, and clients choose them. So a fact is `ambiguous` when its
text can be read in more than one way; then it names no resource, no user and no virtual host that could be wrong. Who
did it is told by `connection` and `pid`, which the broker makes up itself: join them with the connections the event
stream names. `quoted_user` is what the message quotes, for people and for checking, never for accusing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from topicwarden.events import NO_RESOURCE, Action, Resource

WITNESS_LENGTH: Final = 240
"""Characters of a message that are kept as a witness."""


@dataclass(frozen=True, slots=True)
class LogFact:
    """What all facts have."""

    time_ns: int
    """When the broker wrote it: nanoseconds since the epoch, UTC; the log has microseconds."""
    pid: str
    """The Erlang process that wrote it, `<0.784.0>`; '' when the log does not say."""
    connection: str | None
    """`192.0.2.7:49242 -> 192.0.2.1:5672`: peer, then server. None when the message names none."""


@dataclass(frozen=True, slots=True)
class Refused(LogFact):
    """The broker refused an operation."""

    action: Action | None
    """PUBLISH, SUBSCRIBE (consume, get, bind), UNSUBSCRIBE (unbind) or CONFIGURE (declare, delete, purge); None when
    that cannot be told."""
    operation: str | None
    """The AMQP method, `queue.declare`; None when the message names none."""
    resource: Resource = NO_RESOURCE
    """What was refused, which for a bind is the queue, the exchange or the key, whichever lacked the permission."""
    permission: str | None = None
    """`configure`, `write`, `read` or `topic` when one was missing, or the ones it may be (`configure or read`): before
    3.13 the broker does not say which, and some methods need several. None for other refusals."""
    reason: str = "permission"
    """`permission`, `user_id`, `internal exchange`, `reserved name`: what this client may not do. `not found`,
    `locked`, `in use`, `precondition`, `not allowed`, `other`: what nobody could do now. `unknown`: cannot be told."""
    vhost: str | None = None
    quoted_user: str | None = None
    channel: int | None = None
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class LoginRefused(LogFact):
    """A login failed, or the user may not use the virtual host."""

    protocol: str
    """`amqp`, `mqtt`, `stomp` or `http`."""
    quoted_user: str | None
    vhost: str | None
    """The virtual host that was refused or is not there; None when the login failed before one was asked for."""
    reason: str
    """`credentials`, `vhost`, `no such vhost`, `loopback`, `limit`, `permission` (HTTP API), `other` or `unknown`."""
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionAccepted(LogFact):
    """A client connected; or, when `client_name` is set, gave its connection a name.

    An MQTT client was let in when this is written; AMQP and STOMP clients have yet to log in.
    """

    protocol: str
    """`amqp`, `mqtt` or `stomp`."""
    client_name: str | None = None
    """What the client calls its connection: the client's own words."""
    client_id: str | None = None
    """MQTT: the client id, the client's own words too."""


@dataclass(frozen=True, slots=True)
class UserAuthenticated(LogFact):
    """A client logged in; `quoted_user` and `vhost` are None when they cannot be told apart."""

    protocol: str
    quoted_user: str | None
    vhost: str | None
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionClosed(LogFact):
    """A connection ended; with a `reason`, because the broker refused what its client tried."""

    protocol: str
    reason: str | None = None
    """MQTT: `authentication` or `authorization`."""


@dataclass(frozen=True, slots=True)
class TracingSwitched(LogFact):
    """The firehose of a virtual host was switched on or off (or was already so)."""

    vhost: str
    on: bool


@dataclass(frozen=True, slots=True)
class NodeStarted(LogFact):
    """The node came up; all connections before are gone."""

    version: str | None = None


@dataclass(frozen=True, slots=True)
class NodeStopping(LogFact):
    """The node was asked to stop."""


@dataclass(frozen=True, slots=True)
class Suspicious(LogFact):
    """A message holds text that imitates the broker's own."""

    kind: str
    """`forged`: a name imitates log text; `unreadable`: a known message whose rest fits no form."""
    witness: str
    """The beginning of the message; hostile text, escape before printing."""


Fact: TypeAlias = (
    Refused
    | LoginRefused
    | ConnectionAccepted
    | UserAuthenticated
    | ConnectionClosed
    | TracingSwitched
    | NodeStarted
    | NodeStopping
    | Suspicious
)
