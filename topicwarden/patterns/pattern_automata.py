"""Topic filters and binding keys as automata over bytes, to compare them with what is no pattern."""

from __future__ import annotations

from typing import Final

from topicwarden.patterns.byte_sets import ALL, ByteSet
from topicwarden.patterns.dotted import KeyPattern, SpecialWord, collapsed, without_placeholders
from topicwarden.patterns.mqtt import LevelPattern, Special
from topicwarden.patterns.nfa import Automaton, Moves, automaton

_DOT: Final = 1 << 0x2E
_SLASH: Final = 1 << 0x2F
_DOLLAR: Final = 1 << 0x24

NO_NAME: Final = automaton([], (), (), None)
EVERY_NAME: Final = automaton([[(ALL, (0,))]], (0,), (0,), 0)


def name_bytes(name: str) -> bytes:
    """Return the bytes a name stands for; those that are no UTF-8 stand in it as lone surrogates."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


class _Builder:
    def __init__(self) -> None:
        self.moves: Moves = []
        self.accepting: list[int] = []

    def state(self, *moves: tuple[ByteSet, tuple[int, ...]], accepts: bool = False) -> int:
        number = len(self.moves)
        self.moves.append(list(moves))
        if accepts:
            self.accepting.append(number)
        return number

    def text(self, text: str, end: int) -> int:
        """Add states that read a text before `end`; returns the first."""
        for byte in reversed(name_bytes(text)):
            end = self.state((1 << byte, (end,)))
        return end


def key_automaton(pattern: KeyPattern) -> Automaton:
    """Return the keys that a binding key matches; raises ValueError for a placeholder nobody bound."""
    words = collapsed(without_placeholders(pattern).words)
    if SpecialWord.NOTHING in words:
        return NO_NAME
    if words == (SpecialWord.MANY,):
        return EVERY_NAME
    builder = _Builder()
    everything: int | None = None
    # From the last word to the first: the states in which a word can begin at a place, and whether none need to.
    begins: tuple[int, ...] = ()
    ends = True
    for number in range(len(words) - 1, -1, -1):
        word = words[number]
        if word is SpecialWord.MANY:
            if ends:  # the last word: `#` takes whatever follows
                everything = builder.state(accepts=True)
                builder.moves[everything].append((ALL, (everything,)))
                begins = (everything,)
            else:
                any_word = builder.state()
                begins = (any_word, *begins)
                builder.moves[any_word] += [(ALL & ~_DOT, (any_word,)), (_DOT, begins)]
            continue
        after = builder.state(accepts=ends)
        if begins:
            builder.moves[after].append((_DOT, begins))
        if word is SpecialWord.ONE:
            builder.moves[after].append((ALL & ~_DOT, (after,)))
            begins = (after,)
        else:
            assert isinstance(word, str)
            begins = (builder.text(word, after),)
        ends = False
    # At the start no word was begun yet: the empty key has none, rather than an empty one.
    start = builder.state(accepts=ends)
    builder.moves[start] = [move for begin in begins for move in builder.moves[begin]]
    return automaton(builder.moves, (start,), builder.accepting, everything)


def level_automaton(pattern: LevelPattern) -> Automaton:
    """Return the topics that a filter matches, those apart that are none: empty, or holding `+`, `#` or NUL.

    Raises ValueError for a placeholder nobody bound.
    """
    levels = pattern.levels
    if Special.USER in levels or Special.CLIENT in levels:
        raise ValueError(f"{pattern.text!r} holds a placeholder: bind it to a client first")
    if Special.NOTHING in levels or any(isinstance(level, str) and "/" in level for level in levels):
        return NO_NAME
    builder = _Builder()
    everything: int | None = None
    open_end = levels[-1] is Special.REST
    fixed = levels[: len(levels) - open_end]
    ends = True
    following: int | None = None
    if open_end:
        everything = following = builder.state(accepts=True)
        builder.moves[everything] = [(ALL, (everything,))]
    for level in reversed(fixed):
        after = builder.state(accepts=ends)
        if following is not None:
            builder.moves[after].append((_SLASH, (following,)))
        if level is Special.ONE:
            builder.moves[after].append((ALL & ~_SLASH, (after,)))
            following = after
        else:
            assert isinstance(level, str)
            following = builder.text(level, after)
        ends = False
    assert following is not None
    if isinstance(levels[0], str):
        return automaton(builder.moves, (following,), builder.accepting, everything)
    # Wildcards at the first level match no name that begins with `$`.
    first = [(allowed & ~_DOLLAR, targets) for allowed, targets in builder.moves[following]]
    start = builder.state(*first, accepts=following in builder.accepting)
    return automaton(builder.moves, (start,), builder.accepting, everything)
