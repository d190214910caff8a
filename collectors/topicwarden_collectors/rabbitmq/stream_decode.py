"""Decodes one message of the plugin's stream: no I/O, no clock, no memory of other messages."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden_collectors.rabbitmq import stream_layout as layout

Events = npt.NDArray[Any]
"""Of dtype `layout.EVENT`."""

_MAX_PAIRS: Final = 256


@dataclass(frozen=True, slots=True)
class Actor:
    """A channel, or a connection where no channel acts, as the broker knows it."""

    number: int
    channel: int
    """0: the connection itself."""
    port: int
    flags: int
    connection: str
    user: str
    vhost: str
    protocol: str
    client_id: str
    address: str
    tls_subject: str
    mechanism: str
    provided_name: str
    raw: bytes
    """The definition without its number: equal for one and the same actor in every epoch."""


@dataclass(frozen=True, slots=True)
class Named:
    """What an event is about."""

    number: int
    kind: int
    exchange_type: str | None
    within: str
    name: str
    cut: bool
    """Whether `name` may be only the beginning."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something of the broker itself changed."""

    time_us: int
    event: str
    pairs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Note:
    """The plugin has something to say."""

    time_us: int
    code: str
    detail: str


@dataclass(slots=True)
class WireBatch:
    """What one message holds."""

    first_of_epoch: bool
    boot: int
    epoch: int
    number: int
    first_event: int
    dropped: int
    actors: list[Actor] = field(default_factory=list)
    resources: list[Named] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    events: Events = field(default_factory=lambda: np.empty(0, layout.EVENT))
    """The well-formed ones."""
    events_total: int = 0
    """The malformed ones included."""
    malformed: int = 0
    """Definitions and events that make no sense, or are of a type we do not know."""


def read_batch(body: bytes) -> WireBatch | None:
    """Return what a message holds, or None when it is no batch of a version we know. Raises nothing."""
    if len(body) < layout.HEADER.size:
        return None
    magic, version, flags, _, boot, epoch, definitions, number, first, dropped, events, _ = layout.HEADER.unpack_from(
        body
    )
    if magic != layout.MAGIC or version != layout.VERSION:
        return None
    room = len(body) - layout.HEADER.size
    if definitions * layout.DEFINITION.size + events * layout.EVENT.itemsize > room:
        return None
    batch = WireBatch(bool(flags & layout.FIRST_OF_EPOCH), boot, epoch, number, first, dropped)
    at: int = layout.HEADER.size
    for _ in range(definitions):
        end = _read_definition(body, at, batch)
        if end is None:
            return None
        at = end
    if len(body) - at != events * layout.EVENT.itemsize:
        return None
    _read_events(np.frombuffer(body, layout.EVENT, events, at), batch)
    return batch


def _read_definition(body: bytes, at: int, batch: WireBatch) -> int | None:
    """Read one definition into the batch and return where the next one begins; None: beyond the message's end."""
    if at + layout.DEFINITION.size > len(body):
        return None
    kind, length = layout.DEFINITION.unpack_from(body, at)
    at += layout.DEFINITION.size
    end: int = at + length
    if end > len(body):
        return None
    rest = body[at:end]
    try:
        if kind == layout.RESOURCE:
            batch.resources.append(_resource(rest))
        elif kind == layout.ACTOR:
            batch.actors.append(_actor(rest))
        elif kind == layout.CHANGE:
            batch.changes.append(_change(rest))
        elif kind == layout.NOTE:
            batch.notes.append(_note(rest))
        else:
            batch.malformed += 1
    except (struct.error, ValueError):
        batch.malformed += 1
    return end


def _read_events(events: Events, batch: WireBatch) -> None:
    action, outcome = events["action"], events["outcome"]
    good = (
        (action - np.uint8(1) < layout.CONFIGURE)  # wraps, so 0 is out of range too
        & (action != layout.UNSUBSCRIBE + 1)
        & (outcome - np.uint8(1) < layout.NO_EXCHANGE)
        & (events["right"] <= layout.Permission.LOGIN)
        & (events["time_us"] <= layout.MAX_TIME_US)
    )
    batch.events_total = len(events)
    if not good.all():
        batch.malformed += len(events) - int(np.count_nonzero(good))
        events = events[good]
    batch.events = events


def _texts(rest: bytes, at: int, count: int) -> list[bytes]:
    """Return so many texts, which must fill the rest exactly; raises ValueError or struct.error."""
    texts = []
    for _ in range(count):
        (length,) = layout.TEXT.unpack_from(rest, at)
        at += layout.TEXT.size
        text = rest[at : at + length]
        if len(text) != length or length > layout.TEXT_MAX:
            raise ValueError("a text of an impossible length")
        texts.append(text)
        at += length
    if at != len(rest):
        raise ValueError("bytes behind the last text")
    return texts


def _actor(rest: bytes) -> Actor:
    number, channel, port, flags = layout.ACTOR_HEAD.unpack_from(rest)
    texts = _texts(rest, layout.ACTOR_HEAD.size, layout.ACTOR_TEXTS)
    connection, user, vhost, protocol, client_id, address, subject, mechanism, provided = map(_identifying, texts)
    return Actor(
        number,
        channel,
        port,
        flags,
        connection,
        user,
        vhost,
        protocol,
        client_id,
        address,
        subject,
        mechanism,
        provided,
        rest[4:],
    )


def _resource(rest: bytes) -> Named:
    number, kind, exchange_type = layout.RESOURCE_HEAD.unpack_from(rest)
    if not layout.KEY <= kind <= layout.EXCHANGE_ITSELF:
        raise ValueError("no kind of resource")
    within, name = _texts(rest, layout.RESOURCE_HEAD.size, 2)
    cut = len(name) == layout.TEXT_MAX
    return Named(number, kind, layout.EXCHANGE_TYPES.get(exchange_type), _text(within), _text(name), cut)


def _change(rest: bytes) -> Change:
    time_us, pairs = layout.CHANGE_HEAD.unpack_from(rest)
    if pairs > _MAX_PAIRS or time_us > layout.MAX_TIME_US:
        raise ValueError("too many pairs, or no time")
    event, *texts = map(_text, _texts(rest, layout.CHANGE_HEAD.size, 1 + 2 * pairs))
    return Change(time_us, event, dict(zip(texts[::2], texts[1::2], strict=True)))


def _note(rest: bytes) -> Note:
    (time_us,) = layout.NOTE_HEAD.unpack_from(rest)
    if time_us > layout.MAX_TIME_US:
        raise ValueError("no time")
    code, detail = map(_text, _texts(rest, layout.NOTE_HEAD.size, 2))
    return Note(time_us, code, detail)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _identifying(name: bytes) -> str:
    """Return a name that says who somebody is; one that may have been cut is marked, so that it matches nobody else."""
    return _text(name) + ("… (cut)" if len(name) == layout.TEXT_MAX else "")
