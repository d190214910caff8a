"""Tells which words of a command line are secrets by the options before them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from topicwarden_collectors.host.redaction_words import PROGRAMS, names_secret

MASK: Final = "***"
_OPTION: Final = re.compile(r"--?[A-Za-z]")
_FLAGS_AND_USER: Final = re.compile(r"-[A-Za-z#]*u")


def marked(words: Sequence[str], *, greedy: bool = False) -> dict[int, int]:
    """Return which words are secrets, by position, and from which character on.

    Every program named so far lends its options: which word is a program is a guess. With `greedy`, a secret may be
    several words, up to the next that looks like an option.
    """
    marks: dict[int, int] = {}
    options: dict[str, bool] = {}
    positional: dict[str, int] = {}
    position = -1
    while (position := position + 1) < len(words):
        word = words[position]
        program = PROGRAMS.get(word.rpartition("/")[2])
        if program is not None and position not in marks:
            options |= program.options
            positional |= program.positional
            continue
        if word in positional and position not in marks:
            secret = position + positional[word]
            for place in range(secret, len(words) if greedy else min(secret + 1, len(words))):
                marks[place] = 0
        if len(word) < 2 or word[0] != "-" or position in marks:
            continue
        last = _mark_option(marks, words, position, options)
        if last is None:
            continue
        while greedy and last + 1 < len(words) and _OPTION.match(words[last + 1]) is None:
            last += 1
            marks[last] = 0
        position = last
    return marks


def _mark_option(marks: dict[int, int], words: Sequence[str], position: int, options: dict[str, bool]) -> int | None:
    """Mark the secret that an option carries; return its last word, None when it carries none."""
    word = words[position]
    name, equals, value = word.partition("=")
    following = position + 1
    attached = None if word[1] == "-" or len(word) == 2 else options.get(word[:2])
    if attached is not None:
        _mark(marks, position, 2, word[2:] if attached else None)
        if equals or not names_secret(name):
            return position
        # `-pw` may be the secret `w`, or an option of that name.
        if following < len(words):
            marks[following] = 0
        return following
    pair = options.get(name)
    if pair is not None or names_secret(name):
        if equals:
            _mark(marks, position, len(name) + 1, value if pair else None)
            return position
        if following < len(words):
            _mark(marks, following, 0, words[following] if pair else None)
        return following
    if options.get("-u") and _FLAGS_AND_USER.fullmatch(word) is not None and following < len(words):
        _mark(marks, following, 0, words[following])
        return following
    return None


def _mark(marks: dict[int, int], position: int, start: int, pair: str | None) -> None:
    """Mark a word from a character on; of a `pair` (name:secret) only what follows the colon."""
    if pair is None:
        marks[position] = start
    elif ":" in pair:
        marks[position] = start + pair.index(":") + 1
