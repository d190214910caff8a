"""Stores to try things on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topicwarden.events import Action, Certainty, Client, EventBuilder, Notice, Outcome, Resource, ResourceKind, Tables
from topicwarden.store.files import HOUR_NS, row_files
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.writer import StoreWriter

SIGNER = Signer.generate("store")
START = 1_795_427_880_123_456_789
SEAL_SECONDS = 0.001


class Filling:
    """A writer that seals one segment at each call."""

    def __init__(self, writer: StoreWriter, first: int = 0) -> None:
        self.writer = writer
        self.number = first
        self._builder = EventBuilder(Tables())

    def segment(self, *, hours: int = 1, events: int = 5, brokers: tuple[str, ...] = ("plant", "lab")) -> None:
        """Write a segment of some events, a notice and a finding; the hour changes with each one."""
        number, sealed = self.number, self.writer.sealed
        self.number += 1
        when = START + number % hours * HOUR_NS + number * 1_000_000
        for place in range(events):
            client = Client(
                brokers[place % len(brokers)], "mqtt", f"s-{place}", f"user-{number % 3}", port=place or None
            )
            topic = Resource(ResourceKind.TOPIC, f"plant/{place}/{number % 5}")
            self._builder.add(
                when + place, Action.PUBLISH, client, topic, Outcome.ALLOWED, Certainty.EXACT, size=place, entropy=1.5
            )
        self._builder.notice(Notice("TW901", when, brokers[0]))
        self.writer.write(self._builder.take())
        wait_for(lambda: self.writer.sealed > sealed)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Return once the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.001)


def fill(folder: Path, segments: int = 6, *, hours: int = 2, first: int = 0, **options: Any) -> None:
    """Write a store, or go on with one."""
    with StoreWriter(folder, SIGNER, seal_seconds=SEAL_SECONDS, **options) as writer:
        filling = Filling(writer, first)
        for _ in range(segments):
            filling.segment(hours=hours)


def run_until_killed(act: Callable[[int], object], moment: float, first: int = 1) -> bytes:
    """Let a process of its own act, and kill it so many seconds after it wrote the first bytes to its descriptor.

    Returns all that it wrote there.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            act(writing)
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb", buffering=0) as told:  # noqa: PTH123 - a descriptor
        begun = told.read(first)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return begun + (told.read() or b"")


def files_of(folder: Path, kind: Kind = Kind.EVENTS) -> list[Path]:
    """Return a kind's files."""
    return [file.path for file in row_files(folder, kind)]
