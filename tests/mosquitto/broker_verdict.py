"""Asks the real broker whether it accepts a configuration, without letting it open a listener."""

from __future__ import annotations

import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.brokers import MOSQUITTO


@dataclass(frozen=True)
class Verdict:
    """What mosquitto said about a configuration file."""

    accepted: bool
    places: list[tuple[str, int]]
    """File and line of its complaints, innermost first."""
    said: str


def verdict(config: Path) -> Verdict:
    """Return the installed broker's verdict on `config`.

    The file is read through a copy ending in a pid_file that cannot be written: mosquitto reads its configuration,
    then writes that file, and only then opens listeners, so which of the two messages comes tells what it thinks.
    """
    probe = config.with_name("probe-" + config.name + ".txt")
    text = config.read_bytes()
    probe.write_bytes(text + (b"" if text.endswith(b"\n") or not text else b"\n") + b"pid_file /nonexistent/pid\n")
    done = subprocess.run([MOSQUITTO, "-c", str(probe)], capture_output=True, check=False, timeout=20)
    said = done.stderr.decode(errors="replace")
    places = [
        (file.replace(str(probe), str(config)), int(line))
        for file, line in re.findall(r"Error found at (.*):(\d+)\.\n", said)
    ]
    accepted = "Unable to write pid file" in said
    if not accepted and done.returncode == 0:
        raise AssertionError(f"mosquitto neither accepted nor refused:\n{said}")
    return Verdict(accepted, places, said)


def acl_verdict(acl: Path) -> Verdict:
    """Return the installed broker's verdict on an acl_file.

    mosquitto reads it before it opens its listeners; the only one here is a Unix socket in a folder that does not
    exist, so it ends with one complaint or the other.
    """
    config = acl.with_name("acl-probe.conf.txt")
    config.write_text(f"user root\nacl_file {acl}\nlistener 0 /nonexistent/socket\n")
    done = subprocess.run([MOSQUITTO, "-c", str(config)], capture_output=True, check=False, timeout=20)
    said = done.stderr.decode(errors="replace")
    refused = "Error opening acl file" in said
    if not refused and "Opening unix listen socket" not in said:
        raise AssertionError(f"mosquitto neither accepted nor refused:\n{said}")
    return Verdict(not refused, [], said)


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(kind: int, body: bytes) -> bytes:
    return bytes([kind, len(body)]) + body


class Client:
    """A bare MQTT 5 client that shows what the broker answers. Packets up to 127 bytes only."""

    def __init__(self, port: int, user: str | None = None, client_id: str = "probe", host: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection((host, port), 10)
        flags = 0x02 | (0x80 if user is not None else 0)
        name = _text(user) if user is not None else b""
        self._socket.sendall(
            _packet(0x10, b"\x00\x04MQTT\x05" + bytes([flags]) + b"\x00\x3c\x00" + _text(client_id) + name)
        )
        self.accepted = self._read()[1][1] == 0

    def _read(self) -> tuple[int, bytes]:
        head = self._exactly(1)
        size, shift = 0, 0
        while True:
            byte = self._exactly(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return head[0], self._exactly(size)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return data

    def may_publish(self, topic: str) -> bool:
        """Whether the broker accepts a message on `topic` (its PUBACK says)."""
        self._socket.sendall(_packet(0x32, _text(topic) + b"\x00\x01\x00x"))
        kind, body = self._read()
        while kind != 0x40:
            kind, body = self._read()
        return len(body) < 3 or body[2] in (0x00, 0x10)

    def retained(self, topic_filter: str, until: str) -> set[str]:
        """Subscribe, and return the topics of the retained messages that come before a message of ours on `until`."""
        for number, wanted in ((2, topic_filter), (3, until)):
            self._socket.sendall(_packet(0x82, number.to_bytes(2, "big") + b"\x00" + _text(wanted) + b"\x00"))
        self._socket.sendall(_packet(0x30, _text(until) + b"\x00end"))
        topics: set[str] = set()
        while True:
            kind, body = self._read()
            if kind & 0xF0 == 0x30:
                length = int.from_bytes(body[:2], "big")
                topic = body[2 : 2 + length].decode()
                if topic == until:
                    return topics
                topics.add(topic)

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
