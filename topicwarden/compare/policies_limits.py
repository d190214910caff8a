"""Which limits on publishes a change of a policy loosens and tightens.

A change of a rule's own limits is told as such. Limits also change by moving a name from one rule to another, or a
client from one role to another: of all rules of a client that match a name the most generous governs, for messages,
bytes and sizes each by itself, and of all its roles that let it publish the most generous governs all its publishes
together (`topicwarden.engine.rulebook`). So for each rule, and each of the other policy's that is not as generous, a
name is looked for at which both govern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from topicwarden.compare.policies_clients import Clients
from topicwarden.compare.policies_model import Effect, Example, LimitChange, Permission, Unanswered
from topicwarden.compare.policies_rights import (
    TOO_MANY,
    Rights,
    Standing,
    allowing,
    bound,
    standing,
    written_at,
)
from topicwarden.events import Action, Client
from topicwarden.patterns import Answer, Covered, NameUnion, Witness
from topicwarden.policy import MemberSelector, PublishRule, Rate, Role, Space

_NS: Final = 1_000_000_000
_MOST_PAIRS: Final = 20_000
"""Pairs of selectors looked at for the limits of roles."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may pass: units a second, and at one instant; for sizes the second alone."""

    speed: Fraction
    burst: int
    text: str

    def is_within(self, other: Limit | None) -> bool:
        """Whether the other lets pass whatever this one does; None is no limit."""
        return other is None or (self.speed <= other.speed and self.burst <= other.burst)

    @property
    def generosity(self) -> tuple[Fraction, int]:
        """Larger is more generous, where several apply: the faster, then the deeper."""
        return self.speed, self.burst


def _messages(of: PublishRule | Role) -> Limit | None:
    return _limit(of.rate, of.effective_burst, "")


def _bytes(of: PublishRule | Role) -> Limit | None:
    return _limit(of.byte_rate, of.effective_byte_burst, " bytes")


def _size(of: PublishRule | Role) -> Limit | None:
    size = of.max_size if isinstance(of, PublishRule) else None
    return None if size is None else Limit(Fraction(0), size, f"{size} bytes")


def _limit(rate: Rate | None, burst: int | None, unit: str) -> Limit | None:
    if rate is None or burst is None:
        return None
    amount, _, period = str(rate).partition("/")
    text = f"{amount}{unit}/{period}, {burst}{unit} at once"
    return Limit(Fraction(rate.amount * _NS, rate.per_ns), burst, text)


KINDS: Final[Mapping[str, Callable[[PublishRule | Role], Limit | None]]] = {
    "rate": _messages,
    "byte_rate": _bytes,
    "max_size": _size,
}


def effect(old: Limit | None, new: Limit | None) -> Effect:
    """Say what another limit does."""
    looser = old is not None and not (new is not None and new.is_within(old))
    tighter = new is not None and not (old is not None and old.is_within(new))
    if looser and tighter:
        return Effect.EITHER
    return Effect.LOOSER if looser else Effect.TIGHTER if tighter else Effect.NONE


def most_generous(limits: Sequence[Limit | None]) -> Limit | None:
    """Return the limit that governs; None when one of them is none."""
    present = [limit for limit in limits if limit is not None]
    return max(present, key=lambda limit: limit.generosity) if len(present) == len(limits) > 0 else None


def limit_changes(
    old: Rights, new: Rights, clients: Clients, told: set[tuple[MemberSelector, Permission]]
) -> tuple[list[LimitChange], list[Unanswered]]:
    """Return all changes of limits. `told`: the permissions of both that go beyond the other, and for whom."""
    unanswered: list[Unanswered] = []
    changes = [*_of_rules(old, new), *_of_roles(old, new)]
    known = {_key(change) for change in changes}
    for change in (
        *_governing(new, old, clients, told, unanswered, newer=True),
        *_governing(old, new, clients, told, unanswered, newer=False),
        *_over_all(old, new, clients, unanswered),
    ):
        # What a rule's own change explains is not told once more; nor is what both directions show.
        if _key(change) not in known:
            known.add(_key(change))
            changes.append(change)
    return changes, unanswered


def _key(change: LimitChange) -> object:
    place = None if change.permission is None else change.permission.place
    return change.role, change.what, place, change.effect


def _of_rules(old: Rights, new: Rights) -> Iterator[LimitChange]:
    """Yield the changes of limits of rules that stand in both policies, in a role of the same name."""
    for name, listed in new.permissions.items():
        before = {one.place: one for one in old.permissions.get(name, ()) if one.rule is not None}
        for one in listed:
            was = before.get(one.place)
            if one.rule is None or was is None or was.rule is None:
                continue
            for what, limit_of in KINDS.items():
                limits = limit_of(was.rule), limit_of(one.rule)
                if effect(*limits) is not Effect.NONE:
                    written = written_at(new.side, "roles", name, "publish", one.number, what)
                    yield LimitChange(name, one, what, _text(limits[0]), _text(limits[1]), effect(*limits), written)


def _of_roles(old: Rights, new: Rights) -> Iterator[LimitChange]:
    """Yield the changes of what members of a role may publish altogether."""
    for name, role in new.side.policy.roles.items():
        was = old.side.policy.roles.get(name)
        if was is None or not (was.publish and role.publish):
            continue
        for what, limit_of in KINDS.items():
            limits = limit_of(was), limit_of(role)
            if effect(*limits) is not Effect.NONE:
                written = written_at(new.side, "roles", name, what)
                yield LimitChange(name, None, what, _text(limits[0]), _text(limits[1]), effect(*limits), written)


def _text(limit: Limit | None) -> str | None:
    return None if limit is None else limit.text


def _governing(
    mine: Rights,
    other: Rights,
    clients: Clients,
    told: set[tuple[MemberSelector, Permission]],
    unanswered: list[Unanswered],
    *,
    newer: bool,
) -> Iterator[LimitChange]:
    """Yield where a rule of `mine` lets pass more than the rules of `other` that match the same names."""
    if not any(one.rule is not None and _limited(one.rule) for p in other.permissions.values() for one in p):
        return  # the other policy limits nothing
    against = clients.looked_at(other.selectors)
    for name, role in mine.side.policy.roles.items():
        done: set[tuple[Permission, str]] = set()
        known: dict[tuple[Permission, str, tuple[str, ...], tuple[str, ...], Standing], list[Answer]] = {}
        for member in role.members:
            listed = [one for one in mine.permissions[name] if one.rule is not None and (member, one) not in told]
            if not listed or _same(other, name, member, listed):
                continue
            representatives, complete = clients.standing_for([clients.needs(member)], against)
            if not complete:
                unanswered.append(
                    Unanswered("limits", name, None, TOO_MANY, written_at(mine.side, "roles", name, "members"))
                )
            for client in representatives:
                theirs = other.roles_of(client)
                own = mine.roles_of(client)
                who = standing(clients, client)
                for one in listed:
                    for what in KINDS:
                        if (one, what) in done:
                            continue
                        key = (one, what, theirs, own, who)
                        if key not in known:
                            known[key] = _more(mine, other, one, what, client, own, theirs)
                        if known[key]:
                            done.add((one, what))
                        for answer in known[key]:
                            change = _shown(mine, other, one, what, member, client, answer, newer=newer)
                            if isinstance(change, LimitChange):
                                yield change
                            else:
                                unanswered.append(change)


def _limited(rule: PublishRule) -> bool:
    return any(limit_of(rule) is not None for limit_of in KINDS.values())


def _same(other: Rights, name: str, member: MemberSelector, listed: Sequence[Permission]) -> bool:
    """Whether the other policy has these very rules, for just this selector, in its role of the same name."""
    role = other.side.policy.roles.get(name)
    return role is not None and member in role.members and all(one.rule in role.publish for one in listed)


def _more(
    mine: Rights,
    other: Rights,
    one: Permission,
    what: str,
    client: Client,
    own: tuple[str, ...],
    theirs: tuple[str, ...],
) -> list[Answer]:
    """Ask for names where a rule governs, and where what governs in the other policy is not as generous as the rule.

    There is one for each rule that governs there, since it may change in another way at each; else the last that could
    not be decided.
    """
    assert one.rule is not None
    limit_of = KINDS[what]
    limit = limit_of(one.rule)
    space, pattern = one.place.space, bound(one.place, client)
    beside = _with_limits(mine, own, space, limit_of)
    there = _with_limits(other, theirs, space, limit_of)
    answers: list[Answer] = []
    undecided: Answer | None = None
    for rule, its_limit in there:
        if _within(limit, its_limit):
            continue
        wanted = bound(rule.place, client)
        if space.syntax.overlap(pattern, wanted) is None:
            continue
        governing = [r for r, its in there if _governs(its, its_limit)] + [
            r for r, its in beside if _governs(its, limit)
        ]
        found = NameUnion([bound(r.place, client) for r in governing]).uncovered(pattern, wanted)
        if isinstance(found, Witness):
            answers.append(found)
        elif not isinstance(found, Covered):
            undecided = found
    return answers or ([] if undecided is None else [undecided])


def _with_limits(
    rights: Rights, roles: tuple[str, ...], space: Space, limit_of: Callable[[PublishRule | Role], Limit | None]
) -> list[tuple[Permission, Limit | None]]:
    return [(one, limit_of(one.rule)) for one in rights.of(roles, Action.PUBLISH, space) if one.rule is not None]


def _governs(limit: Limit | None, over: Limit | None) -> bool:
    """Whether one limit governs where the other applies too."""
    return over is not None and (limit is None or limit.generosity > over.generosity)


def _within(limit: Limit | None, other: Limit | None) -> bool:
    return other is None if limit is None else limit.is_within(other)


def _shown(
    mine: Rights,
    other: Rights,
    one: Permission,
    what: str,
    member: MemberSelector,
    client: Client,
    answer: Answer,
    *,
    newer: bool,
) -> LimitChange | Unanswered:
    """Return what the limits are at the name that was found."""
    written = written_at(mine.side, "roles", one.role, one.kind, one.number, what)
    if not isinstance(answer, Witness):
        return Unanswered("limits", one.role, one, "" if isinstance(answer, Covered) else answer.reason, written)
    before, after = (
        most_generous(
            [
                KINDS[what](permission.rule)
                for permission in allowing(side.side.policy, client, Action.PUBLISH, one.place.space, answer.topic)
                if permission.rule is not None
            ]
        )
        for side in ((other, mine) if newer else (mine, other))
    )
    example = Example(client, answer.topic)
    return LimitChange(
        one.role, one, what, _text(before), _text(after), effect(before, after), written, example, (member,)
    )


def _over_all(old: Rights, new: Rights, clients: Clients, unanswered: list[Unanswered]) -> Iterator[LimitChange]:
    """Yield whose limit on all publishes together changes by getting other roles.

    Each pair of a role before and a role after is looked at, for a client that has these two and as few others as can
    be: that way, the limit that governs is the role's own.
    """
    policies = (old.side.policy, new.side.policy)
    if not any(_limits_all(role) for policy in policies for role in policy.roles.values()):
        return
    left = _MOST_PAIRS
    for mine, other, newer in ((new, old, True), (old, new, False)):
        against = clients.looked_at(other.selectors)
        for name, role in mine.side.policy.roles.items():
            for its_name, its in other.side.policy.roles.items():
                if not (role.publish and its.publish) or (name == its_name and role == its):
                    continue
                wanted = [w for w, limit_of in KINDS.items() if not _within(limit_of(role), limit_of(its))]
                pairs = [(a, b) for a in role.members for b in its.members] if wanted else []
                left -= len(pairs)
                if left < 0:
                    written = written_at(mine.side, "roles", name, "members")
                    unanswered.append(Unanswered("limits", name, None, TOO_MANY, written))
                    return
                for a, b in pairs:
                    found, complete = clients.standing_for([clients.needs(a), clients.needs(b)], against)
                    if not complete:
                        written = written_at(mine.side, "roles", name, "members")
                        unanswered.append(Unanswered("limits", name, None, TOO_MANY, written))
                    yield from _for_these(mine, other, name, (a, b), found, wanted, newer=newer)


def _limits_all(role: Role) -> bool:
    return any(limit_of(role) is not None for limit_of in KINDS.values())


def _for_these(
    mine: Rights,
    other: Rights,
    name: str,
    members: tuple[MemberSelector, MemberSelector],
    found: Sequence[Client],
    wanted: Sequence[str],
    *,
    newer: bool,
) -> Iterator[LimitChange]:
    for client in found:
        for what in wanted:
            limits = []
            for side in (other, mine):
                roles = [side.side.policy.roles[role] for role in side.roles_of(client)]
                limits.append(most_generous([KINDS[what](role) for role in roles if role.publish]))
            before, after = limits if newer else limits[::-1]
            change = effect(before, after)
            if change is Effect.EITHER or change is (Effect.LOOSER if newer else Effect.TIGHTER):
                yield LimitChange(
                    name,
                    None,
                    what,
                    _text(before),
                    _text(after),
                    change,
                    written_at(mine.side, "roles", name, what),
                    Example(client, ""),
                    members,
                )
