"""The plugin's ring as NumPy sees it: the constants and structures of `brokers/mosquitto/topicwarden_wire.h`.

A test compiles that header and compares every number here with it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

MAGIC: Final = b"TWRING\r\n"
VERSION: Final = 2
VERSION_OLDEST: Final = 1
"""It has zero where version 2 has ports and counters of peers, so it reads as one that knows none."""
DATA_OFFSET: Final = 4096
SLOT_SIZE: Final = 32
MORE_BYTES: Final = 31
NAME_MAX: Final = 1024

TYPE_NONE: Final = 0
TYPE_EVENT: Final = 1
TYPE_CLIENT: Final = 2
TYPE_TOPIC: Final = 3
TYPE_MORE: Final = 4
TYPE_MARK: Final = 5

ACTION_FIRST: Final = 1
ACTION_PUBLISH: Final = 4
ACTION_DELIVER: Final = 7
ACTION_LAST: Final = 7
OUTCOME_LAST: Final = 2
CERTAINTY_LAST: Final = 2
SHAPE_LAST: Final = 6

IDENTITY_UNKNOWN: Final = 0
IDENTITY_VERIFIED: Final = 1
IDENTITY_CLAIMED: Final = 2
IDENTITY_ANONYMOUS: Final = 3

DELIVERY_QOS_MASK: Final = 0x03
DELIVERY_QOS_UNKNOWN: Final = 3
DELIVERY_RETAIN: Final = 0x04
DELIVERY_WILL: Final = 0x08
DELIVERY_CONTROL: Final = 0x10
DELIVERY_BRIDGE: Final = 0x20

ENTROPY_SCALE: Final = 8191
ENTROPY_UNKNOWN: Final = 65535
ENTROPY_MAX: Final = 8 * ENTROPY_SCALE

LENGTH_NONE: Final = 0xFFFF
"""A length in a client announcement that stands for "there is none"."""

MARK_START: Final = 1
MARK_RELOAD: Final = 2
MARK_STOP: Final = 3
MARK_MODE: Final = 4

MODE_DECISIONS: Final = 0x01
MODE_AUTH: Final = 0x02
MODE_DELIVER: Final = 0x04
MODE_ENTROPY: Final = 0x08
MODE_CONFIG_UNREADABLE: Final = 0x10
MODE_OTHER_PLUGIN: Final = 0x20
MODE_PER_LISTENER: Final = 0x40
MODE_PEER_PORT: Final = 0x80
MODE_ATTRIBUTE: Final = 0x100

MIN_SLOT_COUNT: Final = 1024
MAX_SLOT_COUNT: Final = 1 << 26
"""Ours, not the header's: a ring of 2 GiB is taken for a damaged header."""
MAX_MORE: Final = -(-4 * NAME_MAX // MORE_BYTES)
"""Most TW_MORE slots an announcement can have: a client whose four strings are all as long as they may be."""

EVENT: Final = np.dtype(
    [
        ("type", "u1"),
        ("action", "u1"),
        ("verdict", "u1"),
        ("delivery", "u1"),
        ("client", "<u4"),
        ("topic", "<u4"),
        ("size", "<u4"),
        ("time_ns", "<u8"),
        ("sequence", "<u4"),
        ("entropy", "<u2"),
        ("shape", "u1"),
        ("spare", "u1"),
    ]
)
CLIENT: Final = np.dtype(
    [
        ("type", "u1"),
        ("protocol_version", "u1"),
        ("transport", "u1"),
        ("identity", "u1"),
        ("id", "<u4"),
        ("client_id_length", "<u2"),
        ("user_length", "<u2"),
        ("address_length", "<u2"),
        ("subject_length", "<u2"),
        ("time_ns", "<u8"),
        ("client_id_full", "<u2"),
        ("port", "<u2"),
        ("user_full", "<u4"),
    ]
)
TOPIC: Final = np.dtype(
    [
        ("type", "u1"),
        ("spare", "u1", (3,)),
        ("id", "<u4"),
        ("stored", "<u4"),
        ("full", "<u4"),
        ("time_ns", "<u8"),
        ("spare2", "<u8"),
    ]
)
MORE: Final = np.dtype([("type", "u1"), ("bytes", "u1", (MORE_BYTES,))])
MARK: Final = np.dtype(
    [
        ("type", "u1"),
        ("code", "u1"),
        ("spare", "u1", (6,)),
        ("value", "<u8"),
        ("time_ns", "<u8"),
        ("value2", "<u8"),
    ]
)
HEADER: Final = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("slot_size", "<u4"),
        ("slot_count", "<u4"),
        ("mode", "<u4"),
        ("generation", "<u8"),
        ("started_ns", "<u8"),
        ("pid", "<u4"),
        ("plugin_version", "<u4"),
        ("broker_version", "S32"),
        ("spare1", "u1", (48,)),
        ("reserved", "<u8"),
        ("head", "<u8"),
        ("spare2", "u1", (48,)),
        ("heartbeat_ns", "<u8"),
        ("events", "<u8"),
        ("topics_announced", "<u8"),
        ("clients_announced", "<u8"),
        ("topics_evicted", "<u8"),
        ("clients_evicted", "<u8"),
        ("names_cut", "<u8"),
        ("reloads", "<u8"),
        ("peers_unknown", "<u8"),
        ("attributed", "<u8"),
        ("attribution_unknown", "<u8"),
        ("attribution_late", "<u8"),
        ("attribution_absent", "<u8"),
        ("attribution_skipped", "<u8"),
        ("spare3", "u1", (16,)),
    ]
)
