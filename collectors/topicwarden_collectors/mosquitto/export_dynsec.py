"""Writes a policy as a dynamic-security.json that allows exactly what the policy does, or less and says so.

Everything is denied by default, also receiving: only then does a subscription bring no more than it says (in 2.0.11
`+/x` also lets a client subscribe to `$SYS/x`, and `+/+/x` to `$share/any/x`). So each permission to subscribe is
written three times: the filter, the filter as a shared subscription, and the topics that are handed out. Nothing
denies, so the order of roles means nothing. 2.0.11 puts no names in for `%u`: what holds it goes into a role for each
user.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from topicwarden.events import Action, Client
from topicwarden.grants import Export, Unsaid
from topicwarden.patterns import LevelPattern, Special
from topicwarden.patterns.meet import meet
from topicwarden.policy import Place, Policy
from topicwarden_collectors.mosquitto.dynsec_instead import acl_entry
from topicwarden_collectors.mosquitto.dynsec_matching import SHARE, is_filter
from topicwarden_collectors.mosquitto.dynsec_model import AclType
from topicwarden_collectors.mosquitto.export_members import membership
from topicwarden_collectors.mosquitto.export_unsaid import unsaid_of
from topicwarden_collectors.mosquitto.grants_logins import sendable
from topicwarden_collectors.mosquitto.grants_rules import BRIDGE_STATE, TOPICS, is_bridge_state, refused

TARGET: Final = "mosquitto-dynsec"
FILE: Final = "dynamic-security.json"
_ANONYMOUS: Final = "clients without a user name"
_WORDS: Final = {Action.PUBLISH: "publish", Action.SUBSCRIBE: "subscribe"}

Entry = dict[str, Any]


def export_dynsec(policy: Policy, accounts: Sequence[Client]) -> Export:
    """Write the file for these accounts and for those that the policy names outright; nobody else gets in.

    Clients have no passwords yet, and there is no administrator: both are said.
    """
    writer = _Writer(policy, accounts)
    text = json.dumps(writer.file(), indent=2, ensure_ascii=False)
    return Export(TARGET, {FILE: text + "\n"}, writer.unsaid, writer.denied_more)


class _Writer:
    def __init__(self, policy: Policy, accounts: Sequence[Client]) -> None:
        self._policy = policy
        members = membership(policy, accounts)
        self._members = members.roles
        self._users: dict[str | None, None] = dict.fromkeys(account.user or None for account in accounts)
        for role in self._members.values():
            self._users.update(role.users)
        self._roles: list[Entry] = []
        self.unsaid = [*unsaid_of(policy), *members.unsaid]
        self.denied_more = members.denied_more

    def file(self) -> Entry:
        """Return the whole file."""
        for role in self._policy.roles:
            acls = [
                acl for action, place, where in self._places(role) for acl in self._acls(action, place, None, where)
            ]
            self._roles.append(_role(role, f"roles.{role} of the policy", acls))
        clients = [
            {"username": user, "roles": [{"rolename": role} for role in self._roles_of(user)]}
            for user in sorted(user for user in self._users if user is not None)
            if self._can_be(user)
        ]
        found: Entry = {
            "defaultACLAccess": {
                "publishClientSend": False,
                "publishClientReceive": False,
                "subscribe": False,
                "unsubscribe": True,
            },
            "clients": clients,
            "groups": [],
        }
        anonymous = self._roles_of(None) if None in self._users else []
        if anonymous:
            group = {"groupname": _ANONYMOUS, "roles": [{"rolename": role} for role in anonymous], "clients": []}
            found["groups"] = [group]
            found["anonymousGroup"] = _ANONYMOUS
            self._say("clients without a user name get in only with `allow_anonymous true` in the mosquitto.conf")
        found["roles"] = self._roles
        self._everybody()
        if clients:
            self._say(
                "clients have no passwords, without which they cannot log in:"
                " set each with `mosquitto_ctrl dynsec setClientPassword USER`"
            )
        self._say(
            "the file has no administrator, without whom mosquitto_ctrl can change nothing: take the client and role"
            " `admin` over from a file that `mosquitto_ctrl dynsec init` writes"
        )
        return found

    def _can_be(self, user: str) -> bool:
        if not sendable(user):
            self._deny(f"no client can have the user name {user!r}", "")
        return sendable(user)

    def _everybody(self) -> None:
        for role, members in self._members.items():
            if members.everybody and any(self._places(role)):
                self._deny(
                    "every client means the clients of the file: whoever else there is cannot log in", f"roles.{role}"
                )

    def _places(self, role: str) -> Iterator[tuple[Action, Place, str]]:
        """Yield what a role may do with topics."""
        found = self._policy.roles[role]
        places = [(Action.PUBLISH, number, rule.place) for number, rule in enumerate(found.publish)]
        places += [(Action.SUBSCRIBE, number, rule.place) for number, rule in enumerate(found.subscribe)]
        for action, number, place in places:
            if place.space == TOPICS:
                yield action, place, f"roles.{role}.{_WORDS[action]}[{number}]"

    def _roles_of(self, user: str | None) -> list[str]:
        """Return the roles of a user, of whom those with `%u` are made here."""
        found = []
        for role, members in self._members.items():
            if not (members.everybody or user in members.users):
                continue
            found.append(role)
            own = [
                acl
                for action, place, where in self._places(role)
                if user is not None and "%u" in place.levels
                for acl in self._acls(action, place, user, where)
            ]
            if own:
                # A policy's roles have no spaces in their names.
                name = f"{role} for {user}"
                self._roles.append(_role(name, f"roles.{role} of the policy, for {user}", own))
                found.append(name)
        return found

    def _acls(self, action: Action, place: Place, user: str | None, where: str) -> list[Entry]:
        """Return the ACLs for a place; with a user, `%u` is his name, and places without it have none."""
        if "%c" in place.levels:
            self._deny("Mosquitto 2.0.11 knows no %c in these ACLs, so nobody gets this", where)
            return []
        if ("%u" in place.levels) != (user is not None):
            return []
        bound: LevelPattern = place.space.syntax.bind(place.pattern, user, None)
        if Special.NOTHING in bound.levels:
            return []  # the policy means no topic either
        topic = "/".join(level if isinstance(level, str) else str(level.value) for level in bound.levels)
        if not is_filter(topic):
            self._deny(f"the broker takes no topic like {topic[:200]!r}", where)
            return []
        if not self._taken(action, bound, where):
            return []
        if action is Action.PUBLISH:
            return [acl_entry(AclType.SEND, topic)]
        wild = "+" in topic or "#" in topic
        acls = [acl_entry(AclType.SUBSCRIBE_PATTERN if wild else AclType.SUBSCRIBE_LITERAL, topic)]
        if not topic.startswith("$"):
            shared = f"{SHARE}/+/{topic}"
            if is_filter(shared):
                acls.append(acl_entry(AclType.SUBSCRIBE_PATTERN, shared))
        return [*acls, acl_entry(AclType.RECEIVE, topic)]

    def _taken(self, action: Action, names: LevelPattern, where: str) -> bool:
        """Whether the broker allows any of this whatever the file says; tells what it does not."""
        first = names.levels[0]
        if not isinstance(first, str) or not refused(action, first):
            return True
        if action is Action.PUBLISH and is_bridge_state(names):
            return True
        self._deny(f"the broker itself refuses this for names that begin with {first}", where)
        return action is Action.PUBLISH and meet(names, BRIDGE_STATE) is not None

    def _say(self, what: str) -> None:
        self.unsaid.append(Unsaid(what))

    def _deny(self, what: str, where: str) -> None:
        unsaid = Unsaid(what, where)
        if unsaid not in self.denied_more:
            self.denied_more.append(unsaid)


def _role(name: str, description: str, acls: Sequence[Entry]) -> Entry:
    """Return a role, each of its ACLs once."""
    return {
        "rolename": name,
        "textdescription": description,
        "acls": list({(acl["acltype"], acl["topic"]): acl for acl in acls}.values()),
    }
