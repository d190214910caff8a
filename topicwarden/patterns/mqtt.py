"""MQTT topic names and filters: what is valid, what matches (MQTT 3.1.1 and 5.0, section 4.7).

Policy filters may hold `%u` (user name) and `%c` (client id) as whole levels. A placeholder equals one level of the
topic, character by character: it is never read as a wildcard, whatever the client calls itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_BYTES: Final = 65535
"""Longest name or filter in bytes of UTF-8 (MQTT 5.0, section 1.5.4)."""


class Special(Enum):
    """A level of a filter that is not literal text."""

    ONE = "+"
    REST = "#"
    USER = "%u"
    CLIENT = "%c"
    NOTHING = "(nothing)"
    """A placeholder bound to a name that can be no level: None, empty, not UTF-8, or holding `/`, `+`, `#` or NUL."""


Level = str | Special
"""A literal level is a str, so a literal `+` (which equals no level of a valid name) never passes for `Special.ONE`."""

_WILDCARDS: Final[Mapping[str, Special]] = {"+": Special.ONE, "#": Special.REST}
_PLACEHOLDERS: Final[Mapping[str, Special]] = {"%u": Special.USER, "%c": Special.CLIENT}


@dataclass(frozen=True, slots=True)
class LevelPattern:
    """A filter taken apart, in which literal text and wildcards cannot be confused."""

    text: str
    """As written by a person, for messages."""
    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        if not self.levels or Special.REST in self.levels[:-1]:
            raise ValueError(f"{self.text!r}: a pattern has levels, and `#` only as its last")

    def __str__(self) -> str:
        return self.text


def topic_problem(name: str) -> str | None:
    """Say why `name` is no valid topic name, or None when it is one."""
    if not name:
        return "a topic name cannot be empty"
    for character in "+#":
        if character in name:
            return f"a topic name cannot hold the wildcard {character!r}"
    return _text_problem(name, "topic name")


def filter_problem(f: str, *, placeholders: bool = False) -> str | None:
    """Say why `f` is no valid topic filter, or None when it is one.

    With `placeholders`, `%u` and `%c` must be whole levels too. A `$share/group/` prefix is judged with the rest.
    """
    if not f:
        return "a topic filter cannot be empty"
    problem = _text_problem(f, "topic filter")
    if problem is not None:
        return problem
    levels = f.split("/")
    if levels[0] == "$share":
        if len(levels) < 3 or not levels[1] or levels[2:] == [""]:
            return "a shared subscription is written $share/group/filter"
        if "+" in levels[1] or "#" in levels[1]:
            return f"the group of a shared subscription cannot hold a wildcard, not {levels[1]!r}"
    for number, level in enumerate(levels):
        if "#" in level:
            if level != "#":
                return f"'#' must be a whole level, not part of {level!r}"
            if number != len(levels) - 1:
                return "'#' must be the last level"
        if "+" in level and level != "+":
            return f"'+' must be a whole level, not part of {level!r}"
        if placeholders:
            for placeholder in _PLACEHOLDERS:
                if placeholder in level and level != placeholder:
                    return f"'{placeholder}' must be a whole level, not part of {level!r}"
    return None


def _text_problem(text: str, what: str) -> str | None:
    """Say what is wrong with any MQTT string (MQTT 5.0, section 1.5.4)."""
    if "\0" in text:
        return f"a {what} cannot hold the character NUL"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return f"a {what} cannot hold lone surrogates: it is not valid UTF-8"
    if size > MAX_BYTES:
        return f"a {what} cannot be longer than {MAX_BYTES} bytes of UTF-8, not {size}"
    return None


def strip_share(f: str) -> tuple[str | None, str]:
    """Split `$share/group/filter` into group and filter; other filters come back whole, with None.

    What is not written so (`$share`, `$share/group`) is no shared subscription and comes back whole.
    """
    if f.startswith("$share/"):
        _, group, *rest = f.split("/", 2)
        if rest:
            return group, rest[0]
    return None, f


def matches(f: str, topic: str, user: str | None = None, client_id: str | None = None) -> bool:
    """Whether the filter `f` matches `topic` for this user and client id: the plain definition, level by level.

    `#` matches the parent level too; `+` and `#` at the first level match no topic that starts with `$`; empty levels
    count. `%u` and `%c` equal a whole level literally; None and '' equal none. A text that is no topic name (empty, or
    holding `+`, `#` or NUL) is matched by nothing. `f` must be valid.
    """
    if not is_name(topic):
        return False
    wanted = f.split("/")
    given = topic.split("/")
    if wanted[0] in _WILDCARDS and topic.startswith("$"):
        return False
    for number, level in enumerate(wanted):
        if level == "#":
            return True
        if number == len(given):
            return False
        if level in _PLACEHOLDERS:
            identity = user if level == "%u" else client_id
            if not identity or identity != given[number]:
                return False
        elif level not in ("+", given[number]):
            return False
        if number == len(given) - 1 and wanted[number + 1 :] == ["#"]:
            return True
    return len(wanted) == len(given)


def is_name(topic: str) -> bool:
    """Whether `topic` can be a topic name at all; length and surrogates apart, the rule of `topic_problem`."""
    return bool(topic) and "+" not in topic and "#" not in topic and "\0" not in topic


def parse(f: str, *, placeholders: bool = False) -> LevelPattern:
    """Take a filter apart; raises ValueError when it is not valid. Without `placeholders`, `%u` is ordinary text."""
    problem = filter_problem(f, placeholders=placeholders)
    if problem is not None:
        raise ValueError(problem)
    special = {**_WILDCARDS, **_PLACEHOLDERS} if placeholders else _WILDCARDS
    return LevelPattern(f, tuple(special.get(level, level) for level in f.split("/")))


def bind(f: str, user: str | None, client_id: str | None) -> LevelPattern:
    """Take a policy filter apart with `%u` and `%c` replaced by one client's names, as literal levels.

    A name that can be no level (None, '', not UTF-8, or holding `/`, `+`, `#`, NUL) makes a pattern that matches
    nothing, so a user called `+` gains nothing. Raises ValueError when the filter is not valid.
    """
    names = {Special.USER: _as_level(user), Special.CLIENT: _as_level(client_id)}
    pattern = parse(f, placeholders=True)
    return LevelPattern(
        f, tuple(names.get(level, level) if isinstance(level, Special) else level for level in pattern.levels)
    )


def _as_level(name: str | None) -> Level:
    if not name or "/" in name or topic_problem(name) is not None:
        return Special.NOTHING
    return name
