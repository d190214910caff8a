"""Definitions as rights, faults and commands: golden files, plain cases, and what nobody should write."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.errors import ConfigurationError, ObservationError, TopicwardenError
from topicwarden.events import Action, Certainty, Client
from topicwarden.grants import Grants, Kept
from topicwarden.patterns import Anything, Regex, key_matches, names_match
from topicwarden.patterns.regex import regex_matches
from topicwarden.policy import Place, Space
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.grants_plain import DefinedGrants
from topicwarden_collectors.rabbitmq.grants_read import read_grants
from topicwarden_collectors.rabbitmq.grants_rules import reserved_but
from topicwarden_collectors.rabbitmq.receivable import receivable

GOLDEN = Path(__file__).with_name("golden_definitions")
EXPECTED = Path(__file__).with_name("golden_grants")
WHOLE = [GOLDEN / f"{name}.json" for name in ("command-3.10.8", "http-3.10.8", "tags-as-text-3.6")]
EXCHANGES, QUEUES = Space("exchange"), Space("queue")
PUBLISH, SUBSCRIBE, CONFIGURE = Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE


def permission(user: str = "shop", configure: str = "", write: str = "", read: str = "") -> dict[str, str]:
    return {"user": user, "vhost": "/", "configure": configure, "write": write, "read": read}


def topic(exchange: str, write: str, read: str, user: str = "shop") -> dict[str, str]:
    return {"user": user, "vhost": "/", "exchange": exchange, "write": write, "read": read}


def grants(*permissions: Mapping[str, str], version: str = "3.10.8", **sections: Any) -> DefinedGrants:
    document = {
        "rabbit_version": version,
        "users": [{"name": "shop", "tags": []}],
        "vhosts": [{"name": "/"}],
        "permissions": list(permissions),
        "exchanges": [
            {"vhost": "/", "name": "orders", "type": "topic"},
            {"vhost": "/", "name": "all", "type": "fanout"},
            {"vhost": "/", "name": "inside", "type": "topic", "internal": True},
        ],
        "queues": [{"vhost": "/", "name": "shop.in"}],
        **sections,
    }
    return DefinedGrants(read_definitions(json.dumps(document), name="definitions.json"), "fx", "definitions.json")


def shop(client_id: str = "", protocol: str = "amqp") -> Client:
    return Client("fx", protocol, client_id, "shop", vhost="/")


def decide(found: DefinedGrants, action: Action, space: Space, name: str, client: Client | None = None) -> bool | None:
    rights = found.rights(client or shop())
    assert rights is not None
    return rights.rules(action, space).decide(name).allowed


def keys(exchange: str) -> Space:
    return Space("key", exchange)


def described(found: Grants) -> object:
    """What grants say, as golden files have it."""

    def names(rule: Any) -> str:
        return f"{'allow' if rule.allow else 'deny'} {rule.names} by {rule.origin.text} ({rule.certainty.name.lower()})"

    accounts = {}
    for client in found.accounts:
        rights = found.rights(client)
        assert rights is not None
        accounts[f"{client.user} in {client.vhost}"] = {
            "rights": {
                f"{action.name.lower()} {space.family} {space.within}".strip(): [names(rule) for rule in rules.rules]
                for (action, space), rules in rights.by.items()
            },
            "paths": [
                f"{path.action.name.lower()} {path.space.family} {path.space.within}: {path.names} by way of {path.how}"
                f" ({path.certainty.name.lower()})"
                for path in found.paths(client)
            ],
        }
    return {
        "title": Path(found.title.split(" ")[1]).name,
        "accounts": accounts,
        "origins": [f"{origin.text} of {origin.holder}" for origin in found.origins],
        "faults": [
            [fault.code, fault.origin.text, fault.origin.holder, fault.witness, dict(fault.evidence)]
            for fault in found.faults
        ],
        "blind_spots": list(found.blind_spots),
    }


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_definitions_mean_what_their_golden_file_says(path: Path) -> None:
    (found,) = read_grants(str(path), SourceOptions())
    assert described(found) == json.loads((EXPECTED / path.name).read_text())


def test_the_export_of_one_virtual_host_has_no_grants_to_read() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_grants(str(GOLDEN / "one-vhost-3.10.8.json"), SourceOptions())
    assert "export_definitions" in (caught.value.problems[0].hint or "")


def test_permissions_are_searched_for_and_the_empty_one_allows_nothing() -> None:
    found = grants(permission(write="orders", read="^all$"))
    assert decide(found, PUBLISH, EXCHANGES, "orders") is True
    assert decide(found, PUBLISH, EXCHANGES, "reorders-2") is True
    assert decide(found, SUBSCRIBE, EXCHANGES, "orders") is False
    assert found.rights(shop()).by.keys() == {  # type: ignore[union-attr]
        (PUBLISH, EXCHANGES),
        (PUBLISH, keys("orders")),
        (SUBSCRIBE, EXCHANGES),
        (SUBSCRIBE, keys("all")),
    }


def test_whoever_has_no_permission_in_a_virtual_host_cannot_connect_to_it() -> None:
    found = grants(permission(), permission("ghost", ".*", ".*", ".*"))
    assert found.rights(Client("fx", "amqp", "", "shop", vhost="other")) is None
    assert found.rights(Client("fx", "amqp", "", "ghost", vhost="/")) is None
    assert found.rights(Client("fx", "amqp", "", None, vhost="/")) is None
    assert [account.user for account in found.accounts] == ["shop"]
    assert found.closed


def test_names_nothing_can_have_are_nobodys_right() -> None:
    found = grants(permission(configure=".*", write=".*", read=".*"))
    for action, space, name, allowed in (
        (PUBLISH, EXCHANGES, "amq.topic", True),
        (PUBLISH, EXCHANGES, "amq.default", True),
        (PUBLISH, EXCHANGES, "amq.new", False),
        (PUBLISH, EXCHANGES, "inside", False),
        (PUBLISH, EXCHANGES, "amq.rabbitmq.trace", False),
        (PUBLISH, EXCHANGES, "shop.in", False),
        (PUBLISH, EXCHANGES, "", False),
        (PUBLISH, EXCHANGES, "new", True),
        (SUBSCRIBE, EXCHANGES, "amq.default", False),
        (SUBSCRIBE, EXCHANGES, "amq.rabbitmq.trace", True),
        (SUBSCRIBE, EXCHANGES, "inside", True),
        (SUBSCRIBE, QUEUES, "shop.in", True),
        (SUBSCRIBE, QUEUES, "orders", False),
        (SUBSCRIBE, QUEUES, "amq.gen-abc", True),
        (SUBSCRIBE, QUEUES, "amq.gen-a.b", False),
        (CONFIGURE, EXCHANGES, "amq.topic", False),
        (CONFIGURE, EXCHANGES, "orders", True),
        (CONFIGURE, QUEUES, "amq.gen-abc", True),
        (CONFIGURE, QUEUES, "amq.other", False),
    ):
        assert decide(found, action, space, name) is allowed, (action, space, name)


def test_a_right_to_queues_alone_is_no_right_to_exchanges() -> None:
    own = r"^amq\.gen-.*$"
    found = grants(permission(configure=own, write=own, read=r"^(amq\.gen-.*|orders)$"))
    assert found.rights(shop()).by.keys() == {  # type: ignore[union-attr]
        (SUBSCRIBE, EXCHANGES),
        (SUBSCRIBE, QUEUES),
        (CONFIGURE, QUEUES),
        (SUBSCRIBE, keys("orders")),
    }


@given(st.lists(st.text("ab.gen-", max_size=6), max_size=4), st.text("amq.gen-b", max_size=12), st.booleans())
def test_what_is_reserved_is_what_begins_with_amq_and_is_not_known(known: list[str], name: str, named: bool) -> None:
    names = frozenset(f"amq.{one}" for one in known)
    generated = named and name.startswith("amq.gen-") and "." not in name[8:]
    expected = not name or (name.startswith("amq.") and name not in names and not generated)
    if name in names and named and name.startswith("amq.gen-"):
        return  # a known queue whose name the server would not give is as good as one it would
    assert names_match(reserved_but(names, server_named=named), name) is expected


def test_topic_permissions_bind_on_topic_exchanges_alone() -> None:
    rows = [topic("orders", "^new$", ""), topic("all", "^new$", "")]
    found = grants(permission(write=".*", read=".*"), topic_permissions=rows)
    assert decide(found, PUBLISH, keys("orders"), "new") is True
    assert decide(found, PUBLISH, keys("orders"), "old") is False
    assert decide(found, PUBLISH, keys("all"), "old") is True
    assert decide(found, SUBSCRIBE, keys("orders"), "") is True
    assert decide(found, SUBSCRIBE, keys("orders"), "new") is False
    assert decide(found, PUBLISH, keys("amq.default"), "shop.in") is True
    reasons = {(fault.code, fault.origin.text) for fault in found.faults if fault.code == "TW105"}
    assert ("TW105", "topic write '^new$' on exchange 'all'") in reasons


def test_variables_are_put_in_as_the_server_does_and_for_mqtt_clients_the_client_id() -> None:
    rows = [topic("orders", r"^{vhost}\.{username}\.{client_id}$", "")]
    found = grants(permission(write="^orders$"), topic_permissions=rows)
    assert decide(found, PUBLISH, keys("orders"), "/.shop.c1", shop("c1", "mqtt")) is True
    assert decide(found, PUBLISH, keys("orders"), "/.shop.c2", shop("c1", "mqtt")) is False
    assert decide(found, PUBLISH, keys("orders"), "/.shop.c2", shop(".*", "mqtt")) is True
    assert decide(found, PUBLISH, keys("orders"), "/.shop.c2") is False
    assert decide(found, PUBLISH, keys("orders"), "/.shop.{client_id}") is True
    escaping = grants(permission(write="^orders$"), topic_permissions=rows, version="4.2.9")
    assert decide(escaping, PUBLISH, keys("orders"), "/.shop.c2", shop(".*", "mqtt")) is False
    chosen = [fault.evidence["reason"] for fault in found.faults if fault.code == "TW115"]
    assert "unescaped by RabbitMQ 3.10.8" in str(chosen)
    unknown = grants(permission(write="^orders$"), topic_permissions=rows, version="4.1.12")
    rights = unknown.rights(shop("c-1", "mqtt"))
    assert rights is not None
    assert rights.rules(PUBLISH, keys("orders")).rules[0].certainty is Certainty.INFERRED


@pytest.mark.parametrize(
    ("read", "received", "not_received"),
    [
        (r"^a\.b$", ["a.b"], ["a", "a.c", "a.b.c"]),
        (r"^a\.", ["a", "a.b", "a.b.c"], ["", "b", "ab"]),
        (r"^a\.[^.]*\.c$", ["a.b.c", "a.c", "a.x.y.c"], ["a", "a.b", "b.c"]),
        (r"^a\.\*$", ["a.b", "a.*", "a."], ["a", "a.b.c"]),
        (r"^(a\.#|b)$", ["a", "a.b.c", "b"], ["b.a", "c"]),
        (r"^#$", ["", "a", "a.b"], []),
        (r"^[^a]$", ["", "a", "a.b"], []),
        (r"^\*$", ["a", "#"], ["", "a.b"]),
        (r"^(?!a).*$", ["a", "b", ""], []),
        (r"^$", [""], ["a"]),
    ],
)
def test_what_can_be_received_is_what_any_binding_key_of_the_permission_lets_through(
    read: str, received: list[str], not_received: list[str]
) -> None:
    found = grants(permission(read="^orders$"), topic_permissions=[topic("orders", "", read)])
    for name in received:
        assert decide(found, SUBSCRIBE, keys("orders"), name) is True, name
    for name in not_received:
        assert decide(found, SUBSCRIBE, keys("orders"), name) is False, name


_PIECES = st.sampled_from(
    ["a", "b", r"\.", "[^.]*", ".*", r"\*", "#", "[^.]", "(a|b)", r"(?:\.#)?", r"\.[^.]+", ".", "x?", r"(?:a\.)*"]
)
_TEXTS = ["".join(letters) for size in range(5) for letters in itertools.product("ab.*#", repeat=size)]
_SOME_KEYS = ["".join(letters) for size in range(4) for letters in itertools.product("a.#b", repeat=size)]


@settings(max_examples=25, deadline=None)
@given(st.lists(_PIECES, max_size=4), st.booleans(), st.booleans())
def test_receivable_keys_are_those_of_all_permitted_binding_keys(pieces: list[str], start: bool, end: bool) -> None:
    regex = ("^" if start else "") + "".join(pieces) + ("$" if end else "")
    sets = receivable(regex)
    permitted = [text for text in _TEXTS if regex_matches(regex, text)]
    assume_exact = all(certainty is Certainty.EXACT for _, certainty in sets)
    for key in _SOME_KEYS:
        ours = any(names_match(names, key) for names, _ in sets)
        theirs = any(key_matches(text, key) for text in permitted)
        assert ours or not theirs, (regex, key)
        if assume_exact and len(pieces) <= 1 and len(key) <= 1 and start and end:
            assert ours == theirs, (regex, key)


def test_an_expression_that_cannot_be_compared_is_said_to_be_one() -> None:
    found = grants(permission(write=r"^(or)ders|\1$"))
    assert decide(found, PUBLISH, EXCHANGES, "orders") is None
    assert [fault.code for fault in found.faults] == ["TW114"]


@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        ({"write": "orders"}, {("TW113", "write 'orders'", "aorders")}),
        ({"write": "^orders|all$"}, {("TW113", "write '^orders|all$'", "aall")}),
        ({"write": "^(orders|all)$"}, set()),
        ({"write": "^orders.*"}, set()),
        ({"write": ".*"}, set()),
    ],
)
def test_unanchored_permissions_are_told_with_a_name_they_also_match(
    permissions: Mapping[str, str], expected: set[tuple[str, str, str]]
) -> None:
    found = {(f.code, f.origin.text, f.witness) for f in grants(permission(**permissions)).faults if f.code == "TW113"}
    assert {(code, text) for code, text, _ in found} == {(code, text) for code, text, _ in expected}


def test_a_line_feed_at_the_end_of_a_key_is_told_where_keys_are_checked() -> None:
    found = grants(
        permission(write="^orders$"), topic_permissions=[topic("orders", "^a$", ""), topic("all", "^a$", "")]
    )
    assert [(f.origin.text, f.witness) for f in found.faults if f.code == "TW113"] == [
        ("topic write '^a$' on exchange 'orders'", "a\n"),
        ("topic read '' on exchange 'orders'", "\n"),
    ]


def test_grants_without_anybody_or_anything_behind_them_have_no_effect() -> None:
    found = grants(
        permission(write="^orders$"),
        permission("ghost", ".*", ".*", ".*"),
        {**permission(), "vhost": "gone"},
        topic_permissions=[topic("gone", "^a", "^a"), topic("orders", "", "", user="ghost2")],
    )
    reasons = [str(fault.evidence["reason"]) for fault in found.faults if fault.code == "TW105"]
    assert reasons.count("there is no user 'ghost'") == 3
    assert reasons.count("there is no virtual host 'gone'") == 3
    assert reasons.count("there is no such exchange") == 2
    assert sum("it cannot connect" in reason for reason in reasons) == 1


def test_reading_and_forging_audit_streams_is_dangerous_and_not_for_administrators_or_ourselves() -> None:
    row = permission(configure=".*", write=".*", read=".*")

    def dangers(found: DefinedGrants) -> list[str]:
        return [
            str(f.evidence["reason"]) for f in found.faults if f.code == "TW112" and not f.origin.text.startswith("tag")
        ]

    told = dangers(grants(row))
    assert sum("read" in reason for reason in told) == 3
    assert sum("put messages into" in reason for reason in told) == 3
    assert dangers(grants(row, users=[{"name": "shop", "tags": ["administrator"]}])) == []
    assert dangers(grants(permission(write="^orders$", read="^orders$"))) == []
    harmless = grants(permission(write=r"^amq\.rabbitmq\.trace$"))
    assert dangers(harmless) == []


def test_mqtt_topics_are_keys_of_amq_topic() -> None:
    found = grants(permission())
    assert found.carried(Place(Space("topic"), "plant/+/%u/#")) == Place(keys("amq.topic"), "plant.*.%u.#")
    assert found.carried(Place(Space("topic"), "a.b/c+")) == Place(keys("amq.topic"), "a.b.c+")
    assert found.carried(Place(QUEUES, "a/b")) == Place(QUEUES, "a/b")


def holds(expression: str, *names: str) -> list[bool | None]:
    return [names_match(Regex(expression or "^$"), name) for name in names]


def test_the_command_keeps_what_is_intended_and_repeats_what_is_not_about_it() -> None:
    found = grants(permission(configure="^shop", write="orders", read=".*"))
    (write,) = [origin for origin in found.origins if origin.text == "write 'orders'"]
    kept = [Kept(PUBLISH, EXCHANGES, "orders")]
    *command, configure, written, read = shlex.split(found.instead(write, shop(), kept))
    assert command == ["rabbitmqctl", "set_permissions", "-p", "/", "shop"]
    assert (configure, read) == ("^shop", ".*")
    assert holds(written, "orders", "orders2", "reorders") == [True, False, False]
    assert found.instead(write, shop(), []) == "rabbitmqctl set_permissions -p / shop '^shop' '' '.*'"
    (origin,) = [origin for origin in found.origins if origin.text == "read '.*'"]
    kept = [Kept(SUBSCRIBE, QUEUES, "shop.%u"), Kept(SUBSCRIBE, EXCHANGES, "all")]
    *_, configure, written, read = shlex.split(found.instead(origin, shop(), kept))
    assert (configure, written) == ("^shop", "orders")
    assert holds(read, "shop.shop", "all", "shop.x", "orders", "shopxshop") == [True, True, False, False, False]


def test_queues_that_are_a_clients_own_stay_writable_or_it_could_bind_none() -> None:
    found = grants(permission(configure=r"^(amq\.gen-.*|shop\.in)$", write=".*", read=".*"))
    (write,) = [origin for origin in found.origins if origin.text == "write '.*'"]
    written = shlex.split(found.instead(write, shop(), [Kept(PUBLISH, EXCHANGES, "orders")]))[-2]
    assert holds(written, "orders", "amq.gen-x", "shop.in", "other", "amq.topic") == [True, True, True, False, False]


def test_what_cannot_be_said_in_less_is_said_to_be_so() -> None:
    found = grants(permission(configure=r"^shop\.in$"))
    (origin,) = [origin for origin in found.origins if origin.text.startswith("configure")]
    assert found.instead(origin, shop(), [Kept(CONFIGURE, QUEUES, "shop.in")]).startswith("# RabbitMQ cannot say less")


def test_taking_away_the_last_permission_is_to_clear_them() -> None:
    found = grants(permission(write="orders"))
    assert found.instead(found.origins[1], shop(), []) == "rabbitmqctl clear_permissions -p / shop"


def test_keys_are_limited_by_a_topic_permission_where_the_exchange_can() -> None:
    found = grants(permission(write="^(orders|all)$"))
    write = found.origins[1]
    kept = [
        Kept(PUBLISH, EXCHANGES, "orders"),
        Kept(PUBLISH, EXCHANGES, "all"),
        Kept(PUBLISH, keys("orders"), "new.*"),
        Kept(PUBLISH, keys("all"), "new.*"),
    ]
    command, comment = found.instead(write, shop(), kept).splitlines()
    *command_words, written, read = shlex.split(command)
    assert command_words == ["rabbitmqctl", "set_topic_permissions", "-p", "/", "shop", "orders"]
    assert read == ".*"
    assert holds(written, "new.a", "new.", "new", "new.a.b", "new.a\n") == [True, True, False, False, True]
    assert comment == "# RabbitMQ cannot limit the keys of 'all': it is no topic exchange but fanout"
    limited = grants(permission(write="^orders$"), topic_permissions=[topic("orders", ".*", "^x$")])
    (keyed,) = [origin for origin in limited.origins if origin.text.startswith("topic write")]
    *_, written, read = shlex.split(limited.instead(keyed, shop(), [Kept(PUBLISH, keys("orders"), "new")]))
    assert (holds(written, "new", "new\n", "anew"), read) == ([True, False, False], "^x$")


def test_nothing_depends_on_a_client_id_in_what_we_propose() -> None:
    found = grants(permission(write="^orders$"))
    proposed = found.instead(found.origins[1], shop(), [Kept(PUBLISH, keys("orders"), "dev.%c")])
    comment, command = proposed.splitlines()
    assert "'dev.%c'" in comment
    assert holds(shlex.split(command)[-2], "dev.c1", "dev.", "") == [False, False, False]


def test_rights_of_a_thousand_users_are_cheap() -> None:
    users = [f"device-{number}" for number in range(1000)]
    found = grants(
        *(permission(user, "", r"^amq\.topic$", r"^amq\.topic$") for user in users),
        users=[{"name": user, "tags": []} for user in users],
        topic_permissions=[
            topic("amq.topic", r"^dev\.{username}\.", r"^dev\.{username}\.cmd$", user) for user in users
        ],
    )
    started = time.process_time()
    for _ in range(3):
        for account in found.accounts:
            assert found.rights(account) is not None
    assert time.process_time() - started < 5
    last = found.rights(found.accounts[-1])
    assert last is not None
    assert last.rules(PUBLISH, keys("amq.topic")).decide("dev.device-999.x").allowed is True


def test_a_file_that_is_missing_or_something_else_is_told(tmp_path: Path) -> None:
    for name, text in (("gone.json", None), ("text.json", "hello"), ("list.json", "[1]")):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigurationError):
            read_grants(str(path), SourceOptions())


def test_amqp_alone_says_nothing_of_grants(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("x\n")
    with pytest.raises(ConfigurationError) as caught:
        read_grants("amqp://eve@127.0.0.1:1", SourceOptions(password_file=secret))
    assert "management" in (caught.value.problems[0].hint or "")
    with pytest.raises(ObservationError):
        read_grants("amqp://eve@127.0.0.1:1?management=http://127.0.0.1:1", SourceOptions(password_file=secret))


_NAMES = st.sampled_from(["shop", "/", "orders", "amq.topic", "amq.", "", "ghost", "^a", ".*", "(", "é\udcff", "a\n"])
_COLUMNS = (
    *("user", "vhost", "name", "configure", "write", "read", "exchange", "type", "source", "destination"),
    *("destination_type", "routing_key", "pattern", "component"),
)
_ROWS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(_COLUMNS, _NAMES)
    | {
        "arguments": st.dictionaries(st.sampled_from(["alternate-exchange", "x-dead-letter-exchange"]), _NAMES),
        "definition": st.dictionaries(st.sampled_from(["alternate-exchange", "dead-letter-exchange"]), _NAMES),
        "priority": st.integers(),
        "internal": st.booleans(),
        "value": st.dictionaries(st.sampled_from(["src-uri", "src-queue", "dest-exchange", "dest-uri"]), _NAMES),
    },
)
_SECTIONS = ("users", "vhosts", "permissions", "topic_permissions", "exchanges", "queues", "bindings", "policies")


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from([*_SECTIONS, "parameters"]), st.lists(_ROWS, max_size=4)),
    st.sampled_from(["3.10.8", "4.1.12", "x"]),
)
def test_no_definitions_are_an_error_that_is_not_told(document: dict[str, Any], version: str) -> None:
    text = json.dumps({"rabbit_version": version, "users": [{"name": "shop", "tags": []}], **document})
    with contextlib.suppress(TopicwardenError):
        found = DefinedGrants(read_definitions(text), "fx", "x")
        for client in [*found.accounts, shop(".*", "mqtt")]:
            found.rights(client)
            found.paths(client)
            for origin in found.origins:
                found.instead(origin, client, [])
        assert all(fault.evidence or fault.witness is not None for fault in found.faults)


def test_every_allowed_key_set_is_one_that_can_be_compared() -> None:
    (found,) = read_grants(str(GOLDEN / "http-3.10.8.json"), SourceOptions())
    for account in found.accounts:
        rights = found.rights(account)
        assert rights is not None
        for rules in rights.by.values():
            assert all(isinstance(rule.names, Regex | Anything) or not rule.allow for rule in rules.rules)
