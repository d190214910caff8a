r"""Which routing keys a topic permission lets a client receive, when what is checked is the text of binding keys.

A topic permission's `read` is held against the binding key as if it were a name (RabbitMQ 3.10.8,
`rabbit_channel:binding_action`): `^a\.` lets `a.#` be bound, and so everything under `a` be received, `a` itself
included; `^a\.[^.]*\.c$` lets `a.#.c` be bound, and so `a.x.y.c` be received; `^a\.b$` nothing but `a.b`. What can be
received are the keys that any permitted binding key lets through.

The keys are worked out on the expression's automaton, which reads binding keys: where it reads a whole word `*` or `#`,
the result reads any word, or any words. It is written as an expression again, by taking out one state after another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from topicwarden.events import Certainty
from topicwarden.patterns import Anything, Covered, Names, NameUnion, Regex
from topicwarden.patterns.byte_sets import ALL, ByteSet
from topicwarden.patterns.nfa import Automaton
from topicwarden.patterns.regex import regex_matches, regex_names
from topicwarden_collectors.rabbitmq.automaton_text import Graph, expression_of

_DOT: Final = 1 << 0x2E
_NOT_DOT: Final = ALL & ~_DOT
_ONE: Final = 0x2A
_MANY: Final = 0x23
_CACHED: Final = 4096
_LITERAL: Final = re.compile(r"\^(?:[A-Za-z0-9_-]|\\\.)*(?:\$|\\z)")
"""Expressions for a name without wildcards, which needs no automaton."""

Receivable = tuple[tuple[Names, Certainty], ...]
"""Sets of keys, to be joined."""


@lru_cache(maxsize=_CACHED)
def receivable(regex: str) -> Receivable:
    """Return the keys that can be received under a topic permission's `read`, variables put in and not empty.

    First those that can be bound as they are, then all of them if that is more.
    """
    plain = Regex(regex)
    if _LITERAL.fullmatch(regex):
        return ((plain, Certainty.EXACT),)
    if regex_matches(regex, "#"):
        return ((Anything(), Certainty.EXACT),)
    read = regex_names(regex)
    if read is None:
        return ((plain, Certainty.INFERRED),)
    keys = _Keys(read)
    if keys.many_alone:
        return ((Anything(), Certainty.EXACT),)
    if not keys.wild:
        return ((plain, Certainty.EXACT),)
    text = expression_of(keys.graph)
    if text is None:
        # More is received than is bound as it is, and nobody can write down what.
        return ((plain, Certainty.EXACT), (Anything(), Certainty.INFERRED))
    wider = Regex(text)
    if isinstance(NameUnion([plain]).uncovered(wider), Covered):
        return ((plain, Certainty.EXACT),)
    return ((plain, Certainty.EXACT), (wider, Certainty.EXACT))


@dataclass(frozen=True, slots=True)
class _At:
    """Where both are: the automaton that reads the binding key, and the one that reads routing keys."""

    part: str
    """`start` of a word of the binding key; within a `literal` word, a `*` (`one`), a `#` that took `none` or `some`;
    `all`: whatever follows."""
    state: int
    words: bool = True
    """Whether a word of the routing key was read before."""


class _Keys:
    """Builds the automaton of routing keys."""

    def __init__(self, texts: Automaton) -> None:
        self._texts = texts
        self.wild = False
        """Whether a wildcard can stand in a permitted binding key."""
        self._bytes: dict[int, ByteSet] = {}
        for byte, letter in enumerate(texts.table):
            self._bytes[letter] = self._bytes.get(letter, 0) | 1 << byte
        self.many_alone = self._many_alone()
        self.graph = Graph()
        self._numbers: dict[_At, int] = {}
        self._waiting: list[_At] = []
        self.graph.starts = [self._number(_At("start", state, words=False)) for state in texts.starts]
        while self._waiting:
            at = self._waiting.pop()
            self._leave(at, self._numbers[at])
        # The empty key has no word: of binding keys with literal words or `*`, only the empty one lets it through.
        self.graph.empty = texts.accepts(b"")

    def _many_alone(self) -> bool:
        """Whether a binding key of nothing but `#` is permitted."""
        current = set(self._texts.starts)
        seen: set[int] = set()
        while not current <= seen:
            seen |= current
            after = {target for state in current for target in self._reading(state, _MANY)}
            if after & self._texts.accepting:
                return True
            current = {target for state in after for target in self._reading(state, 0x2E)}
        return False

    def _reading(self, state: int, byte: int) -> tuple[int, ...]:
        return self._texts.moves[state].get(self._texts.table[byte], ())

    def _number(self, at: _At) -> int:
        if at.state == self._texts.everything and at.part not in ("start", "none"):
            # Whatever follows in the binding key is permitted, so whatever follows in the routing key is received.
            at = _At("all", 0)
        number = self._numbers.get(at)
        if number is None:
            accepts = at.part == "all" or (at.part != "start" and at.state in self._texts.accepting)
            number = self._numbers[at] = self.graph.add(accepts=accepts)
            self._waiting.append(at)
        return number

    def _leave(self, at: _At, number: int) -> None:
        graph = self.graph
        match at.part:
            case "all":
                graph.move(number, ALL, number)
            case "start":
                self._begin(at, number)
            case "literal":
                for letter, targets in self._texts.moves[at.state].items():
                    allowed = self._bytes[letter] & _NOT_DOT
                    for target in targets if allowed else ():
                        graph.move(number, allowed, self._number(_At("literal", target)))
                self._next_word(at, number, words=True)
            case "one":
                graph.move(number, _NOT_DOT, number)
                self._next_word(at, number, words=True)
            case "some":
                graph.move(number, ALL, number)
                self._next_word(at, number, words=True)
            case "none":
                self._next_word(at, number, words=at.words)

    def _begin(self, at: _At, number: int) -> None:
        """Begin a word of the binding key; in the routing key a dot is before every word but the first."""
        self._word(at, number, _At("literal", at.state))
        for target in self._reading(at.state, _ONE):
            self.wild = True
            self._word(at, number, _At("one", target))
        for target in self._reading(at.state, _MANY):
            self.wild = True
            self._word(at, number, _At("some", target))
            self.graph.skip(number, self._number(_At("none", target, at.words)))

    def _word(self, at: _At, number: int, then: _At) -> None:
        if at.words:
            self.graph.move(number, _DOT, self._number(then))
        else:
            self.graph.skip(number, self._number(then))

    def _next_word(self, at: _At, number: int, *, words: bool) -> None:
        for target in self._reading(at.state, 0x2E):
            self.graph.skip(number, self._number(_At("start", target, words)))
