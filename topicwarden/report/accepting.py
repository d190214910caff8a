"""Which exception accepts a stored finding: no wider than it, or as wide as somebody asked for, and said so.

A finding is known here by its document. Whether an exception covers it is decided by the policy's own model, by the
same calls that `watch` and `scan` make.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import DOING, NO_RESOURCE, Resource, ResourceKind
from topicwarden.findings import Catalogue
from topicwarden.output.escape import quoted, visible
from topicwarden.policy import ExceptionRule
from topicwarden.policy.exceptions import CHANGES, LONGEST_GRANT
from topicwarden.policy.places import covers
from topicwarden.report.accepting_documents import (
    LOGINS,
    changed_in,
    client_of,
    grant_of,
    named_resources,
    nameless,
    processes_of,
    resources_of,
    several,
    witnesses_of,
)
from topicwarden.report.findings import as_it_was

PLACE_KEYS: Final = ("topic", "exchange", "key", "queue")
BY_NAME: Final = frozenset({"TW101", "TW104"})
"""What `scan` finds, and an exception may accept for some names only."""
BY_USER: Final = BY_NAME | {"TW103", "TW109"}
"""What `scan` finds, and an exception for a user accepts whatever the grant."""
LACKING: Final = "TW103"
"""What `scan` finds of a user, and is about no grant."""
NAMES_UNFIT: Final = frozenset({"TW206"})
"""Told of names that may be cut or malformed: no filter covers those."""
_OF_GRANTS: Final = "TW1"
_OBSERVED: Final = ("TW2", "TW3", "TW42")
_LONGEST: Final = 200
_NO_UTF8: Final = re.compile("[\ud800-\udfff]")
_ANONYMOUS: Final = "clients without a user name"
"""Holder of a grant that nobody but they has."""
_NOBODY: Final = "(anonymous)"


class Subject(Enum):
    """How exceptions are asked about a finding."""

    CLIENT = 1
    """By events of a client: code, client and name."""
    ACCOUNT = 2
    """By what a user lacks."""
    HOST = 3
    """By host, process and user."""
    GRANT = 4
    """By the grant, and whom it is for."""
    CHANGE = 5
    """By the user whose grants were changed, and what was changed."""


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
        if document["host"] is None:
            raise _never(document, "it does not say which host it is about")
        return Subject.HOST
    if code.startswith(_OF_GRANTS) and known is not None:
        if "where_file" in document["evidence"]:
            return Subject.ACCOUNT if code == LACKING else Subject.GRANT
        if code.lower() in CHANGES:
            return Subject.CHANGE
        raise _never(document, "it does not say which grant it is about")
    if code.startswith(_OBSERVED) and known is not None:
        return Subject.CLIENT
    if known is None:
        raise _never(document, "this version does not know its code")
    if code == "TW901" and document["client"] is not None:
        return Subject.CLIENT
    raise _never(document, "it is about the observing itself")


def propose(
    document: Mapping[str, Any], catalogue: Catalogue, place: Mapping[str, str], *, wide: bool = False
) -> Proposal:
    """Return the exception for a finding.

    `place`: keys of `PLACE_KEYS` that somebody chose; `wide`: it may cover more than this finding. Raises
    ConfigurationError where no exception can accept it, or only a wider one and `wide` was not said.
    """
    subject, code = subject_of(document, catalogue), document["code"]
    if place and (subject in (Subject.HOST, Subject.CHANGE) or (code.startswith(_OF_GRANTS) and code not in BY_NAME)):
        raise ConfigurationError(Problem(f"an exception for {code} is about no name", hint=f"leave out --{min(place)}"))
    match subject:
        case Subject.HOST:
            return _for_host(document, wide)
        case Subject.GRANT if not place:
            return _for_grant(document, wide)
        case Subject.GRANT | Subject.ACCOUNT:
            return _for_account(document, place, wide)
        case Subject.CHANGE:
            return _for_change(document, wide)
        case _:
            return _for_client(document, place, wide)


def covers_finding(rule: ExceptionRule, document: Mapping[str, Any], catalogue: Catalogue) -> bool:
    """Whether an exception, while it holds, accepts all that is known of a finding."""
    code, name = document["code"], document["name"]
    match subject_of(document, catalogue):
        case Subject.HOST:
            return all(rule.covers_host(code, name, document["host"], *process) for process in processes_of(document))
        case Subject.GRANT if rule.grant is not None:
            grant = grant_of(document)
            return rule.names(code, name) and rule.is_of_grant(*grant) and _for_all(rule, document)
        case Subject.GRANT | Subject.ACCOUNT:
            account = client_of(document)
            if code not in BY_USER or not rule.of_names or not rule.names(code, name):
                return False
            if not rule.is_for_account(account):
                return False
            return rule.place is None or (code in BY_NAME and _shown_names_within(rule, document))
        case Subject.CHANGE:
            return rule.covers_change(code, name, client_of(document), changed_in(document))
        case _:
            found = [resources_of(document, witness) for witness in witnesses_of(document)]
            if nameless(document):
                found.append([NO_RESOURCE])
            client = client_of(document)
            # Of a name that may be one thing or another, either way has to be covered.
            return all(rule.covers(code, name, client, resource) for resources in found for resource in resources)


# Proposals ------------------------------------------------------------------------------------------------------------


def _for_client(document: Mapping[str, Any], place: Mapping[str, str], wide: bool) -> Proposal:
    client = client_of(document)
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
    witnesses = witnesses_of(document)
    if nameless(document) or document["code"] in NAMES_UNFIT:
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
    user = client_of(document).user
    if not user:
        raise _never(document, "it is of clients without a user name")
    code = document["code"]
    keys = {"finding": code, "user": _literal(user, document, wide)}
    notes = ["it is for every broker and virtual host that this policy is used for"]
    why = several(document)
    if why is not None:
        notes.append(f"the finding is about {why}: what is not for this one user name stays open")
    if place:
        notes.append("whether it accepts all of the grant, the next `scan` says: only shown names are known here")
    else:
        notes.append(f"it accepts every {code} of this user")
    return Proposal(keys | dict(place), tuple(notes))


def _for_grant(document: Mapping[str, Any], wide: bool) -> Proposal:
    """Return the exception for a grant: what tells it from others, and whom the finding is about."""
    broker, words, holder, file = grant_of(document)
    for text in (words, holder):
        if _NO_UTF8.search(text):
            raise _never(document, f"{visible(quoted(text, _LONGEST))} is no UTF-8, and a policy cannot name it")
    if len(words) > LONGEST_GRANT:
        raise _never(document, f"the grant has {len(words)} characters, and an exception can name {LONGEST_GRANT}")
    keys = {"finding": document["code"], "grant": words}
    if holder:
        keys["holder"] = holder
    notes = []
    if document["client"] is not None:
        user = client_of(document).user
        why = several(document)
        if wide or (user is None and holder == _ANONYMOUS and not why):
            notes.append(f"it accepts the grant for everybody who has it by {visible(holder or 'that configuration')}")
        elif why is not None or not user:
            raise ConfigurationError(
                Problem(
                    f"it is about {why or 'clients without a user name'}, and an exception names one user",
                    hint="say --wide to accept the grant for everybody who has it; or write the exception by hand, "
                    "with user: PATTERN",
                )
            )
        else:
            keys["user"] = _literal(user, document, wide=False)
    keys |= _exactly({"broker": broker}, document, wide, notes)
    if "where_line" in document["evidence"]:
        # Where grants stand on lines, the same one may stand in another file too; elsewhere a name has it once.
        keys |= _exactly({"file": file}, document, wide, notes)
    notes.append(f"it accepts every {document['code']} of this grant, whatever the reason and the names")
    if document["count"] > 1:
        notes.append(f"it was told of {document['count']} places: the same words in another file stay open")
    return Proposal(keys, tuple(notes))


def _for_change(document: Mapping[str, Any], wide: bool) -> Proposal:
    """Return the exception for changes of one kind of a user's grants."""
    client = client_of(document)
    keys = {"finding": document["code"]}
    if client.user:
        keys["user"] = _literal(client.user, document, wide)
    elif client.vhost is None:
        raise _never(document, "it names neither a user nor a virtual host")
    notes = ["it accepts every further change of this kind, whoever makes it and whatever it gives or takes"]
    keys |= _exactly({"broker": client.broker, "vhost": client.vhost}, document, wide, notes)
    keys["change"] = _literal(changed_in(document), document, wide)
    return Proposal(keys, tuple(notes))


def _for_host(document: Mapping[str, Any], wide: bool) -> Proposal:
    keys = {"finding": document["code"], "host": _literal(document["host"], document, wide)}
    notes: list[str] = []
    found = sorted(processes_of(document), key=str)
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


def _exactly(
    wanted: Mapping[str, str | None], document: Mapping[str, Any], wide: bool, notes: list[str]
) -> dict[str, str]:
    """Return the keys that are known; with `wide`, without those whose names would be patterns."""
    keys = {}
    for key, name in wanted.items():
        if not name:
            continue
        if wide and ("*" in name or "?" in name or _NO_UTF8.search(name)):
            notes.append(f"it is for any {'virtual host' if key == 'vhost' else key}")
        else:
            keys[key] = _literal(name, document, wide=False)
    return keys


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
    resources = resources_of(document, witness)
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


def _for_all(rule: ExceptionRule, document: Mapping[str, Any]) -> bool:
    """Whether an exception is for all that are known of those whom a finding is about."""
    if document["client"] is None:
        return rule.user is None and rule.vhost is None
    client = client_of(document)
    names = as_it_was(str(document["evidence"].get("alike_names", "")))
    alike = [replace(client, user=name) for name in names.split(", ") if name and name != _NOBODY]
    return all(map(rule.is_for_account, [client, *alike]))


def _shown_names_within(rule: ExceptionRule, document: Mapping[str, Any]) -> bool:
    """Whether the names that show what a grant admits too much are in the exception's place."""
    place = rule.place
    assert place is not None
    for witness in witnesses_of(document):
        doing = next((words for words in DOING.values() if witness.startswith(f"{words} ")), "")
        words = witness[len(doing) + 1 :] if doing else witness
        if not any(
            covers(place, resource) for resource in [*named_resources(words), Resource(ResourceKind.TOPIC, words)]
        ):
            return False
    return True
