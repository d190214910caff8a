"""What the reader of dynamic-security.json says, held against the running broker."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import Mosquitto
from tests.mosquitto.dynsec_broker import (
    OMNIPOTENT,
    PASSWORD,
    Asker,
    connect,
    dynsec_broker,
    password_members,
    received_of,
    with_publisher,
)
from tests.mosquitto.dynsec_random import configuration, names
from tests.mosquitto.logs.record import Certificates
from topicwarden.events import Action, Certainty, Client
from topicwarden.grants import Rights
from topicwarden.policy import Space
from topicwarden_collectors.mosquitto.dynsec import DynsecGrants, parse_dynsec

TOPICS = Space("topic")
SEEDS = 12
NAMES = 45


def grants_of(found: dict[str, Any]) -> DynsecGrants:
    return DynsecGrants("mosquitto", parse_dynsec("/ds.json", json.dumps(found).encode()), anonymous=True)


def rights_of(grants: DynsecGrants, user: str | None) -> Rights:
    rights = grants.rights(Client("mosquitto", "mqtt", "any", user))
    assert rights is not None, user
    return rights


def groups_of(found: dict[str, Any]) -> set[str]:
    """Return the groups of shared subscriptions that ACLs spell out, and one that none does."""
    topics = [str(acl.get("topic")).split("/") for role in found["roles"] for acl in role["acls"]]
    spelled = {levels[1] for levels in topics if levels[0] in ("$share", "+") and len(levels) > 2}
    return {"any", *(group for group in spelled if "+" not in group and "#" not in group)}


def differences(
    broker: Mosquitto, grants: DynsecGrants, users: list[str | None], asked: list[str], groups: set[str]
) -> list[str]:
    found = []
    for user in users:
        rights = rights_of(grants, user)
        with connect(broker.port, user) as asker:
            assert asker.code == 0, user
            # A command to the plugin is answered otherwise.
            codes = dict(zip(asked, asker.publish_all(asked), strict=True))
        received, exactly = received_of(broker.port, user, "asker", asked, groups)
        for name in asked:
            sent = rights.rules(Action.PUBLISH, TOPICS).decide(name)
            if sent.allowed is not (codes[name] < 0x80):
                found.append(f"publish {user!r} {name!r}: broker {codes[name]}, {sent}")
            got = rights.rules(Action.SUBSCRIBE, TOPICS).decide(name)
            if got.allowed is not (name in received):
                found.append(f"receive {user!r} {name!r}: broker {name in received}, {got}")
            elif got.allowed and got.rule and got.rule.certainty is Certainty.EXACT and name not in exactly:
                found.append(f"exactly {user!r} {name!r}: {got}")
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_broker_decides_as_the_reader_says(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    found = with_publisher(configuration(chance, dense=seed % 2 == 1))
    grants = grants_of(found)
    users = [one.user for one in grants.accounts if one.user != OMNIPOTENT]
    with dynsec_broker(tmp_path, found) as broker:
        found_out = differences(broker, grants, users, names(chance, NAMES), groups_of(found))
    assert not found_out, "\n".join([*found_out, json.dumps(found)])


LOGINS: dict[str, Any] = {
    "clients": [
        {"username": "plain", "roles": [{"rolename": "r"}], **password_members()},
        {"username": "bare", "roles": [{"rolename": "r"}]},
        {"username": "off", "disabled": True, "roles": [{"rolename": "r"}], **password_members()},
        {"username": "bound", "clientid": "its-id", "roles": [{"rolename": "r"}], **password_members()},
    ],
    "roles": [{"rolename": "r", "acls": [{"acltype": "publishClientSend", "topic": "a", "allow": True}]}],
}
WHO = ("plain", "bare", "off", "bound", "stranger")


def allowed(grants: DynsecGrants, user: str, client_id: str) -> bool | None:
    """Return whether a client may publish to `a`; None when it cannot connect."""
    rights = grants.rights(Client("mosquitto", "mqtt", client_id, user))
    return None if rights is None else rights.rules(Action.PUBLISH, TOPICS).decide("a").allowed


def tried(asker: Asker) -> bool | None:
    """Return the same of a connection."""
    with asker:
        return asker.publish("a", qos=1) != 0x87 if asker.code == 0 else None


@pytest.mark.parametrize("elsewhere", [(), ("bare", "off", "stranger")], ids=["alone", "beside a password_file"])
def test_who_can_log_in_is_who_the_broker_lets_in(elsewhere: tuple[str, ...], tmp_path: Path) -> None:
    more = []
    if elsewhere:
        file = tmp_path / "passwords"
        file.touch()
        for user in elsewhere:
            subprocess.run(["mosquitto_passwd", "-b", file, user, PASSWORD], check=True, capture_output=True)
        more = [f"password_file {file}"]
    parsed = parse_dynsec("/ds.json", json.dumps(LOGINS).encode())
    grants = DynsecGrants("mosquitto", parsed, anonymous=False, names=elsewhere)
    with dynsec_broker(tmp_path, LOGINS, *more, allow_anonymous=False) as broker:
        for user in WHO:
            for client_id in ("its-id", "other"):
                said = tried(connect(broker.port, user, client_id))
                assert allowed(grants, user, client_id) is said, (user, client_id)


def test_a_certificate_lets_in_whom_the_plugin_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    certificates = Certificates(tmp_path / "tls")
    parsed = parse_dynsec("/ds.json", json.dumps(LOGINS).encode())
    grants = DynsecGrants("mosquitto", parsed, anonymous=False, certificates=True)
    lines = certificates.listener("require_certificate true", "use_identity_as_username true")
    with dynsec_broker(tmp_path, LOGINS, *lines, listener=False, allow_anonymous=False) as broker:
        for user in WHO:
            certificates.issue(user, user)
            files = [str(tmp_path / "tls" / name) for name in ("ca.crt", f"{user}.crt", f"{user}.key")]
            said = tried(Asker(broker.port, "other", version=5, certificate=(files[0], files[1], files[2])))
            assert allowed(grants, user, "other") is said, user
