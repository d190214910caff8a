"""A dynamic-security.json as the plugin holds it once loaded: roles, groups and clients, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from topicwarden.grants import Origin


class AclType(StrEnum):
    """What an ACL is about, in the file's words."""

    SEND = "publishClientSend"
    RECEIVE = "publishClientReceive"
    SUBSCRIBE_LITERAL = "subscribeLiteral"
    SUBSCRIBE_PATTERN = "subscribePattern"
    UNSUBSCRIBE_LITERAL = "unsubscribeLiteral"
    UNSUBSCRIBE_PATTERN = "unsubscribePattern"


DEFAULTS: Final = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")


@dataclass(frozen=True, slots=True)
class Acl:
    """One entry of a role."""

    kind: AclType
    topic: str
    allow: bool
    priority: int
    role: str
    origin: Origin
    certain: bool = True
    """False where another of the same topic may be the one that the plugin finds."""


@dataclass(slots=True, eq=False)
class Role:
    """A role; `acls` by type, in the order in which they are looked at (literals: the one found)."""

    name: str
    origin: Origin
    acls: dict[AclType, list[Acl]] = field(default_factory=dict)
    certain: bool = True
    """False where a namesake may be the one that the plugin finds; so too below."""


@dataclass(slots=True, eq=False)
class Group:
    """A group with its roles in their order."""

    name: str
    origin: Origin
    roles: list[Role] = field(default_factory=list)
    certain: bool = True


@dataclass(slots=True, eq=False)
class Account:
    """A client of the file; its password is looked at while loading and not kept."""

    name: str
    origin: Origin
    client_id: str | None = None
    """The only id it may connect with; None: any."""
    disabled: bool = False
    password: bool = False
    """Whether it has one that can be checked."""
    certain: bool = True
    own: list[Role] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Return all its roles in the order in which they are asked: its own, then those of its groups."""
        return (*self.own, *(role for group in self.groups for role in group.roles))


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that the plugin passes over."""

    origin: Origin
    reason: str


@dataclass(slots=True)
class Dynsec:
    """The whole file."""

    path: str
    defaults: dict[str, bool] = field(default_factory=dict)
    """`defaultACLAccess`, by its names in `DEFAULTS`."""
    default_lines: dict[str, int | None] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    anonymous: Group | None = None
    """The group of clients without a user name."""
    every_role: list[Role] = field(default_factory=list)
    """Also those hidden by namesakes."""
    ignored: list[Ignored] = field(default_factory=list)

    def default_origin(self, name: str) -> Origin:
        """Return where a default stands, or that it does not."""
        state = "true" if self.defaults[name] else "false"
        return Origin(self.path, self.default_lines[name], f"defaultACLAccess {name} {state}", "every client")


def acls_of(roles: Iterable[Role], *kinds: AclType) -> Iterable[Acl]:
    """Yield the ACLs of some types, role by role, in the order in which they are looked at."""
    for role in roles:
        for kind in kinds:
            yield from role.acls.get(kind, ())
