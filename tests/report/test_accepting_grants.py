"""Accepting what is found of grants and of their changes: this grant, for those it is about, and nothing else."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compare.scenario import scan
from tests.engine.scenario import run
from tests.report.test_accepting import CATALOGUE, documented
from topicwarden.compare.scan import Scan
from topicwarden.errors import ConfigurationError
from topicwarden.findings import Finding, Ledger
from topicwarden.policy import ExceptionRule, parse_policy
from topicwarden.policy.editing import add_exception, remove_exception
from topicwarden.report.accepting import covers_finding, propose
from topicwarden.sources import SourceOptions, load_brokers

NOW_NS = 1_780_272_000_000_000_000
BARE = "topicwarden: 1\n"
REASON = "until it is replaced (until 2027-06-30)"
HOLDS = {"reason": "until it is replaced", "until": "2027-06-30"}
ENDED = {"reason": "until it is replaced", "until": "2026-01-31"}

PUMP = """\
topicwarden: 1
roles:
  pump: {members: [{user: pump}], publish: [{topic: "plant/pump/#"}]}
"""
SHOP = {"users": [{"name": "shop", "tags": ["policymaker"]}]}


def permissions(**given: str) -> dict[str, Any]:
    row = {"configure": "^$", "write": "^$", "read": "^$", **given}
    return {"users": [{"name": "shop", "tags": []}], "permissions": [{"user": "shop", "vhost": "/", **row}]}


def of_rule(code: str, number: int = 0) -> dict[str, Any]:
    return dict(CATALOGUE[code].cases["fires"][number])


STANDING: Mapping[str, Mapping[str, Any]] = {
    "TW101": {"acl": "user pump\ntopic readwrite plant/#\n", "policy": PUMP},
    "TW102": of_rule("TW102"),
    "TW104": of_rule("TW104"),
    "TW105": of_rule("TW105"),
    "TW106": of_rule("TW106"),
    "TW107": of_rule("TW107"),
    "TW108": of_rule("TW108"),
    "TW109": of_rule("TW109"),
    "TW112": {"definitions": SHOP},
    "TW113": {"definitions": permissions(write="orders")},
    "TW114": of_rule("TW114"),
    "TW115": of_rule("TW115"),
}
"""Of each code that is about one grant, a configuration and what else it takes to find it."""
CHANGED: Mapping[str, Mapping[str, Any]] = {
    "TW101": of_rule("TW101"),
    "TW103": of_rule("TW103"),
    "TW110": of_rule("TW110"),
    "TW111": of_rule("TW111"),
}
"""Of each code that a change of grants makes, events."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the configurations stand: always in the same file."""
    return tmp_path_factory.mktemp("broker")


def found(case: Mapping[str, Any], code: str, place: Path, policy: str | None = None) -> list[Finding]:
    text = policy or case.get("policy") or BARE
    if "events" in case:
        findings = run(CATALOGUE, text, case["events"])
    else:
        findings = scan(CATALOGUE, {**case, "policy": text}, place)[0]
    return [one for one in findings if one.type.code == code]


def with_exception(case: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    return add_exception(case.get("policy") or BARE, "case", keys).text


def cases() -> Iterator[Any]:
    for kind, listed in (("standing", STANDING), ("changed", CHANGED)):
        for code, case in listed.items():
            yield pytest.param(code, case, id=f"{code} {kind}")


def narrowest(document: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the keys of the narrowest exception that `findings accept` would write."""
    with contextlib.suppress(ConfigurationError):
        return propose(document, CATALOGUE, {}).keys
    return propose(document, CATALOGUE, {}, wide=True).keys


def others(keys: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield exceptions for something else: each key in turn is about another."""
    for key, value in keys.items():
        if key == "finding":
            other = "TW110" if value != "TW110" else "TW111"
            if "grant" in keys:
                other = "TW105" if value != "TW105" else "TW106"
            yield key, {**keys, key: other}
        else:
            yield key, {**keys, key: f"{value} and more"}
    if "holder" in keys:
        yield "no holder", {key: value for key, value in keys.items() if key != "holder"}
    if "change" in keys:
        yield "pattern", {**keys, "change": "x*"}


@pytest.mark.parametrize(("code", "case"), [*cases()])
def test_an_exception_accepts_the_grant_it_describes_and_nothing_else(
    code: str, case: Mapping[str, Any], place: Path
) -> None:
    first = found(case, code, place)[0]
    assert first.accepted is None
    document = documented(first)
    keys = dict(narrowest(document))
    assert {"grant", "holder", "broker"} <= set(keys) if "events" not in case else {"change", "user"} <= set(keys)
    (same,) = [one for one in found(case, code, place, with_exception(case, {**keys, **HOLDS})) if alike(one, first)]
    assert same.accepted == REASON
    assert same.severity.name == "INFO"
    assert same.evidence == first.evidence
    for what, other in others(keys):
        rule = ExceptionRule.model_validate({**other, **HOLDS})
        assert not covers_finding(rule, document, CATALOGUE), what
        (still,) = [
            one for one in found(case, code, place, with_exception(case, {**other, **HOLDS})) if alike(one, first)
        ]
        assert still.accepted is None, what


@pytest.mark.parametrize(("code", "case"), [*cases()])
def test_one_that_has_run_out_and_would_still_be_needed_is_a_finding(
    code: str, case: Mapping[str, Any], place: Path
) -> None:
    first = found(case, code, place)[0]
    keys = {**propose(documented(first), CATALOGUE, {}, wide=True).keys, **ENDED}
    policy = with_exception(case, keys)
    assert all(one.accepted is None for one in found(case, code, place, policy))
    (expired,) = found(case, "TW910", place, policy)
    assert expired.evidence["finding"] == code
    assert expired.evidence["exception_client"] == keys.get("user") or str(keys["grant"]) in str(
        expired.evidence["exception_client"]
    )
    assert "None" not in str(expired.evidence["exception_client"])
    # Another one that holds is enough.
    policy = add_exception(policy, "case", {**keys, **HOLDS}).text
    assert {one.accepted for one in found(case, code, place, policy) if alike(one, first)} == {REASON}
    assert not found(case, "TW910", place, policy)


@pytest.mark.parametrize(("code", "case"), [*cases()])
def test_taking_an_exception_for_a_grant_out_again_gives_the_policy_back(
    code: str, case: Mapping[str, Any], place: Path
) -> None:
    keys = propose(documented(found(case, code, place)[0]), CATALOGUE, {}, wide=True).keys
    text = case.get("policy") or BARE
    added = add_exception(text, "case", {**keys, **HOLDS})
    assert remove_exception(added.text, "case", len(added.policy.exceptions) - 1).text == text


def alike(one: Finding, other: Finding) -> bool:
    principal = [each.client and each.client.principal for each in (one, other)]
    return one.scope == other.scope and principal[0] == principal[1]


WORDS = ["topic readwrite plant/#", "topic readwrite #", "user 'pump'", "every client", "pump", "p*", "b", "c", "/"]
MUTATED = st.fixed_dictionaries(
    {},
    optional={
        "finding": st.sampled_from(["TW101", "grant.excess", "tw101", "TW112"]),
        "grant": st.sampled_from(WORDS),
        "holder": st.sampled_from(WORDS),
        "user": st.sampled_from(WORDS),
        "broker": st.sampled_from(WORDS),
        "vhost": st.sampled_from(WORDS),
        "file": st.sampled_from(["*", "*/acl", "acl", "*/other"]),
    },
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MUTATED)
def test_what_is_said_of_a_stored_finding_is_what_a_scan_does(place: Path, changes: Mapping[str, str]) -> None:
    case = STANDING["TW101"]
    (finding,) = found(case, "TW101", place)
    document = documented(finding)
    keys = {**propose(document, CATALOGUE, {}).keys, **changes, **HOLDS}
    (again,) = found(case, "TW101", place, with_exception(case, keys))
    assert covers_finding(ExceptionRule.model_validate(keys), document, CATALOGUE) is (again.accepted is not None)


# What tells a grant from others ---------------------------------------------------------------------------------------


def test_the_same_words_in_the_section_of_another_user_stay_open(place: Path) -> None:
    case = {"acl": "user pump\ntopic readwrite #\nuser fan\ntopic readwrite #\n", "policy": PUMP}
    fan, pump = sorted(found(case, "TW101", place), key=lambda one: str(one.client))
    assert pump.client is not None
    assert pump.client.user == "pump"
    assert pump.evidence["grant"] == fan.evidence["grant"]
    keys = propose(documented(pump), CATALOGUE, {}).keys
    again = found(case, "TW101", place, with_exception(case, {**keys, **HOLDS}))
    assert {one.client.user: one.accepted for one in again if one.client} == {"pump": REASON, "fan": None}
    # Without a user, too: the holder tells them apart.
    wide = propose(documented(pump), CATALOGUE, {}, wide=True).keys
    assert "user" not in wide
    again = found(case, "TW101", place, with_exception(case, {**wide, **HOLDS}))
    assert {one.client.user: one.accepted for one in again if one.client} == {"pump": REASON, "fan": None}


def test_a_line_that_moves_stays_accepted_and_one_that_changes_does_not(place: Path) -> None:
    case = STANDING["TW101"]
    policy = with_exception(case, {**propose(documented(found(case, "TW101", place)[0]), CATALOGUE, {}).keys, **HOLDS})
    moved = {**case, "acl": "# a comment\n\n" + case["acl"]}
    assert found(moved, "TW101", place, policy)[0].accepted == REASON
    wider = {**case, "acl": case["acl"].replace("plant/#", "#")}
    assert found(wider, "TW101", place, policy)[0].accepted is None


def two_listeners(place: Path) -> Path:
    lines = ["per_listener_settings true"]
    for port, name in ((1883, "inside"), (8883, "outside")):
        (place / name).write_text("user pump\ntopic readwrite #\n")
        lines += [f"listener {port}", "allow_anonymous true", f"acl_file {place / name}"]
    path = place / "mosquitto.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_same_words_in_another_file_of_the_broker_stay_open(place: Path) -> None:
    path = two_listeners(place)

    def scanned(policy: str) -> list[Finding]:
        ledger = Ledger(CATALOGUE)
        for grants in load_brokers()["mosquitto"].grants(str(path), SourceOptions(broker="b")):
            Scan(ledger, parse_policy(policy, "case"), NOW_NS).run(grants)
        return [one for one in ledger.findings() if one.type.code == "TW101"]

    (both,) = scanned(PUMP)
    assert both.count == 2
    proposal = propose(documented(both), CATALOGUE, {})
    assert proposal.keys["file"] == str(place / "inside")
    assert "it was told of 2 places: the same words in another file stay open" in proposal.notes
    again = scanned(with_exception({"policy": PUMP}, {**proposal.keys, **HOLDS}))
    told = {one.evidence["where_file"]: one.accepted for one in again}
    assert told == {str(place / "inside"): REASON, str(place / "outside"): None}


SALT, HASH = (b64encode(bytes(size)).decode() for size in (12, 64))


def dynsec(topic: str, *users: str) -> dict[str, Any]:
    """A dynamic-security.json in which all have one role, which lets them publish."""
    login = {"salt": SALT, "password": HASH, "iterations": 101, "roles": [{"rolename": "r"}]}
    kinds = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    return {
        "clients": [{"username": user, **login} for user in users],
        "roles": [{"rolename": "r", "acls": [{"acltype": "publishClientSend", "topic": topic, "allow": True}]}],
        "groups": [],
        "defaultACLAccess": dict.fromkeys(kinds, False),
    }


def accepted_users(case: Mapping[str, Any], place: Path, keys: Mapping[str, str]) -> dict[str | None, bool]:
    again = found(case, "TW101", place, with_exception(case, {**keys, **HOLDS}))
    return {one.client.user: one.accepted is not None for one in again if one.client}


def test_clients_alike_are_one_finding_that_no_one_user_name_accepts(place: Path) -> None:
    policy = 'topicwarden: 1\nroles: {ops: {members: [{user: ops}], publish: [{topic: "all/a"}]}}\n'
    case = {"dynsec": dynsec("all/#", "s-0", "s-1", "s-2", "ops"), "policy": policy}
    by_user = {one.client.user: one for one in found(case, "TW101", place) if one.client}
    assert set(by_user) == {"s-0", "ops"}
    alone, document = documented(by_user["ops"]), documented(by_user["s-0"])
    assert accepted_users(case, place, propose(alone, CATALOGUE, {}).keys) == {"s-0": False, "ops": True}
    with pytest.raises(ConfigurationError, match="is about 3 clients alike, and an exception names one user"):
        propose(document, CATALOGUE, {})
    keys = propose(document, CATALOGUE, {}, wide=True).keys
    assert set(keys) == {"finding", "grant", "holder", "broker", "file"}
    assert accepted_users(case, place, keys) == {"s-0": True, "ops": True}
    # A pattern that somebody writes is for those whom it matches.
    for user, told, covers in (
        ("s-*", {"s-0": True, "ops": False}, True),
        ("s-1", {"s-0": False, "s-1": True, "ops": False}, False),
        ("s-0", {"s-0": True, "s-1": False, "ops": False}, False),
    ):
        assert accepted_users(case, place, {**keys, "user": user}) == told
        rule = ExceptionRule.model_validate({**keys, "user": user, **HOLDS})
        assert covers_finding(rule, document, CATALOGUE) is covers


ADMINISTRATORS: Mapping[str, Any] = {
    "dynsec": dynsec("$CONTROL/dynamic-security/#", "ann", "bob"),
    "policy": 'topicwarden: 1\nroles: {a: {members: [{user: "*"}], publish: [{topic: "$CONTROL/#"}]}}\n',
}


def test_what_is_dangerous_in_the_hands_of_several_is_not_accepted_for_one_of_them(place: Path) -> None:
    (finding,) = found(ADMINISTRATORS, "TW112", place)
    assert finding.client is not None
    assert (finding.client.user, finding.evidence["alike"], finding.evidence["alike_names"]) == ("ann", 1, "bob")
    document = documented(finding)
    with pytest.raises(ConfigurationError, match="2 clients alike"):
        propose(document, CATALOGUE, {})
    keys = {**propose(document, CATALOGUE, {}, wide=True).keys, **HOLDS}
    for user, accepted in (("ann", None), ("*", REASON), (None, REASON), ("bob", None)):
        given = keys if user is None else {**keys, "user": user}
        (again,) = found(ADMINISTRATORS, "TW112", place, with_exception(ADMINISTRATORS, given))
        assert again.accepted == accepted, user
        covers = covers_finding(ExceptionRule.model_validate(given), document, CATALOGUE)
        assert covers is (accepted is not None), user


def test_what_is_told_of_no_user_needs_an_exception_without_one(place: Path) -> None:
    case = STANDING["TW102"]
    document = documented(found(case, "TW102", place)[0])
    assert document["client"] is None
    keys = {**propose(document, CATALOGUE, {}).keys, "user": "*", **HOLDS}
    assert not covers_finding(ExceptionRule.model_validate(keys), document, CATALOGUE)
    assert found(case, "TW102", place, with_exception(case, keys))[0].accepted is None


def test_grants_of_clients_without_a_user_name_are_accepted_by_their_holder(place: Path) -> None:
    case = {"acl": "topic readwrite #\n", "policy": PUMP}
    anonymous = [one for one in found(case, "TW101", place) if one.client and one.client.user is None]
    if not anonymous:
        anonymous = found(case, "TW105", place)
    document = documented(anonymous[0])
    keys = propose(document, CATALOGUE, {}, wide=True).keys
    assert keys["holder"] == "clients without a user name"
    (again,) = [
        one
        for one in found(case, document["code"], place, with_exception(case, {**keys, **HOLDS}))
        if alike(one, anonymous[0])
    ]
    assert again.accepted == REASON


def test_a_user_whom_the_broker_does_not_know_is_accepted_by_name(place: Path) -> None:
    policy = "topicwarden: 1\nroles: {shop: {members: [{user: gone}], publish: [{topic: x}]}}\n"
    case = {"dynsec": dynsec("a", "ann"), "policy": policy}
    (finding,) = found(case, "TW103", place)
    document = documented(finding)
    keys = propose(document, CATALOGUE, {}).keys
    assert keys == {"finding": "TW103", "user": "gone"}
    assert found(case, "TW103", place, with_exception(case, {**keys, **HOLDS}))[0].accepted == REASON
    expired = with_exception(case, {**keys, **ENDED})
    assert found(case, "TW103", place, expired)[0].accepted is None
    assert found(case, "TW910", place, expired)


def test_names_in_place_of_the_grant_are_still_a_choice(place: Path) -> None:
    case = STANDING["TW101"]
    document = documented(found(case, "TW101", place)[0])
    keys = propose(document, CATALOGUE, {"topic": "plant/#"}).keys
    assert keys == {"finding": "TW101", "user": "pump", "topic": "plant/#"}
    assert found(case, "TW101", place, with_exception(case, {**keys, **HOLDS}))[0].accepted == REASON
    for code in ("TW102", "TW109", "TW112"):
        with pytest.raises(ConfigurationError, match="is about no name"):
            propose(documented(found(STANDING[code], code, place)[0]), CATALOGUE, {"topic": "a"})


def test_grants_that_a_policy_cannot_name_are_refused(place: Path) -> None:
    document = documented(found(STANDING["TW102"], "TW102", place)[0])
    evidence = document["evidence"]
    with pytest.raises(ConfigurationError, match="is no UTF-8"):
        propose({**document, "evidence": {**evidence, "grant": "topic read \\u{dcff}"}}, CATALOGUE, {}, wide=True)
    with pytest.raises(ConfigurationError, match="an exception can name 65536"):
        propose({**document, "evidence": {**evidence, "grant": "x" * 70_000}}, CATALOGUE, {})
    with pytest.raises(ConfigurationError, match="would be a pattern"):
        propose({**document, "broker": "plant-*"}, CATALOGUE, {})
    wide = propose({**document, "broker": "plant-*"}, CATALOGUE, {}, wide=True)
    assert "broker" not in wide.keys
    assert "it is for any broker" in wide.notes


def test_hostile_words_of_a_grant_are_named_exactly(place: Path) -> None:
    case = {"acl": 'user p"u\'mp\ntopic readwrite a, {b: c} "x" \\ é\n', "policy": BARE}
    (finding,) = found(case, "TW101", place)[:1]
    keys = {**propose(documented(finding), CATALOGUE, {}, wide=True).keys, **HOLDS}
    assert found(case, "TW101", place, with_exception(case, keys))[0].accepted == REASON
