"""How far a name is from local naming: where it leaves what policy and baseline know, and what it says by itself.

Looked at once for each name. Two kinds of signs are kept apart. *Firm* ones lie in the name: words of command and
control, no readable level at all, a naming rule of the policy that it breaks. *Relative* ones lie in its being new
here, and are worth as much as what is known of the place: a baseline that covers half of what it was learnt from says
little of a name it does not know. They end once many users have used what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from topicwarden.events import Resource, ResourceKind
from topicwarden.findings import TopicWords
from topicwarden.findings.topic_words import MAX_LEVEL, SHORTEST
from topicwarden.patterns import strip_share
from topicwarden.policy import Baseline, Place, Policy, Space, UsualLevel, level_shape, space_of

DEPARTURE: Final = 0.7
"""Sign of a name whose first level nobody uses here; less the deeper it is that the name leaves what is known."""
DEPARTURE_FALL: Final = 0.35
RANDOM_WORD: Final = 0.6
"""Added, as an independent sign, when the new level is random."""
ENDS_EARLY: Final = 0.3
"""Sign of a name that ends where all names known go on."""
UNREADABLE: Final = 0.7
"""Sign of a name without any level that can be read."""
MOST_WORDS: Final = 0.95
"""What words can say at most."""
BROKEN_RULE: Final = 0.6
"""Sign of a name that breaks a naming rule of the policy."""
ODD_SHAPE: Final = 0.25
"""Sign of an open level that is not built as such levels are, and when it is random besides."""
ODD_AND_RANDOM: Final = 0.7
ODD_LENGTH: Final = 0.3
LENGTH_FACTOR: Final = 2
LENGTH_SPARE: Final = 8
"""An open level is too long above twice the longest and so many characters."""
MAX_LEVELS: Final = 32
"""Levels that are looked at."""
MAX_WAYS: Final = 256
"""Ways that a filter's wildcards are followed; one with more is not judged further."""
_ASKING: Final = (ResourceKind.TOPIC, ResourceKind.BINDING)
"""What may hold wildcards: topics do not, and filters have their kind."""
_KEPT: Final = 1 << 14
_SHOWN: Final = 40


@dataclass(slots=True)
class _Node:
    """A level in a tree of patterns."""

    words: dict[str, _Node] = field(default_factory=dict)
    any: _Node | None = None
    level: UsualLevel | None = None
    """What is known of the words of the open level that leads here."""
    rest: bool = False
    """Whether the policy knows everything from here on."""
    ends: bool = False
    """Whether a pattern ends here."""
    topic: int = 0
    """Number of the usual topic that ends here, from 1; 0: none."""


class _Path(NamedTuple):
    """One way through the tree."""

    node: _Node
    spelled: int = 0
    """Bits of the levels that are spelled out by the pattern."""
    oddness: float = 0.0
    odd_level: int = -1


class NameView(NamedTuple):
    """What is to be said of a name."""

    sign: float
    """How unusual it is, 0 to 1, all signs together."""
    firm: float
    """The same without what ends once many users have used it."""
    novelty: bytes = b""
    """What is new, as a digest that equal novelties share; empty: nothing."""
    topic: int = 0
    """Number of the usual topic it is of, from 1; 0: none."""
    measured: bool = False
    """Whether local naming could be asked at all."""
    words: Mapping[str, float] = {}
    """The words of command and control in it."""
    breaks_rule: bool = False
    unreadable: bool = False
    odd_level: int = -1
    """The level that is not built as it should be; -1: none."""
    departs: int = -1
    """The level at which it leaves the names known; -1: it does not."""


class LocalNames:
    """The names that policy and baseline know, and how far others are from them."""

    def __init__(self, policy: Policy | None, baseline: Baseline | None, words: TopicWords) -> None:
        self._words = words
        self._roots: dict[Space, _Node] = {}
        self._suspicious = lru_cache(_KEPT)(words.suspicious)
        self._random = lru_cache(_KEPT)(words.random)
        granted = [rule.place for role in policy.roles.values() for rule in role.publish] if policy else []
        named = [rule.within.place for rule in policy.naming] if policy else []
        for place in (*granted, *named):
            self._add(place)
        for number, entry in enumerate(baseline.topics if baseline else (), 1):
            self._add(entry.place, entry.levels, number)
        known = [entry.place for entry in baseline.topics] if baseline else []
        self._covered = dict.fromkeys({p.space.family for p in known}, baseline.learnt.covered) if baseline else {}
        # What a role may do is meant to be all that happens; a naming rule says nothing of names elsewhere.
        self._covered.update({place.space.family: 1.0 for place in granted})

    def _add(self, place: Place, levels: Iterable[UsualLevel] = (), topic: int = 0) -> None:
        syntax = place.space.syntax
        node = self._roots.setdefault(place.space, _Node())
        described = iter(levels)
        for level in place.levels:
            if level == syntax.rest:
                node.rest = True
                return
            if level in syntax.specials:
                if node.any is None:
                    node.any = _Node()
                node, level_known = node.any, next(described, None)
                # Where several patterns are open, the first one that says something of the words counts.
                node.level = node.level or level_known
            else:
                node = node.words.setdefault(level, _Node())
        node.ends = True
        node.topic = node.topic or topic

    def view(self, resource: Resource, *, breaks_rule: bool) -> NameView:
        """Judge a name. `breaks_rule`: whether it breaks a naming rule of the policy."""
        space = space_of(resource)
        if space is None or resource.made_up:
            return NameView(0.0, 0.0)
        levels = _levels(resource, space)
        deeper = len(levels) > MAX_LEVELS
        levels = levels[:MAX_LEVELS]
        said = self._words.hints(resource.name)
        if resource.truncated:
            words = self._said(levels, 0) if said else {}
            return NameView(_together(words), _together(words), words=words)
        covered = self._covered.get(space.family, 0.0)
        path, depth, known = self._walk(space, levels, asks=resource.kind in _ASKING)
        words = self._said(levels, path.spelled) if said else {}
        relative, novelty, departs = path.oddness, b"", False
        if not known and covered and not (deeper and depth == len(levels)):
            departs = True
            leaves, word = ENDS_EARLY, ""
            if depth < len(levels):
                word = levels[depth]
                leaves = DEPARTURE / (1 + DEPARTURE_FALL * depth)
                if self._is_random(word):
                    leaves = either(leaves, RANDOM_WORD)
            relative = either(relative, leaves * covered)
            novelty = _digest(space, levels, path, depth, word)
        elif path.odd_level >= 0:
            novelty = _digest(space, levels, path, path.odd_level, level_shape(levels[path.odd_level]))
        # Clients name queues for their replies at random, and the default exchange's keys are names of queues.
        unreadable = not known and resource.within != "amq.default" and self._unreadable(levels)
        firm = either(_together(words), BROKEN_RULE if breaks_rule else 0.0, UNREADABLE if unreadable else 0.0)
        return NameView(
            either(firm, relative),
            firm,
            novelty=novelty,
            topic=path.node.topic if known else 0,
            measured=bool(covered),
            words=words,
            breaks_rule=breaks_rule,
            unreadable=unreadable,
            odd_level=path.odd_level,
            departs=depth if departs else -1,
        )

    def why(self, resource: Resource, view: NameView, *, common: bool) -> list[str]:
        """Say in words what is unusual about a name; `common`: whether what is new about it is new no more."""
        said = []
        if view.words:
            named = ", ".join(sorted(view.words, key=lambda word: (-view.words[word], word)))
            said.append(f"words of command and control: {named}")
        if view.breaks_rule:
            said.append("it breaks the naming of the policy")
        if view.unreadable:
            said.append("no level of it can be read")
        space = space_of(resource)
        if common or space is None:
            return said
        levels = _levels(resource, space)
        if view.odd_level >= 0:
            odd = _short(levels[view.odd_level])
            said.append(f"level {view.odd_level + 1} {odd} is not built as that level is here")
        if view.departs >= 0:
            said.append(_new(space, levels, view.departs, known_space=space in self._roots))
        return said

    def _walk(self, space: Space, levels: list[str], *, asks: bool) -> tuple[_Path, int, bool]:
        """Follow a name through the tree. `asks`: it may be a filter, whose wildcards go every way that is known.

        Returns the best path that admits it, or the best of those that went deepest; how deep; and whether it admits.
        """
        one, rest = space.syntax.one, space.syntax.rest
        paths = [_Path(self._roots.get(space) or _Node())]
        admitted: list[_Path] = []
        for depth, level in enumerate(levels):
            admitted += [path for path in paths if path.node.rest]
            if asks and (level == rest or (level == one and len(paths) > MAX_WAYS)):
                return _best(admitted or paths), depth, True
            further = []
            for path in paths:
                if asks and level == one:
                    further += [_Path(node, *path[1:]) for node in path.node.words.values()]
                    further += [_Path(path.node.any, *path[1:])] if path.node.any is not None else []
                    continue
                literal = path.node.words.get(level)
                if literal is not None:
                    further.append(_Path(literal, path.spelled | 1 << depth, path.oddness, path.odd_level))
                if path.node.any is not None:
                    further.append(self._through_any(path, path.node.any, level, depth))
            if not further:
                return _best(admitted or paths), depth, bool(admitted)
            paths = further
        admitted += [path for path in paths if path.node.ends or path.node.rest]
        return _best(admitted or paths), len(levels), bool(admitted)

    def _through_any(self, path: _Path, node: _Node, level: str, depth: int) -> _Path:
        sign = 0.0
        if node.level is not None:
            sign = self._oddness(node.level, level)
        if sign > path.oddness:
            return _Path(node, path.spelled, sign, depth)
        return _Path(node, path.spelled, path.oddness, path.odd_level)

    def _oddness(self, usual: UsualLevel, level: str) -> float:
        """Return how little a level looks like those known there."""
        if usual.shapes and level_shape(level) not in usual.shapes:
            return ODD_AND_RANDOM if self._is_random(level) else ODD_SHAPE
        return ODD_LENGTH if len(level) > LENGTH_FACTOR * usual.length.high + LENGTH_SPARE else 0.0

    def _said(self, levels: list[str], spelled: int) -> dict[str, float]:
        """Return the listed words in levels that no pattern spells out, with their weights."""
        found: dict[str, float] = {}
        for depth, level in enumerate(levels):
            if not spelled >> depth & 1:
                found.update(self._suspicious(level[:MAX_LEVEL]))
        return found

    def _unreadable(self, levels: list[str]) -> bool:
        """Whether there is a random level and none that can be read; numbers are neither."""
        random = False
        for level in levels:
            if self._is_random(level):
                random = True
            elif self._words.readable(level[:MAX_LEVEL]):
                return False
        return random

    def _is_random(self, level: str) -> bool:
        return len(level) >= SHORTEST and self._random(level[:MAX_LEVEL])


def _best(paths: list[_Path]) -> _Path:
    """Return the path that explains a name best: the least odd, then a usual topic's, then the most literal.

    Of those as literal, the one that is so first. No two paths through the tree are equal in all.
    """
    if len(paths) == 1:
        return paths[0]
    return min(paths, key=lambda path: (path.oddness, not path.node.topic, *_literal(path.spelled)))


def _literal(spelled: int) -> tuple[int, int]:
    return -spelled.bit_count(), -int(f"{spelled:0{MAX_LEVELS}b}"[::-1], 2)


def either(*signs: float) -> float:
    """Return the sign of several independent ones: 1 - (1 - a)(1 - b)…"""
    none = 1.0
    for sign in signs:
        none *= 1 - sign
    return 1 - none


def _levels(resource: Resource, space: Space) -> list[str]:
    """Return the levels that are looked at, and one more where there are more."""
    name = strip_share(resource.name)[1] if resource.kind is ResourceKind.TOPIC else resource.name
    return name.split(space.syntax.separator, MAX_LEVELS)


def _together(words: Mapping[str, float]) -> float:
    return min(MOST_WORDS, either(*words.values())) if words else 0.0


def _digest(space: Space, levels: list[str], path: _Path, depth: int, what: str) -> bytes:
    """Return what stands for a novelty: short, and the same whatever stands in the open levels before it."""
    before = [level if path.spelled >> place & 1 else "" for place, level in enumerate(levels[:depth])]
    kind = "end" if depth == len(levels) else "shape" if depth == path.odd_level else "word"
    text = "\0".join([space.family, space.within, *before, kind, what])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _new(space: Space, levels: list[str], depth: int, *, known_space: bool) -> str:
    if not known_space:
        return f"nobody here publishes to exchange {_short(space.within)}"
    before = space.syntax.separator.join(levels[:depth])
    if depth == len(levels):
        return "all names known go on where it ends"
    word = _short(levels[depth])
    return f"level {depth + 1} {word} is new below {_short(before)}" if depth else f"no name here begins with {word}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
