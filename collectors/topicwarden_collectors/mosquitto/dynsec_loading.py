"""Loads a dynamic-security.json as the plugin does (2.0.11).

What the plugin does with a file, each point tried out on the running broker:

- what is not of the right type is passed over, a client whose salt, password or iterations do not fit as a whole;
- a list that is none (`clients`, `groups`, `roles`) ends the loading there; a role's name or texts that are no text end
  the broker;
- of roles, groups, clients or literal topics of one name the last is found, the others are dead weight; of a role that
  stands twice in a list, and of a client that stands twice in a group, the first;
- ACLs without `allow` deny; their `priority` is 0 when missing, that of a role or group -1;
- higher priorities come first, unless roles' or groups' differ by more than 2^31; among equals ACLs come in the file's
  order, roles and groups by their names' bytes;
- `groups` of a client are not read: groups name their clients.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.grants import Origin
from topicwarden_collectors.mosquitto.dynsec_json import Member, Object, Value, folded, text_of
from topicwarden_collectors.mosquitto.dynsec_model import DEFAULTS, Account, Acl, AclType, Dynsec, Group, Ignored, Role
from topicwarden_collectors.mosquitto.grants_logins import HASH_BYTES, SALT_BYTES, sendable

ROLE_PRIORITY: Final = -1
_MAX_INSERTED: Final = 4096
SURE_OF_DUPLICATES: Final = 9
"""Entries of one table up to which the last of several namesakes is surely found: the hash table (uthash) turns their
order around each time it grows, which needs ten in one bucket."""


_TYPES: Final = {str(kind).lower(): kind for kind in AclType}


def load(path: str, root: Value) -> Dynsec:
    """Load a file as the plugin does; raises ConfigurationError, with all problems, where it reads no further."""
    loader = _Loader(path)
    loader.load(root)
    if loader.problems:
        raise ConfigurationError(*loader.problems)
    return loader.found


Named = TypeVar("Named", Role, Group, Account)
Ranked = TypeVar("Ranked", Role, Group)
_KINDS: Final[Mapping[str, str]] = {"text": "no text", "number": "no number", "truth": "neither true nor false"}
_ROOT: Final = {"defaultaclaccess": "object", "clients": "list", "groups": "list", "roles": "list"}
_TEXTS: Final = {"textname": "text", "textdescription": "text"}
_CLIENT: Final = {
    "username": "text",
    "clientid": "text",
    "password": "text",
    "salt": "text",
    "iterations": "number",
    "disabled": "truth",
    "roles": "list",
    **_TEXTS,
}
_GROUP: Final = {"groupname": "text", "roles": "list", "clients": "list", **_TEXTS}
_ROLE: Final = {"rolename": "text", "acls": "list", **_TEXTS}
_ACL: Final = {"acltype": "text", "topic": "text", "priority": "number", "allow": "truth"}


class _Loader:
    def __init__(self, path: str) -> None:
        self.found = Dynsec(path)
        self.problems: list[Problem] = []
        self._sizes: dict[str, int] = {}
        self._groups_of: dict[str, dict[str, tuple[int, Group]]] = {}

    def load(self, root: Value) -> None:
        """Load everything, in the plugin's own order."""
        found = self.found
        if not isinstance(root, Object):
            self._refuse("is no JSON object: the plugin reads nothing of it, and then lets nobody in", root.line)
            return
        self._members(root, {**_ROOT, "anonymousgroup": "text"}, "the file")
        self._defaults(root.get("defaultaclaccess"))
        parts = {name: self._part(root, name) for name in ("roles", "clients", "groups")}
        self._sizes = {name: len(part) for name, part in parts.items()}
        for entry in parts["roles"]:
            self._role(entry)
        for entry in parts["clients"]:
            self._client(entry)
        for entry in parts["groups"]:
            self._group(entry)
        for user, groups in self._groups_of.items():
            found.accounts[user].groups = _ranked(list(groups.values()))
        name = root.text("anonymousgroup")
        if name is not None:
            found.anonymous = found.groups.get(name)
            if found.anonymous is None:
                line = next(member.line for member in root.members if folded(member.name) == "anonymousgroup")
                origin = Origin(found.path, line, f"anonymousGroup {_shown(name)}", "clients without a user name")
                self._ignore(origin, f"there is no group {name!r}")

    def _part(self, root: Object, name: str) -> Sequence[Object]:
        """Return the objects of one of the file's lists."""
        value = root.get(name)
        if value is None:
            return ()
        if not isinstance(value.held, list):
            self._refuse(f"{name} is no list: the plugin stops reading there", value.line)
            return ()
        for item in value.held:
            if not isinstance(item, Object):
                origin = Origin(self.found.path, item.line, f"an entry of {name}", "nobody")
                self._ignore(origin, "it is no object, and is passed over")
        return [item for item in value.held if isinstance(item, Object)]

    def _defaults(self, value: Value | None) -> None:
        found = self.found
        given = value if isinstance(value, Object) else Object(0, None)
        for name in DEFAULTS:
            found.defaults[name] = given.truth(name.lower())
            line = next((member.line for member in given.members if folded(member.name) == name.lower()), None)
            found.default_lines[name] = line if line is not None or value is None else value.line
        self._members(given, {name.lower(): "truth" for name in DEFAULTS}, "every client")

    # Roles -----------------------------------------------------------------------------------------------------------

    def _role(self, entry: Object) -> None:
        found = self.found
        name_value = entry.get("rolename")
        name = None if name_value is None else text_of(name_value)
        origin = Origin(found.path, entry.line, f"role {_shown(name or '')}", f"role {name!r}")
        for key in ("rolename", "textname", "textdescription"):
            given = entry.get(key)
            if given is not None and text_of(given) is None:
                self._refuse(f"{key} of a role is no text: Mosquitto 2.0.11 crashes on it", given.line)
        if name is None:
            if name_value is None:
                self._ignore(origin, "it has no rolename, and is passed over")
            return
        role = Role(name, origin)
        found.every_role.append(role)
        self._members(entry, _ROLE, f"role {name!r}")
        for item in entry.items("acls") or ():
            acl = self._acl(item, name)
            if acl is not None:
                role.acls.setdefault(acl.kind, []).append(acl)
        for kind, acls in role.acls.items():
            if kind in (AclType.SUBSCRIBE_LITERAL, AclType.UNSUBSCRIBE_LITERAL):
                role.acls[kind] = self._literals(acls)
            else:
                acls.sort(key=lambda acl: -acl.priority)
        self._hide(found.roles, role, self._sizes["roles"])

    def _acl(self, item: Value, role: str) -> Acl | None:
        holder = f"role {role!r}"
        if not isinstance(item, Object):
            self._ignore(Origin(self.found.path, item.line, "an ACL", holder), "it is no object, and is passed over")
            return None
        word, topic = item.text("acltype"), item.text("topic")
        kind = _TYPES.get(folded(word)) if word is not None else None
        allow, priority = item.truth("allow"), item.number("priority", 0)
        text = f"{kind or _shown(word or '(no acltype)')} {'allow' if allow else 'deny'} {_shown(topic or '')}"
        origin = Origin(self.found.path, item.line, text + (f" priority {priority}" if priority else ""), holder)
        if kind is None:
            self._ignore(origin, "it has no acltype" if word is None else f"there is no acltype {word!r}")
            return None
        if topic is None:
            self._ignore(origin, "it has no topic, and is passed over")
            return None
        self._members(item, _ACL, holder, origin)
        return Acl(kind, topic, allow, priority, role, origin)

    def _literals(self, acls: Sequence[Acl]) -> list[Acl]:
        """Return the literal topics that are found: the last of each."""
        last: dict[str, Acl] = {}
        for acl in acls:
            before = last.get(acl.topic)
            if before is not None:
                self._ignore(before.origin, f"{acl.topic!r} stands again further down, and the last one counts")
            last[acl.topic] = replace(acl, certain=before is None or len(acls) <= SURE_OF_DUPLICATES)
        return list(last.values())

    # Clients and groups ----------------------------------------------------------------------------------------------

    def _client(self, entry: Object) -> None:
        found = self.found
        name = entry.text("username")
        origin = Origin(found.path, entry.line, f"client {_shown(name or '')}", f"client {name!r}")
        if name is None:
            self._ignore(origin, "it has no username, and is passed over")
            return
        account = Account(name, origin, entry.text("clientid"), entry.truth("disabled"))
        self._members(entry, _CLIENT, f"client {name!r}")
        salt, password, iterations = entry.text("salt"), entry.text("password"), entry.get("iterations")
        if salt is not None and password is not None and iterations is not None and _is_number(iterations):
            if not _fits(salt, SALT_BYTES) or not _fits(password, HASH_BYTES) or entry.number("iterations", 0) < 1:
                self._ignore(origin, "its salt, password or iterations do not fit, and the whole client is passed over")
                return
            account.password = True
        account.own = self._roles(entry, f"client {name!r}")
        self._hide(found.accounts, account, self._sizes["clients"])

    def _group(self, entry: Object) -> None:
        found = self.found
        name = entry.text("groupname")
        origin = Origin(found.path, entry.line, f"group {_shown(name or '')}", f"group {name!r}")
        if name is None:
            self._ignore(origin, "it has no groupname, and is passed over")
            return
        holder = f"group {name!r}"
        self._members(entry, _GROUP, holder)
        group = Group(name, origin, self._roles(entry, holder))
        self._hide(found.groups, group, self._sizes["groups"])
        seen: set[str] = set()
        for item in entry.items("clients") or ():
            user = item.text("username") if isinstance(item, Object) else None
            member = Origin(found.path, item.line, f"client {_shown(user or '')} of {holder}", holder)
            if not isinstance(item, Object) or user is None:
                self._ignore(member, "it names no username, and is passed over")
                continue
            self._members(item, {"username": "text", "priority": "number"}, holder)
            account = found.accounts.get(user)
            if account is None:
                self._ignore(member, f"there is no client {user!r}")
            elif user in seen:
                self._ignore(member, "it stands in this group already, and the first time counts")
            else:
                self._groups_of.setdefault(user, {}).setdefault(name, (item.number("priority", ROLE_PRIORITY), group))
            seen.add(user)

    def _roles(self, entry: Object, holder: str) -> list[Role]:
        """Return the roles that a client or group has, in their order."""
        given: list[tuple[int, Role]] = []
        seen: set[str] = set()
        for item in entry.items("roles") or ():
            name = item.text("rolename") if isinstance(item, Object) else None
            origin = Origin(self.found.path, item.line, f"role {_shown(name or '')} of {holder}", holder)
            if not isinstance(item, Object) or name is None:
                self._ignore(origin, "it names no rolename, and is passed over")
                continue
            self._members(item, {"rolename": "text", "priority": "number"}, holder)
            role = self.found.roles.get(name)
            if role is None:
                self._ignore(origin, f"there is no role {name!r}")
            elif name in seen:
                self._ignore(origin, "it stands in this list already, and the first time counts")
            else:
                seen.add(name)
                given.append((item.number("priority", ROLE_PRIORITY), role))
        return _ranked(given)

    def _hide(self, known: dict[str, Named], one: Named, size: int) -> None:
        """Make one of so many findable by its name, in place of a namesake."""
        hidden = known.get(one.name)
        if hidden is not None:
            self._ignore(hidden.origin, f"{one.name!r} stands again further down, and the last one counts")
            one.certain = size <= SURE_OF_DUPLICATES
        known[one.name] = one

    # What is wrong ---------------------------------------------------------------------------------------------------

    def _members(self, entry: Object, known: Mapping[str, str], holder: str, origin: Origin | None = None) -> None:
        """Note the members that are not read, or are of the wrong type. `origin`: of the entry, if it is a grant."""
        seen: set[str] = set()
        for member in entry.members:
            name = folded(member.name)
            kind = known.get(name)
            why = None
            if kind is None:
                why = f"Mosquitto 2.0.11 does not read {_shown(member.name)!r} there"
            elif name in seen:
                why = f"{member.name!r} stands twice, and the first time counts"
            elif not _is(member, kind):
                why = f"{member.name} is {_KINDS.get(kind, f'no {kind}')}, and is passed over"
            seen.add(name)
            if why is not None:
                where = Origin(self.found.path, member.line, f"key {_shown(member.name)}", holder)
                self._ignore(where if origin is None else replace(origin, line=member.line), why)

    def _ignore(self, origin: Origin, reason: str) -> None:
        self.found.ignored.append(Ignored(origin, reason))

    def _refuse(self, message: str, line: int) -> None:
        self.problems.append(Problem(message, self.found.path, line))


def _ranked(given: Sequence[tuple[int, Ranked]]) -> list[Ranked]:
    """Return roles or groups, in the order in which they were added with their priorities, as they are asked.

    `HASH_ADD_INORDER` puts each before the first that comes after it, by the difference of two priorities cut to 32
    bits: those far apart change places (Debian's build). Not among more than a few thousand, which takes too long here.
    """
    priorities = [priority for priority, _ in given]
    if not given or max(priorities) - min(priorities) < 2**31 or len(given) > _MAX_INSERTED:
        return [one for _, one in sorted(given, key=lambda each: (-each[0], _bytes(each[1].name)))]
    found: list[tuple[int, Ranked]] = []
    for priority, one in given:
        name = _bytes(one.name)
        for place, (other, known) in enumerate(found):
            difference = (priority - other + 2**31) % 2**32 - 2**31
            if difference > 0 or (difference == 0 and _bytes(known.name) > name):
                found.insert(place, (priority, one))
                break
        else:
            found.append((priority, one))
    return [one for _, one in found]


def _is(member: Member, kind: str) -> bool:
    value = member.value
    match kind:
        case "text":
            return isinstance(value.held, str)
        case "number":
            return _is_number(value)
        case "truth":
            return isinstance(value.held, bool)
        case "list":
            return isinstance(value.held, list)
        case _:
            return isinstance(value, Object)


def _is_number(value: Value) -> bool:
    return isinstance(value.held, int) and not isinstance(value.held, bool)


def _fits(text: str, size: int) -> bool:
    """Whether a text is base64 of so many bytes."""
    try:
        return len(base64.b64decode(text.encode("ascii"), validate=True)) == size
    except (binascii.Error, ValueError):
        return False


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    """Return a text on one line."""
    return text if sendable(text) else json.dumps(text)[1:-1]
