"""Sets of names, however they are written: topic filters, binding keys, regular expressions; compared with each other.

Filters among themselves and binding keys among themselves are compared level by level (`inclusion`,
`dotted_inclusion`), everything else as automata over bytes (`automata`). Either way the answer is exact, with a
shortest name that shows a difference, or `Undecided` with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from topicwarden.patterns.dotted import KeyPattern
from topicwarden.patterns.inclusion import BUDGET, Answer
from topicwarden.patterns.mqtt import LevelPattern
from topicwarden.patterns.regex import Regex


@dataclass(frozen=True, slots=True)
class Anything:
    """Every name there can be; for topics also those that begin with `$`, which no filter for all of them matches."""

    text: str = "(every name)"

    def __str__(self) -> str:
        return self.text


Names = LevelPattern | KeyPattern | Regex | Anything
"""A set of names. Patterns hold no placeholders. Filters and binding keys never stand in one comparison."""


class NameUnion:
    """Sets of names joined by "or", built once to ask many times whether others are covered."""

    def __init__(self, by: Sequence[Names]) -> None:
        """Raises ValueError for a filter that is not valid or a pattern with a placeholder nobody bound."""
        raise NotImplementedError

    def uncovered(self, *wanted: Names, budget: int = BUDGET, newlines: bool = True) -> Answer:
        """Say whether every name that is in *all* of `wanted` is in the union, with a shortest witness if not.

        `newlines`: whether names with CR or LF exist: RabbitMQ strips them from names of queues and exchanges, and
        routing keys may hold them (3.10.8). The witness is the most readable among the shortest.
        """
        raise NotImplementedError


def names_match(names: Names, name: str) -> bool | None:
    """Whether a set holds a name; None when that cannot be told (an expression that is not supported)."""
    raise NotImplementedError


def names_overlap(a: Names, b: Names) -> bool | None:
    """Whether some name is in both sets; None when that cannot be told."""
    raise NotImplementedError
