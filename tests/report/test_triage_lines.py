"""Findings in a file of JSON lines: the last word on each counts, whatever else stands in the file."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.report.samples import CATALOGUE
from tests.report.test_triage import SECOND, START, document
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.output import wording
from topicwarden.report import triage_lines
from topicwarden.report.accepting import propose
from topicwarden.report.triage import UNKNOWN, Found, Wanted, find
from topicwarden.report.triage_lines import LineTellings
from topicwarden.report.triage_text import brief_lines, full_lines


def summary(command: str = "scan", at_ns: int = START, **more: Any) -> dict[str, Any]:
    return {
        "type": "summary",
        "command": command,
        "ended": wording.timestamp(at_ns, 9),
        "policy": "p.yaml",
        "sources": [],
        "events": 0,
        "overflow": 0,
        "grants": [{"title": "acl_file acl", "broker": "plant"}] if command == "scan" else [],
        **more,
    }


def excess(number: int, at_ns: int = START, **more: Any) -> dict[str, Any]:
    return document(number, at_ns, code="TW101", name="grant.excess", **more)


def written(path: Path, *rows: dict[str, Any] | bytes) -> Path:
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


def looked(path: Path, wanted: Wanted | None = None, limit: int | None = 10) -> Found:
    return find(LineTellings(path), wanted or Wanted(), limit)


def stands(found: Found) -> dict[str, str | None]:
    return {one.document["title"]: one.gone for one in found.standing}


@pytest.mark.parametrize("limit", [10, None])
def test_the_last_document_of_each_finding_counts_and_other_lines_are_counted(
    tmp_path: Path, limit: int | None
) -> None:
    path = written(
        tmp_path / "f",
        document(1, START),
        b"\n  \r\n",
        document(2, START, severity="critical"),
        b"not json\n",
        b"\xff\xfe\x00\n",
        b"[" * 100_000 + b"\n",
        b'{"type":"finding"}\n',
        json.dumps({"event": {"kind": "alert"}, "rule": {"id": "TW201"}}).encode() + b"\n",
        json.dumps(document(3, START)).replace("finding 3", "\\ud800").encode() + b"\n",
        {**document(4, START), "evidence": {"alike": "many"}},
        {**document(5, START), "count": 1, "last_seen": "2026-01-01T00:00:00.00000000\u0661Z"},
        summary("watch"),
        document(1, START + SECOND, "updated", count=10),
        json.dumps(document(1, START + 2 * SECOND, "final", count=12)).encode(),  # and no line feed
    )
    found = looked(path, limit=limit)
    rows = {one.document["title"]: one for one in found.standing}
    assert {title: (one.document["count"], one.runs, one.gone) for title, one in rows.items()} == {
        "finding 1": (12, 1, None),
        "finding 2": (1, 1, None),
    }
    assert rows["finding 1"].last_seen == wording.timestamp(START + 2 * SECOND, 9)
    assert (found.total, found.unreadable) == (2, 8)
    assert looked(path, Wanted(frozenset({"TW201"}), SEVERE)).total == 1


SEVERE = 4


def test_a_newer_scan_in_the_same_file_says_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    first = [excess(1), excess(2), summary()]
    assert stands(looked(written(path, *first))) == {"finding 1": None, "finding 2": None}
    later = START + SECOND
    again = [excess(2, later), summary(at_ns=later)]
    assert stands(looked(written(path, *first, *again))) == {
        "finding 1": wording.timestamp(later, 9),
        "finding 2": None,
    }
    assert looked(path, Wanted(state="open")).total == looked(path, Wanted(state="gone")).total == 1
    # Without a summary it is not known whether it is all that a scan found, nor with a line that cannot be read.
    assert stands(looked(written(path, *first, excess(2, later)))) == {"finding 1": None, "finding 2": None}
    for other in (
        [b"?\n", *again],
        [excess(2, later), summary(overflow=1)],
        [excess(2, later), summary(policy=None)],
        [excess(2, later), summary("check")],
        [excess(2, later), summary(grants=[{"title": "another", "broker": "plant"}])],
    ):
        assert stands(looked(written(path, *first, *other)))["finding 1"] is None
    observed = summary(sources=[{"title": "log"}], events=7)
    assert stands(looked(written(path, *first, excess(2), observed)))["finding 1"] == UNKNOWN


def test_only_so_many_runs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triage_lines, "MAX_RUNS", 2)
    rows = [excess(1), summary(), summary(), excess(2), summary(), summary()]
    assert stands(looked(written(tmp_path / "f", *rows))) == {
        "finding 1": wording.timestamp(START, 9),
        "finding 2": None,
    }


def test_a_line_that_is_too_long_is_counted_and_what_follows_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triage_lines, "_CHUNK", 100)
    monkeypatch.setattr(triage_lines, "MAX_LINE", len(json.dumps(document(1, START))))
    long = [b"x" * 5000 + b"\n", b"y" * (triage_lines.MAX_LINE + 1) + b"\n", b"z" * 5000]
    found = looked(
        written(tmp_path / "f", long[0], document(1, START), long[1], document(2, START), long[2]), limit=None
    )
    assert (stands(found), found.unreadable) == ({"finding 1": None, "finding 2": None}, 3)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"topicwarden: 1\nroles: {}\n", os.urandom(5000), b'{"a": 1}\n' * 100])
def test_a_file_in_which_nothing_is_ours_is_named_as_that(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ObservationError, match="not one line in it is a finding or a summary"):
        looked(written(tmp_path / "f", b"?" + data))
    assert looked(written(tmp_path / "f", summary())).total == 0


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "f.gz").write_bytes(gzip.compress(json.dumps(document(1, START)).encode()))
    for path, said in (
        (tmp_path / "fifo", "not a plain file"),
        (Path("/dev/zero"), "not a plain file"),
        (tmp_path, "not a plain file"),
        (tmp_path / "f.gz", "it is compressed"),
        (tmp_path / "none", "cannot be read: No such file"),
    ):
        with pytest.raises(ObservationError, match=said):
            LineTellings(path)


def test_a_file_that_changes_meanwhile_is_said_to(tmp_path: Path) -> None:
    path = written(tmp_path / "f", document(1, START), document(2, START))
    found = looked(path, limit=None)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ObservationError, match="changed while it was read"):
        list(found.standing)


texts = st.text(max_size=8) | st.sampled_from(
    ["", "\x1b[2J", "\u202e", "\\u{dcff}", "TW101", "publish to a", "=x", "9" * 40]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
KEYS = [*document(1, START), "evidence.alike", "evidence.where_file", "evidence.alike_names", "evidence.grant"]


@settings(max_examples=150, deadline=None)
@given(
    base=st.sampled_from(["TW101", "TW103", "TW201", "TW302", "TW111", "TW401", "TW910"]),
    changed=st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
    noise=st.binary(max_size=60),
)
@example(base="TW101", changed={"code": "\x1f", "certainty": "\x1b[2J"}, noise=b"")
@example(base="TW101", changed={"count": 10**4000, "evidence": {"x": float("inf")}}, noise=b"")
@example(base="TW101", changed={"evidence.where_file": "", "evidence.alike": -1, "witnesses": []}, noise=b"\x00\n{")
def test_no_line_however_wrong_breaks_anything_or_reaches_a_terminal_raw(
    tmp_path_factory: pytest.TempPathFactory, base: str, changed: dict[str, Any], noise: bytes
) -> None:
    row = excess(1) | {"code": base}
    row["evidence"] = {"where_file": "acl", "grant": "topic write a", "holder": "user 'a'"}
    for key, value in changed.items():
        name, _, inner = key.partition(".")
        if not inner:
            row[name] = value
        elif isinstance(row["evidence"], dict):
            row["evidence"][inner] = value
    path = written(tmp_path_factory.mktemp("f") / "f", summary(), noise + b"\n", row)
    found = looked(path)
    for one in found.standing:
        lines = [*brief_lines(one, 80), *full_lines(one, CATALOGUE, 80, None)]
        assert all(line.plain.isprintable() for line in lines)
        for wide in (False, True):
            try:
                propose(one.document, CATALOGUE, {}, wide=wide)
            except ConfigurationError:
                continue
