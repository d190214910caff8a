"""What the demo's clients speak with: pika, paho, and a STOMP 1.2 client over a plain socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import paho.mqtt.client as paho
import pika
from paho.mqtt.enums import CallbackAPIVersion
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPError

from topicwarden.errors import ObservationError, Problem

PATIENCE_SECONDS: Final = 15.0
"""How long a broker on a busy machine may take to answer."""
FRAME_MAX: Final = 1 << 20
"""Bytes of an unfinished STOMP frame we put up with."""


@contextlib.contextmanager
def amqp(port: int, vhost: str, user: str, password: str) -> Iterator[BlockingConnection]:
    """Keep an AMQP 0-9-1 connection of this user open; closed on the way out."""
    connection = BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1",
            port,
            vhost,
            pika.PlainCredentials(user, password),
            client_properties={"connection_name": f"{user} of the demo"},
            blocked_connection_timeout=PATIENCE_SECONDS,
        )
    )
    try:
        yield connection
    finally:
        # A connection the broker closed needs no closing.
        with contextlib.suppress(AMQPError):
            connection.close()


def confirmed(connection: BlockingConnection) -> BlockingChannel:
    """Open a channel whose publishes return once the broker has taken or refused them."""
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


@contextlib.contextmanager
def mqtt(port: int, user: str, password: str) -> Iterator[paho.Client]:
    """Keep an MQTT 3.1.1 connection of this user open, its client id the user's name.

    Raises ObservationError when the broker does not accept it.
    """
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=user)
    client.username_pw_set(user, password)
    accepted = threading.Event()
    client.on_connect = lambda *_: accepted.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        if not accepted.wait(PATIENCE_SECONDS):
            raise ObservationError(Problem(f"the demo's client {user} was not accepted by the broker"))
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@dataclass(frozen=True, slots=True)
class StompFrame:
    """One frame of STOMP 1.2."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def to_bytes(self) -> bytes:
        """Return the frame as it goes over the wire, with its length."""
        headers = {**self.headers, "content-length": str(len(self.body))} if self.body else self.headers
        lines = [self.command, *(f"{_escaped(name)}:{_escaped(value)}" for name, value in headers.items()), "", ""]
        return "\n".join(lines).encode() + self.body + b"\0"


_ESCAPES: Final = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), (":", "\\c"))
"""STOMP 1.2, "Value Encoding": the backslash comes first."""


def _escaped(text: str) -> str:
    for plain, written in _ESCAPES:
        text = text.replace(plain, written)
    return text


def _unescaped(text: str) -> str:
    parts = text.split("\\\\")
    for written, plain in (("\\n", "\n"), ("\\r", "\r"), ("\\c", ":")):
        parts = [part.replace(written, plain) for part in parts]
    return "\\".join(parts)


class StompClient:
    """A STOMP 1.2 connection: as much of it as a machine that sends readings has."""

    def __init__(self, port: int, vhost: str, user: str, password: str) -> None:
        self._received = b""
        self._receipts = 0
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        # CONNECT is the one frame whose headers are not escaped; ours need none.
        login = {"accept-version": "1.2", "host": vhost, "login": user, "passcode": password}
        try:
            self._ask(StompFrame("CONNECT", login), "CONNECTED")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, destination: str, body: bytes) -> None:
        """Send a message; returns once the broker has taken it."""
        self._with_receipt("SEND", {"destination": destination, "content-type": "application/json"}, body)

    def subscribe(self, destination: str) -> None:
        """Subscribe; returns once the broker has accepted it."""
        self._with_receipt("SUBSCRIBE", {"id": "0", "destination": destination, "ack": "auto"})

    def disconnect(self) -> None:
        """Say goodbye in an orderly way."""
        self._with_receipt("DISCONNECT", {})

    def _with_receipt(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        self._receipts += 1
        self._ask(StompFrame(command, {**headers, "receipt": str(self._receipts)}, body), "RECEIPT")

    def _ask(self, frame: StompFrame, answer: str) -> None:
        """Send a frame and wait for this answer, past messages of subscriptions; raises ObservationError at others."""
        self._socket.sendall(frame.to_bytes())
        while (received := self._receive()).command == "MESSAGE":
            pass
        if received.command != answer:
            said = received.headers.get("message", received.command)
            raise ObservationError(Problem(f"the broker answered a STOMP {frame.command} with {said!r}"))

    def _receive(self) -> StompFrame:
        """Return the next frame; a body may hold NUL when its length was given."""
        while True:
            self._received = self._received.lstrip(b"\r\n")  # heart-beats between frames
            head, blank, rest = self._received.partition(b"\n\n")
            if blank:
                command, *lines = head.decode("utf-8", "replace").split("\n")
                headers: dict[str, str] = {}
                for line in lines:
                    name, _, value = line.rstrip("\r").partition(":")
                    headers.setdefault(_unescaped(name), _unescaped(value))  # the first of a repeated header counts
                length = int(headers["content-length"]) if "content-length" in headers else rest.find(b"\0")
                if 0 <= length < len(rest):
                    self._received = rest[length + 1 :]
                    return StompFrame(command.rstrip("\r"), headers, rest[:length])
            if len(self._received) > FRAME_MAX:
                raise ObservationError(Problem(f"the broker sent a STOMP frame of more than {FRAME_MAX} bytes"))
            data = self._socket.recv(1 << 16)
            if not data:
                raise ObservationError(Problem("the broker closed a STOMP connection of the demo"))
            self._received += data
