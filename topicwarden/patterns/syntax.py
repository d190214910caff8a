"""The two ways in which names are built and patterns match them, behind one face: topics and dotted keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from topicwarden.patterns.dotted import bind_key, binding_problem, parse_binding
from topicwarden.patterns.dotted_inclusion import KeyUnion, key_overlap
from topicwarden.patterns.dotted_index import DottedIndex
from topicwarden.patterns.filter_index import FilterIndex, Matches
from topicwarden.patterns.inclusion import Answer, FilterUnion, overlap
from topicwarden.patterns.mqtt import bind, filter_problem, parse

Pattern = Any
"""A pattern taken apart: what a syntax's own `parse` and `bind` return. Never mixed between syntaxes."""


class Index(Protocol):
    """Many patterns at once; see `FilterIndex`."""

    def match(self, name: str, /) -> Matches:
        """Say which patterns match, by number."""
        ...


class Union(Protocol):
    """Patterns joined by "or"; see `FilterUnion`."""

    def uncovered(self, pattern: Pattern, /, *, budget: int = ...) -> Answer:
        """Say whether every name the pattern matches is matched by the union, with a witness if not."""
        ...


@dataclass(frozen=True, slots=True)
class Syntax:
    """How names of one family are taken apart and matched."""

    separator: str
    """What stands between levels (words)."""
    one: str
    """The wildcard for exactly one level."""
    rest: str
    """The wildcard for any number of levels."""
    problem: Callable[[str], str | None]
    """Says why a pattern, in which `%u` and `%c` may stand for levels, is not valid; None when it is."""
    parse: Callable[[str], Pattern]
    """Takes a pattern without placeholders apart; raises ValueError when it is not valid."""
    bind: Callable[[str, str | None, str | None], Pattern]
    """Takes a pattern apart with a user name and client id for its placeholders."""
    index: Callable[[Sequence[str]], Index]
    """Builds an index; placeholders allowed."""
    union: Callable[[Sequence[Pattern]], Union]
    overlap: Callable[[Pattern, Pattern], str | None]
    """Returns a name both match, or None."""

    @property
    def specials(self) -> frozenset[str]:
        """The levels of a pattern that are not literal text."""
        return frozenset((self.one, self.rest, "%u", "%c"))

    def levels(self, text: str) -> list[str]:
        """Return a name's or pattern's levels as written."""
        return text.split(self.separator)


TOPICS: Final = Syntax(
    separator="/",
    one="+",
    rest="#",
    problem=lambda text: filter_problem(text, placeholders=True),
    parse=parse,
    bind=bind,
    index=FilterIndex,
    union=FilterUnion,
    overlap=overlap,
)
"""MQTT topics: levels between slashes, `+` and, as the last level, `#`."""
KEYS: Final = Syntax(
    separator=".",
    one="*",
    rest="#",
    problem=lambda text: binding_problem(text, placeholders=True),
    parse=parse_binding,
    bind=bind_key,
    index=DottedIndex,
    union=KeyUnion,
    overlap=key_overlap,
)
"""AMQP 0-9-1 keys and the names of queues and exchanges: words between dots, `*`, and `#` anywhere."""
