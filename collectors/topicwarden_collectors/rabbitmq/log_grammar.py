"""Reads a message against a form with gaps, in every way it fits: the only safe way to read quotes nobody escapes.

RabbitMQ puts names between quotes and escapes nothing, so `access to queue 'a' in vhost 'b' refused …` may be about a
queue whose name is `a' in vhost 'b`. A form is matched in all ways there are; who reads more than one way has learnt
that he cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

MAX_STEPS: Final = 2000
"""Most places tried for one message; beyond it the message counts as read in two ways. Honest ones need about ten."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Any text, line feeds included. A gap that was filled before must be filled with the same text again."""

    name: str


@dataclass(frozen=True, slots=True)
class Word:
    """Text of a shape that only the broker chooses."""

    name: str
    shape: re.Pattern[str]


Form: TypeAlias = Sequence[str | Gap | Word]
"""What a message is made of. After a gap comes fixed text, or nothing."""

Reading: TypeAlias = Mapping[str, str]
"""What fills each gap and word."""

_ENDPOINT: Final = r"(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+):\d{1,5}"
# An address without brackets, or a host name when reverse look-ups are on; then two ports. IPv6 comes in brackets.
CONNECTION: Final = Word("connection", re.compile(rf"{_ENDPOINT} -> {_ENDPOINT}(?!\d)", re.ASCII))
PROCESS: Final = Word("process", re.compile(r"<\d+\.\d+\.\d+>", re.ASCII))
NUMBER: Final = Word("channel", re.compile(r"\d{1,5}(?!\d)", re.ASCII))


class TooManyReadingsError(Exception):
    """The text was made to be read in very many ways."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A message that can be read in several ways."""

    forms: frozenset[str]
    """The names of the forms it may have."""


class Steps:
    """Counts the places tried, over all forms of one message."""

    def __init__(self, limit: int = MAX_STEPS) -> None:
        self._left = limit

    def take(self) -> None:
        """Count one; raises TooManyReadingsError when they are used up."""
        self._left -= 1
        if self._left < 0:
            raise TooManyReadingsError


def readings(form: Form, text: str, steps: Steps, known: Reading | None = None) -> Iterator[Reading]:
    """Yield every way the whole text fits the form; `known` fills gaps beforehand."""
    yield from _from(form, 0, text, 0, dict(known or {}), steps)


def _from(form: Form, index: int, text: str, at: int, filled: dict[str, str], steps: Steps) -> Iterator[Reading]:
    while index < len(form):
        part = form[index]
        if isinstance(part, str):
            if not text.startswith(part, at):
                return
            at += len(part)
        elif isinstance(part, Word):
            match = part.shape.match(text, at)
            if match is None:
                return
            filled[part.name] = match[0]
            at = match.end()
        elif (known := filled.get(part.name)) is not None:
            if not text.startswith(known, at):
                return
            at += len(known)
        else:
            yield from _gap(form, index, text, at, filled, steps)
            return
        index += 1
    if at == len(text):
        yield filled


def _gap(form: Form, index: int, text: str, at: int, filled: dict[str, str], steps: Steps) -> Iterator[Reading]:
    """Fill the gap at `index` in every way."""
    gap = form[index]
    assert isinstance(gap, Gap)
    if index + 1 == len(form):
        steps.take()
        yield {**filled, gap.name: text[at:]}
        return
    after = form[index + 1]
    assert isinstance(after, str), "after a gap comes fixed text"
    if index + 2 == len(form):
        steps.take()
        if text.endswith(after) and len(text) - len(after) >= at:
            yield {**filled, gap.name: text[at : len(text) - len(after)]}
        return
    end = text.find(after, at)
    while end >= 0:
        steps.take()
        yield from _from(form, index + 2, text, end + len(after), {**filled, gap.name: text[at:end]}, steps)
        end = text.find(after, end + 1)


Found: TypeAlias = tuple[str, Reading] | Doubt | None


def read(forms: Mapping[str, Form], text: str, known: Reading | None = None) -> Found:
    """Return the form's name and the reading when the text fits in just one way; None: in none.

    Two readings of two forms are two, even when they fill gaps alike.
    """
    found: list[tuple[str, Reading]] = []
    steps = Steps()
    try:
        for name, form in forms.items():
            found += ((name, reading) for reading in islice(readings(form, text, steps, known), 2))
    except TooManyReadingsError:
        return Doubt(frozenset(forms))
    if len(found) > 1:
        return Doubt(frozenset(name for name, _ in found))
    return found[0] if found else None
