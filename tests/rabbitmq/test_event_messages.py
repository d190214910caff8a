"""The decoder of the event exchange's messages: recorded ones, made-up ones, and any others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rabbitmq.stock_record import FOLDER, news_of
from topicwarden_collectors.rabbitmq.erlang_terms import address_of, as_logged, binary_map, incarnation_of, logged
from topicwarden_collectors.rabbitmq.event_messages import (
    Authenticated,
    ConnectionCreated,
    OtherEvent,
    Undecodable,
    decode_event,
    pairs_of,
    protocol_of,
)

EVENTS = sorted(
    {
        f"{what}.{happened}"
        for what in ("connection", "channel", "consumer", "binding", "queue", "exchange", "permission", "user")
        for happened in ("created", "deleted", "closed")
    }
    | {"user.authentication.success", "user.authentication.failure", "user.tags.set", "vhost.updated", ""}
)
CREATED: dict[Any, Any] = {
    "timestamp_in_ms": 1795436430535,
    "name": "[::1]:58302 -> [::1]:1883",
    "pid": "<rabbit@host.1795436289.992.0>",
    "user": "bob",
    "vhost": "v1",
    "peer_host": "{0,0,0,0,0,0,0,1}",
    "peer_port": 58302,
    "port": 1883,
    "protocol": "{'MQTT',\"3.1.1\"}",
    "variable_map": '#{<<"client_id">> => <<"pub1">>}',
}


def test_every_recorded_event_is_decoded() -> None:
    kinds = set()
    for path in sorted(FOLDER.glob("stock-*.news.jsonl")):
        for line in path.read_text().splitlines():
            delivery = news_of(line)
            if delivery.exchange == "amq.rabbitmq.event":
                fact = decode_event(delivery.routing_key, delivery.properties.headers)
                assert not isinstance(fact, Undecodable), line
                kinds.add(type(fact).__name__)
    assert kinds >= {"ConnectionCreated", "ChannelClosed", "ConsumerChanged", "BindingChanged", "ObjectChanged"}
    assert kinds >= {"Authenticated", "OtherEvent", "ConnectionClosed", "ChannelCreated"}


def test_a_connection_has_all_the_broker_says_of_its_client() -> None:
    fact = decode_event("connection.created", CREATED)
    assert fact == ConnectionCreated(
        1795436430535 * 10**6,
        CREATED["name"],
        CREATED["pid"],
        "bob",
        "v1",
        "mqtt",
        "pub1",
        "::1",
        58302,
        1883,
        None,
        "",
    )


@pytest.mark.parametrize("missing", ["timestamp_in_ms", "name", "pid", "user", "vhost", "protocol"])
def test_a_missing_or_mistyped_header_is_named(missing: str) -> None:
    assert decode_event("connection.created", {k: v for k, v in CREATED.items() if k != missing}) == Undecodable(
        missing
    )
    assert decode_event("connection.created", {**CREATED, missing: [1]}) == Undecodable(missing)


def test_an_mqtt_client_whose_id_cannot_be_read_has_none() -> None:
    fact = decode_event("connection.created", {**CREATED, "variable_map": '#{<<"client_id">> => dev1}'})
    assert isinstance(fact, ConnectionCreated)
    assert fact.client_id is None


def test_the_reason_of_a_refused_login_comes_as_numbers() -> None:
    headers = {"timestamp_in_ms": 1, "name": "bob", "error": list(map(ord, "user 'bob' - invalid credentials"))}
    fact = decode_event("user.authentication.failure", headers)
    assert isinstance(fact, Authenticated)
    assert fact.reason == "user 'bob' - invalid credentials"
    assert fact.connection is None


def test_events_nobody_has_heard_of_are_other_events() -> None:
    assert decode_event("alarm.set", {"timestamp_in_ms": 5}) == OtherEvent(5_000_000, None)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('#{<<"client_id">> => <<"dev1">>}', {"client_id": "dev1"}),
        ('#{<<"client_id">> => <<"x\\">>, <<\\"client_id\\">> => <<\\"admin">>}', None),
        ('#{<<"client_id">> => <<"a\\\\b\\n\\t\\"c">>}', {"client_id": 'a\\b\n\t"c'}),
        ('#{<<"client_id">> => <<115,0,255>>}', {"client_id": "s\0\udcff"}),
        ('#{<<"client_id">> => <<>>}', {"client_id": ""}),
        ('#{<<"a">> => <<"b">>,<<"c">> => <<"d">>}', {"a": "b", "c": "d"}),
        ('#{<<"client_id">> => <<300>>}', {}),
        ('#{<<"client_id">> => <<"dev1">>', {}),
        ('#{<<"client_id">> => <<"dev1">>} ', {}),
        ("#{}", {}),
        ("", {}),
    ],
)
def test_a_map_of_binaries_is_read_as_erlang_writes_it(written: str, read: dict[str, str] | None) -> None:
    if read is None:
        read = {"client_id": 'x">>, <<"client_id">> => <<"admin'}
    assert binary_map(written) == read


@given(st.binary(max_size=40))
def test_any_client_id_survives_erlangs_way_of_writing_it(client_id: bytes) -> None:
    assert binary_map(f'#{{<<"client_id">> => {_erlang(client_id)}}}') == {
        "client_id": client_id.decode("utf-8", "surrogateescape")
    }


def _erlang(data: bytes) -> str:
    """Write a binary as io_lib:format("~p") of Erlang 25 does, then as the event exchange encodes it."""
    escapes = {10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 8: "\\b", 12: "\\f", 27: "\\e", 34: '\\"', 92: "\\\\"}
    if data and all(32 <= byte < 127 or byte >= 160 or byte in escapes for byte in data):
        text = "".join(escapes.get(byte) or chr(byte) for byte in data)
        return f'<<"{text.encode("latin-1").decode("utf-8", "surrogateescape")}">>'
    return f"<<{','.join(map(str, data))}>>"


def test_addresses_and_protocols_are_read_as_the_node_writes_them() -> None:
    assert address_of("{127,0,0,1}") == "127.0.0.1"
    assert address_of("{0,0,0,0,0,65535,49152,519}") == "192.0.2.7"
    assert [address_of(text) for text in ("unknown", "{1,2,3}", "{1,2,3,999}", "{1,2,3,4,5,6,7,99999}", None)] == [
        None
    ] * 5
    written = [
        "{0,9,1}",
        "{'MQTT',\"3.1.1\"}",
        "{'Web MQTT',\"3.1.1\"}",
        "{'STOMP',\"1.2\"}",
        "{'Direct',{0,9,1}}",
        "{1,0}",
    ]
    assert list(map(protocol_of, written)) == ["amqp", "mqtt", "mqtt", "stomp", "direct", "amqp10"]


def test_a_process_is_the_same_in_events_and_in_its_nodes_log() -> None:
    pid = "<rabbit.2@a.host.1795436289.915.0>"
    assert as_logged(pid) == logged("rabbit.2@a.host", "<0.915.0>")
    assert incarnation_of(pid) == ("rabbit.2@a.host", 1795436289)
    assert incarnation_of("none") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


NAMES = st.sampled_from([*CREATED, "channel", "queue", "source_name", "error", "owner_pid"]) | st.binary(max_size=3)


@given(st.sampled_from(EVENTS), st.dictionaries(NAMES, VALUES, max_size=12) | st.none(), st.booleans())
def test_no_headers_whatever_raise(event: str, headers: dict[Any, Any] | None, whole: bool) -> None:
    if headers is not None and whole:
        headers = {**CREATED, **headers}
    decode_event(event, headers)
    assert all(isinstance(value, str) for value in pairs_of(headers).values())
