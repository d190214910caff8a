"""The demo's own STOMP client against a real node, and how its clients end together."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.errors import ObservationError
from topicwarden_collectors.rabbitmq.demo_clients import StompClient, StompFrame
from topicwarden_collectors.rabbitmq.demo_stage import Stage
from topicwarden_collectors.rabbitmq.node import Node

VHOST = "demo clients"
PASSWORD = "a:b\\c"


@pytest.fixture(scope="module")
def node(rabbit: Node) -> Iterator[Node]:
    rabbit.add_vhost(VHOST)
    rabbit.add_user("stomper", PASSWORD)
    rabbit.permit("stomper", VHOST, "", ".*", ".*")
    rabbit.api("PUT", "/queues/demo%20clients/work", {"durable": False})
    yield rabbit
    rabbit.api("DELETE", "/vhosts/demo%20clients")
    rabbit.api("DELETE", "/users/stomper")


def test_a_message_sent_by_stomp_comes_back_by_stomp(node: Node) -> None:
    with StompClient(node.ports.stomp, VHOST, "stomper", PASSWORD) as client:
        client.subscribe("/amq/queue/work")
        body = b'{"a": "\0"}\n\n'
        with StompClient(node.ports.stomp, VHOST, "stomper", PASSWORD) as other:
            other.send("/amq/queue/work", body)
            other.disconnect()
        message = client._receive()
        assert message.command == "MESSAGE"
        assert message.body == body
        assert message.headers["destination"] == "/queue/work"
        client.disconnect()


def test_a_wrong_password_is_told_in_one_line_without_the_password(node: Node) -> None:
    with pytest.raises(ObservationError, match="Bad CONNECT") as told:
        StompClient(node.ports.stomp, VHOST, "stomper", "wrong")
    assert "wrong" not in str(told.value)


def test_a_refused_send_is_told(node: Node) -> None:
    with StompClient(node.ports.stomp, VHOST, "stomper", PASSWORD) as client, pytest.raises(ObservationError):
        client.send("/exchange/nothing.of.that.name/key", b"x")


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(st.dictionaries(names, names, max_size=4), st.binary(max_size=200), st.integers(1, 64))
def test_a_frame_that_arrives_in_pieces_is_the_frame_that_was_sent(
    headers: dict[str, str], body: bytes, piece: int
) -> None:
    headers.pop("content-length", None)
    sent = StompFrame("MESSAGE", headers, body).to_bytes()
    client = object.__new__(StompClient)
    client._received = b"\n"  # a heart-beat
    client._socket = Pieces([(sent + sent)[at : at + piece] for at in range(0, 2 * len(sent), piece)])  # type: ignore[assignment]
    for _ in range(2):
        received = client._receive()
        assert received.body == body
        assert {name: received.headers[name] for name in headers} == headers


class Pieces:
    """A socket that has these bytes and then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def recv(self, _: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_a_broker_that_goes_away_or_rambles_is_told() -> None:
    for said, words in (([b"MESS"], "closed"), ([b"x" * (1 << 16)] * 20, "more than")):
        client = object.__new__(StompClient)
        client._received = b""
        client._socket = Pieces(list(said))  # type: ignore[assignment]
        with pytest.raises(ObservationError, match=words):
            client._receive()


def test_one_client_that_fails_ends_all_and_is_told(node: Node) -> None:
    stage = Stage(node, "x", seconds=60)
    stopped = []

    def patient(name: str) -> None:
        stopped.append((name, stage.pause(30)))

    def failing() -> None:
        raise ConnectionError("no more")

    with pytest.raises(ObservationError, match="no more"):
        stage.run([functools.partial(patient, "a"), failing, functools.partial(patient, "b")])
    assert sorted(stopped) == [("a", True), ("b", True)]


def test_what_clients_die_of_once_told_to_stop_is_no_failure(node: Node) -> None:
    stage = Stage(node, "x", seconds=60)

    def cut_off() -> None:
        stage.pause(30)
        raise ConnectionError("the broker has gone")

    began = time.monotonic()
    threading.Timer(0.2, stage.stop).start()
    stage.run([cut_off, cut_off])
    assert time.monotonic() - began < 10


def test_a_tool_that_fails_is_told_without_its_arguments(node: Node) -> None:
    stage = Stage(node, "not-the-password", seconds=1)
    with pytest.raises(ObservationError, match="amqp-publish of the demo failed") as told:
        stage.amqp_publish("nobody", "amq.topic", "key", "body")
    assert "not-the-password" not in str(told.value)


def test_a_port_nobody_listens_on_is_an_error_of_the_socket() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        StompClient(port, VHOST, "stomper", PASSWORD)
