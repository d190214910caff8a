"""The one place that makes hostile text fit to be read: by a person at a terminal, or by a JSON parser.

Names come from attackers: they may hold terminal commands, characters that turn the line around, or characters nobody
can see. Every renderer for people passes each name through `visible`, `quoted` or `shorten`; every machine format
passes each string through `well_formed`.

All three escapes are reversible, so two different names never look the same: a text is either printed as it is and then
holds no `\\u{`, or it is printed escaped (`\\u{202e}`, and `\\\\` for a backslash) and then does.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from rich.cells import cell_len

MIN_COLUMNS: Final = 20
"""The narrowest a name can be shortened to: its marker alone takes up to 18 columns."""

# Printable by Python's reckoning (not Cc, Cf, Cs, Co, Cn, Zl, Zp, Zs), yet drawn as nothing, or as a blank.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufffc\U0001d159\U000e0100-\U000e01ef]"
)
# Our own sign for "shortened"; a name must not be able to write it.
_ELLIPSIS: Final = "…"
_MAX_MARKS: Final = 2
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PLAIN: Final = frozenset("-_./+#$%@:*=~&|\\{}[]<>!?^")


def visible(text: str) -> str:
    """Return `text` with everything escaped that would act on the terminal, hide, or imitate another name."""
    if text.isascii() and text.isprintable() and "\\u{" not in text:
        return text
    return "".join(_atoms(text))


def quoted(text: str, columns: int | None = None) -> str:
    """Return `text` made visible, in double quotes unless it is one plain word, so that it cannot pass for our words.

    With `columns` (at least MIN_COLUMNS) it is also shortened to that many terminal columns, quotes included.
    """
    atoms = _atoms(text)
    if atoms and all(letter in _PLAIN or letter.isalnum() for atom in atoms for letter in atom):
        return _fit(text, atoms, columns)
    inner = None if columns is None else columns - 2
    return f'"{_fit(text, _atoms(text, also=chr(34)), inner)}"'


def shorten(text: str, columns: int) -> str:
    """Return `text` made visible, in at most `columns` terminal columns (at least MIN_COLUMNS).

    A longer one loses its middle to `…[4096 chars #0123abcd]…`: its length in characters, and the first 8 hex digits of
    the SHA-256 of its UTF-8, by which two names with the same ends are told apart. Narrow ones say `…4096#0123abcd…`.
    """
    return _fit(text, _atoms(text), columns)


def well_formed(text: str) -> str:
    """Return `text` as a string every JSON parser takes: lone surrogates, which UTF-8 cannot hold, are escaped."""
    if "\\u{" not in text and not _SURROGATE.search(text):
        return text
    return _SURROGATE.sub(lambda match: _escape(match[0]), text.replace("\\", "\\\\"))


def encodable(text: str, encoding: str | None) -> str:
    """Return finished output `text` with what a stream of this encoding cannot take replaced by escapes or ASCII."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.replace(_ELLIPSIS, "...")
        return "".join(letter if _encodes(letter, encoding or "utf-8") else _escape(letter) for letter in text)
    return text


def _encodes(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escape(letter: str) -> str:
    return f"\\u{{{ord(letter):x}}}"


def _atoms(text: str, also: str = "") -> list[str]:
    """Return the rendering of each character; `also` names printable characters to escape besides."""
    hidden = _hidden(text, also)
    if not any(hidden) and "\\u{" not in text:
        return list(text)
    return [
        _escape(letter) if hide else "\\\\" if letter == "\\" else letter
        for letter, hide in zip(text, hidden, strict=True)
    ]


def _hidden(text: str, also: str) -> list[bool]:
    """Tell for each character whether it is escaped."""
    if text.isascii():
        return [not letter.isprintable() or letter in also for letter in text]
    # What is not in NFC prints exactly like the NFC name it is not.
    composed = unicodedata.is_normalized("NFC", text)
    hidden: list[bool] = []
    marks = _MAX_MARKS  # a mark at the beginning would sit on our own text before it
    for letter in text:
        mark = unicodedata.category(letter)[0] == "M"
        hide = (
            not letter.isprintable()
            or letter == _ELLIPSIS
            or letter in also
            or _INVISIBLE.match(letter) is not None
            or (not composed and not letter.isascii())
            or (mark and marks >= _MAX_MARKS)
        )
        if hide:
            marks = _MAX_MARKS
        elif mark:
            marks += 1
        else:
            marks = 0
        hidden.append(hide)
    # Right-to-left letters are fine alone; beside digits or left-to-right letters, which escapes hold too, a terminal
    # may reorder them, so that two names look the same.
    kinds = {unicodedata.bidirectional(letter) for letter in text}
    if kinds & _RIGHT_TO_LEFT and (any(hidden) or kinds & {"L", "EN", "AN"}):
        return _hide(text, hidden, _RIGHT_TO_LEFT)
    return hidden


def _hide(text: str, hidden: list[bool], kinds: frozenset[str]) -> list[bool]:
    """Hide the letters of these kinds too, and the marks that would sit on their escapes."""
    result: list[bool] = []
    for letter, hide in zip(text, hidden, strict=True):
        after_hidden = bool(result) and result[-1] and unicodedata.category(letter)[0] == "M"
        result.append(hide or after_hidden or unicodedata.bidirectional(letter) in kinds)
    return result


def _fit(text: str, atoms: list[str], columns: int | None) -> str:
    """Return the atoms of `text` in one string, without the middle ones when they take more than `columns`."""
    rendered = "".join(atoms)
    if columns is None or cell_len(rendered) <= columns:
        return rendered
    if any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in rendered):
        atoms = [_escape(atom) for atom in atoms]  # the mark below would be reordered among them
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    short = f"{_ELLIPSIS}{len(text)}#{digest}{_ELLIPSIS}"
    long = f"{_ELLIPSIS}[{len(text)} chars #{digest}]{_ELLIPSIS}"
    marker = long if columns >= len(long) + 12 else short
    room = max(columns - len(marker), 0)
    head = _take(atoms, (room + 1) // 2)
    tail = _take(reversed(atoms), room // 2)
    return "".join([*head, marker, *reversed(tail)])


def _take(atoms: Iterable[str], room: int) -> list[str]:
    """Return the first atoms that fit into `room` columns."""
    taken: list[str] = []
    for atom in atoms:
        room -= cell_len(atom)
        if room < 0:
            break
        taken.append(atom)
    return taken
