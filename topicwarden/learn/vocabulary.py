"""Names as short tuples of numbers: what is mined is compared, sorted and merged without ever touching a string.

A name is `(root, word, word, ...)`. The root stands for an action and a space (a topic, a key in one exchange, a queue,
an exchange); each word for a level. Numbers below `FIRST_WORD` are no text: the wildcards and the client's own names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from topicwarden.events import Action, Resource, ResourceKind
from topicwarden.patterns import filter_problem, strip_share, topic_problem, unsafe_characters
from topicwarden.policy import MQTT_EXCHANGE, Place, Space, Thresholds, space_of

Name = tuple[int, ...]

ONE: Final = 0
"""A wildcard for one level."""
REST: Final = 1
"""A wildcard for any number of levels."""
USER: Final = 2
"""The client's own user name."""
CLIENT: Final = 3
"""The client's own client id."""
FIRST_WORD: Final = 4

_LIMITS: Final = Thresholds()
_SHARED: Final = frozenset({MQTT_EXCHANGE, "amq.default"})
"""Exchanges that all applications of a broker share: their keys are topics, and names of queues."""


class Unfit(StrEnum):
    """Why a name is not learnt from at all."""

    TRUNCATED = "truncated"
    """The source gave only its beginning."""
    INVALID = "invalid"
    """No broker would take it."""
    MADE_UP = "made-up"
    """The broker invented it; a permission to bind covers it."""
    UNSAFE = "unsafe"
    """Too long, too deep, or with characters that do not show what they are."""
    INEXPRESSIBLE = "inexpressible"
    """Its text means something else in a policy: `%u`, `*`."""


@dataclass(frozen=True, slots=True)
class Root:
    """What a name is about: something done in a space."""

    action: Action
    space: Space

    @property
    def sheltered(self) -> bool:
        """Whether the first level tells applications apart, so that it is never generalised."""
        return self.space.family != "key" or self.space.within in _SHARED


_RootOf = tuple[int, str, str, str, str]
"""The root's number, its family, separator, and wildcards."""


class Vocabulary:
    """The words and roots met so far, with their numbers."""

    def __init__(self) -> None:
        self.roots: list[Root] = []
        self._root_numbers: dict[Root, int] = {}
        # By numbers and not by what they mean: a dataclass and an enumeration take long to hash.
        self._roots_of: dict[tuple[int, int, str], _RootOf] = {}
        self._words: list[str] = ["+", "#", "%u", "%c"]
        self._word_numbers: dict[str, int] = {}

    def number_of(self, word: str | None) -> int | None:
        """Return the number of a word met in some name, else None."""
        return None if word is None else self._word_numbers.get(word)

    def name_of(self, action: Action, resource: Resource) -> Name | Unfit:
        """Return the name of what was acted on, with the wildcards that were asked for; or why it is unfit."""
        if resource.made_up:
            return Unfit.MADE_UP
        if resource.truncated:
            return Unfit.TRUNCATED
        found = self._root_of(action, resource)
        if isinstance(found, Unfit):
            return found
        root, family, separator, one, rest = found
        text = resource.name
        wildcards = resource.kind is ResourceKind.BINDING
        if family == "topic":
            text = strip_share(text)[1]
            wildcards = action is Action.SUBSCRIBE
            if (filter_problem(text) if wildcards else topic_problem(text)) is not None:
                return Unfit.INVALID
        elif not text and family != "key":
            return Unfit.INVALID
        if resource.length > _LIMITS.max_name_length or text.count(separator) >= _LIMITS.max_levels:
            return Unfit.UNSAFE
        if unsafe_characters(text):
            return Unfit.UNSAFE
        levels = text.split(separator) if text else []
        if "%" not in text and one not in text and rest not in text:
            return (root, *map(self._word, levels))
        words = []
        for level in levels:
            if wildcards and level in (one, rest):
                words.append(ONE if level == one else REST)
            elif one in level or rest in level or "%u" in level or "%c" in level:
                return Unfit.INEXPRESSIBLE
            else:
                words.append(self._word(level))
        return (root, *words)

    def place(self, name: Name) -> Place:
        """Return the pattern that a name is, in its space."""
        space = self.roots[name[0]].space
        special = {ONE: space.syntax.one, REST: space.syntax.rest}
        levels = [special.get(word) or self._words[word] for word in name[1:]]
        return Place(space, space.syntax.separator.join(levels))

    def root(self, name: Name) -> Root:
        """Return what the name is about."""
        return self.roots[name[0]]

    def word(self, number: int) -> str:
        """Return the text of a word."""
        return self._words[number]

    def _word(self, text: str) -> int:
        number = self._word_numbers.get(text)
        if number is None:
            number = self._word_numbers[text] = len(self._words)
            self._words.append(text)
        return number

    def _root_of(self, action: Action, resource: Resource) -> _RootOf | Unfit:
        """Return the number of what a name is about, and how names there are built; or why it is unfit."""
        key = (int(action), int(resource.kind), resource.within)
        found = self._roots_of.get(key)
        if found is not None:
            return found
        space = space_of(resource)
        if space is None or not _takes(action, space) or (space.family == "key" and not space.within):
            return Unfit.INVALID
        if unsafe_characters(space.within) or len(space.within) > _LIMITS.max_name_length:
            return Unfit.UNSAFE
        root = Root(action, space)
        number = self._root_numbers.setdefault(root, len(self.roots))
        if number == len(self.roots):
            self.roots.append(root)
        syntax = space.syntax
        found = self._roots_of[key] = (number, space.family, syntax.separator, syntax.one, syntax.rest)
        return found


def own(name: Name, user: int | None, client_id: int | None) -> Name:
    """Return the name with the client's own names in it replaced by placeholders; `%u` where both are the same."""
    if user not in name[1:] and client_id not in name[1:]:
        return name
    return (
        name[0],
        *(USER if word == user else CLIENT if word == client_id else word for word in name[1:]),
    )


def is_pattern(name: Name) -> bool:
    """Whether the name holds wildcards."""
    return ONE in name[1:] or REST in name[1:]


def matches(rule: Name, name: Name) -> bool:
    """Whether a rule admits a name, both with placeholders; what can only be seen by binding them is not."""
    if rule == name:
        return True
    if rule[0] != name[0]:
        return False
    # Where a key's pattern may hold `#` anywhere, only the plainest case is looked at: it is the last word.
    if len(rule) > 1 and rule[-1] == REST and REST not in rule[1:-1]:
        return len(name) >= len(rule) - 1 and all(map(_admits, rule[1:-1], name[1:]))
    return REST not in rule and len(rule) == len(name) and all(map(_admits, rule[1:], name[1:]))


def _admits(wanted: int, given: int) -> bool:
    return wanted == given or (wanted == ONE and given != REST)


def _takes(action: Action, space: Space) -> bool:
    """Whether a policy has a rule for this action there."""
    match action:
        case Action.PUBLISH:
            return space.family in ("topic", "key")
        case Action.SUBSCRIBE:
            return space.family in ("topic", "key", "queue")
        case _:
            return space.family in ("queue", "exchange")
