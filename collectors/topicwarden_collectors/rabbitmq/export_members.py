"""Whom a policy's roles mean at a RabbitMQ node, which knows a user and a virtual host and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from topicwarden.events import Client
from topicwarden.grants import Unsaid
from topicwarden.policy import Glob, MemberSelector, Policy

WILDCARDS: Final = frozenset("*?")
DEFAULT_VHOST: Final = "/"
_SHOWN: Final = 5

Account = tuple[str, str]
"""User and virtual host."""


@dataclass(slots=True)
class Members:
    """The roles of each account, and what could not be said of them."""

    roles: dict[Account, list[str]] = field(default_factory=dict)
    """In the policy's order; accounts without any are left out."""
    without: list[Account] = field(default_factory=list)
    """Accounts given that no role is for."""
    stomp: set[Account] = field(default_factory=set)
    """Accounts that speak STOMP, as far as the accounts given say so."""
    unsaid: list[Unsaid] = field(default_factory=list)
    denied_more: list[Unsaid] = field(default_factory=list)


def members_of(policy: Policy, accounts: Sequence[Client]) -> Members:
    """Work out the roles of these accounts and of users that the policy names outright.

    An account without a virtual host stands for all that are known: those of the other accounts and those that the
    policy names, or the default one.
    """
    found = Members()
    vhosts = _vhosts(policy, accounts)
    brokers = {account.broker for account in accounts if account.broker}
    known = dict.fromkeys(_accounts(accounts, vhosts, found))
    for name, role in policy.roles.items():
        for number, member in enumerate(role.members):
            where = f"roles.{name}.members[{number}]"
            why = _cannot(member, brokers)
            if why is not None:
                found.denied_more.append(Unsaid(why, where))
                continue
            meant = dict.fromkeys(_meant(member, known, vhosts))
            for account in meant:
                roles = found.roles.setdefault(account, [])
                if name not in roles:
                    roles.append(name)
            found.denied_more += _unlisted(member, meant, where)
    if any(member.vhost is None or _wild(member.vhost) for role in policy.roles.values() for member in role.members):
        known_ones = _listed(sorted({vhost for _, vhost in found.roles}))
        if known_ones:
            found.denied_more.append(Unsaid(f"permissions are written for the virtual hosts known: {known_ones}"))
    found.without = [account for account in known if account not in found.roles]
    return found


def _vhosts(policy: Policy, accounts: Sequence[Client]) -> list[str]:
    """Return the virtual hosts there are known to be."""
    vhosts = [account.vhost for account in accounts if account.vhost is not None]
    for role in policy.roles.values():
        vhosts += [member.vhost.text for member in role.members if member.vhost is not None and not _wild(member.vhost)]
    return sorted(set(vhosts)) or [DEFAULT_VHOST]


def _accounts(accounts: Sequence[Client], vhosts: Sequence[str], found: Members) -> Iterator[Account]:
    for account in accounts:
        if account.user is None:
            continue
        problem = _name_problem(account.user) or _name_problem(account.vhost or "")
        if problem is not None:
            found.denied_more.append(Unsaid(f"the account {account.user!r} is left out: {problem}"))
            continue
        for vhost in vhosts if account.vhost is None else [account.vhost]:
            if account.protocol == "stomp":
                found.stomp.add((account.user, vhost))
            yield account.user, vhost


def _name_problem(name: str) -> str | None:
    """Say why a name can be neither in JSON nor on a command line; who observed it made it up."""
    if "\0" in name:
        return "no command can carry a name with a zero byte"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    return None


def _wild(glob: Glob) -> bool:
    return not WILDCARDS.isdisjoint(glob.text)


def _everything(glob: Glob | None) -> bool:
    return glob is None or set(glob.text) == {"*"}


def _cannot(member: MemberSelector, brokers: set[str]) -> str | None:
    """Say why those whom a selector means get nothing by it; None when that is not so."""
    if member.anonymous:
        return "RabbitMQ knows no clients without a user: members that this selects get nothing"
    for what, limited in (
        (f"the client id ({str(member.client)!r})", not _everything(member.client)),
        (f"the address ({member.address})", member.address is not None),
        (f"the certificate's subject ({str(member.tls_subject)!r})", member.tls_subject is not None),
    ):
        if limited:
            return f"a permission cannot depend on {what}: members that this selects get nothing"
    if member.broker is not None and not _everything(member.broker):
        if not brokers:
            return f"which broker this is written for is not known, and members are those of {str(member.broker)!r}"
        if not all(member.broker.matches(broker) for broker in brokers):
            return f"not all of the accounts given are of a broker called {str(member.broker)!r}"
    return None


def _meant(member: MemberSelector, known: Collection[Account], vhosts: Sequence[str]) -> Iterator[Account]:
    """Yield the accounts that a selector means: of those given, or, where it names a user who is not, everywhere."""
    named = None if member.user is None or _wild(member.user) else member.user.text
    candidates = known
    if named is not None and all(user != named for user, _ in known):
        candidates = [(named, vhost) for vhost in vhosts]
    for user, vhost in candidates:
        if (member.user is None or member.user.matches(user)) and (member.vhost is None or member.vhost.matches(vhost)):
            yield user, vhost


def _unlisted(member: MemberSelector, meant: Collection[Account], where: str) -> Iterator[Unsaid]:
    """Yield that whoever is not known and would be a member gets nothing."""
    if member.user is None or _wild(member.user):
        users = len({user for user, _ in meant})
        given = f"written out for the {users} of the accounts given" if users else "no account given is one"
        whom = "every user" if member.user is None else repr(str(member.user))
        yield Unsaid(f"RabbitMQ has no patterns for users: for {whom}, {given}; others get nothing", where)
    elif not meant:
        yield Unsaid(f"{member.user.text!r} is known in no virtual host that this selects, and gets nothing", where)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
