"""Refusals of every kind, by AMQP, MQTT, STOMP and HTTP, with the identity of who was refused."""

from __future__ import annotations

import contextlib
import urllib.error
from collections.abc import Callable, Iterator

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from tests.mosquitto.logs.wire import Wire
from tests.rabbitmq.plugin_stream import (
    ATTEMPTED,
    AUTHENTICATE,
    BINDING,
    CONFIGURE,
    CONNECT,
    DISCONNECT,
    EXCHANGES,
    KEY,
    PUBLISH,
    QUEUE,
    REFUSED,
    SUBSCRIBE,
    TOPIC,
    Event,
    Stream,
    connection,
    reading,
)
from tests.rabbitmq.stock_clients import Stomp
from topicwarden_collectors.rabbitmq.node import Node, quoted

PASSWORD = "s3cret-of-eve"
MAY_CONFIGURE, MAY_WRITE, MAY_READ, MAY_VHOST, MAY_LOG_IN = 1, 2, 3, 4, 5
VHOST = "plant"


pytest_plugins = ["tests.rabbitmq.plugin_fixtures"]


@pytest.fixture(scope="module")
def node(audited: Node) -> Node:
    audited.add_vhost(VHOST)
    audited.add_vhost("closed")
    audited.add_user("eve", PASSWORD, "management")
    names = "^(my|mqtt-subscription-|stomp-subscription-).*"
    audited.permit("eve", VHOST, names, f"{names}|^amq\\.topic$", f"{names}|^amq\\.topic$")
    audited.permit_topics("eve", VHOST, "amq.topic", "^ok\\.", "^ok\\.")
    with connection(audited, vhost=VHOST) as link:
        channel = link.channel()
        channel.queue_declare("theirs", durable=True)
        channel.exchange_declare("their-exchange", durable=True)
    return audited


@pytest.fixture
def stream(node: Node) -> Iterator[Stream]:
    with reading(node) as stream:
        yield stream


Operation = Callable[[BlockingChannel], object]


def bind_to_theirs(channel: BlockingChannel) -> None:
    channel.queue_declare("myq", exclusive=True)
    channel.queue_bind("myq", "their-exchange", "k")


def bind_forbidden_key(channel: BlockingChannel) -> None:
    channel.queue_declare("myq", exclusive=True)
    channel.queue_bind("myq", "amq.topic", "secret.#")


@pytest.mark.parametrize(
    ("operation", "action", "method", "resource", "permission", "flags"),
    [
        (lambda c: c.queue_declare("not-mine"), CONFIGURE, (50, 10), (QUEUE, "", "not-mine"), MAY_CONFIGURE, 0),
        (lambda c: c.exchange_declare("nex"), CONFIGURE, (40, 10), (EXCHANGES, "", "nex"), MAY_CONFIGURE, 0),
        (
            lambda c: c.exchange_delete("their-exchange"),
            CONFIGURE,
            (40, 20),
            (EXCHANGES, "", "their-exchange"),
            MAY_CONFIGURE,
            0,
        ),
        (lambda c: c.queue_delete("theirs"), CONFIGURE, (50, 40), (QUEUE, "", "theirs"), MAY_CONFIGURE, 0),
        (lambda c: c.queue_purge("theirs"), CONFIGURE, (50, 30), (QUEUE, "", "theirs"), MAY_READ, 0),
        (lambda c: c.basic_get("theirs"), SUBSCRIBE, (60, 70), (QUEUE, "", "theirs"), MAY_READ, 0),
        (
            lambda c: c.basic_consume("theirs", lambda *_: None),
            SUBSCRIBE,
            (60, 20),
            (QUEUE, "", "theirs"),
            MAY_READ,
            0,
        ),
        (bind_to_theirs, SUBSCRIBE, (50, 20), (EXCHANGES, "", "their-exchange"), MAY_READ, 0),
        (bind_forbidden_key, SUBSCRIBE, (50, 20), (BINDING, "amq.topic", "secret.#"), MAY_READ, TOPIC),
        (
            lambda c: (c.basic_publish("their-exchange", "k", b""), c.queue_declare("")),
            PUBLISH,
            (60, 40),
            (EXCHANGES, "", "their-exchange"),
            MAY_WRITE,
            0,
        ),
        (
            lambda c: (c.basic_publish("", "theirs", b""), c.queue_declare("")),
            PUBLISH,
            (60, 40),
            (EXCHANGES, "", "amq.default"),
            MAY_WRITE,
            0,
        ),
        (
            lambda c: (c.basic_publish("amq.topic", "secret.k", b""), c.queue_declare("")),
            PUBLISH,
            (60, 40),
            (KEY, "amq.topic", "secret.k"),
            MAY_WRITE,
            TOPIC,
        ),
        (
            lambda c: c.queue_declare("my-dead", arguments={"x-dead-letter-exchange": "their-exchange"}),
            CONFIGURE,
            (50, 10),
            (EXCHANGES, "", "their-exchange"),
            MAY_WRITE,
            0,
        ),
    ],
)
def test_what_a_permission_refuses_to_an_amqp_client_follows_its_attempt(
    node: Node,
    stream: Stream,
    operation: Operation,
    action: int,
    method: tuple[int, int],
    resource: tuple[int, str, str],
    permission: int,
    flags: int,
) -> None:
    with connection(node, "eve", PASSWORD, VHOST) as link:
        with pytest.raises(ChannelClosedByBroker) as refused:
            operation(link.channel())
        assert refused.value.reply_code == 403
    stream.until(lambda s: s.of("eve", DISCONNECT), "the end of the connection")
    (refusal,) = stream.of("eve", outcome=REFUSED)
    assert (refusal.action, refusal.method, refusal.permission, refusal.flags) == (action, method, permission, flags)
    assert what(refusal) == resource
    assert refusal.actor.port != 0
    # The attempt stands before it, of the same channel.
    events = stream.of("eve")
    attempt = [event for event in events[: events.index(refusal)] if event.actor == refusal.actor][-1]
    assert (attempt.action, attempt.method, attempt.outcome) == (action, method, ATTEMPTED)


def what(event: Event) -> tuple[int, str, str] | None:
    resource = event.resource
    return None if resource is None else (resource.kind, resource.within.decode(), resource.name.decode())


def test_a_login_with_a_wrong_password_names_the_user_and_the_address(node: Node, stream: Stream) -> None:
    with pytest.raises(AMQPError), connection(node, "eve", "wrong", VHOST):
        pass
    stream.until(lambda s: s.of("eve", AUTHENTICATE), "the refusal")
    (event,) = stream.of("eve", AUTHENTICATE)
    assert (event.outcome, event.permission, event.actor.address) == (REFUSED, MAY_LOG_IN, b"127.0.0.1")
    assert (event.actor.protocol, event.actor.mechanism, event.actor.channel) == (b"amqp", b"PLAIN", 0)
    assert event.actor.connection.startswith(f"127.0.0.1:{event.actor.port} -> ".encode())
    assert event.actor.port > 0


def test_a_refused_virtual_host_is_a_refused_connection(node: Node, stream: Stream) -> None:
    with pytest.raises(AMQPError), connection(node, "eve", PASSWORD, "closed"):
        pass
    with pytest.raises(ConnectionError):
        mqtt(node, "id-of-eve", "closed:eve")
    with contextlib.closing(Stomp(node.ports.stomp, "closed", "eve", PASSWORD)) as stomp:
        assert stomp.answer == "ERROR"
    stream.until(lambda s: len(s.of("eve", CONNECT, REFUSED)) == 3, "three refusals")
    refusals = stream.of("eve", CONNECT, REFUSED)
    assert [(e.permission, e.actor.vhost, e.actor.address) for e in refusals] == [
        (MAY_VHOST, b"closed", b"127.0.0.1")
    ] * 3
    assert [(e.actor.protocol, e.actor.client_id) for e in refusals] == [
        (b"amqp", b""),
        (b"mqtt", b"id-of-eve"),
        (b"stomp", b""),
    ]
    assert all(refusal.actor.port > 0 for refusal in refusals)
    assert not stream.of("eve", CONNECT, ATTEMPTED)


def mqtt(node: Node, client_id: str, user: str, password: str = PASSWORD) -> Wire:
    wire = Wire(node.ports.mqtt)
    if wire.connect(client_id, user, password) != 0:
        wire.close()
        raise ConnectionError(client_id)
    return wire


def test_listing_virtual_hosts_over_http_is_no_refused_connection(node: Node, stream: Stream) -> None:
    names = {vhost["name"] for vhost in node.api("GET", "/vhosts", auth=("eve", PASSWORD))}
    assert "closed" not in names
    stream.settle()
    assert stream.of("eve") == []


def test_an_mqtt_client_has_its_client_id_and_address_in_everything(node: Node, stream: Stream) -> None:
    wire = mqtt(node, "id-of-eve", f"{VHOST}:eve")
    port = wire.port
    assert wire.subscribe(("ok/#", 0)) == [0]
    wire.publish("ok/there", b"12345", qos=1)
    wire.ping()
    wire.disconnect()
    stream.until(lambda s: s.of("eve", DISCONNECT), "the end of the connection")
    events = stream.of("eve")
    assert {(e.actor.client_id, e.actor.protocol, e.actor.address, e.actor.port, e.actor.vhost) for e in events} == {
        (b"id-of-eve", b"mqtt", b"127.0.0.1", port, VHOST.encode())
    }
    seen = [(e.action, what(e)) for e in events]
    assert seen[0] == (CONNECT, None)
    assert seen[-1] == (DISCONNECT, None)
    assert (SUBSCRIBE, (BINDING, "amq.topic", "ok.#")) in seen
    assert (PUBLISH, (KEY, "amq.topic", "ok.there")) in seen
    (published,) = stream.of("eve", PUBLISH)
    assert published.size == 5
    assert {e.outcome for e in events} == {ATTEMPTED}


def test_a_topic_refused_to_an_mqtt_client_is_a_refusal_of_its_connection(node: Node, stream: Stream) -> None:
    wire = mqtt(node, "id-of-eve", f"{VHOST}:eve")
    port = wire.port
    wire.publish("secret/there", b"12345")
    wire.wait_closed()
    stream.until(lambda s: s.of("eve", DISCONNECT), "the end of the connection")
    (refusal,) = stream.of("eve", outcome=REFUSED)
    assert (refusal.action, refusal.permission, refusal.flags) == (PUBLISH, MAY_WRITE, TOPIC)
    assert what(refusal) == (KEY, "amq.topic", "secret.there")
    assert (refusal.actor.client_id, refusal.actor.port, refusal.actor.channel) == (b"id-of-eve", port, 0)
    assert refusal.method == (0, 0)
    assert stream.of("eve", PUBLISH, ATTEMPTED) == []
    (connected,) = stream.of("eve", CONNECT)
    assert refusal.actor.number == connected.actor.number


def test_a_subscription_refused_to_an_mqtt_client_names_its_filter(node: Node, stream: Stream) -> None:
    wire = mqtt(node, "id-of-eve", f"{VHOST}:eve")
    with pytest.raises(ConnectionError):
        wire.subscribe(("secret/#", 0))
    wire.close()
    stream.until(lambda s: s.of("eve", DISCONNECT), "the end of the connection")
    (refusal,) = stream.of("eve", outcome=REFUSED)
    assert (refusal.action, refusal.permission, refusal.flags) == (SUBSCRIBE, MAY_READ, TOPIC)
    assert what(refusal) == (BINDING, "amq.topic", "secret.#")
    assert refusal.actor.client_id == b"id-of-eve"


def test_a_login_by_mqtt_stomp_or_http_with_a_wrong_password_names_whom_it_can(node: Node, stream: Stream) -> None:
    with contextlib.closing(Wire(node.ports.mqtt)) as wire:
        assert wire.connect("id-of-eve", f"{VHOST}:eve", "wrong") == 4
        mqtt_port = wire.port
    with contextlib.closing(Stomp(node.ports.stomp, VHOST, "eve", "wrong")) as stomp:
        assert stomp.answer == "ERROR"
        stomp_port = stomp.port
    with pytest.raises(urllib.error.HTTPError):
        node.api("GET", "/whoami", auth=("eve", "wrong"))
    stream.until(lambda s: len(s.of("eve", AUTHENTICATE)) == 3, "three refusals")
    stream.settle()
    events = stream.of("eve", AUTHENTICATE)
    assert {(event.outcome, event.permission) for event in events} == {(REFUSED, MAY_LOG_IN)}
    actors = [(e.actor.protocol, e.actor.client_id, e.actor.vhost, e.actor.address, e.actor.port) for e in events]
    assert actors == [
        (b"mqtt", b"id-of-eve", VHOST.encode(), b"127.0.0.1", mqtt_port),
        (b"stomp", b"", VHOST.encode(), b"127.0.0.1", stomp_port),
        (b"http", b"", b"", b"", 0),
    ]


def test_a_stomp_client_is_seen_sending_subscribing_and_refused(node: Node, stream: Stream) -> None:
    stomp = Stomp(node.ports.stomp, VHOST, "eve", PASSWORD)
    port = stomp.port
    assert stomp.send("SEND", {"destination": "/topic/ok.x"}, "123") == "RECEIPT"
    assert stomp.send("SUBSCRIBE", {"destination": "/topic/ok.#", "id": "1"}) == "RECEIPT"
    assert stomp.send("SEND", {"destination": "/topic/secret.x"}, "123") == "ERROR"
    stomp.close()
    stream.until(lambda s: s.of("eve", DISCONNECT), "the end of the connection")
    events = stream.of("eve")
    assert {(e.actor.protocol, e.actor.address, e.actor.port) for e in events} == {(b"stomp", b"127.0.0.1", port)}
    assert (SUBSCRIBE, (BINDING, "amq.topic", "ok.#")) in [(e.action, what(e)) for e in events]
    sent = [(what(e), e.outcome) for e in stream.of("eve", PUBLISH)]
    assert sent == [
        ((KEY, "amq.topic", "ok.x"), ATTEMPTED),
        ((KEY, "amq.topic", "secret.x"), ATTEMPTED),
        ((KEY, "amq.topic", "secret.x"), REFUSED),
    ]


def test_a_topic_refused_to_a_stomp_subscriber_is_a_refusal_of_its_connection(node: Node, stream: Stream) -> None:
    stomp = Stomp(node.ports.stomp, VHOST, "eve", PASSWORD)
    assert stomp.send("SUBSCRIBE", {"destination": "/topic/secret.#", "id": "1"}) == "ERROR"
    port = stomp.port
    stomp.close()
    stream.until(lambda s: s.of("eve", DISCONNECT), "the end of the connection")
    (refusal,) = stream.of("eve", outcome=REFUSED)
    assert what(refusal) == (BINDING, "amq.topic", "secret.#")
    assert (refusal.actor.protocol, refusal.actor.port, refusal.permission) == (b"stomp", port, MAY_READ)


def test_what_is_refused_over_http_names_the_user(node: Node, stream: Stream) -> None:
    body = {"properties": {}, "routing_key": "k", "payload": "", "payload_encoding": "string"}
    path = f"/exchanges/{quoted(VHOST)}/their-exchange"
    for method, at, what_to_send in (("POST", f"{path}/publish", body), ("DELETE", path, None)):
        with pytest.raises(urllib.error.HTTPError):
            node.api(method, at, what_to_send, auth=("eve", PASSWORD))
    stream.until(lambda s: len(s.of("eve", outcome=REFUSED)) >= 2, "the refusals")
    refusals = stream.of("eve", outcome=REFUSED)
    assert [(e.action, e.permission, what(e), e.actor.protocol) for e in refusals] == [
        (PUBLISH, MAY_WRITE, (EXCHANGES, "", "their-exchange"), b"direct"),
        (CONFIGURE, MAY_CONFIGURE, (EXCHANGES, "", "their-exchange"), b"http"),
    ]
    assert {e.actor.vhost for e in refusals} == {VHOST.encode()}
