"""Reads a ring to its present end, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topicwarden.events import Tables
from topicwarden.events.rows import to_rows
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.ring_decode import RingDecoder
from topicwarden_collectors.mosquitto.ring_file import RingFile


def read_events(path: Path) -> tuple[list[dict[str, Any]], Counters]:
    """Return every event still in the ring as rows (`topicwarden.events.rows`), and what could not be read."""
    ring = RingFile(path)
    try:
        decoder = RingDecoder(Tables(), "test", slot_count=ring.slot_count)
        rows: list[dict[str, Any]] = []
        position = ring.oldest
        head = ring.head
        while position < head:
            slots, at = ring.read(position, head - position)
            position = at + len(slots)
            for batch in decoder.decode(slots, at):
                rows.extend(to_rows(batch))
        return rows, decoder.counters
    finally:
        ring.close()


def head_of(path: Path) -> int:
    """Return the ring's stream position."""
    ring = RingFile(path)
    try:
        return ring.head
    finally:
        ring.close()


def mode_of(path: Path) -> int:
    """Return the ring's TW_MODE_* flags."""
    ring = RingFile(path)
    try:
        return ring.mode
    finally:
        ring.close()
