"""YAML as a tree that knows its lines: scalars stay the text that was written, and no tag ever constructs anything.

So `user: no` is the name `no`, `user: 007` keeps its zeros, and the model a value goes into decides what it means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import yaml

from topicwarden.errors import Problem
from topicwarden.policy.values import shown

MAX_DEPTH: Final = 32
MAX_NODES: Final = 1_000_000
"""Nodes once aliases are written out; what a file of 4 MiB can hold without any."""

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HIDDEN: Final = frozenset("\x85\u2028\u2029\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Line breaks that editors do not show as such, and marks that show text in another order than it is read."""


@dataclass(slots=True)
class Scalar:
    """A piece of text."""

    line: int
    text: str
    plain: bool
    """Written without quotes."""
    missing: bool = False
    """A value somebody forgot, or an alias that names nothing; reported when it was read."""
    size: int = 1


@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class Mapping:
    """A mapping; `lines` has the line of each key."""

    line: int
    entries: dict[str, Node] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    size: int = 1


Node = Scalar | Sequence | Mapping
"""`size` counts the node and all below it, aliases written out."""


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been read yet."""

    node: Sequence | Mapping
    anchor: str | None
    key: str | None = None
    key_line: int = 0
    expects_value: bool = False
    """The next node is the value of `key`; None means that key was refused."""


class _TooMuchError(Exception):
    """Reading on would cost too much; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read_tree(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document; returns its tree as far as it goes, and everything wrong with it as YAML."""
    hidden = [
        Problem(
            f"holds the invisible character U+{ord(c):04X}", file, number, f'write it as an escape: "\\u{ord(c):04x}"'
        )
        for number, line in enumerate(text.split("\n"), 1)
        if not line.isascii()
        for c in sorted(_HIDDEN.intersection(line))
    ]
    if hidden:
        return None, hidden
    reader = _Reader(file)
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            reader.take(event)
    except _TooMuchError as stop:
        return None, [*reader.problems, stop.problem]
    except yaml.YAMLError as error:
        return None, [*reader.problems, _syntax_problem(error, text, file)]
    return reader.root, reader.problems


class _Reader:
    """Builds the tree from parser events, so that depth and size are bounded before anything is built."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._documents = 0
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        mark = event.start_mark
        line = 1 if mark is None else mark.line + 1
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._say("a policy is one YAML document", line, "remove this --- and what follows, or split it")
            case yaml.AliasEvent():
                self._alias(event.anchor, line)
            case yaml.ScalarEvent():
                self._check_tag(event, line)
                scalar = Scalar(line, event.value, event.implicit[0])
                if event.anchor is not None:
                    self._anchors[event.anchor] = scalar
                self._put(scalar, line)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_tag(event, line)
                if len(self._stack) >= MAX_DEPTH:
                    raise _TooMuchError(Problem(f"nested deeper than {MAX_DEPTH} levels", self.file, line))
                node = Sequence(line) if isinstance(event, yaml.SequenceStartEvent) else Mapping(line)
                if event.anchor is not None:
                    self._anchors[event.anchor] = None
                self._stack.append(_Open(node, event.anchor))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                closed = self._stack.pop()
                if closed.anchor is not None:
                    self._anchors[closed.anchor] = closed.node
                self._put(closed.node, closed.node.line)
            case _:
                pass

    def _say(self, message: str, line: int, hint: str | None = None) -> None:
        self.problems.append(Problem(message, self.file, line, hint))

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        if event.tag is not None and event.tag != "!":
            self._say(f"the tag {shown(event.tag)} is not allowed", line, "remove it: values need no YAML tags")

    def _alias(self, anchor: str | None, line: int) -> None:
        anchor = anchor or ""
        node = self._anchors.get(anchor)
        if node is None:
            known = anchor in self._anchors
            self._say(f"the alias {shown('*' + anchor)} refers to {'itself' if known else 'nothing'}", line)
            node = Scalar(line, "?", False, missing=True)
        self._put(node, line)

    def _put(self, node: Node, line: int) -> None:
        """Place a finished node where it belongs."""
        if not self._stack:
            if self._documents == 1:
                self.root = node
            return
        opened = self._stack[-1]
        parent = opened.node
        parent.size += node.size
        if parent.size > MAX_NODES:
            raise _TooMuchError(
                Problem(f"holds more than {MAX_NODES} values once its aliases are written out", self.file, line)
            )
        if isinstance(parent, Sequence):
            self._check_value(node, None)
            parent.items.append(node)
        elif not opened.expects_value:
            opened.expects_value = True
            opened.key, opened.key_line = self._key(parent, node, line), line
        else:
            opened.expects_value = False
            if opened.key is not None:
                self._check_value(node, opened.key)
                parent.entries[opened.key] = node
                parent.lines[opened.key] = opened.key_line

    def _key(self, parent: Mapping, node: Node, line: int) -> str | None:
        if not isinstance(node, Scalar):
            self._say("a key must be text", line)
            return None
        if node.text == "<<" and node.plain:
            self._say("the merge key << is not supported", line, "repeat the keys, or give a whole value an &anchor")
            return None
        if node.text in parent.entries:
            self._say(
                f"the key {shown(node.text)} stands twice",
                line,
                f"it stands on line {parent.lines[node.text]} already: merge the two",
            )
            return None
        return node.text

    def _check_value(self, node: Node, key: str | None) -> None:
        """Refuse what YAML calls null: a forgotten value must never pass for a key that was left out."""
        if isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null", "Null", "NULL"):
            what = "an entry of a list" if key is None else shown(key)
            self._say(f"{what} has no value", node.line, "give it one or remove it; quote it if it is a name")
            node.missing = True


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """Turn the parser's error into ours, with its line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "cannot be read"
        return Problem(f"not valid YAML: {said}", file, None if mark is None else mark.line + 1)
    position = getattr(error, "position", None)
    character = getattr(error, "character", None)
    line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
    code = f" (U+{character:04X})" if isinstance(character, int) else ""
    return Problem(f"not valid YAML: a character that YAML does not allow{code}", file, line)
