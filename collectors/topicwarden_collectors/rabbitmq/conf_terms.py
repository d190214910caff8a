"""Reads Erlang terms as text: advanced.config, rabbitmq.config and enabled_plugins. Nothing is evaluated.

Atoms become `Atom`, strings and binaries text, tuples and lists the same in Python, maps dictionaries. What a term file
may hold besides (functions, references, records) is no configuration and refused.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias, Union

Term: TypeAlias = Union["Atom", str, int, float, tuple["Term", ...], list["Term"], dict["Term", "Term"]]

MAX_DEPTH: Final = 64
MAX_TERMS: Final = 200_000
_SPACE: Final = re.compile(r"(?:[\s\0]+|%[^\n]*)+")
_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,2}#[0-9A-Za-z]{1,64}|\d{1,64}(?:\.\d{1,64}(?:[eE][+-]?\d{1,3})?)?)")
_ATOM: Final = re.compile(r"[a-zß-öø-ÿ][\w@]*")
_CHARACTER: Final = re.compile(r"\$(\\.|[^\\])", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|([0-7]{1,3})|\^(.)|(.))", re.DOTALL)
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "s": " ", "e": "\x1b", "b": "\b", "f": "\f", "v": "\v", "d": "\x7f"}
_RESERVED: Final = frozenset(
    {"after", "begin", "case", "catch", "cond", "end", "fun", "if", "let", "of", "receive", "try", "when"}
)
"""Words that look like atoms and are none; those of operators come with signs that are refused anyhow."""


class Atom(str):
    """An Erlang atom; equal to a text of the same letters."""

    __slots__ = ()


class TermError(ValueError):
    """The text is no term we read. `line` is 1-based."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read_terms(text: str) -> list[Term]:
    """Return the terms of a file, each of which ends with a full stop; raises TermError."""
    return _Reader(text).terms()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._count = 0

    def terms(self) -> list[Term]:
        found: list[Term] = []
        self._space()
        while self._at < len(self._text):
            found.append(self._term(0))
            self._expect(".")
        return found

    def _fail(self, message: str) -> TermError:
        return TermError(message, self._text.count("\n", 0, self._at) + 1)

    def _space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        if space:
            self._at = space.end()

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._fail(f"{sign!r} is missing")

    def _take(self, sign: str) -> bool:
        self._space()
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        self._space()
        return True

    def _term(self, depth: int) -> Term:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_TERMS:
            raise self._fail("it is nested too deeply or too long")
        if self._take("["):
            return self._items("]", depth)
        if self._take("{"):
            return tuple(self._items("}", depth))
        if self._take("#{"):
            return self._map(depth)
        if self._take("<<"):
            return self._binary()
        for pattern in (_NUMBER, _ATOM, _CHARACTER):
            found = pattern.match(self._text, self._at)
            if found and found[0] not in _RESERVED:
                self._at = found.end()
                return _Reader._plain(pattern, found)
        if self._text.startswith("'", self._at):
            return Atom(self._quoted("'"))
        if self._text.startswith('"', self._at):
            parts = [self._quoted('"')]
            self._space()
            while self._text.startswith('"', self._at):  # adjacent strings are one
                parts.append(self._quoted('"'))
                self._space()
            return "".join(parts)
        raise self._fail("this is no Erlang term")

    @staticmethod
    def _plain(pattern: re.Pattern[str], found: re.Match[str]) -> Term:
        if pattern is _ATOM:
            return Atom(found[0])
        if pattern is _CHARACTER:
            return ord(_unescaped(found[1])[:1] or "\0")
        text = found[0]
        if "#" in text:
            base, _, digits = text.lstrip("+-").partition("#")
            try:
                return int(digits, int(base)) * (-1 if text.startswith("-") else 1)
            except ValueError:
                return 0
        return float(text) if "." in text else int(text)

    def _items(self, end: str, depth: int) -> list[Term]:
        items: list[Term] = []
        if self._take(end):
            return items
        while True:
            items.append(self._term(depth + 1))
            if self._take(end):
                return items
            if not self._take(","):
                raise self._fail(f"{end!r} or ',' is missing")

    def _map(self, depth: int) -> dict[Term, Term]:
        items: dict[Term, Term] = {}
        while not self._take("}"):
            if items:
                self._expect(",")
            key = self._term(depth + 1)
            self._expect("=>")
            try:
                items[key] = self._term(depth + 1)
            except TypeError:
                raise self._fail("a list or map is a key of a map") from None
        return items

    def _binary(self) -> str:
        parts: list[str] = []
        while not self._take(">>"):
            if parts:
                self._expect(",")
            if self._text.startswith('"', self._at):
                parts.append(self._quoted('"'))
                self._take("/utf8")
            else:
                number = _NUMBER.match(self._text, self._at)
                if number is None or not number[0].isdigit() or int(number[0]) > 255:
                    raise self._fail("this is no plain binary")
                self._at = number.end()
                parts.append(chr(int(number[0])))
        return "".join(parts)

    def _quoted(self, sign: str) -> str:
        start = self._at + 1
        at = start
        while at < len(self._text) and self._text[at] != sign:
            at += 2 if self._text[at] == "\\" else 1
        if at >= len(self._text):
            raise self._fail("a quote does not end")
        self._at = at + 1
        return _unescaped(self._text[start:at])


def _unescaped(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        long, short, octal, control, letter = found.groups()
        if long or short:
            number = int(long or short, 16)
            return chr(number) if number < 0x110000 else "\ufffd"
        if octal:
            return chr(int(octal, 8))
        if control:
            return chr(ord(control[0]) & 31)
        return _LETTERS.get(letter, letter)

    return _ESCAPE.sub(replaced, text)
