"""Sets of names as automata over bytes: inclusion in a union with a shortest witness, and matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from topicwarden.patterns.inclusion import BUDGET, Answer

if TYPE_CHECKING:
    from topicwarden.patterns.languages import Names


class AutomatonUnion:
    """Sets of names joined by "or", built once to ask many times whether others are covered."""

    def __init__(self, by: Sequence[Names], separator: str) -> None:
        raise NotImplementedError

    def uncovered(self, *wanted: Names, budget: int = BUDGET, newlines: bool = True) -> Answer:
        """Say whether every name in all of `wanted` is in the union, with a shortest witness if not."""
        raise NotImplementedError


def regex_matches(regex: str, name: str) -> bool | None:
    """Whether the regular expression is found in a name; None when it uses what is not supported."""
    raise NotImplementedError
