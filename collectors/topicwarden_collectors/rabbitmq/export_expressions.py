r"""Regular expressions for RabbitMQ's permissions that match exactly what patterns of a policy mean.

Three readings of one pattern: names (of queues and exchanges), keys (a topic permission's `write`), and the texts of
binding keys (its `read`). RabbitMQ compares the latter as text: `^a\.[^.]*` would let `a.#` through. A text is allowed
where every key that the binding lets through is in the pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.patterns import Covered, KeyPattern, KeyUnion, KeyWord, SpecialWord, key_matches
from topicwarden.patterns.dotted import collapsed

EVERYTHING: Final = ".*"
NOTHING: Final = r"[^\x00-\xff]"
"""Matches no byte. The empty expression would match the empty key."""
SERVER_NAMED: Final = r"amq\.gen-[^.]*"
"""Queues that the server names (3.10.8); no client can choose a name that begins with `amq.`."""
_WORD: Final = "[^.]*"
_WORD_NOT_EMPTY: Final = "[^.]+"
_WORD_NOT_HASH: Final = "(?:[^.#][^.]*|#[^.]+)?"
_WORD_NOT_HASH_NOR_EMPTY: Final = "(?:[^.#][^.]*|#[^.]+)"
_WORD_NOT_AMQ: Final = "(?:[^.a][^.]*|a(?:[^.m][^.]*|m(?:[^.q][^.]*|q[^.]+)?)?)?"
_WORD_NOT_AMQ_NOR_EMPTY: Final = _WORD_NOT_AMQ.removesuffix("?")
_SAMPLE: Final = {SpecialWord.ONE: "\x01", SpecialWord.MANY: "\x01.\x02"}
"""Words for wildcards that no pattern is likely to spell."""


@dataclass(frozen=True, slots=True)
class _Word:
    """One word."""

    text: str
    """What matches it."""
    not_empty: str
    """What matches it but for the empty word; '' when it is never anything else."""
    can_be_empty: bool


@dataclass(frozen=True, slots=True)
class _Words:
    """Any number of words of one kind, none included."""

    each: _Word


_Items = Sequence[_Word | _Words]

_ANY: Final = _Word(_WORD, _WORD_NOT_EMPTY, can_be_empty=True)
_NOT_HASH: Final = _Word(_WORD_NOT_HASH, _WORD_NOT_HASH_NOR_EMPTY, can_be_empty=True)
_NOT_AMQ: Final = _Word(_WORD_NOT_AMQ, _WORD_NOT_AMQ_NOR_EMPTY, can_be_empty=True)
_HASH: Final = _Word("#", "#", can_be_empty=False)
_AMQ: Final = _Word("amq", "amq", can_be_empty=False)


def names_expression(patterns: Iterable[KeyPattern], more: Iterable[str] = ()) -> str:
    """Return what matches the names of queues and exchanges in any of the patterns, and `more`; '' for none at all.

    Of names that begin with `amq.`, wildcards stand for those of queues that the server names only: the others are
    exchanges that are always there, the firehose among them.
    """
    alternatives: dict[str, None] = {}
    for pattern in _widest(patterns):
        alternatives.update((one, None) for one in _name_alternatives(pattern) if one)
    alternatives.update(dict.fromkeys(more))
    return f"^{_any_of(alternatives)}$" if alternatives else ""


def keys_expression(patterns: Iterable[KeyPattern]) -> str:
    """Return what matches the routing keys in any of the patterns."""
    return _topic_expression(patterns, _key_items)


def bindings_expression(patterns: Iterable[KeyPattern]) -> str:
    """Return what matches the binding keys that let only keys through which are in one of the patterns."""
    return _topic_expression(patterns, _binding_items)


def escaped(text: str) -> str:
    """Return an expression for a text itself. Braces too: RabbitMQ would replace `{username}`."""
    return "".join(
        letter
        if letter.isalnum() or letter in "_-" or ord(letter) > 127
        else f"\\x{ord(letter):02x}"
        if not letter.isprintable()
        else f"\\{letter}"
        for letter in text
    )


def _topic_expression(patterns: Iterable[KeyPattern], items_of: Callable[[Sequence[KeyWord]], _Items | None]) -> str:
    alternatives: dict[str, None] = {}
    for pattern in _widest(patterns):
        if collapsed(pattern.words) == (SpecialWord.MANY,):
            return EVERYTHING
        items = items_of(pattern.words)
        alternative = None if items is None else _joined(items)
        if alternative is not None:
            alternatives[alternative] = None
    # `$` would match before a line feed at the end.
    return rf"^{_any_of(alternatives)}\z" if alternatives else NOTHING


def _any_of(alternatives: Collection[str]) -> str:
    return "|".join(alternatives) if len(alternatives) == 1 else f"({'|'.join(alternatives)})"


def _widest(patterns: Iterable[KeyPattern]) -> list[KeyPattern]:
    """Return the patterns without those that another one covers, and without those that match nothing."""
    left = list({pattern.words: pattern for pattern in patterns if SpecialWord.NOTHING not in pattern.words}.values())
    wild = [pattern for pattern in left if any(isinstance(word, SpecialWord) for word in pattern.words)]
    for pattern in list(left):
        # One key tells of most pairs that they have nothing to do with each other, far cheaper.
        sample = ".".join(word if isinstance(word, str) else _SAMPLE[word] for word in pattern.words)
        if any(
            other is not pattern
            and key_matches(other, sample)
            and other in left
            and isinstance(KeyUnion([other]).uncovered(pattern), Covered)
            for other in wild
        ):
            left.remove(pattern)
    return left


def _name_alternatives(pattern: KeyPattern) -> list[str | None]:
    words = collapsed(pattern.words)
    literal = ".".join(word for word in words if isinstance(word, str))
    match words:
        case ():
            return []  # the empty name is none
        case ("amq", str()):
            return [escaped(literal)] if literal.startswith("amq.gen-") else []
        case (SpecialWord.ONE,):
            return [_WORD_NOT_EMPTY]
        case (str() as first, *_) if first != "amq":
            return [_joined(_key_items(words))]
    reserved = {"amq": "amq", "amq.gen-x": SERVER_NAMED}
    kept: list[str | None] = [expression for name, expression in reserved.items() if key_matches(pattern, name)]
    return kept if words[0] == "amq" else [_joined(_key_items(words), _NOT_AMQ), *kept]


def _key_items(words: Sequence[KeyWord]) -> _Items:
    items: list[_Word | _Words] = []
    for word in collapsed(words):
        match word:
            case SpecialWord.MANY:
                items.append(_Words(_ANY))
            case SpecialWord.ONE:
                items.append(_ANY)
            case str():
                items.append(_literal(word))
    return items


def _binding_items(words: Sequence[KeyWord]) -> _Items | None:
    """Return how the words of binding keys must be, None when no binding key will do.

    Where a pattern has n `*` and a `#` in a row, a binding key may have any words of which at least n are not `#`.
    """
    items: list[_Word | _Words] = []
    plain = list(collapsed(words))
    at = 0
    while at < len(plain):
        word = plain[at]
        if isinstance(word, str):
            if word in ("*", "#"):
                return None  # as binding keys these are wildcards
            items.append(_literal(word))
            at += 1
            continue
        run = at
        while run < len(plain) and plain[run] is SpecialWord.ONE:
            run += 1
        ones = run - at
        if run < len(plain) and plain[run] is SpecialWord.MANY:
            for _ in range(ones):
                items += [_Words(_HASH), _NOT_HASH]
            items.append(_Words(_ANY))
            at = run + 1
        else:
            items += [_NOT_HASH] * ones
            at = run
    return items


def _literal(word: str) -> _Word:
    return _Word(escaped(word), escaped(word), can_be_empty=not word)


def _joined(items: _Items, first: _Word | None = None) -> str | None:
    """Return an expression for words with dots between them; None when there is no such text.

    The empty text has no word at all. `first`: what the first word must be where a wildcard stands for it; it is then
    not `amq` either.
    """
    if not items:
        return ""
    item, rest = items[0], items[1:]
    word = item.each if isinstance(item, _Words) else item
    word = first if first is not None and word is _ANY else word
    if not isinstance(item, _Words):
        return None if first is not None and word == _AMQ else _begun(word, rest)
    return _either(_begun(word, items), _joined(rest, first))


def _begun(word: _Word, rest: _Items) -> str | None:
    """Return an expression for a first word and what follows; where that word is empty, something does."""
    if not word.can_be_empty or any(isinstance(item, _Word) for item in rest):
        return word.text + _followed(rest)
    # What follows may be nothing, and then it is one kind of words: runs of wildcards are collapsed.
    after_empty = _followed(rest).removesuffix("*") + "+" if rest else None
    return _either(word.not_empty + _followed(rest) if word.not_empty else None, after_empty)


def _either(one: str | None, other: str | None) -> str | None:
    if not one or not other:
        return f"(?:{one or other})?" if "" in (one, other) and (one or other) else one or other
    return f"(?:{one}|{other})"


def _followed(rest: _Items) -> str:
    """Return an expression for words each of which has a dot before it."""
    return "".join(rf"(?:\.{item.each.text})*" if isinstance(item, _Words) else rf"\.{item.text}" for item in rest)
