"""A policy written as a dynamic-security.json: the broker then allows exactly what the policy does."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.mosquitto.dynsec_broker import connect, dynsec_broker, received_of, with_passwords, with_publisher
from topicwarden.events import Action, Client
from topicwarden.grants import Export
from topicwarden.patterns import matches
from topicwarden.policy import Policy, Space, parse_policy
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto import BROKER
from topicwarden_collectors.mosquitto.export_dynsec import FILE, export_dynsec

FOLDER = Path(__file__).parent / "dynsec_exports"
TOPICS = Space("topic")
USERS = ("alice", "bob", "dev-1", "dev-2", "a/b", "+", "ü ö", "$foo", "%c")
LEVELS = ("a", "b", "+", "%u", "bob", "", "#")
NAMES = ("a", "b", "bob", "alice", "dev-1", "", "z", "$foo", "ü ö")
PLANT = """
topicwarden: 1
roles:
  sensor:
    members: [{user: "sensor-*"}]
    publish: [{topic: "plant/+/%u/telemetry", rate: 10/s}, {topic: "plant/hello"}]
    subscribe: [{topic: "plant/+/%u/command"}, {topic: "plant/news/#"}, {topic: "own/%c"}]
  operators:
    members: [{user: operator}, {client: "console-*"}]
    publish: [{topic: "plant/+/+/command"}, {topic: "$SYS/broker/x"}, {exchange: invoices, key: "a.b"}]
    subscribe: [{topic: "+/status"}]
  guest:
    members: [{anonymous: true}]
    subscribe: [{topic: "plant/news/today"}]
"""


def exported(policy: Policy, users: Sequence[str | None]) -> Export:
    return export_dynsec(policy, [Client("plant", "mqtt", "", user) for user in users])


def told(found: Export) -> str:
    lines = [f"unsaid {one.where}: {one.what}" for one in found.unsaid]
    return "\n".join([*lines, *(f"denied more {one.where}: {one.what}" for one in found.denied_more), ""])


def test_a_known_policy_is_written_as_it_was_once_read() -> None:
    found = exported(parse_policy(PLANT, "policy.yaml"), ["sensor-1", "sensor-2"])
    assert found.target == "mosquitto-dynsec"
    assert list(found.files) == [FILE]
    assert found.files[FILE] == (FOLDER / "plant.json").read_text()
    assert told(found) == (FOLDER / "plant.told").read_text()


def test_what_is_written_is_read_again_with_the_policys_rights(tmp_path: Path) -> None:
    found = exported(parse_policy(PLANT, "policy.yaml"), ["sensor-1", "sensor-2"])
    path = tmp_path / FILE
    path.write_text(found.files[FILE])
    assert BROKER.recognises(str(path), path.read_bytes())
    (grants,) = BROKER.grants(str(path), SourceOptions(broker="plant"))
    assert [account.user for account in grants.accounts] == ["operator", "sensor-1", "sensor-2", None]
    rights = grants.rights(Client("plant", "mqtt", "any", "sensor-2"))
    assert rights is not None
    assert rights.rules(Action.PUBLISH, TOPICS).decide("plant/x/sensor-2/telemetry").allowed
    assert not rights.rules(Action.PUBLISH, TOPICS).decide("plant/x/sensor-1/telemetry").allowed
    assert rights.rules(Action.SUBSCRIBE, TOPICS).decide("plant/x/sensor-2/command").allowed
    assert "password" not in found.files[FILE]


def _filter(chance: random.Random) -> str:
    levels = [chance.choice(LEVELS) for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.1:
        levels[0] = chance.choice(("$foo", "$SYS"))
    if chance.random() < 0.3 and "#" not in levels:
        levels.append("#")
    if "#" in levels:
        levels = levels[: levels.index("#") + 1]
    return "/".join(levels) if levels != [""] else "a"


def _policy(chance: random.Random) -> Policy:
    members = ['user: "dev-*"', 'user: "*"', "anonymous: true", *(f'user: "{user}"' for user in USERS)]
    lines = ["topicwarden: 1", "roles:"]
    for number in range(chance.randint(1, 4)):
        chosen = ", ".join(f"{{{one}}}" for one in chance.sample(members, chance.randint(1, 3)))
        lines += [f"  r{number}:", f"    members: [{chosen}]"]
        for action in ("publish", "subscribe"):
            topics = dict.fromkeys(_filter(chance) for _ in range(chance.randint(0, 3)))
            if topics:
                lines += [f"    {action}:", *(f'      - {{topic: "{topic}"}}' for topic in topics)]
    return parse_policy("\n".join(lines), "policy.yaml")


def _names(chance: random.Random, count: int) -> list[str]:
    found = dict.fromkeys(("a", "b", "$SYS/broker/version"))
    while len(found) < count:
        levels = [chance.choice(NAMES) for _ in range(chance.randint(1, 4))]
        if levels != [""]:
            found["/".join(levels)] = None
    # One that nobody could publish tells nothing about who receives it.
    return [name for name in found if not name.startswith("$") or name.startswith(("$SYS", "$foo"))]


def _intended(policy: Policy, client: Client, action: Action, name: str) -> bool:
    """The plain meaning of a policy: some role of the client has a filter that matches."""
    return any(
        matches(place.pattern, name, client.user, client.client_id)
        for role in policy.roles_of(client)
        for place in policy.roles[role].places(action)
    )


@pytest.mark.parametrize("seed", range(10))
def test_the_broker_allows_exactly_what_the_policy_does(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    policy = _policy(chance)
    users: list[str | None] = [*chance.sample(USERS, 4), None]
    found = exported(policy, users)
    configuration: dict[str, Any] = with_publisher(with_passwords(json.loads(found.files[FILE])))
    names = _names(chance, 40)
    with dynsec_broker(tmp_path, configuration) as broker:
        for user in users:
            client = Client("plant", "mqtt", "asker", user)
            with connect(broker.port, user, "asker") as asker:
                assert asker.code == 0, user
                codes = dict(zip(names, asker.publish_all(names), strict=True))
            received, exactly = received_of(broker.port, user, "asker", names)
            assert received == exactly
            for name in names:
                intended = _intended(policy, client, Action.PUBLISH, name) and not name.startswith("$SYS")
                assert (codes[name] < 0x80) == intended, (user, name, found.files[FILE])
                wanted = _intended(policy, client, Action.SUBSCRIBE, name)
                assert (name in received) == wanted, (user, name, found.files[FILE])


def test_filters_within_a_permission_are_accepted_also_as_shared_subscriptions(tmp_path: Path) -> None:
    policy = parse_policy(
        'topicwarden: 1\nroles:\n  r:\n    members: [{user: bob}]\n    subscribe: [{topic: "a/+/#"}, {topic: "x/y"}]\n',
        "policy.yaml",
    )
    configuration = with_passwords(json.loads(exported(policy, []).files[FILE]))
    with dynsec_broker(tmp_path, configuration) as broker, connect(broker.port, "bob") as asker:
        inside = ["a/+/#", "a/b/#", "a/b", "a/+", "a/b/c/+", "x/y", "$share/g/a/b", "$share/g/a/+/#", "$share/g/x/y"]
        assert asker.subscribe_all(inside) == [0] * len(inside)
        outside = ["a/#", "#", "x/+", "$share/g/#", "$share/g/a/#", "x"]
        assert asker.subscribe_all(outside) == [0x87] * len(outside)
