"""A small reader of the plugin's stream, written from WIRE.md alone: it and the product's decoder check each other."""

from __future__ import annotations

import contextlib
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from topicwarden_collectors.rabbitmq.node import Node

EXCHANGE = "amq.topicwarden.audit"
HEADER = struct.Struct(">4sBBHQIIQQQII")
EVENT = struct.Struct(">QIIIBBBBHHI")
NONE = 0xFFFFFFFF
AUTHENTICATE, CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, CONFIGURE = 1, 2, 3, 4, 5, 6, 8
ATTEMPTED, REFUSED, NO_EXCHANGE = 1, 2, 3
COPY, TRANSACTION, PASSIVE, GET, TOPIC, PERSISTENT = 1, 2, 4, 8, 16, 32
KEY, BINDING, QUEUE, EXCHANGES = 1, 2, 3, 4


@dataclass(frozen=True)
class Actor:
    number: int
    channel: int
    port: int
    flags: int
    connection: bytes
    user: bytes
    vhost: bytes
    protocol: bytes
    client_id: bytes
    address: bytes
    subject: bytes
    mechanism: bytes
    provided_name: bytes


@dataclass(frozen=True)
class Resource:
    number: int
    kind: int
    exchange_type: int
    within: bytes
    name: bytes


@dataclass(frozen=True)
class Change:
    time: int
    name: str
    pairs: dict[bytes, bytes]


@dataclass(frozen=True)
class Note:
    time: int
    code: str
    detail: str


@dataclass(frozen=True)
class Event:
    time: int
    actor: Actor
    resource: Resource | None
    size: int
    action: int
    outcome: int
    flags: int
    permission: int
    method: tuple[int, int]

    @property
    def name(self) -> bytes | None:
        return self.resource.name if self.resource else None


@dataclass(frozen=True)
class Batch:
    first: bool
    boot: int
    epoch: int
    number: int
    first_event: int
    dropped: int
    actors: list[Actor]
    resources: list[Resource]
    changes: list[Change]
    notes: list[Note]
    events: list[tuple[Any, ...]]


def decode(body: bytes) -> Batch:
    magic, version, flags, zero, boot, epoch, definitions, number, first, dropped, count, zero2 = HEADER.unpack_from(
        body
    )
    assert (magic, version, zero, zero2) == (b"TWRB", 1, 0, 0)
    at = HEADER.size
    found: dict[int, list[Any]] = defaultdict(list)
    for _ in range(definitions):
        kind, length = struct.unpack_from(">BI", body, at)
        found[kind].append(_definition(kind, body[at + 5 : at + 5 + length]))
        at += 5 + length
    events = [EVENT.unpack_from(body, at + EVENT.size * index) for index in range(count)]
    assert at + EVENT.size * count == len(body)
    assert set(found) <= {1, 2, 3, 4}
    return Batch(bool(flags & 1), boot, epoch, number, first, dropped, found[1], found[2], found[3], found[4], events)


def _definition(kind: int, data: bytes) -> Any:
    texts_at = {1: 9, 2: 6, 3: 10, 4: 8}[kind]
    texts = []
    at = texts_at
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at)
        assert at + 2 + length <= len(data)
        texts.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    if kind == 1:
        return Actor(*struct.unpack_from(">IHHB", data), *texts)
    if kind == 2:
        return Resource(*struct.unpack_from(">IBB", data), *texts)
    if kind == 3:
        when, pairs = struct.unpack_from(">QH", data)
        assert len(texts) == 1 + 2 * pairs
        return Change(when, texts[0].decode(), dict(zip(texts[1::2], texts[2::2], strict=True)))
    (when,) = struct.unpack_from(">Q", data)
    code, detail = texts
    return Note(when, code.decode(), detail.decode())


@dataclass
class Stream:
    """Everything read so far. What comes before the first whole epoch is skipped, as a reader has to."""

    channel: BlockingChannel
    queue: str
    batches: list[Batch] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    unresolved: int = 0
    gaps: int = 0
    skipped: int = 0
    _actors: dict[int, Actor] = field(default_factory=dict)
    _resources: dict[int, Resource] = field(default_factory=dict)

    def read(self, seconds: float = 0.05) -> None:
        """Read what comes within `seconds`."""
        for method, properties, body in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=seconds):
            if method is None or properties is None or body is None:
                return
            assert method.exchange == EXCHANGE
            assert properties.delivery_mode == 1
            assert properties.content_type == "application/vnd.topicwarden.audit"
            self._take(decode(body))

    def until(self, condition: Callable[[Stream], object], what: str, seconds: float = 20.0) -> None:
        """Read until `condition(self)` is true."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > deadline:
                tail = "\n".join(map(str, [*self.events[-20:], *self.changes[-5:], *self.notes]))
                raise AssertionError(f"waited {seconds} s in vain for {what}; read at last:\n{tail}")
            self.read()

    def settle(self) -> None:
        """Read until the plugin says, in an epoch or batch of its own, that there is nothing more."""
        start = time.time_ns() // 1000
        self.until(
            lambda s: s.batches and not s.batches[-1].events and time.time_ns() // 1000 - start > 60_000,
            "an empty batch",
        )

    def of(self, user: str, action: int | None = None, outcome: int | None = None) -> list[Event]:
        return [
            event
            for event in self.events
            if event.actor.user == user.encode() and action in (None, event.action) and outcome in (None, event.outcome)
        ]

    def _take(self, batch: Batch) -> None:
        if not self.batches and not batch.first:
            self.skipped += 1
            return
        if self.batches:
            before = self.batches[-1]
            if before.boot == batch.boot:
                self.gaps += batch.number - before.number - 1
                if batch.number == before.number + 1:
                    lost = batch.dropped - before.dropped
                    assert batch.first_event == before.first_event + len(before.events) + lost
        if batch.first:
            self._actors.clear()
            self._resources.clear()
        self.batches.append(batch)
        self._actors.update((actor.number, actor) for actor in batch.actors)
        self._resources.update((resource.number, resource) for resource in batch.resources)
        self.changes += batch.changes
        self.notes += batch.notes
        for when, actor, resource, size, action, outcome, flags, permission, class_id, method_id, zero in batch.events:
            assert zero == 0
            if actor not in self._actors or (resource != NONE and resource not in self._resources):
                self.unresolved += 1
                continue
            self.events.append(
                Event(
                    when,
                    self._actors[actor],
                    self._resources.get(resource),
                    -1 if size == NONE else size,
                    action,
                    outcome,
                    flags,
                    permission,
                    (class_id, method_id),
                )
            )


@contextlib.contextmanager
def reading(node: Node, *, vhost: str = "/", exchange: str = EXCHANGE, seconds: float = 30.0) -> Iterator[Stream]:
    """Bind a queue of our own to the stream and wait until it flows."""
    with connection(node, vhost=vhost) as link:
        channel = link.channel()
        deadline = time.monotonic() + seconds
        while True:
            try:
                channel.exchange_declare(exchange, "fanout", passive=True)
                break
            except ChannelClosedByBroker:
                assert time.monotonic() < deadline, "the plugin did not declare its exchange"
                channel = link.channel()
                time.sleep(0.05)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange)
        stream = Stream(channel, queue)
        stream.until(lambda s: s.batches, "the start of an epoch")
        yield stream


@contextlib.contextmanager
def connection(
    node: Node, user: str = "operator", password: str | None = None, vhost: str = "/", name: str | None = None
) -> Iterator[pika.BlockingConnection]:
    parameters = pika.URLParameters(node.url(user, vhost, password))
    if name is not None:
        parameters.client_properties = {"connection_name": name}
    link = pika.BlockingConnection(parameters)
    try:
        yield link
    finally:
        with contextlib.suppress(AMQPError):
            link.close()
