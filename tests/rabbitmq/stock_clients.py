"""Bare clients for the tests of the stock mode: they send what no decent client library would let through."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from tests.mosquitto.logs.wire import Wire


@contextlib.contextmanager
def mqtt(port: int, client_id: str, user: str, password: str) -> Iterator[Wire]:
    """Connect an MQTT 3.1.1 client; `user` is `vhost:user`."""
    wire = Wire(port)
    try:
        if wire.connect(client_id, user, password) != 0:
            raise ConnectionError(f"{client_id} was not let in")
        yield wire
    finally:
        wire.close()


def next_topic(wire: Wire) -> str:
    """Return the topic of the next message delivered with QoS 0."""
    body = wire.expect(3)
    (length,) = struct.unpack_from("!H", body)
    return body[2 : 2 + length].decode()


class Stomp:
    """A STOMP 1.2 client that waits for a receipt after each frame."""

    def __init__(self, port: int, vhost: str, user: str, password: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._data = b""
        self._receipts = 0
        self.answer = self.send(
            "CONNECT", {"accept-version": "1.2", "host": vhost, "login": user, "passcode": password}
        )

    @property
    def port(self) -> int:
        """Our own port."""
        return int(self._socket.getsockname()[1])

    def send(self, command: str, headers: dict[str, str], body: str = "") -> str:
        """Send a frame and return the command of the frame that answers it: RECEIPT, CONNECTED or ERROR."""
        if command != "CONNECT":
            self._receipts += 1
            headers = {**headers, "receipt": str(self._receipts)}
        lines = [command, *(f"{key}:{value}" for key, value in headers.items())]
        self._socket.sendall(("\n".join(lines) + "\n\n" + body + "\0").encode())
        while True:
            frame = self._frame()
            if not frame.startswith("MESSAGE"):
                return frame.partition("\n")[0]

    def _frame(self) -> str:
        while b"\0" not in self._data:
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("the broker closed the connection")
            self._data += more
        frame, _, self._data = self._data.partition(b"\0")
        return frame.decode().lstrip("\n")

    def close(self) -> None:
        """Close without a word."""
        self._socket.close()
