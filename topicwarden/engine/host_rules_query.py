"""A rule's EQL, compiled: the types that `host_rules_eql.py` makes and the runner asks, without the `eql` package.

That package takes long to load, and whoever watches no host never needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from topicwarden.hosts.ecs import EcsEvent

ANY: Final = "any"
"""The event class of a query over all events."""

NO: Final = 0
MAYBE: Final = 1
YES: Final = 2

Key = tuple[object, ...]
Path = tuple[str, ...]
RuleList = Sequence[str | int]
Values = frozenset[object] | None
"""What a field must be one of; None: anything."""
Verdict = Callable[[Mapping[str, Any]], int]
"""NO, MAYBE or YES for a document."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What can be said of a query at once."""

    verdict: Verdict
    values: Mapping[Path, Values]
    """Fields that an event must have to match, each with what it must be one of."""


class RuleError(Exception):
    """A rule's EQL cannot be run."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(f"{reason} (line {line}, column {column} of its eql)")
        self.reason = reason
        self.line = line
        """1-based, in the rule's `eql`."""
        self.column = column


@dataclass(frozen=True, slots=True)
class Term:
    """One event query."""

    category: str
    """The event class it is about, ANY for all."""
    needs: Needs
    """What can be said of an event without asking `matches`."""
    matches: Callable[[EcsEvent], bool]
    key: Callable[[EcsEvent], Key | None]
    """What an event joins on in a sequence; None: it has not all of it."""


@dataclass(frozen=True, slots=True)
class Query:
    """A rule's EQL: one term, or the terms of a sequence in their order."""

    terms: tuple[Term, ...]
    max_span_ns: int | None = None
    """How long after its first event a sequence may be completed; None: it is no sequence."""
    until: Term | None = None
    """What ends a sequence that is not complete."""
