"""Records the plugin's stream of a real node into `golden/`: `python -m tests.rabbitmq.stream_record`.

Each file holds the messages as they came, behind their lengths (4 bytes, big-endian). What the decoder makes of them is
written beside it; read the difference before you commit it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
from pika.spec import BasicProperties

from tests.rabbitmq.stock_clients import Stomp
from tests.rabbitmq.stream_stage import ALICE, Stage, stage
from topicwarden.events import Tables
from topicwarden.events.rows import to_rows
from topicwarden.sources import Counters
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.link import AmqpLink, Delivery, Subscription
from topicwarden_collectors.rabbitmq.stream_events import StreamDecoder
from topicwarden_collectors.rabbitmq.stream_layout import EXCHANGE

GOLDEN = Path(__file__).parent / "golden"


def write(path: Path, bodies: list[bytes]) -> None:
    path.write_bytes(b"".join(struct.pack(">I", len(body)) + body for body in bodies))


def read(path: Path) -> Iterator[bytes]:
    """The messages of a recording."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def decoded(path: Path) -> tuple[list[dict[str, Any]], Counters]:
    """What the decoder makes of a recording."""
    decoder = StreamDecoder(Tables(), "golden", Grants("golden"), ours=lambda actor: actor.user == "auditor")
    rows: list[dict[str, Any]] = []
    for batches in (decoder.decode(read(path)), decoder.settle(everything=True)):
        for batch in batches:
            assert not batch.notices
            rows += to_rows(batch)
    return rows, decoder.counters


def everyday(hive: Stage) -> None:
    """What clients of each protocol do, and what they are refused."""
    with hive.channel() as channel:
        channel.queue_declare("alices", exclusive=True)
        channel.queue_bind("alices", "amq.topic", "plant.#")
        channel.queue_bind("alices", "amq.fanout", "whatever")
        copies: dict[str, Any] = {"CC": ["plant.cc"], "BCC": ["plant.bcc"]}
        channel.basic_publish("amq.topic", "plant.a", b"12345", BasicProperties(headers=copies, delivery_mode=2))
        channel.basic_publish("", "alices", b"1")
        channel.basic_get("alices", auto_ack=True)
        channel.queue_declare("alices", passive=True)
        for key in ("secret.b", "plant.never"):
            channel._impl.basic_publish("amq.topic", key, b"x")  # type: ignore[attr-defined] # in one piece
        with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
            channel.basic_qos(prefetch_count=1)
        again = channel.connection.channel()
        with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
            again.queue_declare("bobs")
        again = channel.connection.channel()
        again.tx_select()
        again.basic_publish("amq.topic", "plant.back", b"x")
        again.tx_rollback()
    hive.mqtt("mosquitto_pub", "dev1", "-t", "plant/b/c", "-m", "x", "-q", "1")
    hive.mqtt("mosquitto_sub", "dev2", "-t", "plant/+/#", "-W", "1")
    hive.mqtt("mosquitto_pub", "dev3", "-t", "secret/m", "-m", "x")
    hive.mqtt("mosquitto_pub", "dev4", "-t", "plant/m", "-m", "x", password="wrong")
    stomp = Stomp(hive.node.ports.stomp, "/", ALICE, "pw-alice")
    stomp.send("SUBSCRIBE", {"id": "1", "destination": "/topic/plant.s.*"})
    stomp.send("SEND", {"destination": "/topic/plant.s.t"}, "hello")
    stomp.close()
    hive.node.permit_topics(ALICE, "/", "amq.topic", "^plant\\.a$", "^plant\\.")


def main() -> None:
    """Record."""

    async def record(hive: Stage) -> list[bytes]:
        link = AmqpLink(hive.address(), [Subscription("/", EXCHANGE, "")])
        bodies = []
        await link.open()
        try:
            await asyncio.to_thread(everyday, hive)
            for _ in range(3):
                bodies += [news.body for news in await link.take(1.2) if isinstance(news, Delivery)]
        finally:
            await link.close()
        return bodies

    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as hive:
        path = GOLDEN / "stream-everyday.bin"
        write(path, asyncio.run(record(hive)))
    rows, _ = decoded(path)
    lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows]
    path.with_suffix(".events.jsonl").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
