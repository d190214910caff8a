"""Writes a policy as an acl_file that allows exactly what the policy does, or less and says so, and never more.

Only `topic` lines speak of one user; they know no variables, so `%u` is written out for each account, and `%c` cannot
be written. `pattern` lines are for every client there can be, so they are for roles that everybody has; and because
2.0.11 puts names in as text, so that one with `/` in it reaches over several levels, each pattern with a variable comes
with a denial of what lies that deep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from topicwarden.events import Action, Client
from topicwarden.grants import Export, Unsaid
from topicwarden.patterns import LevelPattern, Special, overlap
from topicwarden.patterns.meet import meet
from topicwarden.policy import Place, Policy
from topicwarden_collectors.mosquitto.acl_file import Access
from topicwarden_collectors.mosquitto.acl_lines import entry_line, joined, user_line
from topicwarden_collectors.mosquitto.export_members import Members, membership
from topicwarden_collectors.mosquitto.export_unsaid import unsaid_of
from topicwarden_collectors.mosquitto.grants_rules import BRIDGE_STATE, TOPICS, is_bridge_state, refused

TARGET = "mosquitto-acl"
FILE = "mosquitto.acl"
_VARIABLES = frozenset(("%u", "%c"))
_ACCESS = {Action.PUBLISH: Access.WRITE, Action.SUBSCRIBE: Access.READ}
_WORDS = {Action.PUBLISH: "publish", Action.SUBSCRIBE: "subscribe"}


@dataclass(frozen=True, slots=True)
class _Permission:
    """One permission of a role to publish to, or to receive, a topic."""

    action: Action
    place: Place
    where: str

    @property
    def variables(self) -> frozenset[str]:
        """Those of `%u` and `%c` that it holds."""
        return _VARIABLES & set(self.place.levels)

    @property
    def for_anybody(self) -> LevelPattern:
        """What it is about, whoever the client is."""
        levels = ["+" if level in _VARIABLES else level for level in self.place.levels]
        return self.place.space.syntax.bind("/".join(levels), None, None)  # type: ignore[no-any-return] # a LevelPattern

    @property
    def overreach(self) -> LevelPattern | None:
        """What it would reach for names with `/` in them, and more; None when no filter says that."""
        levels = self.place.levels
        first = next(number for number, level in enumerate(levels) if level in _VARIABLES)
        if levels[-1] == "#" or first == 0:
            return None
        deeper = [*levels[:first], *["+"] * (len(levels) - first + 1), "#"]
        return self.place.space.syntax.parse("/".join(deeper))  # type: ignore[no-any-return] # a LevelPattern


@dataclass(slots=True)
class _Patterns:
    """The lines for every client."""

    permissions: list[_Permission] = field(default_factory=list)
    denials: list[LevelPattern] = field(default_factory=list)

    def add(self, permission: _Permission) -> bool:
        """Take a permission, unless that would allow more, or deny what another allows."""
        if permission.variables:
            overreach = permission.overreach
            if overreach is None or any(overlap(overreach, other.for_anybody) for other in self.permissions):
                return False
        else:
            overreach = None
        if any(overlap(denial, permission.for_anybody) for denial in self.denials):
            return False
        self.permissions.append(permission)
        if overreach is not None and overreach not in self.denials:
            self.denials.append(overreach)
        return True


def export_acl(policy: Policy, accounts: Sequence[Client]) -> Export:
    """Write an acl_file for these accounts and for those that the policy names outright; nobody else gets anything."""
    writer = _Writer(policy, accounts)
    writer.write()
    return Export(TARGET, {FILE: "\n".join([*writer.lines, ""])}, writer.unsaid, writer.denied_more)


class _Writer:
    def __init__(self, policy: Policy, accounts: Sequence[Client]) -> None:
        self._policy = policy
        members = membership(policy, accounts)
        self._members = members.roles
        self._users: dict[str | None, None] = dict.fromkeys(account.user or None for account in accounts)
        for role in self._members.values():
            self._users.update(role.users)
        self.lines: list[str] = []
        self.unsaid = [*unsaid_of(policy), *members.unsaid]
        self.denied_more = members.denied_more

    def write(self) -> None:
        """Write the lines, from the narrowest to the widest."""
        self._header()
        patterns = self._patterns()
        if None in self._users:
            self._user(None)
        for user in sorted(user for user in self._users if user is not None):
            self._user(user)
        if patterns.permissions:
            self.lines += ["", "# every client"]
            self.lines += [
                line
                for denial in patterns.denials
                if (line := self._line("pattern", Access.NONE, denial.text)) is not None
            ]
            topics = joined((one.place.pattern, _ACCESS[one.action]) for one in patterns.permissions)
            self.lines += [
                line for topic, access in topics.items() if (line := self._line("pattern", access, topic)) is not None
            ]

    def _header(self) -> None:
        roles = ", ".join(self._policy.roles) or "none"
        self.lines += [
            "# acl_file for Mosquitto 2.0, written by topicwarden export: change the policy, not this file.",
            f"# Roles of the policy: {roles}.",
            "# What no line allows is denied. Rates, sizes, names and payloads are not limited here; what else of the",
            "# policy is not in this file, the export said.",
        ]

    def _permissions(self, role: str) -> Iterator[_Permission]:
        """Yield what a role may do with topics."""
        found = self._policy.roles[role]
        places = [(Action.PUBLISH, number, rule.place) for number, rule in enumerate(found.publish)]
        places += [(Action.SUBSCRIBE, number, rule.place) for number, rule in enumerate(found.subscribe)]
        for action, number, place in places:
            if place.space == TOPICS:
                yield _Permission(action, place, f"roles.{role}.{_WORDS[action]}[{number}]")

    def _user(self, user: str | None) -> None:
        """Write the lines of a user, or those above every user line."""
        granted: list[tuple[str, Access]] = []
        for role, members in self._members.items():
            if not (members.everybody or user in members.users):
                continue
            for permission in self._permissions(role):
                topic = self._written(permission, user, members)
                if topic is not None:
                    granted.append((topic, _ACCESS[permission.action]))
        if not granted:
            return
        head = "# clients without a user name" if user is None else user_line(user)
        if head is None:
            self._deny(f"no user line can name {user!r}", "")
            return
        lines = [self._line("topic", access, topic) for topic, access in joined(granted).items()]
        self.lines += ["", head, *(line for line in lines if line is not None)]

    def _written(self, permission: _Permission, user: str | None, members: Members) -> str | None:
        """Return a permission's topic with a user's name written out; None when there is nothing to write."""
        if "%c" in permission.variables:
            if not members.everybody:
                self._deny(
                    "only pattern lines know %c, and they are for every client, so nobody gets this", permission.where
                )
            return None
        bound: LevelPattern = permission.place.space.syntax.bind(permission.place.pattern, user, None)
        if Special.NOTHING in bound.levels:
            return None  # the policy means no topic either
        topic = "/".join(level if isinstance(level, str) else str(level.value) for level in bound.levels)
        return topic if self._taken(permission, bound) else None

    def _patterns(self) -> _Patterns:
        """Return what every client gets."""
        patterns = _Patterns()
        everybody = [
            permission
            for role, members in self._members.items()
            if members.everybody
            for permission in self._permissions(role)
        ]
        # Those without variables first: no denial that others need may take from them.
        for permission in sorted(everybody, key=lambda one: bool(one.variables)):
            if not self._taken(permission, permission.for_anybody):
                continue
            if not patterns.add(permission):
                given = "nobody gets this" if "%c" in permission.variables else "only the accounts given get this"
                self._deny(
                    "a pattern line would let clients with / in their name or id reach further, or needs a denial that"
                    f" takes from others, so {given}",
                    permission.where,
                )
        if any("%c" not in permission.variables for permission in patterns.permissions):
            self._deny(
                "no pattern is looked at for clients with + or # in their user name or id, so those that are not among"
                " the accounts given get nothing",
                "",
            )
        return patterns

    def _taken(self, permission: _Permission, names: LevelPattern) -> bool:
        """Whether the broker allows any of this whatever an acl_file says; tells what it does not."""
        first = names.levels[0]
        if not isinstance(first, str) or not refused(permission.action, first) or _always_state(permission, names):
            return True
        partly = permission.action is Action.PUBLISH and meet(names, BRIDGE_STATE) is not None
        self._deny(f"the broker itself refuses this for names that begin with {first}", permission.where)
        return partly

    def _line(self, kind: str, access: Access, topic: str) -> str | None:
        line = entry_line(kind, access, topic)
        if line is None:
            self._deny(f"no line of an acl_file can say {topic!r}", "")
        return line

    def _deny(self, what: str, where: str) -> None:
        unsaid = Unsaid(what, where)
        if unsaid not in self.denied_more:
            self.denied_more.append(unsaid)


def _always_state(permission: _Permission, names: LevelPattern) -> bool:
    return permission.action is Action.PUBLISH and is_bridge_state(names)
