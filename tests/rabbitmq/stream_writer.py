"""Writes the plugin's stream as WIRE.md has it, and also wrongly when asked to: the tests' own producer."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

START_US = 1_700_000_000_000_000
NONE = 0xFFFFFFFF
BOOT = 0x1122334455667788
PUBLISH = 60 << 16 | 40
KINDS = {"key": 1, "binding": 2, "queue": 3, "exchange": 4}
TYPES = {"": 0, "direct": 1, "topic": 2, "fanout": 3, "headers": 4}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def definition(kind: int, rest: bytes) -> bytes:
    return struct.pack(">BI", kind, len(rest)) + rest


def actor(
    number: int,
    user: str | bytes = "alice",
    *,
    channel: int = 1,
    port: int = 40000,
    flags: int = 0,
    connection: str = "127.0.0.1:40000 -> 127.0.0.1:5672",
    vhost: str = "/",
    protocol: str = "amqp",
    client_id: str | bytes = "",
    address: str = "127.0.0.1",
    subject: str = "",
) -> bytes:
    texts = [connection, user, vhost, protocol, client_id, address, subject, "PLAIN", ""]
    return definition(1, struct.pack(">IHHB", number, channel, port, flags) + b"".join(map(text, texts)))


def resource(number: int, kind: str, name: str | bytes, within: str = "", exchange_type: str = "") -> bytes:
    head = struct.pack(">IBB", number, KINDS[kind], TYPES[exchange_type])
    return definition(2, head + text(within) + text(name))


def change(time_us: int, event: str, pairs: dict[str, str]) -> bytes:
    texts = [event, *(part for pair in pairs.items() for part in pair)]
    return definition(3, struct.pack(">QH", time_us, len(pairs)) + b"".join(map(text, texts)))


def note(code: str, detail: str, time_us: int = START_US) -> bytes:
    return definition(4, struct.pack(">Q", time_us) + text(code) + text(detail))


def event(
    time_us: int,
    actor: int = 1,
    resource: int = 2,
    *,
    action: int = 4,
    outcome: int = 1,
    flags: int = 0,
    right: int = 0,
    method: int = PUBLISH,
    size: int = 5,
) -> bytes:
    return struct.pack(">QIIIBBBBII", time_us, actor, resource, size, action, outcome, flags, right, method, 0)


def batch(
    definitions: Sequence[bytes] = (),
    events: Sequence[bytes] = (),
    *,
    number: int = 0,
    first_event: int = 0,
    dropped: int = 0,
    epoch: int = 1,
    boot: int = BOOT,
    first: bool = False,
    magic: bytes = b"TWRB",
    version: int = 1,
) -> bytes:
    head = struct.pack(
        ">4sBBHQIIQQQII",
        magic,
        version,
        int(first),
        0,
        boot,
        epoch,
        len(definitions),
        number,
        first_event,
        dropped,
        len(events),
        0,
    )
    return head + b"".join(definitions) + b"".join(events)


@dataclass
class Producer:
    """Makes batches that follow each other."""

    boot: int = BOOT
    number: int = 0
    sent: int = 0
    dropped: int = 0
    epoch: int = 1
    first: bool = field(default=True)

    def batch(self, definitions: Iterable[bytes] = (), events: Iterable[bytes] = ()) -> bytes:
        """The next batch."""
        happened = list(events)
        made = batch(
            list(definitions),
            happened,
            number=self.number,
            first_event=self.sent + self.dropped,
            dropped=self.dropped,
            epoch=self.epoch,
            boot=self.boot,
            first=self.first,
        )
        self.number += 1
        self.sent += len(happened)
        self.first = False
        return made

    def lose(self, batches: int, events: int) -> None:
        """Batches that never reach the reader."""
        self.number += batches
        self.sent += events

    def drop(self, events: int) -> None:
        """Events the plugin throws away."""
        self.dropped += events

    def new_epoch(self) -> None:
        """The next batch begins another epoch."""
        self.epoch += 1
        self.first = True
