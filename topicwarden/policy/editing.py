"""Adds an exception to the text of a policy, or takes one out, and leaves every other character as it is.

Nothing is parsed and written anew: where the entry stands is asked of YAML's parser, and the text is cut or extended
there. What comes out is read again and has to be the same policy but for the one exception, or nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.policy.exceptions import ExceptionRule
from topicwarden.policy.loading import parse_policy
from topicwarden.policy.model import Policy

KEY: Final = "exceptions"
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK: Final = re.compile(r"\r\n|\r|\n")
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*|[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NULLS: Final = frozenset({"null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Edited:
    """A changed policy."""

    text: str
    policy: Policy
    rule: ExceptionRule
    """What was added or taken out."""
    left_empty: bool = False
    """Whether `exceptions` stays in the file without an entry: there was more to it than we write ourselves."""


@dataclass(slots=True)
class _Item:
    """An entry of the list: from its first character to behind its last one."""

    start: int
    end: int = 0
    open_ended: bool = False
    """It ends in a block scalar, behind whose last line its end may stand."""


@dataclass(slots=True)
class _Section:
    """Where `exceptions` stands."""

    key: int
    key_end: int
    flow: bool = False
    is_list: bool = False
    start: int = 0
    """The list's first character."""
    items: list[_Item] = field(default_factory=list)


@dataclass(slots=True)
class _Layout:
    """What has to be known of a file to extend it."""

    flow: bool = False
    """The whole policy is written in braces."""
    start: int = 0
    last: int = 0
    """Behind the last value of the policy."""
    end: int = 0
    """Where a new section of a policy without braces would begin."""
    section: _Section | None = None


def entry_text(keys: Mapping[str, str]) -> str:
    """Return an exception as an entry of the list, on one line: `{finding: TW201, client: gw, …}`."""
    return "{" + ", ".join(f"{key}: {_quoted(value)}" for key, value in keys.items()) + "}"


def add_exception(
    text: str, file: str, keys: Mapping[str, str], known_findings: Collection[str] | None = None
) -> Edited:
    """Return a policy's text with one more exception, the last one; `keys` are those of `ExceptionRule`.

    Raises ConfigurationError when the policy or the exception is wrong, or the text cannot be extended.
    """
    before = parse_policy(text, file, known_findings)
    entry = entry_text(keys)
    layout = _layout(text)
    changed = _extended(text, layout, entry)
    try:
        after = parse_policy(changed, file, known_findings)
    except ConfigurationError as error:
        # The entry alone tells whether it is to blame, or where it was put.
        parse_policy(f"topicwarden: 1\n{KEY}:\n  - {entry}\n", "the exception", known_findings)
        raise _cannot(file, entry) from error
    wanted = ExceptionRule.model_validate(dict(keys))
    if after.exceptions != (*before.exceptions, wanted) or not _same_but_exceptions(before, after):
        raise _cannot(file, entry)
    return Edited(changed, after, wanted)


def remove_exception(text: str, file: str, number: int, known_findings: Collection[str] | None = None) -> Edited:
    """Return a policy's text without the exception of this number, from 0.

    Raises ConfigurationError when the policy is wrong, or the entry cannot be cut out, and IndexError when there is no
    such exception.
    """
    before = parse_policy(text, file, known_findings)
    rule = before.exceptions[number]
    section = _layout(text).section
    changed = None if section is None or not section.is_list else _cut(text, section, number)
    left = (*before.exceptions[:number], *before.exceptions[number + 1 :])
    if changed is not None:
        try:
            after = parse_policy(changed, file, known_findings)
        except ConfigurationError:
            changed = None
        else:
            if after.exceptions == left and _same_but_exceptions(before, after):
                return Edited(changed, after, rule, left_empty=not left and _layout(changed).section is not None)
    raise ConfigurationError(
        Problem(f"its exception number {number + 1} cannot be taken out by itself", file, hint="edit the file by hand")
    )


def _cannot(file: str, entry: str) -> ConfigurationError:
    return ConfigurationError(
        Problem(
            "an exception cannot be added without touching the rest", file, hint=f"add it by hand: {KEY}: [{entry}]"
        )
    )


def _same_but_exceptions(one: Policy, other: Policy) -> bool:
    return one.model_copy(update={KEY: ()}) == other.model_copy(update={KEY: ()})


def _quoted(text: str) -> str:
    """Return text as a YAML scalar that reads back as exactly this text, in braces too, and hides nothing."""
    if _PLAIN.fullmatch(text) and text not in _NULLS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == " " or (character.isascii() and character.isprintable()) or character.isalnum():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


# Where things stand ---------------------------------------------------------------------------------------------------


def _layout(text: str) -> _Layout:
    """Walk through YAML's events; the text has been read as a policy before, so it is well-formed."""
    walk = _Walk(text)
    for event in yaml.parse(text, Loader=_PARSER):
        if isinstance(event, yaml.DocumentEndEvent) and event.explicit:
            walk.layout.end = walk.at(event.start_mark)
        elif isinstance(event, yaml.CollectionStartEvent):
            walk.begins(event)
            walk.flows.append(bool(event.flow_style))
        elif isinstance(event, yaml.CollectionEndEvent):
            walk.closes(event)
        elif isinstance(event, yaml.NodeEvent):
            walk.begins(event)
            walk.ends(event)
    return walk.layout


class _Walk:
    """Follows the events of a policy; depth 1 is its keys and their values, depth 2 the entries of its lists."""

    def __init__(self, text: str) -> None:
        self.layout = _Layout(end=len(text))
        self.flows: list[bool] = []
        """Of each collection that is open, whether it stands in brackets or braces."""
        self._length = len(text)
        self._lines = [0, *(found.end() for found in _BREAK.finditer(text))]
        self._section: _Section | None = None
        """The section whose value comes or is open."""
        self._item: _Item | None = None
        self._expects_key = True

    def at(self, mark: Any) -> int:
        """Return the place in the text that a mark of either parser names."""
        if mark.line >= len(self._lines):
            return self._length
        place: int = self._lines[mark.line] + mark.column
        return min(place, self._length)

    def begins(self, event: yaml.NodeEvent) -> None:
        """Take the start of a key, value or entry."""
        depth, start = len(self.flows), self.at(event.start_mark)
        if depth == 0 and isinstance(event, yaml.CollectionStartEvent):
            self.layout.flow, self.layout.start = bool(event.flow_style), start
        elif depth == 1 and self._expects_key:
            ours = isinstance(event, yaml.ScalarEvent) and event.value == KEY
            self._section = _Section(start, self.at(event.end_mark)) if ours else None
            self.layout.section = self._section or self.layout.section
            self._expects_key = False
        elif depth == 1:
            self._expects_key = True
            if self._section is not None:
                self._section.start = start
                if isinstance(event, yaml.SequenceStartEvent):
                    self._section.is_list, self._section.flow = True, bool(event.flow_style)
        elif depth == 2 and self._section is not None and self._section.is_list:
            self._item = _Item(start)
            self._section.items.append(self._item)

    def closes(self, event: yaml.CollectionEndEvent) -> None:
        """Take the end of a mapping or list."""
        if self.flows.pop():
            self.ends(event)
        if len(self.flows) <= 1:
            self._item = None

    def ends(self, event: yaml.Event) -> None:
        """Take the end of what has one: a block only ends where something else begins."""
        if not self.flows:
            return
        self.layout.last = self.at(event.end_mark)
        if self._item is not None and len(self.flows) >= 2:
            self._item.end = self.layout.last
            self._item.open_ended = isinstance(event, yaml.ScalarEvent) and event.style in ("|", ">")


# Adding ---------------------------------------------------------------------------------------------------------------


def _extended(text: str, layout: _Layout, entry: str) -> str:
    section = layout.section
    if section is None:
        if layout.flow:
            return f"{text[: layout.last]}, {KEY}: [{entry}]{text[layout.last :]}"
        indent = " " * (layout.start - _line_start(text, layout.start))
        lines = [f"{indent}{KEY}:", f"{indent}  - {entry}"]
        return _with_lines(text, layout.end, lines)
    if not section.is_list:
        return text
    if section.flow:
        place, comma = (section.items[-1].end, ", ") if section.items else (section.start + 1, "")
        return text[:place] + comma + entry + text[place:]
    dash = _dash(text, section, len(section.items) - 1)
    indent = text[_line_start(text, dash) : dash]
    return _with_lines(text, _behind(text, section.items[-1]), [f"{indent}- {entry}"])


def _with_lines(text: str, place: int, lines: list[str]) -> str:
    """Insert whole lines; where the file's last line has no line break, the new last one has none either."""
    found = _BREAK.search(text)
    newline = found[0] if found else "\n"
    added = newline.join(lines)
    ended = place == 0 or text[place - 1] in "\r\n"
    return text[:place] + (added + newline if ended else newline + added) + text[place:]


# Taking out -----------------------------------------------------------------------------------------------------------


def _cut(text: str, section: _Section, number: int) -> str:
    if section.flow:
        return _cut_flow(text, section, number)
    first, last = _line_start(text, _dash(text, section, number)), _behind(text, section.items[number])
    if len(section.items) > 1:
        return _without_lines(text, first, last)
    key = _line_start(text, section.key)
    if text[key:first].strip() == f"{KEY}:":
        return _without_lines(text, key, last)
    # There is a comment or the like, which is not ours to remove.
    colon = text.index(":", section.key_end) + 1
    return text[:colon] + " []" + _without_lines(text, first, last)[colon:]


def _cut_flow(text: str, section: _Section, number: int) -> str:
    """Cut out an entry with the comma behind it, or, of the last one, with the comma before it."""
    item = section.items[number]
    comma = re.compile(r"[ \t]*,[ \t]*").match(text, item.end)
    if comma or not number:
        return text[: item.start] + text[comma.end() if comma else item.end :]
    before = section.items[number - 1].end
    between = text[before : item.start]
    if between.strip(" \t") == ",":
        return text[:before] + text[item.end :]
    # A comment stands between the two.
    return text[:before] + between.replace(",", "", 1) + text[item.end :]


def _without_lines(text: str, first: int, last: int) -> str:
    """Remove whole lines; where the file's last line had no line break, it has none afterwards."""
    if last == len(text) and first and not text.endswith(("\r", "\n")):
        first -= 2 if text[:first].endswith("\r\n") else 1
    return text[:first] + text[last:]


def _dash(text: str, section: _Section, number: int) -> int:
    """Return where the dash before an entry of a block list stands; comments before it may hold others."""
    begin = section.items[number - 1].end if number else section.start
    if number and section.items[number - 1].open_ended:
        begin = _behind(text, section.items[number - 1])
    place = begin
    while place < section.items[number].start:
        if text[place] == "#":
            found = _BREAK.search(text, place)
            place = found.end() if found else len(text)
            continue
        if text[place] == "-":
            return place
        place += 1
    return section.items[number].start


def _behind(text: str, item: _Item) -> int:
    """Return where the line after an entry begins; the end of the text when there is none."""
    start = _line_start(text, item.end)
    if item.open_ended and not text[start : item.end].strip(" "):
        return start
    found = _BREAK.search(text, item.end)
    return found.end() if found else len(text)


def _line_start(text: str, place: int) -> int:
    before = [0, *(found.end() for found in _BREAK.finditer(text, 0, place))]
    return before[-1]


def exception_lines(text: str) -> list[int]:
    """Return the line (1-based) on which each exception of a policy's text begins."""
    section = _layout(text).section
    if section is None:
        return []
    return [len(_BREAK.findall(text, 0, item.start)) + 1 for item in section.items]
