"""Replays what was observed against a policy's export: what would be denied, and does the policy mean it so.

Only what a broker did not refuse is replayed. What it refused then may be refused now.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final

from topicwarden.compare.intent import EXCHANGES, Unions
from topicwarden.events import Action, Client, Resource, ResourceKind
from topicwarden.events.observed import Observed, Seen
from topicwarden.grants import Grants, Rights, Rules, Unsaid
from topicwarden.patterns import Covered, Names, Undecided, Witness, is_literal
from topicwarden.policy import MemberSelector, Place, Policy, Role, pattern_of, space_of

SHOWN: Final = 20
"""Denials listed."""
_CLIENTS: Final = 1 << 14
"""Clients whose rights are kept."""


class Outcome(StrEnum):
    """What would become of an event."""

    ALLOWED = "allowed"
    PARTLY = "partly"
    """A subscription some of whose names would be allowed: some brokers then deliver those, others refuse it whole."""
    DENIED = "denied"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Denial:
    """A client, what it did and to which name; all its events together."""

    client: Client
    action: Action
    resource: Resource
    outcome: Outcome
    """PARTLY, DENIED or UNDECIDED."""
    count: int
    first_ns: int
    last_ns: int
    intended: bool
    """Whether the policy allows it, so that the export alone denies it."""
    explained: bool
    """Whether the exporter said that it would."""


@dataclass(slots=True)
class Replayed:
    """What came of replaying."""

    events: int = 0
    """Events replayed."""
    refused: int = 0
    """Events left out: the broker had refused them."""
    unreadable: int = 0
    """Events left out: their name was cut, or is none, so that nobody can judge them."""
    denied: int = 0
    """Events that would be denied, in part or whole."""
    partly: int = 0
    """Of them: subscriptions of which a part would be allowed."""
    by_policy: int = 0
    """Of them: what the policy denies."""
    by_export: int = 0
    """Of them: what the policy allows."""
    unexplained: int = 0
    """Of those: what the exporter did not say."""
    undecided: int = 0
    """Events of which it cannot be told."""
    undecided_intended: int = 0
    """Of them: what the policy allows."""
    different: int = 0
    """How many different (client, action, name) the denied and undecided events are."""
    denials: list[Denial] = field(default_factory=list)
    """The most telling: what only the export denies first, then by number of events; `SHOWN` at most."""


class Replay:
    """Judges events by what an export grants and by what the policy intends."""

    def __init__(self, policy: Policy, grants: Sequence[Grants], denied_more: Iterable[Unsaid]) -> None:
        """`grants`: the export, read back; what any of them allows is allowed. `denied_more`: the exporter's words."""
        self._intention = _Intention(policy)
        self._grants = grants
        self._said = frozenset(unsaid.where for unsaid in denied_more if unsaid.where)
        vhosts = {account.vhost for one in grants for account in one.accounts if account.vhost is not None}
        self._only_vhost = next(iter(vhosts)) if len(vhosts) == 1 else None
        self._unions = Unions()
        self._rights: Callable[[Client], tuple[Rights | None, ...]] = lru_cache(_CLIENTS)(self._rights_of)

    def run(self, observed: Observed, progress: Callable[[int], None] = lambda _: None) -> Replayed:
        """Replay everything; `progress` is called with how many different events are done."""
        result = Replayed()
        shown: list[tuple[tuple[bool, int], int, Denial]] = []
        for number, (client, action, resource, seen) in enumerate(observed):
            progress(number)
            denial = self._judge(client, action, resource, seen, result)
            if denial is None:
                continue
            result.different += 1
            entry = ((denial.intended, denial.count), -number, denial)
            if len(shown) < SHOWN:
                heapq.heappush(shown, entry)
            else:
                heapq.heappushpop(shown, entry)
        result.denials = [denial for *_, denial in sorted(shown, reverse=True)]
        return result

    def _judge(self, client: Client, action: Action, resource: Resource, seen: Seen, result: Replayed) -> Denial | None:
        """Judge one row and add it up; returns what would be denied of it."""
        result.refused += seen.denied
        count = seen.count - seen.denied
        if not count:
            return None
        if space_of(resource) is None or pattern_of(resource) is None:
            result.unreadable += count
            return None
        result.events += count
        outcome = self.outcome(client, action, resource)
        if outcome is Outcome.ALLOWED:
            return None
        allowing = self._intention.allowing(client, action, resource)
        explained = allowing is not None and (None in self._rights(self._seated(client)) or self._explained(allowing))
        if outcome is Outcome.UNDECIDED:
            result.undecided += count
            result.undecided_intended += count if allowing is not None else 0
        else:
            result.denied += count
            result.partly += count if outcome is Outcome.PARTLY else 0
            if allowing is None:
                result.by_policy += count
            else:
                result.by_export += count
                result.unexplained += 0 if explained else count
        return Denial(
            client, action, resource, outcome, count, seen.first_ns, seen.last_ns, allowing is not None, explained
        )

    def outcome(self, client: Client, action: Action, resource: Resource) -> Outcome:
        """Say what the export does with something; the resource's name must be whole and valid."""
        space = space_of(resource)
        if space is None:
            return Outcome.UNDECIDED
        outcomes = [
            self._decided(rights, action, grants.carried(Place(space, resource.name)), resource)
            for grants, rights in zip(self._grants, self._rights(self._seated(client)), strict=True)
            if rights is not None
        ]
        order = (Outcome.ALLOWED, Outcome.UNDECIDED, Outcome.PARTLY)
        return next((outcome for outcome in order if outcome in outcomes), Outcome.DENIED)

    def _seated(self, client: Client) -> Client:
        """Return the client as it would be at the broker that is written for."""
        # What was observed at another kind of broker has no virtual host.
        return client if client.vhost is not None else replace(client, vhost=self._only_vhost)

    def _rights_of(self, client: Client) -> tuple[Rights | None, ...]:
        return tuple(grants.rights(client) for grants in self._grants)

    def _decided(self, rights: Rights, action: Action, place: Place, resource: Resource) -> Outcome:
        space = place.space
        rules = rights.rules(action, space)
        if space.family == "key":
            exchange = _decision(rights.rules(action, EXCHANGES), space.within)
            if exchange is not Outcome.ALLOWED:
                return exchange
        asks_for_more = action is Action.SUBSCRIBE and resource.kind in (ResourceKind.TOPIC, ResourceKind.BINDING)
        wanted: Names | None = pattern_of(resource) if asks_for_more else None
        if wanted is None or is_literal(wanted):
            return _decision(rules, place.pattern)
        if space.family != "key":
            return self._covered(rules, wanted)
        outcome = self._covered(rules, space.syntax.parse(place.pattern))
        # A binding is made or it is not.
        return Outcome.DENIED if outcome is Outcome.PARTLY else outcome

    def _covered(self, rules: Rules, wanted: Names) -> Outcome:
        """Say whether all that a filter stands for is allowed."""
        known: list[Names] = []
        allowed, denied, undecided = False, False, False
        for rule in rules.rules:
            # What an earlier rule decides is no longer this one's.
            answer = self._unions.of(known).uncovered(wanted, rule.names)
            undecided |= isinstance(answer, Undecided)
            if isinstance(answer, Witness):
                allowed, denied = allowed or rule.allow, denied or not rule.allow
            known.append(rule.names)
        answer = self._unions.of(known).uncovered(wanted)
        denied |= isinstance(answer, Witness)
        if denied:
            return Outcome.PARTLY if allowed else Outcome.DENIED
        return Outcome.ALLOWED if isinstance(answer, Covered) and not undecided else Outcome.UNDECIDED

    def _explained(self, allowing: Iterable[str]) -> bool:
        return not self._said.isdisjoint(allowing)


def _decision(rules: Rules, name: str) -> Outcome:
    match rules.decide(name).allowed:
        case True:
            return Outcome.ALLOWED
        case False:
            return Outcome.DENIED
        case None:
            return Outcome.UNDECIDED


class _Intention:
    """What the policy allows a client that was observed."""

    def __init__(self, policy: Policy) -> None:
        self._roles = dict(policy.roles)
        self._places = {
            name: {action: list(_placed(name, role, action)) for action in _ACTIONS}
            for name, role in policy.roles.items()
        }
        self._members: Callable[[Client], tuple[tuple[str, tuple[str, ...]], ...]] = lru_cache(_CLIENTS)(self._roles_of)

    def allowing(self, client: Client, action: Action, resource: Resource) -> frozenset[str] | None:
        """Return where in the policy it stands that a client may do this, its membership included; None: nowhere."""
        space, wanted = space_of(resource), pattern_of(resource)
        if space is None or wanted is None:
            return None
        patterns: list[Names] = []
        where: set[str] = set()
        for name, membership in self._members(client):
            for at, place in self._places[name][action]:
                if place.space != space:
                    continue
                pattern = space.syntax.bind(place.pattern, client.user, client.client_id)
                if space.syntax.overlap(pattern, wanted) is not None:
                    patterns.append(pattern)
                    where.update((at, *membership))
        covered = isinstance(space.syntax.union(patterns).uncovered(wanted), Covered) if patterns else False
        return frozenset(where) if covered else None

    def _roles_of(self, client: Client) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return a client's roles, each with the places of the selectors that match; addresses are not looked at."""
        found = []
        for name, role in self._roles.items():
            matching = [number for number, member in enumerate(role.members) if _may_be(member, client)]
            if matching:
                found.append((name, tuple(f"roles.{name}.members[{number}]" for number in matching)))
        return tuple(found)


_ACTIONS: Final = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)


def _may_be(member: MemberSelector, client: Client) -> bool:
    """Whether a selector matches a client whose address is not known any more."""
    return member.model_copy(update={"address": None}).matches(client)


def _placed(name: str, role: Role, action: Action) -> Iterator[tuple[str, Place]]:
    """Yield a role's places with where each stands in the policy."""
    written: Mapping[Place, str] = {
        rule.place: f"roles.{name}.{section}[{number}]"
        for section in _SECTIONS[action]
        for number, rule in enumerate(getattr(role, section))
    }
    for place in role.places(action):
        yield written.get(place, f"roles.{name}"), place


_SECTIONS: Final[Mapping[Action, Sequence[str]]] = {
    Action.PUBLISH: ("publish",),
    Action.SUBSCRIBE: ("subscribe", "consume"),
    Action.CONFIGURE: ("configure",),
}
