"""Names that fool people: look-alikes, and characters that do not show what they are.

The idea is that of Unicode Technical Standard 39, section 4 (confusable detection). Its table of 6 000 entries is not
used: it keeps case apart, and it merges much that people do tell apart (`m` and `rn`). Ours is small and below.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Final


def _table(looks_like: Mapping[str, str]) -> dict[int, str]:
    return {ord(character): latin for latin, characters in looks_like.items() for character in characters}


_AS_WRITTEN: Final = _table(
    # Looked up before case is folded: Greek `Ν` looks like N, although its small letter looks like v. Greek, then
    # Cyrillic; the lunate sigma is here because NFKC would make it another letter.
    {
        "a": "ΑА", "b": "ΒВ", "c": "ϹϲС", "e": "ΕЕ", "h": "ΗНҺ", "i": "ΙІ", "j": "Ј", "k": "ΚК", "m": "ΜМ", "n": "Ν",
        "o": "ΟО", "p": "ΡР", "q": "Ԛ", "s": "Ѕ", "t": "ΤТ", "w": "Ԝ", "x": "ΧХ", "y": "ΥУҮ", "z": "Ζ",
        "l": "Ӏ|ǀ∣", "/": "⁄∕⧸",
    }
)  # fmt: skip
_FOLDED: Final = _table(
    # Greek, Cyrillic, Armenian, IPA. Cyrillic в к м н т only look Latin as capitals; they are here so that a name and
    # the same name in capitals stay equal.
    {
        "a": "αаɑ", "b": "ьв", "c": "с", "d": "ԁ", "e": "еҽ", "g": "ɡց", "h": "һհн", "i": "ιіı", "j": "ϳј", "k": "κк",
        "l": "ӏ", "m": "м", "n": "ո", "o": "οоօ", "p": "ρр", "q": "ԛզ", "s": "ѕ", "t": "т", "u": "υս", "v": "νѵ",
        "w": "ԝ", "x": "χх", "y": "γуү",
    }
)  # fmt: skip
_STROKES: Final = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l"})

_FILLERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and a symbol that show nothing: joiners, Hangul and Khmer fillers, the empty Braille cell."""

_MOST: Final = 16
_CONTROLS: Final = {0: "NULL", 9: "TABULATION", 10: "LINE FEED", 13: "CARRIAGE RETURN", 27: "ESCAPE", 127: "DELETE"}
_KINDS: Final = {
    "Cc": "CONTROL CHARACTER",
    "Co": "PRIVATE USE CHARACTER",
    "Cs": "LONE SURROGATE",
    "Cn": f"CHARACTER UNASSIGNED IN UNICODE {unicodedata.unidata_version}",
}
"""Categories whose characters have no name of their own. A newer Unicode than Python's may have assigned the last."""


def skeleton(name: str) -> str:
    """Return a text that names which look alike share: compare skeletons, never show them.

    Level by level: invisible characters go (zero-width, bidi marks, controls, variation selectors, spaces at a level's
    ends), then NFKC and case folding, then Greek, Cyrillic and a few other letters become the Latin ones they look
    like, 0 becomes o, and 1, i and | become l. Characters that look like `/` become `/`. Idempotent.
    """
    if name.isascii() and name.isprintable():
        folded = name.lower().translate(_STROKES)
        return _trimmed(folded) if " " in folded else folded
    # Folding can bring up something to fold (a letter that then composes); two rounds are common, more are not.
    for _ in range(8):
        folded = _folded(name)
        if folded == name:
            break
        name = folded
    return name


def _folded(name: str) -> str:
    seen = "".join(character for character in name if not _shows_nothing(character))
    compatible = unicodedata.normalize("NFKC", seen.translate(_AS_WRITTEN)).casefold()
    return _trimmed(unicodedata.normalize("NFKC", compatible).translate(_FOLDED).translate(_STROKES))


def _trimmed(name: str) -> str:
    return "/".join(level.strip() for level in name.split("/"))


def _shows_nothing(character: str) -> bool:
    return (
        character in _FILLERS
        or unicodedata.category(character) in ("Cf", "Cc")
        or "\ufe00" <= character <= "\ufe0f"  # variation selectors
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def unsafe_characters(name: str) -> list[str]:
    """Say which characters of a name do not show what they are, each once, in order: `U+202E RIGHT-TO-LEFT OVERRIDE`.

    Controls, format characters (bidi, zero-width), line and paragraph separators, fillers, private use, unassigned code
    points, lone surrogates; and spaces at the start or end of a level. An empty list: none. Past 16, only `and more`.
    """
    if name.isascii() and name.isprintable() and " " not in name:
        return []
    found: dict[str, None] = {}
    last = len(name) - 1
    for position, character in enumerate(name):
        if len(found) >= _MOST:
            found["and more"] = None
            break
        category = unicodedata.category(character)
        if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character in _FILLERS:
            found[_described(character, category)] = None
        elif category == "Zs":
            if position == 0 or name[position - 1] == "/":
                found[f"{_described(character, category)} at the start of a level"] = None
            if position == last or name[position + 1] == "/":
                found[f"{_described(character, category)} at the end of a level"] = None
    return list(found)


def _described(character: str, category: str) -> str:
    code = ord(character)
    named = unicodedata.name(character, "") or _CONTROLS.get(code, "") or _KINDS.get(category, "UNNAMED CHARACTER")
    return f"U+{code:04X} {named}"
