"""A bare MQTT client for the log tests: it sends names no decent client library would let through."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Sequence
from pathlib import Path


def text(value: str | bytes) -> bytes:
    """Encode an MQTT string: two bytes of length, then UTF-8."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    """Encode a control packet."""
    length, size = b"", len(body)
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (0x80 if size else 0)])
        if not size:
            return bytes([first]) + length + body


class Wire:
    """One connection. Methods return once the broker has answered, where the protocol has an answer."""

    def __init__(
        self,
        to: int | Path,
        *,
        version: int = 4,
        tls: ssl.SSLContext | None = None,
        websocket: bool = False,
    ) -> None:
        self.version = version
        if isinstance(to, Path):
            self.socket: socket.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(to))
        else:
            self.socket = socket.create_connection(("127.0.0.1", to))
        self.socket.settimeout(10)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._websocket = websocket
        self._buffer = b""
        self._mid = 0
        if websocket:
            self._upgrade()

    @property
    def port(self) -> int:
        """Our own port, as the broker logs it."""
        return int(self.socket.getsockname()[1])

    def _upgrade(self) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)

    def send(self, data: bytes) -> None:
        """Send bytes as they are (masked and framed on a websocket)."""
        if self._websocket:
            mask = os.urandom(4)
            size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
            data = b"\x82" + size + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.socket.sendall(data)

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if self._websocket:
                head = self._exactly(2)
                size = head[1] & 0x7F
                if size == 126:
                    size = struct.unpack("!H", self._exactly(2))[0]
                self._buffer += self._exactly(size)
            else:
                self._buffer += self._exactly(1)
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return data

    def receive(self) -> tuple[int, bytes]:
        """Return the next packet's first byte and body."""
        first, shift, size = self._read(1)[0], 0, 0
        while True:
            digit = self._read(1)[0]
            size |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return first, self._read(size)

    def expect(self, kind: int) -> bytes:
        """Skip packets until one of this type (upper four bits) comes; return its body."""
        while True:
            first, body = self.receive()
            if first >> 4 == kind:
                return body

    @property
    def _no_properties(self) -> bytes:
        return b"\0" if self.version == 5 else b""

    def connect(
        self,
        client_id: str | bytes,
        user: str | None = None,
        password: str | None = None,
        *,
        will: tuple[str, bytes] | None = None,
        clean: bool = True,
        keepalive: int = 60,
    ) -> int:
        """Send CONNECT; return the CONNACK's reason code, or -1 when the broker just closes."""
        flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
        payload = text(client_id)
        if will is not None:
            flags |= 4
            payload += self._no_properties + text(will[0]) + text(will[1])
        if user is not None:
            payload += text(user)
        if password is not None:
            payload += text(password)
        name = b"MQIsdp" if self.version == 3 else b"MQTT"
        head = text(name) + bytes([self.version, flags]) + struct.pack("!H", keepalive) + self._no_properties
        try:
            self.send(packet(0x10, head + payload))
            return self.expect(2)[1]
        except ConnectionError:
            return -1

    def publish(self, topic: str | bytes, payload: bytes = b"hello", *, qos: int = 0, retain: bool = False) -> int:
        """Publish; return the reason code of PUBACK or PUBREC (0 where MQTT 3 has none), -1 for QoS 0."""
        body = text(topic)
        if qos:
            self._mid = self._mid % 65535 + 1
            body += struct.pack("!H", self._mid)
        self.send(packet(0x30 | qos << 1 | retain, body + self._no_properties + payload))
        if not qos:
            return -1
        answer = self.expect(4 if qos == 1 else 5)
        reason = answer[2] if len(answer) > 2 else 0
        if qos == 2 and reason < 128:
            self.send(packet(0x62, struct.pack("!H", self._mid)))
            self.expect(7)
        return reason

    def subscribe(self, *filters: tuple[str | bytes, int]) -> Sequence[int]:
        """Subscribe to filters with their QoS; return the reason codes."""
        self._mid = self._mid % 65535 + 1
        body = b"".join(text(name) + bytes([qos]) for name, qos in filters)
        self.send(packet(0x82, struct.pack("!H", self._mid) + self._no_properties + body))
        answer = self.expect(9)
        return list(answer[-len(filters) :])

    def unsubscribe(self, *filters: str | bytes) -> None:
        """Unsubscribe from filters."""
        self._mid = self._mid % 65535 + 1
        self.send(packet(0xA2, struct.pack("!H", self._mid) + self._no_properties + b"".join(map(text, filters))))
        self.expect(11)

    def ping(self) -> None:
        """Return once the broker has dealt with everything sent so far."""
        self.send(b"\xc0\0")
        self.expect(13)

    def disconnect(self) -> None:
        """Say goodbye and wait until the broker has closed."""
        self.send(b"\xe0\0")
        self.wait_closed()

    def wait_closed(self) -> None:
        """Return once the broker has closed the connection; closes our end."""
        with contextlib.suppress(OSError):
            while self.socket.recv(4096):
                pass
        self.close()

    def close(self) -> None:
        """Close without a word."""
        self.socket.close()
