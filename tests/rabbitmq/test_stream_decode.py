from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rabbitmq import stream_writer as wire
from topicwarden_collectors.rabbitmq.stream_decode import read_batch


def example() -> bytes:
    return wire.batch(
        [
            wire.actor(1, "alice", client_id="dev1", protocol="mqtt", flags=1, subject="CN=dev1"),
            wire.resource(2, "key", "a.b", "amq.topic", "topic"),
            wire.change(5, "permission.created", {"user": "alice", "read": ".*"}),
            wire.note("overlap", "other"),
        ],
        [wire.event(wire.START_US), wire.event(wire.START_US + 1, action=1, outcome=2, right=5, resource=wire.NONE)],
        number=7,
        first_event=100,
        dropped=3,
        epoch=2,
        first=True,
    )


def test_a_batch_is_read_as_it_was_written() -> None:
    batch = read_batch(example())
    assert batch is not None
    assert (batch.boot, batch.epoch, batch.number, batch.first_event, batch.dropped) == (wire.BOOT, 2, 7, 100, 3)
    assert batch.first_of_epoch
    (actor,) = batch.actors
    assert (actor.number, actor.channel, actor.port, actor.flags) == (1, 1, 40000, 1)
    assert (actor.user, actor.vhost, actor.protocol, actor.client_id) == ("alice", "/", "mqtt", "dev1")
    assert (actor.address, actor.tls_subject, actor.mechanism) == ("127.0.0.1", "CN=dev1", "PLAIN")
    (resource,) = batch.resources
    assert (resource.kind, resource.exchange_type, resource.within, resource.name) == (1, "topic", "amq.topic", "a.b")
    (change,) = batch.changes
    assert (change.time_us, change.event, change.pairs) == (5, "permission.created", {"user": "alice", "read": ".*"})
    (note,) = batch.notes
    assert (note.code, note.detail) == ("overlap", "other")
    assert batch.events["time_us"].tolist() == [wire.START_US, wire.START_US + 1]
    assert batch.events["right"].tolist() == [0, 5]
    assert batch.events["resource"].tolist() == [2, wire.NONE]
    assert batch.malformed == 0


def test_names_that_are_no_utf8_come_without_loss_and_cut_ones_are_marked() -> None:
    batch = read_batch(
        wire.batch(
            [
                wire.actor(1, b"\xff", client_id=b"c" * 1024),
                wire.resource(2, "key", b"\xffx", "e"),
                wire.resource(3, "key", b"k" * 1024, "e"),
                wire.resource(4, "key", b"k" * 1023, "e"),
            ]
        )
    )
    assert batch is not None
    assert batch.actors[0].user == "\udcff"
    assert batch.actors[0].client_id == "c" * 1024 + "… (cut)"
    assert [(one.name[-1:], one.cut) for one in batch.resources] == [("x", False), ("k", True), ("k", False)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"TWRB",
        example()[:-1],
        example() + b"\0",
        wire.batch(magic=b"TWRX"),
        wire.batch(version=2),
        wire.batch()[:20] + struct.pack(">I", 0xFFFFFFFF) + wire.batch()[24:],
        wire.batch()[:48] + struct.pack(">I", 0xFFFFFFFF) + wire.batch()[52:],
        wire.batch([struct.pack(">BI", 2, 0xFFFFFFFF)]),
    ],
)
def test_what_is_no_whole_batch_is_refused_as_a_whole(body: bytes) -> None:
    assert read_batch(body) is None


@pytest.mark.parametrize(
    "definition",
    [
        wire.definition(9, b"a type of the future"),
        wire.definition(1, b""),
        wire.definition(1, wire.actor(1)[5:-1]),
        wire.definition(1, wire.actor(1)[5:] + b"\0"),
        wire.definition(2, struct.pack(">IBB", 1, 0, 0) + wire.text("") * 2),
        wire.definition(2, struct.pack(">IBB", 1, 5, 0) + wire.text("") * 2),
        wire.resource(1, "key", b"x" * 1025),
        wire.definition(3, struct.pack(">QH", 0, 65535) + wire.text("e") * 3),
        wire.definition(3, struct.pack(">QH", 2**63, 0) + wire.text("e")),
        wire.definition(4, struct.pack(">Q", 2**63) + wire.text("e") * 2),
    ],
)
def test_a_senseless_definition_is_counted_and_the_rest_is_read(definition: bytes) -> None:
    batch = read_batch(wire.batch([wire.actor(1), definition, wire.resource(2, "queue", "q")], [wire.event(1)]))
    assert batch is not None
    assert (len(batch.actors), len(batch.resources), len(batch.events), batch.malformed) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "event",
    [
        wire.event(1, action=0),
        wire.event(1, action=7),
        wire.event(1, action=9),
        wire.event(1, action=255),
        wire.event(1, outcome=0),
        wire.event(1, outcome=4),
        wire.event(1, right=6),
        wire.event(2**63),
        wire.event(2**64 - 1),
    ],
)
def test_a_senseless_event_is_counted_and_left_out(event: bytes) -> None:
    batch = read_batch(wire.batch([], [wire.event(1), event, wire.event(2)]))
    assert batch is not None
    assert batch.events["time_us"].tolist() == [1, 2]
    assert (batch.malformed, batch.events_total) == (1, 3)


@given(st.binary(max_size=400))
def test_no_bytes_make_it_raise(body: bytes) -> None:
    read_batch(body)
    read_batch(wire.batch()[:56] + body)


@given(st.lists(st.tuples(st.integers(0, len(example()) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_batch_with_bytes_changed_does_not_make_it_raise(changes: list[tuple[int, int]]) -> None:
    body = bytearray(example())
    for place, value in changes:
        body[place] = value
    batch = read_batch(bytes(body))
    assert batch is None or len(batch.events) <= 2
