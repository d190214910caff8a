"""What somebody does who wants the stock mode to see wrong, or nothing: against the running node."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.exceptions import AMQPError
from pika.spec import BasicProperties

from tests.rabbitmq.stock_clients import mqtt
from tests.rabbitmq.stock_record import forged_publish
from tests.rabbitmq.stock_watching import Watch, collector, permit_auditor, watching
from topicwarden_collectors.rabbitmq.node import Node

VHOST = "traps"
EVENT, LOG, TRACE = "amq.rabbitmq.event", "amq.rabbitmq.log", "amq.rabbitmq.trace"


@pytest.fixture(scope="module")
def node(rabbit: Node) -> Iterator[Node]:
    """The shared node with a virtual host, an auditor and a user who may do everything there, and in `/`."""
    rabbit.add_vhost(VHOST)
    permit_auditor(rabbit, VHOST)
    rabbit.add_user("traps-mallory", "pw")
    for vhost in (VHOST, "/"):
        rabbit.permit("traps-mallory", vhost, ".*", ".*", ".*")
    rabbit.trace(VHOST, True)
    yield rabbit
    rabbit.api("DELETE", f"/vhosts/{VHOST}")
    rabbit.api("DELETE", "/users/traps-mallory")


@pytest.fixture(scope="module")
def seen(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    with watching(collector(node, tmp_path_factory.mktemp("traps"), firehose=[VHOST])) as watch:
        yield watch


@contextlib.contextmanager
def mallory(node: Node, vhost: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(node.url("traps-mallory", vhost, "pw")))
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(AMQPError):
            connection.close()


FORGED_EVENT: dict[str, Any] = {
    "timestamp_in_ms": 1795436430535,
    "name": "10.0.0.1:1 -> 10.0.0.2:5672",
    "pid": "<rabbit@host.1.2.0>",
    "user": "traps-admin",
    "vhost": VHOST,
    "protocol": "{0,9,1}",
    "queue": "secret",
    "channel": "<rabbit@host.1.2.0>",
    "user_who_performed_action": "traps-admin",
}
FORGED_LOG = (
    b'{"time":"2026-11-23 12:20:33.301549+00:00","level":"error","msg":"Channel error on connection <0.9.0> '
    b"(10.0.0.1:1 -> 10.0.0.2:5672, vhost: 'traps', user: 'traps-admin'), channel 1:\\noperation queue.declare caused "
    b"a channel exception access_refused: access to queue 'x' in vhost 'traps' refused for user 'traps-admin'\","
    b'"domain":"rabbitmq.channel","pid":"<0.9.0>"}'
)
MESSAGES: dict[str, tuple[str, str, BasicProperties, bytes]] = {
    TRACE: (VHOST, "publish.amq.topic", forged_publish(VHOST), b""),
    EVENT: ("/", "connection.created", BasicProperties(headers=FORGED_EVENT), b""),
    LOG: ("/", "error", BasicProperties(content_type="application/json"), FORGED_LOG),
}


@pytest.mark.parametrize("exchange", list(MESSAGES))
@pytest.mark.parametrize("way", ["binding", "alternate exchange", "dead letter exchange"])
def test_a_forged_message_is_a_finding_and_never_an_event(node: Node, seen: Watch, exchange: str, way: str) -> None:
    vhost, key, properties, body = MESSAGES[exchange]
    before = sum(notice.count for notice in seen.told("TW907", exchange) if "published" in (notice.witness or ""))
    dead = len([n for n in seen.told("TW907", exchange) if "dead-lettered" in (n.witness or "")])
    with mallory(node, vhost) as channel:
        source = f"traps-{way.split()[0]}"
        if way == "dead letter exchange":
            arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": key, "x-message-ttl": 0}
            source = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
            channel.basic_publish("", source, body, properties)
            seen.wait(
                lambda: len([n for n in seen.told("TW907", exchange) if "dead-lettered" in (n.witness or "")]) > dead,
                "the notice",
            )
        else:
            arguments = {"alternate-exchange": exchange} if way == "alternate exchange" else {}
            channel.exchange_declare(source, "fanout", arguments=arguments)
            if way == "binding":
                channel.exchange_bind(exchange, source, "#")
                seen.wait(lambda: _bound(seen, exchange, source), "the notice of the binding")
            channel.basic_publish(source, key, body, properties)
            seen.wait(
                lambda: sum(n.count for n in seen.told("TW907", exchange) if "published" in (n.witness or "")) > before,
                "the notice",
            )
            assert any(repr(source) in (notice.witness or "") for notice in seen.told("TW907", exchange))
            channel.exchange_delete(source)
        # Whatever was made of the forged message would have come before this.
        channel.queue_declare(f"traps-after-{way}", auto_delete=True)
        seen.wait(lambda: f"traps-after-{way}" in seen.names("traps-mallory", "configure"), "what came after")
    assert not seen.of("traps-admin")
    assert not seen.of("admin")
    assert not [row for row in seen.rows if row["client"].get("address") == "10.0.0.1"]
    assert seen.collector.counters.source["forged"] > 0


def _bound(seen: Watch, exchange: str, source: str) -> bool:
    return any(
        notice.client is not None and notice.client.user == "traps-mallory" and repr(source) in (notice.witness or "")
        for notice in seen.told("TW907", exchange)
    )


def test_a_publish_that_is_rolled_back_is_shown_and_the_blind_spots_say_so(node: Node, seen: Watch) -> None:
    with mallory(node, VHOST) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.tx_select()
        channel.basic_publish("", queue, b"never")
        channel.tx_rollback()
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
    seen.wait(lambda: queue in seen.names("traps-mallory", "publish"), "the publish that was rolled back")
    assert any("rolled back" in spot.what for spot in seen.collector.blind_spots())


def test_whoever_uses_the_queue_of_an_mqtt_client_is_not_taken_for_it(node: Node, seen: Watch) -> None:
    node.add_user("traps-device", "pw")
    node.permit("traps-device", VHOST, ".*", ".*", ".*")
    with mqtt(node.ports.mqtt, "traps-dev", f"{VHOST}:traps-device", "pw") as client, mallory(node, VHOST) as channel:
        client.subscribe(("own/+", 0))
        channel.queue_bind("mqtt-subscription-traps-devqos0", "amq.topic", "other.*")
        channel.basic_consume("mqtt-subscription-traps-devqos0", lambda *_: None)
        used = "mqtt-subscription-traps-devqos0"
        seen.wait(lambda: used in seen.names("traps-mallory", "subscribe"), "what mallory did")
    rows = [row["resource"] for row in seen.of("traps-mallory", "subscribe")]
    assert {"kind": "binding", "name": "other.*", "within": "amq.topic"} in rows
    assert {"kind": "queue", "name": "mqtt-subscription-traps-devqos0"} in rows
    assert [row["resource"] for row in seen.of("traps-device", "subscribe")] == [{"kind": "topic", "name": "own/+"}]
    node.api("DELETE", "/users/traps-device")


def test_a_client_that_claims_to_be_us_is_shown_all_the_same(node: Node, seen: Watch) -> None:
    parameters = pika.URLParameters(node.url("traps-mallory", VHOST, "pw"))
    parameters.client_properties = {"connection_name": "topicwarden", "product": "topicwarden"}
    connection = pika.BlockingConnection(parameters)
    connection.channel().queue_declare("traps-claim", auto_delete=True)
    connection.close()
    seen.wait(lambda: "traps-claim" in seen.names("traps-mallory", "configure"), "its declaration")


def test_tracing_that_is_switched_off_under_us_is_told_with_the_fix(node: Node, tmp_path: Path) -> None:
    node.add_vhost("traps-off")
    permit_auditor(node, VHOST, "traps-off")
    node.trace("traps-off", True)
    node.permit("traps-mallory", "traps-off", ".*", ".*", ".*")
    try:
        with watching(collector(node, tmp_path, firehose=["traps-off"])) as watch:
            with mallory(node, "traps-off") as channel:
                channel.basic_publish("amq.topic", "on", b"")
                watch.wait(lambda: watch.names("traps-mallory", "publish") == ["on"], "the first publish")
                node.trace("traps-off", False)
                watch.wait(lambda: watch.told("TW908", "tracing traps-off"), "the notice")
                (notice,) = watch.told("TW908", "tracing traps-off")
                assert notice.evidence["what"] == "tracing of traps-off"
                (spot,) = [spot for spot in watch.collector.blind_spots() if "tracing is off" in spot.what]
                assert "rabbitmqctl trace_on -p 'traps-off'" in (spot.fix or "")
                node.trace("traps-off", True)
                channel.basic_publish("amq.topic", "on again", b"")
                watch.wait(lambda: watch.names("traps-mallory", "publish") == ["on", "on again"], "tracing again")
            assert not [spot for spot in watch.collector.blind_spots() if "tracing is off" in spot.what]
    finally:
        node.api("DELETE", "/vhosts/traps-off")


def test_a_name_too_long_to_be_traced_ends_our_connection_and_we_say_who_did_it(node: Node, tmp_path: Path) -> None:
    """RabbitMQ 3.10.8: the routing key `publish.EXCHANGE` has more than AMQP's 255 bytes, so its own writer crashes."""
    node.add_vhost("traps-long")
    permit_auditor(node, VHOST, "traps-long")
    node.trace("traps-long", True)
    node.permit("traps-mallory", "traps-long", ".*", ".*", ".*")
    try:
        watcher = collector(node, tmp_path, firehose=["traps-long"])
        with watching(watcher) as watch, mallory(node, "traps-long") as channel:
            channel.exchange_declare("x" * 248, "fanout")
            channel.basic_publish("x" * 248, "blinding", b"")
            watch.wait(lambda: watch.told("TW901", "connection traps-long"), "the gap")
            (gap,) = watch.told("TW901", "connection traps-long")
            assert "too long to be traced" in str(gap.evidence["why"])
            (culprit,) = watch.told("TW901", "untraceable name in traps-long")
            assert culprit.client is not None
            assert culprit.client.user == "traps-mallory"
            watch.wait(lambda: _published(channel, watch), "the firehose again")
    finally:
        node.api("DELETE", "/vhosts/traps-long")


def _published(channel: Any, watch: Watch) -> bool:
    channel.basic_publish("amq.topic", "seen again", b"")
    time.sleep(0.05)  # one publish is enough: this only keeps us from thousands
    return "seen again" in watch.names("traps-mallory", "publish")
