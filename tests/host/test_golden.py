"""Recorded logs beside the events they must decode to, and the same logs cut, damaged and packed."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.recordings import DECODERS, FOLDER, decode, golden_lines
from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS, Executed, HostEvent
from topicwarden.sources import Counters
from topicwarden_collectors.host.recognise import HEAD_BYTES, recognise
from topicwarden_collectors.mosquitto import BROKER as MOSQUITTO
from topicwarden_collectors.rabbitmq import BROKER as RABBITMQ

LOGS = sorted(FOLDER.glob("*.log"))
BROKER_LOGS = sorted(
    path
    for broker in ("mosquitto", "rabbitmq")
    for path in (FOLDER.parents[1] / broker / "logs").iterdir()
    if path.suffix in (".log", ".gz")
)
SECRET = "S3cret"
by_name = pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)


@by_name
def test_a_recorded_log_decodes_to_its_recorded_events(log: Path) -> None:
    assert golden_lines(log.read_bytes()) == log.with_suffix(".events.jsonl").read_text()


@by_name
def test_no_password_of_a_log_is_in_an_event(log: Path) -> None:
    events, _ = decode(log.read_bytes())
    assert SECRET not in repr(events)


def test_the_recordings_hold_passwords() -> None:
    # auditd writes most in hexadecimal, and some as they are.
    assert sum(SECRET.encode() in log.read_bytes() for log in LOGS) >= 6


@by_name
def test_a_log_is_recognised_packed_and_plain_and_is_no_brokers(log: Path) -> None:
    head = log.read_bytes()[:HEAD_BYTES]
    kind = log.stem.partition("-")[0]
    assert recognise(head) == kind
    assert recognise(gzip.compress(log.read_bytes())[:HEAD_BYTES]) == kind
    assert not MOSQUITTO.recognises(str(log), head)
    assert not RABBITMQ.recognises(str(log), head)


@pytest.mark.parametrize("log", BROKER_LOGS, ids=lambda path: f"{path.parent.parent.name}-{path.name}")
def test_a_brokers_log_is_not_taken(log: Path) -> None:
    with log.open("rb") as file:
        assert recognise(file.read(HEAD_BYTES)) is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n\n",
        b"\x1f\x8b",
        b"\x1f\x8bgarbage",
        b"{}\n",
        b'{"time": 1, "topic": "type=SYSCALL msg=audit(1.1:1): "}\n',
        b'1700000000: Received PUBLISH from x (d0, q0, r0, m0, \'{"event_type": "mqtt"}\', ... (2 bytes))\n',
        b"#path\tdns\n",
        b"#separator \\x09\n#path\tdns\n",
        b'Nov 28 17:05:50 gw-1 mallory: x sysmon: <Event><System><Provider Name="Linux-Sysmon"\n',
        b"__CURSOR=x\nSYSLOG_IDENTIFIER=sshd\nMESSAGE=SYSLOG_IDENTIFIER=sysmon\n",
    ],
)
def test_what_is_none_of_these_logs_is_not_taken(head: bytes) -> None:
    assert recognise(head) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LOGS), st.lists(st.integers(0, 1 << 20), max_size=30))
def test_how_a_log_is_cut_into_pieces_does_not_matter(log: Path, cuts: list[int]) -> None:
    data = log.read_bytes()
    kind = log.stem.partition("-")[0]
    whole, errors = decode(data)
    counters = Counters()
    decoder = DECODERS[kind](counters, host="golden")
    events: list[HostEvent] = []
    for start, stop in pairwise([0, *sorted(cut % len(data) for cut in cuts), len(data)]):
        events += decoder.feed(data[start:stop])
    events += decoder.finish()
    assert events == whole
    assert counters == errors


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(LOGS),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=12),
    st.sampled_from(sorted(DECODERS)),
)
def test_a_damaged_log_raises_nothing_and_its_events_keep_their_bounds(
    log: Path, damages: list[tuple[int, int, bytes]], kind: str
) -> None:
    data = bytearray(log.read_bytes())
    for place, length, replacement in damages:
        start = place % (len(data) + 1)
        data[start : start + length] = replacement
    for decoder in {kind, log.stem.partition("-")[0]}:
        events, _ = decode(bytes(data), decoder)
        for event in events:
            check_bounds(event)


LINES = [line for log in LOGS for line in log.read_bytes().split(b"\n")]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=60)), max_size=30), st.sampled_from(sorted(DECODERS))
)
def test_lines_in_any_order_raise_nothing(lines: list[bytes], kind: str) -> None:
    events, _ = decode(b"\n".join(lines), kind)
    for event in events:
        check_bounds(event)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = [json.loads(line) for line in LINES if line.startswith(b"{") and line.endswith(b"}")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(OBJECTS), st.data(), st.sampled_from(["ecs", "suricata", "zeek", "sysmon"]))
def test_values_of_any_type_in_json_raise_nothing(template: dict[str, object], data: st.DataObject, kind: str) -> None:
    record = dict(template)
    for key in data.draw(st.lists(st.sampled_from(sorted(record)), min_size=1, max_size=3)):
        inner = record[key]
        if isinstance(inner, dict) and inner and data.draw(st.booleans()):
            inner = dict(inner)
            inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON_VALUES)
            record[key] = inner
        else:
            record[key] = data.draw(JSON_VALUES)
    for event in decode(json.dumps(record).encode(), kind)[0]:
        check_bounds(event)


def check_bounds(event: HostEvent) -> None:
    repr(event).encode("utf-8", "surrogateescape")
    assert 0 <= event.time_ns < 2**63
    if isinstance(event, Executed):
        arguments = event.process.arguments
        assert len(arguments) <= MAX_ARGUMENTS
        assert all(len(argument) <= MAX_ARGUMENT for argument in arguments)


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_deeply_nested_json_raises_nothing(kind: str) -> None:
    deep = b'{"event_type": "mqtt", "event":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    assert decode(deep, kind)[0] == []


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_a_line_of_five_mebibytes_is_dropped_and_counted_and_the_next_is_read(kind: str) -> None:
    log = next(log for log in LOGS if log.stem.startswith(f"{kind}-") and "export" not in log.stem)
    expected, _ = decode(log.read_bytes())
    data = log.read_bytes() + b"{" + b"x" * (5 << 20) + b"\n" + log.read_bytes()
    events, counters = decode(data, kind)
    assert counters.decode_errors["too_long"] == 1
    assert len(events) >= len(expected)
    assert events[: len(expected) - 1] == expected[: len(expected) - 1]
