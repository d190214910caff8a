"""Records what a real node tells about a scenario's clients, and what the decoder of the stock mode makes of it.

    .venv/bin/python -m tests.rabbitmq.stock_record [SCENARIO ...]
    .venv/bin/python -m tests.rabbitmq.stock_record --events

The first form writes `golden/stock-SCENARIO.news.jsonl` from RabbitMQ 3.10.8 (Debian 12): ports, times, processes and
generated names differ each time. The second decodes every recording into `NAME.events.jsonl`: read the difference
before committing it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pika
from pika.exceptions import AMQPError
from pika.spec import BasicProperties

from tests.mosquitto.logs.wire import Wire
from tests.rabbitmq.stock_clients import Stomp, mqtt
from topicwarden.events import Tables
from topicwarden.events.rows import change_row, notice_row, to_rows
from topicwarden.sources import Counters
from topicwarden_collectors.rabbitmq.link import Delivery, LinkChange, LinkKind, News, Subscription
from topicwarden_collectors.rabbitmq.node import Node, running_node
from topicwarden_collectors.rabbitmq.stock_decode import StockDecoder

FOLDER: Final = Path(__file__).parent / "golden"
VHOST: Final = "plant"
CLOCK_NS: Final = 1_795_500_000 * 10**9
"""Our own clock when golden files are decoded: the time of everything from the firehose."""
CONFIG: Final = ("log.exchange = true", "log.exchange.level = info", "log.exchange.formatter = json")


def everyday(node: Node) -> None:
    """AMQP, MQTT, STOMP and HTTP clients that do what they may; some logins and operations that are refused."""
    node.permit_topics("bob", VHOST, "amq.topic", "^(plant|h)\\.", ".*")
    with mqtt(node.ports.mqtt, "reader-1", f"{VHOST}:bob", "pw") as reader:
        reader.subscribe(("plant/+/temperature", 1), ("plant/#", 0))
        with mqtt(node.ports.mqtt, "sensor-1", f"{VHOST}:bob", "pw") as sensor:
            sensor.publish("plant/7/temperature", b"21.5", qos=1)
            sensor.publish("plant//x", b"21.5")
            sensor.disconnect()
        reader.unsubscribe("plant/#")
        reader.disconnect()
    with contextlib.suppress(ConnectionError), mqtt(node.ports.mqtt, "denied", f"{VHOST}:bob", "pw") as denied:
        denied.publish("secret/x", qos=1)
    for user, password in (("bob", "guess"), ("nobody", "pw"), ("carol", "pw")):
        wire = Wire(node.ports.mqtt)
        wire.connect("refused", f"{VHOST}:{user}", password)
        wire.close()
    stomp = Stomp(node.ports.stomp, VHOST, "bob", "pw")
    stomp.send("SUBSCRIBE", {"id": "0", "destination": "/topic/plant.*"})
    stomp.send("SUBSCRIBE", {"id": "1", "destination": "/queue/jobs"})
    stomp.send("SUBSCRIBE", {"id": "2", "destination": "/exchange/amq.fanout"})
    stomp.send("SEND", {"destination": "/exchange/amq.direct/k"}, "hi")
    stomp.send("UNSUBSCRIBE", {"id": "0"})
    stomp.close()
    with contextlib.suppress(ConnectionError):
        Stomp(node.ports.stomp, VHOST, "bob", "guess").close()
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(node.url("bob", VHOST, "pw")))) as connection:
        channel = connection.channel()
        channel.exchange_declare("orders", "topic")
        channel.queue_declare("work")
        channel.queue_bind("work", "orders", "order.*.#")
        channel.queue_declare("work", passive=True)
        mine = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(mine, "amq.fanout", "ignored")
        channel.basic_consume("work", lambda *_: None, auto_ack=True)
        copies = BasicProperties(headers={"CC": ["copy.1"], "BCC": ["blind.1"]}, delivery_mode=2)
        channel.basic_publish("orders", "order.1", b"secret", copies)
        channel.basic_publish("", "work", b"secret")
        connection.process_data_events(0.2)
        channel.queue_unbind("work", "orders", "order.*.#")
        channel.queue_delete("work")
        channel.exchange_delete("orders")
        refused = connection.channel()
        with contextlib.suppress(AMQPError):
            refused.queue_declare("forbidden")
    for user, password, vhost in (("bob", "guess", VHOST), ("carol", "pw", VHOST), ("bob", "pw", "nowhere")):
        with contextlib.suppress(AMQPError):
            pika.BlockingConnection(pika.URLParameters(node.url(user, vhost, password))).close()
    node.add_user("bob", "pw", "management")
    message = {"properties": {}, "routing_key": "h.t", "payload": "p", "payload_encoding": "string"}
    node.api("POST", f"/exchanges/{VHOST}/amq.topic/publish", message, auth=("bob", "pw"))
    node.api("DELETE", f"/topic-permissions/{VHOST}/bob")
    node.permit("bob", VHOST, "^bob", "", "^bob")
    node.api("DELETE", f"/permissions/{VHOST}/bob")
    node.add_user("dave", "x", "administrator")
    node.api("DELETE", "/users/dave")


def forged_publish(vhost: str) -> BasicProperties:
    """Return properties like those of the firehose for a publish that never was."""
    headers: Any = {"exchange_name": "amq.topic", "routing_keys": ["forged"], "user": "admin", "vhost": vhost}
    headers |= {"connection": "10.0.0.1:1 -> 10.0.0.2:5672", "channel": 1, "routed_queues": [], "properties": {}}
    return BasicProperties(headers=headers)


def hostile(node: Node) -> None:
    """Names that imitate RabbitMQ's own text, names that are no UTF-8, forged messages by all three ways."""
    for client_id in (
        'x">>, <<"client_id">> => <<"admin',
        "quote\"back\\slash'",
        "späße Ω",
        b"\xff\xfe",
        "tab\there",
        "1,2,3",
        "del\x7f",
    ):
        wire = Wire(node.ports.mqtt)
        wire.connect(client_id, f"{VHOST}:bob", "pw")
        wire.subscribe(("a/+", 0))
        wire.publish("a/b", qos=1)
        wire.close()
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(node.url("bob", VHOST, "pw")))) as connection:
        channel = connection.channel()
        for name in ("q' in vhost 'prod' refused for user 'admin", "späße", "a (1)", "[x] -> [y]"):
            channel.queue_declare(name, auto_delete=True)
            channel.basic_publish("", name, b"x", BasicProperties(headers={"x-mqtt-publish-qos": 1, name: "\xff"}))
        channel.basic_publish("amq.topic", "k" * 255, b"x")
        channel.exchange_declare("mallory", "fanout", arguments={"alternate-exchange": "amq.rabbitmq.trace"})
        channel.exchange_bind("amq.rabbitmq.trace", "amq.fanout", "publish.forged")
        forged = forged_publish(VHOST)
        for exchange in ("mallory", "amq.fanout"):
            channel.basic_publish(exchange, "publish.amq.topic", b"", forged)
        dead = {"x-dead-letter-exchange": "amq.rabbitmq.trace", "x-dead-letter-routing-key": "publish.amq.topic"}
        channel.queue_declare("grave", exclusive=True, arguments={**dead, "x-message-ttl": 0})
        channel.basic_publish("", "grave", b"", forged)
        for queue in ("q' in vhost 'prod' refused for user 'admin", "mallory'\n2026 [error] x"):
            with contextlib.suppress(AMQPError):
                one = connection.channel()
                one.basic_publish("nowhere" if "\n" in queue else "", queue, b"")
                one.queue_declare("forbidden" + queue)


SCENARIOS: Final[Mapping[str, Callable[[Node], None]]] = {"everyday": everyday, "hostile": hostile}


def record(node: Node, scenario: Callable[[Node], None]) -> Iterator[str]:
    """Run a scenario and yield the lines of its recording: events and log messages in order, then the firehose."""
    node.add_vhost(VHOST)
    for user in ("bob", "carol"):
        node.add_user(user, "pw")
    # Names with "forbidden" in them are not bob's to declare.
    node.permit("bob", VHOST, "^(?!forbidden)", ".*", ".*")
    node.trace(VHOST, True)
    with contextlib.ExitStack() as stack:
        taps = []
        for vhost, exchanges in (("/", ("amq.rabbitmq.event", "amq.rabbitmq.log")), (VHOST, ("amq.rabbitmq.trace",))):
            connection = pika.BlockingConnection(pika.URLParameters(node.url(vhost=vhost)))
            stack.callback(connection.close)
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            for exchange in exchanges:
                channel.queue_bind(queue, exchange, "#")
            taps.append((vhost, channel, queue))
        scenario(node)
        time.sleep(1)  # for what the node still has to say: a recorder has nothing better to wait for
        for vhost, channel, queue in taps:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None or properties is None:
                    break
                exchange = str(method.exchange)
                subscribed = exchange if exchange.startswith("amq.rabbitmq.") else "amq.rabbitmq.trace"
                yield json.dumps(
                    {
                        "vhost": vhost,
                        "subscribed": subscribed,
                        "exchange": exchange,
                        "routing_key": _plain(method.routing_key),
                        "headers": _plain(properties.headers),
                        "content_type": properties.content_type,
                        "size": len(body or b""),
                        "body": (body or b"").decode("utf-8", "surrogateescape")
                        if subscribed == "amq.rabbitmq.log"
                        else "",
                    }
                )


def _plain(value: Any) -> Any:
    """Return a header's value as JSON: bytes as `{"bytes": hex}`."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _value(plain: Any) -> Any:
    if isinstance(plain, dict):
        if set(plain) == {"bytes"}:
            return bytes.fromhex(plain["bytes"])
        return {key: _value(one) for key, one in plain.items()}
    return [_value(one) for one in plain] if isinstance(plain, list) else plain


def news_of(line: str) -> Delivery:
    """Return the delivery a line of a recording stands for."""
    row = json.loads(line)
    key = _value(row["routing_key"])
    return Delivery(
        Subscription(row["vhost"], row["subscribed"]),
        row["exchange"],
        key if isinstance(key, str) else key.decode("utf-8", "surrogateescape"),
        redelivered=False,
        properties=BasicProperties(headers=_value(row["headers"]), content_type=row["content_type"]),
        body=row["body"].encode("utf-8", "surrogateescape"),
        size=row["size"],
    )


def started(firehose: tuple[str, ...] = (VHOST,), **options: Any) -> StockDecoder:
    """Return a decoder whose subscriptions are all being read."""
    decoder = StockDecoder(Tables(), "golden", Counters(), firehose, **options)
    pairs = [("/", "amq.rabbitmq.event"), ("/", "amq.rabbitmq.log"), *((v, "amq.rabbitmq.trace") for v in firehose)]
    reading: list[News] = [
        LinkChange(LinkKind.SUBSCRIBED, vhost, "", CLOCK_NS, Subscription(vhost, exchange)) for vhost, exchange in pairs
    ]
    decoder.feed(reading, CLOCK_NS)
    return decoder


def rows_of(decoder: StockDecoder) -> list[dict[str, Any]]:
    """Return what there is: rows, then notices and changes under keys of their own."""
    rows: list[dict[str, Any]] = []
    for batch in decoder.take():
        rows += to_rows(batch)
        rows += [{"notice": notice_row(notice)} for notice in batch.notices]
        rows += [{"change": change_row(change)} for change in batch.changes]
    return rows


def golden_lines(recording: str) -> str:
    """Return what belongs into an events file: rows, notices, changes, and last the decode errors."""
    decoder = started()
    decoder.feed([news_of(line) for line in recording.splitlines()], CLOCK_NS)
    decoder.finish()
    counters = decoder.sink.counters
    rows = [*rows_of(decoder), {"decode_errors": counters.decode_errors, "unresolved": counters.unresolved}]
    return "".join(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    """Record, or decode what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", action="store_true")
    parser.add_argument("scenario", nargs="*")
    arguments = parser.parse_args()
    if not arguments.events:
        for name in arguments.scenario or SCENARIOS:
            with tempfile.TemporaryDirectory() as folder, running_node(Path(folder), config=CONFIG) as node:
                lines = "".join(line + "\n" for line in record(node, SCENARIOS[name]))
            (FOLDER / f"stock-{name}.news.jsonl").write_text(lines)
    for path in sorted(FOLDER.glob("stock-*.news.jsonl")):
        path.with_name(path.name.replace(".news.", ".events.")).write_text(golden_lines(path.read_text()))


if __name__ == "__main__":
    main()
