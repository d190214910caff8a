"""Names that stand for all names: one for every way in which a policy's globs can tell names apart.

All globs run at once as one automaton over characters, in which those that no glob spells out are one. Each set of
globs that some name matches, and no other set, is reached with a shortest such name. The automaton is the Shift-And of
Baeza-Yates and Gonnet ("A new approach to text searching", 1992): the places reached in all globs are the bits of one
number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

_LETTERS: Final = "xyzwvutsrqponmlkjihgfedcba0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_STATES: Final = 20_000
"""States of the automaton that are looked at; ten thousand patterns that begin alike or not at all take fewer."""
_MOST_LITERALS: Final = 4096
_TRIED: Final = 40


@dataclass(frozen=True, slots=True)
class Name:
    """A name, and which globs match it."""

    text: str | None
    """None: the client has no such name."""
    holds: int
    """The globs that match it, as bits."""
    fresh: bool = False
    """Whether it stands for endlessly many names of the same globs: some character of it could be any other."""


class _Automaton:
    """Many globs at once."""

    def __init__(self, globs: Sequence[str]) -> None:
        self.start = self.ends = self._stars = self._any = 0
        self._by_character: dict[str, int] = {}
        self._end_of: list[int] = []
        place = 0
        for glob in globs:
            self.start |= 1 << place
            for character in glob:
                if character == "*":
                    self._stars |= 1 << place
                    continue
                if character == "?":
                    self._any |= 1 << place
                else:
                    self._by_character[character] = self._by_character.get(character, 0) | 1 << place
                place += 1
            self.ends |= 1 << place
            self._end_of.append(place)
            place += 1
        self.other = next(letter for letter in _letters() if letter not in self._by_character)
        """A character that no glob spells out; stands for all of them."""

    def next(self, state: int, character: str) -> int:
        """Return the places reached with one more character."""
        step = self._any | self._by_character.get(character, 0)
        return ((state & step) << 1) | (state & self._stars)

    def spells(self, character: str) -> bool:
        """Whether some glob spells this character out."""
        return character in self._by_character

    def spelled(self, state: int) -> Iterator[str]:
        """Yield the characters that mean something here besides being a character."""
        return (character for character, places in self._by_character.items() if state & places)

    def matching(self, state: int) -> int:
        """Return the globs whose end is reached."""
        reached = state & self.ends
        return sum(1 << number for number, place in enumerate(self._end_of) if reached >> place & 1) if reached else 0

    def holds(self, name: str) -> int:
        """Return the globs that match a name."""
        state = self.start
        for character in name:
            state = self.next(state, character)
        return self.matching(state)

    def names(self) -> tuple[list[tuple[str, bool]], bool]:
        """Return a shortest name for each set of globs, with whether it holds `other`; and whether these are all sets.

        Where a set has names that hold `other` and ones that do not, one of each.
        """
        first = (self.start, False)
        came: dict[tuple[int, bool], tuple[tuple[int, bool], str] | None] = {first: None}
        found: dict[tuple[int, bool], tuple[int, bool]] = {}
        waiting = [first]
        for current in waiting:  # grows while it is walked
            state, free = current
            found.setdefault((state & self.ends, free), current)
            for character in (self.other, *self.spelled(state)):
                following = (self.next(state, character), free or character == self.other)
                if following not in came:
                    if len(came) >= _STATES:
                        return [(_path(came, end), free) for (_, free), end in found.items()], False
                    came[following] = (current, character)
                    waiting.append(following)
        return [(_path(came, end), free) for (_, free), end in found.items()], True


def _path(came: dict[tuple[int, bool], tuple[tuple[int, bool], str] | None], end: tuple[int, bool]) -> str:
    characters = []
    step = came[end]
    while step is not None:
        end, character = step
        characters.append(character)
        step = came[end]
    return "".join(reversed(characters))


def representatives(
    globs: Mapping[str, int], *, apart: Sequence[str] = (), literals: Collection[str] = (), fillers: Sequence[str]
) -> tuple[list[Name], bool]:
    """Return names that stand for all names, and whether they do so for certain (or there are too many sets).

    `globs` have the number of their bit in `Name.holds`. Each glob without wildcards is a name. For each set of other
    globs that some name matches: where it has endlessly many names, one that is none of `literals`; else every one of
    `literals` in it, and one that is none where there is one. `apart`: globs to tell names apart by as well, which do
    not count in `Name.holds`. Names are as readable as can be: globs with `fillers` for wildcards.
    """
    wild = [glob for glob in globs if not _plain(glob)]
    every = [*wild, *apart]
    automaton = _Automaton(every)
    bits = [1 << globs[glob] for glob in wild]

    def name(text: str, *, fresh: bool = False) -> Name:
        """Return a name with the globs that match it."""
        found = automaton.holds(text)
        holds = sum(bit for number, bit in enumerate(bits) if found >> number & 1)
        return Name(text, holds | (1 << globs[text] if text in globs and _plain(text) else 0), fresh)

    words, complete = automaton.names()
    if not complete:  # what the globs themselves suggest is better than nothing
        words += [(glob.replace("*", fillers[0]).replace("?", fillers[0][0]), True) for glob in every]
    spelled = {glob: None for glob in globs if _plain(glob)}
    result = {text: name(text) for text in spelled}
    taken = {*literals, *spelled}
    free_sets = {automaton.holds(word) for word, free in words if free}
    few: set[int] = set()
    for word, free in words:
        holds = automaton.holds(word)
        if free:
            text = next(_readable(word, holds, automaton, every, fillers, taken), word)
            result.setdefault(text, name(text, fresh=True))
        elif holds not in free_sets:
            few.add(holds)
    if few:
        within = [word for word in dict.fromkeys((*spelled, *literals)) if automaton.holds(word) in few]
        more = _Automaton([*every, *(word for word in within[:_MOST_LITERALS] if _plain(word))])
        others, also_complete = more.names()
        complete = complete and also_complete and len(within) <= _MOST_LITERALS
        for word in (*within[:_MOST_LITERALS], *(word for word, _ in others)):
            if automaton.holds(word) in few:
                result.setdefault(word, name(word))
    return list(result.values()), complete


def _letters() -> Iterator[str]:
    """Yield characters for names, the most readable first; none has a meaning in patterns."""
    return chain(_LETTERS, map(chr, range(0xE0, 0xD800)), map(chr, range(0x10000, 0x110000)))


def _plain(glob: str) -> bool:
    return "*" not in glob and "?" not in glob


def _bits(number: int) -> Iterator[int]:
    return (bit for bit in range(number.bit_length()) if number >> bit & 1)


def _readable(
    word: str, holds: int, automaton: _Automaton, globs: Sequence[str], fillers: Sequence[str], taken: Collection[str]
) -> Iterator[str]:
    """Yield names of a set that holds endlessly many, the most readable first; none is taken."""
    spelled = sorted((globs[bit] for bit in _bits(holds)), key=lambda glob: (-len(glob.strip("*?")), glob))
    for name in _filled(spelled or ["*"], fillers):
        if name not in taken and automaton.holds(name) == holds:
            yield name
    # For `other`, any character will do that no glob spells out.
    for letter in _letters():
        if not automaton.spells(letter):
            name = word.replace(automaton.other, letter)
            if name not in taken:
                yield name


def _filled(globs: Iterable[str], fillers: Sequence[str]) -> Iterator[str]:
    """Yield globs with their wildcards filled in, a bounded number."""
    for glob in list(globs)[:_TRIED]:
        pure = not glob.strip("*?")
        for filler in fillers if pure else ("x", "y", "z", *fillers):
            yield glob.replace("*", filler, 1).replace("*", "").replace("?", filler[0])
            yield glob.replace("*", filler).replace("?", filler[0])
