"""Writes rings as the plugin does, slot by slot, and also wrongly when asked to: the tests' own producer."""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

SLOT = 32
DATA = 4096
EVENT, CLIENT, TOPIC, MORE, MARK = 1, 2, 3, 4, 5
NONE = 0xFFFF
EXACT_ALLOWED = 1 | 2 << 4
START_NS = 1_700_000_000_000_000_000
_GENERATIONS = itertools.count(0x5EED)


def event(
    client: int,
    topic: int,
    sequence: int,
    *,
    action: int = 4,
    verdict: int = EXACT_ALLOWED,
    delivery: int = 0,
    size: int = 5,
    time_ns: int | None = None,
    entropy: int = 0xFFFF,
    shape: int = 2,
) -> bytes:
    """One event slot; by default a publish whose time tells its sequence number."""
    time_ns = START_NS + sequence * 1000 if time_ns is None else time_ns
    return struct.pack(
        "<BBBBIIIQIHBB",
        EVENT,
        action,
        verdict,
        delivery,
        client,
        topic,
        size,
        time_ns,
        sequence % 2**32,
        entropy,
        shape,
        0,
    )


def more(data: bytes) -> bytes:
    """TW_MORE slots for `data`."""
    return b"".join(bytes([MORE]) + data[i : i + 31].ljust(31, b"\0") for i in range(0, len(data), 31))


def client(
    number: int,
    client_id: bytes | None = b"c",
    user: bytes | None = None,
    address: bytes | None = b"127.0.0.1",
    subject: bytes | None = None,
    *,
    identity: int = 1,
    port: int = 0,
    cap: int = 1024,
) -> bytes:
    """A client's announcement, its names cut to `cap`."""
    names = [name if name is None else name[:cap] for name in (client_id, user, address, subject)]
    lengths = [NONE if name is None else len(name) for name in names]
    head = struct.pack(
        "<BBBBIHHHHQHHI",
        CLIENT,
        4,
        1,
        identity,
        number,
        *lengths,
        START_NS,
        len(client_id or b""),
        port,
        len(user or b""),
    )
    return head + more(b"".join(name or b"" for name in names))


def topic(number: int, name: bytes, *, cap: int = 1024) -> bytes:
    """A topic's announcement, its name cut to `cap`."""
    return struct.pack("<B3xIIIQQ", TOPIC, number, len(name[:cap]), len(name), START_NS, 0) + more(name[:cap])


def mark(code: int, value: int = 0) -> bytes:
    """A mark slot."""
    return struct.pack("<BB6xQQQ", MARK, code, value, START_NS, 0)


def as_slots(data: bytes) -> npt.NDArray[np.uint8]:
    """Bytes as the decoder takes them."""
    return np.frombuffer(data, np.uint8).reshape(-1, SLOT)


@dataclass
class Producer:
    """Makes groups like the plugin: each name announced before it is used, and again after half a ring."""

    slot_count: int = 1024
    position: int = 0
    sequence: int = 0
    next_id: int = 1
    announced: dict[tuple[int, object], tuple[int, int]] = field(default_factory=dict)

    def publish(self, client_id: bytes, name: bytes | None, **fields: int) -> bytes:
        """The slots of one event and of the announcements it needs."""
        data = b""
        # An announcement made for this event must not push the other one out of reach: 64 slots of margin.
        horizon = self.position - self.slot_count // 2 + 64
        numbers = [0, 0]
        for kind, key in enumerate((client_id, name)):
            if key is None:
                continue
            number, at = self.announced.get((kind, key), (0, -1))
            if not number or at < horizon:
                number = self.next_id
                self.next_id += 1
                group = client(number, key, user=b"u-" + key, port=50 * len(key)) if kind == 0 else topic(number, key)
                self.announced[kind, key] = (number, self.position + len(data) // SLOT)
                data += group
            numbers[kind] = number
        data += event(numbers[0], numbers[1], self.sequence, **fields)
        self.sequence += 1
        self.position += len(data) // SLOT
        return data


class RingWriter:
    """A ring in a file, with every step of the protocol apart so that a test can stop in the middle."""

    def __init__(
        self,
        path: Path,
        slot_count: int = 1024,
        *,
        mode: int = 0x0B,
        position: int = 0,
        sequence: int = 0,
        generation: int | None = None,
        version: int = 2,
    ) -> None:
        self.path = path
        self.slot_count = slot_count
        self.generation = next(_GENERATIONS) if generation is None else generation
        self.producer = Producer(slot_count, position, sequence)
        header = struct.pack(
            "<8sIIIIQQII32s48x",
            b"TWRING\r\n",
            version,
            SLOT,
            slot_count,
            mode,
            self.generation,
            START_NS,
            os.getpid(),
            1 << 16,
            b"2.0.11",
        )
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(header + struct.pack("<QQ", position, position))
            file.truncate(DATA + slot_count * SLOT)
        with draft.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.set_events(sequence)
        draft.rename(path)

    def _get(self, offset: int) -> int:
        return int(struct.unpack_from("<Q", self.map, offset)[0])

    def reserve(self, count: int) -> None:
        """Store `reserved`, and nothing else."""
        struct.pack_into("<Q", self.map, 128, self.head + count)

    @property
    def head(self) -> int:
        """The stream position after the last whole group."""
        return self._get(136)

    @head.setter
    def head(self, value: int) -> None:
        struct.pack_into("<Q", self.map, 136, value)

    def store(self, data: bytes) -> None:
        """Write slots at the head without moving it."""
        place = DATA + self.head % self.slot_count * SLOT
        before_wrap = min(len(data), DATA + self.slot_count * SLOT - place)
        self.map[place : place + before_wrap] = data[:before_wrap]
        self.map[DATA : DATA + len(data) - before_wrap] = data[before_wrap:]

    def set_events(self, count: int) -> None:
        """The header's count of events."""
        struct.pack_into("<Q", self.map, 200, count)

    def append(self, data: bytes) -> None:
        """Write a group in the protocol's order."""
        self.reserve(len(data) // SLOT)
        self.store(data)
        self.head += len(data) // SLOT
        self.producer.position = self.head

    def publish(self, client_id: bytes = b"c", name: bytes | None = b"t", **fields: int) -> None:
        """Append one event with its announcements."""
        self.append(self.producer.publish(client_id, name, **fields))
        self.set_events(self.producer.sequence)

    def publish_many(self, count: int, name: bytes = b"t") -> None:
        """Append `count` publishes; much faster than one by one."""
        left = count
        while left:
            count = min(left, self.slot_count // 8)
            self.append(b"".join([self.producer.publish(b"c", name) for _ in range(count)]))
            left -= count
        self.set_events(self.producer.sequence)

    def close(self) -> None:
        """Unmap; the file stays."""
        self.map.close()
