"""Who is behind a connection, a channel or a queue; and the management API's answers, whatever they hold."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rabbitmq.test_event_messages import VALUES
from topicwarden.events import Identity
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq.address import Address, parse_address
from topicwarden_collectors.rabbitmq.connections import Connections, Known
from topicwarden_collectors.rabbitmq.erlang_terms import logged
from topicwarden_collectors.rabbitmq.event_messages import (
    ChannelCreated,
    ConnectionCreated,
    ConsumerChanged,
    ObjectChanged,
)
from topicwarden_collectors.rabbitmq.management import connection_of, take_snapshot

NAME = "192.0.2.7:49242 -> 192.0.2.1:5672"
PID, CHANNEL = "<rabbit@h.7.100.0>", "<rabbit@h.7.200.0>"


def created(name: str = NAME, pid: str = PID, **changes: Any) -> ConnectionCreated:
    values: dict[str, Any] = {
        "time_ns": 1,
        "name": name,
        "pid": pid,
        "user": "bob",
        "vhost": "v",
        "protocol": "amqp",
        "client_id": "",
        "address": "192.0.2.7",
        "port": 49242,
        "server_port": 5672,
        "tls_subject": None,
        "mechanism": "PLAIN",
    }
    return ConnectionCreated(**{**values, **changes})


def test_a_connection_is_found_by_name_by_process_and_by_channel() -> None:
    connections = Connections("b")
    client = connections.created(created())
    connections.channel_created(ChannelCreated(2, CHANNEL, PID, NAME, "bob", "v"))
    assert client.identity is Identity.VERIFIED
    assert connections.by_name(NAME) is client
    assert connections.by_process(PID) is client
    assert connections.by_process(CHANNEL) is client
    assert connections.by_process(logged("rabbit@h", "<0.200.0>")) is client
    assert connections.by_process(logged("other@h", "<0.200.0>")) is None, "another node's process"


def test_what_a_connection_did_last_is_its_own_though_its_address_has_a_new_client() -> None:
    connections = Connections("b")
    before = connections.created(created())
    assert connections.closed(NAME, PID) is before
    after = connections.created(created(pid="<rabbit@h.7.101.0>", user="eve"))
    assert connections.by_name(NAME, "bob", "v") is before
    assert connections.by_name(NAME, "eve", "v") is after
    assert connections.by_name(NAME, "carol", "v") is None


def test_a_client_known_only_from_a_trace_has_the_protocol_of_the_port() -> None:
    connections = Connections("b")
    other = "192.0.2.8:1 -> 192.0.2.1:5672"
    assert connections.traced(other, "carol", "v") is None
    connections.created(created())
    client = connections.traced(other, "carol", "v")
    assert client is not None
    assert (client.protocol, client.user, client.address, client.port) == ("amqp", "carol", "192.0.2.8", 1)
    connections.heard("192.0.2.8:2 -> 192.0.2.1:1883", "mqtt")
    assert connections.traced("192.0.2.8:3 -> 192.0.2.1:1883", "carol", "v") is None, "its client id is not known"


def test_an_mqtt_client_with_an_unreadable_id_is_nobody() -> None:
    client = Connections("b").created(created(protocol="mqtt", client_id=None))
    assert (client.user, client.identity) == (None, Identity.UNKNOWN)


def test_the_gateways_queue_leads_to_its_client_and_to_nobody_elses() -> None:
    connections = Connections("b")
    dev = connections.created(created(protocol="mqtt", client_id="dev"))
    queue = "mqtt-subscription-devqos0"
    assert connections.declared(ObjectChanged(1, True, "queue", "v", queue, None, "bob")) is dev
    connections.channel_created(ChannelCreated(2, CHANNEL, PID, NAME, "bob", "v"))
    assert connections.consumed(ConsumerChanged(3, True, "v", queue, CHANNEL, "bob")) is dev
    assert connections.bound("v", queue, "bob") is dev
    assert connections.bound("v", queue, "eve") is None
    assert connections.bound("other", queue, "bob") is None
    assert not connections.may_be_gateway("v", queue, "eve"), "the client of this id is known, and is not eve"
    assert connections.may_be_gateway("v", "mqtt-subscription-earlyqos1", "eve")
    connections.listed([], complete=True)
    assert not connections.may_be_gateway("v", "mqtt-subscription-earlyqos1", "eve")


def test_two_stomp_clients_of_one_user_are_told_apart_by_who_consumes() -> None:
    connections = Connections("b")
    queue = "stomp-subscription-jpUr12xOTuat4dd1TjhlzQ"
    first = connections.created(created(protocol="stomp"))
    connections.channel_created(ChannelCreated(1, CHANNEL, PID, NAME, "bob", "v"))
    assert connections.bound("v", queue, "bob") is first
    connections.created(created("x:2 -> y:3", "<rabbit@h.7.102.0>", protocol="stomp"))
    assert connections.bound("v", queue, "bob") is None
    connections.consumed(ConsumerChanged(2, True, "v", queue, CHANNEL, "bob"))
    assert connections.bound("v", queue, "bob") is first


def test_an_exclusive_queue_is_its_owners() -> None:
    connections = Connections("b")
    client = connections.created(created())
    assert connections.declared(ObjectChanged(1, True, "queue", "v", "q", PID, "bob")) is client
    assert connections.bound("v", "q", "bob") is client


def test_all_tables_are_bounded_and_count_what_they_forget() -> None:
    connections = Connections("b", capacity=16)
    for number in range(100):
        pid = f"<rabbit@h.7.{number}.0>"
        connections.created(created(f"a:{number} -> b:1", pid, protocol="mqtt", client_id=f"c{number}"))
        connections.channel_created(ChannelCreated(1, f"<rabbit@h.8.{number}.0>", pid, "", "bob", "v"))
        connections.declared(ObjectChanged(1, True, "queue", "v", f"q{number}", pid, "bob"))
    assert len(connections) == 16
    assert connections.forgotten > 84
    connections.clear()
    assert len(connections) == 0
    assert connections.by_name("a:99 -> b:1") is None


@pytest.mark.parametrize(
    ("protocol", "variables", "known"),
    [
        ("AMQP 0-9-1", None, ("amqp", "")),
        ("AMQP 1-0", None, ("amqp10", "")),
        ("MQTT 3.1.1", {"client_id": "dev"}, ("mqtt", "dev")),
        ("Web MQTT 3.1.1", {"client_id": "dev"}, ("mqtt", "dev")),
        ("MQTT 3.1.1", {}, ("mqtt", None)),
        ("STOMP 1.2", None, ("stomp", "")),
    ],
)
def test_a_row_of_the_management_api_is_a_connection(
    protocol: str, variables: Any, known: tuple[str, str | None]
) -> None:
    row = {"name": NAME, "user": "bob", "vhost": "v", "protocol": protocol, "variable_map": variables, "peer_port": 1}
    found = connection_of(row)
    assert isinstance(found, Known)
    assert (found.protocol, found.client_id) == known


@given(
    st.dictionaries(st.sampled_from(["name", "user", "vhost", "protocol", "variable_map", "peer_host", "port"]), VALUES)
)
def test_no_row_whatever_raises(row: dict[str, Any]) -> None:
    connection_of(row)
    connection_of({**row, "name": "n", "user": "u", "vhost": "v", "protocol": "MQTT 5.0"})


class _Answer(http.server.BaseHTTPRequestHandler):
    answer: ClassVar[tuple[int, bytes]] = (200, b"[]")

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[Address]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    url = f"amqp://auditor@127.0.0.1?management=http://127.0.0.1:{server.server_port}"
    yield parse_address(url, SourceOptions(password_file=password))
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"not json", "does not answer like a management API"),
        (200, b'{"error": 1}', "does not answer like a management API"),
        (200, b"[" * 100_000, "does not answer like a management API"),
        (401, b"", "rabbitmqctl set_user_tags 'auditor' monitoring"),
        (302, b"", "HTTP status 302"),
        (500, b"", "HTTP status 500"),
    ],
)
def test_a_management_api_that_is_none_is_a_problem_in_words(
    address: Address, status: int, body: bytes, words: str
) -> None:
    _Answer.answer = (status, body)
    problem = take_snapshot(address).problem
    assert problem is not None
    assert words in problem
    assert "s3cret" not in problem


def test_rows_that_make_no_sense_are_counted(address: Address) -> None:
    _Answer.answer = (200, b'[{"name": 1}, {"name": "n", "user": "u", "vhost": "v", "protocol": "AMQP 0-9-1"}, 7]')
    snapshot = take_snapshot(address)
    assert snapshot.problem is None
    assert [row.name for row in snapshot.connections] == ["n"]
    assert snapshot.undecodable == 1
