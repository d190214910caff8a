"""Granted against observed: which grants were used, how often, and how much of what they admit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from topicwarden.compare.intent import EXCHANGES
from topicwarden.events import Action, Resource
from topicwarden.events.observed import Numbers, Observed, Uses
from topicwarden.grants import Grants, Origin, Rights, Rules
from topicwarden.patterns import Names, SortedNames, is_literal, names_overlap
from topicwarden.policy import Space, pattern_of, space_of
from topicwarden.policy.places import Place

MOST_COUNTED: Final = 20_000
"""Names that a grant with wildcards is tried on to count how many it admits."""
_CLIENTS_AT_ONCE: Final = 1 << 14
_ANONYMOUS: Final = "(anonymous)"
_NO_RULE: Final = -1
_PARTS: Final = 64
_NONE: Final = np.empty(0, np.int64)

_Kind = tuple[Action, Space]


@dataclass(slots=True)
class Use:
    """What was seen of one grant."""

    origin: Origin
    events: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    users: int = 0
    """Different users who used it."""
    names: int = 0
    """Different names used under it, told apart by what was done with them."""
    kinds: dict[_Kind, Names] = field(default_factory=dict)
    """What it admits, for one of its holders."""
    admitted: int | None = None
    """How many of the names that anybody used it admits; None: it admits one name only, or it was not used."""


@dataclass(slots=True)
class Usage:
    """What was seen of all grants of a broker."""

    uses: dict[Origin, Use]
    unmatched: int = 0
    """Allowed events that no rule allows: the configuration was another one then, or there are blind spots."""
    first_ns: int | None = None
    last_ns: int | None = None


def usage(
    grants: Grants, observed: Observed, holders: Iterable[Rights], progress: Callable[[int], None] = lambda _: None
) -> Usage:
    """Attribute every observed event that was not refused to the grants that allow it.

    A subscription counts for every rule it overlaps with. `holders`: rights of clients of every class, which say what
    each grant admits. `progress` is called with how many clients are done.
    """
    uses = {origin: Use(origin) for origin in grants.origins}
    for held in holders:
        for kind, listed in held.by.items():
            for rule in listed.rules:
                if rule.allow and rule.origin in uses:
                    uses[rule.origin].kinds.setdefault(kind, rule.names)
    attribution = _Attribution(grants, observed, uses)
    for done, rights, rows in _by_rights(grants, observed):
        progress(done)
        attribution.add(rights, rows)
    attribution.finish()
    return Usage(uses, attribution.unmatched, observed.first_ns, observed.last_ns)


def _by_rights(grants: Grants, observed: Observed) -> Iterator[tuple[int, Rights | None, Numbers]]:
    """Yield the rows of clients that have the same rights, with how many clients are done."""
    clients, starts = np.unique(observed.uses.client, return_index=True)
    ends = np.append(starts[1:], len(observed.uses))
    for begin in range(0, len(clients), _CLIENTS_AT_ONCE):
        end = begin + _CLIENTS_AT_ONCE
        together: dict[int, tuple[Rights | None, list[Numbers]]] = {}
        for client, start, stop in zip(clients[begin:end], starts[begin:end], ends[begin:end], strict=True):
            rights = grants.rights(observed.clients[client])
            # Readers give clients that differ in nothing the same object; it stays alive in here.
            together.setdefault(id(rights), (rights, []))[1].append(np.arange(start, stop))
        for rights, rows in together.values():
            yield begin, rights, np.concatenate(rows)


class _Attribution:
    """Adds up rows under the grants that allow them."""

    def __init__(self, grants: Grants, observed: Observed, uses: dict[Origin, Use]) -> None:
        self.unmatched = 0
        self._of = uses
        self._seen: Uses = observed.uses
        self._allowed = self._seen.count - self._seen.denied
        self._resources = observed.resources
        self._spaces, self._space, self._place = _places(grants, observed.resources)
        self._asks = _asking(observed.resources)
        users: dict[str, int] = {}
        self._user = np.array([users.setdefault(one.user or _ANONYMOUS, len(users)) for one in observed.clients], int)
        self._names: dict[Origin, dict[_Kind, _Different]] = {}
        """Names used under each grant, by their places."""
        self._users: dict[Origin, _Different] = {}

    def add(self, rights: Rights | None, rows: Numbers) -> None:
        """Add rows of clients that have these rights; None: they cannot connect."""
        rows = rows[self._allowed[rows] > 0]
        space = self._space[self._seen.resource[rows]]
        rows, space = rows[space >= 0], space[space >= 0]
        if rights is None:
            self.unmatched += int(self._allowed[rows].sum())
            return
        code = self._seen.action[rows] * len(self._spaces) + space
        for one in np.unique(code).tolist():
            action, number = divmod(one, len(self._spaces))
            self._decide(rights, Action(action), number, rows[code == one])

    def _decide(self, rights: Rights, action: Action, number: int, rows: Numbers) -> None:
        """Attribute what one class of clients did in one way to names of one space."""
        space, names = self._spaces[number]
        matched = np.zeros(len(rows), bool)
        if space.family == "key":
            decision = rights.rules(action, EXCHANGES).decide(space.within)
            if decision.allowed and decision.rule is not None:
                within = dict(self._spaces)[EXCHANGES].place(space.within)
                self._note(decision.rule.origin, (action, EXCHANGES), rows, np.full(len(rows), within))
                matched[:] = True
        rules = rights.rules(action, space)
        places = self._place[self._seen.resource[rows]]
        asking = self._asks[self._seen.resource[rows]] & (action is Action.SUBSCRIBE)
        plain = np.flatnonzero(~asking)
        different, back = np.unique(places[plain], return_inverse=True)
        deciding = _deciding(rules, names, different)[back.ravel()]
        for rule in np.unique(deciding[deciding != _NO_RULE]).tolist():
            ours = plain[deciding == rule]
            self._note(rules.rules[rule].origin, (action, space), rows[ours], places[ours])
            matched[ours] = True
        for place in np.unique(places[asking]).tolist():
            asked = space.syntax.parse(names.names[place])
            ours = np.flatnonzero(asking & (places == place))
            for one in rules.rules:
                if one.allow and names_overlap(one.names, asked):
                    self._note(one.origin, (action, space), rows[ours], places[ours])
                    matched[ours] = True
        self.unmatched += int(self._allowed[rows[~matched]].sum())

    def _note(self, origin: Origin, kind: _Kind, rows: Numbers, places: Numbers) -> None:
        """Add rows under a grant; `places`: of the names it was asked about."""
        use = self._of.setdefault(origin, Use(origin))
        use.events += int(self._allowed[rows].sum())
        first, last = int(self._seen.first_ns[rows].min()), int(self._seen.last_ns[rows].max())
        use.first_ns = first if use.first_ns is None else min(use.first_ns, first)
        use.last_ns = last if use.last_ns is None else max(use.last_ns, last)
        self._names.setdefault(origin, {}).setdefault(kind, _Different()).add(places)
        self._users.setdefault(origin, _Different()).add(self._user[self._seen.client[rows]])

    def finish(self) -> None:
        """Count users and names, and of each grant with wildcards how many of the names that were used it admits."""
        used: dict[Origin, dict[_Kind, Numbers]] = {}
        by_kind: dict[_Kind, _Different] = {}
        for origin, kinds in self._names.items():
            used[origin] = {kind: names.all() for kind, names in kinds.items()}
            for kind, places in used[origin].items():
                by_kind.setdefault(kind, _Different()).add(places)
        known = {kind: names.all() for kind, names in by_kind.items()}
        names_of = dict(self._spaces)
        counted: dict[tuple[_Kind, Names], Numbers] = {}
        for origin, ours in used.items():
            use = self._of[origin]
            use.users = len(self._users[origin].all())
            use.names = sum(map(len, ours.values()))
            if all(map(is_literal, use.kinds.values())):
                continue
            use.admitted = 0
            for kind, pattern in use.kinds.items():
                if (kind, pattern) not in counted:
                    counted[kind, pattern] = _admitted(pattern, names_of.get(kind[1]), known.get(kind))
                # Names under it by other holders are among those used, so the share is never more than all.
                use.admitted += _together(counted[kind, pattern], ours.get(kind, _NONE))


class _Different:
    """Numbers, each kept once."""

    def __init__(self) -> None:
        self._parts: list[Numbers] = []

    def add(self, numbers: Numbers) -> None:
        """Add some; they may be there already."""
        self._parts.append(np.unique(numbers))
        if len(self._parts) >= _PARTS:
            self._parts = [self.all()]

    def all(self) -> Numbers:
        """Return all of them in ascending order."""
        return np.unique(np.concatenate(self._parts)) if self._parts else _NONE


def _deciding(rules: Rules, names: SortedNames, places: Numbers) -> Numbers:
    """Return for each name the number of the rule under which it is allowed; `_NO_RULE`: none, or it cannot be told."""
    found = np.full(len(places), _NO_RULE)
    left = np.arange(len(places))
    for number, rule in enumerate(rules.rules):
        if not len(left):
            break
        sure, unsure = names.matching(rule.names, places[left])
        decided = np.searchsorted(places[left], sure)
        if rule.allow:
            found[left[decided]] = number
        left = np.delete(left, np.concatenate((decided, np.searchsorted(places[left], unsure))))
    return found


def _admitted(pattern: Names, names: SortedNames | None, known: Numbers | None) -> Numbers:
    """Return which of the known names a pattern matches."""
    if names is None or known is None:
        return _NONE
    return names.matching(pattern, names.candidates(pattern, known)[:MOST_COUNTED])[0]


def _together(some: Numbers, others: Numbers) -> int:
    """Return how many there are in two lists, each in ascending order, together."""
    if not len(some):
        return len(others)
    found = np.minimum(np.searchsorted(some, others), len(some) - 1)
    return len(some) + int(np.count_nonzero(some[found] != others))


def _places(
    grants: Grants, resources: Sequence[Resource]
) -> tuple[Sequence[tuple[Space, SortedNames]], Numbers, Numbers]:
    """Return the spaces of names as the broker carries them, and of each resource its space and place in there.

    A resource that has no name, or whose name was cut, has the space -1.
    """
    carried = [_carried(grants, resource) for resource in resources]
    found: dict[Space, dict[str, None]] = {}
    for place in carried:
        if place is not None:
            found.setdefault(place.space, {})[place.pattern] = None
            if place.space.family == "key":
                found.setdefault(EXCHANGES, {})[place.space.within] = None
    spaces = [(space, SortedNames(names)) for space, names in found.items()]
    numbers = {space: number for number, (space, _) in enumerate(spaces)}
    places: Mapping[Space, Mapping[str, int]] = {
        space: {name: place for place, name in enumerate(names.names)} for space, names in spaces
    }
    return (
        spaces,
        np.array([-1 if place is None else numbers[place.space] for place in carried], np.int64),
        np.array([-1 if place is None else places[place.space][place.pattern] for place in carried], np.int64),
    )


def _carried(grants: Grants, resource: Resource) -> Place | None:
    """Return the resource's name as the broker carries it."""
    space = space_of(resource)
    if space is None or resource.truncated:
        return None
    return grants.carried(Place(space, resource.name))


def _asking(resources: Sequence[Resource]) -> np.typing.NDArray[np.bool_]:
    """Return of each resource whether who subscribes to it asks for more than one name."""
    return np.array([_asks_for_more(resource) for resource in resources], bool)


def _asks_for_more(resource: Resource) -> bool:
    if not any(character in resource.name for character in "+#*"):
        return False  # most names: not worth taking apart
    wanted = pattern_of(resource)
    return wanted is not None and not is_literal(wanted)
