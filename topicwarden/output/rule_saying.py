"""Says a rule's conditions in a language that cannot say all of them, without leaving anything out silently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from topicwarden.output.rule_conditions import Condition, Every, Leaf, Not, Some, every, some


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a condition: another condition, or yes or no once and for all; None: it cannot be said."""

    condition: Condition | bool | None
    losses: frozenset[str] = frozenset()
    """What it says less, or more, than the original."""
    why: tuple[str, ...] = ()
    """What it would take to say it."""

    @property
    def wanting(self) -> str:
        """What it would take to say it, in words."""
        return " and ".join(self.why)


def say(condition: Condition, leaf: Callable[[Leaf, bool], Said], *, negative: bool = False) -> Said:
    """Say a condition, or its negation, where `leaf` says what it is made of, or (True) the negation of that.

    What cannot be said makes all that it is a part of unsayable, up to an alternative, which is dropped: the outcome
    never matches what the original does not, but for what the losses tell.
    """
    if isinstance(condition, Not):
        return say(condition.term, leaf, negative=not negative)
    if isinstance(condition, Every | Some):
        parts = [say(term, leaf, negative=negative) for term in condition.terms]
        return _all(parts) if isinstance(condition, Every) is not negative else _any(parts)
    return leaf(condition, negative)


def _all(parts: Sequence[Said]) -> Said:
    if any(part.condition is False for part in parts):
        return Said(False)
    if unsaid := [reason for part in parts if part.condition is None for reason in part.why]:
        return Said(None, why=tuple(dict.fromkeys(unsaid)))
    terms = [part.condition for part in parts if part.condition is not None and not isinstance(part.condition, bool)]
    losses = frozenset[str]().union(*(part.losses for part in parts))
    return Said(every(list(dict.fromkeys(terms))) if terms else True, losses)


def _any(parts: Sequence[Said]) -> Said:
    certain = [part for part in parts if part.condition is True]
    if certain:
        return min(certain, key=lambda part: len(part.losses))
    terms = [part.condition for part in parts if part.condition is not None and not isinstance(part.condition, bool)]
    unsaid = [part for part in parts if part.condition is None]
    if not terms:
        reasons = dict.fromkeys(reason for part in unsaid for reason in part.why)
        return Said(None, why=tuple(reasons)) if unsaid else Said(False)
    missed = {f"what only {part.wanting} would tell is missed" for part in unsaid}
    said = (part.losses for part in parts if not isinstance(part.condition, bool))
    return Said(_together(list(dict.fromkeys(terms))), frozenset(missed).union(*said))


def _together(terms: Sequence[Condition]) -> Condition:
    """Return that one of them holds; of nothing but negations, that not all of what they negate does."""
    denied = [term.term for term in terms if isinstance(term, Not)]
    return Not(every(denied)) if len(denied) == len(terms) > 1 else some(terms)
