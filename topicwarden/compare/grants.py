"""Granted against intended: where a broker allows more than the policy, and where less."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from topicwarden.compare.intent import EXCHANGES, OWN_QUEUES, QUEUES, Intended, Intent, Unions, ask
from topicwarden.compare.principals import Principal
from topicwarden.events import Action
from topicwarden.grants import Kept, Origin, Path, Rule, Rules
from topicwarden.patterns import (
    Answer,
    Covered,
    KeyPattern,
    LevelPattern,
    Names,
    SpecialWord,
    Undecided,
    Witness,
    is_literal,
    literal_key,
    names_match,
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
    inseparable: bool = False
    """Whether the same grant is for names of another kind too, of which the policy intends all that this is about: the
    broker has one permission for queues and exchanges, so nothing narrower can be said."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A permission of the policy that the broker does not grant in full."""

    intended: Intended
    space: Space
    """Where the name is that is denied: for a key this may be its exchange."""
    answer: Witness | Undecided
    rule: Rule | None
    """The rule that denies it; None: nothing allows it."""


def excess(principal: Principal, intent: Intent, unions: Unions) -> Iterator[Excess]:
    """Yield every rule of a client that admits a name which none of its roles does.

    A name that an earlier rule denies is not admitted.
    """
    for (action, space), rules in principal.rights.by.items():
        # Whether anything in the exchange is intended is asked of the exchange.
        if space.family == "key" and not intent.mentions(action, space):
            continue
        known = list(intent.names(action, space))
        union = None
        for rule in rules.rules:
            if not rule.allow:
                known.append(rule.names)
                union = None
                continue
            union = union or unions.of(known)
            answer = ask(union, space, rule.names)
            if isinstance(answer, Covered):
                continue
            beside = [
                names
                for (other_action, other), listed in principal.rights.by.items()
                if other_action is action and other != space
                if any(one.origin == rule.origin and one.names == rule.names for one in listed.rules)
                for names in intent.names(action, other)
            ]
            inseparable = bool(beside) and isinstance(unions.uncovered(space, [*known, *beside], rule.names), Covered)
            yield Excess(action, space, rule, answer, inseparable)


def indirect(
    principal: Principal, paths: Sequence[Path], intent: Intent, unions: Unions
) -> Iterator[tuple[Path, Witness | Undecided]]:
    """Yield the indirect ways that lead to names which no role intends and no rule allows anyway."""
    for path in paths:
        if path.queue is not None and (
            not intent.permissions or _holds(intent.names(Action.SUBSCRIBE, QUEUES), path.queue)
        ):
            continue
        direct = [rule.names for rule in principal.rights.rules(path.action, path.space).rules if rule.allow]
        allowed = direct if path.space.family != "key" or _exchange_allowed(principal, path) else []
        known = [*intent.names(path.action, path.space), *allowed]
        answer = unions.uncovered(path.space, known, path.names)
        if not isinstance(answer, Covered):
            yield path, answer


def _holds(sets: Sequence[Names], name: str) -> bool:
    return any(names_match(names, name) for names in sets)


def _exchange_allowed(principal: Principal, path: Path) -> bool:
    return principal.rights.rules(path.action, EXCHANGES).decide(path.space.within).allowed is not False


def missing(
    principal: Principal, intent: Intent, unions: Unions, written: Container[Origin] | None = None
) -> Iterator[Missing]:
    """Yield every permission of a client's roles of which the broker denies a part.

    `written`: the grants that stand in the configuration; what a broker refuses by itself, such as names it keeps for
    itself, no grant can give and none lacks. None: all are.
    """
    for one in intent.permissions:
        place, wanted = one.carried, one.exactly
        if one.place == OWN_QUEUES:
            continue  # the permission to bind stands for them
        if place.space.family == "key" and place.exchange is not None:
            rules = principal.rights.rules(one.action, EXCHANGES)
            found = _denied(rules, EXCHANGES, literal_key(place.exchange), unions, written)
            if found is not None:
                yield Missing(one, EXCHANGES, *found)
                continue
            if (one.action, place.space) not in principal.rights.by:
                continue  # the exchange is not known, and so not how its keys are decided about
        found = _denied(principal.rights.rules(one.action, place.space), place.space, wanted, unions, written)
        if found is not None:
            yield Missing(one, place.space, *found)


_Denial = tuple[Witness | Undecided, Rule | None]


def _denied(
    rules: Rules, space: Space, wanted: Names, unions: Unions, written: Container[Origin] | None
) -> _Denial | None:
    """Return a name of a set that the rules deny, and the rule that does; None when all are allowed."""
    # The shortest name of all in the set, if it is denied, is a shortest one that is.
    name = _shortest(wanted, space)
    if name is not None:
        decision = rules.decide(name)
        if decision.allowed is False and (decision.rule is None or written is None or decision.rule.origin in written):
            return Witness(name), decision.rule
        if decision.allowed and is_literal(wanted):
            return None  # it is the only one
    allowed: list[Names] = []
    undecided: _Denial | None = None
    for rule in rules.rules:
        if rule.allow or (written is not None and rule.origin not in written):
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


def _shortest(wanted: Names, space: Space) -> str | None:
    """Return a shortest name that a key pattern matches; None for other sets, which are compared quickly anyway."""
    if not isinstance(wanted, KeyPattern) or SpecialWord.NOTHING in wanted.words:
        return None
    words = ["x" if word is SpecialWord.ONE else word for word in wanted.words if word is not SpecialWord.MANY]
    name = ".".join(word for word in words if isinstance(word, str))
    return name or (None if words else "" if space.family == "key" else "x")


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
                    if names_match(rule.names, exchange) is not False:
                        parts[Kept(action, space, exchange)] = None
    return _widest(list(parts))


def whole(intent: Intent) -> list[Kept]:
    """Return all that is intended for a client."""
    return [Kept(one.action, one.carried.space, one.carried.pattern) for one in intent.permissions]


def _met(granted: Names, one: Intended) -> str | None:
    """Return what a rule and a permission have in common as a pattern; None when that is nothing."""
    if isinstance(granted, LevelPattern) and isinstance(one.exactly, LevelPattern):
        common = meet(granted, one.exactly)
        if common is None:
            return None
        # As the policy writes it, with its variables, where the grant takes nothing away from it.
        return one.carried.pattern if common.levels == one.exactly.levels else common.text
    # One name that both have is enough, and found without comparing them.
    name = _shortest(one.exactly, one.carried.space)
    common_name = name is not None and names_match(granted, name)
    return one.carried.pattern if common_name or names_overlap(granted, one.exactly) is not False else None


def _widest(parts: list[Kept]) -> list[Kept]:
    """Leave out what another part has too; only one with wildcards can have more than itself."""
    found = list(dict.fromkeys(parts))
    kinds: dict[tuple[Action, Space], list[Kept]] = {}
    for part in found:
        kinds.setdefault((part.action, part.space), []).append(part)
    for (_, space), ones in kinds.items():
        syntax = space.syntax
        # Two names that stand for nothing else make placeholders comparable.
        parsed = {part: syntax.bind(part.pattern, "\x01u", "\x01c") for part in ones}
        wild = [part for part in ones if {syntax.one, syntax.rest} & set(syntax.levels(part.pattern))]
        union = syntax.union([parsed[part] for part in wild])
        for part in ones:
            if part not in wild and isinstance(union.uncovered(parsed[part]), Covered):
                found.remove(part)
        # Only what begins alike, or with a wildcard, can cover it.
        beginnings: dict[str, list[Kept]] = {}
        for part in wild:
            beginnings.setdefault(_beginning(part), []).append(part)
        for part in wild:
            rivals = [*beginnings.get(_beginning(part), ()), *(beginnings.get("", ()) if _beginning(part) else ())]
            others = [parsed[other] for other in rivals if other != part and other in found]
            if others and isinstance(syntax.union(others).uncovered(parsed[part]), Covered):
                found.remove(part)
    return found


def _beginning(part: Kept) -> str:
    """Return the first level of a pattern, '' where that is a wildcard."""
    syntax = part.space.syntax
    first = syntax.levels(part.pattern)[0]
    return "" if first in (syntax.one, syntax.rest) else first
