"""A small MQTT client over raw sockets: says exactly what a test wants, and shows exactly what the broker answers."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP = 2, 3, 4, 5, 6, 7, 9, 11, 13
GONE = -1
"""What an answer is when the broker closed the connection instead."""


def text(value: str | bytes) -> bytes:
    """Encode a string as MQTT does: two bytes of length, then the bytes."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    """Put the fixed header before a packet's body."""
    length, size = len(body), b""
    while True:
        length, low = divmod(length, 128)
        size += bytes([low | 0x80 if length else low])
        if not length:
            return bytes([first]) + size + body


class Client:
    """One connection. `code` is the CONNACK's; received publishes gather in `received` as (topic, payload, retain)."""

    def __init__(
        self,
        port: int | str,
        client_id: str | bytes,
        user: str | bytes | None = None,
        password: str | None = None,
        *,
        version: int = 4,
        clean: bool = True,
        will: tuple[str, bytes] | None = None,
        will_retain: bool = False,
        expiry: int = 0,
        certificate: tuple[str, str, str] | None = None,
    ) -> None:
        """Connect to a TCP port of 127.0.0.1, or a unix socket's path. `certificate`: files of CA, certificate, key."""
        self.version = version
        self.received: list[tuple[str, bytes, bool]] = []
        self.alive = True
        self._buffer = b""
        self._identifier = 0
        if isinstance(port, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(10)
            self.socket.connect(port)
        else:
            self.socket = socket.create_connection(("127.0.0.1", port), 10)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if certificate is not None:
            self._secure(*certificate)
        flags = 2 if clean else 0
        if will is not None:
            flags |= 4 | (0x20 if will_retain else 0)
        flags |= (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
        body = text("MQTT") + bytes([version, flags]) + struct.pack("!H", 60)
        if version == 5:
            body += bytes([5, 0x11]) + struct.pack("!I", expiry) if expiry else b"\0"
        body += text(client_id)
        if will is not None:
            body += (b"\0" if version == 5 else b"") + text(will[0]) + text(will[1])
        body += text(user) if user is not None else b""
        body += text(password) if password is not None else b""
        self._send(packet(0x10, body))
        _, answer = self._wait(CONNACK)
        self.code = answer[1] if answer else GONE
        if self.code != 0:
            self.alive = False
            self.socket.close()

    def _secure(self, ca: str, certificate: str, key: str) -> None:
        import ssl  # only for the few tests with certificates

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(ca)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            self.alive = False

    def _read_packet(self) -> tuple[int, bytes] | None:
        """Return the next packet's first byte and body, or None when the broker closed the connection."""
        while True:
            length, shift, at = 0, 0, 1
            while at < len(self._buffer):
                byte = self._buffer[at]
                length |= (byte & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if not byte & 0x80:
                    if len(self._buffer) >= at + length:
                        first, body = self._buffer[0], self._buffer[at : at + length]
                        self._buffer = self._buffer[at + length :]
                        return first, body
                    break
            try:
                more = self.socket.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                self.alive = False
                self.socket.close()
                return None
            self._buffer += more

    def _wait(self, kind: int) -> tuple[int, bytes]:
        """Take packets until one of `kind` comes; (0, b'') when the connection ends first."""
        while self.alive:
            got = self._read_packet()
            if got is None:
                break
            first, body = got
            if first >> 4 == kind:
                return first, body
            if first >> 4 == PUBLISH:
                self._take(first, body)
        return 0, b""

    def _take(self, first: int, body: bytes) -> None:
        (length,) = struct.unpack_from("!H", body)
        topic, at = body[2 : 2 + length].decode(), 2 + length
        qos = first >> 1 & 3
        if qos:
            (identifier,) = struct.unpack_from("!H", body, at)
            at += 2
            if qos == 1:
                self._send(packet(0x40, struct.pack("!H", identifier)))
        if self.version == 5:
            at += 1 + body[at]
        self.received.append((topic, body[at:], bool(first & 1)))

    def _next_identifier(self) -> bytes:
        self._identifier = self._identifier % 65535 + 1
        return struct.pack("!H", self._identifier)

    def publish(self, topic: str | bytes, payload: bytes = b"x", qos: int = 0, *, retain: bool = False) -> int | None:
        """Publish and return the answer's reason code: None for QoS 0, GONE when the connection ended."""
        body = text(topic) + (self._next_identifier() if qos else b"") + (b"\0" if self.version == 5 else b"") + payload
        self._send(packet(0x30 | qos << 1 | retain, body))
        if qos == 0:
            return None
        _, answer = self._wait(PUBACK if qos == 1 else PUBREC)
        if not answer:
            return GONE
        code = answer[2] if len(answer) > 2 else 0
        if qos == 2 and code < 0x80:
            self._send(packet(0x62, answer[:2]))
            self._wait(PUBCOMP)
        return code

    def subscribe(self, topic_filter: str, qos: int = 0) -> int:
        """Subscribe to one filter and return the answer's code."""
        properties = b"\0" if self.version == 5 else b""
        self._send(packet(0x82, self._next_identifier() + properties + text(topic_filter) + bytes([qos])))
        _, answer = self._wait(SUBACK)
        return answer[-1] if answer else GONE

    def unsubscribe(self, topic_filter: str) -> bool:
        """Unsubscribe from one filter; whether the broker answered."""
        properties = b"\0" if self.version == 5 else b""
        self._send(packet(0xA2, self._next_identifier() + properties + text(topic_filter)))
        return bool(self._wait(UNSUBACK)[0])

    def ping(self) -> bool:
        """Whether the broker still answers; everything it sent before the answer is then in `received`."""
        self._send(packet(0xC0, b""))
        return bool(self._wait(PINGRESP)[0])

    def disconnect(self) -> None:
        """Leave in an orderly way, and wait until the broker has seen it."""
        if self.alive:
            self._send(packet(0xE0, b""))
        while self.alive and self._read_packet() is not None:
            pass
        self.drop()

    def drop(self) -> None:
        """Leave without a word, so that the will is published."""
        self.alive = False
        self.socket.close()
