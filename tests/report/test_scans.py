"""Scans that a store keeps: they count as those made for a report do, stand until a newer one, and watch nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.sample_report import POLICY_FACTS, sample_inputs
from tests.report.samples import CATALOGUE, INTENDED, SIGNER, START, client, topic
from topicwarden.compare.scan import Scan
from topicwarden.events import Action, Certainty, EventBuilder, Outcome, Tables
from topicwarden.findings import Ledger
from topicwarden.output import wording
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.policy import Policy
from topicwarden.report import html_page
from topicwarden.report.build import build_report
from topicwarden.report.inputs import GrantsRead
from topicwarden.report.integrity import read_log
from topicwarden.report.model import Report
from topicwarden.report.reading import Span
from topicwarden.report.scans import (
    ALWAYS,
    DANGEROUS,
    KINDS,
    KeptScan,
    ScannedSource,
    Succession,
    complete,
    scan_facts,
    scans_of,
    source_rows,
)
from topicwarden.report.standing import superseded_sql
from topicwarden.report.triage import State, Wanted, find
from topicwarden.report.triage_stored import StoredTellings
from topicwarden.sources import SourceOptions, load_brokers
from topicwarden.store.model import Entry, EntryKind
from topicwarden.store.reader import Store
from topicwarden.store.views import Views
from topicwarden.store.writer import StoreWriter

SECOND = 10**9
LENGTH = 100 * SECOND
PERIOD = Span(START, START + LENGTH - 1)
TOO_MUCH = "user gw\ntopic readwrite plant/#\n\nuser sensor-1\ntopic write plant/#\n"
MENDED = "user gw\ntopic readwrite plant/#\n\nuser sensor-1\ntopic write plant/+/sensor-1/telemetry\n"


@dataclass
class Scanned:
    """What a scan found."""

    documents: list[dict[str, Any]]
    source: ScannedSource
    read: GrantsRead


def scanned(acl: Path, text: str, now_ns: int, policy: Policy | None = INTENDED) -> Scanned:
    acl.write_text(text)
    (grants,) = load_brokers()["mosquitto"].grants(str(acl), SourceOptions(broker="plant"))
    ledger = Ledger(CATALOGUE)
    result = Scan(ledger, policy, now_ns).run(grants)
    documents = [json.loads(encode(finding_document(Event.OPENED, one, Origin()))) for one in ledger.findings()]
    numbers = (result.grants, result.accounts, result.undecided)
    return Scanned(
        documents,
        ScannedSource(result.title, result.broker, str(acl), *numbers),
        GrantsRead(result.title, result.broker, *numbers, False, str(acl), policy is not None),
    )


def watch(folder: Path, from_s: float, to_s: float) -> None:
    """Keep an event a second as `watch` does."""
    now = [START + int(from_s * SECOND)]
    source = {"title": "mosquitto plugin, every event", "broker": "plant", "host": False, "blind_spots": []}
    about = {"command": "watch", "policy": {"sha256": POLICY_FACTS.sha256}, "sources": [source]}
    with StoreWriter(folder, SIGNER, about=about, now_ns=lambda: now[0]) as writer:
        builder = EventBuilder(Tables())
        name = topic("plant/a/sensor-1/telemetry")
        builder.add(now[0], Action.PUBLISH, client(), name, Outcome.ALLOWED, Certainty.EXACT)
        writer.write(builder.take())
        now[0] = START + int(to_s * SECOND)


def keep(folder: Path, at_s: float, one: Scanned, *, sha256: str | None = POLICY_FACTS.sha256, **facts: Any) -> None:
    """Keep a scan as `scan --store` does."""
    now_ns = START + int(at_s * SECOND)
    row = {
        "title": one.source.title,
        "broker": one.source.broker,
        "kind": "mosquitto",
        "host": False,
        "blind_spots": [],
    }
    (more,) = source_rows([one.source])
    about = {
        "command": "scan",
        "policy": None if sha256 is None else {"sha256": sha256},
        "sources": [row | more],
        "scan": scan_facts(now_ns, len(one.documents), whole=True) | facts,
    }
    moment = wording.timestamp(now_ns, 9)
    with StoreWriter(folder, SIGNER, about=about, now_ns=lambda: now_ns) as writer:
        for document in one.documents:
            told = document | {"first_seen": moment, "last_seen": moment}
            writer.finding(now_ns, "plant", document["code"], told)


def reported(folder: Path, span: Span = PERIOD, **more: Any) -> Report:
    log = read_log(Store(folder))
    return build_report(
        sample_inputs(folder, span=span, runs=log.runs, entries=log.entries, verified=True, **more), CATALOGUE
    )


def statuses(report: Report) -> Mapping[tuple[str, str], str]:
    return {(one.framework, one.control): one.status for one in report.controls}


def of_excess(state: State = "all") -> Wanted:
    return Wanted(frozenset({"TW101"}), state=state)


def excess(report: Report) -> int:
    return sum(one.code == "TW101" for one in report.findings)


@pytest.fixture
def acl(tmp_path: Path) -> Path:
    return tmp_path / "acl"


@pytest.mark.parametrize("text", [TOO_MUCH, MENDED])
def test_a_kept_scan_counts_exactly_as_one_that_is_made_for_the_report(tmp_path: Path, acl: Path, text: str) -> None:
    one = scanned(acl, text, START + 50 * SECOND)
    # Nobody can watch into the store meanwhile: no time without a writer is so short that it is no gap.
    for name in ("with", "without"):
        watch(tmp_path / name, 0, 50)
        if name == "with":
            keep(tmp_path / name, 50.2, one)
        watch(tmp_path / name, 50.5, 100)
    ours = reported(tmp_path / "with")
    fresh = reported(tmp_path / "without", grants=[one.read], scanned=one.documents)
    assert statuses(ours) == statuses(fresh)
    assert "satisfied" in statuses(ours).values()
    assert ours.grants_read
    assert ours.sets.granted.value == fresh.sets.granted.value == 2
    values = [one.figure.value for one in ours.sets.differences]
    assert values == [one.figure.value for one in fresh.sets.differences]
    assert ours.table("privilege").rows == fresh.table("privilege").rows
    assert ours.section("privilege").warnings == fresh.section("privilege").warnings
    assert values[0] == (1 if text == TOO_MUCH else 0)
    # Watching goes on around it: no gap, and the scan is nothing that was watched.
    assert not ours.table("gaps").rows
    assert len(ours.table("sources").rows) == 2
    assert ours.table("scans").column("source") == [f"acl_file {acl}"]


def test_what_a_newer_scan_does_not_find_any_more_does_not_stand_and_is_told_apart(tmp_path: Path, acl: Path) -> None:
    folder = tmp_path / "s"
    watch(folder, 0, 30)
    bad = scanned(acl, TOO_MUCH, START)
    keep(folder, 30.2, bad)
    watch(folder, 30.5, 60)
    before = reported(folder, Span(START, START + 40 * SECOND))
    keep(folder, 60.2, scanned(acl, MENDED, START))
    watch(folder, 60.5, 100)
    after = reported(folder)
    (gone,) = after.table("gone-privilege").rows
    (stood,) = before.table("privilege").rows
    assert (gone[1], gone[2], gone[-1]) == ("TW101", "sensor-1", stood[-1])
    assert gone[7:10] == (*[START + int(30.2 * SECOND)] * 2, START + int(60.2 * SECOND))
    assert not [table for table in before.section("privilege").tables if table.id == "gone-privilege"]
    assert (excess(before), excess(after)) == (1, 0)
    assert after.sets.differences[0].figure.value == 0
    assert statuses(before)["nist-800-53r5", "AC-2"] == "not satisfied"
    assert statuses(after)["nist-800-53r5", "AC-2"] == "satisfied"
    html_page.render(after)
    with Views(Store(folder)) as views:
        for table in after.tables():
            if table.query is not None and not table.query.of_period and table.id != "deviations-over-time":
                assert len(views.rows(table.query.sql)) == table.total, table.id
                assert not set('"$`\\!') & set(table.query.sql)
    # Of the time before, it stood, whatever came later; and it stands again once it is found again.
    assert excess(reported(folder, Span(START, START + 40 * SECOND))) == 1
    keep(folder, 100.2, bad)
    assert excess(reported(folder, Span(START, START + 101 * SECOND))) == 1
    assert excess(reported(folder)) == 0


def test_a_list_of_findings_tells_what_the_newest_scan_still_found(tmp_path: Path, acl: Path) -> None:
    folder = tmp_path / "s"
    bad = scanned(acl, TOO_MUCH, START)
    for at, one in ((10, bad), (20, bad), (30, scanned(acl, MENDED, START))):
        keep(folder, at, one)
    (found,) = find(StoredTellings(Store(folder)), of_excess(), 10).standing
    assert (found.runs, found.document["client"]["user"]) == (2, "sensor-1")
    times = [wording.timestamp(START + at * SECOND, 9) for at in (10, 20, 30)]
    assert [found.first_seen, found.last_seen, found.gone] == times
    counts: dict[State, int] = {"all": 1, "open": 0, "accepted": 0, "gone": 1}
    for state, count in counts.items():
        assert find(StoredTellings(Store(folder)), of_excess(state), 10).total == count
    # To look for one code, or one finding, does not hide what newer scans say.
    assert (
        find(StoredTellings(Store(folder)), Wanted(prefix=found.document["fingerprint"], state="open"), 10).total == 0
    )
    keep(folder, 40, bad)
    (found,) = find(StoredTellings(Store(folder)), Wanted(prefix=found.document["fingerprint"]), 10).standing
    assert (found.gone, found.runs) == (None, 3)


@pytest.mark.parametrize(
    "newer",
    [
        {"findings": 9},  # its writer died before all was sealed, or the disk was full
        {"findings": None},
        {"whole": False},
        {"sha256": None},
        {"configuration": "another acl_file"},
        {"broker": "another"},
    ],
)
def test_a_scan_that_did_not_look_at_the_same_or_is_not_whole_replaces_nothing(
    tmp_path: Path, acl: Path, newer: dict[str, Any]
) -> None:
    folder = tmp_path / "s"
    keep(folder, 10, scanned(acl, TOO_MUCH, START))
    other = scanned(acl, MENDED, START)
    place = {key: value for key, value in newer.items() if key in ("configuration", "broker")}
    facts = {key: value for key, value in newer.items() if key not in place}
    keep(folder, 20, replace(other, source=replace(other.source, **place)), **facts)
    assert find(StoredTellings(Store(folder)), of_excess("open"), 10).total == 1
    assert excess(reported(folder)) == 1


def test_a_scan_is_no_time_that_was_watched(tmp_path: Path, acl: Path) -> None:
    folder = tmp_path / "s"
    watch(folder, 0, 40)
    keep(folder, 60, scanned(acl, MENDED, START))
    for at_work in (False, True):  # if somebody is at work, it is a scan
        report = reported(folder, at_work=at_work)
        assert [row[:2] for row in report.table("gaps").rows] == [(START + 40 * SECOND, PERIOD.to_ns)]
        assert {row[4] for row in report.table("sources").rows} == {START + 40 * SECOND}
        assert "satisfied" not in statuses(report).values()
    assert read_log(Store(folder)).held == Span(START, START + 60 * SECOND)


def test_a_store_of_scans_alone_shows_how_grants_stood_and_satisfies_nothing(tmp_path: Path, acl: Path) -> None:
    folder = tmp_path / "s"
    keep(folder, 10, scanned(acl, MENDED, START))
    keep(folder, 90, scanned(acl, TOO_MUCH, START))
    for span, bad in ((Span(START, START + 50 * SECOND), 0), (PERIOD, 1)):
        report = reported(folder, span, allowed_gap_ns=1 << 60)
        assert report.sets.differences[0].figure.value == bad
        assert "satisfied" not in statuses(report).values()
        assert report.table("gaps").total == 1
        assert any("nobody watched" in one.reason for one in report.controls)
        # That nothing was refused is not known either.
        assert report.sets.observed.value is None
        told = {one.name: (one.figure.value, one.figure.note) for one in report.sets.differences}
        assert told["observed, denied"] == (None, "nobody watched")


def test_grants_that_were_held_against_another_policy_are_not_called_as_intended(tmp_path: Path, acl: Path) -> None:
    for sha256 in (None, "0" * 64):
        folder = tmp_path / str(sha256)[:4]
        watch(folder, 0, 50)
        keep(folder, 50.2, scanned(acl, MENDED, START), sha256=sha256)
        watch(folder, 50.5, 100)
        report = reported(folder)
        assert report.sets.differences[0].figure.value is None
        (one,) = [one for one in report.controls if (one.framework, one.control) == ("nist-800-53r5", "AC-2")]
        assert one.status == "not assessed"
        assert "another policy, or none, judged the grants of broker plant" in one.reason


def test_a_scan_made_for_the_report_is_the_newest(tmp_path: Path, acl: Path) -> None:
    folder = tmp_path / "s"
    keep(folder, 10, scanned(acl, TOO_MUCH, START))
    fresh = scanned(acl, MENDED, START)
    report = reported(folder, grants=[fresh.read], scanned=fresh.documents)
    assert (excess(report), report.sets.granted.value) == (0, 2)
    assert report.table("gone-privilege").total == 1
    again = scanned(acl, TOO_MUCH, START)
    report = reported(folder, grants=[again.read], scanned=again.documents)
    assert excess(report) == 1
    assert not [table for table in report.tables() if table.id == "gone-privilege"]
    # One without room for all that it found says of nothing that it is gone.
    assert excess(reported(folder, grants=[fresh.read], scanned=[], scanned_whole=False)) == 1


def test_what_somebody_else_told_of_too_is_not_gone_for_a_scan(tmp_path: Path, acl: Path) -> None:
    folder = tmp_path / "s"
    bad = scanned(acl, TOO_MUCH, START)
    with StoreWriter(folder, SIGNER, about={"command": "watch", "sources": []}, now_ns=lambda: START) as writer:
        writer.finding(START, "plant", "TW101", bad.documents[0])
    keep(folder, 10, bad)
    keep(folder, 20, scanned(acl, MENDED, START))
    assert excess(reported(folder)) == 1
    assert find(StoredTellings(Store(folder)), of_excess("open"), 10).total == 1


def test_what_a_writer_says_of_its_scan_is_read_whatever_stands_there() -> None:
    for facts in (
        {"about": {"command": "scan"}},
        {"about": {"command": "scan", "sources": [1, {}, {"blind_spots": 1}], "policy": 1, "scan": 1}},
        {"about": {"command": "scan", "sources": {}, "scan": {"time_ns": 1 << 70, "findings": -1, "whole": 1}}},
        {"about": {"command": "scan", "policy": {"sha256": 1}, "scan": {"time_ns": True, "findings": "x"}}},
    ):
        (scan,) = scans_of([Entry(0, EntryKind.OPENED, START, facts=facts)])
        assert (scan.time_ns, scan.whole, scan.policy) == (START, False, None)
        assert complete([scan], {}) == []


# Two ways to the same answer ------------------------------------------------------------------------------------------

DUCK = duckdb.connect()
CODES = ("TW101", "TW102", DANGEROUS, "TW105")
BROKERS = ("a", "b'\"$\udcff")
sources = st.lists(
    st.builds(ScannedSource, st.just("t"), st.sampled_from(BROKERS), st.sampled_from("xy"), compared=st.booleans()),
    max_size=3,
).map(tuple)
runs = st.lists(st.tuples(sources, st.booleans(), st.booleans()), min_size=1, max_size=5)
tellings = st.sets(st.tuples(st.integers(0, 4), st.sampled_from(BROKERS), st.sampled_from(CODES)), max_size=12)


def plainly_gone(told: Sequence[KeptScan], scans: Sequence[KeptScan], broker: str, code: str) -> bool:
    """Whether each scan that told of it has a newer whole one that looked at all the same for the same."""

    def again(newer: KeptScan, older: KeptScan) -> bool:
        before = {one.configuration for one in older.sources if one.broker == broker}
        now = [one for one in newer.sources if one.broker == broker]
        looked = {
            "TW101": newer.policy is not None,
            "TW102": all(one.compared for one in now),
            DANGEROUS: newer.policy is None or older.policy is not None,
        }.get(code, True)
        return bool(before) and before <= {one.configuration for one in now} and looked

    return all(any(again(newer, one) for newer in scans if newer.whole and newer.number > one.number) for one in told)


@settings(max_examples=40, deadline=None)
@given(runs, tellings)
def test_the_printed_condition_and_the_list_of_findings_say_what_is_gone_as_one_would_plainly(
    made: list[tuple[tuple[ScannedSource, ...], bool, bool]], told: set[tuple[int, str, str]]
) -> None:
    scans = [
        KeptScan(number, number, read, "p" if policy else None, whole=whole)
        for number, (read, policy, whole) in enumerate(made)
    ]
    told = {one for one in told if one[0] < len(scans) and one[1] in scans[one[0]].configurations}
    succession = Succession(scans, complete(scans, {}))
    causes = {(broker, code) for _, broker, code in told}
    by = {cause: [scans[run] for run, *rest in sorted(told) if tuple(rest) == cause] for cause in causes}
    gone = {cause for cause, ones in by.items() if plainly_gone(ones, scans, *cause)}
    listed = {cause for cause, ones in by.items() if succession.gone_at([one.number for one in ones], *cause)}
    assert listed == gone
    condition = superseded_sql(scans, succession) or "false"
    with DUCK.cursor() as connection:
        connection.execute("create or replace table finding_history (run int, broker text, code text)")
        for run, broker, code in told:
            shown = json.loads(encode({"broker": broker}))["broker"]
            connection.execute("insert into finding_history values (?, ?, ?)", [run, shown, code])
        rows = connection.execute(
            f"select distinct broker, code from finding_history where ({condition}) is not true"
        ).fetchall()
    standing = {(json.loads(encode({"broker": broker}))["broker"], code) for broker, code in causes - gone}
    assert set(rows) == standing


def test_every_kind_of_code_is_looked_for_like_its_first() -> None:
    assert [kind for kind in KINDS if kind != ALWAYS and kind not in KINDS[kind]] == []
