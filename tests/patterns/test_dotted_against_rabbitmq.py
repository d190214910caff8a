"""The same binding and routing keys go to us and to a running RabbitMQ's topic exchange; the answers must agree."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ConnectionClosedByBroker

from topicwarden.patterns import (
    KEY_MAX_BYTES,
    DottedIndex,
    KeyUnion,
    Witness,
    key_matches,
    key_overlap,
    literal_key,
)
from topicwarden_collectors.rabbitmq.node import Node

VHOST = "patterns"
WORDS = ("", "a", "b", "é", "*", "#", "a*", "#b", "a\0", "\n")
CORNERS = ("", ".", "..", "*", "#", "*.*", "a", "*.#", "#.*", "#.#", ".#", "#.", "a.#.b", "#.a.#.a.#")
END = b"end"


def random_keys(source: random.Random, number: int, words: Sequence[str]) -> list[str]:
    """Different keys of up to five words; for binding keys, `*` and `#` among the words are wildcards."""
    found = dict.fromkeys(CORNERS)
    while len(found) < number:
        found[".".join(source.choices(words, k=source.randint(0, 5)))] = None
    return list(found)


@pytest.fixture(scope="module")
def channel(rabbit: Node) -> Iterator[BlockingChannel]:
    rabbit.add_vhost(VHOST)
    connection = pika.BlockingConnection(pika.URLParameters(rabbit.url(vhost=VHOST)))
    channel = connection.channel()
    for kind in ("topic", "direct", "fanout"):
        channel.exchange_declare(kind, kind)
    yield channel
    connection.close()
    rabbit.api("DELETE", f"/vhosts/{VHOST}")


def wire(key: str) -> str:
    # pika takes bytes too, which its types do not say: the only way to keys that are not UTF-8.
    return key.encode("utf-8", "surrogateescape")  # type: ignore[return-value]


def deliveries(
    channel: BlockingChannel, patterns: Sequence[str], keys: Sequence[str], kind: str = "topic"
) -> dict[str, set[str]]:
    """Bind a queue by each pattern, publish with each key, and return which patterns each key came by."""
    came: dict[str, set[str]] = {key: set() for key in keys}
    ends: set[str] = set()
    queues: dict[str, str] = {}
    for pattern in patterns:
        queue = channel.queue_declare("", exclusive=True).method.queue
        queues[pattern] = queue
        channel.queue_bind(queue, kind, pattern)
        channel.queue_bind(queue, "fanout")

    def consume(queue: str, pattern: str) -> None:
        def on_message(_channel: object, _method: object, _properties: object, body: bytes) -> None:
            if body == END:
                ends.add(pattern)
            else:
                came[keys[int(body)]].add(pattern)

        channel.basic_consume(queue, on_message, auto_ack=True)

    for number, key in enumerate(keys):
        channel.basic_publish(kind, wire(key), b"%d" % number)
    # Every queue has what went before on this channel when it has this.
    channel.basic_publish("fanout", "", END)
    for pattern, queue in queues.items():
        consume(queue, pattern)
    for _ in range(1000):
        if len(ends) == len(patterns):
            break
        channel.connection.process_data_events(time_limit=0.05)
    assert len(ends) == len(patterns)
    for queue in queues.values():
        channel.queue_delete(queue)
    return came


def test_rabbitmq_routes_exactly_what_we_say_matches(channel: BlockingChannel) -> None:
    source = random.Random(7)
    patterns = random_keys(source, 180, [*WORDS, "*", "*", "*", "#", "#", "#"])
    keys = random_keys(source, 150, [*WORDS, "\udcff"])
    index = DottedIndex(patterns)
    came = deliveries(channel, patterns, keys)
    for key in keys:
        assert came[key] == {pattern for pattern in patterns if key_matches(pattern, key)}, key
        assert came[key] == {patterns[number] for number in index.match(key).always}, key
    assert len(patterns) * len(keys) > 3_000
    assert 1_000 < sum(map(len, came.values())) < len(patterns) * len(keys) / 2


def test_rabbitmq_routes_every_witness_by_the_pattern_and_by_none_of_the_others(channel: BlockingChannel) -> None:
    source = random.Random(11)
    patterns = random_keys(source, 60, ["a", "b", "", "*", "*", "#"])
    claims: dict[str, list[tuple[str, list[str]]]] = {}
    shared: dict[str, list[tuple[str, str]]] = {}
    for pattern in patterns:
        others = [other for other in patterns if other != pattern and not key_matches(other, "o.t.h.e.r")]
        by = source.sample(others, 10)
        answer = KeyUnion(by).uncovered(pattern)
        if isinstance(answer, Witness):
            claims.setdefault(answer.topic, []).append((pattern, by))
        key = key_overlap(pattern, by[0])
        if key is not None:
            shared.setdefault(key, []).append((pattern, by[0]))
    assert len(claims) > 15
    assert len(shared) > 10
    came = deliveries(channel, patterns, list(claims | shared))
    for key, claimed in claims.items():
        for pattern, by in claimed:
            assert pattern in came[key]
            assert came[key].isdisjoint(by)
    for key, both in shared.items():
        assert all({a, b} <= came[key] for a, b in both)


def test_a_direct_exchange_compares_whole_keys_as_literal_patterns_do(channel: BlockingChannel) -> None:
    source = random.Random(13)
    keys = random_keys(source, 40, WORDS)
    came = deliveries(channel, keys, keys, "direct")
    for key in keys:
        assert came[key] == {other for other in keys if key_matches(literal_key(other), key)} == {key}


def test_the_longest_keys_of_the_most_words_are_routed_as_we_say(channel: BlockingChannel) -> None:
    # Few `#` here: 3.10.8 spends seconds on one such key where bindings hold several.
    patterns = ["." * KEY_MAX_BYTES, "#", "*.#", "#.", "." * (KEY_MAX_BYTES - 1), "*." * 127 + "*", "*." * 127 + "#"]
    keys = ["." * KEY_MAX_BYTES, "x." * 127 + "x", "x." * 126 + "xx", "é" * 127]
    came = deliveries(channel, patterns, keys)
    for key in keys:
        assert came[key] == {pattern for pattern in patterns if key_matches(pattern, key)}, key


def test_keys_longer_than_a_method_can_carry_are_routed_by_the_cc_header(channel: BlockingChannel) -> None:
    # rabbitmq-server 3.10.8: extra keys in a table are not held to 255 bytes, and neither are MQTT topics.
    long = "long." + "x" * (KEY_MAX_BYTES + 50)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "topic", "long.*")
    assert key_matches("long.*", long)
    channel.basic_publish("topic", "nobody.is.bound", b"copy", pika.BasicProperties(headers={"CC": [long]}))
    # The same channel's requests reach the queue in order.
    assert channel.basic_get(queue, auto_ack=True)[2] == b"copy"
    channel.queue_delete(queue)


def test_a_binding_key_that_is_not_utf_8_closes_the_connection(rabbit: Node, channel: BlockingChannel) -> None:
    # rabbitmq-server 3.10.8 takes any bytes as the routing key of a publish, but not in other methods.
    with pika.BlockingConnection(pika.URLParameters(rabbit.url(vhost=VHOST))) as connection:
        own = connection.channel()
        queue = own.queue_declare("", exclusive=True).method.queue
        with pytest.raises(ConnectionClosedByBroker, match="Malformed UTF-8"):
            own.queue_bind(queue, "topic", wire("\udcff"))
