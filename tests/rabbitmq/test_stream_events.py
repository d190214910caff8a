from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rabbitmq import stream_record
from tests.rabbitmq import stream_writer as wire
from topicwarden.events import GrantChange, Notice, Table, Tables
from topicwarden.events.rows import to_rows
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.stream_events import StreamDecoder
from topicwarden_collectors.rabbitmq.stream_layout import Method

START = wire.START_US
ALICE = wire.actor(1)
KEY = wire.resource(2, "key", "plant.a", "amq.topic", "topic")


@dataclass
class Reading:
    """A decoder and what it gave."""

    decoder: StreamDecoder = field(default_factory=lambda: StreamDecoder(Tables(), "b", Grants("b"), node="n"))
    rows: list[dict[str, Any]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    changes: list[GrantChange] = field(default_factory=list)

    def read(self, *bodies: bytes, end: bool = True) -> Reading:
        for batches in (self.decoder.decode(bodies), self.decoder.settle(everything=True) if end else ()):
            self.take(batches)
        assert self.decoder.counters.events == len(self.rows)
        return self

    def take(self, batches: Iterable[Any]) -> None:
        for batch in batches:
            self.rows += to_rows(batch)
            self.notices += batch.notices
            self.changes += batch.changes

    @property
    def resources(self) -> list[tuple[str, str, str]]:
        """Of each row: kind, what it is within, name."""
        return [
            (row["resource"]["kind"], row["resource"].get("within", ""), row["resource"]["name"])
            if row.get("resource")
            else ("", "", "")
            for row in self.rows
        ]

    def told(self, code: str) -> list[tuple[str, int]]:
        return [(notice.scope, notice.count) for notice in self.notices if notice.code == code]


def test_an_event_becomes_a_row_with_the_brokers_identity_of_its_client() -> None:
    actor = wire.actor(1, "alice", port=4711, vhost="prod", subject="CN=a")
    reading = Reading().read(wire.Producer().batch([actor, KEY], [wire.event(START, size=12)]))
    (row,) = reading.rows
    assert row["client"] == {
        "broker": "b",
        "protocol": "amqp",
        "client_id": "",
        "user": "alice",
        "address": "127.0.0.1",
        "port": 4711,
        "tls_subject": "CN=a",
        "vhost": "prod",
        "identity": "verified",
    }
    assert row["resource"] == {"kind": "key", "name": "plant.a", "within": "amq.topic"}
    assert (row["time_ns"], row["action"], row["outcome"], row["size"]) == (START * 1000, "publish", "allowed", 12)
    assert not {"qos", "retain", "entropy", "shape"} & set(row)


def test_a_recorded_stream_of_a_real_node_gives_the_rows_that_stand_beside_it() -> None:
    rows, counters = stream_record.decoded(stream_record.GOLDEN / "stream-everyday.bin")
    expected = (stream_record.GOLDEN / "stream-everyday.events.jsonl").read_text().splitlines()
    assert rows == [json.loads(line) for line in expected]
    assert len(rows) > 25
    assert (counters.lost, counters.unresolved, counters.decode_errors) == (0, 0, {})
    assert counters.source["attempts_not_carried_out"] == 1


def test_who_was_refused_a_login_is_only_claimed_and_who_was_refused_a_virtual_host_is_verified() -> None:
    refused = [
        wire.event(START, resource=wire.NONE, action=1, outcome=2, right=5, method=0),
        wire.event(START, resource=wire.NONE, action=2, outcome=2, right=4, method=0),
    ]
    reading = Reading().read(wire.Producer().batch([wire.actor(1, channel=0)], refused))
    assert [(row["action"], row["outcome"], row["client"]["identity"]) for row in reading.rows] == [
        ("authenticate", "denied", "claimed"),
        ("connect", "denied", "verified"),
    ]
    assert reading.decoder.counters.source.get("refusals_without_attempt", 0) == 0


def test_nobody_is_not_called_verified() -> None:
    (row,) = Reading().read(wire.Producer().batch([wire.actor(1, ""), KEY], [wire.event(START)])).rows
    assert row["client"]["identity"] == "unknown"
    assert "user" not in row["client"]


SUBSCRIBE, UNSUBSCRIBE, CONFIGURE = 5, 6, 8


@pytest.mark.parametrize(
    ("protocol", "kind", "within", "exchange_type", "name", "action", "expected"),
    [
        ("amqp", "key", "logs", "topic", "a.b", 4, ("key", "logs", "a.b")),
        ("amqp", "key", "amq.default", "direct", "q", 4, ("key", "amq.default", "q")),
        ("stomp", "key", "amq.topic", "topic", "a.b", 4, ("key", "amq.topic", "a.b")),
        ("direct", "key", "logs", "", "a", 4, ("key", "logs", "a")),
        ("mqtt", "key", "amq.topic", "topic", "a.b..c", 4, ("topic", "", "a/b//c")),
        ("mqtt", "binding", "amq.topic", "topic", "a.*.#", SUBSCRIBE, ("topic", "", "a/+/#")),
        ("mqtt", "binding", "amq.topic", "topic", "a.*.#", UNSUBSCRIBE, ("topic", "", "a/+/#")),
        ("amqp", "binding", "logs", "topic", "a.*.#", SUBSCRIBE, ("binding", "logs", "a.*.#")),
        ("amqp", "binding", "logs", "direct", "a.*", SUBSCRIBE, ("key", "logs", "a.*")),
        ("amqp", "binding", "logs", "fanout", "a.*", SUBSCRIBE, ("binding", "logs", "#")),
        ("amqp", "binding", "logs", "headers", "a.*", UNSUBSCRIBE, ("binding", "logs", "#")),
        ("amqp", "binding", "amq.direct", "", "a", SUBSCRIBE, ("key", "amq.direct", "a")),
        ("amqp", "key", "logs", "topic", "a.*", SUBSCRIBE, ("binding", "logs", "a.*")),
        ("amqp", "queue", "", "", "q", SUBSCRIBE, ("queue", "", "q")),
        ("amqp", "queue", "", "", "q", CONFIGURE, ("queue", "", "q")),
        ("amqp", "exchange", "", "topic", "logs", CONFIGURE, ("exchange", "", "logs")),
        ("amqp", "queue", "", "", "mqtt-subscription-devqos1", SUBSCRIBE, ("queue", "", "mqtt-subscription-devqos1")),
        (
            "mqtt",
            "queue",
            "",
            "",
            "mqtt-subscription-otherqos1",
            SUBSCRIBE,
            ("queue", "", "mqtt-subscription-otherqos1"),
        ),
    ],
)
def test_names_come_in_the_words_of_who_used_them(
    protocol: str,
    kind: str,
    within: str,
    exchange_type: str,
    name: str,
    action: int,
    expected: tuple[str, str, str],
) -> None:
    actor = wire.actor(1, protocol=protocol, client_id="dev" if protocol == "mqtt" else "")
    resource = wire.resource(2, kind, name, within, exchange_type)
    reading = Reading().read(wire.Producer().batch([actor, resource], [wire.event(START, action=action, method=0)]))
    assert reading.resources == [expected]


@pytest.mark.parametrize(
    ("protocol", "queue"),
    [
        ("mqtt", "mqtt-subscription-devqos0"),
        ("mqtt", "mqtt-subscription-devqos1"),
        ("stomp", "stomp-subscription-0123456789abcdefABCDEF"),
    ],
)
def test_a_gateways_own_queues_are_left_out_unless_they_are_refused(protocol: str, queue: str) -> None:
    client_id = "dev" if protocol == "mqtt" else ""
    definitions = [wire.actor(1, protocol=protocol, client_id=client_id), wire.resource(2, "queue", queue)]
    declare = wire.event(START, action=CONFIGURE, method=Method.QUEUE_DECLARE)
    consume = wire.event(START, action=SUBSCRIBE, method=Method.BASIC_CONSUME)
    refusal = wire.event(START, action=SUBSCRIBE, method=Method.BASIC_CONSUME, outcome=2, right=3)
    reading = Reading().read(wire.Producer().batch(definitions, [declare, consume, refusal]))
    assert [(row["action"], row["outcome"]) for row in reading.rows] == [("subscribe", "denied")]
    assert reading.resources == [("queue", "", queue)]
    assert reading.decoder.counters.source["gateway_plumbing"] == 1


def test_the_type_of_an_exchange_the_stream_does_not_know_is_taken_from_the_definitions() -> None:
    reading = Reading()
    pairs = {"name": "logs", "vhost": "/", "type": "fanout", "durable": "true", "auto_delete": "false"}
    created = wire.change(START, "exchange.created", {**pairs, "internal": "false", "user_who_performed_action": "x"})
    binding = wire.resource(2, "binding", "a", "logs")
    event = wire.event(START + 1, action=SUBSCRIBE, method=Method.QUEUE_BIND)
    assert reading.read(wire.Producer().batch([ALICE, binding, created], [event])).resources == [
        ("binding", "logs", "#")
    ]


def test_a_name_that_may_have_been_cut_carries_a_greater_length() -> None:
    long = wire.resource(2, "key", b"k" * 1024, "e")
    (row,) = Reading().read(wire.Producer().batch([ALICE, long], [wire.event(START)])).rows
    assert row["resource"]["length"] > 1024


def test_a_reader_that_joins_in_the_middle_begins_with_the_next_epoch() -> None:
    producer = wire.Producer(number=5, sent=100, first=False)
    reading = Reading().read(producer.batch([ALICE, KEY], [wire.event(START)]))
    assert reading.rows == []
    assert reading.decoder.counters.source["skipped_at_join"] == 1
    producer.new_epoch()
    reading.read(producer.batch([ALICE, KEY], [wire.event(START + 1)]))
    assert len(reading.rows) == 1
    assert not reading.notices


def test_a_refusal_reaches_its_attempt_across_the_border_of_an_epoch() -> None:
    producer = wire.Producer()
    reading = Reading().read(producer.batch([ALICE, KEY], [wire.event(START)]), end=False)
    assert reading.rows == []
    producer.new_epoch()
    exchange = wire.resource(9, "exchange", "amq.topic")
    refusal = wire.event(START + 1, resource=9, outcome=2, right=2)
    reading.read(producer.batch([ALICE, exchange], [refusal]))
    assert [(row["action"], row["outcome"]) for row in reading.rows] == [("publish", "denied")]
    assert reading.resources == [("key", "amq.topic", "plant.a")]


def test_resources_of_an_earlier_epoch_mean_nothing_and_actors_that_acted_keep_their_number() -> None:
    producer = wire.Producer()
    reading = Reading().read(producer.batch([ALICE, KEY], [wire.event(START)]))
    producer.new_epoch()
    reading.read(producer.batch([ALICE], [wire.event(START + 1)]))
    assert len(reading.rows) == 1
    assert reading.decoder.counters.unresolved == 1
    assert reading.told("TW901") == [("unresolved", 1)]


def test_an_actor_that_more_became_known_of_is_known_so_from_then_on() -> None:
    producer = wire.Producer()
    topic = wire.resource(3, "queue", "mqtt-subscription-devqos0")
    unknown = wire.actor(1, protocol="mqtt", client_id="")
    consume = {"resource": 3, "action": SUBSCRIBE, "method": Method.BASIC_CONSUME}
    reading = Reading().read(producer.batch([unknown, KEY, topic], [wire.event(START), wire.event(START, **consume)]))
    reading.read(
        producer.batch(
            [wire.actor(1, protocol="mqtt", client_id="dev")], [wire.event(START), wire.event(START, **consume)]
        )
    )
    assert [row["client"]["client_id"] for row in reading.rows] == ["", "", "dev"]


def test_what_the_plugin_dropped_is_counted_and_told() -> None:
    producer = wire.Producer()
    reading = Reading().read(producer.batch([ALICE, KEY], [wire.event(START)]))
    producer.drop(40)
    reading.read(producer.batch([], [wire.event(START + 1), wire.event(START + 2)]))
    assert reading.decoder.counters.lost == 40
    assert reading.told("TW901") == [("plugin", 40)]
    # What follows the gap is not exact: the refusal may be among what was lost.
    assert [row["certainty"] for row in reading.rows] == ["inferred"] * 3


def test_what_our_queue_lost_is_counted_by_the_events_numbers() -> None:
    producer = wire.Producer()
    reading = Reading().read(producer.batch([ALICE, KEY], [wire.event(START)]))
    producer.lose(batches=3, events=2500)
    reading.read(producer.batch([], [wire.event(START + 1)]))
    assert reading.decoder.counters.lost == 2500
    assert reading.told("TW901") == [("queue", 2500)]
    assert len(reading.rows) == 2


def test_lost_batches_and_dropped_events_are_told_apart() -> None:
    producer = wire.Producer()
    reading = Reading().read(producer.batch([ALICE, KEY], [wire.event(START)]))
    producer.lose(batches=2, events=200)
    producer.drop(30)
    reading.read(producer.batch())
    assert reading.told("TW901") == [("plugin", 30), ("queue", 200)]
    assert reading.decoder.counters.lost == 230


def test_losing_empty_batches_is_no_loss() -> None:
    producer = wire.Producer()
    reading = Reading().read(producer.batch([ALICE, KEY]))
    producer.lose(batches=2, events=0)
    reading.read(producer.batch([], [wire.event(START)]))
    assert (reading.decoder.counters.lost, reading.notices) == (0, [])


def test_a_plugin_that_started_again_is_told_and_its_numbers_are_new() -> None:
    reading = Reading().read(wire.Producer(number=3).batch([ALICE, KEY], [wire.event(START)]), end=False)
    again = wire.Producer(boot=99)
    reading.read(again.batch([wire.actor(1, "bob"), wire.resource(2, "queue", "q")], [wire.event(START, action=8)]))
    assert [row["client"]["user"] for row in reading.rows] == ["alice", "bob"]
    assert reading.told("TW906") == [("n", 1)]
    assert reading.decoder.counters.lost == 0


def test_a_batch_that_comes_twice_is_an_error_and_not_events() -> None:
    body = wire.Producer().batch([ALICE, KEY], [wire.event(START)])
    reading = Reading().read(body, body)
    assert len(reading.rows) == 1
    assert reading.decoder.counters.decode_errors == {"order": 1}
    assert reading.told("TW903") == [("stream order", 1)]


def test_bytes_that_are_no_batch_are_counted_and_reading_goes_on() -> None:
    producer = wire.Producer()
    body = producer.batch([ALICE, KEY], [wire.event(START)])
    reading = Reading().read(
        b"rubbish", body, body[:-1], producer.batch([], [wire.event(START), wire.event(START, action=7)])
    )
    assert len(reading.rows) == 2
    assert reading.decoder.counters.decode_errors == {"batch": 2, "record": 1}


def test_a_change_of_a_grant_stands_among_the_events_where_its_time_is() -> None:
    pairs = {
        "user": "alice",
        "vhost": "/",
        "configure": "",
        "write": "",
        "read": "",
        "user_who_performed_action": "root",
    }
    change = wire.change(START + 5, "permission.created", pairs)
    events = [wire.event(START + i) for i in range(10)]
    reading = Reading().read(wire.Producer().batch([ALICE, KEY, change], events))
    assert [row["action"] for row in reading.rows].index("grant_change") == 5
    assert len(reading.rows) == 11
    (change_seen,) = reading.changes
    assert (change_seen.grantee.user, change_seen.what) == ("alice", "permission")
    assert change_seen.by is not None
    assert change_seen.by.user == "root"
    assert reading.rows[5]["client"]["user"] == "root"


def test_a_change_of_something_else_is_no_event() -> None:
    reading = Reading().read(wire.Producer().batch([wire.change(START, "policy.set", {"name": "x"})]))
    assert (reading.rows, reading.changes) == ([], [])


def test_keys_that_were_used_are_told_to_the_model_of_grants() -> None:
    seen: list[tuple[str, str | None, str, str]] = []

    class Watched(Grants):
        def saw_key(self, vhost: str, user: str | None, exchange: str, key: str) -> None:
            seen.append((vhost, user, exchange, key))

    reading = Reading(StreamDecoder(Tables(), "b", Watched("b")))
    reading.read(wire.Producer().batch([ALICE, KEY], [wire.event(START), wire.event(START)]))
    assert seen == [("/", "alice", "amq.topic", "plant.a")]


def test_our_own_connections_doings_are_left_out() -> None:
    reading = Reading(StreamDecoder(Tables(), "b", Grants("b"), ours=lambda actor: actor.user == "auditor"))
    definitions = [wire.actor(1, "auditor"), wire.actor(3, "bob"), KEY]
    reading.read(wire.Producer().batch(definitions, [wire.event(START), wire.event(START, actor=3)]))
    assert [row["client"]["user"] for row in reading.rows] == ["bob"]
    assert reading.decoder.counters.source["our_own"] == 1


def test_broker_events_the_plugin_could_not_pass_on_are_a_loss_and_other_notes_are_kept() -> None:
    reading = Reading().read(wire.Producer().batch([wire.note("overflow", "12"), wire.note("overlap", "other")]))
    assert reading.told("TW901") == [("broker-events", 12)]
    assert reading.decoder.notes == {"overflow": "12", "overlap": "other"}
    for code in range(100):
        reading.read(wire.Producer(boot=code).batch([wire.note(f"x{code}", "y")]))
    assert len(reading.decoder.notes) <= 32


def test_refusals_without_an_attempt_say_what_was_asked_for_and_not_what_the_channel_did_before() -> None:
    queue = wire.resource(3, "queue", "amq.gen-x")
    events = [
        wire.event(START, method=wire.PUBLISH),
        wire.event(START, resource=3, outcome=2, right=1, method=wire.PUBLISH),
        wire.event(START, actor=4, resource=3, outcome=2, right=3, method=wire.PUBLISH),
    ]
    reading = Reading().read(wire.Producer().batch([ALICE, wire.actor(4), KEY, queue], events))
    assert [(row["action"], row["outcome"]) for row in reading.rows] == [
        ("publish", "allowed"),
        ("configure", "denied"),
        ("subscribe", "denied"),
    ]


def test_tables_smaller_than_the_stream_forget_and_no_number_goes_wrong() -> None:
    tables = Tables(Table(256), Table(256))
    reading = Reading(StreamDecoder(tables, "b", Grants("b")))
    producer = wire.Producer()
    expected = []
    for turn in range(60):
        if turn % 20 == 19:
            producer.new_epoch()
        actors = [wire.actor(turn * 1000 + i, f"u{turn}-{i}") for i in range(40)]
        keys = [wire.resource(turn * 1000 + 100 + i, "key", f"k{turn}-{i}", "e") for i in range(40)]
        events = [wire.event(START + turn, turn * 1000 + i, turn * 1000 + 100 + (i * 7) % 40) for i in range(40)]
        expected += [(f"u{turn}-{i}", f"k{turn}-{(i * 7) % 40}") for i in range(40)]
        reading.read(producer.batch([*actors, *keys], events))
    assert [(row["client"]["user"], row["resource"]["name"]) for row in reading.rows] == expected
    assert tables.clients.evicted > 0
    assert tables.resources.evicted > 0


def test_numbers_that_share_their_low_bits_are_told_apart() -> None:
    far = 1 << 19
    definitions = [wire.actor(1, "a"), wire.actor(1 + far, "b"), wire.actor(1 + 2 * far, "c"), KEY]
    events = [wire.event(START, actor) for actor in (1 + 2 * far, 1, 1 + far, 1 + 3 * far)]
    reading = Reading().read(wire.Producer().batch(definitions, events))
    assert [row["client"]["user"] for row in reading.rows] == ["c", "a", "b"]
    assert reading.decoder.counters.unresolved == 1


def test_actors_nobody_heard_of_for_two_epochs_are_forgotten() -> None:
    producer = wire.Producer()
    reading = Reading()
    for turn in range(30):
        reading.read(producer.batch([wire.actor(turn * 100 + i) for i in range(100)]))
        producer.new_epoch()
    assert len(reading.decoder._names._actors) <= 300


DEFINITIONS = st.sampled_from(
    [
        wire.actor(1),
        wire.actor(1, protocol="mqtt", client_id="dev"),
        wire.actor(7, channel=0),
        KEY,
        wire.resource(3, "queue", "q"),
        wire.resource(3, "exchange", "amq.topic"),
        wire.change(START, "permission.deleted", {"user": "a", "vhost": "/"}),
        wire.change(START + 9, "exchange.created", {"name": "x"}),
        wire.note("overflow", "٣"),
        wire.definition(1, b"x"),
    ]
)
EVENTS = st.builds(
    wire.event,
    st.integers(START, START + 50) | st.integers(0, 2**64 - 1),
    st.sampled_from([1, 7, 8, wire.NONE]),
    st.sampled_from([2, 3, 4, wire.NONE]),
    action=st.integers(0, 9),
    outcome=st.integers(0, 4),
    flags=st.integers(0, 255),
    right=st.integers(0, 6),
    method=st.sampled_from([0, *Method]),
    size=st.integers(0, 2**32 - 1),
)
BATCHES = st.builds(
    wire.batch,
    st.lists(DEFINITIONS, max_size=5),
    st.lists(EVENTS, max_size=12),
    number=st.integers(0, 6),
    first_event=st.integers(0, 60) | st.integers(0, 2**64 - 1),
    dropped=st.integers(0, 30) | st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 3),
    boot=st.integers(0, 1),
    first=st.booleans(),
)


@settings(max_examples=300)
@given(st.lists(BATCHES | st.binary(max_size=80), max_size=8), st.booleans())
def test_no_stream_makes_it_raise_and_every_event_is_accounted_for(bodies: list[bytes], end: bool) -> None:
    reading = Reading()
    for body in bodies:
        reading.read(body, end=end)
    reading.read()
    assert reading.decoder.waiting == 0
