"""Automata joined by "or" and made deterministic as far as somebody looks (lazy subset construction)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from topicwarden.patterns.nfa import Automaton

_KEPT: Final = 1_000_000
"""States in all subsets together that are kept from one question to the next."""

_WORK: Final = 4
"""What looking at one state of a subset counts against a budget, which bounds memory by that too."""


class Subset:
    """States that some name leads to."""

    __slots__ = ("accepting", "everything", "following", "states")

    def __init__(self, states: frozenset[int], accepting: bool, everything: bool) -> None:
        self.states = states
        self.accepting = accepting
        self.everything = everything
        """Whether every name is accepted from here."""
        self.following: dict[int, Subset] = {}
        """By class of byte; only those looked at."""


class Subsets:
    """The union of automata; built once, and asked for what follows a subset by a byte."""

    def __init__(self, automata: Sequence[Automaton]) -> None:
        self._rows: list[tuple[bytes, Mapping[int, tuple[int, ...]], int]] = []
        self._accepting: set[int] = set()
        self._everything: set[int] = set()
        starts: list[int] = []
        for one in automata:
            offset = len(self._rows)
            self._rows.extend((one.table, moves, offset) for moves in one.moves)
            self._accepting.update(state + offset for state in one.accepting)
            if one.everything is not None:
                self._everything.add(one.everything + offset)
            starts.extend(state + offset for state in one.starts)
        self.table: Final = _joined_table([one.table for one in automata])
        """The class of each byte."""
        self._starts = frozenset(starts)
        self.work = 0
        """Done so far, for budgets."""
        self._known: dict[frozenset[int], Subset] = {}
        self._size = 0
        self._universal = Subset(frozenset(self._everything), accepting=True, everything=True)

    def start(self) -> Subset:
        """Return where every name begins. Subsets of earlier questions may be forgotten by this."""
        if self._size > _KEPT:
            self._known.clear()
            self._size = 0
        return self._subset(self._starts)

    def step(self, current: Subset, byte: int) -> Subset:
        """Return where a byte leads."""
        letter = self.table[byte]
        found = current.following.get(letter)
        if found is None:
            self.work += _WORK * len(current.states)
            reached: set[int] = set()
            for state in current.states:
                table, moves, offset = self._rows[state]
                for target in moves.get(table[byte], ()):
                    reached.add(target + offset)
            found = current.following[letter] = self._subset(frozenset(reached))
        return found

    def _subset(self, states: frozenset[int]) -> Subset:
        if not states.isdisjoint(self._everything):
            return self._universal
        found = self._known.get(states)
        if found is None:
            found = self._known[states] = Subset(states, not states.isdisjoint(self._accepting), everything=False)
            self._size += len(states) + 8
        return found


def _joined_table(tables: Sequence[bytes]) -> bytes:
    """Return classes of bytes that none of the tables tells apart."""
    numbers: dict[tuple[int, ...], int] = {}
    different = list(dict.fromkeys(tables))
    if not different:
        return bytes(256)
    return bytes(numbers.setdefault(kinds, len(numbers)) for kinds in zip(*different, strict=True))
