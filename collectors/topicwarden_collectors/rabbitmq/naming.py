"""How what RabbitMQ says becomes resources: topics for MQTT clients, keys, bindings and queues for all others. Pure.

Seen with 3.10.8 and its MQTT plugin (`rabbit_mqtt_util:to_amqp`): a topic becomes a routing key by `/` -> `.` and
`+` -> `*`, everything else stays, a `.` too. So the topics `a/b` and `a.b` are one and the same for the broker, and
subscribers get both as `a/b`; `*` in a filter is a wildcard like `+`; empty levels, also the first and the last, are
kept, and `+` takes them. The plugin refuses no topic or filter: `a/+/b` and `a/#` can be published (as `a.*.b`, `a.#`),
and `a/#/b` can be subscribed to and means what the exchange makes of it. With the plugin's option `mqtt.sparkplug`
(off unless set) `spBv1.0/` becomes `spBv1___0.`, which these functions do not undo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from topicwarden.events import Resource, ResourceKind
from topicwarden.patterns.mqtt import filter_problem
from topicwarden_collectors.rabbitmq import exchanges

PREDECLARED: Final[Mapping[str, str]] = {"": "direct", **exchanges.BUILT_IN, **exchanges.OBSERVING}
"""Types of the exchanges every virtual host has, by name."""
_STOMP_QUEUE: Final = re.compile(r"stomp-subscription-[A-Za-z0-9_-]{22}")
"""`rabbit_stomp_util:subscription_queue_name`: an MD5 of destination and subscription id."""


def exchange_name(exchange: str) -> str:
    """Return the exchange's name as we spell it: the default exchange has one too."""
    return exchange or exchanges.DEFAULT


def mqtt_topic(key: str) -> str:
    """Return the topic an MQTT client published to, from its routing key.

    A level that is `*` was published as `*` or as `+`, which no valid topic holds.
    """
    return key.replace(".", "/")


def mqtt_filter(binding_key: str) -> str:
    """Return the topic filter an MQTT client subscribed to, from its binding key, in the MQTT plugin's own words."""
    return binding_key.replace("*", "+").replace(".", "/")


def is_plumbing(protocol: str, client_id: str, queue: str) -> bool:
    """Whether a queue was made by the broker's own MQTT or STOMP gateway to hold a client's subscriptions.

    The client never named it: its subscription is the binding. True only for the queues of this very client id (MQTT);
    whoever else uses them meddles with another client's messages.
    """
    if protocol == "mqtt":
        return queue in (f"mqtt-subscription-{client_id}qos0", f"mqtt-subscription-{client_id}qos1")
    return protocol == "stomp" and _STOMP_QUEUE.fullmatch(queue) is not None


def published(protocol: str, exchange: str, key: str) -> Resource:
    """Return what a publish with this routing key is to: a topic for MQTT clients, who know no exchanges."""
    if protocol == "mqtt":
        return Resource(ResourceKind.TOPIC, mqtt_topic(key))
    return Resource(ResourceKind.KEY, key, within=exchange_name(exchange))


def bound(protocol: str, exchange: str, exchange_type: str | None, key: str) -> Resource:
    """Return what flows through a binding with this key.

    `exchange_type`: `topic`, `direct`, `fanout`, `headers` or a plugin's; None when not known. A topic filter for MQTT
    clients, if it is a valid one; what a type we do not know does with keys we do not know either, so `#`.
    """
    if protocol == "mqtt":
        topic_filter = mqtt_filter(key)
        # Behind `*a` or `#/b` there is no MQTT filter, but the exchange gives it a meaning.
        if filter_problem(topic_filter) is None:
            return Resource(ResourceKind.TOPIC, topic_filter)
    name = exchange_name(exchange)
    kind = exchange_type or PREDECLARED.get(exchange)
    if kind == "direct":
        return Resource(ResourceKind.KEY, key, within=name)
    if kind == "topic" or kind is None:
        return Resource(ResourceKind.BINDING, key, within=name)
    return Resource(ResourceKind.BINDING, "#", within=name)


def configured(kind: str, name: str) -> Resource:
    """Return what declaring or deleting is about; `kind`: `queue` or `exchange`."""
    if kind == "exchange":
        return Resource(ResourceKind.EXCHANGE, exchange_name(name))
    return Resource(ResourceKind.QUEUE, name)
