"""Sets of names as finite automata over bytes, and regular expressions as such automata.

An automaton here has no empty moves and no anchors. An anchor is a condition on the place in the name, so it is worked
into the states: how an expression goes on depends on whether it stands at the start, and, once `$` was passed, on what
is left of the name: nothing, or the one line feed that `$` tolerates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from topicwarden.patterns.byte_sets import ALL, NEWLINE, ByteSet, partition
from topicwarden.patterns.regex_tree import Alternation, Anchor, Concatenation, Lookahead, Node, OneOf, Repeat

MAX_STATES: Final = 20_000
_MAX_WORK: Final = 200_000
"""Empty moves followed while an automaton is built; a few tenths of a second."""


class TooLargeError(Exception):
    """An automaton would have too many states, or too many ways between them."""


@dataclass(frozen=True, slots=True, eq=False)
class Automaton:
    """A nondeterministic automaton over classes of bytes. All of its states lead to an accepting one."""

    table: bytes
    """The class of each byte, for `bytes.translate`."""
    starts: tuple[int, ...]
    moves: Sequence[Mapping[int, tuple[int, ...]]]
    """For each state, by class, the states it leads to."""
    accepting: frozenset[int]
    everything: int | None
    """A state from which every name is accepted."""

    def accepts(self, name: bytes) -> bool:
        """Whether the automaton accepts a name, byte by byte; the plain definition."""
        current = set(self.starts)
        for letter in name.translate(self.table):
            if self.everything in current:
                return True
            current = {target for state in current for target in self.moves[state].get(letter, ())}
        return not current.isdisjoint(self.accepting)


Moves = list[list[tuple[ByteSet, tuple[int, ...]]]]
"""For each state, sets of bytes and the states these lead to."""


def automaton(moves: Moves, starts: Iterable[int], accepting: Iterable[int], everything: int | None) -> Automaton:
    """Put an automaton together, without the states that lead nowhere."""
    ends = set(accepting)
    useful = _leading_to(moves, ends)
    number = {state: index for index, state in enumerate(sorted(useful))}
    table, classes = partition(allowed for state in useful for allowed, _ in moves[state])
    first = tuple(dict.fromkeys(number[state] for state in starts if state in useful))
    if everything is not None and number[everything] in first:
        first = (number[everything],)
    compact: list[dict[int, tuple[int, ...]]] = []
    for state in sorted(useful):
        by_class: dict[int, tuple[int, ...]] = {}
        for allowed, targets in moves[state]:
            kept = tuple(number[target] for target in targets if target in useful)
            if everything in targets and everything is not None:
                kept = (number[everything],)
            if kept:
                for letter in classes[allowed]:
                    known = by_class.get(letter)
                    by_class[letter] = kept if known is None else tuple(dict.fromkeys(known + kept))
        compact.append(by_class)
    return Automaton(
        table,
        first,
        compact,
        frozenset(number[state] for state in ends),
        None if everything is None else number[everything],
    )


def _leading_to(moves: Moves, ends: set[int]) -> set[int]:
    sources: list[list[int]] = [[] for _ in moves]
    for state, leaving in enumerate(moves):
        for _, targets in leaving:
            for target in targets:
                sources[target].append(state)
    useful, waiting = set(ends), list(ends)
    while waiting:
        for state in sources[waiting.pop()]:
            if state not in useful:
                useful.add(state)
                waiting.append(state)
    return useful


def loosened(one: Automaton, offset: int) -> Moves:
    """Return the moves of an automaton as they were before it was put together, with its states `offset` further on."""
    sets: dict[int, ByteSet] = {}
    for byte, letter in enumerate(one.table):
        sets[letter] = sets.get(letter, 0) | 1 << byte
    return [
        [(sets[letter], tuple(target + offset for target in targets)) for letter, targets in moves.items()]
        for moves in one.moves
    ]


class _Left(IntEnum):
    """What must be left of the name."""

    ANY = 0
    NEWLINE = 1
    NOTHING = 2


_EVERYTHING, _END, _LAST_NEWLINE, _ANYWHERE = range(4)
"""States that every automaton of an expression has: accepting whatever follows; accepting the end; reading the last
line feed; looking for a later place to begin at."""

_State = tuple[int, _Left]
_Empty = tuple[int, Anchor | None]


class _Graph:
    """A tree as a graph with empty moves (Thompson's construction), some of which have an anchor as condition."""

    def __init__(self, tree: Node) -> None:
        self.empty: list[list[_Empty]] = []
        self.reads: list[tuple[ByteSet, int] | None] = []
        self.start = self._state()
        self.end = self._add(tree, self.start)

    def _state(self) -> int:
        if len(self.reads) >= MAX_STATES:
            raise TooLargeError
        self.empty.append([])
        self.reads.append(None)
        return len(self.reads) - 1

    def _add(self, node: Node, start: int) -> int:
        """Add what a node reads from a state on; returns the state behind it."""
        match node:
            case OneOf(allowed):
                end = self._state()
                # A state reads one thing only and has no empty moves then.
                reader = self._state()
                self.empty[start].append((reader, None))
                self.reads[reader] = allowed, end
                return end
            case Concatenation(parts):
                for part in parts:
                    start = self._add(part, start)
                return start
            case Alternation(branches):
                end = self._state()
                for branch in branches:
                    begin = self._state()
                    self.empty[start].append((begin, None))
                    self.empty[self._add(branch, begin)].append((end, None))
                return end
            case Repeat(part, least, most):
                return self._repeat(part, least, most, start)
            case Lookahead():
                raise TypeError("what is ahead is no matter of one state; see lookahead.py")
            case Anchor():
                end = self._state()
                self.empty[start].append((end, node))
                return end

    def _repeat(self, part: Node, least: int, most: int | None, start: int) -> int:
        for _ in range(least):
            start = self._add(part, start)
        end = self._state()
        if most is None:
            loop = self._state()
            self.empty[start].append((loop, None))
            self.empty[self._add(part, loop)].append((loop, None))
            self.empty[loop].append((end, None))
            return end
        for _ in range(most - least):
            self.empty[start].append((end, None))
            start = self._add(part, start)
        self.empty[start].append((end, None))
        return end


@dataclass(frozen=True, slots=True)
class Reading:
    """How an expression, or a part of one, is read."""

    anywhere: bool = True
    """Whether it may begin behind the name's start."""
    at_start: bool = True
    """Whether it can begin at the name's start, so that `^` holds there."""
    whole: bool = False
    r"""Whether the name must end with it, or with a line feed after it where it asks for that itself (`$`, `\Z`)."""
    strict_end: bool = False
    r"""Whether `$` and `\Z` mean `\z`."""


SEARCH: Final = Reading()


def regex_automaton(tree: Node, reading: Reading = SEARCH, then: Automaton | None = None) -> Automaton:
    """Return the names in which an expression without lookaheads is found; raises TooLargeError.

    `then`: what must follow up to the name's end; the expression asks for no end itself then.
    """
    return _Flattening(_Graph(tree), reading, then).result()


class _Flattening:
    def __init__(self, graph: _Graph, reading: Reading, then: Automaton | None) -> None:
        self._graph = graph
        self._reading = reading
        self._numbers: dict[_State, int] = {}
        self._waiting: list[_State] = []
        self._moves: Moves = [[(ALL, (_EVERYTHING,))], [], [(NEWLINE, (_END,))], []]
        self._accepting = [_EVERYTHING, _END]
        self._closures: dict[_State, tuple[int, ...]] = {}
        self._work = 0
        self._final: tuple[int, ...] = (_END,) if reading.whole else (_EVERYTHING,)
        if then is not None:
            offset = len(self._moves)
            self._final = tuple(state + offset for state in then.starts)
            self._accepting += (state + offset for state in then.accepting)
            self._moves += loosened(then, offset)

    def result(self) -> Automaton:
        starts = self._reached(self._graph.start, _Left.ANY, at_start=self._reading.at_start)
        if self._reading.anywhere:
            again = self._reached(self._graph.start, _Left.ANY)
            if again:
                self._moves[_ANYWHERE].append((ALL, (_ANYWHERE, *again)))
                starts = (_ANYWHERE, *starts)
        while self._waiting:
            state, left = self._waiting.pop()
            reads = self._graph.reads[state]
            if reads is None:
                continue
            allowed, target = reads
            leaving = self._moves[self._numbers[state, left]]
            if left is _Left.ANY:
                leaving.append((allowed, self._reached(target, _Left.ANY)))
            else:
                leaving.append((NEWLINE, self._reached(target, _Left.NOTHING)))
        return automaton(self._moves, starts, self._accepting, _EVERYTHING)

    def _reached(self, state: int, left: _Left, *, at_start: bool = False) -> tuple[int, ...]:
        """Return the states of the result that empty moves lead to."""
        known = None if at_start else self._closures.get((state, left))
        if known is not None:
            return known
        found: dict[int, None] = {}
        seen = {(state, left)}
        waiting = [(state, left)]
        while waiting:
            here, rest = waiting.pop()
            self._work += 1
            if self._work > _MAX_WORK:
                raise TooLargeError
            if here == self._graph.end:
                found |= dict.fromkeys(self._end(rest))
            reads = self._graph.reads[here]
            if reads is not None and (rest is _Left.ANY or (rest is _Left.NEWLINE and reads[0] & NEWLINE)):
                found[self._number(here, rest)] = None
            for target, anchor in self._graph.empty[here]:
                for then in self._passing(anchor, rest, at_start):
                    if (target, then) not in seen:
                        seen.add((target, then))
                        waiting.append((target, then))
        result = (_EVERYTHING,) if _EVERYTHING in found else tuple(found)
        if not at_start:
            self._closures[state, left] = result
        return result

    def _end(self, left: _Left) -> tuple[int, ...]:
        """Return the states that the end of the expression leads to."""
        match left:
            case _Left.ANY:
                return self._final
            case _Left.NEWLINE:
                return (_LAST_NEWLINE,)
            case _Left.NOTHING:
                return (_END,)

    def _passing(self, anchor: Anchor | None, left: _Left, at_start: bool) -> tuple[_Left, ...]:
        """Return what may be left of the name behind an anchor; nothing where it holds not."""
        match anchor:
            case None:
                return (left,)
            case Anchor.START:
                return (left,) if at_start else ()
            case Anchor.END_OR_LAST_NEWLINE if not self._reading.strict_end:
                return (_Left.NOTHING, _Left.NEWLINE) if left is _Left.ANY else (left,)
            case _:
                return () if left is _Left.NEWLINE else (_Left.NOTHING,)

    def _number(self, state: int, left: _Left) -> int:
        number = self._numbers.get((state, left))
        if number is None:
            number = self._numbers[state, left] = len(self._moves)
            if number >= MAX_STATES:
                raise TooLargeError
            self._moves.append([])
            self._waiting.append((state, left))
        return number
