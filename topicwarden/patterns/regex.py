"""Regular expressions over names, as PCRE reads them: what is supported, and whether one is found in a name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final

import pcre2  # type: ignore[import-untyped] # ships no types

from topicwarden.patterns.lookahead import expression_automaton, lookahead_problem
from topicwarden.patterns.nfa import Automaton, TooLargeError
from topicwarden.patterns.pattern_automata import name_bytes
from topicwarden.patterns.regex_syntax import RegexSyntax, parse_regex
from topicwarden.patterns.regex_tree import Alternation, Anchor, Concatenation, Node, OneOf, Repeat

MAX_NAME_BYTES: Final = 65536
_LIMITS: Final = b"(*LIMIT_MATCH=300000)(*LIMIT_HEAP=16384)"
"""A search takes at most a few milliseconds and 16 MiB, then there is no answer. RabbitMQ goes on to 10 million steps,
then refuses."""
_CACHED: Final = 4096
_CACHED_STATES: Final = 500_000
_MAX_STEPS: Final = 2_000_000
"""States looked at when an automaton reads a name; about a second."""
_TOO_LARGE: Final = "it is too large: it needs too many states"


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression that is searched for in a name's UTF-8 bytes, not anchored (RabbitMQ's permissions)."""

    text: str
    """As it is evaluated: variables put in, and `^$` for an empty permission."""

    def __str__(self) -> str:
        return self.text


def regex_problem(text: str) -> str | None:
    """Say why an expression cannot be compared with others, continuing "the expression: "; None when it can be."""
    return _CACHE.get(text).problem


def regex_names(text: str) -> Automaton | None:
    """Return the names in which an expression is found; None when it has a problem."""
    return _CACHE.get(text).names


def regex_matches(regex: str, name: str) -> bool | None:
    """Whether the regular expression is found in a name; None when it uses what is not supported.

    PCRE2 answers where it means the same as RabbitMQ's PCRE, also for some expressions that cannot be compared (such as
    those that look ahead); None then too when the search takes too long.
    """
    subject = name_bytes(name)
    if len(subject) > MAX_NAME_BYTES:
        return None
    read = regex_syntax(regex)
    if read.portable and (subject.isascii() or not read.latin1):
        compiled = _compiled(regex)
        if compiled is not None:
            try:
                return compiled.search(subject) is not None
            except pcre2.LibraryError:
                return None
    names = regex_names(regex)
    if names is None or len(names.moves) * len(subject) > _MAX_STEPS:
        return None
    return names.accepts(subject)


@lru_cache(maxsize=_CACHED)
def regex_syntax(text: str) -> RegexSyntax:
    """Take an expression apart, or say why not."""
    return parse_regex(name_bytes(text))


@lru_cache(maxsize=_CACHED)
def regex_beginning(text: str) -> bytes:
    """Return bytes that every name begins with in which an expression is found; b'' when none are known."""
    tree = regex_syntax(text).tree
    parts = tree.parts if isinstance(tree, Concatenation) else ()
    if not parts or parts[0] is not Anchor.START:
        return b""
    return _beginning(Concatenation(parts[1:]))[0]


def _beginning(node: Node) -> tuple[bytes, bool]:
    """Return what a part of an expression begins with for certain, and whether it is that and nothing else."""
    match node:
        case OneOf(allowed=allowed) if allowed.bit_count() == 1:
            return bytes([allowed.bit_length() - 1]), True
        case Concatenation(parts=parts):
            found = b""
            for part in parts:
                more, whole = _beginning(part)
                found += more
                if not whole:
                    return found, False
            return found, True
        case Alternation(branches=branches):
            beginnings = [_beginning(branch) for branch in branches]
            common = _common(beginning for beginning, _ in beginnings)
            return common, all(one == (common, True) for one in beginnings)
        case Repeat(part=part, least=least) if least:
            return _beginning(part)[0], False
        case Anchor.END | Anchor.END_OR_LAST_NEWLINE:
            return b"", True  # it takes up nothing
        case _:
            return b"", False


def _common(texts: Iterable[bytes]) -> bytes:
    """Return the longest beginning that all have."""
    first, last = min(texts := list(texts)), max(texts)
    return bytes(byte for byte, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


@lru_cache(maxsize=_CACHED)
def _compiled(text: str) -> Any:
    try:
        return pcre2.compile(_LIMITS + name_bytes(text))
    except pcre2.LibraryError:
        return None


def forget_expressions() -> None:
    """Forget every expression that was taken apart or compiled; for measurements."""
    regex_syntax.cache_clear()
    _compiled.cache_clear()
    _CACHE.clear()


@dataclass(frozen=True, slots=True)
class _Compared:
    names: Automaton | None
    problem: str | None


class _AutomatonCache:
    """The automata used last, as many as have `_CACHED_STATES` states together."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Compared] = OrderedDict()
        self._size = 0

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0

    def get(self, text: str) -> _Compared:
        found = self._kept.get(text)
        if found is not None:
            self._kept.move_to_end(text)
            return found
        found = self._kept[text] = _compared(regex_syntax(text))
        self._size += _weight(found)
        while self._size > _CACHED_STATES and len(self._kept) > 1:
            _, forgotten = self._kept.popitem(last=False)
            self._size -= _weight(forgotten)
        return found


def _weight(one: _Compared) -> int:
    return 20 + (len(one.names.moves) if one.names is not None else 0)


def _compared(read: RegexSyntax) -> _Compared:
    problem = read.problem if read.tree is None else lookahead_problem(read.tree)
    if read.tree is None or problem is not None:
        return _Compared(None, problem)
    try:
        return _Compared(expression_automaton(read.tree), None)
    except TooLargeError:
        return _Compared(None, _TOO_LARGE)


_CACHE: Final = _AutomatonCache()
