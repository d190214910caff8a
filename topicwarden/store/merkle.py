"""Merkle trees as Certificate Transparency has them: RFC 9162, section 2.1.

A tree over n leaves proves with about log2(n) hashes that a leaf is in it (inclusion), and that a later tree only
appended to it (consistency).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

EMPTY: Final = sha256(b"").digest()
"""The root of a tree without leaves (section 2.1.1)."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The tree as whoever appends needs it: the roots of its perfect subtrees. 32 bytes a level."""

    def __init__(self, roots: Sequence[bytes | None] = ()) -> None:
        """`roots`: those of another frontier, to go on from there."""
        self._roots = list(roots)

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return sum(1 << level for level, root in enumerate(self._roots) if root is not None)

    @property
    def roots(self) -> Sequence[bytes | None]:
        """The root of the perfect subtree of 2 ** i leaves at place i; None: there is none."""
        return tuple(self._roots)

    def append(self, leaf: bytes, level: int = 0) -> None:
        """Add the hash of a leaf, or the root of the perfect subtree of the next 2 ** level leaves.

        Raises ValueError for one that does not begin where such a subtree can.
        """
        if level:
            if any(root is not None for root in self._roots[:level]):
                raise ValueError(f"a tree of {self.size} leaves does not go on with 2 ** {level} at once")
            self._roots += [None] * (level - len(self._roots))
        for place in range(level, len(self._roots)):
            root = self._roots[place]
            if root is None:
                self._roots[place] = leaf
                return
            leaf = node_hash(root, leaf)
            self._roots[place] = None
        self._roots.append(leaf)

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add the hashes of many leaves: faster than one by one."""
        level, nodes = 0, list(leaves)
        while nodes:
            if level == len(self._roots):
                self._roots.append(None)
            root = self._roots[level]
            if root is not None:
                nodes.insert(0, root)
            self._roots[level] = nodes.pop() if len(nodes) & 1 else None
            pairs = zip(nodes[::2], nodes[1::2], strict=True)
            nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
            level += 1

    def root(self) -> bytes:
        """Return the tree's root."""
        found = None
        for root in self._roots:
            if root is not None:
                found = root if found is None else node_hash(root, found)
        return EMPTY if found is None else found


class Tree:
    """A whole tree over leaf hashes, for proofs. Keeps every level: about 64 bytes a leaf."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels: list[list[bytes]] = [list(leaves)]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            self._levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return len(self._levels[0])

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves; None: of all."""
        size = self._checked(self.size if size is None else size)
        return EMPTY if size == 0 else self._range(0, size)

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the proof that leaf `index` is in the tree of the first `size` leaves (section 2.1.3.1).

        Raises ValueError when it is not.
        """
        size = self._checked(self.size if size is None else size)
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not in a tree of {size}")
        proof = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        return proof[::-1]

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the tree of the first `old` leaves is the beginning of that of `size` (2.1.4.1).

        Raises ValueError for sizes that the tree does not have.
        """
        size = self._checked(self.size if size is None else size)
        if not 0 < old <= size:
            raise ValueError(f"a tree of {old} leaves is not the beginning of one of {size}")
        proof: list[bytes] = []
        start, end, whole = 0, size, True
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start, whole = middle, False
        if not whole:
            proof.append(self._range(start, end))
        return proof[::-1]

    def _range(self, start: int, end: int) -> bytes:
        """Return the root over leaves start to end; start is a multiple of the power of two that the range needs."""
        size = end - start
        if size & (size - 1) == 0:
            level = size.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + _split(size)
        return node_hash(self._range(start, middle), self._range(middle, end))

    def _checked(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise ValueError(f"the tree has {self.size} leaves, not {size}")
        return size


def inclusion_of(leaves: Iterable[bytes], index: int, size: int) -> tuple[list[bytes], bytes]:
    """Return the proof that leaf `index` is in the tree over the first `size` leaf hashes, and the tree's root.

    Reads the leaves once and keeps only the proof, however many there are. Raises ValueError when there are fewer.
    """
    return inclusion_by(((0, leaf) for leaf in leaves), index, size)


def inclusion_by(subtrees: Iterable[tuple[int, bytes]], index: int, size: int) -> tuple[list[bytes], bytes]:
    """Return the same as `inclusion_of` from roots of perfect subtrees in their order, each with its level.

    Level 0 is a leaf, as leaf `index` has to be. Raises ValueError also for a subtree that a proof would have to cut.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    ranges = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    parts = [(start, end, Frontier()) for start, end in ranges]
    ordered = iter(sorted([*parts, (index, index + 1, Frontier())], key=lambda one: one[0]))
    whole, place = Frontier(), 0
    _, until, part = next(ordered)
    for level, root in subtrees:
        if place == until:
            _, until, part = next(ordered)
        part.append(root, level)
        whole.append(root, level)
        place += 1 << level
        if place > until:
            raise ValueError(f"leaf {index} or leaf {size - 1} lies in a subtree of 2 ** {level} leaves")
        if place == size:
            break
    if place != size:
        raise ValueError(f"{place} leaves, not {size}")
    return [part.root() for _, _, part in parts][::-1], whole.root()


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows that this leaf hash is leaf `index` of the tree with this size and root (2.1.3.2)."""
    if not 0 <= index < size:
        return False
    first, last = index, size - 1
    found = leaf
    for node in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = node_hash(node, found)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            found = node_hash(found, node)
        first >>= 1
        last >>= 1
    return last == 0 and found == root


def verify_consistency(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree of `old` leaves is the beginning of the one of `size` (2.1.4.2)."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not proof and old_root == root
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return False
    first, last = old - 1, size - 1
    while first & 1:
        first >>= 1
        last >>= 1
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            after = node_hash(after, node)
        first >>= 1
        last >>= 1
    return last == 0 and before == old_root and after == root


def _split(size: int) -> int:
    """Return the largest power of two below a size of at least 2."""
    return 1 << ((size - 1).bit_length() - 1)
