"""Recorded logs of real brokers beside the events they must decode to; `logs/record.py` made both."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mosquitto.logs.record import BASE_NS, FOLDER, decode, golden_lines, rows_of
from topicwarden.events import Tables
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.log_decode import LogDecoder

LOGS = sorted(FOLDER.glob("*.log"))


def read(name: str) -> list[dict[str, Any]]:
    return decode((FOLDER / f"{name}.log").read_bytes())[0]


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_a_recorded_log_decodes_to_its_recorded_events(log: Path) -> None:
    assert golden_lines(log.read_bytes()) == log.with_suffix(".events.jsonl").read_text()


def test_there_are_recordings_of_three_versions() -> None:
    text = b"".join(log.read_bytes() for log in LOGS)
    assert all(b"mosquitto version %s starting" % version in text for version in (b"2.0.11", b"2.0.22", b"2.1.2"))


def by(rows: list[dict[str, Any]], client_id: str, action: str) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("action") == action and row["client"]["client_id"] == client_id]


@pytest.mark.parametrize("name", ["hostile", "hostile-2.1.2"])
def test_nobody_publishes_or_connects_in_the_name_of_admin(name: str) -> None:
    rows = read(name)
    published = by(rows, "admin", "publish")
    assert [(row["resource"]["name"], row["outcome"]) for row in published] == [("plant/secret", "denied")] * 2
    assert [row["client"].get("user") for row in published] == ["root", "root"]
    assert len(by(rows, "admin", "connect")) == 1


@pytest.mark.parametrize("name", ["hostile", "hostile-2.1.2"])
def test_every_hostile_publish_is_decoded_or_counted(name: str) -> None:
    rows, counters = decode((FOLDER / f"{name}.log").read_bytes())
    log = (FOLDER / f"{name}.log").read_bytes()
    forged = log.count(b": Received PUBLISH from admin (d0, q0, r0, m0, 'plant/secret ")
    written = log.count(b": Received PUBLISH from ") + log.count(b": Denied PUBLISH from ") - forged
    decoded = sum(row.get("action") == "publish" for row in rows)
    # Of the errors three are connect lines and three filters of clients whose ids the log does not hold whole.
    assert forged == 2
    assert decoded + sum(counters.decode_errors.values()) - 6 == written


def test_lines_forged_by_a_subscription_are_events_of_nobody() -> None:
    rows = read("no-debug")
    assert not [row for row in rows if row.get("action") == "publish"]
    assert not by(rows, "admin", "connect")
    assert {(row["notice"], row["scope"]) for row in rows if "notice" in row} == {
        ("TW905", "log-type"),
        ("TW903", "ambiguous"),
    }


def test_a_line_break_in_a_certificate_is_reported_and_forges_nothing() -> None:
    rows = read("common-names")
    users = {row["client"]["client_id"]: row["client"]["user"] for row in rows if row.get("action") == "connect"}
    assert users == {
        "tls-plain": "sensor-7",
        "tls-quotes": 'dev "7", floor',
        "tls-ending": "x').",
        "tls-break": "evil\n1795426376: hello",
        "tls-end": "evil\n1795426376: Client tls-plain disconnected.\n",
        "tls-two": "evil').\n1795426376: mosquitto version 9 starting\n",
    }
    assert len(by(rows, "tls-plain", "disconnect")) == 1
    forged = [row for row in rows if row.get("notice") == "TW905"]
    assert [row["client"]["client_id"] for row in forged] == ["tls-break", "tls-end", "tls-two"]
    assert [row["witness"] for row in forged][1] == "1795426376: Client tls-plain disconnected."


def test_a_line_break_in_a_client_id_is_reported_and_forges_nothing() -> None:
    rows = read("common-names-as-ids")
    assert not [row for row in rows if "action" in row and row["client"]["client_id"] == "admin"]
    assert len(by(rows, "sensor-7", "publish")) == 2
    assert {row["notice"] for row in rows if "notice" in row} == {"TW905"}


def test_a_later_version_refuses_such_certificates() -> None:
    for name in ("common-names-2.0.22", "common-names-2.1.2"):
        denied = [row for row in read(name) if row.get("outcome") == "denied"]
        assert [row["client"]["client_id"] for row in denied] == ["tls-break", "tls-end", "tls-two"]


def test_the_end_of_a_websocket_that_was_taken_over_does_not_end_the_newcomer() -> None:
    web = [row for row in read("everyday") if row.get("resource", {}).get("name") == "ok/web"]
    assert [row["client"]["user"] for row in web] == ["alice", "alice"]
    assert web[0]["client"]["port"] != web[1]["client"]["port"]


def test_a_takeover_does_not_mix_users() -> None:
    rows = read("everyday")
    assert {row["client"]["user"] for row in by(rows, "sensor-1", "publish")} == {"alice", "bob"}
    assert [row["client"]["user"] for row in by(rows, "sensor-1", "publish")][-1] == "bob"


def test_after_a_reload_that_ends_debug_lines_nothing_is_exact() -> None:
    rows = read("reload-types")
    certainties = [row["certainty"] for row in by(rows, "one", "connect")]
    assert certainties == ["inferred", "inferred"]
    assert "exact" in {row["certainty"] for row in rows if "action" in row}


EVERYDAY = (FOLDER / "everyday.log").read_bytes()
HOSTILE = (FOLDER / "hostile.log").read_bytes()
NAMES = (FOLDER / "common-names.log").read_bytes() + (FOLDER / "common-names-as-ids.log").read_bytes()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([EVERYDAY, HOSTILE, NAMES]), st.lists(st.integers(0, 1_000_000), max_size=30), st.integers(1, 50)
)
def test_how_a_log_is_cut_into_pieces_does_not_matter(log: bytes, cuts: list[int], limit: int) -> None:
    at_once, errors = decode(log)
    counters = Counters()
    decoder = LogDecoder(Tables(), "golden", base_ns=BASE_NS, counters=counters)
    rows = []
    places = [0, *sorted(cut % len(log) for cut in cuts), len(log)]
    for start, stop in pairwise(places):
        decoder.feed(log[start:stop])
        while decoder.backlog:
            rows += rows_of(decoder.take(limit))
        assert decoder.offset <= stop
    decoder.finish()
    rows += rows_of(decoder.take())
    assert [row for row in rows if "action" in row] == [row for row in at_once if "action" in row]
    assert notices(rows) == notices(at_once)
    assert counters.decode_errors == errors.decode_errors
    assert counters.events == sum("action" in row for row in rows)


def notices(rows: list[dict[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        if "notice" in row:
            key = {"notice": row["notice"], "scope": row["scope"], "client": row.get("client")}
            found[json.dumps(key)] += row.get("count", 1)
    return found
