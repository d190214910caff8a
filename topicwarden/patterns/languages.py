"""Sets of names, however they are written: topic filters, binding keys, regular expressions; compared with each other.

Filters among themselves and binding keys among themselves are compared level by level (`inclusion`,
`dotted_inclusion`), everything else as automata over bytes (`automata`). Either way the answer is exact, with a
shortest name that shows a difference, or `Undecided` with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import Final

from topicwarden.patterns.automata import AutomatonUnion, Domain
from topicwarden.patterns.dotted import KeyPattern, SpecialWord, key_matches, parse_binding, without_placeholders
from topicwarden.patterns.dotted_inclusion import KeyUnion, key_overlap
from topicwarden.patterns.inclusion import BUDGET, Answer, Covered, FilterUnion, Undecided, Witness, overlap
from topicwarden.patterns.lookahead import expression_automaton
from topicwarden.patterns.meet import meet
from topicwarden.patterns.mqtt import LevelPattern, Special, is_name
from topicwarden.patterns.nfa import Automaton, Reading, TooLargeError
from topicwarden.patterns.pattern_automata import EVERY_NAME, key_automaton, level_automaton
from topicwarden.patterns.regex import Regex, regex_beginning, regex_matches, regex_names, regex_problem, regex_syntax

_EVERY_KEY: Final = parse_binding("#")
_EVERY_TOPIC: Final = LevelPattern("#", (Special.REST,))
_DIFFERENCE_BUDGET: Final = BUDGET // 10
"""For what is asked of every expression."""


@dataclass(frozen=True, slots=True)
class Anything:
    """Every name there can be; for topics also those that begin with `$`, which no filter for all of them matches."""

    text: str = "(every name)"

    def __str__(self) -> str:
        return self.text


Names = LevelPattern | KeyPattern | Regex | Anything
"""A set of names. Patterns hold no placeholders. Filters and binding keys never stand in one comparison."""


class NameUnion:
    """Sets of names joined by "or", built once to ask many times whether others are covered."""

    def __init__(self, by: Sequence[Names]) -> None:
        """Raises ValueError for a pattern with a placeholder nobody bound, or for filters and binding keys together."""
        self._everything = any(isinstance(names, Anything) for names in by)
        self._filters = [_bound(names) for names in by if isinstance(names, LevelPattern)]
        self._keys = [without_placeholders(names) for names in by if isinstance(names, KeyPattern)]
        self._regexes = list(dict.fromkeys(names for names in by if isinstance(names, Regex)))
        if self._filters and self._keys:
            raise ValueError("topic filters and binding keys have nothing in common to compare")

    def uncovered(self, *wanted: Names, budget: int = BUDGET, newlines: bool = True, empty: bool = True) -> Answer:
        """Say whether every name that is in *all* of `wanted` is in the union, with a shortest witness if not.

        `newlines`: whether names with CR or LF exist: RabbitMQ strips them from names of queues and exchanges, and
        routing keys may hold them (3.10.8). `empty`: whether the empty name is one: it is a routing key, and neither a
        queue nor an exchange that permissions are asked about. The witness is the most readable among the shortest.
        """
        if self._everything:
            return Covered()
        filters = [_bound(names) for names in wanted if isinstance(names, LevelPattern)]
        keys = [without_placeholders(names) for names in wanted if isinstance(names, KeyPattern)]
        regexes = list(dict.fromkeys(names for names in wanted if isinstance(names, Regex)))
        topics = bool(filters or self._filters)
        if topics and (keys or self._keys):
            raise ValueError("topic filters and binding keys have nothing in common to compare")
        if not regexes and not self._regexes:
            answer = (
                self._topics_uncovered(filters, budget, newlines)
                if topics
                else self._keys_uncovered(keys, budget, newlines, empty)
            )
            if answer is not None:
                return answer
        return self._compared(filters, keys, regexes, Domain(topics, newlines, empty), budget)

    @cached_property
    def _filter_union(self) -> FilterUnion:
        return FilterUnion(self._filters)

    @cached_property
    def _key_union(self) -> KeyUnion:
        return KeyUnion(self._keys)

    @cached_property
    def _automaton_union(self) -> AutomatonUnion:
        patterns = [*map(_filter_names, self._filters), *map(_key_names, self._keys)]
        expressions = [names for one in self._regexes if (names := regex_names(one.text)) is not None]
        return AutomatonUnion([*patterns, *expressions])

    def _topics_uncovered(self, filters: Sequence[LevelPattern], budget: int, newlines: bool) -> Answer | None:
        if not filters:
            answer = self._filter_union.uncovered(_EVERY_TOPIC, budget=budget)
            # No wildcard at the first level stands for a name that begins with `$`, and there is no end of those.
            return answer if isinstance(answer, Witness) else Witness(_fresh_dollar_name(self._filters))
        common: LevelPattern | None = filters[0]
        for other in filters[1:]:
            common = None if common is None else meet(common, other)
        if common is None or (not newlines and _has_newline(common.levels)):
            return Covered()
        return self._filter_union.uncovered(common, budget=budget)

    def _keys_uncovered(self, keys: Sequence[KeyPattern], budget: int, newlines: bool, empty: bool) -> Answer | None:
        """Answer with words alone; None where that cannot be."""
        if not keys and not self._keys:
            return Witness("a")  # a name of every notation
        if len(set(keys)) > 1:
            return None
        wanted = keys[0] if keys else _EVERY_KEY
        if not newlines and _has_newline(wanted.words):
            return Covered()
        answer = self._key_union.uncovered(wanted, budget=budget)
        return None if answer == Witness("") and not empty else answer

    def _compared(
        self,
        filters: Sequence[LevelPattern],
        keys: Sequence[KeyPattern],
        regexes: Sequence[Regex],
        domain: Domain,
        budget: int,
    ) -> Answer:
        wanted = [*map(_filter_names, filters), *map(_key_names, keys)]
        unknown = [one for one in regexes if regex_problem(one.text) is not None]
        wanted += [names for one in regexes if (names := regex_names(one.text)) is not None]
        answer = self._automaton_union.uncovered(wanted or [EVERY_NAME], domain, budget)
        if not isinstance(answer, Witness):
            # Without the unknown expressions `wanted` is wider, so covered is covered with them too.
            return _undecided(unknown[0]) if unknown and isinstance(answer, Undecided) else answer
        for one in unknown:
            if regex_matches(one.text, answer.topic) is not True:
                return _undecided(one)
        for one in self._regexes:
            if regex_problem(one.text) is not None and regex_matches(one.text, answer.topic) is not False:
                return _undecided(one)
        return answer


def names_match(names: Names, name: str) -> bool | None:
    """Whether a set holds a name; None when that cannot be told (an expression that is not supported)."""
    match names:
        case Anything():
            return True
        case KeyPattern():
            return key_matches(names, name)
        case LevelPattern():
            return _filter_matches(_bound(names), name)
        case Regex(text):
            return regex_matches(text, name)


def is_literal(names: Names) -> bool:
    """Whether a set is one name, spelt out; an expression never counts as one, whatever it says."""
    match names:
        case LevelPattern(levels=parts) | KeyPattern(words=parts):
            return all(isinstance(part, str) for part in parts)
        case _:
            return False


def names_overlap(a: Names, b: Names) -> bool | None:
    """Whether some name is in both sets; None when that cannot be told."""
    if isinstance(a, LevelPattern) and isinstance(b, LevelPattern):
        return overlap(a, b) is not None
    if isinstance(a, KeyPattern) and isinstance(b, KeyPattern):
        return key_overlap(a, b) is not None
    ours, theirs = _beginning(a), _beginning(b)
    if not ours.startswith(theirs) and not theirs.startswith(ours):
        return False
    match _NOTHING.uncovered(a, b):
        case Covered():
            return False
        case Witness():
            return True
        case Undecided():
            return None


def _beginning(names: Names) -> bytes:
    """Return bytes that every name of a set begins with; most sets that have nothing in common differ there."""
    match names:
        case Regex(text=text):
            return regex_beginning(text)
        case KeyPattern(words=words):
            literal = list(takewhile(lambda word: isinstance(word, str), words))
            return ".".join(map(str, literal)).encode("utf-8", "surrogateescape")
        case _:
            return b""


def unanchored(regex: Regex) -> Witness | None:
    """Return a name that is matched only because the expression is searched for, and need not match as a whole.

    None when there is none, also when that cannot be told. The line feed that `$` tolerates at the end and those that
    `.` does not stand for are not what this is about: names with CR or LF are left out.
    """
    return _difference(regex, Reading(anywhere=False, whole=True), Domain(newlines=False))


def dollar_newline(regex: Regex) -> str | None:
    """Return a name that ends with a line feed and is matched only because `$` tolerates that; None: there is none."""
    found = _difference(regex, Reading(strict_end=True), Domain())
    return None if found is None else found.topic


def _difference(regex: Regex, strictly: Reading, domain: Domain) -> Witness | None:
    """Return a name in which an expression is found, and is not when it is read more strictly."""
    tree, found = regex_syntax(regex.text).tree, regex_names(regex.text)
    if tree is None or found is None:
        return None
    try:
        strict = expression_automaton(tree, strictly)
    except TooLargeError:
        return None
    answer = AutomatonUnion([strict]).uncovered([found], domain, _DIFFERENCE_BUDGET)
    return answer if isinstance(answer, Witness) else None


def _undecided(regex: Regex) -> Undecided:
    problem = regex_problem(regex.text) or "it cannot be told whether it matches"
    return Undecided(f"{regex.text!r}: {problem}")


def _bound(pattern: LevelPattern) -> LevelPattern:
    if Special.USER in pattern.levels or Special.CLIENT in pattern.levels:
        raise ValueError(f"{pattern.text!r} holds a placeholder: bind it to a client first")
    return pattern


def _has_newline(parts: Sequence[str | Special | SpecialWord]) -> bool:
    return any(isinstance(part, str) and ("\n" in part or "\r" in part) for part in parts)


def _fresh_dollar_name(filters: Sequence[LevelPattern]) -> str:
    """Return a topic of one level that begins with `$` and that none of the filters spells out."""
    spelled = {pattern.levels[0] for pattern in filters}
    name = "$"
    while name in spelled:
        name += "x"
    return name


def _filter_matches(pattern: LevelPattern, topic: str) -> bool:
    """Whether a filter matches a topic, level by level; see `mqtt.matches`."""
    if not is_name(topic):
        return False
    wanted, given = pattern.levels, topic.split("/")
    if isinstance(wanted[0], Special) and topic.startswith("$"):
        return False
    open_end = wanted[-1] is Special.REST
    fixed = wanted[: len(wanted) - open_end]
    if len(given) < len(fixed) or (len(given) > len(fixed) and not open_end):
        return False
    return all(level is Special.ONE or level == each for level, each in zip(fixed, given, strict=False))


_PATTERNS_KEPT: Final = 1 << 12


@lru_cache(maxsize=_PATTERNS_KEPT)
def _key_names(pattern: KeyPattern) -> Automaton:
    return key_automaton(pattern)


@lru_cache(maxsize=_PATTERNS_KEPT)
def _filter_names(pattern: LevelPattern) -> Automaton:
    return level_automaton(pattern)


_NOTHING: Final = NameUnion([])
