"""A store gives back what was written, whatever it holds, and loses at most what was not sealed."""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.test_recording import clients, host_events, resources
from tests.store.filling import run_until_killed
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBuilder,
    HostEvent,
    Notice,
    Outcome,
    Resource,
    ResourceKind,
    Tables,
)
from topicwarden.events.rows import to_rows
from topicwarden.store.files import HOUR_NS
from topicwarden.store.log import Log
from topicwarden.store.model import EntryKind, Kind
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.writer import StoreWriter

SIGNER = Signer.generate("store")
START = 1_795_427_880_123_456_789
TOPIC = Resource(ResourceKind.TOPIC, "plant/a")
CLIENT = Client("plant", "mqtt", "s-1", "sensor-1")

events = st.tuples(st.integers(START, START + 3 * HOUR_NS), st.sampled_from(Action), clients, resources)


def rows_of(store: Store) -> list[str]:
    return sorted(str(row) for batch in store.batches() for row in to_rows(batch))


@given(st.lists(st.lists(events, max_size=8), max_size=4), st.lists(host_events, max_size=3))
@settings(max_examples=60, deadline=None)
def test_what_was_written_comes_back(
    batches: list[list[tuple[int, Action, Client, Resource]]], told: list[HostEvent]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables()
        wanted = []
        with StoreWriter(Path(folder) / "s", SIGNER) as writer:
            for rows in batches:
                builder = EventBuilder(tables)
                for row in rows:
                    builder.add(*row, Outcome.ALLOWED, Certainty.EXACT, size=7)
                batch = builder.take()
                wanted += [str(row) for row in to_rows(batch)]
                writer.write(batch)
            builder = EventBuilder(tables)
            for event in told:
                builder.host(event)
            writer.write(builder.take())
        store = Store(Path(folder) / "s")
        assert rows_of(store) == sorted(wanted)
        assert sorted(map(str, told)) == sorted(str(event) for batch in store.batches() for event in batch.hosts)
        assert not store.gaps


def test_only_the_asked_time_and_brokers_come(tmp_path: Path) -> None:
    builder = EventBuilder(Tables())
    for hour in range(4):
        for name in ("plant", "../lab"):
            client = Client(name, "mqtt", "s-1")
            builder.add(START + hour * HOUR_NS, Action.PUBLISH, client, TOPIC)
        builder.notice(Notice("TW901", START + hour * HOUR_NS, "plant"))
    with StoreWriter(tmp_path / "s", SIGNER) as writer:
        writer.write(builder.take())
    store = Store(tmp_path / "s")
    found = list(store.batches(first_ns=START + HOUR_NS, last_ns=START + 2 * HOUR_NS, brokers=["../lab"]))
    assert sum(map(len, found)) == 2
    assert sum(len(batch.notices) for batch in store.batches(brokers=["plant"])) == 4
    assert not list(tmp_path.glob("lab*"))
    assert {file.broker for file in store.files(Kind.EVENTS)} == {"plant", "../lab"}


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIGNER) as writer:
        with pytest.raises(ConfigurationError, match="another topicwarden writes"):
            StoreWriter(tmp_path, SIGNER)
        builder = EventBuilder(Tables())
        builder.add(START, Action.PUBLISH, CLIENT, TOPIC)
        writer.write(builder.take())
    assert len(rows_of(Store(tmp_path))) == 1


def test_another_key_a_newer_format_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    StoreWriter(tmp_path / "s", SIGNER).close()
    with pytest.raises(ConfigurationError, match="key"):
        StoreWriter(tmp_path / "s", Signer.generate("store"))
    about = tmp_path / "s" / "store.json"
    about.write_text(about.read_text().replace('"format": 2', '"format": 3'))
    for use in (lambda: StoreWriter(tmp_path / "s", SIGNER).close(), lambda: Store(tmp_path / "s")):
        with pytest.raises(ObservationError, match="format 3"):
            use()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ConfigurationError, match="neither a store nor empty"):
        StoreWriter(tmp_path / "other", SIGNER)
    with pytest.raises(ObservationError, match="not a store"):
        Store(tmp_path / "other")


def write_until_killed(folder: Path, number: int, told: int) -> None:
    """Write three events at a time, for ever; say on the pipe how many are sealed, which is a promise."""
    writer = StoreWriter(folder, SIGNER, seal_seconds=0.001)
    builder = EventBuilder(Tables())
    while True:
        sealed = writer.sealed
        for _ in range(3):
            builder.add(START + number, Action.PUBLISH, CLIENT, TOPIC)
            number += 1
        writer.write(builder.take())
        while writer.sealed == sealed:
            time.sleep(0)
        os.write(told, number.to_bytes(8, "little"))


def killed(folder: Path, number: int, moment: float) -> int:
    """Run a writer in a process of its own and kill it after a moment; return what it promised."""
    rest = run_until_killed(lambda told: write_until_killed(folder, number, told), moment, 8)
    return int.from_bytes(rest[len(rest) // 8 * 8 - 8 : len(rest) // 8 * 8], "little")


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_moment_it_keeps_what_was_sealed_and_says_what_may_be_missing(tmp_path: Path, seed: int) -> None:
    count, rounds = 0, 20
    moments = random.Random(seed)
    for _ in range(rounds):
        promised = killed(tmp_path, count, moments.uniform(0, 0.01))
        store = Store(tmp_path)
        kept = sorted(moment for batch in store.batches(first_ns=START + count) for moment in batch.time_ns.tolist())
        assert kept == list(range(START + count, START + count + len(kept)))
        assert START + promised <= kept[-1] + 1 <= START + promised + 3
        count += len(kept)
    with StoreWriter(tmp_path, SIGNER) as writer:
        assert writer.gap_ns is not None
    entries = list(Log(tmp_path / "log").entries())
    assert sum(entry.kind is EntryKind.GAP for entry in entries) == rounds
    assert len(rows_of(Store(tmp_path))) == count
