r"""Expressions that look ahead, such as `^(?!amq\.).*$`, as automata.

What must or must not follow at some place is a set of names itself: those that the rest of the name may be. So the
automaton of what comes behind that place is narrowed to this set, or to its complement, for which the set is made
deterministic. That is done where the lookahead stands at the top of an expression or of one of its alternatives, with
nothing that asks for the name's end before it; elsewhere it has a reason. Behind letters that may be none, `^` would
hold sometimes; that has a reason too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from topicwarden.patterns.byte_sets import ByteSet
from topicwarden.patterns.nfa import (
    MAX_STATES,
    SEARCH,
    Automaton,
    Moves,
    Reading,
    TooLargeError,
    automaton,
    loosened,
    regex_automaton,
)
from topicwarden.patterns.regex_tree import Alternation, Anchor, Concatenation, Lookahead, Node, OneOf, Repeat
from topicwarden.patterns.subsets import Subset, Subsets

_ENDS: Final = (Anchor.END, Anchor.END_OR_LAST_NEWLINE)


def lookahead_problem(tree: Node) -> str | None:
    """Say why an expression that looks ahead cannot be compared, or None when it can be."""
    if not _holds(tree, Lookahead):
        return None
    for branch in _branches(tree):
        behind_start: bool | None = None
        looked = False
        parts = _flat(branch)
        last = max((number for number, part in enumerate(parts) if isinstance(part, Lookahead)), default=-1)
        for number, part in enumerate(parts):
            inner = part.part if isinstance(part, Lookahead) else part
            if _holds(inner, Lookahead):
                return "it looks ahead within a group or a repeat"
            if number < last and part is inner and any(_holds(part, end) for end in _ENDS):
                return "it looks ahead from the end"
            looked = looked or part is not inner
            if looked and not behind_start and _holds(inner, Anchor.START):
                return "it looks ahead and then for the start"
            if part is inner:
                behind_start = part is Anchor.START and behind_start is not False
    return None


def expression_automaton(tree: Node, reading: Reading = SEARCH) -> Automaton:
    """Return the names in which an expression is found; raises TooLargeError. It has no `lookahead_problem`."""
    if not _holds(tree, Lookahead):
        return regex_automaton(tree, reading)
    moves: Moves = []
    starts: list[int] = []
    accepting: list[int] = []
    everything: int | None = None
    for branch in _branches(tree):
        one = _branch_automaton(_flat(branch), reading)
        offset = len(moves)
        moves += loosened(one, offset)
        starts += (state + offset for state in one.starts)
        accepting += (state + offset for state in one.accepting)
        everything = everything if one.everything is None else one.everything + offset
        if len(moves) > MAX_STATES:
            raise TooLargeError
    return automaton(moves, starts, accepting, everything)


def _branches(tree: Node) -> Sequence[Node]:
    return tree.branches if isinstance(tree, Alternation) else (tree,)


def _flat(branch: Node) -> list[Node]:
    """Return the parts of a concatenation, of those that are concatenations too."""
    if isinstance(branch, Concatenation):
        return [part for each in branch.parts for part in _flat(each)]
    return [branch]


def _holds(node: Node, wanted: type[Lookahead] | Anchor) -> bool:
    """Whether a lookahead, or one kind of anchor, is anywhere in a tree."""
    match node:
        case Lookahead(part):
            return wanted is Lookahead or _holds(part, wanted)
        case Repeat(part):
            return _holds(part, wanted)
        case Concatenation(parts) | Alternation(parts):
            return any(_holds(part, wanted) for part in parts)
        case Anchor():
            return node is wanted
        case OneOf():
            return False


def _branch_automaton(parts: Sequence[Node], reading: Reading) -> Automaton:
    """Build from the last part to the first."""
    then: Automaton | None = None
    end = len(parts)
    for number in range(len(parts) - 1, -1, -1):
        part = parts[number]
        if isinstance(part, Lookahead):
            # Here is where the name starts if only `^` is before.
            before = [each for each in parts[:number] if not isinstance(each, Lookahead)]
            here = replace(reading, anywhere=False, at_start=bool(before) and set(before) == {Anchor.START})
            rest = regex_automaton(Concatenation(tuple(parts[number + 1 : end])), here, then)
            ahead = regex_automaton(part.part, replace(here, whole=False))
            then = _narrowed(rest, ahead, part.wanted)
            end = number
    return regex_automaton(Concatenation(tuple(parts[:end])), reading, then)


def _narrowed(rest: Automaton, ahead: Automaton, wanted: bool) -> Automaton:
    """Return the names of `rest` that are in `ahead` too or, not `wanted`, are not."""
    subsets = Subsets([ahead])
    sets: dict[int, dict[int, ByteSet]] = {}
    for byte, (letter, kind) in enumerate(zip(rest.table, subsets.table, strict=True)):
        kinds = sets.setdefault(letter, {})
        kinds[kind] = kinds.get(kind, 0) | 1 << byte
    # Beside a state of `rest` stands what is known of `ahead`; None: that it is as it should be, whatever follows.
    numbers: dict[tuple[int, Subset | None], int] = {}
    waiting: list[tuple[int, Subset | None]] = []
    moves: Moves = []
    work = 0

    def number(state: int, known: Subset | None) -> int | None:
        if known is not None and (known.everything or not known.states):
            if known.everything is not wanted:
                return None
            known = None
        found = numbers.get((state, known))
        if found is None:
            found = numbers[state, known] = len(moves)
            if found > MAX_STATES:
                raise TooLargeError
            moves.append([])
            waiting.append((state, known))
        return found

    starts = [found for state in rest.starts if (found := number(state, subsets.start())) is not None]
    while waiting:
        state, known = waiting.pop()
        leaving = moves[numbers[state, known]]
        for letter, targets in rest.moves[state].items():
            for allowed in sets[letter].values():
                following = None if known is None else subsets.step(known, allowed.bit_length() - 1)
                reached = [found for target in targets if (found := number(target, following)) is not None]
                work += len(targets)
                if reached:
                    leaving.append((allowed, tuple(reached)))
        if work + subsets.work > 10 * MAX_STATES:
            raise TooLargeError
    accepting = [
        found
        for (state, known), found in numbers.items()
        if state in rest.accepting and (known is None or known.accepting is wanted)
    ]
    everything = None if rest.everything is None else numbers.get((rest.everything, None))
    return automaton(moves, starts, accepting, everything)
