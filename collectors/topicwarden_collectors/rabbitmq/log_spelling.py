"""How names are written in log messages, which differs by the broker's version, and Erlang's printed terms."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final


class Spelling(Enum):
    """What a character of a name in a message stands for."""

    BYTES = "bytes"
    """A byte of the name: `é` becomes `Ã©` (`~s` in Erlang's formats; RabbitMQ 3.10 and before: seen with 3.10.8)."""
    TEXT = "text"
    """Itself (`~ts`; RabbitMQ 3.12 and later: read in its source, not run)."""
    UNKNOWN = "unknown"
    """Either: names beyond ASCII cannot be told (also RabbitMQ 3.11, which changed on the way)."""


_VERSION: Final = re.compile(r"(\d{1,3})\.(\d{1,3})(?!\d)", re.ASCII)


def spelling_of(version: str | None) -> Spelling:
    """Return how this version of RabbitMQ (`3.10.8`) writes names."""
    match = _VERSION.match(version or "")
    if match is None:
        return Spelling.UNKNOWN
    release = int(match[1]), int(match[2])
    if release < (3, 11):
        return Spelling.BYTES
    return Spelling.UNKNOWN if release == (3, 11) else Spelling.TEXT


def name_of(text: str, spelling: Spelling) -> str | None:
    """Return the name that stands as `text` in a message; None when that cannot be told.

    Bytes that are no UTF-8 become lone surrogates, as everywhere.
    """
    if text.isascii():
        return text
    if spelling is Spelling.TEXT:
        return text
    if spelling is Spelling.UNKNOWN:
        return None
    try:
        return text.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None  # no byte: not what this version writes


_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_INTEGERS: Final = re.compile(r"\s*(?:\d{1,7}\s*(?:,\s*\d{1,7}\s*)*)?", re.ASCII)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "b": "\b", "f": "\f", "e": "\x1b", "d": "\x7f", "s": " "}
_ESCAPE: Final = re.compile(r"\\(x\{[0-9A-Fa-f]{1,6}\}|[0-7]{1,3}|.)", re.DOTALL)


def printed_string(text: str) -> str | None:
    """Return the characters of a string as Erlang's `~p` prints it; None when it is none.

    Printable ones are `"…"` with `\\"` and `\\\\` escaped, without loss, and long ones may be cut in several; others
    are lists of numbers over many lines (seen with 3.10.8: any name beyond ASCII). Binaries stand in `<<…>>`.
    """
    if text.startswith("<<") and text.endswith(">>"):
        inside = text[2:-2].removesuffix("/utf8")
        return _quoted(inside) if inside.startswith('"') else _numbers(inside)
    if text.startswith("[") and text.endswith("]"):
        return _numbers(text[1:-1])
    return _quoted(text)


def _numbers(text: str) -> str | None:
    if _INTEGERS.fullmatch(text) is None:
        return None
    try:
        return "".join(chr(int(number)) for number in text.split(",")) if text.strip() else ""
    except ValueError:
        return None


def _quoted(text: str) -> str | None:
    parts = []
    at = 0
    while (match := _STRING.match(text, at)) is not None:
        try:
            parts.append(_ESCAPE.sub(_unescaped, match[1]))
        except ValueError:
            return None
        at = match.end()
        if at == len(text):
            return "".join(parts)
        rest = text[at:].lstrip(" \n")
        at = len(text) - len(rest)
    return None


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if escape.startswith("x{"):
        return chr(int(escape[2:-1], 16))
    if escape[0] in "01234567":
        return chr(int(escape, 8))
    return _ESCAPES.get(escape, escape)
