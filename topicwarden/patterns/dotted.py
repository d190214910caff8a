"""AMQP 0-9-1 routing keys and the binding keys of topic exchanges: what is valid, what matches.

A key is words between dots. In a binding key, `*` stands for exactly one word and `#` for any number of words, none
included; both anywhere and as often as wanted. Every rule here was seen in RabbitMQ 3.10.8 (Debian 12):

- The empty key has no word at all: `#` and `` match it, `*` does not. Every dot makes a word more, and words may be
  empty: `*.*` matches `.`, `a.*.b` matches `a..b`, and `a.#` does not match ``.
- A word that only contains `*` or `#` is literal: `a*` matches the key `a*` alone. In a routing key the words `*` and
  `#` are words like all others.
- Keys are bytes, NUL and line feed included. A routing key need not even be UTF-8 (its str here comes from
  `surrogateescape`); a binding key must be, or the broker closes the connection.
- 255 bytes are what a field of AMQP 0-9-1's methods holds. Longer keys exist all the same: in the `CC` header and by
  MQTT topics; longer binding keys come by MQTT filters and the management API. So validity asks for 255 bytes, and
  matching does not look at the length.

A policy's patterns may hold `%u` (user name) and `%c` (client id) as whole words. A placeholder equals exactly one word
of the key, character by character: it is never read as a wildcard, whatever the client calls itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

KEY_MAX_BYTES: Final = 255
"""Longest routing or binding key in bytes (AMQP 0-9-1, section 4.2.5.3, short strings)."""


class SpecialWord(Enum):
    """A word of a binding key that is not literal text."""

    ONE = "*"
    MANY = "#"
    USER = "%u"
    CLIENT = "%c"
    NOTHING = "(nothing)"
    """A placeholder bound to a name that can be no word: None, empty, or holding a dot."""


KeyWord = str | SpecialWord
"""A literal word is a str, so a literal `*` never passes for `SpecialWord.ONE`."""

_WILDCARDS: Final[Mapping[str, SpecialWord]] = {"*": SpecialWord.ONE, "#": SpecialWord.MANY}
_PLACEHOLDERS: Final[Mapping[str, SpecialWord]] = {"%u": SpecialWord.USER, "%c": SpecialWord.CLIENT}


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A binding key taken apart, in which literal text and wildcards cannot be confused."""

    text: str
    """As written by a person, for messages."""
    words: tuple[KeyWord, ...]

    def __post_init__(self) -> None:
        if self.words == ("",) or any(isinstance(word, str) and "." in word for word in self.words):
            raise ValueError(
                f"{self.text!r}: a word holds no dot, and the empty key has no word rather than an empty one"
            )

    def __str__(self) -> str:
        return self.text


def key_problem(key: str) -> str | None:
    """Say why `key` is no routing key that a client can publish with, or None when it is one."""
    try:
        size = len(key.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "a routing key cannot hold lone surrogates that stand for no byte"
    return _size_problem("routing key", size)


def binding_problem(pattern: str, *, placeholders: bool = False) -> str | None:
    """Say why `pattern` is no binding key, or None when it is one.

    With `placeholders`, `%u` and `%c` must be whole words too, and no key may offer a free choice of both at once:
    `#.%u.#.%c` would, and a key of n words then matches for n * n / 2 pairs of names.
    """
    try:
        size = len(pattern.encode())
    except UnicodeEncodeError:
        return "a binding key cannot hold lone surrogates: it is not valid UTF-8"
    problem = _size_problem("binding key", size)
    return _placeholder_problem(pattern) if problem is None and placeholders else problem


def _size_problem(what: str, size: int) -> str | None:
    return None if size <= KEY_MAX_BYTES else f"a {what} cannot be longer than {KEY_MAX_BYTES} bytes, not {size}"


def _placeholder_problem(pattern: str) -> str | None:
    hashes = 0
    ahead: dict[str, int] = {}
    for word in pattern.split("."):
        for placeholder in _PLACEHOLDERS:
            if placeholder in word and word != placeholder:
                return f"'{placeholder}' must be a whole word, not part of {word!r}"
        if word == "#":
            hashes += 1
        elif word in _PLACEHOLDERS:
            ahead.setdefault(word, hashes)
    if 0 not in ahead.values() and len(set(ahead.values())) > 1:
        return "'#' cannot stand both ahead of '%u' and '%c' and between them"
    return None


def parse_binding(text: str, *, placeholders: bool = False) -> KeyPattern:
    """Take a binding key apart, however long it is and whatever it holds. Without `placeholders`, `%u` is plain text.

    Raises ValueError when placeholders stand where they may not (see `binding_problem`).
    """
    problem = _placeholder_problem(text) if placeholders else None
    if problem is not None:
        raise ValueError(problem)
    special = {**_WILDCARDS, **_PLACEHOLDERS} if placeholders else _WILDCARDS
    return KeyPattern(text, tuple(special.get(word, word) for word in split_key(text)))


def literal_key(key: str) -> KeyPattern:
    """Return the pattern that matches `key` alone: every word is literal, `*` and `#` too.

    For what a direct exchange compares, and for concrete names.
    """
    return KeyPattern(key, tuple(split_key(key)))


def bind_key(text: str, user: str | None, client_id: str | None) -> KeyPattern:
    """Take a policy's pattern apart with `%u` and `%c` replaced by one client's names, as literal words.

    A name that can be no word (None, '', or holding a dot) makes a pattern that matches nothing. A user called `#` is
    the word `#` and gains nothing. Raises ValueError as `parse_binding` does.
    """
    names = {SpecialWord.USER: _as_word(user), SpecialWord.CLIENT: _as_word(client_id)}
    words = parse_binding(text, placeholders=True).words
    return KeyPattern(text, tuple(names.get(word, word) if isinstance(word, SpecialWord) else word for word in words))


def _as_word(name: str | None) -> KeyWord:
    return SpecialWord.NOTHING if not name or "." in name else name


def split_key(key: str) -> list[str]:
    """Return the words of a key; the empty key has none."""
    return key.split(".") if key else []


def key_size(key: str) -> int:
    """Return a key's bytes on the wire; a lone surrogate that stands for no byte counts as three."""
    try:
        return len(key.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return len(key.encode("utf-8", "surrogatepass"))


def without_placeholders(pattern: str | KeyPattern) -> KeyPattern:
    """Take a plain binding key apart; raises ValueError for a KeyPattern with placeholders nobody bound."""
    if isinstance(pattern, str):
        return parse_binding(pattern)
    if SpecialWord.USER in pattern.words or SpecialWord.CLIENT in pattern.words:
        raise ValueError(f"{pattern.text!r} holds a placeholder: bind it to a client first")
    return pattern


def collapsed(words: Sequence[KeyWord]) -> tuple[KeyWord, ...]:
    """Return words of the same meaning in which every run of wildcards is written as `*`s before at most one `#`.

    So `#.*.#` and `*.#` are the same, and `#` never follows `#`.
    """
    result: list[KeyWord] = []
    pending = False
    for word in words:
        if word is SpecialWord.MANY:
            pending = True
            continue
        if pending and word is not SpecialWord.ONE:
            result.append(SpecialWord.MANY)
            pending = False
        result.append(word)
    if pending:
        result.append(SpecialWord.MANY)
    return tuple(result)


def key_matches(pattern: str | KeyPattern, key: str) -> bool:
    """Whether a topic exchange routes `key` by a binding with `pattern`; costs the product of their words at most.

    A str is a plain binding key, in which `%u` is an ordinary word. Raises ValueError for a placeholder nobody bound.
    """
    wanted = without_placeholders(pattern).words
    given = split_key(key)
    at = word = 0
    # Where to start again, one word later, when what follows the last `#` does not fit. Earlier ones need no second
    # try: they stopped as early as they could, and the last `#` can stand for all the words that an earlier one could.
    after_many = restart = -1
    while word < len(given):
        current = wanted[at] if at < len(wanted) else SpecialWord.NOTHING
        if current is SpecialWord.MANY:
            at += 1
            after_many, restart = at, word
        elif current is SpecialWord.ONE or current == given[word]:
            at, word = at + 1, word + 1
        elif after_many >= 0:
            restart += 1
            at, word = after_many, restart
        else:
            return False
    return all(rest is SpecialWord.MANY for rest in wanted[at:])
