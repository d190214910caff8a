from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mosquitto import ring_writer as ring
from topicwarden.events import Client, EventBatch, Notice, Resource, Table, Tables
from topicwarden.events.rows import to_rows
from topicwarden_collectors.mosquitto.ring_decode import RingDecoder

ACTIONS = ["authenticate", "connect", "disconnect", "publish", "subscribe", "unsubscribe", "deliver"]
OUTCOMES = ["unknown", "allowed", "denied"]
CERTAINTIES = ["unknown", "inferred", "exact"]
SHAPES = ["unknown", "empty", "text", "json", "base64", "hex", "binary"]
IDENTITIES = ["unknown", "verified", "claimed", "anonymous"]


def small_tables(capacity: int = 16) -> Tables:
    return Tables(Table[Client](capacity), Table[Resource](capacity))


class Reader:
    """A decoder together with everything it gave."""

    def __init__(self, tables: Tables | None = None, **options: Any) -> None:
        self.decoder = RingDecoder(tables or Tables(), "b", **{"slot_count": 1024, **options})
        self.rows: list[dict[str, Any]] = []
        self.notices: list[Notice] = []
        self.batches: list[int] = []

    def take(self, batches: Iterable[EventBatch]) -> Reader:
        for batch in batches:
            self.rows += to_rows(batch)
            self.notices += batch.notices
            self.batches.append(len(batch))
        return self

    def decode(self, data: bytes, position: int = 0, cuts: Sequence[int] = (), **options: Any) -> Reader:
        slots = ring.as_slots(data)
        edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(slots)}), len(slots)]
        for start, stop in itertools.pairwise(edges):
            self.take(self.decoder.decode(slots[start:stop], position + start, **options))
        return self

    def told(self, code: str, scope: str) -> list[Notice]:
        return [notice for notice in self.notices if (notice.code, notice.scope) == (code, scope)]


def oracle(data: bytes) -> tuple[list[dict[str, Any]], int, int]:
    """Decode slot by slot in the plainest way: rows, unresolved events, malformed slots."""
    slots = [data[i : i + 32] for i in range(0, len(data), 32)]
    names: dict[int, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    unresolved = malformed = at = 0
    nobody = {"broker": "b", "protocol": "mqtt", "client_id": "", "identity": "unknown"}

    def number(slot: bytes, start: int, size: int) -> int:
        return int.from_bytes(slot[start : start + size], "little")

    while at < len(slots):
        slot, at = slots[at], at + 1
        if slot[0] == 1:
            outcome, certainty = slot[2] & 15, slot[2] >> 4
            time_ns = number(slot, 16, 8)
            if not 1 <= slot[1] <= 7 or outcome > 2 or certainty > 2 or slot[30] > 6 or time_ns >= 2**63:
                malformed += 1
                continue
            client, topic = number(slot, 4, 4), number(slot, 8, 4)
            who = names.get(client) if client else {"client": nobody}
            what = names.get(topic) if topic else {"resource": None}
            if who is None or what is None or "client" not in who or "resource" not in what:
                unresolved += 1
                continue
            row: dict[str, Any] = {
                "time_ns": time_ns,
                "action": ACTIONS[slot[1] - 1],
                "outcome": OUTCOMES[outcome],
                "certainty": CERTAINTIES[certainty],
                "client": who["client"],
            }
            if what["resource"] is not None:
                row["resource"] = what["resource"]
            message = slot[1] in (4, 7)
            if message:
                row["size"] = number(slot, 12, 4)
            if (entropy := number(slot, 28, 2)) <= 65528:
                row["entropy"] = pytest.approx(entropy / 8191, rel=1e-6)
            if slot[30]:
                row["shape"] = SHAPES[slot[30]]
            if slot[3] & 3 != 3:
                row["qos"] = slot[3] & 3
            if message:
                row["retain"] = slot[3] >> 2 & 1
            rows.append(row)
        elif slot[0] in (2, 3):
            lengths = [number(slot, 8 + 2 * i, 2) for i in range(4)] if slot[0] == 2 else [number(slot, 8, 4)]
            fulls = [number(slot, 24, 2), number(slot, 28, 4), 2**32, 2**32] if slot[0] == 2 else [number(slot, 12, 4)]
            absent = 65535 if slot[0] == 2 else -1
            sizes = [0 if length == absent else length for length in lengths]
            sane = number(slot, 4, 4) and all(n <= 1024 and n <= full for n, full in zip(sizes, fulls, strict=True))
            sane = sane and (slot[0] == 3 or slot[3] <= 3)
            needed = math.ceil(sum(sizes) / 31)
            tail = slots[at : at + needed]
            if sane and len(tail) < needed and all(part[0] == 4 for part in tail):
                break  # the stream ends within the group
            if not sane or not all(part[0] == 4 for part in tail):
                malformed += 1
                continue
            at += needed
            body = b"".join(part[1:] for part in tail)
            texts: list[str | None] = []
            for length, size, full in zip(lengths, sizes, fulls, strict=True):
                raw, body = body[:size], body[size:]
                text = raw.decode("utf-8", "surrogateescape")
                if slot[0] == 2 and full != size and full != 2**32:
                    text += f"… ({full} bytes)"
                texts.append(None if length == absent else text)
            if slot[0] == 3:
                resource = {"kind": "topic", "name": texts[0]}
                if fulls[0] > sizes[0]:
                    spelled = len((texts[0] or "").encode("utf-8", "surrogatepass"))
                    resource["length"] = spelled + fulls[0] - sizes[0]  # type: ignore[assignment]  # a row is any JSON
                names[number(slot, 4, 4)] = {"resource": resource}
                continue
            fields = dict(zip(("client_id", "user", "address", "tls_subject"), texts, strict=True))
            fields["client_id"] = fields["client_id"] or ""
            known: dict[str, Any] = {name: text for name, text in fields.items() if text is not None}
            if port := number(slot, 26, 2):
                known["port"] = port
            identity = IDENTITIES[slot[3]]
            names[number(slot, 4, 4)] = {"client": {"broker": "b", "protocol": "mqtt", **known, "identity": identity}}
        elif slot[0] != 5 or not 1 <= slot[1] <= 4:
            malformed += 1
    return rows, unresolved, malformed


NAMES = st.sampled_from(
    [
        b"",
        b"a",
        b"plant/1/t",
        b"x" * 31,
        b"y" * 32,
        b"\xff",
        b"\\xff",
        "ä/€".encode(),
        b"n" * 1023 + "€".encode(),
        b"z" * 3000,
    ]
) | st.binary(max_size=70)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "action": st.integers(1, 7) | st.just(9),
        "verdict": st.sampled_from([0x00, 0x21, 0x12, 0x22, 0x13, 0x31]),
        "delivery": st.integers(0, 255),
        "size": st.integers(0, 2**32 - 1),
        "entropy": st.sampled_from([0, 1, 8191, 40_000, 65_528, 65_530, 65_535]),
        "shape": st.integers(0, 7),
        "time_ns": st.sampled_from([0, 2**63 - 1, 2**63, 5]),
    },
)
# Identifiers the producer does not use, far from its own by their low bits too: a real one's only ever grow.
UNUSED = st.integers(0, 2**20 - 1).map(lambda number: 2**31 + 2048 * number + 1000)
UNKNOWN = UNUSED.map(lambda number: number + 500)
GARBAGE = st.one_of(
    st.integers(6, 255).map(lambda kind: bytes([kind]) * 32),
    st.just(bytes(32)),
    st.integers(1, 3).map(lambda count: ring.more(b"?" * 31 * count)),
    UNUSED.map(lambda number: ring.topic(number, b"without its parts")[:32]),
    UNUSED.map(lambda number: ring.client(number, b"i" * 40)[:64]),
    UNUSED.map(lambda number: ring.topic(number, b"o" * 1025, cap=1025)),
    UNUSED.map(lambda number: ring.topic(number, b"one too many") + ring.more(b"!")),
    UNUSED.map(lambda number: ring.client(number, identity=4)),
    st.just(ring.topic(0, b"zero")),
    UNKNOWN.map(lambda number: ring.event(number, 0, 0)),
    st.integers(0, 6).map(lambda code: ring.mark(code)),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """What a producer writes, with garbage in between."""
    producer = ring.Producer(1024)
    groups = []
    for _ in range(draw(st.integers(1, 60))):
        if draw(st.integers(0, 5)):
            client, name = draw(st.sampled_from([b"c1", b"c2", b"", b"c" * 40])), draw(st.none() | NAMES)
            groups.append(producer.publish(client, name, **draw(FIELDS)))
        else:
            groups.append(draw(GARBAGE))
            producer.position += len(groups[-1]) // 32
    return b"".join(groups)


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.integers(0, 300), max_size=12), st.sampled_from([16, 4096]))
def test_any_chunking_and_any_table_give_the_rows_of_the_plain_decoder(
    data: bytes, cuts: list[int], capacity: int
) -> None:
    rows, unresolved, malformed = oracle(data)
    reader = Reader(small_tables(capacity)).decode(data, cuts=cuts)
    assert reader.rows == rows
    counters = reader.decoder.counters
    assert (counters.events, counters.unresolved) == (len(rows), unresolved)
    backwards = sum(int(notice.evidence.get("sum_sequence_slots", 0)) for notice in reader.told("TW903", "ring"))
    assert counters.decode_errors.get("ring", 0) == malformed + backwards
    assert sum(notice.count for notice in reader.told("TW903", "ring")) == malformed + backwards


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.binary(min_size=32, max_size=32)
        | st.tuples(st.integers(1, 5), st.binary(min_size=31, max_size=31)).map(lambda s: bytes([s[0]]) + s[1])
        | st.tuples(st.integers(1, 7), st.integers(0, 3), st.integers(0, 3), st.integers(0, 9)).map(
            lambda n: ring.event(n[1], n[2], n[3], action=n[0])
        )
        | st.integers(1, 3).map(lambda number: ring.client(number))
        | st.integers(1, 3).map(lambda number: ring.topic(number, b"t")),
        max_size=80,
    ),
    st.integers(0, 5000),
    st.lists(st.integers(0, 80), max_size=5),
)
def test_no_bytes_make_the_decoder_raise_or_refer_to_what_is_not_there(
    slots: list[bytes], position: int, cuts: list[int]
) -> None:
    reader = Reader(small_tables()).decode(b"".join(slots), position, cuts, events_total=position)
    counters = reader.decoder.counters
    assert len(reader.rows) == counters.events  # to_rows raises for an entry the tables do not hold
    assert counters.lost >= 0
    assert sum(notice.count for notice in reader.told("TW903", "ring")) == counters.decode_errors.get("ring", 0)


def test_an_event_becomes_a_row_with_everything_the_slot_says() -> None:
    data = (
        ring.client(1, b"sensor-1", b"alice", b"10.0.0.9", b"CN=alice", identity=1, port=51432)
        + ring.topic(2, b"plant/1/temperature")
        + ring.event(1, 2, 0, delivery=0x05, size=70_000, entropy=8191, shape=3, time_ns=123)
    )
    assert Reader().decode(data).rows == [
        {
            "time_ns": 123,
            "action": "publish",
            "outcome": "allowed",
            "certainty": "exact",
            "client": {
                "broker": "b",
                "protocol": "mqtt",
                "client_id": "sensor-1",
                "user": "alice",
                "address": "10.0.0.9",
                "port": 51432,
                "tls_subject": "CN=alice",
                "identity": "verified",
            },
            "resource": {"kind": "topic", "name": "plant/1/temperature"},
            "size": 70_000,
            "entropy": 1.0,
            "shape": "json",
            "qos": 1,
            "retain": 1,
        }
    ]


def test_an_action_without_a_message_has_neither_size_nor_retain_flag_nor_topic() -> None:
    data = ring.client(1, None, None, None) + ring.event(1, 0, 0, action=2, delivery=3, size=0, shape=0, time_ns=1)
    (row,) = Reader().decode(data).rows
    assert row["client"] == {"broker": "b", "protocol": "mqtt", "client_id": "", "identity": "verified"}
    assert set(row) == {"time_ns", "action", "outcome", "certainty", "client"}


def test_two_names_that_differ_in_any_byte_never_become_one() -> None:
    names = [b"\xff", b"\\xff", "\ufffd".encode(), b"\xfe", b"\xed\xb3\xbf", "ÿ".encode(), b"", b"\0"]
    producer = ring.Producer()
    data = b"".join(producer.publish(name, name) for name in names)
    rows = Reader().decode(data).rows
    assert len({row["resource"]["name"] for row in rows}) == len(names)
    assert [row["client"]["client_id"].encode("utf-8", "surrogateescape") for row in rows] == names


@pytest.mark.parametrize("name", [b"x" * 1025, b"x" * 1022 + "€".encode(), "€".encode() * 400, b"\xff" * 1025])
def test_a_cut_topic_is_marked_as_cut_even_in_the_middle_of_a_character(name: bytes) -> None:
    reader = Reader().decode(ring.Producer().publish(b"c", name))
    resource = reader.decoder.tables.resources.entries[1]
    assert resource is not None
    assert resource.truncated


def test_a_cut_client_id_or_user_name_is_never_taken_for_a_whole_one_that_begins_alike() -> None:
    data = ring.client(1, b"i" * 1024, b"u" * 1024) + ring.client(2, b"i" * 1025, b"u" * 1026)
    data += ring.event(1, 0, 0) + ring.event(2, 0, 1)
    whole, cut = (row["client"] for row in Reader().decode(data).rows)
    assert (whole["client_id"], whole["user"]) == ("i" * 1024, "u" * 1024)
    assert (cut["client_id"], cut["user"]) == ("i" * 1024 + "… (1025 bytes)", "u" * 1024 + "… (1026 bytes)")


def test_a_gap_in_the_sequence_is_counted_exactly_and_told_with_what_is_missing() -> None:
    head = ring.client(1) + ring.topic(2, b"t")
    data = head + b"".join(ring.event(1, 2, sequence) for sequence in (0, 1, 5, 6, 16))
    reader = Reader().decode(data, cuts=[5])
    assert (reader.decoder.counters.lost, reader.decoder.counters.gaps) == (12, 2)
    (gaps,) = reader.told("TW901", "ring")
    assert (gaps.count, dict(gaps.evidence)) == (12, {"first_missing": 2, "last_missing": 15, "sum_gaps": 2})
    assert reader.decoder.sequence == 17


def test_sequence_numbers_go_on_over_two_to_the_thirty_second() -> None:
    head = ring.client(1) + ring.topic(2, b"t")
    start = 2**32 - 3
    data = head + b"".join(ring.event(1, 2, start + i, time_ns=i) for i in (0, 1, 2, 3, 6, 7))
    for cuts in ([], [4, 5, 6, 7, 8, 9, 10]):
        reader = Reader().decode(data, cuts=cuts)
        assert (reader.decoder.counters.lost, reader.decoder.sequence) == (2, start + 8)
        assert len(reader.rows) == 6


def test_a_loss_of_more_than_two_to_the_thirty_second_events_is_exact_when_the_header_tells_the_total() -> None:
    head = ring.client(1) + ring.topic(2, b"t")
    decoder = Reader().decode(head + ring.event(1, 2, 0))
    total = 3 * 2**32 + 50  # the plugin sets it now and then, so it may lag
    decoder.decode(ring.event(1, 2, total + 7, time_ns=1), 10_000, events_total=total)
    assert decoder.decoder.counters.lost == total + 6
    assert decoder.decoder.sequence == total + 8


def test_a_sequence_that_goes_back_is_an_error_and_no_loss() -> None:
    head = ring.client(1) + ring.topic(2, b"t")
    reader = Reader().decode(head + b"".join(ring.event(1, 2, sequence) for sequence in (7, 8, 8, 3, 4)))
    assert (reader.decoder.counters.lost, reader.decoder.counters.decode_errors) == (0, {"ring": 2})
    assert len(reader.rows) == 5


def test_a_reader_that_joins_in_the_middle_of_a_group_skips_its_rest_in_silence() -> None:
    data = ring.topic(2, b"n" * 200) + ring.client(1) + ring.event(1, 0, 40)
    reader = Reader().decode(data[32 * 3 :], position=5000)
    assert len(reader.rows) == 1
    assert not reader.notices
    assert reader.decoder.counters.decode_errors == {}


def test_events_whose_names_were_announced_before_the_join_are_skipped_and_later_ones_count_as_unresolved() -> None:
    head = ring.client(1) + ring.topic(2, b"t")
    early = head + b"".join(ring.event(1, 9, sequence) for sequence in range(600))
    reader = Reader().decode(early, position=5000)
    skipped = 5000 + 512 - 5000 - 4
    counters = reader.decoder.counters
    assert (counters.source["skipped_at_join"], counters.unresolved) == (skipped, 600 - skipped)
    (notice,) = reader.told("TW901", "unresolved")
    assert notice.count == 600 - skipped
    assert counters.lost == 0


def test_learning_takes_names_and_the_sequence_but_gives_no_events() -> None:
    producer = ring.Producer(position=4000, sequence=70)
    before = ring.as_slots(producer.publish(b"c", b"t") + producer.publish(b"c", b"u"))
    after = producer.publish(b"c", b"u") + producer.publish(b"c", b"t")
    reader = Reader()
    reader.decoder.learn(before[:3], 4000)
    reader.decoder.learn(before[3:], 4003)
    assert reader.decode(after, 4000 + len(before)).decoder.counters.events == 2
    assert [row["resource"]["name"] for row in reader.rows] == ["u", "t"]
    assert reader.decoder.sequence == 74
    assert not reader.notices


def test_a_name_that_the_table_forgot_comes_back_under_its_old_identifier() -> None:
    tables = small_tables()
    reader = Reader(tables)
    head = b"".join(ring.topic(i, b"t%d" % i) for i in range(1, 200)) + ring.client(300)
    events = b"".join(ring.event(300, i, n) for n, i in enumerate([*range(1, 200), *range(1, 200), 1, 1, 2]))
    reader.decode(head + events)
    assert tables.resources.evicted > 0
    names = [row["resource"]["name"] for row in reader.rows]
    assert names == [f"t{i}" for i in [*range(1, 200), *range(1, 200), 1, 1, 2]]
    assert max(reader.batches) <= 8  # half of the table, as must_flush asks


def test_making_room_for_a_new_name_never_takes_an_old_one_that_the_same_batch_uses() -> None:
    reader = Reader(small_tables()).decode(b"".join(ring.topic(i, b"t%d" % i) for i in range(1, 18)))
    used = [[1], [2, 3, 4, 5, 6], [7, 8, 9, 10, 11], [12, 13, 14, 15], [1, 16, 17]]
    for sequence, group in enumerate(used):
        events = b"".join(ring.event(0, i, sequence * 10 + n, time_ns=i) for n, i in enumerate(group))
        reader.decode(events, position=reader.decoder.position or 0)
    assert reader.decoder.tables.resources.evicted > 0
    assert [row["resource"]["name"] for row in reader.rows] == [f"t{i}" for group in used for i in group]


def test_position_and_sequence_stand_after_each_batch_while_it_is_handed_out() -> None:
    data = ring.client(1) + b"".join(ring.event(1, 0, sequence) for sequence in range(30)) + ring.mark(2)
    decoder = RingDecoder(small_tables(), "b", slot_count=1024)
    stands = [(decoder.position, decoder.sequence, len(batch)) for batch in decoder.decode(ring.as_slots(data), 0)]
    assert stands == [(8, 6, 6), (14, 12, 6), (20, 18, 6), (26, 24, 6), (33, 30, 6)]


def test_a_million_distinct_topics_leave_the_tables_at_their_capacity() -> None:
    tables = Tables(Table[Client](1024), Table[Resource](1 << 14))
    decoder = RingDecoder(tables, "b", slot_count=1 << 15)
    # One block's slots, made once: only identifiers and the names' first bytes change from block to block.
    count = 10_000
    block = np.concatenate(
        [ring.as_slots(ring.topic(i + 1, b"%08d/flood" % i) + ring.event(0, i + 1, i)) for i in range(count)]
    ).copy()
    ids = block.view("<u4").reshape(-1, 8)
    parts = block.reshape(count, 3, 32)
    position = events = 0
    for turn in range(100):
        parts[:, 1, 1:4] = np.frombuffer(b"%03d" % turn, np.uint8)
        events += sum(len(batch) for batch in decoder.decode(block, position))
        position += len(block)
        ids[0::3, 1] += count
        ids[2::3, 2] += count
        ids[2::3, 6] += count
    assert events == 1_000_000
    assert (decoder.counters.lost, decoder.counters.unresolved, decoder.counters.decode_errors) == (0, 0, {})
    assert len(tables.resources) <= 1 << 14
    assert len(decoder._topics._entries) <= 1 << 16  # the only other place that holds names
