"""A store's findings as they stand: the newest word of each, whatever was written in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.output import wording
from topicwarden.policy import Glob
from topicwarden.report import triage
from topicwarden.report.findings import SEVERITIES
from topicwarden.report.triage import Found, Wanted, find
from topicwarden.report.triage_stored import StoredTellings
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.writer import StoreWriter

SIGNER = Signer.generate("test")
SECOND = 1_000_000_000
HOUR = 3600 * SECOND
START = 1_780_272_000 * SECOND


def document(number: int, at_ns: int, event: str = "opened", **more: Any) -> dict[str, Any]:
    stamp = wording.timestamp(at_ns, 9)
    return {
        "type": "finding",
        "event": event,
        "fingerprint": sha256(str(number).encode()).hexdigest()[:32],
        "code": "TW201",
        "name": "publish.outside-policy",
        "severity": "high",
        "title": f"finding {number}",
        "broker": "plant",
        "host": None,
        "client": {
            "protocol": "mqtt",
            "client_id": f"c-{number}",
            "user": f"u-{number}",
            "identity": "verified",
            "address": None,
            "port": None,
            "tls_subject": None,
            "vhost": None,
        },
        "scope": [],
        "count": 1,
        "certainty": "exact",
        "first_seen": stamp,
        "last_seen": stamp,
        "witnesses": [],
        "more_witnesses": 0,
        "evidence": {},
        "behind": [],
        "more_behind": 0,
        "accepted": None,
        **more,
    }


def at(row: Mapping[str, Any]) -> int:
    date, fraction = str(row["last_seen"])[:-1].split(".")
    seconds = int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp())
    return seconds * SECOND + int(fraction)


def written(folder: Path, *segments: Sequence[Mapping[str, Any]]) -> Store:
    """Write a store with a segment for each of these lists."""
    for rows in segments:
        with StoreWriter(folder, SIGNER, seal_seconds=60) as writer:
            for row in rows:
                writer.finding(at(row), row["broker"], row["code"], row)
    return Store(folder)


def shown(found: Found) -> list[tuple[str, int, int]]:
    return [(one.document["title"], one.document["count"], one.runs) for one in found.standing]


def test_the_newest_word_counts_also_when_it_is_about_an_earlier_hour(tmp_path: Path) -> None:
    late = document(1, START + 2 * HOUR, "opened", count=7)
    store = written(
        tmp_path / "s",
        [document(1, START + HOUR), document(1, START + HOUR, "updated", count=10)],
        [late, document(2, START, severity="low")],
        [document(1, START, "updated", count=9, first_seen=wording.timestamp(START - HOUR, 9))],
    )
    found = find(StoredTellings(store), Wanted(), 10)
    (first, second) = list(found.standing)
    assert (first.document["count"], first.runs) == (9, 2)
    assert (first.first_seen, first.last_seen) == (
        wording.timestamp(START - HOUR, 9),
        wording.timestamp(START + 2 * HOUR, 9),
    )
    assert second.document["title"] == "finding 2"
    assert (found.total, found.unreadable, found.overflow) == (2, 0, 0)


def test_the_gravest_and_newest_come_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    rows = [document(n, START + n * SECOND, severity=SEVERITIES[n % 5]) for n in range(50)]
    store = written(tmp_path / "s", rows[:20], rows[20:])
    found = find(StoredTellings(store), Wanted(), 3)
    assert [title for title, _, _ in shown(found)] == ["finding 49", "finding 44", "finding 39"]
    assert found.total == 50
    assert len(shown(find(StoredTellings(store), Wanted()))) == 50


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Wanted(codes=frozenset({"TW403"})), {2}),
        (Wanted(severity=SEVERITIES.index("medium")), {1, 2}),
        (Wanted(broker=Glob("pl*")), {1, 3}),
        (Wanted(host=Glob("ci-?")), {2, 3}),
        (Wanted(user=Glob("u-1")), {1}),
        (Wanted(user=Glob("root")), {3}),
        (Wanted(since=wording.timestamp(START + SECOND, 9)), {2, 3}),
        (Wanted(state="open"), {1, 2}),
        (Wanted(state="accepted"), {3}),
        (Wanted(state="accepted", severity=1), set()),
    ],
)
def test_each_filter_takes_what_it_says(tmp_path: Path, wanted: Wanted, numbers: set[int]) -> None:
    behind = {"host": "ci-7", "executable": "/bin/nc", "arguments": [], "user": "root"}
    rows = [
        document(1, START),
        document(2, START + SECOND, code="TW403", severity="medium", broker="", host="ci-1", client=None),
        document(3, START + 2 * SECOND, severity="info", accepted="why (until 2027-01-01)", behind=[behind]),
    ]
    found = find(StoredTellings(written(tmp_path / "s", rows)), wanted, 10)
    assert {title for title, _, _ in shown(found)} == {f"finding {number}" for number in numbers}
    assert found.total == len(numbers)


BROKEN: list[dict[str, Any]] = [
    {"fingerprint": "no"},
    {"severity": "dreadful"},
    {"client": {"user": "a"}},
    {"witnesses": [1]},
    {"behind": ["x"]},
    {"count": "many"},
    {"last_seen": "yesterday"},
    {"scope": [None]},
]


def test_what_cannot_be_read_is_counted_and_hides_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with StoreWriter(folder, SIGNER, seal_seconds=60) as writer:
        for broken in BROKEN:
            writer.finding(START, "plant", "TW201", {**document(7, START), **broken})
        writer.finding(START, "plant", "TW201", {"type": "finding"})
        writer.finding(START, "plant", "TW201", document(1, START))
    found = find(StoredTellings(Store(folder)), Wanted(), 10)
    assert shown(found) == [("finding 1", 1, 1)]
    assert found.unreadable == len(BROKEN) + 1


def test_more_causes_than_there_is_room_for_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triage, "MAX_KNOWN", 3)
    store = written(tmp_path / "s", [document(number, START) for number in range(5)])
    found = find(StoredTellings(store), Wanted(), 10)
    assert (found.total, found.overflow) == (3, 2)


told = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 3 * HOUR), st.sampled_from(["opened", "updated", "final"]), st.integers(1, 99)
    ),
    max_size=12,
)


@settings(max_examples=12, deadline=None)
@given(segments=st.lists(told, min_size=1, max_size=4), limit=st.none() | st.integers(1, 6))
def test_it_says_what_going_through_everything_in_order_says(
    tmp_path_factory: pytest.TempPathFactory, segments: list[list[tuple[int, int, str, int]]], limit: int | None
) -> None:
    rows = [
        [
            document(number, START + at_ns, event, count=count, severity=SEVERITIES[number])
            for number, at_ns, event, count in segment
        ]
        for segment in segments
    ]
    store = written(tmp_path_factory.mktemp("store") / "s", *rows)
    plain: dict[str, list[dict[str, Any]]] = {}
    for segment in rows:
        # Within a segment rows lie by hour.
        for row in sorted(segment, key=lambda row: at(row) // HOUR):
            plain.setdefault(row["fingerprint"], []).append(row)
    expected = {
        key: (
            said[-1]["count"],
            min(row["first_seen"] for row in said),
            max(row["last_seen"] for row in said),
            max(sum(row["event"] == "opened" for row in said), 1),
        )
        for key, said in plain.items()
    }
    found = find(StoredTellings(store), Wanted(), limit)
    got = {
        one.document["fingerprint"]: (one.document["count"], one.first_seen, one.last_seen, one.runs)
        for one in found.standing
    }
    assert found.total == len(expected)
    gravest = sorted(plain, key=lambda key: SEVERITIES.index(plain[key][0]["severity"]), reverse=True)
    assert got == {key: expected[key] for key in gravest[:limit]}
