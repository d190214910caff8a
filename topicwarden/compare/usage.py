"""Granted against observed: which grants were used, how often, and how much of what they admit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from topicwarden.compare.intent import EXCHANGES
from topicwarden.events import Action, Client, Resource
from topicwarden.events.observed import Observed
from topicwarden.grants import Grants, Origin, Rights, Rule
from topicwarden.patterns import Names, is_literal, names_match, names_overlap
from topicwarden.policy import Space, pattern_of, space_of
from topicwarden.policy.places import Place

MAX_NAMES: Final = 20_000
"""Names used under one grant that are told apart, and names of one kind the share is counted on."""

_Kind = tuple[Action, Space]


@dataclass(slots=True)
class Use:
    """What was seen of one grant."""

    origin: Origin
    events: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    users: dict[str, None] = field(default_factory=dict)
    names: dict[tuple[_Kind, str], None] = field(default_factory=dict)
    """Different names used under it."""
    kinds: dict[_Kind, Names] = field(default_factory=dict)
    """What it admits, for one of its holders."""
    admitted: int | None = None
    """How many of the names that anybody used it admits; None: it admits one name only, or it was not counted."""
    undecided: bool = False
    """Whether it could not be told of some events whether they were under this grant."""


@dataclass(slots=True)
class Usage:
    """What was seen of all grants of a broker."""

    uses: dict[Origin, Use]
    unmatched: int = 0
    """Allowed events that no rule allows: the configuration was another one then, or there are blind spots."""
    first_ns: int | None = None
    last_ns: int | None = None


def usage(grants: Grants, observed: Observed, holders: Iterable[Rights]) -> Usage:
    """Attribute every observed event that was not refused to the grants that allow it.

    A subscription counts for every rule it overlaps with. `holders`: rights of clients of every class, which say what
    each grant admits.
    """
    uses = {origin: Use(origin) for origin in grants.origins}
    for held in holders:
        for kind, listed in held.by.items():
            for rule in listed.rules:
                if rule.allow and rule.origin in uses:
                    uses[rule.origin].kinds.setdefault(kind, rule.names)
    result = Usage(uses, first_ns=observed.first_ns, last_ns=observed.last_ns)
    rights_of = lru_cache(1 << 14)(grants.rights)
    known: dict[_Kind, dict[str, None]] = {}
    for client, action, resource, seen in observed:
        if seen.denied >= seen.count:
            continue
        place = _carried(grants, resource)
        if place is None:
            continue
        allowed = seen.count - seen.denied
        rights = rights_of(client)
        deciding = list(_deciding(rights, action, place, resource)) if rights is not None else []
        for kind, name, rule in deciding:
            names = known.setdefault(kind, {})
            if len(names) < MAX_NAMES:
                names[name] = None
            use = uses.setdefault(rule.origin, Use(rule.origin))
            use.events += allowed
            use.first_ns = seen.first_ns if use.first_ns is None else min(use.first_ns, seen.first_ns)
            use.last_ns = seen.last_ns if use.last_ns is None else max(use.last_ns, seen.last_ns)
            _note(use, client, (kind, name))
        if not deciding:
            result.unmatched += allowed
    _count_admitted(result, known)
    return result


def _note(use: Use, client: Client, name: tuple[_Kind, str]) -> None:
    if len(use.names) < MAX_NAMES:
        use.names[name] = None
    if len(use.users) < MAX_NAMES:
        use.users[client.user or "(anonymous)"] = None


def _carried(grants: Grants, resource: Resource) -> Place | None:
    """Return the resource's name as the broker carries it."""
    space = space_of(resource)
    if space is None or resource.truncated:
        return None
    return grants.carried(Place(space, resource.name))


def _deciding(rights: Rights, action: Action, place: Place, resource: Resource) -> Iterator[tuple[_Kind, str, Rule]]:
    """Yield the rules under which this was allowed, with what they were asked: of its exchange, of the name itself."""
    space = place.space
    if space.family == "key":
        decision = rights.rules(action, EXCHANGES).decide(space.within)
        if decision.allowed and decision.rule is not None:
            yield (action, EXCHANGES), space.within, decision.rule
    rules = rights.rules(action, space)
    wanted = pattern_of(resource) if action is Action.SUBSCRIBE else None
    if wanted is not None and not is_literal(wanted):
        asked = space.syntax.parse(place.pattern)
        for rule in rules.rules:
            if rule.allow and names_overlap(rule.names, asked):
                yield (action, space), place.pattern, rule
        return
    decision = rules.decide(place.pattern)
    if decision.allowed and decision.rule is not None:
        yield (action, space), place.pattern, decision.rule


def _count_admitted(result: Usage, known: dict[_Kind, dict[str, None]]) -> None:
    """Count for each grant with wildcards how many of the names that anybody used it admits."""
    for use in result.uses.values():
        if not use.events:
            continue
        total = 0
        wild = False
        for kind, names in use.kinds.items():
            wild = wild or not is_literal(names)
            # Names under it by other holders are among those used, so the share is never more than all.
            used = {name for where, name in use.names if where == kind}
            total += len(used | {name for name in known.get(kind, {}) if names_match(names, name)})
        use.admitted = total if wild else None
