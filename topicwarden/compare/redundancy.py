"""Grants that decide nothing: shadowed by others, contradicted by others, denying what nothing allows.

A grant is only called so when it decides nothing for anybody: it is asked of every class of clients until one is found
for which it does decide something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from topicwarden.compare.intent import Unions, ask
from topicwarden.compare.principals import Principal
from topicwarden.events import Action
from topicwarden.grants import Origin, Rule
from topicwarden.patterns import Covered, KeyPattern, LevelPattern, Names, Special, SpecialWord, names_overlap
from topicwarden.policy import Space

SHOWN = 3
"""Grants named that stand in the way of another."""


class Uselessness(StrEnum):
    """Why a grant decides nothing."""

    REDUNDANT = "redundant"
    """Others allow (or deny) all of it as well."""
    CONTRADICTED = "contradicted"
    """Others decide all of it first, and otherwise."""
    IDLE = "idle"
    """It denies what nothing allows."""


@dataclass(slots=True)
class Useless:
    """A grant that decides nothing for anybody."""

    origin: Origin
    why: Uselessness
    principal: Principal
    """One of those it is for."""
    action: Action
    space: Space
    others: tuple[Origin, ...]
    """Grants that together decide in its place."""


@dataclass(slots=True)
class _Case:
    alive: bool = False
    first: Useless | None = field(default=None)


def useless(principals: Iterable[Principal], unions: Unions) -> Iterator[Useless]:
    """Yield the grants that decide nothing for any of the principals, in the order in which they were met."""
    cases: dict[Origin, _Case] = {}
    for principal in principals:
        for (action, space), rules in principal.rights.by.items():
            doubtful = [
                number for number, rule in enumerate(rules.rules) if not cases.setdefault(rule.origin, _Case()).alive
            ]
            if not doubtful:
                continue
            found = _useless_in(rules.rules, space, set(doubtful), unions)
            for number in doubtful:
                case = cases[rules.rules[number].origin]
                if number not in found:
                    case.alive = True
                elif case.first is None:
                    why, others = found[number]
                    origin = rules.rules[number].origin
                    case.first = Useless(origin, why, principal, action, space, others)
    for case in cases.values():
        if not case.alive and case.first is not None:
            yield case.first


def _useless_in(
    rules: Sequence[Rule], space: Space, doubtful: set[int], unions: Unions
) -> dict[int, tuple[Uselessness, tuple[Origin, ...]]]:
    """Return which of the doubtful rules decide nothing, why, and because of whom.

    Rules are gone through in runs that say the same, within which the order means nothing, and in a run from the widest
    to the narrowest: what is wide stays. So a rule that only several narrower ones cover together goes unnoticed.
    """
    found: dict[int, tuple[Uselessness, tuple[Origin, ...]]] = {}
    start = 0
    while start < len(rules):
        end = start
        while end < len(rules) and rules[end].allow == rules[start].allow:
            end += 1
        before = list(range(start))
        beside = [number for number in before if rules[number].allow == rules[start].allow]
        for group in _by_width(rules, range(start, end)):
            asked = _Asked(rules, space, before, tuple(beside), unions)
            first: dict[Names, int] = {}
            for number in group:
                twin = first.setdefault(rules[number].names, number)
                if number in doubtful:
                    if twin != number:
                        found[number] = Uselessness.REDUNDANT, (rules[twin].origin,)
                        continue
                    judged = asked.judge(number)
                    if judged is not None:
                        found[number] = judged
                        continue
                if twin == number:
                    beside.append(number)
        start = end
    return found


class _Asked:
    """Asks of every rule in a group: `before` are all rules that come earlier, `beside` those that say the same."""

    def __init__(
        self, rules: Sequence[Rule], space: Space, before: Sequence[int], beside: Sequence[int], unions: Unions
    ) -> None:
        self._rules = rules
        self._space = space
        self._unions = unions
        mixed = tuple(dict.fromkeys([*before, *beside]))
        self._sides = [
            (others, why, unions.of([rules[number].names for number in others]))
            for others, why in ((tuple(beside), Uselessness.REDUNDANT), (mixed, Uselessness.CONTRADICTED))
            if others
        ]

    def judge(self, number: int) -> tuple[Uselessness, tuple[Origin, ...]] | None:
        """Say why a rule decides nothing, and because of whom; None when it decides something."""
        rule = self._rules[number]
        for others, why, union in self._sides:
            if isinstance(ask(union, self._space, rule.names), Covered):
                return why, self._culprits(rule, others)
        later = self._rules[number + 1 :]
        if not rule.allow and not any(
            other.allow and names_overlap(other.names, rule.names) is not False for other in later
        ):
            return Uselessness.IDLE, ()
        return None

    def _culprits(self, rule: Rule, others: Sequence[int]) -> tuple[Origin, ...]:
        """Return one rule that covers another alone, if there is one, else the first few that do together."""
        overlapping = [n for n in others if names_overlap(self._rules[n].names, rule.names) is not False]
        for number in overlapping:
            union = self._unions.of([self._rules[number].names])
            if isinstance(ask(union, self._space, rule.names), Covered):
                return (self._rules[number].origin,)
        return tuple(dict.fromkeys(self._rules[number].origin for number in overlapping))[:SHOWN]


def _by_width(rules: Sequence[Rule], numbers: Iterable[int]) -> list[list[int]]:
    """Return rules in groups of as many wildcards, the widest first; in a group in their order."""

    def width(number: int) -> tuple[int, int]:
        match rules[number].names:
            case LevelPattern(levels=levels):
                wild = [level for level in levels if not isinstance(level, str)]
                return int(Special.REST in wild), len(wild)
            case KeyPattern(words=words):
                wild_words = [word for word in words if not isinstance(word, str)]
                return int(SpecialWord.MANY in wild_words), len(wild_words)
            case _:
                return 2, 0

    groups: dict[tuple[int, int], list[int]] = {}
    for number in numbers:
        groups.setdefault(width(number), []).append(number)
    return [groups[key] for key in sorted(groups, reverse=True)]
