"""What is wrong with an acl_file's entries whatever was meant: no effect, or trust in what a client says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from topicwarden.events import Client
from topicwarden.grants import Fault, Origin
from topicwarden_collectors.mosquitto.acl_file import AclEntry, AclFile
from topicwarden_collectors.mosquitto.grants_logins import Logins, sendable
from topicwarden_collectors.mosquitto.grants_rules import filter_of, origin_of

INEFFECTIVE = "TW105"
CLIENT_CHOSEN = "TW115"


def faults_of(acl: AclFile, logins: Logins, accounts: Sequence[Client]) -> list[Fault]:
    """Return the faults of an acl_file's entries, in the file's order, then those of its doubtful lines."""
    found: list[Fault] = []
    told: set[str] = set()
    for entry in acl.entries:
        origin = origin_of(entry, acl.path)
        for code, reason in _reasons(entry, logins, told):
            found.append(Fault(code, origin, evidence={"reason": reason}))
    found += _untouched(acl, logins, accounts)
    by_line = {entry.line: entry for entry in acl.entries}
    named = {line: user for user, lines in acl.users.items() for line in lines}
    for doubt in acl.doubts:
        line = doubt.line or 0
        entry_there = by_line.get(line)
        if entry_there is not None:
            origin = origin_of(entry_there, acl.path)
        else:
            origin = Origin(acl.path, doubt.line, f"user {named.get(line)}", f"user {named.get(line)!r}")
        found.append(Fault(INEFFECTIVE, origin, evidence={"reason": doubt.message}))
    return found


def _reasons(entry: AclEntry, logins: Logins, told: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one entry. `told`: the users of whom it was said that nothing verifies them."""
    if not (entry.pattern and entry.has_variable) and filter_of(entry.topic) is None:
        yield INEFFECTIVE, "it holds characters that the broker takes in no topic"
        return
    if not entry.pattern:
        yield from _of_user(entry, logins, told)
        return
    if entry.deny:
        return
    if "%u" in entry.topic and logins.unverified:
        yield CLIENT_CHOSEN, "nothing verifies user names here, so %u is whatever a client says"
    if "%c" in entry.topic and not logins.ids_are_names:
        yield (
            CLIENT_CHOSEN,
            "%c is whatever id a client chooses, another's too, and one with / in it reaches over several levels"
            + ("" if logins.known else ", unless use_username_as_clientid is set"),
        )


def _of_user(entry: AclEntry, logins: Logins, told: set[str]) -> Iterator[tuple[str, str]]:
    user = entry.user
    if user is None:
        if not logins.anonymous:
            yield INEFFECTIVE, "it is for clients without a user name, and the broker refuses them"
            return
    elif not sendable(user):
        yield INEFFECTIVE, f"user name {user!r} holds characters that the broker takes in no user name"
        return
    elif not logins.admit(user):
        why = (
            "has no hash in the password_file that the broker can read" if user in logins.unusable else "has no account"
        )
        yield INEFFECTIVE, f"user {user!r} {why}, so nobody can log in under that name"
        return
    if entry.has_variable:
        yield INEFFECTIVE, "%u and %c are replaced in pattern lines only, here they are those letters"
    if user is not None and logins.unverified and not entry.deny and user not in told:
        told.add(user)
        yield CLIENT_CHOSEN, f"nothing verifies user names here, so anybody can say that he is {user!r}"


def _untouched(acl: AclFile, logins: Logins, accounts: Sequence[Client]) -> Iterator[Fault]:
    """Yield, for each user for whom no pattern is looked at because of his name, the first pattern."""
    first = next((entry for entry in acl.entries if entry.pattern), None)
    if first is None:
        return
    for account in accounts:
        user = account.user
        if user is not None and ("+" in user or "#" in user) and logins.admit(user):
            reason = f"patterns are not looked at for user {user!r}: the name holds + or #"
            yield Fault(INEFFECTIVE, origin_of(first, acl.path), account, evidence={"reason": reason})
