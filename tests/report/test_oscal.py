"""OSCAL: the document is what NIST's models take, its references lead somewhere, and names in it do nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trestle.core.duplicates_validator import DuplicatesValidator
from trestle.core.refs_validator import RefsValidator
from trestle.oscal.assessment_results import Model

from tests.engine.scenario import run
from tests.report.test_accepting import documented
from tests.report.test_controls import CATALOGUE, EVERYTHING, LOADED, START, shown_for
from topicwarden.report.controls import assess
from topicwarden.report.coverage import Coverage, Gap, hidden_by
from topicwarden.report.findings import read_findings
from topicwarden.report.model import Integrity, ReportFinding
from topicwarden.report.oscal import control_token, oscal_document

POLICY = """\
topicwarden: 1
roles: {r: {members: [{user: "*"}], publish: [{topic: a}]}}
exceptions:
  - {finding: TW201, user: gw, reason: "moves to [Q2](http://evil.example)", until: 2027-06-30}
"""
HOSTILE = "![x](http://evil.example) <script>{{ insert: param, p }}\u202e\n# *b* `c` | d"
INTEGRITY = Integrity("topicwarden/store/1", "n+1+k", "topicwarden/store/1\n5\nabc=\n", 5, 5, "it holds", True, START)


def reported(events: Sequence[Mapping[str, Any]], policy: str = POLICY) -> list[ReportFinding]:
    rows = [
        (one.fingerprint, one.count, one.first_ns, one.last_ns, 1, json.dumps(documented(one)))
        for one in run(CATALOGUE, policy, events)
    ]
    found, unreadable = read_findings(rows)
    assert not unreadable
    return found


ORDINARY = reported([{"publish": "plant/x", "user": "a"}, {"publish": "plant/y", "user": "gw"}])
NASTY = reported([{"publish": HOSTILE, "user": HOSTILE}, {"publish": "x\udcff", "user": "y\udcff"}])


def document(findings: Sequence[ReportFinding], coverage: Coverage = EVERYTHING, **more: Any) -> dict[str, Any]:
    return oscal_document(
        assess(LOADED, findings, coverage),
        findings,
        coverage,
        LOADED,
        **{"system": "store-1", "generated_ns": START, "version": "1.0", "integrity": INTEGRITY, **more},
    )


def validated(found: dict[str, Any]) -> dict[str, Any]:
    """Check it as it is read from a file, with all that trestle checks of a document by itself."""
    text = json.dumps(found, allow_nan=False)
    model = Model.model_validate_json(text)
    results = model.assessment_results
    for validator in (DuplicatesValidator(), RefsValidator()):
        assert validator.model_is_valid(results, True)
    (result,) = found["assessment-results"]["results"]
    return dict(result)


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def uuids(found: Any) -> list[str]:
    return [value for key, value in walk(found) if key == "uuid"]


NOTHING = Coverage(START, START, {})
PARTLY = replace(
    EVERYTHING,
    gaps=(Gap(START, START + 1, "a *gap*"),),
    blind_spots=(hidden_by("log", "the entropy of payloads is not measured"),),
)


@pytest.mark.parametrize("findings", [[], ORDINARY, NASTY, [*ORDINARY, *NASTY]], ids=["none", "some", "nasty", "all"])
@pytest.mark.parametrize("coverage", [EVERYTHING, NOTHING, PARTLY], ids=["everything", "nothing", "partly"])
def test_the_document_is_valid_and_every_reference_leads_somewhere(
    findings: list[ReportFinding], coverage: Coverage
) -> None:
    found = document(findings, coverage)
    validated(found)
    there = uuids(found)
    assert len(set(there)) == len(there)
    for key, value in walk(found):
        if key.endswith("-uuid"):
            assert value in there, key
        elif key == "href" and value.startswith("#"):
            assert value[1:] in there


def test_the_models_refuse_what_oscal_does_not_have() -> None:
    found = document(ORDINARY)
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda r: r.update(more=1),
        lambda r: r.pop("reviewed-controls"),
        lambda r: r.update(observations=[]),
        lambda r: r["findings"][0]["target"]["status"].update(state="not assessed"),
        lambda r: r["observations"][0].update(uuid="1"),
    ]
    for change in changes:
        broken = json.loads(json.dumps(found))
        change(broken["assessment-results"]["results"][0])
        with pytest.raises(ValidationError):
            validated(broken)


def test_each_control_is_said_once_and_what_was_not_assessed_is_neither_satisfied_nor_not() -> None:
    results = assess(LOADED, ORDINARY, PARTLY)
    result = validated(document(ORDINARY, PARTLY))
    states = {one["target"]["target-id"]: one["target"]["status"]["state"] for one in result["findings"]}
    excluded = {
        one["control-id"]
        for selection in result["reviewed-controls"]["control-selections"]
        for one in selection.get("exclude-controls", [])
    }
    told = {prop["value"] for one in result["observations"] for prop in one["props"] if prop["name"] == "control-id"}
    assert told == excluded
    for one in results:
        token = control_token(one.framework, one.control)
        state = {"satisfied": "satisfied", "not satisfied": "not-satisfied"}.get(one.status)
        assert states.get(f"{token}_smt") == state
        assert (token in excluded) is (state is None)
    assert {one.status for one in results} == {"not satisfied", "not assessed"}
    everything = validated(document([], EVERYTHING))
    assert {one["target"]["status"]["state"] for one in everything["findings"]} == {"satisfied"}


def test_open_findings_are_risks_and_accepted_ones_deviations_until_their_day() -> None:
    result = validated(document(ORDINARY))
    by_status = {one["status"]: one for one in result["risks"]}
    assert set(by_status) == {"open", "deviation-approved"}
    assert by_status["deviation-approved"]["deadline"] == "2027-06-30T23:59:59Z"
    assert by_status["open"]["remediations"][0]["lifecycle"] == "recommendation"
    facets = {one["name"]: one["value"] for one in by_status["open"]["characterizations"][0]["facets"]}
    assert facets == {"severity": "high", "certainty": "exact"}
    (related,) = [one for one in result["findings"] if one["target"]["target-id"] == "ac-3_smt"]
    assert {"risk-uuid": by_status["open"]["uuid"]} in related["related-risks"]


def test_uuids_are_the_same_for_the_same_content_and_others_for_other_content() -> None:
    first, again = document(ORDINARY), document(ORDINARY, generated_ns=START + 10**12)
    assert uuids(first) == uuids(again)
    assert first != again
    other = document(ORDINARY[:1])
    assert other["assessment-results"]["uuid"] != first["assessment-results"]["uuid"]
    assert other["assessment-results"]["results"][0]["observations"][0]["uuid"] in uuids(first)
    assert not set(uuids(document(ORDINARY, system="store-2"))) & set(uuids(first))


def test_names_make_no_links_images_insertions_or_markup() -> None:
    texts = [
        value
        for key, value in walk(document(NASTY))
        if key in ("title", "description", "statement", "remarks") and isinstance(value, str)
    ]
    told = "\n".join(texts)
    assert "evil.example" in told
    for wrong in (r"(?<!\\)!\[", r"(?<!\\)\]\(", r"(?<!\\)<script", r"(?<!\\)\{\{", "\u202e"):
        assert not re.search(wrong, told), wrong


def test_a_cut_list_says_so_and_a_plan_can_be_named() -> None:
    found = document(ORDINARY, findings_total=1_000_000, import_ap="https://example.org/plan.json")
    result = validated(found)
    assert "Only 2 of 1000000 findings" in result["remarks"] or "of 1000000" in result["remarks"]
    assert found["assessment-results"]["import-ap"]["href"] == "https://example.org/plan.json"
    resources = {one["title"]: one for one in found["assessment-results"]["back-matter"]["resources"]}
    assert resources["The evidence"]["base64"]["filename"] == "checkpoint"


text = st.text(min_size=0, max_size=40)


@settings(max_examples=60, deadline=None)
@given(text, text, text, st.booleans())
def test_whatever_stands_in_a_finding_the_document_is_valid(name: str, title: str, more: str, of_host: bool) -> None:
    finding = replace(
        ORDINARY[0],
        title=title,
        broker=name,
        host=more if of_host else None,
        witnesses=((more, 1),),
        meaning=title,
        why=name,
        fix=more,
        accepted=title or None,
        limits=(name,),
    )
    validated(document([finding], replace(EVERYTHING, events={name: 1}, grants=frozenset({name}))))


def test_every_control_has_a_token_of_its_own() -> None:
    tokens = [control_token(one.framework, control.id) for one in LOADED for control in one.controls]
    assert len(set(tokens)) == len(tokens)
    assert control_token("nist-800-53r5", "SI-4(4)") == "si-4.4"
    assert control_token("pci-dss-4.0", "7.2.1") == "pci-dss-4.0_7.2.1"
    assert all(shown_for(control) is not None for one in LOADED for control in one.controls)
