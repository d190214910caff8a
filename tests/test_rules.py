"""Every finding type proves itself: its cases run through the engine or a scan, and its text can be filled in."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.compare.scenario import is_scan, scan
from tests.engine.scenario import run
from tests.hosts.scenario import Told
from tests.hosts.scenario import run as run_hosts
from topicwarden.findings import Finding, load_catalogue

CATALOGUE = load_catalogue()
ENGINE_CODES = [code for code in CATALOGUE if code.startswith(("TW1", "TW2", "TW3", "TW9"))]
HOST_CODES = [code for code, finding_type in CATALOGUE.items() if finding_type.detection is not None]
"""What is found about hosts by rules in EQL; their cases are events of hosts."""
ALWAYS_THERE = {"client", "user", "client_id", "broker", "count"}


def cases(kind: str, codes: list[str] = ENGINE_CODES) -> Iterator[Any]:
    for code in codes:
        for case in CATALOGUE[code].cases.get(kind, []):
            yield pytest.param(code, case, id=f"{code}: {case['name']}")


def findings_of(case: Mapping[str, Any], size: int = 1 << 30) -> list[Finding]:
    if is_scan(case):
        return scan(CATALOGUE, case)[0]
    return run(CATALOGUE, case.get("policy"), case["events"], size)


def as_told(found: list[Finding]) -> str:
    return "\n".join(f"{f.type.code} {f.client} {f.scope} x{f.count} {f.witnesses} {f.evidence}" for f in found)


@pytest.mark.parametrize("code", ENGINE_CODES)
def test_every_rule_has_cases_that_fire_and_cases_that_stay_quiet(code: str) -> None:
    kinds = CATALOGUE[code].cases
    assert kinds.get("fires")
    assert kinds.get("quiet")
    assert set(kinds) == {"fires", "quiet"}
    for case in [*kinds["fires"], *kinds["quiet"]]:
        subject = {"acl", "dynsec", "definitions", "observed"} if is_scan(case) else {"events"}
        assert set(case) <= {"name", "policy", "expect"} | subject
        assert case["name"]
        assert subject & set(case)


@pytest.mark.parametrize("size", [1 << 30, 1], ids=["one batch", "event by event"])
@pytest.mark.parametrize(("code", "case"), [*cases("fires")])
def test_fires(code: str, case: Mapping[str, Any], size: int) -> None:
    findings = findings_of(case, size)
    found = [finding for finding in findings if finding.type.code == code]
    assert found, as_told(findings)
    expected = case.get("expect", [])
    assert len(found) == len(expected) or not expected, as_told(found)
    for finding, wanted in zip(found, expected, strict=False):
        assert set(wanted) <= {"client", "count", "witnesses"}
        if "client" in wanted:
            assert finding.client is not None
            assert wanted["client"] == (finding.client.user or finding.client.client_id)
        if "count" in wanted:
            assert finding.count == wanted["count"]
        if "witnesses" in wanted:
            assert list(finding.witnesses) == wanted["witnesses"]


@pytest.mark.parametrize("size", [1 << 30, 1], ids=["one batch", "event by event"])
@pytest.mark.parametrize(("code", "case"), [*cases("quiet")])
def test_stays_quiet(code: str, case: Mapping[str, Any], size: int) -> None:
    assert "expect" not in case
    findings = findings_of(case, size)
    found = [finding for finding in findings if finding.type.code == code]
    assert not found, as_told(found)


@pytest.mark.parametrize("code", ENGINE_CODES)
def test_a_titles_placeholders_are_in_the_evidence_of_every_firing_case(code: str) -> None:
    fields = {field for _, field, _, _ in string.Formatter().parse(CATALOGUE[code].title) if field}
    for case in CATALOGUE[code].cases["fires"]:
        for finding in findings_of(case):
            if finding.type.code == code:
                there = ALWAYS_THERE | set(finding.evidence) | ({"witness"} if finding.witnesses else set())
                assert fields <= there | ({"what"} if code == "TW902" else set())


@pytest.mark.parametrize("code", HOST_CODES)
def test_every_rule_about_hosts_has_cases_that_fire_and_cases_that_stay_quiet(code: str) -> None:
    kinds = CATALOGUE[code].cases
    assert set(kinds) == {"fires", "quiet"}
    for kind, found in kinds.items():
        assert found
        for case in found:
            wanted = {"name", "events"} | ({"expect"} if kind == "fires" else set())
            assert wanted <= set(case) <= wanted | {"policy", "baseline", "resolved"}, case["name"]
            assert len(case["name"]) > 3


def hosts_told(code: str, case: Mapping[str, Any]) -> list[Told]:
    return [told for told in run_hosts(CATALOGUE, case) if told.code == code]


@pytest.mark.parametrize(("code", "case"), [*cases("fires", HOST_CODES)])
def test_a_rule_about_hosts_fires(code: str, case: Mapping[str, Any]) -> None:
    told = hosts_told(code, case)
    assert len(told) == len(case["expect"]), told
    for found, wanted in zip(told, case["expect"], strict=True):
        assert set(wanted) <= {"host", "count", "witnesses"}
        assert found.host == wanted.get("host", found.host)
        assert found.count == wanted.get("count", found.count)
        assert list(found.witnesses) == wanted.get("witnesses", list(found.witnesses))


@pytest.mark.parametrize(("code", "case"), [*cases("quiet", HOST_CODES)])
def test_a_rule_about_hosts_stays_quiet(code: str, case: Mapping[str, Any]) -> None:
    assert not hosts_told(code, case)


@pytest.mark.parametrize("code", HOST_CODES)
def test_the_title_of_a_rule_about_hosts_is_filled_from_its_evidence(code: str) -> None:
    finding_type = CATALOGUE[code]
    assert finding_type.detection is not None
    fields = {field for _, field, _, _ in string.Formatter().parse(finding_type.title) if field}
    rhythm = {"interval", "deviation"} if finding_type.detection.regular else set()
    assert fields <= {"count", "witness"} | set(finding_type.detection.evidence) | rhythm
    # Of one firing case all are known: a title is not always full of "(not recorded)".
    known: list[set[str]] = [
        set(told.evidence) | {"count"} | ({"witness"} if told.witnesses else set())
        for case in finding_type.cases["fires"]
        for told in hosts_told(code, case)
    ]
    assert any(fields <= there for there in known), fields


def test_controls_and_techniques_are_those_of_the_frameworks_we_checked() -> None:
    known = {
        "nist-800-53r5": "AC-2 AC-3 AC-4 AC-5 AC-6 AC-7 AC-10 AU-2 AU-3 AU-5 AU-6 AU-8 AU-9 AU-10 AU-11 AU-12 CA-7 "
        "CM-3 CM-5 CM-6 CM-7 IA-2 IA-3 IA-5 SC-5 SC-7 SC-8 SC-23 SI-4 SI-4(4) SI-4(5) SI-10",
        "iso-27001-2022": "A.5.15 A.5.16 A.5.18 A.8.2 A.8.3 A.8.5 A.8.9 A.8.12 A.8.15 A.8.16 A.8.20 A.8.22 A.8.32",
        "iec-62443-3-3": "SR_1.2 SR_1.11 SR_2.1 SR_2.8 SR_2.11",
        "pci-dss-4.0": "7.2.1 7.2.2 7.2.3 7.2.4 7.2.5 7.3.1 7.3.2 7.3.3 10.2.1.4 10.2.1.5 10.2.1.6 10.6.1",
        "soc2": "CC6.1 CC6.2 CC6.3 CC6.6 CC6.7 CC6.8 CC7.1 CC7.2 CC7.3",
    }
    techniques = {"T1071.005", "T1098", "T1562.001", "T1565"}
    of_hosts = {"T1027", "T1059", "T1059.004", "T1132.001", "T1552", "T1571"}
    for code in [*ENGINE_CODES, *HOST_CODES]:
        assert set(CATALOGUE[code].attack) <= techniques | (of_hosts if code in HOST_CODES else set())
        for framework, controls in CATALOGUE[code].controls.items():
            assert {control.replace(" ", "_") for control in controls} <= set(known[framework].split()), code
