"""What is read of a store comes in the order in which it happened, and findings depend on it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.brokers import wait_for
from topicwarden.engine import Engine
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    GrantChange,
    Notice,
    Outcome,
    Resource,
    ResourceKind,
    Right,
    Tables,
)
from topicwarden.findings import load_catalogue
from topicwarden.store.files import HOUR_NS, file_name, write_rows
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.writer import StoreWriter

SIGNER = Signer.generate("store")
START = 1_795_427_880_123_456_789
CLIENT = Client("plant", "mqtt", "s-1", "sensor-1")
TOPIC = Resource(ResourceKind.TOPIC, "plant/a")

steps = st.lists(
    st.tuples(
        st.sampled_from(["plant", "lab"]),
        st.integers(-2, 2),  # hours by which the broker's clock is off
        st.integers(0, 3),  # events
        st.booleans(),  # a notice
        st.booleans(),  # a new run
    ),
    max_size=8,
)


def sealed(writer: StoreWriter, batch: EventBatch) -> None:
    """Write a batch and wait until it is a segment of its own."""
    before = writer.sealed
    writer.write(batch)
    wait_for(lambda: writer.sealed > before and not writer.waiting, "a sealed segment", 20)


@given(steps)
@settings(max_examples=15, deadline=None)
def test_each_broker_keeps_its_order_and_what_stands_beside_comes_in_between(
    told: list[tuple[str, int, int, bool, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "s"
        writer = StoreWriter(folder, SIGNER, seal_seconds=0.001)
        tables = {"plant": Tables(), "lab": Tables()}
        try:
            for number, (broker, hours, count, notice, again) in enumerate(told):
                if again:
                    writer.close()
                    writer = StoreWriter(folder, SIGNER, seal_seconds=0.001)
                    tables = {"plant": Tables(), "lab": Tables()}
                builder = EventBuilder(tables[broker])
                moment = START + hours * HOUR_NS + number
                for _ in range(count):
                    builder.add(moment, Action.PUBLISH, Client(broker, "mqtt", "s"), TOPIC, size=number)
                if notice:
                    builder.notice(Notice("TW901", moment, broker, count=number + 1))
                if not builder.empty:
                    sealed(writer, builder.take())
        finally:
            writer.close()
        found: list[tuple[str, str, int]] = []
        kept: dict[int, set[str]] = {}
        for batch in Store(folder).batches():
            found += [("notice", notice.broker, notice.count - 1) for notice in batch.notices]
            found += [
                ("event", batch.tables.clients.entries[batch.client[0]].broker, size) for size in batch.size.tolist()
            ]
            if len(batch):
                kept.setdefault(id(batch.tables), set()).add(found[-1][1])
    for broker in ("plant", "lab"):
        assert [number for kind, name, number in found if (kind, name) == ("event", broker)] == [
            number for number, step in enumerate(told) for _ in range(step[2]) if step[0] == broker
        ]
    assert [number for kind, _, number in found if kind == "notice"] == [n for n, step in enumerate(told) if step[3]]
    last = -1
    for kind, _, number in found:
        if kind == "notice":
            last = number
        else:
            # No event comes before the notices that were written before it or with it.
            assert not any(step[3] for step in told[last + 1 : number + 1])


def test_a_publish_before_and_after_a_revocation_is_judged_as_it_was_live(tmp_path: Path) -> None:
    client = CLIENT
    right = [Right(Action.PUBLISH, TOPIC)]
    tables = Tables()
    batches = []
    live = Engine(load_catalogue(), None)
    told = []
    with StoreWriter(tmp_path, SIGNER, seal_seconds=0.001) as writer:
        # Allowed, revoked, published all the same, allowed again, published; all within an hour.
        for second, what in enumerate(["publish", "revoke", "publish", "give", "publish"]):
            builder = EventBuilder(tables)
            moment = START + second * 1_000_000_000
            if what == "publish":
                builder.add(moment, Action.PUBLISH, client, TOPIC, Outcome.ALLOWED, Certainty.EXACT)
            else:
                lost, gained = (right, []) if what == "revoke" else ([], right)
                builder.change(GrantChange(moment, client, "permission", gained=gained, lost=lost))
            batch = builder.take()
            batches.append(batch)
            told += live.step(batch)
            sealed(writer, batch)
    again = Engine(load_catalogue(), None)
    for batch in Store(tmp_path).batches():
        again.step(batch)
    assert {finding.type.code: finding.count for finding in again.ledger.findings()} == {
        finding.type.code: finding.count for finding in live.ledger.findings()
    }
    assert {finding.type.code for finding in again.ledger.findings()} >= {"TW207", "TW110"}


def test_brokers_whose_clocks_differ_are_not_accused_of_setting_them_back(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIGNER, seal_seconds=0.001) as writer:
        tables = {"plant": Tables(), "lab": Tables()}
        for second in range(4):
            for broker, offset in (("plant", 0), ("lab", -600)):
                builder = EventBuilder(tables[broker])
                moment = START + (second + offset) * 1_000_000_000
                builder.add(moment, Action.PUBLISH, Client(broker, "mqtt", "s"), TOPIC, Outcome.ALLOWED)
                sealed(writer, builder.take())
    engine = Engine(load_catalogue(), None)
    for batch in Store(tmp_path).batches():
        engine.step(batch)
    assert "TW904" not in {finding.type.code for finding in engine.ledger.findings()}


def test_files_that_are_merged_while_they_are_read_are_read_all_the_same(tmp_path: Path) -> None:
    tables = Tables()
    with StoreWriter(tmp_path, SIGNER, seal_seconds=0.001) as writer:
        for number in range(3):
            builder = EventBuilder(tables)
            builder.add(START + number, Action.PUBLISH, CLIENT, TOPIC)
            sealed(writer, builder.take())
    store = Store(tmp_path)
    reading = store.batches()
    assert next(reading).time_ns.tolist() == [START]
    files = store.files(Kind.EVENTS)
    merged = files[0].path.with_name(file_name(0, 2))
    write_rows(merged, pa.concat_tables(store.table(file) for file in files))
    for file in files:
        file.path.unlink()
    assert [moment for batch in reading for moment in batch.time_ns.tolist()] == [START + 1, START + 2]
