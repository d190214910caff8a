"""Many names at once: which of them a pattern matches, looked for only where its literal beginning puts them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import takewhile
from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.patterns.dotted import KeyPattern
from topicwarden.patterns.languages import Anything, Names, names_match
from topicwarden.patterns.mqtt import LevelPattern, Special, is_name
from topicwarden.patterns.regex import Regex, regex_beginning

Places = npt.NDArray[np.int64]
_LAST: Final = chr(0x10FFFF)
_NONE: Final = np.empty(0, np.int64)


class SortedNames:
    """Different names in order; a name's place is its number."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(set(names))
        valid = np.array([is_name(name) for name in self.names], bool)
        hidden = np.array([name.startswith("$") for name in self.names], bool)
        self._topics = np.flatnonzero(valid)
        """Those that can be names of topics."""
        self._open_topics = np.flatnonzero(valid & ~hidden)
        """Those of them that a wildcard at the first level stands for."""

    def __len__(self) -> int:
        return len(self.names)

    def place(self, name: str) -> int:
        """Return a name's place; raises KeyError when it is not there."""
        place = bisect_left(self.names, name)
        if place == len(self.names) or self.names[place] != name:
            raise KeyError(name)
        return place

    def candidates(self, pattern: Names, among: Places) -> Places:
        """Return the places, of some in ascending order, where names stand that the pattern may match."""
        beginning = _beginning(pattern)
        if not beginning:
            return among
        return self._within(beginning, among)

    def matching(self, pattern: Names, among: Places) -> tuple[Places, Places]:
        """Return the places, of some in ascending order, of names that match, and of those of which it cannot be told.

        The same as asking `names_match` of each.
        """
        if isinstance(pattern, Anything):
            return among, _NONE
        if isinstance(pattern, LevelPattern) and _is_branch(pattern):
            return self._branch(pattern, among), _NONE
        candidates = self.candidates(pattern, among)
        answers = [names_match(pattern, self.names[place]) for place in candidates.tolist()]
        matched = candidates[np.array([answer is True for answer in answers], bool)]
        return matched, candidates[np.array([answer is None for answer in answers], bool)]

    def _branch(self, pattern: LevelPattern, among: Places) -> Places:
        """Return what a filter matches whose only wildcard is `#` at the end: a topic and all below it."""
        top = "/".join(_literals(pattern.levels))
        if len(pattern.levels) == 1:
            return _common(among, self._open_topics)
        below = _common(self._within(top + "/", among), self._topics)
        place = bisect_left(self.names, top)
        itself = place < len(self.names) and self.names[place] == top and is_name(top)
        return np.concatenate((_common(among, np.array([place])), below)) if itself else below

    def _within(self, beginning: str, among: Places) -> Places:
        """Return the places, of some in ascending order, of names that begin so."""
        first = bisect_left(self.names, beginning)
        following = _following(beginning)
        end = len(self.names) if following is None else bisect_left(self.names, following, first)
        begin, stop = np.searchsorted(among, (first, end)).tolist()
        return among[begin:stop]


def _is_branch(pattern: LevelPattern) -> bool:
    return pattern.levels[-1] is Special.REST and all(isinstance(level, str) for level in pattern.levels[:-1])


def _beginning(pattern: Names) -> str:
    """Return text that every name begins with that the pattern matches."""
    match pattern:
        case LevelPattern(levels=parts):
            return "/".join(_literals(parts))
        case KeyPattern(words=words):
            return ".".join(_literals(words))
        case Regex(text=text):
            # Bytes of a character that is not whole say nothing of how names are ordered.
            return "".join(takewhile(str.isascii, map(chr, regex_beginning(text))))
        case Anything():
            return ""


def _literals(parts: Iterable[object]) -> list[str]:
    found = []
    for part in parts:
        if not isinstance(part, str):
            break
        found.append(part)
    return found


def _following(beginning: str) -> str | None:
    """Return the first text, in order, behind all that begin so; None: there is none."""
    shorter = beginning.rstrip(_LAST)
    return shorter[:-1] + chr(ord(shorter[-1]) + 1) if shorter else None


def _common(some: Places, others: Places) -> Places:
    """Return what is in both; each is in ascending order."""
    if not len(others):
        return _NONE
    found = np.minimum(np.searchsorted(others, some), len(others) - 1)
    both: Places = some[others[found] == some]
    return both
