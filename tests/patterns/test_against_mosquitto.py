"""The same filters and topics go to us and to a running Mosquitto; the answers must agree."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests import brokers
from topicwarden.patterns import FilterIndex, Witness, matches, strip_share, uncovered

LEVELS = ("", "a", "b", "$a", "é", "a b")


def random_topics(source: random.Random, number: int) -> list[str]:
    topics: dict[str, None] = {}
    while len(topics) < number:
        topic = "/".join(source.choices(LEVELS, k=source.randint(1, 5)))
        if topic:
            topics[topic] = None
    return list(topics)


def random_filters(source: random.Random, number: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < number:
        levels = source.choices([*LEVELS, "+", "+", "+"], k=source.randint(0, 4))
        if levels in ([], [""]) or source.random() < 0.4:
            levels = [*levels, "#"]
        found["/".join(levels)] = None
    return list(found)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Mosquitto]:
    folder: Path = tmp_path_factory.mktemp("mosquitto")
    unlimited = ["max_queued_messages 0", "max_inflight_messages 0", "allow_duplicate_messages true"]
    with brokers.mosquitto(folder, unlimited) as running:
        yield running


def deliveries(broker: brokers.Mosquitto, filters: Sequence[str], topics: Sequence[str]) -> dict[str, set[str]]:
    """Subscribe one client to all filters, publish to all topics, and return which filters each topic came by.

    MQTT 5 subscription identifiers tell the filters apart.
    """
    came: dict[str, set[str]] = {topic: set() for topic in topics}
    subscribed, done = threading.Semaphore(0), threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(0)

    def on_message(_client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if message.topic == "end/of/all":
            done.set()
            return
        assert message.properties is not None
        for number in message.properties.SubscriptionIdentifier:  # type: ignore[attr-defined] # set by __setattr__
            came[message.topic].add(filters[number - 1])

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.release()
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        for number, f in enumerate(["end/of/all", *filters]):
            properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call] # paho's own
            properties.SubscriptionIdentifier = number or len(filters) + 1
            client.subscribe(f, options=SubscribeOptions(qos=1), properties=properties)
        for _ in range(len(filters) + 1):
            assert subscribed.acquire(timeout=20)
        for topic in topics:
            client.publish(topic, b"", qos=1)
        client.publish("end/of/all", b"", qos=1)
        assert done.wait(30)
        client.disconnect()
    finally:
        client.loop_stop()
    return came


def test_mosquitto_delivers_exactly_what_we_say_matches(broker: brokers.Mosquitto) -> None:
    source = random.Random(7)
    filters, topics = random_filters(source, 150), random_topics(source, 150)
    index = FilterIndex(filters)
    came = deliveries(broker, filters, topics)
    for topic in topics:
        assert came[topic] == {f for f in filters if matches(f, topic)}, topic
        assert came[topic] == {filters[number] for number in index.match(topic).always}, topic
    assert 1000 < sum(map(len, came.values())) < 20000


def test_mosquitto_delivers_every_witness_by_the_filter_and_none_of_the_others(broker: brokers.Mosquitto) -> None:
    source = random.Random(11)
    filters = random_filters(source, 40)
    claims: dict[str, list[tuple[str, list[str]]]] = {}
    for f in filters:
        by = source.sample([other for other in filters if other not in (f, "#", "+/#")], 8)
        answer = uncovered(f, by)
        if isinstance(answer, Witness):
            claims.setdefault(answer.topic, []).append((f, by))
    assert len(claims) > 10
    came = deliveries(broker, filters, list(claims))
    for topic, claimed in claims.items():
        for f, by in claimed:
            assert f in came[topic]
            assert came[topic].isdisjoint(by)


def test_mosquitto_matches_shared_subscriptions_by_what_follows_the_group(broker: brokers.Mosquitto) -> None:
    source = random.Random(13)
    filters, topics = [f"$share/g/{f}" for f in random_filters(source, 60)], random_topics(source, 60)
    came = deliveries(broker, filters, topics)
    for topic in topics:
        # Mosquitto 2.0.11 keeps shared subscriptions out of the trees of `$` topics: `$share/g/$a/#` is accepted and
        # never delivers anything (seen here). We say what the standard says, which errs towards "could receive it".
        expected = {f for f in filters if matches(strip_share(f)[1], topic)}
        assert came[topic] == (set() if topic.startswith("$") else expected), topic
