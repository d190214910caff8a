"""Random configurations of the dynamic security plugin, with everything people and attackers write into them."""

from __future__ import annotations

import random
from typing import Any

from tests.mosquitto.dynsec_broker import password_members

LEVELS = ("a", "b", "c", "", "é", "g", "+", "+", "#", "%u")
NAME_LEVELS = ("a", "b", "c", "", "é", "g", "z", "%u")
FIRST = ("a", "a", "b", "+", "+", "#", "", "$SYS", "$foo", "$share", "$CONTROL", "$CONTROLx", "broker")
NAME_FIRST = ("a", "a", "b", "c", "", "z", "$foo", "$foox", "$bar", "broker")
ODD = ("", "a+", "+/#x", "a/+/#/b", "a/#/b", "#x", "a\nb", "\u0000a", "a\u0000b", "$share/g", "$share//a", "$SYS/#")
DENSE = (
    *("+/+", "+/+", "+/+", "+/+", "a/+", "a/+", "+/b", "+/b", "a/b", "+", "+", "a", "$foo/+", "+/+/a"),
    *("#", "#", "+/#", "/#", "a/#", "a/+/#"),
)
USERS = ("alice", "bob", "+", "a/b", "#", 'q"u', "ü", " x ", "u\u2028v")
TYPES = (
    ("publishClientSend", 6),
    ("publishClientReceive", 5),
    ("subscribeLiteral", 4),
    ("subscribePattern", 7),
    ("unsubscribePattern", 1),
    ("SUBSCRIBEPATTERN", 1),
    ("nonsense", 1),
)
PRIORITIES = (None, None, 0, 0, 1, 2, -1, -2, 5, 2147483647, -2147483648, 1e12, 1.9, "3", True)


def topic(chance: random.Random, dense: bool = False) -> str:
    """Return what may stand in an ACL; `dense`: one of so few that they often meet."""
    if dense:
        return chance.choice(DENSE)
    if chance.random() < 0.06:
        return chance.choice(ODD)
    first = chance.choice(FIRST)
    if first == "#":
        return "#"
    levels = [first]
    while chance.random() < 0.62 and len(levels) < 4 and levels[-1] != "#":
        levels.append(chance.choice(LEVELS))
    return "/".join(levels)


def names(chance: random.Random, count: int) -> list[str]:
    """Return names to ask about."""
    found = dict.fromkeys(("$SYS/broker/version", "$CONTROL/x/y", "$CONTROLx", "a", "b", "/", "broker/version"))
    while len(found) < count:
        levels = [chance.choice(NAME_FIRST)]
        while chance.random() < 0.6 and len(levels) < 4:
            levels.append(chance.choice(NAME_LEVELS))
        if levels != [""]:
            found["/".join(levels)] = None
    return list(found)


def acl(chance: random.Random, denying: float, dense: bool = False) -> dict[str, Any]:
    """Return an ACL."""
    words, weights = zip(*(TYPES[:4] if dense else TYPES), strict=True)
    entry: dict[str, Any] = {"acltype": chance.choices(words, weights)[0], "topic": topic(chance, dense)}
    allow = chance.random() >= denying
    if allow or chance.random() < 0.7:
        entry["allow"] = allow
    elif chance.random() < 0.2:
        entry["allow"] = "true"
    priority = chance.choice(PRIORITIES)
    if priority is not None:
        entry["priority"] = priority
    if chance.random() < 0.05:
        entry["Topic"] = "b/#"
    return entry


def listed(chance: random.Random, key: str, known: list[str], most: int) -> list[dict[str, Any]]:
    """Return entries of a list of roles or clients, each perhaps with a priority."""
    found = []
    for _ in range(chance.randint(0, most)):
        entry: dict[str, Any] = {key: chance.choice([*known, "nobody"])}
        priority = chance.choice(PRIORITIES)
        if priority is not None:
            entry["priority"] = priority
        found.append(entry)
    return found


def configuration(chance: random.Random, dense: bool = False) -> dict[str, Any]:
    """Return a configuration in which everybody has the password."""
    denying = 0.5 if dense else chance.choice((0.0, 0.2, 0.45))
    roles = [f"r{number}" for number in range(chance.randint(1, 5))]
    users = chance.sample(USERS, chance.randint(1, 4))
    groups = [f"g{number}" for number in range(chance.randint(0, 3))]
    found: dict[str, Any] = {
        "clients": [
            {"username": user, **password_members(), "roles": listed(chance, "rolename", roles, 3)} for user in users
        ],
        "groups": [
            {
                "groupname": group,
                "roles": listed(chance, "rolename", roles, 3),
                "clients": listed(chance, "username", users, 3),
            }
            for group in groups
        ],
        "roles": [
            {"rolename": role, "acls": [acl(chance, denying, dense) for _ in range(chance.randint(0, 7))]}
            for role in roles
        ],
    }
    if chance.random() < 0.15:
        found["roles"].append({**chance.choice(found["roles"]), "acls": [acl(chance, denying)]})
    if chance.random() < 0.1:
        found["clients"].append({**chance.choice(found["clients"]), "roles": listed(chance, "rolename", roles, 3)})
    if groups and chance.random() < 0.1:
        found["groups"].append({**chance.choice(found["groups"]), "clients": listed(chance, "username", users, 3)})
    if chance.random() < 0.8:
        words = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
        found["defaultACLAccess"] = {
            word: chance.random() < (0.7 if word == "publishClientReceive" else 0.25)
            for word in words
            if chance.random() < 0.9
        }
    if groups and chance.random() < 0.6:
        found["anonymousGroup"] = chance.choice([*groups, "nobody"])
    return found
