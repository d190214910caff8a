"""Many binding keys at once: a trie walked by sets of its nodes, each set worked out once and then looked up."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Final

from topicwarden.patterns.dotted import KeyPattern, KeyWord, SpecialWord, collapsed, parse_binding, split_key
from topicwarden.patterns.filter_index import NO_MATCHES, BoundMatch, Constraint, Matches, PlaceholderKind

_ROOM: Final = 200_000
"""Nodes and steps that `KeySets` remembers before it starts over; some 30 MB."""
_NAME_WORDS: Final = 256
"""Words of a key that placeholders after a `#` are compared with: all that 255 bytes can hold. Longer keys exist, and a
client that sends one of 30 000 words must not make each of them a name to remember at every word that follows."""


class KeyTrieNode:
    """A word of many binding keys laid over each other."""

    __slots__ = ("client", "here", "literal", "loops", "many", "named", "one", "user")

    def __init__(self, *, loops: bool = False) -> None:
        self.literal: dict[str, KeyTrieNode] = {}
        self.one: KeyTrieNode | None = None
        self.many: KeyTrieNode | None = None
        """Reached together with this node, and from then on by every word."""
        self.user: KeyTrieNode | None = None
        self.client: KeyTrieNode | None = None
        self.named = False
        """Whether there is a `user` or `client` child."""
        self.loops = loops
        """Whether this is a `#`: every word leads back to it."""
        self.here: list[int] = []
        """Patterns that end at this word."""


def build_key_trie(patterns: Iterable[KeyPattern]) -> KeyTrieNode:
    """Lay the patterns over each other, numbered in order, and return the root.

    Patterns that match nothing take a number and no place.
    """
    root = KeyTrieNode()
    for number, pattern in enumerate(patterns):
        if SpecialWord.NOTHING in pattern.words:
            continue
        node = root
        for word in collapsed(pattern.words):
            node = _child(node, word)
        node.here.append(number)
    return root


def _child(node: KeyTrieNode, word: KeyWord) -> KeyTrieNode:
    if isinstance(word, str):
        child = node.literal.get(word)
        if child is None:
            child = node.literal[word] = KeyTrieNode()
        return child
    if word is SpecialWord.ONE:
        node.one = node.one or KeyTrieNode()
        return node.one
    if word is SpecialWord.MANY:
        node.many = node.many or KeyTrieNode(loops=True)
        return node.many
    node.named = True
    if word is SpecialWord.USER:
        node.user = node.user or KeyTrieNode()
        return node.user
    node.client = node.client or KeyTrieNode()
    return node.client


class NodeSet:
    """The trie nodes that the words read so far lead to, whoever the client is."""

    __slots__ = ("_matches", "named", "nodes", "other", "settled", "spelled", "steps", "universal")

    def __init__(self, nodes: frozenset[KeyTrieNode]) -> None:
        self.nodes = nodes
        self.spelled: tuple[Container[str], ...] = tuple(node.literal for node in nodes if node.literal)
        """The words that lead anywhere else than `other`."""
        self.named = tuple(node for node in nodes if node.named)
        self.universal = any(node.loops and node.here for node in nodes)
        """Whether a pattern matches whatever follows."""
        self.settled = not self.spelled and not self.named and all(node.loops and node.one is None for node in nodes)
        """Whether whatever follows leads back here."""
        self.steps: dict[str, NodeSet] = {}
        self.other: NodeSet | None = None
        """Where words lead that no pattern spells here."""
        self._matches: Matches | None = None

    @property
    def matches(self) -> Matches:
        """The patterns that match when the key ends here, whoever the client is."""
        if self._matches is None:
            numbers = sorted(number for node in self.nodes for number in node.here)
            self._matches = Matches(tuple(numbers)) if numbers else NO_MATCHES
        return self._matches


class KeySets:
    """The sets of nodes that keys lead to in one trie, worked out as keys ask for them (subset construction).

    There can be exponentially many, and whoever chooses the keys chooses which: what is remembered is bounded, and
    forgotten as a whole when there is no more room. A step that is not remembered costs the nodes of its set.
    """

    def __init__(self, root: KeyTrieNode, room: int = _ROOM) -> None:
        self._root = root
        self._room = room
        self._start_over()

    def _start_over(self) -> None:
        self._left = self._room
        self._known: dict[frozenset[KeyTrieNode], NodeSet] = {}
        reached: set[KeyTrieNode] = set()
        _reach(reached, self._root)
        self.start = NodeSet(frozenset(reached))
        self._known[self.start.nodes] = self.start

    def step(self, current: NodeSet, word: str | None) -> NodeSet:
        """Return where `word` leads; None stands for a word that no pattern spells."""
        if word is not None:
            found = current.steps.get(word)
            if found is not None:
                return found
            if any(word in literals for literals in current.spelled):
                found = current.steps[word] = self._follow(current, word)
                return found
        if current.other is None:
            current.other = self._follow(current, None)
        return current.other

    def _follow(self, current: NodeSet, word: str | None) -> NodeSet:
        reached: set[KeyTrieNode] = set()
        for node in current.nodes:
            if word is not None and (child := node.literal.get(word)) is not None:
                _reach(reached, child)
            if node.one is not None:
                _reach(reached, node.one)
            if node.loops:
                reached.add(node)
        nodes = frozenset(reached)
        found = self._known.get(nodes)
        self._left -= 1 if found is not None else len(nodes) + 8
        if self._left < 0:
            # `current` is forgotten with all the others once the key that led there is done.
            self._start_over()
            found = self._known.get(nodes)
        if found is None:
            found = self._known[nodes] = NodeSet(nodes)
        return found


def _reach(reached: set[KeyTrieNode], node: KeyTrieNode) -> None:
    reached.add(node)
    if node.many is not None:
        reached.add(node.many)


class DottedIndex:
    """An index over many binding keys, `%u` and `%c` words included; what it says never changes once built.

    `filters[i]` is pattern number i; equal patterns keep their own numbers. Raises ValueError when placeholders stand
    where they may not (see `binding_problem`).

    A key costs a look-up per word where the sets of nodes are known, and at worst, per word, the trie nodes that its
    words lead to; however many `#` there are, nothing is tried twice. A placeholder after a `#` may equal any of the
    key's first 256 words, which a key of 255 bytes cannot exceed, and equals none of those beyond.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.filters = tuple(patterns)
        self._sets = KeySets(build_key_trie(parse_binding(pattern, placeholders=True) for pattern in self.filters))

    def __len__(self) -> int:
        return len(self.filters)

    def match(self, key: str) -> Matches:
        """Say which patterns match `key`, and for which clients; same meaning as `key_matches` on each, bound."""
        sets = self._sets
        current = sets.start
        waiting: _Families = {}
        for number, word in enumerate(split_key(key)):
            if waiting or current.named:
                waiting = _bound_step(current, waiting, word, may_be_name=bool(word) and number < _NAME_WORDS)
            current = current.steps.get(word) or sets.step(current, word)
            if current.settled and not waiting:
                break
        if not waiting:
            return current.matches
        bound = [
            BoundMatch(number, constraints)
            for node, family in waiting.items()
            for number in node.here
            for constraints in family
        ]
        bound.sort()
        return Matches(current.matches.always, tuple(bound)) if bound else current.matches


_Family = frozenset[tuple[Constraint, ...]]
"""What one node asks for, one of them: each way a client can be called so that the words so far lead there."""
_Families = dict[KeyTrieNode, _Family]
"""Nodes reached under constraints. A pattern's placeholders leave one choice at most (see `binding_problem`), so a
family is no larger than the number of words that may be names."""
_UNBOUND: Final[_Family] = frozenset([()])


def _bound_step(current: NodeSet, waiting: _Families, word: str, *, may_be_name: bool) -> _Families:
    """Return where `word` leads from nodes reached under constraints, and from others by their placeholders."""
    reached: _Families = {}
    if may_be_name:
        for node in current.named:
            _take_names(reached, node, _UNBOUND, word)
    for node, family in waiting.items():
        child = node.literal.get(word)
        if child is not None:
            _arrive(reached, child, family)
        if node.one is not None:
            _arrive(reached, node.one, family)
        if node.loops:
            _arrive(reached, node, family)
        if node.named and may_be_name:
            _take_names(reached, node, family, word)
    return reached


def _take_names(reached: _Families, node: KeyTrieNode, family: _Family, word: str) -> None:
    if node.user is not None:
        _arrive(reached, node.user, _narrowed(family, "user", word))
    if node.client is not None:
        _arrive(reached, node.client, _narrowed(family, "client", word))


def _arrive(reached: _Families, node: KeyTrieNode, family: _Family) -> None:
    if not family:
        return
    known = reached.get(node)
    reached[node] = family if known is None else known | family
    if node.many is not None:
        _arrive(reached, node.many, family)


def _narrowed(family: _Family, kind: PlaceholderKind, word: str) -> _Family:
    """Add the constraint that a name equals `word`; `%u.%u` needs both words equal."""
    new = Constraint(kind, word)
    return frozenset(
        constraints if new in constraints else (*constraints, new)
        for constraints in family
        if new in constraints or all(other != kind for other, _ in constraints)
    )
