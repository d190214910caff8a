"""What exceptions are asked about, read from a stored finding's document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from topicwarden.events import Client, Resource, ResourceKind, executable_name
from topicwarden.report.findings import as_it_was

LOGINS: Final = "TW302"
"""Told of no client: who failed to log in is in its scope."""
_NAMED: Final = (
    (re.compile(r"exchange (.*), binding key (.*)", re.DOTALL), ResourceKind.BINDING),
    (re.compile(r"exchange (.*), key (.*)", re.DOTALL), ResourceKind.KEY),
    (re.compile(r"queue (.*)", re.DOTALL), ResourceKind.QUEUE),
    (re.compile(r"exchange (.*)", re.DOTALL), ResourceKind.EXCHANGE),
)
_EMPTY: Final = "(empty)"


def client_of(document: Mapping[str, Any]) -> Client:
    """Return the client as exceptions see it."""
    row = document["client"]
    if row is not None:
        user, vhost = (None if row[key] is None else as_it_was(row[key]) for key in ("user", "vhost"))
        return Client(document["broker"], row["protocol"], as_it_was(row["client_id"]), user, vhost=vhost)
    scope = document["scope"]
    if document["code"] == LOGINS and len(scope) == 2 and scope[1].startswith("="):
        return Client(document["broker"], "", "", as_it_was(scope[1][1:]))
    return Client(document["broker"], "", "")


def grant_of(document: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what tells a grant from others: broker, words, holder and file."""
    evidence = document["evidence"]
    words, holder, file = (as_it_was(str(evidence.get(key, ""))) for key in ("grant", "holder", "where_file"))
    return document["broker"], words, holder, file


def changed_in(document: Mapping[str, Any]) -> str:
    """Return what was changed, or the powers that were given."""
    return as_it_was(str(next(iter(document["scope"]), "")))


def several(document: Mapping[str, Any]) -> str | None:
    """Return in words whom a finding is about when it is not one user alone."""
    evidence = document["evidence"]
    if "stands_for" in evidence:
        return "clients that the configuration does not name"
    return f"{evidence['alike'] + 1} clients alike" if "alike" in evidence else None


def processes_of(document: Mapping[str, Any]) -> set[tuple[str | None, str | None]]:
    """Return file name and user of each process behind a finding; where none is known, one of which nothing is."""
    found = set()
    for behind in document["behind"]:
        program = behind["executable"] or next(iter(behind["arguments"]), None)
        name = None if program is None else executable_name(as_it_was(str(program)))
        found.add((name, None if behind["user"] is None else as_it_was(behind["user"])))
    return found or {(None, None)}


def witnesses_of(document: Mapping[str, Any]) -> Sequence[str]:
    """Return the names that it is about, as far as they were kept."""
    return [as_it_was(witness["name"]) for witness in document["witnesses"]]


def nameless(document: Mapping[str, Any]) -> bool:
    """Whether some occurrences have no name, such as connecting."""
    named = sum(witness["count"] for witness in document["witnesses"]) + document["more_witnesses"]
    return not document["witnesses"] or named < document["count"]


def resources_of(document: Mapping[str, Any], witness: str) -> list[Resource]:
    """Return what a witness may be: where it is told in words, a topic may be named like them."""
    client = document["client"]
    mqtt = client is None or client["protocol"].startswith("mqtt")
    found = [*named_resources(witness)]
    return [*found, Resource(ResourceKind.TOPIC, witness)] if mqtt or not found else found


def named_resources(label: str) -> Iterator[Resource]:
    """Yield every resource whose label this is, but for a topic."""
    for pattern, kind in _NAMED:
        match = pattern.fullmatch(label)
        if match is None:
            continue
        if len(match.groups()) == 1:
            yield Resource(kind, match[1])
            continue
        # An exchange may be called like the words between.
        between = ", binding key " if kind is ResourceKind.BINDING else ", key "
        parts = label.removeprefix("exchange ").split(between)
        for number in range(1, len(parts)):
            name = between.join(parts[number:])
            within = between.join(parts[:number])
            yield Resource(kind, "" if name == _EMPTY else name, within=within)
