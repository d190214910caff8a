"""Gaps in the evidence: how long they are, when controls are satisfied all the same, and that they are always told."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.brokers import wait_for
from tests.cli.program import run
from tests.report.samples import SIGNER, client, keep
from tests.report.samples import START as BEGUN
from tests.report.test_controls import EVERYTHING, LOADED, SECOND, START, One, covered, entry, opened
from topicwarden.cli.keeping import gap_notices
from topicwarden.cli.period import length_named
from topicwarden.cli.report import ReportOptions
from topicwarden.cli.report import run as report
from topicwarden.errors import ConfigurationError
from topicwarden.events import (
    Action,
    Certainty,
    EventBuilder,
    Outcome,
    Resource,
    ResourceKind,
    Tables,
)
from topicwarden.findings import Ledger, load_catalogue
from topicwarden.report.controls import ControlResult, assess
from topicwarden.report.coverage import Coverage, Gap, length_of
from topicwarden.store.model import EntryKind
from topicwarden.store.writer import StoreWriter

CRASH = Gap(START + 10 * SECOND, START + 12 * SECOND - 1, "the writer before ended without closing the store")


def judged(findings: Sequence[One], coverage: Coverage, control: str = "AU-12") -> ControlResult:
    return next(one for one in assess(LOADED, findings, coverage) if one.control == control)


def with_gaps(*gaps: Gap, allowed: float = 0) -> Coverage:
    return replace(EVERYTHING, gaps=gaps, allowed_gap_ns=int(allowed * SECOND))


spans = st.tuples(st.integers(0, 30), st.integers(0, 9)).map(lambda one: Gap(one[0], one[0] + one[1], "why"))


@given(st.lists(spans, max_size=6))
def test_the_length_of_gaps_is_that_of_all_moments_that_are_in_one(gaps: list[Gap]) -> None:
    assert length_of(gaps) == len({moment for gap in gaps for moment in range(gap.from_ns, gap.until_ns)})


def test_gaps_no_longer_than_what_is_allowed_leave_a_control_satisfied_and_it_says_how_long() -> None:
    lost = Gap(START + 60 * SECOND, START + 61 * SECOND - 1, "could not keep up", 412)
    for allowed in (0, 2.999):
        one = judged([], with_gaps(CRASH, lost, allowed=allowed))
        assert one.status == "not assessed"
        assert "evidence is missing for 3.0 s" in one.reason
    one = judged([], with_gaps(CRASH, lost, allowed=3))
    assert one.status == "satisfied"
    assert one.reason.startswith(
        "Satisfied, but 3.0 s of the period were not seen, in 2 gaps with 412 rows known to be lost; 3.0 s are "
        "allowed. In this period, as far as observed: "
    )
    told = [said for said in one.evidence if said.startswith("Not seen, and allowed: ")]
    assert [said.rpartition(": ")[2] for said in told] == [CRASH.why, "could not keep up, 412 rows known to be lost"]
    assert "not seen" not in judged([], with_gaps(allowed=3)).reason


def test_nothing_is_allowed_unless_somebody_says_so() -> None:
    assert judged([], with_gaps(Gap(START, START, "a moment"))).status == "not assessed"


def test_what_only_repeats_an_allowed_gap_does_not_count_against_a_control_and_is_named() -> None:
    again = One("1" * 32, "TW901", "medium", gap_ns=(CRASH.from_ns, CRASH.until_ns // 1_000_000 * 1_000_000))
    allowed = with_gaps(CRASH, allowed=2)
    one = judged([again], allowed)
    assert (one.status, one.findings) == ("satisfied", ("1" * 32,))
    assert "1 finding (TW901) only because of these gaps" in one.evidence
    # Not where gaps are not allowed, not of a gap that the log does not have, and not of what a source lost.
    assert judged([again], with_gaps(CRASH)).status == "not satisfied"
    for other in (
        replace(again, gap_ns=(CRASH.from_ns, START + 30 * SECOND)),
        replace(again, gap_ns=(START + SECOND, CRASH.until_ns)),
        replace(again, gap_ns=None),
    ):
        assert judged([other], allowed).status == "not satisfied"
        assert judged([again, other], allowed).status == "not satisfied"
    earlier = replace(again, gap_ns=(START - 9 * SECOND, START - 8 * SECOND))
    assert judged([earlier], allowed).status == "satisfied"


def test_a_time_without_a_writer_that_the_log_explains_is_one_gap() -> None:
    told = {"reason": CRASH.why, "from_ns": CRASH.from_ns, "until_ns": CRASH.until_ns}
    entries = [opened(0, 0), entry(1, EntryKind.SEGMENT, 10), entry(2, EntryKind.GAP, 12, **told), opened(3, 12)]
    assert covered(entries, at_work=True).gaps == (CRASH,)
    # A longer time without a writer is not all explained by it.
    later = [*entries[:3], opened(3, 40)]
    assert covered(later, at_work=True).gaps == (
        CRASH,
        Gap(START + 12 * SECOND, START + 40 * SECOND - 1, "nobody watched"),
    )


def test_a_gap_over_which_the_clock_was_set_back_has_its_length() -> None:
    told = {"reason": "why", "from_ns": START + 50 * SECOND, "until_ns": START + 20 * SECOND, "lost": 3}
    entries = [opened(0, 0), entry(1, EntryKind.GAP, 50, **told), entry(2, EntryKind.CLOSED, 100)]
    coverage = covered(entries)
    assert coverage.gaps == (Gap(START + 20 * SECOND, START + 50 * SECOND, "why", 3),)
    assert coverage.missing_ns == 30 * SECOND


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("250ms", 0.25), ("2.5s", 2.5), ("10 min", 600), ("8h", 28800), ("1d", 86400)]
)
def test_a_length_of_time_has_its_unit(text: str, seconds: float) -> None:
    assert length_named("--allow-gaps", text) == seconds * SECOND


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1m", "1h30min", "1e3s", "1_0s", "\u0661s"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no length of time"):
        length_named("--allow-gaps", text)


ABOUT: Mapping[str, Any] = {
    "command": "watch",
    "sources": [{"title": "mosquitto plugin, every event", "broker": "plant", "host": False, "blind_spots": []}],
}


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose writer died at 10 s, and which another went on with at 12 s and closed at 20 s."""
    before, store = (tmp_path_factory.mktemp("crashed") / name for name in ("before", "store"))
    now = [BEGUN]
    with StoreWriter(before, SIGNER, about=ABOUT, now_ns=lambda: now[0], seal_seconds=0.01) as writer:
        publish(writer, now[0])
        now[0] += 10 * SECOND
        publish(writer, now[0] - SECOND)
        wait_for(lambda: writer.sealed == 4, "both events and their client and topic in the log")
        # What is on disk now is what a writer leaves that is killed.
        shutil.copytree(before, store)
    now[0] = BEGUN + 12 * SECOND
    with StoreWriter(store, SIGNER, about=ABOUT, now_ns=lambda: now[0]) as writer:
        assert writer.gap_ns == (BEGUN + 10 * SECOND, BEGUN + 12 * SECOND)
        facts = {"reason": CRASH.why, "from_ns": writer.gap_ns[0], "until_ns": writer.gap_ns[1]}
        (notice,) = gap_notices(ABOUT, facts)
        ledger = Ledger(load_catalogue())
        ledger.record(
            notice.code, broker=notice.broker, scope=(notice.scope,), first_ns=notice.time_ns, last_ns=notice.time_ns,
            evidence=notice.evidence or {},
        )  # fmt: skip
        (finding,) = ledger.findings()
        keep(writer, finding)
        publish(writer, now[0])
        now[0] = BEGUN + 20 * SECOND
    return store


def publish(writer: StoreWriter, at_ns: int) -> None:
    builder = EventBuilder(Tables())
    builder.add(
        at_ns, Action.PUBLISH, client(), Resource(ResourceKind.TOPIC, "plant/a"), Outcome.ALLOWED, Certainty.EXACT
    )
    writer.write(builder.take())


def rows_of(document: Mapping[str, Any], table: str) -> list[dict[str, Any]]:
    return [row for part in document["sections"] for one in part["tables"] if one["id"] == table for row in one["rows"]]


def test_after_a_crash_controls_are_satisfied_only_if_its_gap_is_allowed_and_every_format_says_so(
    crashed: Path, tmp_path: Path
) -> None:
    for allowed, status, logging in ((0, "not assessed", "not satisfied"), (3 * SECOND, "satisfied", "satisfied")):
        out = tmp_path / f"{allowed}.json"
        assert report(crashed, ReportOptions(output=out, verify=True, allowed_gap_ns=allowed)) == 0
        document = json.loads(out.read_text())
        assert document["gaps"] == {"count": 1, "seconds": 2.0, "allowed_seconds": allowed / SECOND}
        assert [row["reason"] for row in rows_of(document, "gaps")] == [CRASH.why]
        controls = {row["control"]: row for row in rows_of(document, "controls-nist-800-53r5")}
        assert (controls["AC-7"]["status"], controls["AU-2"]["status"]) == (status, logging)
    said = "Satisfied, but 2.0 s of the period were not seen, in 1 gap; 3.0 s are allowed. "
    assert controls["AC-7"]["reason"].startswith(said)
    assert controls["AU-2"]["reason"].startswith(said)
    unseen = next(part for part in document["sections"] if part["id"] == "unseen")
    assert any("though 2.0 s of the period were not seen" in line for line in unseen["warnings"])

    done = run("report", crashed, "--verify", "--allow-gaps", "3s", "-o", tmp_path / "r.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "r.csv" / "controls-nist-800-53r5.csv").open(newline="") as file:
        reasons = {row["control"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["AC-7"].startswith(said)

    out = tmp_path / "r.oscal.json"
    assert report(crashed, ReportOptions(output=out, verify=True, allowed_gap_ns=3 * SECOND)) == 0
    (result,) = json.loads(out.read_text())["assessment-results"]["results"]
    one = next(one for one in result["findings"] if one["target"]["target-id"] == "ac-7_smt")
    assert one["target"]["status"]["state"] == "satisfied"
    assert "2.0 s of the period were not seen" in one["description"]
    props = {prop["name"]: prop["value"] for prop in one["props"]}
    assert (props["seconds-not-seen"], props["seconds-allowed"]) == ("2.000", "3.000")


def test_another_allowance_than_in_the_last_report_is_told(crashed: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    assert report(crashed, ReportOptions(output=first, verify=True)) == 0
    options = ReportOptions(output=second, verify=True, previous=first, allowed_gap_ns=3 * SECOND)
    assert report(crashed, options) == 0
    since = next(part for part in json.loads(second.read_text())["sections"] if part["id"] == "since")
    assert any("allowed no gaps in the evidence, this one gaps of 3.0 s" in line for line in since["warnings"])
    assert "satisfied" in {row["now"] for row in rows_of(json.loads(second.read_text()), "rejudged-controls")}
