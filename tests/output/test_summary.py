"""The closing summary: what could not be seen comes first."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from topicwarden.events import Identity
from topicwarden.findings import Scalar
from topicwarden.output import InventoryRow, SourceSummary, Summary
from topicwarden.output.summary import next_steps
from topicwarden.output.summary_text import MAX_FINDINGS, summary_lines
from topicwarden.output.text import brief
from topicwarden.sources import Counters

from .samples import GRANTS, START, client, finding, many, summary


def text(of: Summary, width: int | None = None) -> str:
    return "\n".join(line.plain for line in summary_lines(of, width))


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_it_fits_the_terminal_and_holds_no_control_characters(width: int) -> None:
    for line in summary_lines(summary(), width):
        assert cell_len(line.plain) <= width
        assert line.plain.isprintable()


def test_mode_and_blind_spots_come_before_counts_and_findings() -> None:
    found = text(summary(), 200)
    order = ["Watched", "mosquitto plugin, every event", "Not seen", "bridges are not seen", "Counts", "Findings:"]
    order += ["Accepted by", "Clients: the 2 busiest of 123", "What to do next"]
    places = [found.index(part) for part in order]
    assert places == sorted(places)


def test_it_says_what_is_lost_and_undecodable_by_stage() -> None:
    found = text(summary())
    assert "12  lost (in 2 gaps)" in found
    assert "4  undecodable" in found
    assert "undecodable by stage: record: 4" in found
    assert "1 234 567  events" in found
    assert "9 times something was found that is not listed" in found


def test_findings_stand_gravest_first_with_their_counts_and_accepted_ones_apart() -> None:
    found = text(summary())
    open_part, accepted_part = found.split("Accepted by the policy's exceptions: 2")
    assert open_part.index("CRITICAL  TW203") < open_part.index("HIGH      TW201") < open_part.index("LOW       TW301")
    assert "HIGH      TW201  1 234 times  sensor-1 published to plant/a/sensor-1/command" in open_part
    assert "1 time; replaced by Q2, until 2027-06-30" in accepted_part


def test_no_finding_with_losses_is_not_called_clean() -> None:
    quiet = summary(findings=[], overflow=0)
    assert "Findings: none, but events were lost" in text(quiet)
    whole = SourceSummary("log", "b", [], Counters(events=3))
    assert "Findings: none\n" in text(summary(findings=[], sources=[whole]))
    assert "no blind spot of these sources is known" in text(summary(sources=[whole]))


def test_more_findings_than_are_shown_are_counted() -> None:
    items = [finding(client=client(user=f"u{n}")) for n in range(MAX_FINDINGS + 1005)]
    assert "and 1 005 more: --format jsonl has them all" in text(summary(findings=items))


def test_the_inventory_says_who_how_much_and_from_where() -> None:
    found = text(summary(), 120)
    assert "12 345     3.312       4       0  sensor-1 as s-17" in found
    assert "10.0.0.5" in found
    assert "anonymous client" in found


def test_a_claimed_name_in_the_inventory_says_so() -> None:
    row = InventoryRow("b", "admin", "admin", Identity.CLAIMED, None, 1, 0.0, 1, 1, START, START)
    assert "admin (only claimed)" in text(summary(inventory=[row]), 80)
    assert "admin (only claimed)" in text(summary(inventory=[row]), 40)


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"policy": None}, "pass it with --policy"),
        ({"sources": []}, "No event was seen"),
        ({}, "Events were lost"),
        ({}, "topicwarden explain TW203"),
        ({}, "Close the blind spots"),
        ({"overflow": 1}, "more different causes than are kept"),
        ({}, "Sessions without a process"),
        ({"not_asked": ["TW402"]}, "Not asked: TW402"),
    ],
)
def test_it_says_what_to_do_next(changes: dict[str, object], step: str) -> None:
    assert any(step in one for one in next_steps(summary(**changes)))


def test_a_host_is_said_to_be_one_and_how_many_sessions_have_a_process() -> None:
    source = SourceSummary("this machine", "ci-7", [], Counters(), host=True)
    text = "\n".join(line.plain for line in summary_lines(summary(sources=[source])))
    assert "this machine, as host ci-7" in text
    assert re.search(r"195 +sessions whose process is known for sure", text)
    assert "sessions" not in "\n".join(line.plain for line in summary_lines(summary(joined=None)))


def test_what_was_kept_and_what_could_not_be_is_said() -> None:
    text = "\n".join(line.plain for line in summary_lines(summary()))
    assert re.search(r"1 234 000 +rows kept in the store", text)
    assert re.search(r"567 +rows that could not be kept", text)
    assert "store: /var/lib/topicwarden/store" in text
    assert "nothing was kept from " in text
    assert "it could not be written: No space left on device" in text
    assert "Evidence is missing from the store: give its disk more room or speed" in next_steps(summary())
    assert "store" not in "\n".join(line.plain for line in summary_lines(summary(kept=None, sources=[])))


def test_a_clean_run_leaves_nothing_to_do() -> None:
    source = SourceSummary("log", "b", [], Counters(events=3))
    assert next_steps(summary(findings=[], sources=[source], overflow=0, joined=None, kept=None)) == []


@settings(max_examples=40)
@given(st.text(max_size=80), st.integers(40, 120))
def test_any_names_anywhere_stay_within_the_width(name: str, width: int) -> None:
    row = InventoryRow(name, name, name + "x", Identity.CLAIMED, name, 10**15, 1e12, 10**9, 10**9, START, START)
    hostile = finding(client=client(user=name), witnesses={name: 1}, accepted=name)
    source = SourceSummary(name, name, [], Counters(events=10**15, decode_errors={name: 3}))
    for line in summary_lines(summary(findings=[hostile, *many()], inventory=[row], sources=[source]), width):
        assert cell_len(line.plain) <= width
        assert line.plain.isprintable()


def test_a_scan_says_what_it_read_and_what_the_broker_said_to_it() -> None:
    found = text(summary(command="scan", sources=[], scanned=[GRANTS], policy=None), 120)
    assert found.startswith("topicwarden scan")
    assert "Watched" not in found
    assert "acl_file /etc/mosquitto/acl, as broker plant-a" in found
    assert "users are not listed: they log in with certificates" in found
    for line in ("1 000  grants", "12  classes", "2  questions", "1  witnesses the running broker refuted"):
        assert line in found, found
    assert "--observed" in found


def test_a_finding_about_a_grant_says_where_it_stands_and_what_to_write_instead() -> None:
    evidence: dict[str, Scalar] = {
        "grant": "topic write plant/#",
        "where_file": "/etc/mosquitto/acl",
        "where_line": 12,
        "holder": "user 'pump'",
        "alike": 11,
        "instead": "user pump\ntopic write plant/pump/#",
    }
    found = "\n".join(line.plain for line in brief(finding("TW101", evidence=evidence, witnesses={"publish to x": 1})))
    assert "/etc/mosquitto/acl:12" in found
    assert "and 11 more alike" in found
    assert "instead: user pump\n                   topic write plant/pump/#" in found
