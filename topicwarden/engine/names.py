"""What is wrong with a name as such: naming rules, unsafe characters, length. Looked at once for each name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from topicwarden.events import Resource, ResourceKind
from topicwarden.patterns import strip_share, unsafe_characters
from topicwarden.policy import NamingRule, Payload, Place, PlaceIndex, Space, Thresholds, space_of


class Flag(IntFlag):
    """What the engine remembers of a name."""

    TEXT_ONLY = 1
    NO_ENCODED = 2
    CUT = 4
    """The source gave only the name's beginning."""


UNSAFE: Final = ("", "cut", "length", "levels", "wildcards", "characters")
"""The kinds of unsafe names, by number; number 0 is "nothing"."""
MOST_WILDCARDS: Final = 3
"""Wildcards for any number of words in a binding key. RabbitMQ 3.10.8 tries all the ways in which they can stand for
words: with four of them one publish of 64 words took 1.9 s, with five 24 s."""


@dataclass(frozen=True, slots=True)
class NamingProblem:
    """One way in which names break one naming rule."""

    within: str
    level: int
    """1-based; 0 when the number of levels is wrong."""
    expected: str
    text: str
    """What is wrong, in words, without the name."""


class NameInspector:
    """Judges names by a policy's naming and payload sections and by the thresholds."""

    def __init__(self, naming: Sequence[NamingRule], payload: Payload, thresholds: Thresholds) -> None:
        self._rules = [(rule, [re.compile(level) for level in rule.levels]) for rule in naming]
        self._within = PlaceIndex([rule.within.place for rule in naming])
        self._text_only = PlaceIndex([Place(Space("topic"), topic) for topic in payload.text_only])
        self._no_encoded = PlaceIndex([Place(Space("topic"), topic) for topic in payload.no_encoded])
        self._thresholds = thresholds
        self.problems: list[NamingProblem] = [NamingProblem("", 0, "", "")]
        """By number; number 0 is "no problem"."""
        self._numbers: dict[tuple[int, int], int] = {}

    def inspect(self, resource: Resource) -> tuple[Flag, int, int]:
        """Return a name's flags, the number of its naming problem, and what is unsafe about it."""
        unsafe = UNSAFE.index(self.unsafe(resource)[0])
        if resource.truncated:
            return Flag.CUT, 0, unsafe
        flags = Flag(0)
        if len(self._text_only) and self._text_only.match(resource).always:
            flags |= Flag.TEXT_ONLY
        if len(self._no_encoded) and self._no_encoded.match(resource).always:
            flags |= Flag.NO_ENCODED
        return flags, self._naming(resource), unsafe

    def _naming(self, resource: Resource) -> int:
        """Return the number of the first problem by the first rule it breaks: one name, one finding."""
        if not self._rules:
            return 0
        for number in self._within.match(resource).always:
            rule, patterns = self._rules[number]
            levels = resource.name.split(rule.within.place.space.syntax.separator, len(patterns))
            for index, (level, pattern) in enumerate(zip(levels, patterns, strict=False)):
                if pattern.fullmatch(level) is None:
                    return self._problem(number, index + 1)
            if len(levels) < len(patterns) or (len(levels) > len(patterns) and not rule.more):
                return self._problem(number, 0)
        return 0

    def _problem(self, rule_number: int, level: int) -> int:
        number = self._numbers.get((rule_number, level))
        if number is None:
            rule, patterns = self._rules[rule_number]
            if level:
                expected = patterns[level - 1].pattern
                text = f"level {level} does not match {expected}"
            else:
                expected = f"{len(patterns)} levels" + (" or more" if rule.more else "")
                text = f"it has not {expected}"
            number = self._numbers[rule_number, level] = len(self.problems)
            self.problems.append(NamingProblem(rule.within.place.label, level, expected, text))
        return number

    def unsafe(self, resource: Resource) -> tuple[str, str]:
        """Say what is unsafe about a name: one of `UNSAFE`, and what in words; two empty strings when nothing is."""
        if resource.truncated:
            return "cut", f"the source cut it, as it is {resource.length} bytes long"
        longest, deepest = self._thresholds.max_name_length, self._thresholds.max_levels
        if resource.length > longest:
            return "length", f"it is {resource.length} bytes long, and {longest} are allowed"
        space = space_of(resource)
        if space is not None:
            name = strip_share(resource.name)[1] if space.family == "topic" else resource.name
            levels = name.count(space.syntax.separator) + 1
            if levels > deepest:
                return "levels", f"it has {levels} levels, and {deepest} are allowed"
        if resource.kind is ResourceKind.BINDING:
            wildcards = resource.name.split(".").count("#")
            if wildcards > MOST_WILDCARDS:
                return (
                    "wildcards",
                    f"it holds {wildcards} wildcards #, which can keep RabbitMQ busy for seconds a publish",
                )
        characters = unsafe_characters(resource.name)
        if characters:
            return "characters", "it holds " + ", ".join(characters[:4]) + (" and more" if len(characters) > 4 else "")
        return "", ""
