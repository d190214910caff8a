"""A report holds what the store holds of a period, says first what could not be seen, and claims nothing beyond."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.sample_report import POLICY_FACTS, sample_inputs, sample_report
from tests.report.samples import CATALOGUE, DAY, END, HOSTILE, HOUR, SIGNER, START, about, client, keep, write_store
from topicwarden.errors import ConfigurationError
from topicwarden.findings import Ledger
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.report import html_page, json_document, since
from topicwarden.report.build import build_report
from topicwarden.report.commands import command, time_word
from topicwarden.report.integrity import read_log, verified
from topicwarden.report.model import Kind, Query, Report
from topicwarden.report.reading import MAX_FINDINGS, MAX_ROWS, Span
from topicwarden.report.since import read_previous
from topicwarden.store.files import HOUR_NS
from topicwarden.store.log import Log, entry_line
from topicwarden.store.reader import Store
from topicwarden.store.verify_model import Damage, Found, Verification
from topicwarden.store.views import Scope, Views
from topicwarden.store.writer import StoreWriter

GOLDEN = Path(__file__).parent / "golden" / "plant.report.json"
ORDER = """scope unseen sets controls privilege time activity denied changes exceptions findings since attack
    method integrity"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return sample_report(folder)


def settled(report: Report) -> str:
    """Return the JSON form without what differs from one store to the next."""
    document = json.loads(json_document.text(report))
    document["store"]["id"] = "STORE"
    document["integrity"] |= {"origin": "ORIGIN", "checkpoint": "CHECKPOINT"}
    text = json.dumps(document, indent=1) + "\n"
    text = text.replace(report.store.id, "STORE")
    return re.sub(r'("Python",\s*"value": )"[^"]*"', r'\1"PYTHON"', text)


def test_the_json_form_of_a_small_store_is_the_golden_one(report: Report) -> None:
    """To write it anew: delete it, run this test, and read the difference."""
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(settled(report))
        pytest.fail("written anew: read it")
    assert settled(report) == GOLDEN.read_text()


def test_chapters_stand_in_the_order_a_reader_needs_and_what_could_not_be_seen_before_any_result(
    report: Report,
) -> None:
    assert [section.id for section in report.sections] == ORDER.split()


def test_every_printed_query_gives_the_rows_and_numbers_it_stands_by(folder: Path, report: Report) -> None:
    period = Scope(report.period.from_ns, report.period.to_ns)
    with Views(Store(folder), period) as seen, Views(Store(folder)) as everything:
        asked = 0
        for table in report.tables():
            if table.query is not None and not table.id.startswith("privilege-by"):
                rows = (seen if table.query.of_period else everything).rows(table.query.sql)
                if table.id != "deviations-over-time":
                    assert len(rows) == table.total, table.id
                asked += 1
        for figure in report.figures():
            if figure.query is not None:
                views = seen if figure.query.of_period else everything
                assert (views.rows(figure.query.sql)[0][0] or 0) == figure.value, figure.id
                asked += 1
        assert asked > 15
        query = report.table("findings").query
        assert query is not None
        sql = f"select fingerprint, count from ({query.sql.replace('f.*', 'fingerprint, h.count', 1)})"
        assert dict(everything.rows(sql)) == {one.fingerprint: one.count for one in report.findings}


def test_printed_queries_survive_a_shells_double_quotes(report: Report) -> None:
    queries = [table.query for table in report.tables()] + [figure.query for figure in report.figures()]
    for query in queries:
        assert query is None or not set('"$`\\!') & set(query.sql)


def test_a_command_names_the_period_as_shortly_as_it_can(report: Report) -> None:
    query = Query("select 1")
    whole = replace(report.period, from_ns=START, to_ns=START + DAY - 1)
    assert command("/a b", whole, query) == ("topicwarden query '/a b' --from 2026-11-23 --to 2026-11-23 \"select 1\"")
    assert command("/a", replace(whole, open_start=True, open_end=True), query) == 'topicwarden query /a "select 1"'
    assert command("/a", whole, Query("select 1", of_period=False)) == 'topicwarden query /a "select 1"'
    assert time_word(START + 1000) == "2026-11-23T00:00:00.000001Z"


def test_all_that_happened_in_a_part_of_the_time_and_nothing_else_is_counted(folder: Path) -> None:
    part = sample_report(folder, span=Span(START + DAY, START + 2 * DAY - 1))
    assert part.period.first_ns == START + DAY + 1
    with Views(Store(folder)) as views:
        within = f"time_ns between {START + DAY} and {START + 2 * DAY - 1}"
        events = views.rows(f"select sum(count) from events where {within}")[0][0]
    assert {f.id: f.value for f in part.figures()}["events"] == events
    assert part.section("changes").figures[0].value == 1
    codes = {one.code for one in part.findings}
    assert {"TW240", "TW901"} <= codes
    assert not codes & {"TW101", "TW301"}


def test_a_finding_that_was_told_of_before_and_after_a_period_is_in_it(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIGNER, about=about()) as writer:
        ledger = Ledger(CATALOGUE)
        found = ledger.record("TW240", broker="plant", client=client(), first_ns=START, last_ns=START)
        assert found is not None
        keep(writer, found)
        ledger.record("TW240", broker="plant", client=client(), first_ns=START, last_ns=START + 9 * DAY, count=5)
        keep(writer, found, Event.FINAL)
    with StoreWriter(tmp_path, SIGNER, about=about()) as writer:
        ledger = Ledger(CATALOGUE)
        again = ledger.record(
            "TW240", broker="plant", client=client(), first_ns=START + 12 * DAY, last_ns=START + 20 * DAY, count=70
        )
        assert again is not None
        keep(writer, again)
    middle = sample_report(tmp_path, span=Span(START + 4 * DAY, START + 5 * DAY))
    assert [(one.count, one.runs) for one in middle.findings] == [(6, 1)]
    both = sample_report(tmp_path, span=Span(START + 4 * DAY, START + 30 * DAY))
    assert [(one.count, one.runs) for one in both.findings] == [(76, 2)]
    assert sample_report(tmp_path, span=Span(START + 10 * DAY, START + 11 * DAY)).findings == ()


@pytest.mark.parametrize(
    "span",
    [Span(END + 900 * DAY, END + 901 * DAY), Span(-(1 << 63), START - 1), Span(START + 7, START + 7), Span(0, 0)],
)
def test_a_period_without_data_and_one_of_no_length_are_reported_as_that(folder: Path, span: Span) -> None:
    report = sample_report(folder, span=span)
    assert (report.period.first_ns, report.findings_total) == (None, 0)
    assert any("Not one event" in warning for warning in report.section("scope").warnings)
    assert {table.total for table in report.tables() if table.query is not None and table.query.of_period} == {0}
    assert "None in the period" in html_page.render(report) or report.table("gaps").rows
    assert "satisfied" not in {one.status for one in report.controls}


def test_a_store_without_a_row_and_the_longest_of_all_periods_are_reported(tmp_path: Path, folder: Path) -> None:
    StoreWriter(tmp_path / "s", SIGNER).close()
    empty = sample_report(tmp_path / "s")
    assert empty.findings_total == 0
    assert "does not say what was watched" in html_page.render(empty)
    ever = sample_report(folder, span=Span(-(1 << 63), (1 << 63) - 1))
    assert ever.findings_total == sample_report(folder).findings_total
    html_page.render(ever)


def test_without_a_policy_deviations_are_unknown_and_not_none(folder: Path) -> None:
    without = sample_report(folder, intended=None, policy=None)
    assert without.sets.intended.value is None
    assert any("No policy was given" in warning for warning in without.section("scope").warnings)
    assert without.section("exceptions").figures[0].value is None


def test_findings_judged_by_another_policy_or_by_one_that_nobody_noted_are_never_taken_for_all(tmp_path: Path) -> None:
    def judged(policy: Any) -> Report:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        what = {key: value for key, value in about().items() if key != "policy"}
        StoreWriter(folder, SIGNER, about=what if policy == "unsaid" else what | {"policy": policy}).close()
        return sample_report(folder)

    known = judged({"sha256": POLICY_FACTS.sha256})
    assert [known.sets.differences[number].figure.value for number in (3, 4, 5)] == [0, 0, 0]
    assert not [warning for warning in known.section("scope").warnings if "Deviations" in warning]
    for policy, said in (
        ("unsaid", "is not recorded"),
        (None, "not everything"),
        ({"sha256": "0" * 64}, "another policy"),
        ("damaged", "not everything"),
    ):
        unknown = judged(policy)
        assert unknown.sets.differences[3].figure.value is None
        assert any(said in warning for warning in unknown.section("scope").warnings), policy


def test_blind_spots_gaps_and_remarks_of_sources_are_all_there(folder: Path, report: Report) -> None:
    assert [row[1] for row in report.table("blind-spots").rows] == [
        "what is delivered to subscribers is not recorded",
        "bridges are not seen",
    ]
    assert [(row[0], row[4]) for row in report.table("notices").rows] == [("TW901", 412), ("TW906", 1)]
    log = read_log(Store(folder))
    first, *rest = log.entries
    gap = replace(first, index=1, kind=type(first.kind).GAP, time_ns=START + 3 * HOUR, facts={
        "reason": "could not keep up", "lost": 99, "from_ns": START + HOUR, "until_ns": START + 2 * HOUR})  # fmt: skip
    retired = {
        "kind": "events",
        "broker": "plant",
        "hour": START // HOUR_NS,
        "first": 0,
        "last": 0,
        "rule": "events=1h",
    }
    gone = replace(first, index=2, kind=type(first.kind).RETIRED, facts={"retired": [retired]})
    inputs = sample_inputs(folder, entries=[first, gap, gone, *rest])
    rows = build_report(inputs, CATALOGUE).table("gaps").rows
    assert (START + HOUR, START + 2 * HOUR, "could not keep up", 99) in rows
    assert [row for row in rows if "retention" in str(row[2])]


def test_privilege_is_ranked_by_harm_and_told_per_client_and_role(report: Report) -> None:
    table = report.table("privilege")
    assert table.column("severity") == ["high", "medium", "low", "info"]
    assert table.column("client") == ["sensor-0", "sensor-3", "sensor-1", "sensor-2"]
    assert table.column("affected") == [1, 4, 2, 3]
    assert [row[:3] for row in report.table("privilege-by-role").rows] == [
        ("sensor", "high", 1),
        ("gateway", "medium", 1),
        ("(no role)", "info", 0),
    ]


def test_where_grants_were_not_read_that_is_said_and_no_number_stands_for_them(tmp_path: Path) -> None:
    StoreWriter(tmp_path, SIGNER, about=about()).close()
    report = sample_report(tmp_path)
    assert report.sets.granted.value is None
    assert [one.figure.value for one in report.sets.differences[:3]] == [None, None, None]
    assert any("Grants were not read" in warning for warning in report.section("privilege").warnings)


def test_expired_exceptions_are_marked_and_what_each_accepted_is_counted(report: Report) -> None:
    table = report.table("exceptions")
    assert table.column("state") == ["EXPIRED", "in force"]
    assert table.column("left") == [-8, 214]
    assert table.column("used") == [0, 1]
    assert report.section("exceptions").warnings == ("1 of 2 exceptions have run out.",)


def test_a_great_many_findings_of_one_kind_stay_readable_and_are_all_counted(tmp_path: Path) -> None:
    count = 12_000
    with StoreWriter(tmp_path, SIGNER, about=about()) as writer:
        ledger = Ledger(CATALOGUE)
        found = ledger.record("TW201", broker="plant", client=client(), first_ns=START, last_ns=START)
        assert found is not None
        document = json.loads(encode(finding_document(Event.OPENED, found, Origin())))
        for number in range(count):
            writer.finding(START + number, "plant", "TW201", document | {"fingerprint": f"{number:032x}"})
    report = sample_report(tmp_path)
    assert report.findings_total == count
    assert len(report.findings) == MAX_FINDINGS
    table = report.table("findings")
    assert (len(table.rows), table.total) == (MAX_ROWS, count)
    page = html_page.render(report)
    assert f"{count - MAX_ROWS:,}".replace(",", " ") + " more" in page
    assert page.count("<article") == html_page.MAX_DETAILS
    assert len(page) < 3_000_000


def test_stored_findings_that_cannot_be_read_are_counted_and_said(tmp_path: Path) -> None:
    write_store(tmp_path)
    with StoreWriter(tmp_path, SIGNER, about=about(), now_ns=lambda: END) as writer:
        good = {"fingerprint": "0" * 32, "event": "opened", "count": 1, "code": "TW201", "severity": "enormous"}
        writer.finding(START, "plant", "TW201", good)
    report = sample_report(tmp_path)
    assert any("1 stored finding could not be read" in warning for warning in report.section("unseen").warnings)


def test_a_changed_log_a_changed_checkpoint_and_a_missing_one_are_no_basis(tmp_path: Path) -> None:
    write_store(tmp_path)
    assert read_log(Store(tmp_path)).integrity.holds
    checkpoint = tmp_path / "log" / "checkpoint"
    kept = checkpoint.read_bytes()
    checkpoint.write_bytes(kept.replace(b"\n3\n", b"\n2\n").replace(b"\n4\n", b"\n3\n"))
    damaged = read_log(Store(tmp_path)).integrity
    assert not damaged.holds
    assert damaged.verdict.startswith("Do not rely on this report")
    checkpoint.unlink()
    assert "no checkpoint" in read_log(Store(tmp_path)).integrity.verdict
    checkpoint.write_bytes(kept)
    (path,) = [path for _, path in Log(tmp_path / "log").files]
    lines = path.read_bytes().splitlines()
    entry = next(iter(Log(tmp_path / "log").entries()))
    lines[0] = entry_line(replace(entry, time_ns=entry.time_ns + 1))
    path.write_bytes(b"\n".join(lines) + b"\n")
    changed = read_log(Store(tmp_path)).integrity
    assert not changed.holds
    assert "not those that were signed" in changed.verdict
    report = sample_report(tmp_path)
    assert "Do not rely on this report" in html_page.render(report)
    assert "satisfied" not in {one.status for one in report.controls}


def test_what_a_whole_verification_found_is_the_verdict(report: Report) -> None:
    found = Verification("s", SIGNER.verifier, True, rows=7, segments=2)
    assert "7 rows in 2 segments" in verified(report.integrity, found).verdict
    found.add([Found(Damage.CHANGED, "events/x", "other rows")])
    judged = verified(report.integrity, found)
    assert not judged.holds
    assert "events/x: other rows" in judged.verdict


def test_what_is_new_gone_and_judged_differently_is_told_by_the_last_reports_json(folder: Path, tmp_path: Path) -> None:
    earlier = sample_report(folder, span=Span(START, START + DAY))
    path = tmp_path / "last.json"
    path.write_text(json_document.text(earlier))
    now = sample_report(folder, span=Span(START + DAY + 1, END), previous=(str(path), read_previous(path)))
    before, after = ({one.fingerprint for one in one.findings} for one in (earlier, now))
    assert set(now.table("new-findings").column("finding")) == after - before
    assert set(now.table("gone-findings").column("finding")) == before - after
    assert now.section("since").warnings == ()
    same = sample_report(folder, span=Span(START, START + DAY), previous=(str(path), read_previous(path)))
    assert [figure.value for figure in same.section("since").figures] == [0, 0, 0]
    other = sample_report(folder, policy=None, intended=None, previous=(str(path), read_previous(path)))
    assert any("another one" in warning for warning in other.section("since").warnings)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"type": "summary"}', "nonsense", '{"type": "topicwarden-report", "format": 99}', "[" * 9999],
)
def test_what_is_no_earlier_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "last.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"not an earlier report|format 99"):
        read_previous(path)


def test_an_earlier_report_that_was_cut_about_is_an_error_and_no_crash(folder: Path, tmp_path: Path) -> None:
    report = sample_report(folder)
    whole = json.loads(json_document.text(report))
    for key in ("findings", "findings_total", "period", "store", "sections", "policy"):
        damages: tuple[Any, ...] = (None, 7, "x", [{}])
        for damage in damages:
            row = whole | {key: damage}
            try:
                since.chapter(sample_inputs(folder, previous=("last.json", row)), report.findings, 1, report.controls)
            except ConfigurationError as error:
                assert "damaged" in str(error)  # noqa: PT017 - some of it may be readable


def test_names_in_the_json_form_are_the_stores_and_its_text_is_plain_ascii(tmp_path: Path) -> None:
    report = sample_report(tmp_path, HOSTILE)
    text = json_document.text(report)
    assert text.isascii()
    assert all(letter.isprintable() for letter in text.rstrip("\n"))
    users = {one["client"]["user"] for one in json.loads(text)["findings"] if one["client"] is not None}
    assert {name for name in HOSTILE if "\\u{" not in name and "\udcff" not in name} <= users
    models = {one.client["user"] for one in report.findings if one.client is not None}
    assert set(HOSTILE) <= models


def test_every_section_of_the_json_form_is_documented() -> None:
    words = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    for section in ORDER.split():
        assert f"`{section}`" in words, section
    for kind in Kind:
        assert kind.value
