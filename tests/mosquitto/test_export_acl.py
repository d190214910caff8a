"""A policy written as an acl_file: what comes of known policies, and what the broker then says to clients."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mosquitto.acl_asking import Asker, asked, broker_refuses
from tests.mosquitto.acl_exports.record import ACCOUNTS, FOLDER, exported, told
from topicwarden.errors import ConfigurationError
from topicwarden.events import Action, Client
from topicwarden.patterns import matches
from topicwarden.policy import Policy, parse_policy
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto import BROKER
from topicwarden_collectors.mosquitto.acl_file import parse_acl_file
from topicwarden_collectors.mosquitto.export import export

USERS = ("bob", "al", "a/b", "a+b", "dev-1", "dev-2", "%c", "ü ö", "#x", "user x", "$foo")
STRANGERS = ("dev-9", "eve", "bo", "dev-", "x/y", "e+")
IDS = ("id", "a/b", "x#", "%u", "bob", "a", "dev-1/in")
_LEVELS = ("a", "b", "a", "+", "%u", "bob", "")


@pytest.mark.parametrize("name", ACCOUNTS)
def test_known_policies_are_written_as_they_were_once_read(name: str) -> None:
    found = exported(name)
    assert found.files["mosquitto.acl"] == (FOLDER / f"{name}.acl").read_text()
    assert told(found) == (FOLDER / f"{name}.told").read_text()
    assert list(found.files) == ["mosquitto.acl"]


@pytest.mark.parametrize("name", ACCOUNTS)
def test_what_is_written_is_an_acl_file_that_is_read_again(name: str, tmp_path: Path) -> None:
    text = exported(name).files["mosquitto.acl"]
    acl = parse_acl_file("/acl", text.encode())
    assert not acl.refused
    assert not acl.doubts
    path = tmp_path / "mosquitto.acl"
    path.write_text(text)
    assert BROKER.recognises(str(path), text.encode())
    (grants,) = BROKER.grants(str(path), SourceOptions())
    assert len(grants.origins) == len(acl.entries)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mosquitto-dynsec"):
        export("rabbitmq", parse_policy("topicwarden: 1", "p"), [])


def _filter(rng: random.Random, levels: Sequence[str]) -> str:
    parts = [rng.choice(levels) for _ in range(rng.randint(1, 4))]
    match rng.randrange(14):
        case 0:
            parts[0] = "$foo"
        case 1:
            parts = ["$SYS", "broker", "connection", rng.choice(["+", "b", "%u"]), "state"]
        case 2:
            parts = ["$SYS", rng.choice(["x", "+", "broker"])]
    if rng.random() < 0.25:
        parts.append("#")
    return "/".join(parts) if parts != [""] else "a"


def _members(rng: random.Random, *, plain: bool) -> str:
    kinds = [
        'user: "dev-*"',
        'user: "*"',
        'user: "?l"',
        "anonymous: true",
        *(f'user: "{rng.choice(USERS)}"' for _ in "12345"),
    ]
    if not plain:
        kinds += ['client: "id"', 'client: "*"', 'client: "*"', 'client: "*", user: "dev-*"', "address: 127.0.0.1/32"]
        kinds += ['vhost: "*"', 'broker: plant, user: "bob"', "broker: other", "broker: plant"]
    chosen = rng.sample(sorted(set(kinds)), rng.randint(1, 2))
    if rng.random() < 0.2:
        chosen = ['user: "*"', "anonymous: true"]
    return ", ".join(f"{{{one}}}" for one in chosen)


def _policy(rng: random.Random, *, plain: bool) -> Policy:
    levels = _LEVELS if plain else (*_LEVELS, "%c", "%c")
    lines = ["topicwarden: 1", "roles:"]
    for number in range(rng.randint(1, 5)):
        lines += [f"  r{number}:", f"    members: [{_members(rng, plain=plain)}]"]
        for action in ("publish", "subscribe"):
            topics = dict.fromkeys(_filter(rng, levels) for _ in range(rng.randint(0, 4)))
            if topics:
                lines += [f"    {action}:", *(f'      - {{topic: "{topic}"}}' for topic in topics)]
    return parse_policy("\n".join(lines), "policy.yaml")


def _intended(policy: Policy, client: Client, action: Action, topic: str) -> bool:
    """The plain meaning of a policy: some role of the client has a filter that matches."""
    return any(
        matches(place.pattern, topic, client.user, client.client_id)
        for name in policy.roles_of(client)
        for place in policy.roles[name].places(action)
    )


def _topics(rng: random.Random, policy: Policy, askers: Sequence[Asker]) -> list[str]:
    filters = [
        p.pattern for r in policy.roles.values() for a in (Action.PUBLISH, Action.SUBSCRIBE) for p in r.places(a)
    ]
    topics: dict[str, None] = {"a": None, "a/b/c": None}
    for _ in range(120):
        asker = rng.choice(askers)
        names = {"%u": asker.user or "x", "%c": asker.client_id, "+": rng.choice(["a", "b", "", "bob"]), "#": "a"}
        levels = [names.get(level, level) for level in (rng.choice(filters) if filters else "a/+").split("/")]
        if rng.random() < 0.2:
            levels.append(rng.choice(["a", "b", "in"]))
        topic = "/".join(levels)
        if topic and "+" not in topic and "#" not in topic:
            topics[topic] = None
    return list(topics)[:40]


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("plain", [True, False], ids=["sayable", "anything"])
def test_the_broker_allows_what_the_policy_says_and_never_more(tmp_path: Path, seed: int, plain: bool) -> None:
    rng = random.Random(seed)
    policy = _policy(rng, plain=plain)
    listed: list[str | None] = [*rng.sample(USERS, 5), *([None] if rng.random() < 0.5 else [])]
    found = export("mosquitto-acl", policy, [Client("plant", "mqtt", "", user) for user in listed])
    outright = {
        str(member.user) if member.user is not None else None
        for role in policy.roles.values()
        for member in role.members
        if member.anonymous or (member.user is not None and not {"*", "?"} & set(member.user.text))
    }
    askers = [Asker(user, rng.choice(IDS)) for user in dict.fromkeys([*listed[:3], *sorted(outright, key=str)[:3]])]
    askers += [Asker(rng.choice([None, *STRANGERS]), rng.choice(IDS)) for _ in range(3)]
    topics = _topics(rng, policy, askers)
    compared = 0
    for asker, action, topic, allowed in asked(tmp_path, found.files["mosquitto.acl"], askers, topics):
        client = Client("plant", "mqtt", asker.client_id, asker.user, address="127.0.0.1")
        intended = _intended(policy, client, action, topic)
        why = (found.files["mosquitto.acl"], asker, action.name, topic, intended, found.denied_more)
        assert intended or not allowed, why
        if plain and (asker.user in listed or asker.user in outright):
            compared += 1
            assert allowed == (intended and not (action is Action.PUBLISH and broker_refuses(topic))), why
    assert compared or not plain


def test_a_pattern_for_everybody_gives_each_client_its_own_and_no_more(tmp_path: Path) -> None:
    policy = parse_policy(
        'topicwarden: 1\nroles:\n  all: {members: [{client: "*"}], publish: [{topic: "s/%c/on"}, {topic: news}]}', "p"
    )
    found = export("mosquitto-acl", policy, [])
    askers = [Asker("bob", "id"), Asker(None, "x"), Asker("x", "id/on"), Asker("x", "id/on/s"), Asker("x", "a/+")]
    topics = ["s/id/on", "s/x/on", "s/id/on/on", "s/id/on/s/on", "s/id", "news", "s/a/b/on"]
    allowed = {
        (asker.client_id, topic)
        for asker, action, topic, said in asked(tmp_path, found.files["mosquitto.acl"], askers, topics)
        if said and action is Action.PUBLISH
    }
    news = {(client_id, "news") for client_id in ("id", "x", "id/on", "id/on/s")}
    assert allowed == {("id", "s/id/on"), ("x", "s/x/on")} | news
    assert [one.where for one in found.denied_more] == [""]


def test_the_same_policy_gives_the_same_file_whatever_the_order_of_the_accounts() -> None:
    policy = _policy(random.Random(3), plain=True)
    accounts = [Client("plant", "mqtt", "", user) for user in USERS]
    first = export("mosquitto-acl", policy, accounts)
    assert export("mosquitto-acl", policy, accounts[::-1]) == first
    assert export("mosquitto-acl", policy, [*accounts, *accounts]) == first


def test_names_that_no_line_can_hold_are_told() -> None:
    text = 'topicwarden: 1\nroles:\n  r: {members: [{user: "*"}], subscribe: [{topic: "x/%u"}, {topic: "a"}]}'
    users = ["new\nline", "tab\tbed", " blank", "blank ", "#fine", "", "topic", "\ud800"]
    found = export("mosquitto-acl", parse_policy(text, "p"), [Client("b", "mqtt", "", user) for user in users])
    acl = parse_acl_file("/acl", found.files["mosquitto.acl"].encode())
    assert sorted(acl.users) == ["#fine", "topic"]
    assert sum("no user line can name" in one.what for one in found.denied_more) == 5
