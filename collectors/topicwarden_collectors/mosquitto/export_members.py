"""Whom a policy's roles mean at a broker that knows a client by its user name and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from topicwarden.events import Client
from topicwarden.grants import Unsaid
from topicwarden.policy import Glob, MemberSelector, Policy

WILDCARDS = frozenset("*?")


@dataclass(slots=True)
class Members:
    """Whom a role means."""

    users: dict[str | None, None] = field(default_factory=dict)
    """User names written out, of every client of which it is true that it is a member; None: clients without one."""
    everybody: bool = False
    """Whether every client there can be is a member."""


@dataclass(slots=True)
class Membership:
    """The members of all roles, and what could not be said of them."""

    roles: dict[str, Members] = field(default_factory=dict)
    unsaid: list[Unsaid] = field(default_factory=list)
    denied_more: list[Unsaid] = field(default_factory=list)


def membership(policy: Policy, accounts: Sequence[Client]) -> Membership:
    """Work out the roles of these accounts and of users that the policy names outright."""
    # An empty user name is none (Mosquitto 2.0.11).
    known: dict[str | None, set[str]] = {}
    for account in accounts:
        known.setdefault(account.user or None, set()).add(account.broker)
    everywhere = {account.broker for account in accounts}
    for user in _outright(policy, everywhere):
        known.setdefault(user, everywhere)
    found = Membership()
    for name, role in policy.roles.items():
        members = found.roles[name] = Members()
        every_user, nobody_named = False, False
        notes: list[tuple[bool, Unsaid]] = []
        for number, member in enumerate(role.members):
            where = f"roles.{name}.members[{number}]"
            why = _narrower(member)
            if why is not None:
                notes.append(
                    (True, Unsaid(f"a grant cannot depend on {why}: members that this selects get nothing", where))
                )
                continue
            if member.vhost is not None:
                notes.append(
                    (False, Unsaid("no client of Mosquitto has a virtual host, so this selects nobody", where))
                )
                continue
            anywhere, note = _anywhere(member, everywhere, where)
            if note is not None:
                notes.append((True, note))
            for user in _meant(member, known):
                if anywhere or _at_all(member, known.get(user, set())):
                    members.users[user] = None
            if anywhere and member.user is None:
                every_user |= not member.anonymous
                nobody_named = True
            elif anywhere and member.user is not None and set(member.user.text) == {"*"}:
                every_user = True
            if member.user is not None and not WILDCARDS.isdisjoint(member.user.text):
                notes.append(_of_glob(member.user, known, where))
        members.everybody = every_user and nobody_named
        if not members.everybody:
            found.unsaid += [note for denied, note in notes if not denied]
            found.denied_more += [note for denied, note in notes if denied]
    return found


def _outright(policy: Policy, brokers: set[str]) -> Iterator[str | None]:
    """Yield the users that the policy names without wildcards, and without asking for more."""
    for role in policy.roles.values():
        for member in role.members:
            named = member.anonymous or (member.user is not None and WILDCARDS.isdisjoint(member.user.text))
            if named and _narrower(member) is None and member.vhost is None and _anywhere(member, brokers, "")[0]:
                yield None if member.user is None else member.user.text


def _narrower(member: MemberSelector) -> str | None:
    """Return on what a selector depends that Mosquitto's grants cannot."""
    if member.client is not None and set(member.client.text) != {"*"}:
        return f"the client id ({str(member.client)!r})"
    if member.address is not None:
        return f"the address ({member.address})"
    if member.tls_subject is not None:
        return f"the certificate's subject ({str(member.tls_subject)!r})"
    return None


def _anywhere(member: MemberSelector, brokers: set[str], where: str) -> tuple[bool, Unsaid | None]:
    """Say whether a selector is about the broker that is written for, whoever the client is."""
    if member.broker is None:
        return True, None
    matching = {broker for broker in brokers if member.broker.matches(broker)}
    if not brokers:
        return False, Unsaid(
            f"which broker this is written for is not known, and members are those of {str(member.broker)!r} only",
            where,
        )
    if matching and matching != brokers:
        return False, Unsaid(f"only some of the accounts' brokers are {str(member.broker)!r}", where)
    return matching == brokers, None


def _at_all(member: MemberSelector, brokers: set[str]) -> bool:
    return member.broker is None or (bool(brokers) and all(member.broker.matches(broker) for broker in brokers))


def _meant(member: MemberSelector, known: Mapping[str | None, set[str]]) -> Iterator[str | None]:
    """Yield the user names that a selector means, as far as they are known."""
    if member.anonymous:
        yield None
    elif member.user is None:
        yield from known
    elif WILDCARDS.isdisjoint(member.user.text):
        yield member.user.text
    else:
        yield from (user for user in known if user is not None and member.user.matches(user))


def _of_glob(glob: Glob, known: Mapping[str | None, set[str]], where: str) -> tuple[bool, Unsaid]:
    matching = sum(user is not None and glob.matches(user) for user in known)
    if not matching:
        return False, Unsaid(f"no account known is a {str(glob)!r}", where)
    given = "one account" if matching == 1 else f"{matching} accounts"
    return True, Unsaid(
        f"{str(glob)!r} is written out for the {given} known; whoever else it matches gets nothing", where
    )
