"""Names as the running broker translates them, and as naming.py does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rabbitmq.stock_clients import mqtt, next_topic
from topicwarden.events import Resource, ResourceKind
from topicwarden_collectors.rabbitmq import naming
from topicwarden_collectors.rabbitmq.node import Node

TOPICS = [
    "a/b",
    "a.b",
    "/a",
    "a//b",
    "a/",
    "/",
    "a/*/b",
    "a/é b",
    ".",
    "$SYS/x",
    "a\nb",
    "sp/v1.0",
    "a/+/b",
    "a/#",
    "#",
]
FILTERS = ["a/+/b", "a/*/b", "a/#/b", "a+/b", "a#", "#", "+", "a.b", "/+", "+/+", "a/", "/", "a//b", "a/#"]
PUBLISHED = ["a/x/b", "a//b", "a/b", "a.b", "/x", "/", "x", "a/*/b", "a/", "a+/b", "a*/b", "a#", "a", "a/x/y/b", "/#"]


@pytest.fixture(scope="module")
def vhost(rabbit: Node) -> Iterator[str]:
    rabbit.add_vhost("naming")
    rabbit.add_user("naming", "pw")
    rabbit.permit("naming", "naming", ".*", ".*", ".*")
    yield "naming"
    rabbit.api("DELETE", "/vhosts/naming")
    rabbit.api("DELETE", "/users/naming")


def test_what_an_mqtt_client_publishes_is_the_topic_its_subscribers_are_told(rabbit: Node, vhost: str) -> None:
    parameters = pika.URLParameters(rabbit.url("naming", vhost, "pw"))
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", "#")
        with mqtt(rabbit.ports.mqtt, "watcher", "naming:naming", "pw") as watcher:
            watcher.subscribe(("#", 0))
            with mqtt(rabbit.ports.mqtt, "teller", "naming:naming", "pw") as teller:
                for topic in TOPICS:
                    teller.publish(topic, qos=1)
                    method, _, _ = channel.basic_get(queue, auto_ack=True)
                    assert method is not None
                    key, exchange = str(method.routing_key), str(method.exchange)
                    told = next_topic(watcher)
                    # The one thing lost: a star and a plus sign are the same once they are a key.
                    assert naming.mqtt_topic(key).replace("*", "+") == told, topic
                    resource = naming.published("mqtt", exchange, key)
                    assert resource == Resource(ResourceKind.TOPIC, topic.replace(".", "/").replace("+", "*"))


def test_a_filter_takes_from_the_broker_what_the_resource_says_it_takes(rabbit: Node, vhost: str) -> None:
    """Each filter subscribed to for real; what its resource matches by the rules of its kind is what was delivered."""
    with mqtt(rabbit.ports.mqtt, "teller", "naming:naming", "pw") as teller:
        for number, topic_filter in enumerate(FILTERS):
            with mqtt(rabbit.ports.mqtt, f"sub{number}", "naming:naming", "pw") as subscriber:
                subscriber.subscribe((topic_filter, 0), ("end", 0))
                (binding,) = [
                    row
                    for row in rabbit.api("GET", f"/exchanges/{vhost}/amq.topic/bindings/source")
                    if naming.is_plumbing("mqtt", f"sub{number}", row["destination"]) and row["routing_key"] != "end"
                ]
                resource = naming.bound("mqtt", "amq.topic", "topic", binding["routing_key"])
                for topic in PUBLISHED:
                    teller.publish(topic, qos=1)
                teller.publish("end", qos=1)
                delivered = list(iter(lambda: next_topic(subscriber), "end"))
                expected = [naming.mqtt_topic(t).replace("*", "+") for t in PUBLISHED if _takes(resource, t)]
                assert delivered == expected, (topic_filter, resource)


def _takes(resource: Resource, topic: str) -> bool:
    """An obvious matcher for both kinds: levels split at `/` or `.`, wildcards of the kind."""
    one, split = ("+", "/") if resource.kind is ResourceKind.TOPIC else ("*", ".")
    key = topic.replace("+", "*").replace("/", ".")
    levels = key.replace(".", split).split(split)

    def match(pattern: list[str], rest: list[str]) -> bool:
        if not pattern:
            return not rest
        if pattern[0] == "#":
            return any(match(pattern[1:], rest[n:]) for n in range(len(rest) + 1))
        return bool(rest) and pattern[0] in (one, rest[0]) and match(pattern[1:], rest[1:])

    return match(resource.name.split(split), levels)


@given(st.text(alphabet="ab./*#+", max_size=8))
def test_the_translation_is_the_gateways_own(key: str) -> None:
    """`rabbit_mqtt_util:to_mqtt` of 3.10.8: every `*` becomes `+`, then every `.` becomes `/`."""
    assert naming.mqtt_filter(key) == "".join({"*": "+", ".": "/"}.get(c, c) for c in key)
    assert naming.mqtt_topic(key) == "".join({".": "/"}.get(c, c) for c in key)


def test_every_kind_of_exchange_gives_its_kind_of_binding() -> None:
    assert naming.bound("amqp", "x", "topic", "a.*") == Resource(ResourceKind.BINDING, "a.*", within="x")
    assert naming.bound("amqp", "x", "direct", "a.*") == Resource(ResourceKind.KEY, "a.*", within="x")
    assert naming.bound("amqp", "x", "fanout", "a") == Resource(ResourceKind.BINDING, "#", within="x")
    assert naming.bound("amqp", "x", "x-consistent-hash", "1") == Resource(ResourceKind.BINDING, "#", within="x")
    assert naming.bound("amqp", "amq.direct", None, "a") == Resource(ResourceKind.KEY, "a", within="amq.direct")
    assert naming.published("amqp", "", "q") == Resource(ResourceKind.KEY, "q", within="amq.default")


def test_only_a_clients_own_queues_are_its_plumbing() -> None:
    assert naming.is_plumbing("mqtt", "dev", "mqtt-subscription-devqos1")
    assert not naming.is_plumbing("mqtt", "other", "mqtt-subscription-devqos1")
    assert not naming.is_plumbing("amqp", "dev", "mqtt-subscription-devqos1")
    assert naming.is_plumbing("stomp", "", "stomp-subscription-jpUr12xOTuat4dd1TjhlzQ")
    assert not naming.is_plumbing("stomp", "", "stomp-subscription-mine")
    assert not naming.is_plumbing("amqp", "", "stomp-subscription-jpUr12xOTuat4dd1TjhlzQ")
