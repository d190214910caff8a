"""Are names that several sets share all in a union of others? If not, the most readable of the shortest that is not.

The search goes byte by byte over pairs of a state on the left (one of each set, not made deterministic) and the subset
of states that the union could be in (made deterministic as far as it is walked). A pair whose subset holds that of
another pair seen with the same state can show nothing that the other cannot (antichain). Bytes that nothing tells apart
are tried once, by the most readable of them. What is found first is shortest, and among the names of one length those
that cost a reader least are looked at first.

Bytes are not characters: where some set tells bytes above 127 apart from all of ASCII, a name found may be no UTF-8.
Then it is searched again among names that are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.patterns.byte_sets import ByteSet, byte_range
from topicwarden.patterns.dotted import KEY_MAX_BYTES
from topicwarden.patterns.inclusion import BUDGET, Answer, Covered, Undecided, Witness
from topicwarden.patterns.mqtt import MAX_BYTES
from topicwarden.patterns.nfa import Automaton, Moves, automaton
from topicwarden.patterns.subsets import Subset, Subsets

_TIERS: Final = (
    (b"axbcdefghijklmnopqrstuvwyz", 0),
    (b"0123456789", 1),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 2),
    (b"_-./", 3),
    (b"!\"#$%&'()*+,:;<=>?@[\\]^`{|}~", 5),
    (b" ", 8),
    # Those that make letters of UTF-8 come first: é, and 橩 where it must be longer.
    (bytes(dict.fromkeys([0xC3, 0xA9, 0xE6, *range(0x80, 0x100)])), 20),
    (bytes([*range(0x20), 0x7F]), 60),
)
_COST: Final = [next(cost for letters, cost in _TIERS if byte in letters) for byte in range(256)]
_READABLE: Final = b"".join(letters for letters, _ in _TIERS)
"""All bytes, the most readable first."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Which names there are at all."""

    topics: bool = False
    """MQTT topics: never empty, without `+`, `#` and NUL, at most 65535 bytes. Otherwise keys of at most 255 bytes."""
    newlines: bool = True
    """Whether names hold CR or LF."""
    empty: bool = True
    """Whether the empty name is one."""

    @property
    def letters(self) -> bytes:
        """The bytes names consist of, the most readable first."""
        missing = (b"+#\0" if self.topics else b"") + (b"" if self.newlines else b"\r\n")
        return _READABLE.translate(None, missing)

    @property
    def longest(self) -> int:
        """The longest name in bytes."""
        return MAX_BYTES if self.topics else KEY_MAX_BYTES


class AutomatonUnion:
    """Sets of names joined by "or", built once to ask many times whether others are covered."""

    def __init__(self, by: Sequence[Automaton]) -> None:
        self._by = Subsets(by)

    def uncovered(self, wanted: Sequence[Automaton], domain: Domain, budget: int = BUDGET) -> Answer:
        """Say whether every name in all of `wanted` is in the union, with a shortest witness if not.

        `budget` bounds the states that are looked at.
        """
        search = _Search(self._by, wanted, domain, budget)
        found = search.run()
        if isinstance(found, bytes) and not _is_text(found):
            found = _Search(self._by, [*wanted, _UTF8], domain, search.left).run()
            if found is None:
                return Undecided("only names that are not valid UTF-8 would show it")
        if found is None:
            return Covered()
        if not isinstance(found, bytes):
            return Undecided(f"gave up after looking at {budget} states of the automata")
        if len(found) > domain.longest:
            return Undecided(f"the names that would show it are longer than {domain.longest} bytes")
        return Witness(found.decode())


@dataclass(frozen=True, slots=True)
class _GaveUp:
    """Out of budget."""


_Path = tuple["_Path", int] | None
"""Bytes, last first."""
_Left = tuple[int, ...]
"""A state of each of the wanted sets."""


class _Search:
    def __init__(self, by: Subsets, wanted: Sequence[Automaton], domain: Domain, budget: int) -> None:
        self._by = by
        self._wanted = wanted
        self._domain = domain
        self.left = budget
        letters = domain.letters[::-1]
        tables = [letters.translate(table) for table in (by.table, *(one.table for one in wanted))]
        # Of the bytes that nothing tells apart the last here is kept, the most readable.
        chosen = dict(zip(zip(*tables, strict=True), letters, strict=True))
        self._by_class: dict[int, list[int]] = {}
        for (_, first, *_), byte in chosen.items():
            self._by_class.setdefault(first, []).append(byte)
        self._moves: dict[_Left, list[tuple[int, Sequence[_Left]]]] = {}
        self._seen: dict[_Left, list[Subset]] = {}
        everything = tuple(one.everything for one in wanted)
        self._widest: _Left | None = None if None in everything else tuple(state or 0 for state in everything)

    def run(self) -> bytes | _GaveUp | None:
        """Return the name that shows a difference; None when there is none."""
        start = self._by.start()
        if start.everything:
            return None
        starts = list(itertools.product(*(one.starts for one in self._wanted)))
        if self._domain.empty and not self._domain.topics and not start.accepting and any(map(self._accepts, starts)):
            return b""
        layer: list[tuple[int, _Left, Subset, _Path]]
        layer = [(0, state, start, None) for state in starts if self._is_news(state, start)]
        while layer:
            following: list[tuple[int, int, int, _Left, Subset, _Path]] = []
            worked = self._by.work
            for number, (cost, state, subset, path) in enumerate(layer):
                for rank, (byte, targets) in enumerate(self._leaving(state)):
                    reached = self._by.step(subset, byte)
                    self.left -= len(targets)
                    if not reached.everything:
                        further = (path, byte)
                        price = cost + _COST[byte]
                        following.extend((price, number, rank, target, reached, further) for target in targets)
                self.left -= self._by.work - worked
                worked = self._by.work
                if self.left < 0:
                    return _GaveUp()
            following.sort(key=_by_cost)
            layer = []
            for price, _, _, state, subset, path in following:
                if not subset.accepting and self._accepts(state):
                    return _name(path)
                if self._is_news(state, subset):
                    layer.append((price, state, subset, path))
            if self.left < 0:
                return _GaveUp()
        return None

    def _accepts(self, state: _Left) -> bool:
        return all(each in one.accepting for each, one in zip(state, self._wanted, strict=True))

    def _is_news(self, state: _Left, subset: Subset) -> bool:
        """Whether a pair could show what none seen before can; remembers it then."""
        known = self._seen.setdefault(state, [])
        self.left -= len(known)
        if any(other is subset or other.states <= subset.states for other in known):
            return False
        if self._widest is not None and state != self._widest:
            widest = self._seen.get(self._widest, ())
            self.left -= len(widest)
            if any(other.states <= subset.states for other in widest):
                return False
        known.append(subset)
        return True

    def _leaving(self, state: _Left) -> list[tuple[int, Sequence[_Left]]]:
        """Return the bytes that lead on from a state, the most readable first, and where each leads."""
        found = self._moves.get(state)
        if found is None:
            found = self._moves[state] = sorted(self._compute(state), key=_readability)
        return found

    def _compute(self, state: _Left) -> Iterator[tuple[int, Sequence[_Left]]]:
        first, *others = self._wanted
        for letter, targets in first.moves[state[0]].items():
            for byte in self._by_class.get(letter, ()):
                each = [targets]
                for one, here in zip(others, state[1:], strict=True):
                    each.append(one.moves[here].get(one.table[byte], ()))
                self.left -= len(each)
                both = list(itertools.product(*each))
                if both:
                    yield byte, both


_RANK: Final = {byte: rank for rank, byte in enumerate(_READABLE)}


def _readability(move: tuple[int, Sequence[_Left]]) -> int:
    return _RANK[move[0]]


def _by_cost(step: tuple[int, int, int, _Left, Subset, _Path]) -> tuple[int, int, int]:
    return step[:3]


def _name(path: _Path) -> bytes:
    letters = bytearray()
    while path is not None:
        path, byte = path
        letters.append(byte)
    letters.reverse()
    return bytes(letters)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _utf8() -> Automaton:
    """Return all names that are valid UTF-8 (RFC 3629, section 4)."""
    done, one, two, three, after_e0, after_ed, after_f0, after_f4 = range(8)
    tail = byte_range(0x80, 0xBF)
    leads: list[tuple[ByteSet, tuple[int, ...]]] = [
        (byte_range(0x00, 0x7F), (done,)),
        (byte_range(0xC2, 0xDF), (one,)),
        (byte_range(0xE1, 0xEC) | byte_range(0xEE, 0xEF), (two,)),
        (byte_range(0xF1, 0xF3), (three,)),
        (1 << 0xE0, (after_e0,)),
        (1 << 0xED, (after_ed,)),
        (1 << 0xF0, (after_f0,)),
        (1 << 0xF4, (after_f4,)),
    ]
    moves: Moves = [
        leads,
        [(tail, (done,))],
        [(tail, (one,))],
        [(tail, (two,))],
        [(byte_range(0xA0, 0xBF), (one,))],
        [(byte_range(0x80, 0x9F), (one,))],
        [(byte_range(0x90, 0xBF), (two,))],
        [(byte_range(0x80, 0x8F), (two,))],
    ]
    return automaton(moves, (done,), (done,), None)


_UTF8: Final = _utf8()
