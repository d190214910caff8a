"""Each question is answered as a plain loop over the events answers it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.test_recording import clients, resources
from topicwarden.errors import ObservationError
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
from topicwarden.events.observed import Observed
from topicwarden.findings import Ledger, load_catalogue
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.store.analysis import (
    Gap,
    Step,
    Who,
    covered,
    findings_over_time,
    grant_changes,
    inventory,
    observed,
    refused,
    top_talkers,
    top_talkers_by_hour,
)
from topicwarden.store.files import HOUR_NS
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.rows import shown
from topicwarden.store.views import Views
from topicwarden.store.writer import StoreWriter

SIGNER = Signer.generate("store")
HOUR = 498_729
START = HOUR * HOUR_NS

PEOPLE = [
    Client("plant", "mqtt", name, user, address, port)
    for name in ("s-1", "s-2")
    for user in (None, "u")
    for address, port in (("10.0.0.1", 1), ("10.0.0.2", 2))
]
NAMES = [Resource(ResourceKind.TOPIC, name) for name in ("a", "a/b", "#")]
events = st.tuples(
    st.integers(START - 2 * HOUR_NS, START + 2 * HOUR_NS) | st.integers(-2 * HOUR_NS, HOUR_NS),
    st.sampled_from([Action.CONNECT, Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE]),
    st.sampled_from(PEOPLE) | clients,
    st.sampled_from(NAMES) | resources,
    st.sampled_from(Outcome),
    st.just(Certainty.EXACT),
)
rows = st.lists(st.tuples(events, st.integers(-1, 1000), st.integers(0, 5)), max_size=12)


def batch_of(told: list[tuple[Any, int, int]]) -> EventBatch:
    builder = EventBuilder(Tables())
    for row, size, count in told:
        builder.add(*row, size=size, count=count)
    return builder.take()


@contextmanager
def stored(*batches: EventBatch) -> Iterator[Views]:
    with tempfile.TemporaryDirectory() as folder:
        with StoreWriter(Path(folder) / "s", SIGNER) as writer:
            for batch in batches:
                writer.write(batch)
        with Views(Store(Path(folder) / "s"), threads=1) as views:
            yield views


def who(client: Client) -> Who:
    text: list[Any] = [None if one is None else shown(one) for one in _text(client)]
    return Who(*text)


def clear(told: list[tuple[Any, int, int]]) -> bool:
    """Whether all clients' names are valid UTF-8: the others are told apart by more than `Who`."""
    return all(who(row[2]) == Who(*_text(row[2])) for row, *_ in told)


def _text(client: Client) -> tuple[Any, ...]:
    return (client.broker, client.vhost, client.protocol, client.user, client.client_id)


@given(rows.filter(clear))
@settings(max_examples=12, deadline=None)
def test_sums_are_those_of_a_plain_loop(told: list[tuple[Any, int, int]]) -> None:
    total: Counter[Who] = Counter()
    hourly: dict[int, Counter[Who]] = defaultdict(Counter)
    denied: Counter[Who] = Counter()
    names: dict[Who, set[Resource]] = defaultdict(set)
    uses = set()
    topics = set()
    for (time_ns, action, client, resource, outcome, _), _, count in told:
        total[who(client)] += count
        hourly[time_ns // HOUR_NS][who(client)] += count
        if outcome is Outcome.DENIED:
            denied[who(client)] += count
        if resource.kind is not ResourceKind.NONE:
            names[who(client)].add(resource)
            uses.add((who(client), action, resource))
            if resource.kind is not ResourceKind.GRANT:
                topics.add((client.broker, resource))
    with stored(batch_of(told)) as views:
        assert {talker.who: talker.events for talker in top_talkers(views)} == dict(total)
        per_hour = top_talkers_by_hour(views, 100)
        found = inventory(views)
        assert {(one.hour_ns // HOUR_NS, one.who): one.events for one in per_hour} == {
            (hour, client): count for hour, counts in hourly.items() for client, count in counts.items()
        }
        assert [(one.hour_ns, one.rank) for one in per_hour] == sorted((one.hour_ns, one.rank) for one in per_hour)
        assert {one.who: one.attempts for one in refused(views)} == {
            one: denied[one] for one in {who(row[2]) for row, *_ in told if row[4] is Outcome.DENIED}
        }
        period = covered(views)
    assert (found.clients, found.uses, found.topics) == (len(total), len(uses), len(topics))
    assert {row.who: (row.events, row.denied, row.names) for row in found.rows} == {
        one: (total[one], denied[one], len(names[one])) for one in total
    }
    assert period.events == sum(total.values())
    assert [hour // HOUR_NS for hour in period.hours] == sorted(hourly)
    assert period.first_ns == min((row[0] for row, *_ in told), default=None)


@given(st.lists(rows, max_size=3))
@settings(max_examples=12, deadline=None)
def test_what_was_used_is_what_all_batches_add_up_to(told: list[list[tuple[Any, int, int]]]) -> None:
    batches = [batch_of(rows) for rows in told]
    wanted = Observed()
    for batch in batches:
        wanted.add(batch)
    with stored(*batches) as views:
        found = observed(views)
    assert {(*key, str(seen)) for *key, seen in found} == {(*key, str(seen)) for *key, seen in wanted}
    assert (found.events, found.lost, found.first_ns, found.last_ns) == (
        wanted.events,
        wanted.lost,
        wanted.first_ns,
        wanted.last_ns,
    )


def test_only_the_busiest_are_listed_and_all_are_counted() -> None:
    builder = EventBuilder(Tables())
    for number in range(30):
        client = Client("plant", "mqtt", f"s-{number:02}", address=f"10.0.0.{number}")
        builder.add(START, Action.PUBLISH, client, NAMES[0], Outcome.DENIED, count=number + 1, size=2)
        builder.add(START, Action.PUBLISH, replace(client, port=7), NAMES[1], Outcome.DENIED)
    with stored(builder.take()) as views:
        talkers = top_talkers(views, 2)
        assert [(one.who.client_id, one.events, one.publishes, one.bytes) for one in talkers] == [
            ("s-29", 31, 31, 60),
            ("s-28", 30, 30, 58),
        ]
        assert [one.rank for one in top_talkers_by_hour(views, 3)] == [1, 2, 3]
        first = refused(views, 1)[0]
        assert (first.attempts, first.names, first.example, first.actions) == (31, 2, "a", ["publish"])
        found = inventory(views, 4)
        assert (found.clients, found.topics, found.uses, len(found.rows)) == (30, 2, 60, 4)
        assert (found.rows[0].addresses, found.rows[0].last_address) == (1, "10.0.0.29")


def test_changes_say_who_made_them_and_gaps_and_losses_what_is_missing(tmp_path: Path) -> None:
    change = GrantChange(
        START,
        Client("plant", "amqp", "", "bo\udcffb", vhost="/"),
        "permission",
        by=Client("plant", "amqp", "", "admin"),
        before="",
        after="^a$",
        lost=[Right(Action.PUBLISH, NAMES[0])],
    )
    builder = EventBuilder(Tables())
    builder.change(change)
    builder.change(replace(change, time_ns=START + 1, by=None, lost=[]))
    builder.notice(Notice("TW901", START, "plant", count=7))
    StoreWriter(tmp_path / "s", SIGNER).close()
    # As a writer leaves it that was killed.
    log = next((tmp_path / "s" / "log").glob("entries-*"))
    lines = log.read_bytes().splitlines(keepends=True)
    assert b"closed" in lines[-1]
    with StoreWriter(tmp_path / "s", SIGNER) as writer:
        writer.write(builder.take())
        for _ in range(2):
            writer._drop(5)
            writer._note_lost()
    with Views(Store(tmp_path / "s")) as views:
        newest, oldest = grant_changes(views)
        assert (newest.by, newest.time_ns, newest.lost) == (None, START + 1, [])
        assert (oldest.by, oldest.user, oldest.lost) == ("admin", shown("bo\udcffb"), ["publish a"])
        period = covered(views)
    assert (period.noticed, period.events, period.empty_hours) == (7, 2, 0)
    assert [(type(gap), gap.lost) for gap in period.gaps] == [(Gap, 5), (Gap, 5)]


def test_findings_are_counted_when_they_open_and_as_they_grow(tmp_path: Path) -> None:
    ledger = Ledger(load_catalogue())

    def tell(writer: StoreWriter, event: Event, code: str, day: int, count: int) -> None:
        moment = START + day * 24 * HOUR_NS
        finding = ledger.record(code, broker="plant", client=PEOPLE[0], first_ns=moment, last_ns=moment, count=count)
        assert finding is not None
        document = json.loads(encode(finding_document(event, finding, Origin())))
        writer.finding(finding.last_ns, "plant", code, document)

    with StoreWriter(tmp_path / "s", SIGNER) as writer:
        tell(writer, Event.OPENED, "TW201", 0, 3)
        tell(writer, Event.UPDATED, "TW201", 0, 7)
        tell(writer, Event.FINAL, "TW201", 2, 5)
        tell(writer, Event.OPENED, "TW901", 2, 1)
    with Views(Store(tmp_path / "s")) as views:
        days = findings_over_time(views)
        hours = findings_over_time(views, Step.HOUR)
    day = START // (24 * HOUR_NS)
    assert [(one.start_ns // (24 * HOUR_NS) - day, one.severity, one.opened, one.occurrences) for one in days] == [
        (0, "high", 1, 10),
        (2, "high", 0, 5),
        (2, "medium", 1, 1),
    ]
    assert [one.start_ns // HOUR_NS - HOUR for one in hours] == [0, 48, 48]


def test_a_store_without_anything_answers_with_nothing() -> None:
    with stored() as views:
        for ask in (top_talkers, top_talkers_by_hour, refused, grant_changes, findings_over_time):
            assert ask(views) == []
        assert (inventory(views).clients, covered(views).events, covered(views).empty_hours) == (0, 0, 0)
        assert len(observed(views)) == 0


def test_two_names_that_are_no_text_are_two_clients() -> None:
    builder = EventBuilder(Tables())
    for user in ("\udcfe", "\udcff"):
        builder.add(START, Action.PUBLISH, Client("plant", "amqp", "", user), NAMES[0], Outcome.DENIED)
    with stored(builder.take()) as views:
        assert inventory(views).clients == len(refused(views)) == len(top_talkers(views)) == 2
        assert views.rows("SELECT count(*) FROM clients") == [(2,)]
        assert views.rows("SELECT publishers FROM topics") == [(2,)]


def test_clients_that_are_missing_are_told_and_not_left_out(tmp_path: Path) -> None:
    builder = EventBuilder(Tables())
    builder.add(START, Action.PUBLISH, PEOPLE[0], NAMES[0], Outcome.ALLOWED)
    with StoreWriter(tmp_path / "s", SIGNER) as writer:
        writer.write(builder.take())
    Store(tmp_path / "s").files(Kind.CLIENTS)[0].path.unlink()
    with Views(Store(tmp_path / "s")) as views, pytest.raises(ObservationError, match="missing"):
        observed(views)
