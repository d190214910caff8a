"""Many topic filters at once: a trie that says which of them match a topic, at a cost that depends on the topic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from topicwarden.patterns.mqtt import LevelPattern, Special, is_name, parse

PlaceholderKind = Literal["user", "client"]


class Constraint(NamedTuple):
    """What a placeholder level asks for: the client's user name or client id must equal `text`."""

    kind: PlaceholderKind
    text: str


class BoundMatch(NamedTuple):
    """A filter with placeholders that matches for clients that fulfil all of `constraints` (at least one)."""

    number: int
    constraints: tuple[Constraint, ...]

    def holds(self, user: str | None, client_id: str | None) -> bool:
        """Whether this client's names fulfil the constraints."""
        return all(text == (user if kind == "user" else client_id) for kind, text in self.constraints)


class Matches(NamedTuple):
    """Which filters of an index match a topic; hashable, so equal answers can share one class."""

    always: tuple[int, ...]
    """Filter numbers that match for every client, ascending."""
    bound: tuple[BoundMatch, ...] = ()
    """Filters that match for some clients only, by ascending number."""

    def for_client(self, user: str | None, client_id: str | None) -> list[int]:
        """Return the numbers of all filters that match for this client, ascending."""
        return sorted([*self.always, *(match.number for match in self.bound if match.holds(user, client_id))])


NO_MATCHES: Final = Matches(())


class TrieNode:
    """A level of many filters laid over each other."""

    __slots__ = ("client", "here", "literal", "named", "one", "rest", "user")

    def __init__(self) -> None:
        self.literal: dict[str, TrieNode] = {}
        self.one: TrieNode | None = None
        self.user: TrieNode | None = None
        self.client: TrieNode | None = None
        self.named = False
        """Whether there is a `user` or `client` child."""
        self.here: list[int] = []
        """Filters that end at this level."""
        self.rest: list[int] = []
        """Filters whose `#` follows this level: they match it and all below it."""


def build_trie(patterns: Iterable[LevelPattern]) -> tuple[TrieNode, int]:
    """Lay the patterns over each other, numbered in order; return the root and the deepest node's depth.

    Patterns that match nothing take a number and no place.
    """
    root = TrieNode()
    deepest = 0
    for number, pattern in enumerate(patterns):
        if Special.NOTHING in pattern.levels:
            continue
        node = root
        depth = 0
        for level in pattern.levels:
            if level is Special.REST:
                break
            node = _child(node, level)
            depth += 1
        deepest = max(deepest, depth)
        if pattern.levels[-1] is Special.REST:
            node.rest.append(number)
        else:
            node.here.append(number)
    return root, deepest


def _child(node: TrieNode, level: str | Special) -> TrieNode:
    if isinstance(level, str):
        child = node.literal.get(level)
        if child is None:
            child = node.literal[level] = TrieNode()
        return child
    if level is Special.ONE:
        node.one = node.one or TrieNode()
        return node.one
    node.named = True
    if level is Special.USER:
        node.user = node.user or TrieNode()
        return node.user
    node.client = node.client or TrieNode()
    return node.client


class FilterIndex:
    """An index over many filters, `%u` and `%c` levels included; does not change once built.

    `filters[i]` is filter number i; equal filters keep their own numbers. Raises ValueError when one is not valid.

    A topic costs the trie nodes it reaches, never more than there are at the depths of the filters, and is not split
    beyond the deepest filter: a hostile topic of 65535 levels costs one scan for `+`, `#` and NUL.
    """

    def __init__(self, filters: Sequence[str]) -> None:
        self.filters = tuple(filters)
        self._root, self._deepest = build_trie(parse(f, placeholders=True) for f in self.filters)

    def __len__(self) -> int:
        return len(self.filters)

    def match(self, topic: str) -> Matches:
        """Say which filters match `topic`, and for which clients; same meaning as `mqtt.matches` on each."""
        if not is_name(topic):
            return NO_MATCHES
        found: list[int] = []
        bound: list[BoundMatch] = []
        active = [self._root]
        waiting: list[_Waiting] = []
        # Wildcards at the first level do not match names that start with `$` (MQTT 5.0, section 4.7.2).
        dollar = topic[0] == "$"
        if not dollar:
            found += self._root.rest
        for level in topic.split("/", self._deepest):
            bound_reached: list[_Waiting] = []
            if waiting:
                for node, constraints in waiting:
                    _follow(bound_reached, node, level, constraints)
            reached: list[TrieNode] = []
            for node in active:
                child = node.literal.get(level)
                if child is not None:
                    reached.append(child)
                    if child.rest:
                        found += child.rest
                child = node.one
                if child is not None and not dollar:
                    reached.append(child)
                    if child.rest:
                        found += child.rest
                if node.named and level:
                    if node.user is not None:
                        bound_reached.append((node.user, (Constraint("user", level),)))
                    if node.client is not None:
                        bound_reached.append((node.client, (Constraint("client", level),)))
            if bound_reached:
                for node, constraints in bound_reached:
                    if node.rest:
                        bound += [BoundMatch(number, constraints) for number in node.rest]
            elif not reached:
                break
            active, waiting, dollar = reached, bound_reached, False
        else:
            for node in active:
                if node.here:
                    found += node.here
            for node, constraints in waiting:
                if node.here:
                    bound += [BoundMatch(number, constraints) for number in node.here]
        if not found and not bound:
            return NO_MATCHES
        found.sort()
        bound.sort()
        return Matches(tuple(found), tuple(bound))


_Waiting = tuple[TrieNode, tuple[Constraint, ...]]
"""A node reached under constraints."""


def _follow(reached: list[_Waiting], node: TrieNode, level: str, constraints: tuple[Constraint, ...]) -> None:
    """Go one level down from a node that was reached under constraints."""
    child = node.literal.get(level)
    if child is not None:
        reached.append((child, constraints))
    if node.one is not None:
        reached.append((node.one, constraints))
    if node.user is not None:
        _bind_again(reached, node.user, constraints, Constraint("user", level))
    if node.client is not None:
        _bind_again(reached, node.client, constraints, Constraint("client", level))


def _bind_again(
    reached: list[_Waiting],
    node: TrieNode,
    constraints: tuple[Constraint, ...],
    constraint: Constraint,
) -> None:
    """Follow a second placeholder: `%u/%u` needs both levels equal, so a contradiction ends here."""
    if constraint in constraints:
        reached.append((node, constraints))
    elif constraint.text and all(kind != constraint.kind for kind, _ in constraints):
        reached.append((node, (*constraints, constraint)))
