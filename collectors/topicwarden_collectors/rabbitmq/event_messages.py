"""Reads messages of `amq.rabbitmq.event`: what happened to connections, channels, queues, bindings and grants. Pure.

The body is empty, everything stands in the headers. Seen with RabbitMQ 3.10.8 (`rabbit_exchange_type_event:fmt`): what
is no text, number or list is written as an Erlang term, so a peer is `{127,0,0,1}` and an MQTT client id stands in
`#{<<"client_id">> => <<"dev1">>}`; a string that is an Erlang list comes as an array of numbers (`error`). Names that
clients chose are values of their own there, and cannot be taken for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from topicwarden_collectors.rabbitmq.erlang_terms import address_of, binary_map, text_of

Headers: TypeAlias = Mapping[Any, Any] | None
INTERNAL: Final = "rmq-internal"
"""Whom RabbitMQ names when it did something by itself, such as deleting the queue of a connection that ended."""
MAX_NAME_BYTES: Final = 65536
_MAX_PAIRS: Final = 64
_MAX_LIST: Final = 256
_MAX_NS: Final = 2**63 - 1
_FAMILIES: Final = {"mqtt": "mqtt", "web mqtt": "mqtt", "stomp": "stomp", "web stomp": "stomp", "direct": "direct"}


@dataclass(frozen=True, slots=True)
class EventFact:
    """What all facts have."""

    time_ns: int
    """When it happened by the node's clock: nanoseconds since the epoch, UTC; the event has milliseconds."""


@dataclass(frozen=True, slots=True)
class ConnectionCreated(EventFact):
    """A client logged in and was let into its virtual host."""

    name: str
    """`192.0.2.7:49242 -> 192.0.2.1:5672`; the Erlang process for a connection that has no socket."""
    pid: str
    user: str
    vhost: str
    protocol: str
    """`amqp`, `mqtt`, `stomp`, `amqp10`, `stream`, `direct` (the HTTP API's and shovels'), or the node's own word."""
    client_id: str | None
    """The MQTT client id; '' for other protocols; None when it could not be read."""
    address: str | None
    port: int | None
    server_port: int | None
    tls_subject: str | None
    mechanism: str
    """How the user proved who he is: `PLAIN`, `EXTERNAL` …; '' when not told."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed(EventFact):
    """A connection ended."""

    name: str
    pid: str


@dataclass(frozen=True, slots=True)
class ChannelCreated(EventFact):
    """A connection opened a channel."""

    pid: str
    connection: str
    """Process of the connection."""
    connection_name: str
    """Name of the connection; '' when it cannot be told."""
    user: str
    vhost: str


@dataclass(frozen=True, slots=True)
class ChannelClosed(EventFact):
    """A channel ended."""

    pid: str


@dataclass(frozen=True, slots=True)
class Authenticated(EventFact):
    """A login was accepted or refused."""

    accepted: bool
    user: str
    """The name the client gave; nobody has vouched for it when it was refused."""
    connection: str | None
    """The connection's name; None for MQTT, STOMP and the HTTP API, whose gateways log in for the client."""
    protocol: str | None
    address: str | None
    port: int | None
    reason: str
    """Why it was refused, in the broker's words."""


@dataclass(frozen=True, slots=True)
class ConsumerChanged(EventFact):
    """A channel started or stopped consuming from a queue."""

    created: bool
    vhost: str
    queue: str
    channel: str
    """Process of the channel."""
    by: str | None
    """The user; None when the broker does not say, as in the second of two events when the queue is deleted."""


@dataclass(frozen=True, slots=True)
class BindingChanged(EventFact):
    """A binding was made or removed."""

    created: bool
    vhost: str
    source: str
    destination: str
    to_exchange: bool
    key: str
    by: str | None


@dataclass(frozen=True, slots=True)
class ObjectChanged(EventFact):
    """A queue or an exchange was declared or deleted."""

    created: bool
    kind: str
    """`queue` or `exchange`."""
    vhost: str
    name: str
    owner: str | None
    """Process of the connection that alone may use it, for exclusive queues."""
    by: str | None
    exchange_type: str | None = None


@dataclass(frozen=True, slots=True)
class OtherEvent(EventFact):
    """Any other event; those about grants are among them."""

    by: str | None


Fact: TypeAlias = (
    ConnectionCreated
    | ConnectionClosed
    | ChannelCreated
    | ChannelClosed
    | Authenticated
    | ConsumerChanged
    | BindingChanged
    | ObjectChanged
    | OtherEvent
)


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Headers that are none of the broker's."""

    reason: str
    """The header that is missing or wrong."""


def decode_event(event: str, headers: Headers) -> Fact | Undecodable:
    """Decode an event by its routing key (`connection.created`) and headers; never raises."""
    try:
        return _decode(event, _Reader(headers))
    except _WrongError as error:
        return Undecodable(str(error))


def pairs_of(headers: Headers) -> dict[str, str]:
    """Return an event's headers as text: numbers in decimal, lists joined by `,`; what else there is is left out.

    As the plugin's stream gives them; passwords and hashes are in no event.
    """
    pairs: dict[str, str] = {}
    for key, value in (headers or {}).items():
        text = _flat(value)
        if text is not None and len(pairs) < _MAX_PAIRS:
            pairs[text_of(key) or ""] = text
    return pairs


def _flat(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value)) if abs(value) < 2**64 else None
    if isinstance(value, str | bytes):
        text = text_of(value)
        return text if text is not None and len(text) <= MAX_NAME_BYTES else None
    if isinstance(value, list):
        parts = [_flat(item) for item in value[:_MAX_LIST] if not isinstance(item, list)]
        return ",".join(part for part in parts if part is not None)
    return None


class _WrongError(Exception):
    """A header is missing or wrong."""


class _Reader:
    """The headers of one message, none of which can be relied on."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers if isinstance(headers, Mapping) else {}
        milliseconds = self._headers.get("timestamp_in_ms")
        if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
            raise _WrongError("timestamp_in_ms")
        if not 0 <= milliseconds * 1_000_000 <= _MAX_NS:
            raise _WrongError("timestamp_in_ms")
        self.time_ns = int(milliseconds) * 1_000_000

    def text(self, name: str) -> str:
        found = self.optional(name)
        if found is None:
            raise _WrongError(name)
        return found

    def optional(self, name: str) -> str | None:
        value = self._headers.get(name)
        text = text_of(value) if isinstance(value, str | bytes) else None
        if text is not None and len(text) > MAX_NAME_BYTES:
            raise _WrongError(name)
        return text

    def number(self, name: str) -> int | None:
        value = self._headers.get(name)
        # pika gives some integers as a type of its own, which does not print as an integer.
        return int(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536 else None

    def value(self, name: str) -> object:
        return self._headers.get(name)

    @property
    def by(self) -> str | None:
        return self.optional("user_who_performed_action")


def _decode(event: str, read: _Reader) -> Fact:
    what, _, happened = event.rpartition(".")
    created = happened == "created"
    match event:
        case "connection.created":
            return _connection(read)
        case "connection.closed":
            return ConnectionClosed(read.time_ns, read.text("name"), read.text("pid"))
        case "channel.created":
            pid, connection = read.text("pid"), read.text("connection")
            # `192.0.2.7:49242 -> 192.0.2.1:5672 (1)`
            name = (read.optional("name") or "").rpartition(" (")[0]
            return ChannelCreated(read.time_ns, pid, connection, name, read.text("user"), read.text("vhost"))
        case "channel.closed":
            return ChannelClosed(read.time_ns, read.text("pid"))
        case "user.authentication.success" | "user.authentication.failure":
            return _authenticated(event.endswith("success"), read)
        case "consumer.created" | "consumer.deleted":
            vhost, queue = read.text("vhost"), read.text("queue")
            return ConsumerChanged(read.time_ns, created, vhost, queue, read.text("channel"), read.by)
        case "binding.created" | "binding.deleted":
            return BindingChanged(
                read.time_ns,
                created,
                read.text("vhost"),
                read.text("source_name"),
                read.text("destination_name"),
                read.text("destination_kind") == "exchange",
                read.text("routing_key"),
                read.by,
            )
        case "queue.created" | "queue.deleted" | "exchange.created" | "exchange.deleted":
            vhost, name = read.text("vhost"), read.text("name")
            owner = read.optional("owner_pid") or None
            return ObjectChanged(read.time_ns, created, what, vhost, name, owner, read.by, read.optional("type"))
        case _:
            return OtherEvent(read.time_ns, read.by)


def _connection(read: _Reader) -> ConnectionCreated:
    protocol = protocol_of(read.text("protocol"))
    client_id: str | None = ""
    if protocol == "mqtt":
        client_id = binary_map(read.optional("variable_map") or "").get("client_id")
    return ConnectionCreated(
        read.time_ns,
        read.text("name"),
        read.text("pid"),
        read.text("user"),
        read.text("vhost"),
        protocol,
        client_id,
        address_of(read.optional("peer_host")),
        read.number("peer_port"),
        read.number("port"),
        read.optional("peer_cert_subject") or None,
        read.optional("auth_mechanism") or "",
    )


def _authenticated(accepted: bool, read: _Reader) -> Authenticated:
    protocol = read.optional("protocol")
    return Authenticated(
        read.time_ns,
        accepted,
        read.text("name"),
        read.optional("connection_name"),
        None if protocol is None else protocol_of(protocol),
        address_of(read.optional("peer_host")),
        read.number("peer_port"),
        _reason(read.value("error")),
    )


def _reason(error: object) -> str:
    """Return the reason of a failed login; an Erlang string comes as a list of numbers."""
    if isinstance(error, list):
        points = error[:_MAX_LIST]
        if all(isinstance(point, int) and 0 <= point < 0x110000 for point in points):
            return "".join(map(chr, points))
        return ""
    return (text_of(error) or "")[:_MAX_LIST] if isinstance(error, str | bytes) else ""


def protocol_of(text: str) -> str:
    """Return our word for a protocol as the broker writes it: `{0,9,1}`, `{'MQTT',"3.1.1"}`, `{'Direct',{0,9,1}}`."""
    name = text.strip("{}").split(",")[0].strip("'\"").lower()
    if name == "0" or name == "amqp 0-9-1":
        return "amqp"
    if name in ("1", "amqp") or name.startswith("amqp 1"):
        return "amqp10"
    return _FAMILIES.get(name, name[:32])
