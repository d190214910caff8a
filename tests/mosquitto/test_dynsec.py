"""Reading a dynamic-security.json: what the plugin holds of it, what that allows, and what is wrong with it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mosquitto.dynsec_broker import connect, dynsec_broker, password_members
from tests.mosquitto.dynsec_files.record import FOLDER, recorded
from tests.mosquitto.dynsec_random import configuration
from topicwarden.errors import ConfigurationError
from topicwarden.events import Action, Client
from topicwarden.grants import Kept
from topicwarden.policy import Space
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto import BROKER, dynsec_json, dynsec_subscribing
from topicwarden_collectors.mosquitto.dynsec import DynsecGrants, parse_dynsec, read_dynsec
from topicwarden_collectors.mosquitto.dynsec_matching import names_of_acl

TOPICS = Space("topic")
PLANT = FOLDER / "plant.json"


def acl(kind: str, topic: str, allow: bool = True, **more: object) -> dict[str, Any]:
    return {"acltype": kind, "topic": topic, "allow": allow, **more}


def one_user(*acls: dict[str, Any], **more: object) -> dict[str, Any]:
    """Return a configuration with the user `u`, whose role `r` has these ACLs."""
    client = {"username": "u", "roles": [{"rolename": "r"}], **password_members()}
    return {"clients": [client], "roles": [{"rolename": "r", "acls": list(acls)}], **more}


def grants_of(found: dict[str, Any], **about: Any) -> DynsecGrants:
    return DynsecGrants("fx", parse_dynsec("ds.json", json.dumps(found).encode()), **about)


def who(user: str | None = "u", client_id: str = "") -> Client:
    return Client("fx", "mqtt", client_id, user)


def faults(grants: DynsecGrants, code: str = "TW105") -> list[str]:
    return [str(fault.evidence["reason"]) for fault in grants.faults if fault.code == code]


def test_a_known_file_is_read_as_it_once_was() -> None:
    assert recorded("plant") == (FOLDER / "plant.grants").read_text()


def test_the_broker_reads_the_file_by_its_first_bytes() -> None:
    (grants,) = BROKER.grants(str(PLANT), SourceOptions(broker="plant"))
    assert grants.broker == "plant"
    assert len(grants.origins) == 19


def test_no_password_is_kept() -> None:
    held = repr(parse_dynsec("plant.json", PLANT.read_bytes()))
    assert "MfsYX" not in held
    assert "dHdlbHZlIGJ5dGVz" not in held


# JSON as cJSON reads it ----------------------------------------------------------------------------------------------

CLIENT = json.dumps({"username": "u", **password_members()})
READ = [
    '{"clients": [%s]}',
    '\ufeff{"clients": [%s]}',
    '{"CLIENTS": [%s]}',
    '{"clients": [%s]} and more',
    '{"clients": [%s]}}}',
    '{"clients": [%s], "Clients": 1}',
    '{"x": "a\nb", "clients": [%s]}',
    '{"x": "\\u0000\\uzzzz", "clients": [%s]}',
    '{"x": "\\ud83d\\ude00", "clients": [%s]}',
    '{"x": [1e5, -1, 1., 01, 1e999, []], "clients": [%s]}',
    '\x01{ "clients" \x02:\x1f[%s]}',
    '{"clients": [%s], "x": [' + "[" * 900 + "]" * 900 + "]}",
    '{"clien\\u0074s": [%s]}',
    '{"clients\\u0000": [%s]}',
]
NOT_READ = [
    '{"clients": [%s],}',
    '{"clients": [%s,]}',
    '{"clients": [%s]',
    "{'clients': [%s]}",
    '{"clients": [%s], "x": "\\q"}',
    '{"clients": [%s], "x": "\\ud800"}',
    '{"clients": [%s], "x": "\\udc00"}',
    '{"clients": [%s], "x": "\\u12"}',
    '{"clients": [%s], "x": truth}',
    '{"clients": [%s], "x": +1}',
    '{"clients": [%s], "x": -}',
    '{"clients": [%s], "x": ' + "[" * 1001 + "]" * 1001 + "}",
    '{"clients" [%s]}',
    '{"x": "\x00", "clients": [%s]}',
    "[%s]",
    '{"roles": {}, "clients": [%s]}',
]


@pytest.mark.parametrize("text", [*READ, *NOT_READ])
def test_what_is_json_is_what_the_plugin_takes_for_it(text: str, tmp_path: Path) -> None:
    data = (text % CLIENT).encode()
    with dynsec_broker(tmp_path, data) as broker:
        client = connect(broker.port, "u")
        client.disconnect()
    assert (client.code == 0) == (text in READ)
    if text in READ:
        assert "u" in parse_dynsec("ds.json", data).accounts
    else:
        with pytest.raises(ConfigurationError):
            parse_dynsec("ds.json", data)


def test_bytes_that_are_no_utf_8_are_taken_as_they_are(tmp_path: Path) -> None:
    data = (READ[0] % CLIENT).encode().replace(b'"u"', b'"\xff"')
    assert list(parse_dynsec("ds.json", data).accounts) == ["\udcff"]
    (grants,) = [DynsecGrants("fx", parse_dynsec("ds.json", data))]
    assert grants.accounts == ()


@pytest.mark.parametrize("entry", ['{"rolename": 1}', '{"rolename": "r", "textname": 1}', '{"rolename": null}'])
def test_a_roles_name_that_is_no_text_ends_the_broker_and_is_refused(entry: str, tmp_path: Path) -> None:
    data = f'{{"roles": [{entry}]}}'.encode()
    with pytest.raises(AssertionError, match=r"did not start \(status -11\)"), dynsec_broker(tmp_path, data):
        pass
    with pytest.raises(ConfigurationError, match="crashes"):
        parse_dynsec("ds.json", data)


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    data = b'{\n"clients": 1,\n"groups": {},\n"roles":\n[{"rolename": 1},\n{"textname": 2, "rolename": "r"}]}'
    with pytest.raises(ConfigurationError) as raised:
        parse_dynsec("ds.json", data)
    assert [(problem.line, problem.message.split()[0]) for problem in raised.value.problems] == [
        (2, "clients"),
        (3, "groups"),
        (5, "rolename"),
        (6, "textname"),
    ]


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", None, "is empty"),
        (b'{\n"a": \n\n tru}', 4, "unexpected 't'"),
        (b'{"a": "b\n\n', 1, "without its closing quote"),
        (b'{"a"\n1}', 2, "expected ':'"),
        (b'{"a": 1\n "b": 2}', 2, "expected ',' or '}'"),
        (b"[[\n", 2, "ends too early"),
        (b'{\n"a": "\\q"}', 2, "unknown escape"),
    ],
)
def test_what_is_no_json_is_told_with_its_line(data: bytes, line: int | None, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_dynsec("ds.json", data)
    (problem,) = raised.value.problems
    assert (problem.file, problem.line) == ("ds.json", line)
    assert words in problem.message
    assert problem.hint


def test_size_depth_and_number_of_values_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="nested deeper than 1000"):
        parse_dynsec("ds.json", b"[" * 1_000_000)
    monkeypatch.setattr(dynsec_json, "MAX_VALUES", 100)
    with pytest.raises(ConfigurationError, match="more than 100 values"):
        parse_dynsec("ds.json", b"[" + b"1," * 1000 + b"1]")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_dynsec(tmp_path, SourceOptions())
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_dynsec(tmp_path / "missing", SourceOptions())


_words = st.sampled_from(
    [
        *("clients", "groups", "roles", "username", "rolename", "groupname", "acls", "acltype", "topic", "allow"),
        *("priority", "disabled", "clientid", "anonymousGroup", "defaultACLAccess", "subscribe", "password", "salt"),
        *("iterations", "textname", "ROLES", "x", "r", "u", "#", "+/#", "a/+/#x", "$SYS/#", "%u", "", "\0", "é"),
        *("publishClientSend", "publishClientReceive", "subscribeLiteral", "subscribePattern", "unsubscribePattern"),
    ]
)
_values = st.recursive(
    st.one_of(_words, st.text(max_size=5), st.booleans(), st.none(), st.integers(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(_words, inner, max_size=6),
        st.fixed_dictionaries({"rolename": _words, "acls": st.lists(st.dictionaries(_words, inner), max_size=4)}),
    ),
    max_leaves=40,
)


@st.composite
def _files(draw: st.DrawFn) -> bytes:
    """Return bytes, or JSON of the plugin's words, or a file of its own; some of the bytes changed."""
    match draw(st.integers(0, 5)):
        case 0:
            return draw(st.binary(max_size=200))
        case 1 | 2:
            found = draw(st.dictionaries(_words, _values, max_size=6))
        case kind:
            found = configuration(random.Random(draw(st.integers(0, 1 << 30))), dense=kind == 3)
    text = json.dumps(found, ensure_ascii=draw(st.booleans()))
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=120, deadline=None)
@given(_files(), st.one_of(st.none(), st.booleans()), st.booleans())
def test_no_file_is_too_strange(data: bytes, anonymous: bool | None, certificates: bool) -> None:
    try:
        grants = DynsecGrants("fx", parse_dynsec("ds.json", data), anonymous=anonymous, certificates=certificates)
    except ConfigurationError:
        return
    for account in grants.accounts:
        rights = grants.rights(account)
        assert rights is not None
        for rules in rights.by.values():
            rules.decide("a/b")
            for rule in rules.rules:
                grants.instead(rule.origin, account, [Kept(Action.SUBSCRIBE, TOPICS, "a/%u")])
    assert all("\n" not in origin.text for origin in grants.origins)


# Who can log in ------------------------------------------------------------------------------------------------------


def test_who_cannot_log_in_is_no_account() -> None:
    password = password_members()
    clients = [
        {"username": "ok", **password},
        {"username": "off", "disabled": True, **password},
        {"username": "bare"},
        {"username": "bound", "clientid": "dev", **password},
        {"username": "never", "clientid": "", **password},
        {"username": "a\nb", **password},
        {"username": "", **password},
    ]
    known = grants_of({"clients": clients}, anonymous=False)
    assert [(one.user, one.client_id) for one in known.accounts] == [("ok", ""), ("bound", "dev")]
    assert known.closed
    for user in ("off", "bare", "never", "a\nb", "stranger", None):
        assert known.rights(who(user)) is None
    assert known.rights(who("bound", "other")) is None
    assert known.rights(who("bound", "dev")) is not None
    assert known.rights(who("bound")) is not None
    # A certificate needs no password, and nothing else of the client is looked at then.
    by_certificate = grants_of({"clients": clients}, anonymous=False, certificates=True)
    assert [(one.user, one.client_id) for one in by_certificate.accounts] == [
        *(("ok", ""), ("off", ""), ("bare", ""), ("bound", ""), ("never", ""))
    ]
    assert not by_certificate.closed
    # Without the mosquitto.conf nobody knows whether certificates are used.
    alone = grants_of({"clients": clients})
    assert [one.user for one in alone.accounts] == ["ok", "bare", "bound"]
    assert any("without a password" in one for one in alone.blind_spots)


def test_users_of_another_file_have_no_rights() -> None:
    grants = grants_of(one_user(acl("publishClientSend", "#")), anonymous=False, names=["other"])
    assert [one.user for one in grants.accounts] == ["u", "other"]
    rights = grants.rights(who("other"))
    assert rights is not None
    assert not rights.by


def test_the_anonymous_group_is_for_clients_without_a_name() -> None:
    found = one_user(acl("publishClientSend", "a"))
    found |= {"groups": [{"groupname": "g", "roles": [{"rolename": "r"}]}], "anonymousGroup": "g"}
    for anonymous, allowed in ((True, True), (None, True), (False, None)):
        rights = grants_of(found, anonymous=anonymous).rights(who(None))
        decided = None if rights is None else rights.rules(Action.PUBLISH, TOPICS).decide("a").allowed
        assert decided is allowed
    assert [one.user for one in grants_of(found, anonymous=False).accounts] == ["u"]


# Faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (acl("publishClientSend", "a+"), "matches no topic"),
        (acl("publishClientReceive", ""), "matches no topic"),
        (acl("publishClientReceive", "a\nb"), "matches no topic"),
        (acl("subscribePattern", "a/#/b"), "is no filter"),
        (acl("subscribeLiteral", "$share/g"), "brings nothing"),
        (acl("publishClientSend", "$SYS/a"), "the broker itself lets nobody"),
        (acl("publishClientSend", "$share/g/a"), "the broker itself lets nobody"),
        (acl("publishClientSend", "a/%u"), "as these letters"),
        (acl("subscribe", "a"), "there is no acltype 'subscribe'"),
        ({"topic": "a", "allow": True}, "it has no acltype"),
        ({"acltype": "publishClientSend", "allow": True}, "it has no topic"),
        (acl("publishClientSend", "a", priority="1"), "priority is no number"),
        (acl("publishClientSend", "a", qos=1), "does not read 'qos'"),
        (acl("publishClientSend", "a", Topic="b"), "stands twice"),
    ],
)
def test_an_acl_that_does_nothing_or_is_read_otherwise_is_told(entry: dict[str, Any], words: str) -> None:
    told = faults(grants_of(one_user(entry)))
    assert len(told) == 1
    assert words in told[0]


def test_what_has_an_effect_is_not_accused() -> None:
    grants = grants_of(
        one_user(
            acl("publishClientSend", "a/+/#"),
            acl("publishClientSend", "$SYS/broker/connection/b/state"),
            acl("publishClientReceive", "$SYS/#"),
            acl("subscribeLiteral", "$share/g/a"),
            acl("subscribePattern", "a/#"),
            acl("subscribePattern", "b/#", False),
            acl("unsubscribePattern", "#"),
        ),
        anonymous=False,
    )
    assert grants.faults == ()


def test_a_denial_that_a_wider_subscription_gets_around_is_told() -> None:
    allowed = acl("subscribePattern", "a/#")
    denied = acl("subscribePattern", "a/secret", False, priority=5)
    open_wide = {"defaultACLAccess": {"publishClientReceive": True}}
    told = faults(grants_of(one_user(allowed, denied, **open_wide)))
    assert len(told) == 1
    assert "by subscribing to 'a/#'" in told[0]
    literal = acl("subscribeLiteral", "a/#", False)
    assert "by subscribing to 'a/+/#'" in faults(grants_of(one_user(allowed, literal, **open_wide)))[0]
    kept_back = acl("publishClientReceive", "a/secret", False)
    assert faults(grants_of(one_user(allowed, denied, kept_back, **open_wide))) == []
    assert faults(grants_of(one_user(allowed, denied))) == []


def test_a_denial_that_is_asked_too_late_is_told() -> None:
    late = [acl("subscribePattern", "a/#", priority=5), acl("subscribePattern", "a/+", False)]
    told = faults(grants_of(one_user(*late)))
    assert told == ["all it denies is allowed by subscribePattern allow a/# priority 5 of role 'r', asked first"]
    # For another client it comes in time.
    found = one_user(*late)
    found["roles"].append({"rolename": "q", "acls": [acl("subscribePattern", "a/+", False)]})
    found["clients"][0]["roles"].append({"rolename": "q", "priority": -5})
    assert len(faults(grants_of(found))) == 2
    found["clients"].append({"username": "v", "roles": [{"rolename": "q"}], **password_members()})
    assert len(faults(grants_of(found))) == 1


def test_power_over_the_broker_is_told_unless_it_is_the_administrators() -> None:
    power = acl("publishClientSend", "$CONTROL/#")
    grants = grants_of(one_user(power))
    assert faults(grants, "TW112") == ["whoever has it can give every right to everybody: 'u'"]
    found = one_user()
    found["clients"][0]["roles"] = [{"rolename": "admin"}]
    found["roles"] = [{"rolename": "admin", "acls": [power]}]
    assert faults(grants_of(found), "TW112") == []


def test_a_role_that_nobody_who_can_log_in_has_is_told() -> None:
    found = one_user(acl("publishClientSend", "a"))
    found["clients"][0]["disabled"] = True
    assert faults(grants_of(found, anonymous=False)) == ["no client that can log in has this role"]


def test_namesakes_are_told_and_not_certain_in_a_large_table() -> None:
    roles = [{"rolename": "r", "acls": [acl("publishClientSend", topic)]} for topic in ("a", "b")]
    found = {**one_user(), "roles": roles}
    grants = grants_of(found)
    assert faults(grants) == ["'r' stands again further down, and the last one counts"]
    rights = grants.rights(who())
    assert rights is not None
    assert [rule.certainty.name for rule in rights.rules(Action.PUBLISH, TOPICS).rules] == ["EXACT"]
    found["roles"] = [*roles, *({"rolename": f"r{number}"} for number in range(20))]
    grants = grants_of(found)
    assert len(faults(grants, "TW114")) == 1
    rights = grants.rights(who())
    assert rights is not None
    assert [rule.certainty.name for rule in rights.rules(Action.PUBLISH, TOPICS).rules] == ["INFERRED"]


def test_too_many_denials_to_compare_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynsec_subscribing, "MAX_PAIRS", 3)
    acls = [acl("subscribePattern", f"a/{number}", number > 2) for number in range(6)]
    grants = grants_of(one_user(*acls, defaultACLAccess={"publishClientReceive": True}))
    assert len(faults(grants, "TW114")) == 1


@pytest.mark.parametrize(
    ("topic", "levels"),
    [("a/+/#x", "a/+"), ("+/#/b", "+"), ("a/#x", None), ("a+", None), ("#/a", None), ("a/" * 201, None)],
)
def test_what_is_no_filter_matches_nothing_but_behind_a_plus(topic: str, levels: str | None) -> None:
    names = names_of_acl(topic)
    assert (None if names is None else str(names)) == levels


# What to do instead --------------------------------------------------------------------------------------------------


def instead(found: dict[str, Any], text: str, *kept: tuple[Action, str]) -> list[str]:
    grants = grants_of(found)
    origin = next(origin for origin in grants.origins if origin.text == text)
    return grants.instead(origin, who(), [Kept(action, TOPICS, pattern) for action, pattern in kept]).split("\n")


def test_the_commands_that_narrow_a_grant_are_given() -> None:
    found = one_user(
        acl("publishClientSend", "a b/#", priority=3),
        acl("subscribePattern", "+/status"),
        defaultACLAccess={"publishClientReceive": True, "subscribe": True},
    )
    send = "publishClientSend allow a b/# priority 3"
    assert instead(found, send) == ["mosquitto_ctrl dynsec removeRoleACL r publishClientSend 'a b/#'"]
    entry = {"acltype": "publishClientSend", "topic": "a b/c", "priority": 3, "allow": True}
    assert instead(found, send, (Action.PUBLISH, "a b/c"), (Action.SUBSCRIBE, "x")) == [
        "mosquitto_ctrl dynsec removeRoleACL r publishClientSend 'a b/#'",
        "mosquitto_ctrl dynsec addRoleACL r publishClientSend 'a b/c' allow 3",
        f'# in the file, among the "acls" of that role: {json.dumps(entry)}',
    ]
    assert instead(found, send, (Action.PUBLISH, "a b/%u"))[:2] == [
        "# 'a b/%u' needs a role for each user: Mosquitto 2.0.11 takes %u and %c as letters",
        "mosquitto_ctrl dynsec removeRoleACL r publishClientSend 'a b/#'",
    ]
    assert instead(found, send, (Action.PUBLISH, "a b/%c"))[0] == (
        "# no ACL says 'a b/%c': Mosquitto 2.0.11 takes %u and %c as letters"
    )
    # A pattern that is intended as it stands brings `$SYS/status` all the same, unless that is not handed out.
    assert instead(found, "subscribePattern allow +/status", (Action.SUBSCRIBE, "+/status")) == [
        "mosquitto_ctrl dynsec addRoleACL r publishClientReceive +/status allow",
        "mosquitto_ctrl dynsec setDefaultACLAccess publishClientReceive deny",
    ]
    assert instead(found, "defaultACLAccess subscribe true", (Action.SUBSCRIBE, "a/b"))[:2] == [
        "mosquitto_ctrl dynsec setDefaultACLAccess subscribe deny",
        "mosquitto_ctrl dynsec addRoleACL r subscribePattern a/b allow",
    ]


def test_a_role_of_several_clients_is_said_to_be() -> None:
    found = one_user(acl("publishClientSend", "#"))
    found["clients"].append({**found["clients"][0], "username": "v"})
    assert instead(found, "publishClientSend allow #")[0] == "# changes role 'r' for all its 2 clients:"
