"""The decoder of the firehose's messages: recorded ones, made-up ones, and any others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rabbitmq.stock_record import FOLDER, news_of
from tests.rabbitmq.test_event_messages import VALUES
from topicwarden_collectors.rabbitmq.genuine import is_genuine
from topicwarden_collectors.rabbitmq.trace_messages import MAX_KEYS, Traced, Undecodable, decode_trace

HEADERS: dict[Any, Any] = {
    "exchange_name": "orders",
    "routing_keys": ["order.1", "copy.1"],
    "user": "bob",
    "vhost": "v1",
    "connection": "192.0.2.7:49242 -> 192.0.2.1:5672",
    "routed_queues": [],
    "properties": {"headers": {"x-mqtt-publish-qos": 1}},
}


def test_every_recorded_genuine_message_is_decoded() -> None:
    published = delivered = 0
    for path in sorted(FOLDER.glob("stock-*.news.jsonl")):
        for line in path.read_text().splitlines():
            delivery = news_of(line)
            if delivery.subscription.exchange == "amq.rabbitmq.trace" and is_genuine(delivery, "amq.rabbitmq.trace"):
                traced = decode_trace(delivery.routing_key, delivery.properties.headers)
                assert isinstance(traced, Traced), line
                published += traced.published
                delivered += not traced.published
    assert published > 20
    assert delivered > 10


def test_a_publish_has_every_key_and_a_delivery_its_queue() -> None:
    publish = decode_trace("publish.orders", HEADERS)
    assert isinstance(publish, Traced)
    assert publish.routing_keys == ("order.1", "copy.1")
    assert publish.unroutable
    assert publish.qos == 1
    deliver = decode_trace("deliver.publish.work", HEADERS)
    assert isinstance(deliver, Traced)
    assert (deliver.published, deliver.queue, deliver.unroutable) == (False, "publish.work", False)


@pytest.mark.parametrize("missing", ["exchange_name", "routing_keys", "user", "vhost", "connection"])
def test_a_missing_or_mistyped_header_is_named(missing: str) -> None:
    assert decode_trace("publish.orders", {k: v for k, v in HEADERS.items() if k != missing}) == Undecodable(missing)
    assert decode_trace("publish.orders", {**HEADERS, missing: [1]}) == Undecodable(missing)


def test_a_routing_key_that_contradicts_the_headers_is_undecodable() -> None:
    assert decode_trace("publish.other", HEADERS) == Undecodable("routing key")
    assert decode_trace("orders", HEADERS) == Undecodable("routing key")


def test_keys_beyond_the_limit_are_counted() -> None:
    traced = decode_trace("publish.orders", {**HEADERS, "routing_keys": ["k"] * (MAX_KEYS + 5)})
    assert isinstance(traced, Traced)
    assert (len(traced.routing_keys), traced.more_keys) == (MAX_KEYS, 5)


@given(
    st.sampled_from(["publish.orders", "deliver.q", "publish.", ""]) | st.text(max_size=9),
    st.dictionaries(st.sampled_from([*HEADERS]), VALUES, max_size=7) | st.none(),
    st.booleans(),
)
def test_no_headers_whatever_raise(key: str, headers: dict[Any, Any] | None, whole: bool) -> None:
    if headers is not None and whole:
        headers = {**HEADERS, **headers}
    decode_trace(key, headers)
