"""JSON as the dynamic security plugin reads it, with the line of every value.

Mosquitto's plugins use cJSON (1.7.15 on Debian 12). It differs from RFC 8259 in what decides rights, so no other reader
will do: names of members are compared without regard to the case of ASCII letters and the first of several counts, a
NUL ends a text (and the file), control characters may stand in texts, bytes that are not UTF-8 are taken as they are,
and what follows the first value is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from topicwarden.errors import ConfigurationError, Problem

MAX_BYTES: Final = 64 << 20
MAX_DEPTH: Final = 1000
"""cJSON's own limit (`CJSON_NESTING_LIMIT`)."""
MAX_VALUES: Final = 2_000_000
MAX_INT: Final = 2**31 - 1
_BOM: Final = "\ufeff"
_BLANKS: Final = re.compile("[\x01-\x20]*")
_TEXT: Final = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_NUMBER: Final = re.compile(r"-?[0-9][0-9+\-eE.]*|-[+\-eE.][0-9+\-eE.]*")
_MAX_NUMBER: Final = 63
_STRTOD: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ESCAPE: Final = re.compile(r"\\(u.{0,4}|.)", re.DOTALL)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
_WORDS: Final = {"null": None, "false": False, "true": True}
_HINT: Final = "the plugin reads nothing of a file that is no JSON, and then lets nobody in"


@dataclass(slots=True)
class Value:
    """A text, number, boolean or null, or the items of a list."""

    line: int
    held: str | int | bool | list[Value] | None
    """Numbers as the plugin takes them: cut to 32 bits, without what is behind the point. bool before int."""


@dataclass(slots=True)
class Member:
    """A named value of an object."""

    line: int
    name: str
    value: Value


@dataclass(slots=True)
class Object(Value):
    """An object; `held` is None."""

    members: list[Member] = field(default_factory=list)

    def get(self, name: str) -> Value | None:
        """Return the value the plugin finds under a name, which is written in lower case."""
        return next((member.value for member in self.members if folded(member.name) == name), None)

    def text(self, name: str) -> str | None:
        """Return a member's text; None when it is missing or no text."""
        value = self.get(name)
        return None if value is None else text_of(value)

    def number(self, name: str, otherwise: int) -> int:
        """Return a member's number; `otherwise` when it is missing or no number."""
        value = self.get(name)
        held = None if value is None else value.held
        return held if isinstance(held, int) and not isinstance(held, bool) else otherwise

    def truth(self, name: str) -> bool:
        """Return a member's boolean; False when it is missing or no boolean."""
        value = self.get(name)
        return value is not None and value.held is True

    def items(self, name: str) -> Sequence[Value] | None:
        """Return a member's list; None when it is missing or no list."""
        value = self.get(name)
        return value.held if value is not None and isinstance(value.held, list) else None


def text_of(value: Value) -> str | None:
    """Return a text as C sees it, up to the first NUL; None for what is no text."""
    return value.held.partition("\0")[0] if isinstance(value.held, str) else None


@lru_cache(maxsize=1024)
def folded(name: str) -> str:
    """Return a name as names are compared: ASCII letters in lower case (C locale)."""
    name = name.partition("\0")[0]
    return name.lower() if name.isascii() else "".join(c.lower() if c.isascii() else c for c in name)


def parse_json(file: str, data: bytes) -> Value:
    """Read the first value of a file; raises ConfigurationError, with the line, where the plugin reads nothing."""
    if len(data) > MAX_BYTES:
        raise ConfigurationError(Problem(f"holds more than {MAX_BYTES} bytes", file))
    return _Reader(file, data.partition(b"\0")[0].decode("utf-8", "surrogateescape")).read()


class _BadError(Exception):
    """What is no JSON, and where."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.what = what
        self.at = at


class _Reader:
    """Reads without recursion: depth is the writer's choice."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._at = len(_BOM) if text.startswith(_BOM) else 0
        self._line = 1
        self._counted = 0
        self._values = 0

    def read(self) -> Value:
        """Read the first value; raises ConfigurationError."""
        try:
            return self._read()
        except _BadError as bad:
            self._counted, self._line = 0, 1
            raise ConfigurationError(
                Problem(f"not valid JSON: {bad.what}", self._file, self._line_at(bad.at), _HINT)
            ) from None

    def _read(self) -> Value:
        """Read values until the outermost is complete."""
        open_ones: list[Value] = []
        while True:
            value, opened = self._begin()
            if opened:
                if len(open_ones) >= MAX_DEPTH:
                    raise _BadError(f"nested deeper than {MAX_DEPTH} levels", self._at)
                if not self._ends(value):
                    open_ones.append(value)
                    if isinstance(value, Object):
                        self._name(value)
                    continue
            # Give the value to what it is in, and close what ends with it.
            while True:
                if not open_ones:
                    return value
                parent = open_ones[-1]
                if isinstance(parent, Object):
                    parent.members[-1].value = value
                elif isinstance(parent.held, list):
                    parent.held.append(value)
                if self._continues(parent):
                    break
                value = open_ones.pop()

    def _begin(self) -> tuple[Value, bool]:
        """Read a text, number or word, or the beginning of a list or an object."""
        self._skip()
        self._values += 1
        if self._values > MAX_VALUES:
            raise _BadError(f"more than {MAX_VALUES} values", self._at)
        text, at = self._text, self._at
        first = text[at : at + 1]
        line = self._line_at(at)
        match first:
            case '"':
                return Value(line, self._string()), False
            case "[":
                self._at += 1
                return Value(line, []), True
            case "{":
                self._at += 1
                return Object(line, None), True
        for word, meaning in _WORDS.items():
            if text.startswith(word, at):
                self._at += len(word)
                return Value(line, meaning), False
        number = _NUMBER.match(text, at)
        if number is None:
            raise _BadError("the file ends too early" if not first else f"unexpected {first!r}", at)
        read = _STRTOD.match(number[0][:_MAX_NUMBER])
        if read is None:
            raise _BadError(f"{number[0][:20]!r} is no number", at)
        self._at += read.end()
        return Value(line, _int(float(read[0]))), False

    def _ends(self, value: Value) -> bool:
        """Whether a list or object that has just begun ends at once."""
        self._skip()
        if self._text.startswith("}" if isinstance(value, Object) else "]", self._at):
            self._at += 1
            return True
        return False

    def _continues(self, parent: Value) -> bool:
        """Whether a comma follows; otherwise the list or object has been closed."""
        self._skip()
        next_one = self._text[self._at : self._at + 1]
        close = "}" if isinstance(parent, Object) else "]"
        if next_one not in (",", close) or not next_one:
            what = "the file ends too early" if not next_one else f"expected ',' or {close!r}, not {next_one!r}"
            raise _BadError(what, self._at)
        self._at += 1
        if next_one == close:
            return False
        if isinstance(parent, Object):
            self._name(parent)
        return True

    def _name(self, parent: Object) -> None:
        self._skip()
        line = self._line_at(self._at)
        if not self._text.startswith('"', self._at):
            raise _BadError("expected a name in quotes", self._at)
        name = self._string()
        self._skip()
        if not self._text.startswith(":", self._at):
            raise _BadError("expected ':' after a name", self._at)
        self._at += 1
        parent.members.append(Member(line, name, Value(line, None)))

    def _string(self) -> str:
        found = _TEXT.match(self._text, self._at)
        if found is None:
            raise _BadError("a text without its closing quote", self._at)
        start, self._at = self._at, found.end()
        raw = found[1]
        return raw if "\\" not in raw else "".join(self._unescaped(raw, start + 1))

    def _unescaped(self, raw: str, start: int) -> Iterator[str]:
        done, high = 0, None
        for escape in _ESCAPE.finditer(raw):
            between = raw[done : escape.start()]
            done = escape.end()
            what = escape[1]
            if high is not None and (between or what[0] != "u"):
                raise _BadError("half a surrogate pair", start + escape.start())
            yield between
            if what[0] != "u":
                if what not in _ESCAPES:
                    raise _BadError(f"unknown escape {chr(92) + what!r}", start + escape.start())
                yield _ESCAPES[what]
                continue
            if len(what) < 5:
                raise _BadError("an escape that is cut off", start + escape.start())
            code = _hex(what[1:])
            if high is not None:
                if not 0xDC00 <= code <= 0xDFFF:
                    raise _BadError("half a surrogate pair", start + escape.start())
                yield chr(0x10000 + ((high & 0x3FF) << 10 | code & 0x3FF))
                high = None
            elif 0xD800 <= code <= 0xDBFF:
                high = code
            elif 0xDC00 <= code <= 0xDFFF:
                raise _BadError("half a surrogate pair", start + escape.start())
            else:
                yield chr(code)
        if high is not None:
            raise _BadError("half a surrogate pair", start + done)
        yield raw[done:]

    def _skip(self) -> None:
        blanks = _BLANKS.match(self._text, self._at)
        if blanks is not None:
            self._at = blanks.end()

    def _line_at(self, at: int) -> int:
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        return self._line


def _hex(digits: str) -> int:
    """Return what four digits mean; cJSON takes others for 0."""
    return int(digits, 16) if re.fullmatch("[0-9A-Fa-f]{4}", digits) else 0


def _int(number: float) -> int:
    if number >= MAX_INT:
        return MAX_INT
    return -MAX_INT - 1 if number <= -MAX_INT - 1 else int(number)
