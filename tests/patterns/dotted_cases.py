"""Routing keys and binding keys drawn from so few words that they meet often, and the definition they are held to."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

UTF8 = ("", "a", "b", "*", "#", "a*", "%u", "é")
"""Words of keys. Of binding keys too, where `*` and `#` are wildcards."""
WORDS = (*UTF8, "\udcff")
"""Routing keys need not be UTF-8."""
FEW = ("", "a", "b")


def keys(words: Sequence[str] = WORDS, max_words: int = 6) -> st.SearchStrategy[str]:
    """A routing key."""
    return st.lists(st.sampled_from(words), max_size=max_words).map(".".join)


def bindings(words: Sequence[str] = WORDS, max_words: int = 5, placeholders: bool = False) -> st.SearchStrategy[str]:
    """A binding key, with wildcards in about half its places; placeholders may stand where they may not."""
    special = ["*", "#", "%u", "%c"] if placeholders else ["*", "#"]
    word = st.one_of(st.sampled_from(words), st.sampled_from(special))
    return st.lists(word, max_size=max_words).map(".".join)


def split(text: str) -> list[str]:
    return text.split(".") if text else []


def defined(pattern: str, key: str) -> bool:
    """Whether a binding key matches, word for word from its definition (exponential)."""
    return _defined(split(pattern), split(key))


def _defined(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(_defined(pattern[1:], key[used:]) for used in range(len(key) + 1))
    return bool(key) and (pattern[0] == "*" or pattern[0] == key[0]) and _defined(pattern[1:], key[1:])


def defined_for(pattern: str, key: str, user: str | None, client_id: str | None) -> bool:
    """The same with `%u` and `%c`, for one client."""
    return _defined_for(split(pattern), split(key), {"%u": user, "%c": client_id})


def _defined_for(pattern: list[str], key: list[str], names: dict[str, str | None]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(_defined_for(pattern[1:], key[used:], names) for used in range(len(key) + 1))
    if not key:
        return False
    if pattern[0] in names:
        fits = bool(names[pattern[0]]) and names[pattern[0]] == key[0]
    else:
        fits = pattern[0] == "*" or pattern[0] == key[0]
    return fits and _defined_for(pattern[1:], key[1:], names)
