"""Which regular expressions a policy may use for levels: names are hostile, so none may take long to fail.

Python's `re` tries alternatives one after another, so its time is the number of ways in which beginnings of the name
can be read. That is judged on the position automaton (Glushkov): positions are the characters of the expression, and
each way to get from one to the next is an edge; equal edges by different ways, as in `(a+)+`, are kept apart. The ways
grow
- exponentially when two edges for the same character stay inside one loop: refused;
- with the name's length when a loop can be left and kept going by the same character, and another endless loop follows:
  refused, so that time is proportional to the name's length whatever that is;
- by a factor when such a loop is bounded or no loop follows, or where alternatives outside loops begin alike: counted.
The test errs towards refusing. Compare Weideman et al., "Analyzing matching time behavior of backtracking regular
expression matchers by using ambiguity of NFA" (CIAA 2016).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import log2
from typing import Any, Final

from topicwarden.policy.values import RefusedError

MAX_LENGTH: Final = 200
MAX_POSITIONS: Final = 500
MAX_WAYS_BITS: Final = 10.0
"""Base-2 logarithm of how often any place of a name may be read again."""
_ENDLESS: Final = 256
"""Repeats of more than this count as endless."""
_SEPARATOR_HINT: Final = "keep the separator out of the repeated part: [a-z0-9]+(-[a-z0-9]+)* instead of ([a-z0-9-]+)*"

_BOUND_HINT: Final = "bound the first repeat: .{0,64}name.* instead of .*name.*"

# The parser that `re` itself uses; private, but the only one that reads what `re` reads. Same in CPython 3.11 to 3.14.
_parser: Any = import_module("re._parser")

_LAST: Final = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]
_ALL: Final[Ranges] = ((0, _LAST),)
_DIGIT: Final[Ranges] = ((48, 57),)
_SPACE: Final[Ranges] = ((9, 13), (28, 32))
_WORD: Final[Ranges] = ((48, 57), (65, 90), (95, 95), (97, 122))
_CATEGORIES: Final = {"DIGIT": _DIGIT, "SPACE": _SPACE, "WORD": _WORD}


def regex_problem(pattern: str) -> RefusedError | None:
    """Say why this regular expression is refused, or None when it may be used with `re.fullmatch`."""
    if len(pattern) > MAX_LENGTH:
        return RefusedError(f"longer than {MAX_LENGTH} characters", "a level's pattern can be simple")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(pattern)
            tree = _parser.parse(pattern)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        # It quotes the expression, control characters and all.
        said = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(error))
        return RefusedError(f"not a regular expression: {said}")
    try:
        _judge(tree)
    except RefusedError as refused:
        return refused
    return None


def _judge(tree: Any) -> None:
    """Raise RefusedError for what is not supported or takes too long."""
    if tree.state.flags & ~re.UNICODE:
        raise RefusedError("flags such as (?i) are not supported", "spell out what is allowed: [Aa]")
    automaton = _Automaton()
    automaton.edges[0] += automaton.sequence(tree).first
    automaton.judge()


@dataclass(slots=True)
class _Part:
    """A part of the expression: where it can begin and end. Lists keep repetitions: each is another way."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    empty: int = 1
    """In how many ways it can be empty."""


class _Automaton:
    """Positions and the edges between them; position 0 is the start."""

    def __init__(self) -> None:
        self.characters: list[Ranges] = [()]
        self.edges: list[list[int]] = [[]]
        self.rounds: list[int] = [0]
        """How often the loop around a position can go round, up to _ENDLESS; 0: it is in none."""

    def sequence(self, nodes: Iterable[Any]) -> _Part:
        """Join the parts of a sequence."""
        whole = _Part()
        for operation, argument in nodes:
            whole = self._join(whole, self._part(str(operation), argument))
        return whole

    def judge(self) -> None:
        """Raise RefusedError when a name can be read in too many ways."""
        reach = [self._reachable(position) for position in range(len(self.edges))]
        loops = [
            frozenset(q for q in reach[p] if p in reach[q]) if p in reach[p] else frozenset({p})
            for p in range(len(reach))
        ]
        weight: dict[frozenset[int], float] = {}
        for position, follow in enumerate(self.edges):
            loop = loops[position]
            alike = [q for i, q in enumerate(follow) if any(self._meet(q, r) for j, r in enumerate(follow) if i != j)]
            inside = [q for q in alike if q in loop and position in reach[position]]
            for i, q in enumerate(inside):
                if any(self._meet(q, r) for r in inside[:i]):
                    raise RefusedError("it can take exponential time on a hostile name", _SEPARATOR_HINT)
            if not alike:
                continue
            if self.rounds[position] == _ENDLESS and any(
                self.rounds[r] == _ENDLESS for q in alike if q not in loop for r in {q, *reach[q]}
            ):
                raise RefusedError("its time can grow with the square of a hostile name's length", _BOUND_HINT)
            weight[loop] = max(weight.get(loop, 0.0), log2(max(len(alike), self.rounds[position])))
        heaviest: dict[frozenset[int], float] = {}
        # Positions reach only positions of their own or later loops, so those that reach fewest come last.
        for position in sorted(range(len(reach)), key=lambda p: len(reach[p] | loops[p])):
            loop = loops[position]
            if loop not in heaviest:
                onward = [heaviest[loops[q]] for p in loop for q in self.edges[p] if q not in loop]
                heaviest[loop] = weight.get(loop, 0.0) + max(onward, default=0.0)
        if heaviest[loops[0]] > MAX_WAYS_BITS:
            raise RefusedError(
                "it can take very long on a hostile name: several parts can match the same", _SEPARATOR_HINT
            )

    def _part(self, operation: str, argument: Any) -> _Part:
        """Return the part for one node of the parser's tree."""
        match operation:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                return self._position(_ranges(operation, argument))
            case "AT":
                return _Part()
            case "SUBPATTERN":
                _, added, removed, body = argument
                if added or removed:
                    raise RefusedError("flags such as (?i:…) are not supported", "spell out what is allowed: [Aa]")
                return self.sequence(body)
            case "BRANCH":
                parts = [self.sequence(body) for body in argument[1]]
                return _Part(
                    [p for part in parts for p in part.first],
                    [p for part in parts for p in part.last],
                    sum(part.empty for part in parts),
                )
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(*argument)
            case "GROUPREF" | "GROUPREF_EXISTS":
                raise RefusedError("references to groups are not supported")
            case "ASSERT" | "ASSERT_NOT":
                raise RefusedError(
                    "lookahead and lookbehind are not supported", "say what a level is, not what it is not"
                )
            case _:
                raise RefusedError(f"{operation.lower().replace('_', ' ')} is not supported")

    def _repeat(self, least: int, most: int, body: Any) -> _Part:
        fixed = all(str(operation) in ("LITERAL", "NOT_LITERAL", "ANY", "IN") for operation, _ in body)
        if most <= 1 or (least == most and fixed):
            whole = _Part()
            for _ in range(most):
                whole = self._join(whole, self.sequence(body))
            return _Part(whole.first, whole.last, whole.empty + (least == 0))
        # Bounds are taken for endless: (a{1,20}){1,20} is as bad as (a+)+ long before they help.
        start = len(self.edges)
        part = self.sequence(body)
        if part.empty:
            raise RefusedError("a part that can be empty is repeated", _SEPARATOR_HINT)
        nested = any(self.rounds[start:])
        self.rounds[start:] = [_ENDLESS if nested else min(most, _ENDLESS)] * (len(self.edges) - start)
        for position in part.last:
            self.edges[position] += part.first
        return _Part(part.first, part.last, int(least == 0))

    def _join(self, left: _Part, right: _Part) -> _Part:
        for position in left.last:
            self.edges[position] += right.first
        whole = _Part(
            left.first + right.first * left.empty, right.last + left.last * right.empty, left.empty * right.empty
        )
        if max(len(whole.first), len(whole.last), whole.empty) > MAX_POSITIONS:
            raise RefusedError("it has too many alternatives")
        return whole

    def _position(self, characters: Ranges) -> _Part:
        if len(self.edges) > MAX_POSITIONS:
            raise RefusedError(f"it has more than {MAX_POSITIONS} characters once repeats are written out")
        self.characters.append(characters)
        self.edges.append([])
        self.rounds.append(0)
        number = len(self.edges) - 1
        return _Part([number], [number], 0)

    def _meet(self, one: int, other: int) -> bool:
        """Whether some character leads along both edges."""
        return any(
            low <= last and first <= high
            for low, high in self.characters[one]
            for first, last in self.characters[other]
        )

    def _reachable(self, start: int) -> set[int]:
        """Return the positions reachable by one edge or more."""
        found: set[int] = set()
        todo = [start]
        while todo:
            fresh = set(self.edges[todo.pop()]) - found
            found |= fresh
            todo += fresh
        return found


def _ranges(operation: str, argument: Any) -> Ranges:
    """Return the code points a node matches, or more: outside ASCII, `\\d`, `\\s` and `\\w` count as everything."""
    if operation == "LITERAL":
        return ((argument, argument),)
    if operation == "NOT_LITERAL":
        return _without(((argument, argument),))
    if operation == "ANY":
        return _ALL
    most: list[tuple[int, int]] = []
    least: list[tuple[int, int]] = []
    negated = False
    for kind, value in argument:
        name = str(kind)
        if name == "NEGATE":
            negated = True
        elif name == "CATEGORY":
            ascii_part = _CATEGORIES[str(value).rpartition("_")[2]]
            if "_NOT_" in str(value):
                most += _without(ascii_part)
            else:
                least += ascii_part
                most += (*ascii_part, (128, _LAST))
        else:
            both = (value, value) if name == "LITERAL" else value
            most.append(both)
            least.append(both)
    # What is certainly excluded is the complement of what is certainly listed.
    return _without(least) if negated else tuple(most)


def _without(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Return the code points outside the ranges."""
    outside: list[tuple[int, int]] = []
    start = 0
    for first, last in sorted(ranges):
        if first > start:
            outside.append((start, first - 1))
        start = max(start, last + 1)
    if start <= _LAST:
        outside.append((start, _LAST))
    return tuple(outside)
