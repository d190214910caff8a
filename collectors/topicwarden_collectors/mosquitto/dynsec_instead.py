"""The commands that leave a client of the dynamic security plugin what its policy intends of a grant."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from topicwarden.events import Action, Client
from topicwarden.grants import Kept
from topicwarden_collectors.mosquitto.dynsec_matching import is_filter
from topicwarden_collectors.mosquitto.dynsec_model import Acl, AclType

_CTRL = "mosquitto_ctrl dynsec"
_PLACEHOLDERS = frozenset(("%u", "%c"))


def acl_entry(kind: AclType, topic: str, priority: int = 0) -> dict[str, str | int | bool]:
    """Return an ACL that allows, as the file has it."""
    return {"acltype": str(kind), "topic": topic, "priority": priority, "allow": True}


def named(pattern: str, user: str | None, client_id: str | None) -> str | None:
    """Put a client's names in the place of a policy's `%u` and `%c`; None when one is missing or is no level."""
    names = {"%u": user, "%c": client_id}
    levels: list[str] = []
    for level in pattern.split("/"):
        name = names.get(level, level)
        if level in _PLACEHOLDERS and (not name or "/" in name or "+" in name or "#" in name):
            return None
        levels.append(name or "")
    text = "/".join(levels)
    return text if is_filter(text) else None


def instead_of_acl(acl: Acl, client: Client, bound_id: str | None, kept: Sequence[Kept], *, by_default: bool) -> str:
    """Return what to do about an ACL. `by_default`: whether everything subscribed to is handed out."""
    wanted, lines = _wanted(acl.kind, client, bound_id, kept)
    role = shlex.quote(acl.role)
    if acl.topic in wanted and acl.kind in (AclType.SUBSCRIBE_PATTERN, AclType.SUBSCRIBE_LITERAL):
        # It is not the ACL that says too much: filters it matches bring more than topics that it matches.
        lines.append(f"{_CTRL} addRoleACL {role} {AclType.RECEIVE} {shlex.quote(acl.topic)} allow")
        if by_default:
            lines.append(f"{_CTRL} setDefaultACLAccess {AclType.RECEIVE} deny")
        return "\n".join(lines)
    lines.append(f"{_CTRL} removeRoleACL {role} {acl.kind} {shlex.quote(acl.topic)}")
    return "\n".join([*lines, *_additions(acl.role, wanted, acl.priority)])


def instead_of_default(name: str, role: str | None, client: Client, bound_id: str | None, kept: Sequence[Kept]) -> str:
    """Return what to do about a default. `role`: one that the client has."""
    kind = AclType.SEND if name == AclType.SEND else AclType.SUBSCRIBE_PATTERN
    wanted, lines = _wanted(kind, client, bound_id, kept)
    lines.append(f"{_CTRL} setDefaultACLAccess {name} deny")
    if wanted and role is None:
        role = f"for {client.user}"
        lines.append(f"{_CTRL} createRole {shlex.quote(role)}")
        if client.user is not None:
            lines.append(f"{_CTRL} addClientRole {shlex.quote(client.user)} {shlex.quote(role)}")
    return "\n".join([*lines, *_additions(role or "", wanted, 0)])


def _wanted(
    kind: AclType, client: Client, bound_id: str | None, kept: Sequence[Kept]
) -> tuple[dict[str, AclType], list[str]]:
    """Return the topics to allow, each with its type, and comments on what cannot be."""
    action = Action.PUBLISH if kind is AclType.SEND else Action.SUBSCRIBE
    wanted: dict[str, AclType] = {}
    lines: list[str] = []
    for part in kept:
        if part.action is not action:
            continue
        topic = named(part.pattern, client.user, bound_id)
        if topic is None:
            lines.append(f"# no ACL says {part.pattern!r}: Mosquitto 2.0.11 takes %u and %c as letters")
            continue
        if topic != part.pattern:
            lines.append(f"# {part.pattern!r} needs a role for each user: Mosquitto 2.0.11 takes %u and %c as letters")
        literal = kind is AclType.SUBSCRIBE_LITERAL and "+" not in topic and "#" not in topic
        wanted[topic] = AclType.SUBSCRIBE_PATTERN if kind is AclType.SUBSCRIBE_LITERAL and not literal else kind
    return wanted, lines


def _additions(role: str, wanted: dict[str, AclType], priority: int) -> list[str]:
    lines = []
    behind = f" {priority}" if priority else ""
    for topic, kind in wanted.items():
        lines.append(f"{_CTRL} addRoleACL {shlex.quote(role)} {kind} {shlex.quote(topic)} allow{behind}")
    if wanted:
        entries = ", ".join(json.dumps(acl_entry(kind, topic, priority)) for topic, kind in wanted.items())
        lines.append(f'# in the file, among the "acls" of that role: {entries}')
    return lines
