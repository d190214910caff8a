"""What is wrong with a dynamic-security.json whatever was meant by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from topicwarden.events import Action, Client
from topicwarden.grants import Fault, Origin, Rule
from topicwarden_collectors.mosquitto.dynsec_matching import (
    SubscribePattern,
    is_filter,
    names_of_acl,
    names_of_subscription,
)
from topicwarden_collectors.mosquitto.dynsec_model import Account, Acl, AclType, Dynsec, Role, acls_of
from topicwarden_collectors.mosquitto.dynsec_rules import Worked, names_sent
from topicwarden_collectors.mosquitto.grants_rules import TOPICS

INEFFECTIVE: Final = "TW105"
DANGEROUS: Final = "TW112"
UNDECIDED: Final = "TW114"
COMMANDS: Final = "$CONTROL/dynamic-security/v1"
"""Where the plugin takes its commands."""
ADMINISTRATORS: Final = "admin"
"""The role that `mosquitto_ctrl dynsec init` gives its administrator."""
MAX_IGNORED: Final = 1000
_NAMED: Final = 5
_UNSUBSCRIBE: Final = (AclType.UNSUBSCRIBE_LITERAL, AclType.UNSUBSCRIBE_PATTERN)


def faults_of(
    dynsec: Dynsec, users: Mapping[Client, Worked], held: frozenset[int], kept_out: Mapping[str, str]
) -> list[Fault]:
    """Return all faults: what the plugin passes over, then what its ACLs do, then what they give away.

    `users`: everybody who can log in; `held`: the ids of the roles these have; `kept_out`: why others cannot.
    """
    found = [_ineffective(one.origin, one.reason) for one in dynsec.ignored[:MAX_IGNORED]]
    for account in dynsec.accounts.values():
        why = kept_out.get(account.name)
        # Whoever disables a client knows what that does.
        if why is not None and not account.disabled:
            found.append(_ineffective(account.origin, why))
    found += _of_roles(dynsec, held)
    found += _evaded(users)
    found += _overruled(dynsec, users)
    found += _powerful(users)
    return found


def _of_roles(dynsec: Dynsec, held: frozenset[int]) -> Iterator[Fault]:
    for role in dynsec.every_role:
        if any(role.acls.values()) and id(role) not in held:
            if dynsec.roles.get(role.name) is role:
                yield _ineffective(role.origin, "no client that can log in has this role")
            continue
        for acls in role.acls.values():
            for acl in acls:
                why = _pointless(acl)
                if why is not None:
                    yield _ineffective(acl.origin, why)
                elif acl.kind is AclType.SUBSCRIBE_PATTERN and acl.topic == "/#" and acl.allow:
                    reason = "it lets a client subscribe to # as well, which Mosquitto 2.0.11 takes for the same"
                    yield Fault(DANGEROUS, acl.origin, evidence={"reason": reason})


def _pointless(acl: Acl) -> str | None:
    """Say why an ACL decides nothing, whoever has it."""
    if acl.kind is AclType.SEND:
        names = names_sent(acl)
        if names is None and names_of_acl(acl.topic) is not None:
            return "the broker itself lets nobody publish there" if acl.allow else "nobody can publish there anyway"
    elif acl.kind is AclType.RECEIVE:
        names = names_of_acl(acl.topic)
    else:
        if not is_filter(acl.topic):
            return f"{acl.topic[:200]!r} is no filter that a client can ask for"
        literal = acl.kind in (AclType.SUBSCRIBE_LITERAL, AclType.UNSUBSCRIBE_LITERAL)
        names = names_of_subscription(acl.topic)
        if names is None and (literal or not SubscribePattern.of(acl.topic).open_end):
            return "a subscription to it brings nothing"
        return _letters(acl)
    if names is None:
        return f"{acl.topic[:200]!r} matches no topic that there can be"
    return _letters(acl)


def _letters(acl: Acl) -> str | None:
    if {"%u", "%c"} & set(acl.topic.split("/")):
        return "Mosquitto 2.0.11 takes %u and %c as these letters, not as a client's names"
    return None


def _evaded(users: Mapping[Client, Worked]) -> Iterator[Fault]:
    told: set[Origin] = set()
    for client, worked in users.items():
        for one in worked.evaded:
            if one.acl.origin not in told:
                told.add(one.acl.origin)
                reason = (
                    f"topics it denies are received by subscribing to {one.filter!r}, which is allowed;"
                    f" only {AclType.RECEIVE} keeps them back"
                )
                yield Fault(INEFFECTIVE, one.acl.origin, client, evidence={"reason": reason})


def _overruled(dynsec: Dynsec, users: Mapping[Client, Worked]) -> Iterator[Fault]:
    """Yield the denials of filters that decide nothing for any of their holders."""
    classes = {id(worked): worked for worked in users.values()}.values()
    first: dict[Origin, Acl] = {}
    times: dict[Origin, int] = {}
    for worked in classes:
        for acl, by in worked.overruled:
            first.setdefault(acl.origin, by)
            times[acl.origin] = times.get(acl.origin, 0) + 1
    held: dict[str, int] = {}
    for worked in classes:
        for name in worked.roles:
            held[name] = held.get(name, 0) + 1
    for role in dynsec.roles.values():
        for acl in acls_of([role], AclType.SUBSCRIBE_LITERAL, AclType.SUBSCRIBE_PATTERN):
            overruling = first.get(acl.origin)
            if overruling is not None and times[acl.origin] == held.get(acl.role):
                reason = (
                    f"all it denies is allowed by {overruling.origin.text} of {overruling.origin.holder}, asked first"
                )
                yield _ineffective(acl.origin, reason)


def _powerful(users: Mapping[Client, Worked]) -> Iterator[Fault]:
    """Yield the grants by which clients can change the grants, and who they are."""
    holders: dict[Origin, list[Client]] = {}
    for client, worked in users.items():
        rule: Rule | None = worked.rights.rules(Action.PUBLISH, TOPICS).decide(COMMANDS).rule
        if rule is not None and rule.allow and rule.origin.holder != f"role {ADMINISTRATORS!r}":
            holders.setdefault(rule.origin, []).append(client)
    for origin, clients in holders.items():
        names = ["clients without a user name" if one.user is None else repr(one.user) for one in clients[:_NAMED]]
        more = f" and {len(clients) - _NAMED} more" if len(clients) > _NAMED else ""
        reason = f"whoever has it can give every right to everybody: {', '.join(names)}{more}"
        yield Fault(DANGEROUS, origin, clients[0], evidence={"reason": reason})


def _ineffective(origin: Origin, reason: str) -> Fault:
    return Fault(INEFFECTIVE, origin, evidence={"reason": reason})


def role_holders(accounts: Sequence[Account], role: Role) -> int:
    """Return how many accounts have a role."""
    return sum(role in account.roles for account in accounts)
