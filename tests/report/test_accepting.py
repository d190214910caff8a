"""What accepts a finding: the exception that is proposed is put into a policy, and the finding is told as accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.compare.scenario import is_scan, scan
from tests.engine.scenario import run
from tests.engine.test_host_judge import ORDINARY, POLICY, judge
from topicwarden.errors import ConfigurationError
from topicwarden.findings import Finding, load_catalogue
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.policy import ExceptionRule
from topicwarden.policy.editing import add_exception
from topicwarden.report.accepting import Proposal, covers_finding, propose

CATALOGUE = load_catalogue()
ENDED = {"reason": "until it is replaced", "until": "2027-06-30"}
CASES = [
    pytest.param(code, case, id=f"{code}: {case['name']}")
    for code, finding_type in CATALOGUE.items()
    if finding_type.detection is None
    for case in finding_type.cases["fires"]
]
NEVER = {f"TW9{number:02}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 10)}
"""What no exception is asked about."""


def documented(finding: Finding) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode(finding_document(Event.OPENED, finding, Origin())))
    return document


def judged(case: Mapping[str, Any], policy: str | None, place: Path) -> list[Finding]:
    if is_scan(case):
        return scan(CATALOGUE, {**case, "policy": policy} if policy is not None else case, place)[0]
    return run(CATALOGUE, policy, case["events"], baseline=case.get("baseline"), scoring=True)


def rule_of(proposal: Proposal) -> ExceptionRule:
    return ExceptionRule.model_validate({**proposal.keys, **ENDED})


def cause(finding: Finding) -> tuple[object, ...]:
    return (finding.type.code, finding.broker, finding.client and finding.client.principal, finding.scope)


def accepts(case: Mapping[str, Any], finding: Finding, proposal: Proposal, place: Path) -> None:
    """Put it into the case's policy and judge again: what was open is accepted."""
    text = case.get("policy") or "topicwarden: 1\n"
    if not any(cause(one) == cause(finding) for one in judged(case, text, place)):
        return  # with a policy, another code tells it
    policy = add_exception(text, "case", {**proposal.keys, **ENDED}).text
    again = [one for one in judged(case, policy, place) if cause(one) == cause(finding)]
    assert [one.accepted for one in again] == [f"{ENDED['reason']} (until {ENDED['until']})"], proposal.keys


def proposed(document: Mapping[str, Any], *, wide: bool) -> Proposal | str:
    """Return the exception, or why there is none."""
    try:
        return propose(document, CATALOGUE, {}, wide=wide)
    except ConfigurationError as error:
        return str(error)


@pytest.mark.parametrize(("code", "case"), CASES)
def test_what_is_proposed_really_accepts_the_finding(code: str, case: Mapping[str, Any], tmp_path: Path) -> None:
    found = [
        one for one in judged(case, case.get("policy"), tmp_path) if one.type.code == code and one.accepted is None
    ]
    assert found
    for finding in found:
        document = documented(finding)
        wide = proposed(document, wide=True)
        if isinstance(wide, str):
            unnamed = document["client"] is not None and not document["client"]["user"]
            assert code in NEVER or unnamed, wide
            assert isinstance(proposed(document, wide=False), str)
            continue
        assert code not in NEVER or code == "TW901"
        narrow = proposed(document, wide=False)
        if isinstance(narrow, str):
            assert "--wide" in narrow
        for proposal in (wide, narrow):
            if isinstance(proposal, str):
                continue
            assert covers_finding(rule_of(proposal), document, CATALOGUE)
            accepts(case, finding, proposal, tmp_path)


HOST_POLICY = POLICY.strip() + "\n"


def test_a_finding_about_a_host_is_accepted_by_host_program_and_user() -> None:
    (finding,) = [one for one in judge(ORDINARY) if one.type.code == "TW403"]
    document = documented(finding)
    proposal = propose(document, CATALOGUE, {})
    assert proposal.keys == {"finding": "TW403", "host": "gw-1", "process": "mosquitto_pub", "user": "root"}
    assert covers_finding(rule_of(proposal), document, CATALOGUE)
    accepted = add_exception(HOST_POLICY, "case", {**proposal.keys, **ENDED}).text
    (again,) = [one for one in judge(ORDINARY, policy=accepted) if one.type.code == "TW403"]
    assert again.accepted is not None
    with pytest.raises(ConfigurationError, match="is about no name"):
        propose(document, CATALOGUE, {"topic": "a"})


def test_an_exception_for_a_host_names_no_program_it_does_not_know_all_of() -> None:
    (finding,) = [one for one in judge(ORDINARY) if one.type.code == "TW403"]
    document = documented(finding)
    unknown = {**document, "behind": []}
    with pytest.raises(ConfigurationError, match="no program is known"):
        propose(unknown, CATALOGUE, {})
    assert dict(propose(unknown, CATALOGUE, {}, wide=True).keys) == {"finding": "TW403", "host": "gw-1"}
    other = {**document["behind"][0], "executable": "/opt/a/python3"}
    two = {**document, "behind": [document["behind"][0], other]}
    with pytest.raises(ConfigurationError, match="2 programs"):
        propose(two, CATALOGUE, {})
    shared = propose(two, CATALOGUE, {}, wide=True)
    assert dict(shared.keys) == {"finding": "TW403", "host": "gw-1", "user": "root"}
    assert covers_finding(rule_of(shared), two, CATALOGUE)
    assert not covers_finding(rule_of(propose(document, CATALOGUE, {})), two, CATALOGUE)


def finding_of(code: str, events: list[dict[str, Any]], policy: str | None = None) -> dict[str, Any]:
    return next(documented(one) for one in run(CATALOGUE, policy, events) if one.type.code == code)


ROLE = 'topicwarden: 1\nroles: {r: {members: [{user: "*"}], publish: [{topic: a}]}}\n'


def test_an_exception_is_no_wider_than_the_finding() -> None:
    one = finding_of("TW201", [{"publish": "plant/x", "user": "gw", "client": "gw-1"}], ROLE)
    proposal = propose(one, CATALOGUE, {})
    assert proposal.keys == {"finding": "TW201", "client": "gw-1", "user": "gw", "topic": "plant/x"}
    assert proposal.notes == ("it is for every broker that this policy is used for",)
    other = finding_of("TW201", [{"publish": "plant/y", "user": "gw", "client": "gw-1"}], ROLE)
    assert not covers_finding(rule_of(proposal), other, CATALOGUE)
    wide = propose(one, CATALOGUE, {}, wide=True)
    assert "topic" not in wide.keys
    assert "it is for any name" in wide.notes
    assert covers_finding(rule_of(wide), other, CATALOGUE)


def test_of_several_names_somebody_chooses() -> None:
    events = [{"publish": f"plant/{name}", "user": "gw"} for name in "abc"]
    several = finding_of("TW201", events, ROLE)
    with pytest.raises(ConfigurationError, match="about 3 names, such as plant/a"):
        propose(several, CATALOGUE, {})
    chosen = propose(several, CATALOGUE, {"topic": "plant/#"})
    assert covers_finding(rule_of(chosen), several, CATALOGUE)
    too_narrow = propose(several, CATALOGUE, {"topic": "plant/a"})
    assert not covers_finding(rule_of(too_narrow), several, CATALOGUE)
    many = finding_of("TW201", [{"publish": f"plant/{number}", "user": "gw"} for number in range(20)], ROLE)
    assert "12 occurrences were on names that were not kept" in propose(many, CATALOGUE, {"topic": "plant/#"}).notes[1]


@pytest.mark.parametrize("name", ["*", "gw-?", "a*b"])
def test_a_name_that_would_be_a_pattern_accepts_nobody_else_unasked(name: str) -> None:
    document = finding_of("TW201", [{"publish": "plant/x", "user": name}], ROLE)
    with pytest.raises(ConfigurationError, match="would be a pattern, for others too"):
        propose(document, CATALOGUE, {})
    assert propose(document, CATALOGUE, {}, wide=True).keys["user"] == name


@pytest.mark.parametrize("topic", ["exchange invoices, key #", "queue billing", "exchange a, binding key b"])
def test_a_topic_that_is_named_like_our_words_accepts_no_key_or_queue(topic: str) -> None:
    document = finding_of("TW201", [{"publish": topic, "user": "gw"}], ROLE)
    with pytest.raises(ConfigurationError):
        propose(document, CATALOGUE, {})
    # Whatever it is, only what is about any name covers it.
    assert covers_finding(rule_of(propose(document, CATALOGUE, {}, wide=True)), document, CATALOGUE)
    for place in ({"queue": "#"}, {"exchange": "invoices", "key": "#"}, {"exchange": "a", "key": "#"}):
        assert not covers_finding(rule_of(propose(document, CATALOGUE, place)), document, CATALOGUE)


def test_names_that_were_no_utf8_and_clients_without_a_name_cannot_be_named() -> None:
    document = finding_of("TW201", [{"publish": "plant/x", "user": "gw\udcff"}], ROLE)
    with pytest.raises(ConfigurationError, match="is no UTF-8"):
        propose(document, CATALOGUE, {}, wide=True)
    document = finding_of("TW201", [{"publish": "plant/x", "user": "gw \\u{dcff}"}], ROLE)
    assert propose(document, CATALOGUE, {}).keys["user"] == "gw \\u{dcff}"
    nobody = {**document, "client": {**document["client"], "user": None, "client_id": ""}}
    with pytest.raises(ConfigurationError, match="without a user name and client id"):
        propose(nobody, CATALOGUE, {})


def test_a_shared_subscription_is_accepted_by_its_filter() -> None:
    document = finding_of("TW202", [{"subscribe": "$share/g/plant/#", "user": "gw"}], ROLE)
    proposal = propose(document, CATALOGUE, {})
    assert proposal.keys["topic"] == "plant/#"
    assert covers_finding(rule_of(proposal), document, CATALOGUE)
