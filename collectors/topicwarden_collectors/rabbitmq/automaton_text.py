"""Finite automata over bytes written as regular expressions, by taking out one state after another.

Made deterministic first, and with states merged that go on alike, what is simple becomes a short text; where that takes
too many states, the text is of the automaton as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from topicwarden.patterns.byte_sets import ALL, ByteSet, members, partition
from topicwarden.patterns.nfa import Automaton
from topicwarden.patterns.regex_syntax import MAX_REGEX_BYTES

MAX_STATES: Final = 400
_MAX_TEXT: Final = MAX_REGEX_BYTES - 8
_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class Graph:
    """An automaton with empty moves that is being built."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.empty = False
        """Whether the empty name is accepted, whatever the states say."""
        self.accepting: set[int] = set()
        self.moves: list[dict[int, ByteSet]] = []
        """For each state, the states it leads to, and by which bytes."""
        self.skips: list[set[int]] = []

    def add(self, *, accepts: bool) -> int:
        """Add a state and return its number."""
        self.moves.append({})
        self.skips.append(set())
        if accepts:
            self.accepting.add(len(self.moves) - 1)
        return len(self.moves) - 1

    def move(self, source: int, allowed: ByteSet, target: int) -> None:
        """Let bytes lead from a state to another."""
        self.moves[source][target] = self.moves[source].get(target, 0) | allowed

    def skip(self, source: int, target: int) -> None:
        """Let nothing lead from a state to another."""
        self.skips[source].add(target)


def expression_of(graph: Graph) -> str | None:
    """Return an expression, anchored, for what an automaton accepts; None when it would be too long."""
    if len(graph.moves) > MAX_STATES:
        return None
    start, moves, accepting = _without_skips(graph)
    text = _eliminated(start, moves, accepting)
    if text is None:
        return None
    whole = "" if text == _NOTHING else text.grouped
    if graph.empty:
        whole = f"(?:{whole})?"
    elif text == _NOTHING:
        whole = r"[^\x00-\xff]"
    return rf"^{whole}\z" if len(whole) <= _MAX_TEXT else None


_Moves = dict[int, dict[int, ByteSet]]


def _without_skips(graph: Graph) -> tuple[int, _Moves, set[int]]:
    """Return the same without empty moves, with a start of its own that nothing leads to and that does not accept."""
    closures = [_reached(graph, [state]) for state in range(len(graph.moves))]
    start = len(graph.moves)
    moves: _Moves = {}
    accepting = set()
    for state, closure in enumerate([*closures, _reached(graph, graph.starts)]):
        leaving = moves.setdefault(state, {})
        for source in closure:
            for target, allowed in graph.moves[source].items():
                leaving[target] = leaving.get(target, 0) | allowed
        if state != start and not closure.isdisjoint(graph.accepting):
            accepting.add(state)
    moves, accepting = _deterministic(start, moves, accepting) or (moves, accepting)
    return start, *_merged(start, moves, accepting)


def _reached(graph: Graph, states: list[int]) -> set[int]:
    found, waiting = set(states), list(states)
    while waiting:
        for target in graph.skips[waiting.pop()]:
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found


def _deterministic(start: int, moves: _Moves, accepting: set[int]) -> tuple[_Moves, set[int]] | None:
    """Return the same with one way to go at most for each byte; None when that takes too many states."""
    table, classes = partition(allowed for leaving in moves.values() for allowed in leaving.values())
    by_class: dict[int, ByteSet] = {}
    for byte, letter in enumerate(table):
        by_class[letter] = by_class.get(letter, 0) | 1 << byte
    numbers = {frozenset((start,)): start}
    waiting = list(numbers)
    result: _Moves = {}
    ends = set()
    while waiting:
        subset = waiting.pop()
        targets: dict[int, set[int]] = {}
        for state in subset:
            for target, allowed in moves[state].items():
                for letter in classes[allowed]:
                    targets.setdefault(letter, set()).add(target)
        leaving = result.setdefault(numbers[subset], {})
        for letter, reached in targets.items():
            following = frozenset(reached)
            if following not in numbers:
                if len(numbers) > MAX_STATES:
                    return None
                numbers[following] = start + len(numbers)
                waiting.append(following)
            number = numbers[following]
            leaving[number] = leaving.get(number, 0) | by_class[letter]
        if not subset.isdisjoint(accepting):
            ends.add(numbers[subset])
    return result, ends


def _merged(start: int, moves: _Moves, accepting: set[int]) -> tuple[_Moves, set[int]]:
    """Merge states that go on in the same way."""
    block = {state: int(state in accepting) + 2 * (state == start) for state in moves}
    while True:
        signatures: dict[object, int] = {}
        refined = {}
        for state, leaving in moves.items():
            by_block: dict[int, ByteSet] = {}
            for target, allowed in leaving.items():
                by_block[block[target]] = by_block.get(block[target], 0) | allowed
            refined[state] = signatures.setdefault((block[state], frozenset(by_block.items())), len(signatures))
        if len(set(refined.values())) == len(set(block.values())):
            break
        block = refined
    first: dict[int, int] = {}
    for state in moves:
        first.setdefault(block[state], state)
    kept: _Moves = {}
    for representative in first.values():
        leaving = kept.setdefault(representative, {})
        for target, allowed in moves[representative].items():
            where = first[block[target]]
            leaving[where] = leaving.get(where, 0) | allowed
    return kept, accepting & set(kept)


@dataclass(frozen=True, slots=True)
class _Text:
    """A piece of an expression."""

    text: str
    kind: str
    """`set`, `run` of pieces, `choice` between them, `empty` or `nothing`."""
    allowed: ByteSet = 0

    @property
    def grouped(self) -> str:
        """The text as a part of a run."""
        return f"(?:{self.text})" if self.kind == "choice" else self.text

    @property
    def repeatable(self) -> str:
        """The text as something a quantifier can follow."""
        return self.text if self.kind == "set" else f"(?:{self.text})"


_NOTHING: Final = _Text("", "nothing")
_EMPTY: Final = _Text("", "empty")


@dataclass(slots=True)
class _Elimination:
    into: dict[int, dict[int, _Text]] = field(default_factory=dict)
    out: dict[int, dict[int, _Text]] = field(default_factory=dict)

    def add(self, source: int, target: int, text: _Text) -> None:
        known = self.out.setdefault(source, {}).get(target, _NOTHING)
        joined = _either(known, text)
        self.out[source][target] = joined
        self.into.setdefault(target, {})[source] = joined


def _eliminated(start: int, moves: _Moves, accepting: set[int]) -> _Text | None:
    end = -1
    graph = _Elimination()
    for state, leaving in moves.items():
        for target, allowed in leaving.items():
            graph.add(state, target, _Text(_set_text(allowed), "set", allowed))
        if state in accepting:
            graph.add(state, end, _EMPTY)
    left = set(moves) - {start}
    while left:
        state = min(left, key=lambda one: (_cost(graph, one), one))
        left.remove(state)
        into, out = graph.into.pop(state, {}), graph.out.pop(state, {})
        loop = _repeated(out.pop(state, _NOTHING))
        into.pop(state, None)
        for source in into:
            del graph.out[source][state]
        for target in out:
            del graph.into[target][state]
        for source, before in into.items():
            for target, after in out.items():
                text = _followed(_followed(before, loop), after)
                if len(text.text) > _MAX_TEXT:
                    return None
                graph.add(source, target, text)
    return graph.out.get(start, {}).get(end, _NOTHING)


def _cost(graph: _Elimination, state: int) -> int:
    into = [text for source, text in graph.into.get(state, {}).items() if source != state]
    out = [text for target, text in graph.out.get(state, {}).items() if target != state]
    loop = len(graph.out.get(state, {}).get(state, _NOTHING).text)
    return (
        sum(len(text.text) for text in into) * len(out)
        + sum(len(text.text) for text in out) * len(into)
        + loop * len(into) * len(out)
    )


def _followed(a: _Text, b: _Text) -> _Text:
    if _NOTHING in (a, b):
        return _NOTHING
    if a == _EMPTY:
        return b
    return a if b == _EMPTY else _Text(a.grouped + b.grouped, "run")


def _either(a: _Text, b: _Text) -> _Text:
    if a in (_NOTHING, b):
        return b
    if b == _NOTHING:
        return a
    if _EMPTY in (a, b):
        other = b if a == _EMPTY else a
        return _Text(f"{other.repeatable}?", "run")
    if a.kind == b.kind == "set":
        return _Text(_set_text(a.allowed | b.allowed), "set", a.allowed | b.allowed)
    return _Text(f"{a.text}|{b.text}", "choice")


def _repeated(a: _Text) -> _Text:
    return _EMPTY if a in (_NOTHING, _EMPTY) else _Text(f"{a.repeatable}*", "run")


def _set_text(allowed: ByteSet) -> str:
    if allowed.bit_count() == 1:
        return _byte_text(allowed.bit_length() - 1)
    if allowed == ALL:
        return r"[\x00-\xff]"
    if allowed.bit_count() > 128:
        return f"[^{_ranges(ALL & ~allowed)}]"
    return f"[{_ranges(allowed)}]"


def _ranges(allowed: ByteSet) -> str:
    listed = list(members(allowed))
    parts = []
    at = 0
    while at < len(listed):
        end = at
        while end + 1 < len(listed) and listed[end + 1] == listed[end] + 1:
            end += 1
        first, last = _byte_text(listed[at]), _byte_text(listed[end])
        parts.append(first if at == end else f"{first}{'-' if end > at + 1 else ''}{last}")
        at = end + 1
    return "".join(parts)


def _byte_text(byte: int) -> str:
    return chr(byte) if byte in _SAFE else f"\\x{byte:02x}"


def difference(wanted: Automaton, taken: Sequence[Automaton]) -> str | None:
    """Return an expression for what one automaton accepts and none of the others does; None when it is too long."""
    first, others = _moves_of([wanted]), _moves_of(taken)
    table, classes = partition(
        allowed for moves, *_ in (first, others) for leaving in moves.values() for allowed in leaving.values()
    )
    by_class: dict[int, ByteSet] = {}
    for byte, letter in enumerate(table):
        by_class[letter] = by_class.get(letter, 0) | 1 << byte
    graph = Graph()
    numbers: dict[tuple[int, frozenset[int]], int] = {}
    waiting: list[tuple[int, frozenset[int]]] = []

    def number(state: int, beside: frozenset[int]) -> int:
        found = numbers.get((state, beside))
        if found is None:
            found = numbers[state, beside] = graph.add(accepts=state in first[2] and beside.isdisjoint(others[2]))
            waiting.append((state, beside))
        return found

    beginning = frozenset(others[1])
    graph.starts = [number(state, beginning) for state in first[1]]
    graph.empty = any(state in first[2] for state in first[1]) and beginning.isdisjoint(others[2])
    while waiting:
        state, beside = waiting.pop()
        if len(numbers) > MAX_STATES:
            return None
        source = numbers[state, beside]
        for target, allowed in first[0][state].items():
            for letter in classes[allowed]:
                following = frozenset(
                    there for other in beside for there, bytes_ in others[0][other].items() if bytes_ & by_class[letter]
                )
                graph.move(source, by_class[letter], number(target, following))
    return expression_of(graph)


def _moves_of(automata: Sequence[Automaton]) -> tuple[_Moves, list[int], set[int]]:
    """Return automata side by side: moves by bytes, where they begin, where they accept."""
    moves: _Moves = {}
    starts: list[int] = []
    accepting: set[int] = set()
    for one in automata:
        base = len(moves)
        by_class: dict[int, ByteSet] = {}
        for byte, letter in enumerate(one.table):
            by_class[letter] = by_class.get(letter, 0) | 1 << byte
        for state, leaving in enumerate(one.moves):
            into = moves.setdefault(base + state, {})
            for letter, targets in leaving.items():
                for target in targets:
                    into[base + target] = into.get(base + target, 0) | by_class[letter]
        starts += [base + state for state in one.starts]
        accepting |= {base + state for state in one.accepting}
    return moves, starts, accepting
