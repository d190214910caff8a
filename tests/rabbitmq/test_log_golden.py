"""Recorded logs of a real node beside what they must decode to; `logs/record.py` made both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rabbitmq.logs.record import FOLDER, facts_text, golden_lines
from topicwarden.sources import Counters, SourceOptions
from topicwarden_collectors.rabbitmq.log_file import looks_like_log, read_log
from topicwarden_collectors.rabbitmq.log_messages import LogJoiner, LogMessage, Undecodable, decode_log
from topicwarden_collectors.rabbitmq.log_spelling import Spelling

LOGS = sorted(FOLDER.glob("*.log"))
JSON_LINES = [
    line for path in LOGS if path.name.endswith(".json.log") for line in path.read_bytes().split(b"\n") if line
]


def test_there_are_recordings_of_both_formats() -> None:
    assert {path.name for path in LOGS} == {"everyday.log", "everyday.json.log", "hostile.log", "hostile.json.log"}


@pytest.mark.parametrize("path", LOGS, ids=lambda path: str(path.name))
def test_a_recorded_log_gives_the_recorded_events(path: Path) -> None:
    expected = path.parent / f"{path.name.removesuffix('.log')}.events.jsonl"
    assert golden_lines(path) == expected.read_text()


@pytest.mark.parametrize("name", ["everyday", "hostile"])
def test_recorded_messages_say_the_recorded_facts(name: str) -> None:
    assert facts_text((FOLDER / f"{name}.json.log").read_bytes()) == (FOLDER / f"{name}.json.facts.txt").read_text()


def test_an_everyday_log_says_the_same_as_text_and_as_json() -> None:
    def rows(name: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in golden_lines(FOLDER / name).splitlines()]

    # Only the firehose's and the node's own counts differ: the exchange has no message of the node's start and stop.
    text, as_json = rows("everyday.log"), rows("everyday.json.log")
    assert [row for row in text if "action" in row] == [row for row in as_json if "action" in row]


def test_a_hostile_text_log_says_nothing_that_the_json_log_does_not() -> None:
    def events(name: str) -> set[str]:
        return {line for line in golden_lines(FOLDER / name).splitlines() if '"outcome": "denied"' in line}

    both = events("hostile.log") & events("hostile.json.log")
    only_text = [json.loads(line) for line in events("hostile.log") - both]
    # Names with line feeds are not whole in text, so a login is told without the user's name; no more than that.
    assert {row["action"] for row in only_text} <= {"authenticate", "connect", "subscribe"}
    assert all("user" not in row["client"] for row in only_text)


def test_no_name_can_begin_a_line_of_a_text_log() -> None:
    """The node puts time, level and process before the lines that names make, too; so they are no messages."""
    own = re.compile(rb"2026-[0-9: .-]{21}\+00:00 \[[a-z]+\] <0\.\d+\.0> ")
    assert any(b"<0.1.0> Channel error on connection <0.2.0> (10.0.0.1" in line for line in HOSTILE_LINES)
    assert all(own.match(line) and b"<0.1.0>" not in line[:60] for line in HOSTILE_LINES if line)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: str(path.name))
def test_a_log_is_told_by_its_beginning(path: Path) -> None:
    assert looks_like_log(path.read_bytes()[:4096])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(JSON_LINES), st.data())
def test_damaged_messages_never_raise(line: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line) - 1))
    length = data.draw(st.integers(0, 8))
    damaged = line[:at] + data.draw(st.binary(max_size=8)) + line[at + length :]
    message = decode_log(damaged)
    if isinstance(message, LogMessage):
        joiner = LogJoiner(data.draw(st.sampled_from(Spelling)))
        joiner.feed(message)
        joiner.flush()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(body: bytes) -> None:
    assert isinstance(decode_log(body), LogMessage | Undecodable)
    looks_like_log(body)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_shuffled_and_cut_text_log_never_raises(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = data.draw(st.lists(st.sampled_from(HOSTILE_LINES) | st.binary(max_size=40), max_size=40))
    path = tmp_path_factory.mktemp("log") / "rabbit@host.log"
    path.write_bytes(b"\n".join(lines)[data.draw(st.integers(0, 30)) :])
    counters = Counters()
    events = sum(len(batch) for batch in read_log(path, SourceOptions(), counters))
    assert counters.events == events


HOSTILE_LINES = (FOLDER / "hostile.log").read_bytes().split(b"\n")
