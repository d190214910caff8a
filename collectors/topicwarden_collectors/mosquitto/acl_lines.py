"""Writes lines of an acl_file, and only such as the broker reads back as they were meant."""

from __future__ import annotations

from collections.abc import Iterable

from topicwarden_collectors.mosquitto.acl_file import ACCESS_WORDS, Access, AclEntry, parse_acl_file
from topicwarden_collectors.mosquitto.grants_logins import sendable

_WORDS = {access: word for word, access in ACCESS_WORDS.items()}


def entry_line(kind: str, access: Access, topic: str) -> str | None:
    """Return a `topic` or `pattern` line; None when none says this: blanks at an end, controls, too many levels."""
    line = f"{kind} {_WORDS[access]} {topic}"
    if not sendable(topic):
        return None
    acl = parse_acl_file("", line.encode())
    meant = [AclEntry(kind == "pattern", access, topic, None, 1)]
    return line if not acl.refused and acl.entries == meant else None


def user_line(user: str) -> str | None:
    """Return the `user` line; None when none names this user: blanks at an end, controls, no name."""
    line = f"user {user}"
    if not user or not sendable(user):
        return None
    acl = parse_acl_file("", line.encode())
    return line if not acl.refused and list(acl.users) == [user] else None


def joined(parts: Iterable[tuple[str, Access]]) -> dict[str, Access]:
    """Join what is said of the same filter; in the order of its first mention."""
    found: dict[str, Access] = {}
    for topic, access in parts:
        found[topic] = found.get(topic, Access.NONE) | access
    return found
