"""The plugin's stream, byte by byte, as `brokers/rabbitmq/WIRE.md` describes it."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import numpy as np

from topicwarden_collectors.rabbitmq import exchanges

EXCHANGE: Final = exchanges.AUDIT
CONTENT_TYPE: Final = "application/vnd.topicwarden.audit"

MAGIC: Final = b"TWRB"
VERSION: Final = 1
FIRST_OF_EPOCH: Final = 1
HEADER: Final = struct.Struct(">4sBBHQIIQQQII")
"""Magic, version, flags, zero, boot, epoch, definitions, batch number, first event, dropped, events, zero."""

DEFINITION: Final = struct.Struct(">BI")
"""Type, length of the rest."""
ACTOR: Final = 1
RESOURCE: Final = 2
CHANGE: Final = 3
NOTE: Final = 4
ACTOR_HEAD: Final = struct.Struct(">IHHB")
"""Number, channel, peer port, flags; then nine texts."""
ACTOR_TEXTS: Final = 9
ACTOR_TLS: Final = 1
ACTOR_INCOMPLETE: Final = 2
RESOURCE_HEAD: Final = struct.Struct(">IBB")
"""Number, kind, exchange type; then two texts."""
CHANGE_HEAD: Final = struct.Struct(">QH")
"""Time, number of pairs; then the event's name, and key and value of each pair."""
NOTE_HEAD: Final = struct.Struct(">Q")
"""Time; then code and detail."""
TEXT: Final = struct.Struct(">H")
TEXT_MAX: Final = 1024
"""A text of this length may have been cut."""

KEY, BINDING, QUEUE, EXCHANGE_ITSELF = 1, 2, 3, 4
EXCHANGE_TYPES: Final = {1: "direct", 2: "topic", 3: "fanout", 4: "headers", 5: "other"}

EVENT: Final = np.dtype(
    [
        ("time_us", ">u8"),
        ("actor", ">u4"),
        ("resource", ">u4"),
        ("size", ">u4"),
        ("action", "u1"),
        ("outcome", "u1"),
        ("flags", "u1"),
        ("right", "u1"),
        ("method", ">u4"),
        ("zero", ">u4"),
    ]
)
NO_RESOURCE: Final = 0xFFFFFFFF
NO_SIZE: Final = 0xFFFFFFFF
MAX_TIME_US: Final = (1 << 63) // 1000 - 1

AUTHENTICATE, CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, CONFIGURE = 1, 2, 3, 4, 5, 6, 8
ATTEMPTED, REFUSED, NO_EXCHANGE = 1, 2, 3
FURTHER_KEY: Final = 1
IN_TRANSACTION: Final = 2
PASSIVE: Final = 4
GET: Final = 8
TOPIC_PERMISSION: Final = 16
PERSISTENT: Final = 32


class Permission(IntEnum):
    """What was refused."""

    NONE = 0
    CONFIGURE = 1
    WRITE = 2
    READ = 3
    VHOST = 4
    LOGIN = 5


class Method(IntEnum):
    """AMQP 0-9-1 methods: class id times 65536, plus method id."""

    EXCHANGE_DECLARE = 40 << 16 | 10
    EXCHANGE_DELETE = 40 << 16 | 20
    EXCHANGE_BIND = 40 << 16 | 30
    EXCHANGE_UNBIND = 40 << 16 | 40
    QUEUE_DECLARE = 50 << 16 | 10
    QUEUE_BIND = 50 << 16 | 20
    QUEUE_PURGE = 50 << 16 | 30
    QUEUE_DELETE = 50 << 16 | 40
    QUEUE_UNBIND = 50 << 16 | 50
    BASIC_CONSUME = 60 << 16 | 20
    BASIC_CANCEL = 60 << 16 | 30
    BASIC_PUBLISH = 60 << 16 | 40
    BASIC_GET = 60 << 16 | 70
