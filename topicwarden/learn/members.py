"""From the user names of a role to selectors: a glob where it selects exactly them, else each by its name."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Final

from topicwarden.policy import Glob

GLOB_MEMBERS: Final = 10
"""Fewest users for which a glob stands, that is: for users nobody has seen yet, too."""
PREFIX: Final = 3
"""Fewest characters that a glob fixes."""

_PARTS: Final = re.compile(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9]")


def selectors(users: Collection[str], others: Collection[str]) -> tuple[list[str], list[str]]:
    """Return globs and names that select all `users` and none of `others`.

    A glob is a beginning of names, up to a separator or to a number, and `*`; `others` are all other user names that
    were seen, in whatever role or none.
    """
    wanted = set(users)
    foreign = sorted(set(others) - wanted)
    groups: dict[str, list[str]] = {}
    for user in sorted(wanted):
        for start in _beginnings(user):
            groups.setdefault(start, []).append(user)
    globs: list[str] = []
    left = set(wanted)
    # The shortest beginnings first: they select most.
    for start, selected in sorted(groups.items(), key=lambda item: (len(item[0]), item[0])):
        if len(selected) < GLOB_MEMBERS or not left.issuperset(selected):
            continue
        if not _any_begins(foreign, start):
            globs.append(start + "*")
            left.difference_update(selected)
    return globs, sorted(left)


def selects(globs: Sequence[str], names: Collection[str], user: str) -> bool:
    """Whether the selectors select this user."""
    return user in names or any(Glob(text).matches(user) for text in globs)


def _beginnings(user: str) -> list[str]:
    """Return the beginnings of a name that a glob may fix: up to a separator, or up to a number at its end."""
    found = []
    position = 0
    parts = _PARTS.findall(user)
    for number, part in enumerate(parts):
        position += len(part)
        last_but_digits = number + 2 == len(parts) and parts[-1].isdigit() and part.isalpha()
        if (not part.isalnum() or last_but_digits) and PREFIX <= position < len(user):
            found.append(user[:position])
    return found


def _any_begins(names: Sequence[str], start: str) -> bool:
    """Whether one of the sorted names begins so."""
    position = bisect_left(names, start)
    return position < len(names) and names[position].startswith(start)
