"""Which exception accepts a stored finding: no wider than it, or as wide as somebody asked for, and said so.

A finding is known here by its document. Whether an exception covers it is decided by the policy's own model, by the
same calls that `watch` and `scan` make.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import DOING, NO_RESOURCE, Client, Resource, ResourceKind
from topicwarden.findings import Catalogue
from topicwarden.hosts.ecs import program_name
from topicwarden.output.escape import quoted, visible
from topicwarden.policy import ExceptionRule
from topicwarden.policy.places import covers
from topicwarden.report.findings import as_it_was

PLACE_KEYS: Final = ("topic", "exchange", "key", "queue")
BY_NAME: Final = frozenset({"TW101", "TW104"})
"""What `scan` finds, and an exception may accept for some names only."""
BY_CODE: Final = frozenset({"TW103", "TW109"})
"""What `scan` finds, and an exception accepts whatever the name."""
LOGINS: Final = "TW302"
"""Told of no client: who failed to log in is in its scope."""
NAMES_UNFIT: Final = frozenset({"TW206"})
"""Told of names that may be cut or malformed: no filter covers those."""
_OBSERVED: Final = ("TW2", "TW3", "TW42")
_LONGEST: Final = 200
_NO_UTF8: Final = re.compile("[\ud800-\udfff]")
_NAMED: Final = (
    (re.compile(r"exchange (.*), binding key (.*)", re.DOTALL), ResourceKind.BINDING),
    (re.compile(r"exchange (.*), key (.*)", re.DOTALL), ResourceKind.KEY),
    (re.compile(r"queue (.*)", re.DOTALL), ResourceKind.QUEUE),
    (re.compile(r"exchange (.*)", re.DOTALL), ResourceKind.EXCHANGE),
)
_EMPTY: Final = "(empty)"


class Subject(Enum):
    """How exceptions are asked about a finding."""

    CLIENT = 1
    """By events of a client: code, client and name."""
    ACCOUNT = 2
    """By the grants of a user."""
    HOST = 3
    """By host, process and user."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An exception without its reason and end."""

    keys: Mapping[str, str]
    notes: tuple[str, ...]
    """What else it accepts, and what is not known; sentences without full stop, fit for people."""


def subject_of(document: Mapping[str, Any], catalogue: Catalogue) -> Subject:
    """Return how exceptions are asked about a finding; raises ConfigurationError where none ever is."""
    code = document["code"]
    known = catalogue.get(code)
    if known is not None and known.detection is not None:
        return Subject.HOST
    if code in BY_NAME | BY_CODE:
        if "where_file" in document["evidence"]:
            return Subject.ACCOUNT
        raise _never(document, "it tells of one change of a grant; `scan` tells how grants stand, and that can be")
    if code.startswith(_OBSERVED) and known is not None:
        return Subject.CLIENT
    if known is None:
        raise _never(document, "this version does not know its code")
    if code == "TW901" and document["client"] is not None:
        return Subject.CLIENT
    why = "it tells how grants stand: change them" if code.startswith("TW1") else "it is about the observing itself"
    raise _never(document, why)


def propose(
    document: Mapping[str, Any], catalogue: Catalogue, place: Mapping[str, str], *, wide: bool = False
) -> Proposal:
    """Return the exception for a finding.

    `place`: keys of `PLACE_KEYS` that somebody chose; `wide`: it may cover more than this finding. Raises
    ConfigurationError where no exception can accept it, or only a wider one and `wide` was not said.
    """
    subject = subject_of(document, catalogue)
    if place and (subject is Subject.HOST or document["code"] in BY_CODE):
        raise ConfigurationError(
            Problem(f"an exception for {document['code']} is about no name", hint=f"leave out --{min(place)}")
        )
    match subject:
        case Subject.HOST:
            return _for_host(document, wide)
        case Subject.ACCOUNT:
            return _for_account(document, place, wide)
        case _:
            return _for_client(document, place, wide)


def covers_finding(rule: ExceptionRule, document: Mapping[str, Any], catalogue: Catalogue) -> bool:
    """Whether an exception, while it holds, accepts all that is known of a finding."""
    code, name = document["code"], document["name"]
    match subject_of(document, catalogue):
        case Subject.HOST:
            return all(rule.covers_host(code, name, document["host"], *process) for process in _processes(document))
        case Subject.ACCOUNT:
            # As `scan` does: an account has no client id, there its user name counts; and nobody has no exception.
            user = _client(document).user
            if user is None or rule.of_host or rule.finding.lower() not in (code.lower(), name):
                return False
            if not all(glob is None or glob.matches(user) for glob in (rule.user, rule.client)):
                return False
            return rule.place is None or (code in BY_NAME and _shown_names_within(rule, document))
        case _:
            found = [_resources(document, witness) for witness in _witnesses(document)]
            if _nameless(document):
                found.append([NO_RESOURCE])
            client = _client(document)
            # Of a name that may be one thing or another, either way has to be covered.
            return all(rule.covers(code, name, client, resource) for resources in found for resource in resources)


# Proposals ------------------------------------------------------------------------------------------------------------


def _for_client(document: Mapping[str, Any], place: Mapping[str, str], wide: bool) -> Proposal:
    client = _client(document)
    notes = []
    keys = {"finding": document["code"]}
    for key, name in (("client", client.client_id), ("user", client.user)):
        if name:
            keys[key] = _literal(name, document, wide)
    if len(keys) == 1:
        raise _never(document, "it is of a client without a user name and client id")
    if client.user is None:
        notes.append("it is for the client id alone, whoever uses it")
    elif client.client_id == "" and document["code"] == LOGINS:
        notes.append("it is for logins with this user name from anywhere, with any client id")
    if client.vhost is not None:
        notes.append("it is for every virtual host")
    notes.append("it is for every broker that this policy is used for")
    witnesses = _witnesses(document)
    if _nameless(document) or document["code"] in NAMES_UNFIT:
        if (place or witnesses) and not wide:
            raise ConfigurationError(
                Problem("it is about more than names that can be named", hint="say --wide to accept it for any name")
            )
        place = {}
    if place:
        keys |= place
        if document["more_witnesses"]:
            notes.append(
                f"{document['more_witnesses']} occurrences were on names that were not kept; whether they are in it "
                "is not known"
            )
    elif len(witnesses) == 1 and not document["more_witnesses"] and not wide:
        keys |= _place(document, witnesses[0])
    elif witnesses and not wide:
        raise ConfigurationError(
            Problem(
                f"it is about {len(witnesses)}{' and more' if document['more_witnesses'] else ''} names, such as "
                f"{quoted(witnesses[0], _LONGEST)}",
                hint="choose those to accept with --topic FILTER (or --exchange and --key, or --queue), or say --wide "
                "to accept it for any name",
            )
        )
    else:
        notes.append("it is for any name")
    return Proposal(keys, tuple(notes))


def _for_account(document: Mapping[str, Any], place: Mapping[str, str], wide: bool) -> Proposal:
    user = _client(document).user
    if not user:
        raise _never(document, "it is of clients without a user name")
    code = document["code"]
    keys = {"finding": code, "user": _literal(user, document, wide)}
    if code in BY_NAME and not place and not wide:
        raise ConfigurationError(
            Problem(
                f"an exception cannot name one grant, only the names that {quoted(user, _LONGEST)} may use",
                hint="choose those to accept with --topic FILTER (or --exchange and --key, or --queue), or say --wide "
                f"to accept every {code} of this user",
            )
        )
    notes = ["it is for every broker and virtual host that this policy is used for"]
    if place:
        notes.append("whether it accepts all of the grant, the next `scan` says: only shown names are known here")
    else:
        notes.append(f"it accepts every {code} of this user, of other grants too")
    return Proposal(keys | dict(place), tuple(notes))


def _for_host(document: Mapping[str, Any], wide: bool) -> Proposal:
    keys = {"finding": document["code"], "host": _literal(document["host"], document, wide)}
    notes: list[str] = []
    found = sorted(_processes(document), key=str)
    names, users = {name for name, _ in found}, {user for _, user in found}
    if (len(found) > 1 or document["more_behind"] or None in names) and not wide:
        what = "no program is known" if names == {None} else f"{len(found)} programs and users are"
        raise ConfigurationError(
            Problem(
                f"{what} behind it, and an exception names one", hint="say --wide to accept it for whatever they share"
            )
        )
    for key, values in (("process", names), ("user", users)):
        value = next(iter(values)) if len(values) == 1 and not document["more_behind"] else None
        if value:
            keys[key] = _literal(value, document, wide)
        else:
            notes.append(f"it is for any {'program' if key == 'process' else 'user'} on this host")
    notes.append("it is for whatever the program talks to, with any arguments")
    return Proposal(keys, tuple(notes))


def _literal(name: str, document: Mapping[str, Any], wide: bool) -> str:
    """Return a name as the pattern for it; patterns cannot quote their wildcards."""
    if _NO_UTF8.search(name):
        raise _never(document, f"the name {visible(name)} is no UTF-8, and a policy cannot name it")
    if ("*" in name or "?" in name) and not wide:
        raise ConfigurationError(
            Problem(
                f"in an exception the name {quoted(name, _LONGEST)} would be a pattern, for others too",
                hint="say --wide to accept it for all of them",
            )
        )
    return name


def _place(document: Mapping[str, Any], witness: str) -> dict[str, str]:
    resources = _resources(document, witness)
    if len(resources) > 1:
        raise ConfigurationError(
            Problem(
                f"what the name {quoted(witness, _LONGEST)} is of is not known",
                hint="name it with --topic, --exchange and --key, or --queue; or say --wide to accept it for any name",
            )
        )
    (resource,) = resources
    name, kind = resource.name, resource.kind
    if kind is ResourceKind.TOPIC:
        return {"topic": re.sub(r"^\$share/[^/]*/", "", name)}
    if kind is not ResourceKind.BINDING and re.search(r"[*#]", name):
        raise ConfigurationError(
            Problem(
                f"in an exception {quoted(witness, _LONGEST)} would be a pattern, for others too",
                hint="say --wide to accept it for any name",
            )
        )
    if kind is ResourceKind.QUEUE:
        return {"queue": name}
    if kind is ResourceKind.EXCHANGE:
        raise ConfigurationError(
            Problem("an exception cannot name an exchange as such", hint="say --wide to accept it for any name")
        )
    return {"exchange": resource.within, "key": name}


def _never(document: Mapping[str, Any], why: str) -> ConfigurationError:
    return ConfigurationError(
        Problem(
            f"no exception accepts this finding, {document['code']} {document['name']}: {why}",
            hint=f"`topicwarden explain {document['code']}` says what helps",
        )
    )


# Reading documents ----------------------------------------------------------------------------------------------------


def _client(document: Mapping[str, Any]) -> Client:
    """Return the client as exceptions see it."""
    row = document["client"]
    if row is not None:
        user, vhost = (None if row[key] is None else as_it_was(row[key]) for key in ("user", "vhost"))
        return Client(document["broker"], row["protocol"], as_it_was(row["client_id"]), user, vhost=vhost)
    scope = document["scope"]
    if document["code"] == LOGINS and len(scope) == 2 and scope[1].startswith("="):
        return Client(document["broker"], "", "", as_it_was(scope[1][1:]))
    return Client(document["broker"], "", "")


def _processes(document: Mapping[str, Any]) -> set[tuple[str | None, str | None]]:
    """Return file name and user of each process behind a finding; where none is known, one of which nothing is."""
    found = set()
    for behind in document["behind"]:
        program = behind["executable"] or next(iter(behind["arguments"]), None)
        name = None if program is None else program_name(as_it_was(str(program)))
        found.add((name, None if behind["user"] is None else as_it_was(behind["user"])))
    return found or {(None, None)}


def _witnesses(document: Mapping[str, Any]) -> Sequence[str]:
    return [as_it_was(witness["name"]) for witness in document["witnesses"]]


def _nameless(document: Mapping[str, Any]) -> bool:
    """Whether some occurrences have no name, such as connecting."""
    named = sum(witness["count"] for witness in document["witnesses"]) + document["more_witnesses"]
    return not document["witnesses"] or named < document["count"]


def _resources(document: Mapping[str, Any], witness: str) -> list[Resource]:
    """Return what a witness may be: where it is told in words, a topic may be named like them."""
    client = document["client"]
    mqtt = client is None or client["protocol"].startswith("mqtt")
    found = [*_named(witness)]
    return [*found, Resource(ResourceKind.TOPIC, witness)] if mqtt or not found else found


def _named(label: str) -> Iterator[Resource]:
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


def _shown_names_within(rule: ExceptionRule, document: Mapping[str, Any]) -> bool:
    """Whether the names that show what a grant admits too much are in the exception's place."""
    place = rule.place
    assert place is not None
    for witness in _witnesses(document):
        doing = next((words for words in DOING.values() if witness.startswith(f"{words} ")), "")
        words = witness[len(doing) + 1 :] if doing else witness
        if not any(covers(place, resource) for resource in [*_named(words), Resource(ResourceKind.TOPIC, words)]):
            return False
    return True
