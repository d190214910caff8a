"""Is every topic one filter matches also matched by some of many others? If not, a topic that shows it.

Level names come from an endless alphabet, so whatever a wildcard of the filter stands for, a name that no other filter
spells out is covered by the fewest of them: only wildcards match it. One fresh name for each `+`, and ever more of them
for `#`, therefore decides inclusion exactly, in one walk down the trie of the others and without search. Freshness is
needed per level only, against the literals that could still match there.

Three things bend this: at the first level, wildcards stand only for names that do not begin with `$`; the empty name is
no topic, so `/#` does not match its parent; and a name has at most 65535 bytes, so every fresh name can be too long.
A broker's own limits (Mosquitto: 200 levels) are not looked at.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Final

from topicwarden.patterns.filter_index import build_trie
from topicwarden.patterns.mqtt import MAX_BYTES, LevelPattern, Special, is_name, parse

BUDGET: Final = 10_000_000
"""Trie nodes looked at before the answer is `Undecided`; some seconds."""
_SHORT_NAMES: Final = "xyzabcdefghijklmnopqrstuvw0123456789"


@dataclass(frozen=True, slots=True)
class Covered:
    """Every topic the filter matches is matched by the others too (also when it matches none)."""


@dataclass(frozen=True, slots=True)
class Witness:
    """`topic` is matched by the filter and by none of the others; none with fewer levels is.

    For binding keys it is a routing key, and its levels are words.
    """

    topic: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """Given up; says nothing about inclusion."""

    reason: str


Answer = Covered | Witness | Undecided


class FilterUnion:
    """Filters joined by "or", built once to ask many times whether others are covered.

    A str is a plain MQTT filter, in which `%u` is an ordinary level; a policy's filters come through `bind`. Raises
    ValueError when a filter is not valid or holds an unbound placeholder.
    """

    def __init__(self, by: Sequence[str | LevelPattern]) -> None:
        self._root, _ = build_trie(_bound(f) for f in by)

    def uncovered(self, f: str | LevelPattern, *, budget: int = BUDGET) -> Answer:
        """Say whether every topic that `f` matches is matched by the union, with a shortest witness if not."""
        pattern = _bound(f)
        if not _possible(pattern):
            return Covered()
        levels = pattern.levels
        open_end = levels[-1] is Special.REST
        fixed = len(levels) - open_end
        dollar = isinstance(levels[0], str) and levels[0].startswith("$")
        if self._root.rest and not dollar:
            return Covered()
        name: list[str] = []
        avoided: dict[int, Sequence[Container[str]]] = {}
        active = [self._root]
        left = budget
        # Ends: without `#` at the filter's last level, with it at the latest below the trie's deepest node, where
        # nothing is active and so nothing covers.
        while True:
            left -= len(active)
            if left < 0:
                return Undecided(f"gave up after looking at {budget} levels of the other filters")
            level = levels[len(name)] if len(name) < fixed else Special.ONE
            wild = [] if dollar and not name else [node.one for node in active if node.one is not None]
            if isinstance(level, str):
                name.append(level)
                active = wild + [child for node in active if (child := node.literal.get(level)) is not None]
            else:
                spelled = [node.literal for node in active if node.literal]
                avoided[len(name)] = spelled
                name.append(fresh_name(spelled))
                active = wild
            if any(node.rest for node in active):
                return Covered()
            if len(name) >= fixed and name != [""]:
                if not any(node.here for node in active):
                    return _witness(name, avoided)
                if not open_end:
                    return Covered()


def uncovered(f: str | LevelPattern, by: Sequence[str | LevelPattern], *, budget: int = BUDGET) -> Answer:
    """Say whether every topic that `f` matches is matched by at least one of `by`; see `FilterUnion`."""
    return FilterUnion(by).uncovered(f, budget=budget)


def overlap(a: str | LevelPattern, b: str | LevelPattern) -> str | None:
    """Return a topic that both filters match, one with the fewest levels, or None when there is none.

    Takes and raises what `FilterUnion` does.
    """
    patterns = [_bound(a), _bound(b)]
    if not all(_possible(pattern) for pattern in patterns):
        return None
    open_ends = [pattern.levels[-1] is Special.REST for pattern in patterns]
    fixed = [p.levels[:-1] if open_end else p.levels for p, open_end in zip(patterns, open_ends, strict=True)]
    length = max(1, *map(len, fixed))
    if any(length != len(levels) and not open_end for levels, open_end in zip(fixed, open_ends, strict=True)):
        return None
    name: list[str] = []
    free: dict[int, Sequence[Container[str]]] = {}
    for number in range(length):
        literals = {level for levels in fixed if number < len(levels) and isinstance(level := levels[number], str)}
        wild = any(number >= len(levels) or levels[number] is Special.ONE for levels in fixed)
        if len(literals) > 1:
            return None
        if literals:
            name += literals
            if number == 0 and wild and name[0].startswith("$"):
                return None
        else:
            free[number] = ()
            name.append("x")
    if name == [""]:
        if not all(open_ends):
            return None
        free[1] = ()
        name.append("x")
    witness = _witness(name, free)
    return witness.topic if isinstance(witness, Witness) else None


def _bound(f: str | LevelPattern) -> LevelPattern:
    """Take a plain filter apart; refuse placeholders nobody bound."""
    if isinstance(f, str):
        return parse(f)
    if Special.USER in f.levels or Special.CLIENT in f.levels:
        raise ValueError(f"{f.text!r} holds a placeholder: bind it to a client first")
    return f


def _possible(pattern: LevelPattern) -> bool:
    """Whether any valid topic name matches at all."""
    literals = [level for level in pattern.levels if isinstance(level, str)]
    if Special.NOTHING in pattern.levels or pattern.levels == ("",):
        return False
    if any(level and ("/" in level or not is_name(level)) for level in literals):
        return False
    fixed = len(pattern.levels) - (pattern.levels[-1] is Special.REST)
    return sum(len(level.encode()) for level in literals) + max(fixed - 1, 0) <= MAX_BYTES


def fresh_name(spelled: Sequence[Container[str]]) -> str:
    """Return a short, readable level name (or word) that is in none of the containers."""
    names = chain(_SHORT_NAMES, (f"x{number}" for number in count(1)))
    return next(name for name in names if not any(name in literals for literals in spelled))


def _witness(name: Sequence[str], avoided: Mapping[int, Sequence[Container[str]]]) -> Witness | Undecided:
    """Join the levels; where that is too long for a topic name, use the empty level where it is fresh too."""
    topic = "/".join(name)
    if len(topic) * 4 > MAX_BYTES and len(topic.encode()) > MAX_BYTES:
        short = ["" if i in avoided and not any("" in m for m in avoided[i]) else level for i, level in enumerate(name)]
        topic = "/".join(short)
        if len(topic.encode()) > MAX_BYTES:
            return Undecided(f"the names that would show it are longer than {MAX_BYTES} bytes")
    return Witness(topic)
