"""Granted against intended: where a broker allows more than the policy, and where less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topicwarden.compare.intent import EXCHANGES, OWN_QUEUES, Intended, Intent, Unions, ask
from topicwarden.compare.principals import Principal
from topicwarden.events import Action
from topicwarden.grants import Kept, Origin, Path, Rule, Rules
from topicwarden.patterns import (
    Answer,
    Covered,
    LevelPattern,
    Names,
    Undecided,
    Witness,
    literal_key,
    names_overlap,
)
from topicwarden.patterns.meet import meet
from topicwarden.policy import Space


@dataclass(frozen=True, slots=True)
class Excess:
    """A rule that admits what no role does, or of which that could not be told."""

    action: Action
    space: Space
    rule: Rule
    answer: Witness | Undecided


@dataclass(frozen=True, slots=True)
class Missing:
    """A permission of the policy that the broker does not grant in full."""

    intended: Intended
    space: Space
    """Where the name is that is denied: for a key this may be its exchange."""
    answer: Witness | Undecided
    rule: Rule | None
    """The rule that denies it; None: nothing allows it."""


def excess(
    principal: Principal, intent: Intent, accepted: Sequence[tuple[Space, Names]], unions: Unions
) -> Iterator[Excess]:
    """Yield every rule of a client that admits a name which neither its roles nor `accepted` places do.

    A name that an earlier rule denies is not admitted.
    """
    for (action, space), rules in principal.rights.by.items():
        # Whether anything in the exchange is intended is asked of the exchange.
        if space.family == "key" and not intent.mentions(action, space):
            continue
        known = [*intent.names(action, space), *(names for where, names in accepted if where == space)]
        union = None
        for rule in rules.rules:
            if not rule.allow:
                known.append(rule.names)
                union = None
                continue
            union = union or unions.of(known)
            answer = ask(union, space, rule.names)
            if not isinstance(answer, Covered):
                yield Excess(action, space, rule, answer)


def indirect(
    principal: Principal, paths: Sequence[Path], intent: Intent, unions: Unions
) -> Iterator[tuple[Path, Witness | Undecided]]:
    """Yield the indirect ways that lead to names which no role intends and no rule allows anyway."""
    for path in paths:
        direct = [rule.names for rule in principal.rights.rules(path.action, path.space).rules if rule.allow]
        allowed = direct if path.space.family != "key" or _exchange_allowed(principal, path) else []
        known = [*intent.names(path.action, path.space), *allowed]
        answer = unions.uncovered(path.space, known, path.names)
        if not isinstance(answer, Covered):
            yield path, answer


def _exchange_allowed(principal: Principal, path: Path) -> bool:
    return principal.rights.rules(path.action, EXCHANGES).decide(path.space.within).allowed is not False


def missing(principal: Principal, intent: Intent, unions: Unions) -> Iterator[Missing]:
    """Yield every permission of a client's roles of which the broker denies a part."""
    for one in intent.permissions:
        place, wanted = one.carried, one.exactly
        if one.place == OWN_QUEUES:
            continue  # the permission to bind stands for them
        if place.space.family == "key" and place.exchange is not None:
            rules = principal.rights.rules(one.action, EXCHANGES)
            found = _denied(rules, EXCHANGES, literal_key(place.exchange), unions)
            if found is not None:
                yield Missing(one, EXCHANGES, *found)
                continue
            if (one.action, place.space) not in principal.rights.by:
                continue  # the exchange is not known, and so not how its keys are decided about
        found = _denied(principal.rights.rules(one.action, place.space), place.space, wanted, unions)
        if found is not None:
            yield Missing(one, place.space, *found)


def _denied(
    rules: Rules, space: Space, wanted: Names, unions: Unions
) -> tuple[Witness | Undecided, Rule | None] | None:
    """Return a name of a set that the rules deny, and the rule that does; None when all are allowed."""
    allowed: list[Names] = []
    undecided: tuple[Witness | Undecided, Rule | None] | None = None
    for rule in rules.rules:
        if rule.allow:
            allowed.append(rule.names)
            continue
        answer: Answer = unions.uncovered(space, allowed, wanted, rule.names)
        if isinstance(answer, Witness):
            return answer, rule
        if isinstance(answer, Undecided):
            undecided = undecided or (answer, rule)
    answer = unions.uncovered(space, [rule.names for rule in rules.rules], wanted)
    if isinstance(answer, Witness):
        return answer, None
    return undecided or (None if isinstance(answer, Covered) else (answer, None))


def kept(principal: Principal, intent: Intent, origin: Origin) -> list[Kept]:
    """Return what of a grant is intended, as the patterns that could stand in its place."""
    parts: dict[Kept, None] = {}
    for (action, space), rules in principal.rights.by.items():
        for rule in rules.rules:
            if not rule.allow or rule.origin != origin:
                continue
            for one in intent.permissions:
                if one.action is not action:
                    continue
                if one.carried.space == space:
                    pattern = _met(rule.names, one)
                    if pattern is not None:
                        parts[Kept(action, space, pattern)] = None
                elif space == EXCHANGES and one.carried.space.family == "key":
                    exchange = one.carried.space.within
                    if names_overlap(rule.names, literal_key(exchange)) is not False:
                        parts[Kept(action, space, exchange)] = None
    return _widest(list(parts))


def _met(granted: Names, one: Intended) -> str | None:
    """Return what a rule and a permission have in common as a pattern; None when that is nothing."""
    if names_overlap(granted, one.exactly) is False:
        return None
    if isinstance(granted, LevelPattern) and isinstance(one.exactly, LevelPattern):
        common = meet(granted, one.exactly)
        if common is None:
            return None
        # As the policy writes it, with its variables, where the grant takes nothing away from it.
        return one.carried.pattern if common.levels == one.exactly.levels else common.text
    return one.carried.pattern


def _widest(parts: list[Kept]) -> list[Kept]:
    """Leave out what another part has too."""
    left = list(parts)
    for part in parts:
        syntax = part.space.syntax
        # Two names that stand for nothing else make placeholders comparable.
        others = [
            syntax.bind(other.pattern, "\x01u", "\x01c")
            for other in left
            if other != part and (other.action, other.space) == (part.action, part.space)
        ]
        wanted = syntax.bind(part.pattern, "\x01u", "\x01c")
        if others and isinstance(syntax.union(others).uncovered(wanted), Covered):
            left.remove(part)
    return left
