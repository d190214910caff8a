"""The parts of a shell's text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_ESCAPES: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|u([0-9A-Fa-f]{1,4})|(.))", re.DOTALL)
_NAMED: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v"}


@dataclass(slots=True)
class Word:
    """A word of a shell's text."""

    text: str
    """Without quotes; variables that the text sets are in their place, all else stays as written."""
    start: int
    end: int
    literal: bool = True
    """Whether this is what the program will be given."""
    pattern: bool = False
    """Whether it began unquoted (so it may be a reserved word)."""


@dataclass(slots=True)
class Redirect:
    """A redirection of a command."""

    operator: str
    word: Word
    body: tuple[int, int] | None = None
    """Where the text of a here-document stands."""


@dataclass(slots=True)
class Simple:
    """A program with its words, its assignments left out."""

    words: list[Word] = field(default_factory=list)
    redirects: list[Redirect] = field(default_factory=list)
    ends: int = 0
    """Where it ends in the text."""
    inner: bool = False
    """Whether it stands in a `$(…)` or the like."""


@dataclass(slots=True)
class Group:
    """Commands that share their input and output: `{ … }`, `( … )`, loops."""

    pipelines: list[list[Simple | Group]] = field(default_factory=lambda: [[]])
    redirects: list[Redirect] = field(default_factory=list)


def variables(text: str) -> set[str]:
    """Return the variables that a part of a shell's text names."""
    return {match[1] or match[2] for match in VARIABLE.finditer(text)}


def simples(part: Simple | Group) -> Iterator[Simple]:
    """Yield the simple commands of a part of a pipeline, in order."""
    waiting: list[Simple | Group] = [part]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Simple):
            yield part
        else:
            waiting += [one for pipeline in reversed(part.pipelines) for one in reversed(pipeline)]


def unescaped(text: str) -> str:
    """Return a text with its backslash escapes replaced, as printf, `echo -e` and `$'…'` do; bytes as surrogates."""
    return _ESCAPES.sub(_character, text) if "\\" in text else text


def _character(match: re.Match[str]) -> str:
    if match[1] is not None or match[2] is not None:
        byte = int(match[1], 16) if match[1] is not None else int(match[2], 8) & 0xFF
        return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)
    if match[3] is not None:
        number = int(match[3], 16)
        return "�" if 0xD800 <= number < 0xE000 else chr(number)
    return _NAMED.get(match[4], match[4])
