"""Reads messages of `amq.rabbitmq.trace`, the firehose: every publish and every delivery of a virtual host. Pure.

Seen with RabbitMQ 3.10.8 (`rabbit_trace`): the routing key is `publish.EXCHANGE` or `deliver.QUEUE`, the headers say
the rest, the body is the message's own and is never looked at here. A publish is traced after it was allowed and
routed, but before a transaction is committed: one that is rolled back later looks like any other. It has no time. And
when that routing key is longer than AMQP allows (the name of the exchange or queue has 248 bytes or more), the node
ends the connection of whoever reads the firehose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from topicwarden_collectors.rabbitmq.erlang_terms import text_of

Headers: TypeAlias = Mapping[Any, Any] | None
MAX_KEYS: Final = 1024
"""Most routing keys taken of one publish: its own and those of its CC and BCC headers."""
_MAX_NAME: Final = 65536
MAX_TRACED_NAME: Final = 247
"""Longest name in bytes of an exchange or queue that can be traced."""
PUBLISH: Final = "publish."
DELIVER: Final = "deliver."


@dataclass(frozen=True, slots=True)
class Traced:
    """One publish or delivery."""

    published: bool
    """False: delivered to a consumer, or got by basic.get."""
    exchange: str
    """Where it was published to; '' is the default exchange."""
    routing_keys: tuple[str, ...]
    """The publish's own key, then those of its CC and BCC headers, as many as `MAX_KEYS`."""
    more_keys: int
    """Keys that were too many."""
    user: str
    vhost: str
    connection: str
    """`192.0.2.7:49242 -> 192.0.2.1:5672`, or the Erlang process of a connection without a socket."""
    queue: str
    """Delivered from; '' for a publish."""
    unroutable: bool
    """Published to no queue."""
    qos: int | None
    """What the MQTT gateway notes as the publish's QoS. Any AMQP client can write the same header."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Headers that are none of the broker's."""

    reason: str


def decode_trace(routing_key: str, headers: Headers) -> Traced | Undecodable:
    """Decode one message of the firehose; never raises."""
    if not isinstance(headers, Mapping):
        return Undecodable("headers")
    published = routing_key.startswith(PUBLISH)
    if not published and not routing_key.startswith(DELIVER):
        return Undecodable("routing key")
    names = []
    for name in ("exchange_name", "user", "vhost", "connection"):
        value = text_of(headers.get(name))
        if value is None or len(value) > _MAX_NAME:
            return Undecodable(name)
        names.append(value)
    exchange, user, vhost, connection = names
    keys = headers.get("routing_keys")
    if not isinstance(keys, list) or not keys:
        return Undecodable("routing_keys")
    routing_keys = tuple([text for key in keys[:MAX_KEYS] if (text := text_of(key)) is not None])
    if len(routing_keys) != min(len(keys), MAX_KEYS):
        return Undecodable("routing_keys")
    suffix = routing_key[len(PUBLISH) :]
    if published and suffix != exchange:
        return Undecodable("routing key")
    return Traced(
        published,
        exchange,
        routing_keys,
        max(0, len(keys) - MAX_KEYS),
        user,
        vhost,
        connection,
        "" if published else suffix,
        published and headers.get("routed_queues") == [],
        _qos(headers.get("properties")),
    )


def _qos(properties: object) -> int | None:
    inner = properties.get("headers") if isinstance(properties, Mapping) else None
    qos = inner.get("x-mqtt-publish-qos") if isinstance(inner, Mapping) else None
    return int(qos) if isinstance(qos, int) and not isinstance(qos, bool) and 0 <= qos <= 2 else None
