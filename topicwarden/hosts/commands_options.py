"""Takes the words of a command line apart as the program they are given to does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.hosts.tools import Tool
from topicwarden.hosts.tools_grammar import Means, has_value

_KEY: Final = re.compile(r"(\w{1,32})=")


@dataclass(frozen=True, slots=True)
class Given:
    """An option with its value, or an operand."""

    means: Means
    name: str
    """The option as the table names it; an operand's key where it is written `key=value`; else ''."""
    value: str
    place: int
    """Which word holds the value, or the option where it has none."""
    start: int = 0
    """The character of that word with which the value begins."""
    missing: bool = False
    """Whether the line ends before the value."""


def given(words: Sequence[str], tool: Tool) -> list[Given]:
    """Return what a tool is given; the first word is its name."""
    found: list[Given] = []
    place = 1
    while place < len(words):
        word = words[place]
        grammar = tool.grammar
        if word == "--" and grammar.ends:
            found += [_operand(words[rest], rest, tool) for rest in range(place + 1, len(words))]
            break
        if len(word) < 2 or word[0] != "-":
            found.append(_operand(word, place, tool))
            if grammar.operands and not grammar.permutes:
                found += [_operand(words[rest], rest, tool) for rest in range(place + 1, len(words))]
                break
            place += 1
        elif word in tool.options and (grammar.whole or not grammar.clusters or len(word) == 2 or word[1] == "-"):
            place = _valued(found, words, place, word, tool.options[word])
        elif word[1] == "-" or not grammar.clusters:
            place = _long(found, words, place, tool)
        else:
            place = _cluster(found, words, place, tool)
    return found


def _operand(word: str, place: int, tool: Tool) -> Given:
    if tool.keys:
        match = _KEY.match(word)
        if match is not None:
            means = tool.keys.get(match[1], Means.VALUE)
            return Given(means, match[1], word[match.end() :], place, match.end())
    return Given(Means.OPERAND if tool.grammar.operands else Means.STRAY, "", word, place)


def _valued(found: list[Given], words: Sequence[str], place: int, name: str, means: Means) -> int:
    """Add an option that is a word of its own; return the place after it and its value."""
    if not has_value(means):
        found.append(Given(means, name, "", place))
        return place + 1
    if means is Means.PROPERTY:
        length = 4 if place + 2 < len(words) and words[place + 2] == "user-property" else 3
        found.append(Given(means, name, "", min(place + length, len(words) - 1)))
        return place + 1 + length
    if place + 1 >= len(words):
        found.append(Given(means, name, "", place, len(words[place]), missing=True))
    else:
        found.append(Given(means, name, words[place + 1], place + 1))
    return place + 2


def _long(found: list[Given], words: Sequence[str], place: int, tool: Tool) -> int:
    word = words[place]
    name, equals, value = word.partition("=")
    means = tool.options.get(name)
    if means is None and tool.grammar.whole and word.startswith("--"):
        means = tool.options.get(name[1:])
    if means is None and tool.grammar.abbreviations and len(name) > 2:
        names = {tool.options[full] for full in tool.options if full.startswith(name)}
        means = names.pop() if len(names) == 1 else None
    if means is None or (equals and not (tool.grammar.attached or tool.grammar.equals)):
        found.append(Given(Means.UNKNOWN, name, value, place))
        takes = not equals and not tool.grammar.operands and place + 1 < len(words)
        # Of a newer version, it may have a value: where no operands are taken, a word that is no option must be one.
        return place + 2 if takes and not words[place + 1].startswith("-") else place + 1
    if equals:
        found.append(Given(means, name, value, place, len(name) + 1))
        return place + 1
    return _valued(found, words, place, name, means)


def _cluster(found: list[Given], words: Sequence[str], place: int, tool: Tool) -> int:
    """Take letters behind one dash apart, and long names behind one where the program takes such."""
    word = words[place]
    name, equals, value = word.partition("=")
    if tool.grammar.whole and equals and name in tool.options:
        found.append(Given(tool.options[name], name, value, place, len(name) + 1))
        return place + 1
    for at in range(1, len(word)):
        name = "-" + word[at]
        means = tool.options.get(name)
        if means is None:
            found.append(Given(Means.UNKNOWN, name, "", place))
            return place + 1
        if not has_value(means):
            if means is not Means.FLAG:
                found.append(Given(means, name, "", place))
            continue
        start = at + 1
        if start == len(word):
            return _valued(found, words, place, name, means)
        if tool.grammar.equals and word[start] == "=":
            start += 1
        found.append(Given(means, name, word[start:], place, start))
        return place + 1
    return place + 1


def is_option(word: str, tool: Tool) -> bool:
    """Whether a word is one of a tool's options, in a line whose arguments were joined by spaces."""
    if len(word) < 2 or word[0] != "-":
        return False
    name = word.partition("=")[0] if tool.grammar.attached else word
    if name in tool.options:
        return True
    return tool.grammar.clusters and word[1] != "-" and len(word) > 2 and word[:2] in tool.options
