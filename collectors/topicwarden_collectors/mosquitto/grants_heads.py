"""Tells an acl_file and a dynamic-security.json by their content."""

from __future__ import annotations

import re
from typing import Final

from topicwarden_collectors.mosquitto.acl_file import parse_acl_file
from topicwarden_collectors.mosquitto.conf_options import OPTIONS, PLUGIN_OPTION_PREFIXES

HEAD: Final = 4096
"""How much of a file `recognises` is shown, in bytes."""
_GRANTS: Final = frozenset({"topic", "pattern"})
_ENTRIES: Final = _GRANTS | {"user"}
_KEY: Final = re.compile(rb'"(clients|roles|groups|defaultACLAccess|anonymousGroup)"\s*:\s*([\[{"])')
_BEGINNINGS: Final = {
    b"clients": b"[",
    b"roles": b"[",
    b"groups": b"[",
    b"defaultACLAccess": b"{",
    b"anonymousGroup": b'"',
}
_ROLE_WORDS: Final = (b'"rolename"', b'"acltype"', b'"defaultACLAccess"', b'"anonymousGroup"')


def is_acl_file(source: str, data: bytes) -> bool:
    """Whether a file is to be read as an acl_file: most lines are entries, none is an option of mosquitto.conf.

    That has `user` and, for bridges, `topic` lines too: a file called `….conf` must have a grant besides.
    """
    words = _words(data)
    if source.endswith(".conf") and _GRANTS.isdisjoint(words):
        return False
    if not words:
        return True
    options = (word in OPTIONS or word.startswith(PLUGIN_OPTION_PREFIXES) for word in words if word not in _ENTRIES)
    entries = sum(word in _ENTRIES for word in words)
    return not any(options) and entries * 2 > len(words)


def looks_like_acl_file(source: str, head: bytes) -> bool:
    """Whether a file's beginning is an acl_file's, and nobody else's: its first line that counts is an entry."""
    if len(head) >= HEAD:
        head = head.rpartition(b"\n")[0]
    words = _words(head)
    if not words:
        return source.endswith(".acl")
    if words[0] not in _ENTRIES or not is_acl_file(source, head):
        return False
    acl = parse_acl_file(source, head)
    return bool(acl.entries) and len(acl.refused) <= len(acl.entries)


def looks_like_dynamic_security(head: bytes) -> bool:
    """Whether a file's beginning is that of a dynamic-security.json: an object with its keys and its words."""
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    keys = {match[1] for match in _KEY.finditer(head) if _BEGINNINGS[match[1]] == match[2]}
    return bool(keys) and any(word in head for word in _ROLE_WORDS)


def _words(data: bytes) -> list[str]:
    """Return the first word of each line that is neither empty nor a comment."""
    lines = data.decode("utf-8", "replace").split("\n")
    return [line.split(maxsplit=1)[0] for line in lines if line.strip() and not line.startswith("#")]
