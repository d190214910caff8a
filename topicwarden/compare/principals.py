"""Whom a scan asks about: the accounts of a broker, and those its configuration leaves open, each class of them once.

Rights depend on names only through the rules and roles that mention them. Two accounts of the same roles, under the
same exceptions and with the same rules once their own names are replaced by a symbol, may do the same, each with its
own name: one of them is judged for all. So a scan of a thousand devices under one pattern asks one question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Final

from topicwarden.events import Action, Client
from topicwarden.grants import Grants, Rights
from topicwarden.patterns import KeyPattern, LevelPattern, Names, Regex
from topicwarden.policy import Glob, MemberSelector, Policy

_SELF: Final = "\0self"
"""Stands for a client's own name where classes are told apart; no level of a valid name holds NUL."""
Signature = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Principal:
    """Clients that may do and should do the same, by one of them."""

    client: Client
    """The one judged; its client id is made up."""
    rights: Rights
    roles: tuple[str, ...]
    """The roles in the policy that some client of this user could have."""
    exceptions: tuple[int, ...]
    """The policy's exceptions that are about it, by number."""
    alike: tuple[Client, ...] = ()
    """The others of the class."""
    real_id: bool = False
    """Whether the broker binds the user to the client id, which then is one that a client really has."""
    named: bool = True
    """Whether the broker's configuration names it; otherwise it stands for clients that nothing names."""


def principals(grants: Grants, policy: Policy | None) -> Iterator[Principal]:
    """Yield the classes of a broker's clients, in the order of its accounts; those that cannot connect left out."""
    spelled = _spelled(grants, policy)
    taken = spelled | {account.user for account in grants.accounts if account.user is not None}
    client_id = _fresh("client", taken)
    found: dict[Signature, Principal] = {}
    alike: dict[Signature, list[Client]] = {}
    for account, named in _accounts(grants, policy, taken):
        client = replace(account, client_id=account.client_id or _client_id(policy, account, client_id))
        rights = grants.rights(client)
        if rights is None:
            continue
        roles = roles_of(policy, client)
        exceptions = _exceptions_of(policy, account)
        key = _signature(rights, roles, exceptions, client, spelled)
        if key not in found:
            found[key] = Principal(client, rights, roles, exceptions, real_id=bool(account.client_id), named=named)
            alike[key] = []
        else:
            alike[key].append(account)
    for key, principal in found.items():
        yield replace(principal, alike=tuple(alike[key]))


def roles_of(policy: Policy | None, client: Client) -> tuple[str, ...]:
    """Return the roles that some client of this user could have: where a role asks for more, the kindest answer."""
    if policy is None:
        return ()
    return tuple(
        name
        for name, role in policy.roles.items()
        if any(member.may_match(client.user, client.vhost, client.broker) for member in role.members)
    )


def _exceptions_of(policy: Policy | None, client: Client) -> tuple[int, ...]:
    if policy is None:
        return ()
    return tuple(
        number for number, rule in enumerate(policy.exceptions) if rule.change is None and rule.is_for_account(client)
    )


def _accounts(grants: Grants, policy: Policy | None, taken: frozenset[str]) -> Iterator[tuple[Client, bool]]:
    """Yield the accounts, then one client for each pattern of the policy and one for nobody in particular."""
    seen = set()
    for account in grants.accounts:
        seen.add((account.user, account.vhost))
        yield account, True
    if grants.closed:
        return
    template = Client(grants.broker, grants.accounts[0].protocol if grants.accounts else "mqtt", "")
    for member in _members(policy):
        if member.user is None or member.anonymous:
            continue
        user = example(member.user, taken)
        if (user, None) not in seen:
            seen.add((user, None))
            yield replace(template, user=user), False
    yield replace(template, user=_fresh("user", taken)), False


def _members(policy: Policy | None) -> Iterator[MemberSelector]:
    if policy is not None:
        for role in policy.roles.values():
            yield from role.members


def _client_id(policy: Policy | None, account: Client, otherwise: str) -> str:
    """Return a client id that gives this account the roles it can have, where they ask for one."""
    for member in _members(policy):
        if member.client is not None and member.may_match(account.user, account.vhost, account.broker):
            return example(member.client, frozenset())
    return otherwise


def example(glob: Glob, taken: Iterable[str]) -> str:
    """Return a name that a glob matches and, where it has wildcards, that is not taken."""
    avoid = set(taken)
    for filler in chain(("x",), (f"x{number}" for number in count(1))):
        name = glob.text.replace("*", filler).replace("?", filler[0])
        if name not in avoid or not {"*", "?"} & set(glob.text):
            return name
    raise AssertionError  # the fillers do not end


def _fresh(name: str, taken: Iterable[str]) -> str:
    avoid = set(taken)
    candidates = chain((f"any-{name}",), (f"any-{name}-{number}" for number in count(1)))
    return next(word for word in candidates if word not in avoid)


def _spelled(grants: Grants, policy: Policy | None) -> frozenset[str]:
    """Return the levels of the policy's patterns, as written and as the broker carries them."""
    names: set[str] = set()
    for role in () if policy is None else policy.roles.values():
        for action in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE):
            for place in role.places(action):
                names.update(place.levels)
                names.update(grants.carried(place).levels)
    return frozenset(names)


def _signature(
    rights: Rights, roles: tuple[str, ...], exceptions: tuple[int, ...], client: Client, spelled: frozenset[str]
) -> Signature:
    """Return what tells classes apart."""
    user = client.user
    # A name the policy spells out means more than "my own".
    own = user if user in spelled else None
    rules = tuple(
        (int(action), space.family, space.within, rule.allow, _anonymised(rule.names, user), rule.origin)
        for (action, space), listed in rights.by.items()
        for rule in listed.rules
    )
    return (user is None, client.vhost, roles, exceptions, own, client.client_id, rules)


def _anonymised(names: Names, user: str | None) -> object:
    """Return a set of names with a user's own name replaced by a symbol."""
    match names:
        case LevelPattern(levels=levels):
            return tuple(_SELF if level == user else level for level in levels)
        case KeyPattern(words=words):
            return tuple(_SELF if word == user else word for word in words)
        case Regex(text=text):
            return text
        case _:
            return names
