"""Is every key one binding key matches also matched by some of many others? If not, a key that shows it.

Words come from an endless alphabet, so whatever a wildcard of the pattern stands for, a word that no other pattern
spells out is matched by the fewest of them: by their wildcards alone, which match every other word too. Fresh words for
`*` and `#` therefore decide inclusion exactly, and only one question is left to search: how many words each `#` stands
for. The search goes by number of words over (place in the pattern, set of the others' places), so what it finds first
is shortest; a set that contains another one seen at the same place can show nothing that the other cannot (antichain).
The budget is for patterns with many `#`, whose sets can be exponentially many.

Keys of more than 255 bytes are real but rare (see `dotted`): `Covered` holds for them too, and where only they would
show that a pattern is not covered, the answer is `Undecided`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Container, Sequence
from itertools import count
from typing import Final

from topicwarden.patterns.dotted import (
    KEY_MAX_BYTES,
    KeyPattern,
    KeyWord,
    SpecialWord,
    collapsed,
    key_size,
    without_placeholders,
)
from topicwarden.patterns.dotted_index import KeySets, NodeSet, build_key_trie
from topicwarden.patterns.inclusion import BUDGET, Answer, Covered, Undecided, Witness, fresh_name

_Path = tuple["_Path", str | None, tuple[Container[str], ...]] | None
"""The words read, last first: each a literal or None for a fresh one, with the literals that one must avoid."""


_EMPTY: Final = (None, "")
"""One empty word, read so far. It is the beginning of keys and none itself (the key `` has no word): `.#` matches no
key of one word. So what follows from it, and from no word at all, is not all that follows from others in its place."""

_Key = tuple["_Key", str] | None
"""Words, last first."""


class KeyUnion:
    """Binding keys joined by "or", built once to ask many times whether others are covered.

    A str is a plain binding key, in which `%u` is an ordinary word; a policy's patterns come through `bind_key`. Raises
    ValueError when a pattern holds an unbound placeholder.
    """

    def __init__(self, by: Sequence[str | KeyPattern]) -> None:
        self._sets = KeySets(build_key_trie(without_placeholders(pattern) for pattern in by))

    def uncovered(self, p: str | KeyPattern, *, budget: int = BUDGET) -> Answer:
        """Say whether every key that `p` matches is matched by the union, with a witness of fewest words if not.

        `budget` bounds the places in the others' patterns that are looked at.
        """
        words = collapsed(without_placeholders(p).words)
        if SpecialWord.NOTHING in words:
            return Covered()
        left = budget
        seen: list[list[NodeSet]] = [[] for _ in range(len(words) + 1)]
        waiting: deque[tuple[int, NodeSet, _Path]] = deque([(0, self._sets.start, None)])
        while waiting:
            place, current, path = waiting.popleft()
            left -= 1 + len(current.nodes) + len(seen[place])
            if left < 0:
                return Undecided(f"gave up after looking at {budget} places in the other patterns")
            if current.universal or any(other.nodes <= current.nodes for other in seen[place]):
                continue
            lone_empty_word = path is not None and path[:2] == _EMPTY
            if path is not None and not lone_empty_word:
                seen[place].append(current)
            if place == len(words):
                if not current.matches.always and not lone_empty_word:
                    return _witness(path)
                continue
            word = words[place]
            literal = word if isinstance(word, str) else None
            following = place + 1
            if word is SpecialWord.MANY:
                # Reads no word, so it is looked at before all that do.
                waiting.appendleft((following, current, path))
                following = place
            waiting.append((following, self._sets.step(current, literal), (path, literal, current.spelled)))
        return Covered()


def _witness(path: _Path) -> Witness | Undecided:
    """Spell the words out; where that is too long for a key, use the empty word where it is fresh too."""
    steps: list[tuple[str | None, tuple[Container[str], ...]]] = []
    while path is not None:
        path, literal, spelled = path
        steps.append((literal, spelled))
    steps.reverse()
    key = ".".join(fresh_name(spelled) if literal is None else literal for literal, spelled in steps)
    if key_size(key) > KEY_MAX_BYTES:
        words = [
            literal if literal is not None else fresh_name(spelled) if any("" in m for m in spelled) else ""
            for literal, spelled in steps
        ]
        key = ".".join(words)
        if key_size(key) > KEY_MAX_BYTES:
            return Undecided(f"the keys that would show it are longer than {KEY_MAX_BYTES} bytes")
    return Witness(key)


def key_overlap(a: str | KeyPattern, b: str | KeyPattern) -> str | None:
    """Return a key of at most 255 bytes that both patterns match, or None when there is none.

    It has the fewest words; where no such key was short enough, the fewest bytes. Takes and raises what `KeyUnion`
    does.
    """
    words = [collapsed(without_placeholders(pattern).words) for pattern in (a, b)]
    if any(SpecialWord.NOTHING in each for each in words):
        return None
    found = _shared(words[0], words[1], fewest_words=True)
    return found if found is not None else _shared(words[0], words[1], fewest_words=False)


def _shared(a: Sequence[KeyWord], b: Sequence[KeyWord], *, fewest_words: bool) -> str | None:
    """Search both patterns at once, cheapest first: fewest words then bytes, or the other way round."""
    fresh = "x" if fewest_words else ""
    order = count()
    done: set[tuple[int, int]] = set()
    waiting: list[tuple[tuple[int, int], int, int, int, _Key]] = [((0, 0), next(order), 0, 0, None)]
    while waiting:
        cost, _, i, j, key = heapq.heappop(waiting)
        if (i, j) in done:
            continue
        if key is not None and key != _EMPTY:
            done.add((i, j))
        if i == len(a) and j == len(b) and key != _EMPTY:
            return _joined(key)
        many_a, many_b = i < len(a) and a[i] is SpecialWord.MANY, j < len(b) and b[j] is SpecialWord.MANY
        if many_a:
            heapq.heappush(waiting, (cost, next(order), i + 1, j, key))
        if many_b:
            heapq.heappush(waiting, (cost, next(order), i, j + 1, key))
        if i == len(a) or j == len(b):
            continue
        literals = {word for word in (a[i], b[j]) if isinstance(word, str)}
        if len(literals) > 1:
            continue
        word = literals.pop() if literals else fresh
        # Each word comes with a dot, so a key's bytes are one less.
        words, size = cost if fewest_words else cost[::-1]
        words, size = words + 1, size + key_size(word) + 1
        if size <= KEY_MAX_BYTES + 1:
            cost = (words, size) if fewest_words else (size, words)
            heapq.heappush(waiting, (cost, next(order), i + (not many_a), j + (not many_b), (key, word)))
    return None


def _joined(key: _Key) -> str:
    words: list[str] = []
    while key is not None:
        key, word = key
        words.append(word)
    return ".".join(reversed(words))
