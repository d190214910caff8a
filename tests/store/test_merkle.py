"""The tree is RFC 9162's: against its definition, its published vectors, and whoever forges a proof."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.store.merkle import (
    Frontier,
    Tree,
    inclusion_by,
    inclusion_of,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The vectors of Certificate Transparency's reference implementation (google/certificate-transparency,
# merkletree/merkle_tree_test.cc), which RFC 6962's and RFC 9162's implementations share.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def defined(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash, word for word as section 2.1.1 defines it, over leaf data."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(defined(leaves[:split]), defined(leaves[split:]))


def test_the_published_roots_come_out() -> None:
    frontier = Frontier()
    for number, leaf in enumerate(LEAVES):
        frontier.append(leaf_hash(leaf))
        assert frontier.root().hex() == ROOTS[number]


@given(st.lists(st.binary(max_size=4), max_size=70))
@settings(deadline=None)
def test_frontier_and_tree_are_what_is_defined(leaves: list[bytes]) -> None:
    frontier = Frontier()
    tree = Tree([leaf_hash(leaf) for leaf in leaves])
    for number, leaf in enumerate(leaves):
        assert frontier.root() == tree.root(number) == defined(leaves[:number])
        frontier.append(leaf_hash(leaf))
    assert frontier.root() == tree.root() == defined(leaves)
    assert frontier.size == tree.size == len(leaves)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_is_proved_to_be_where_it_is_and_nowhere_else(size: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    tree = Tree(leaves)
    for index in range(size):
        proof = tree.inclusion(index)
        assert verify_inclusion(leaves[index], index, size, proof, tree.root())
        assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, tree.root())
        assert not verify_inclusion(leaves[index], index, size, [*proof, leaves[0]], tree.root())
        assert not proof or not verify_inclusion(leaves[index], index, size, proof[:-1], tree.root())
        for other in range(size):
            assert other == index or not verify_inclusion(leaves[index], other, size, proof, tree.root())


@pytest.mark.parametrize("size", range(1, 34))
def test_a_tree_is_proved_to_be_the_beginning_of_a_later_one_and_of_no_other(size: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    tree, other = Tree(leaves), Tree([leaf_hash(b"changed"), *leaves[1:]])
    for old in range(1, size + 1):
        proof = tree.consistency(old)
        assert verify_consistency(old, tree.root(old), size, tree.root(), proof)
        assert not verify_consistency(old, other.root(old), size, tree.root(), proof)
        assert not verify_consistency(old, tree.root(old), size, other.root(), proof)
        assert not verify_consistency(old, tree.root(old), size, tree.root(), [*proof, leaves[0]])
        if old < size:
            assert not verify_consistency(old, tree.root(old), size, tree.root(), proof[:-1])


@given(st.lists(st.integers(0, 40), max_size=6))
def test_leaves_added_together_are_what_they_are_one_by_one(counts: list[int]) -> None:
    together, single = Frontier(), Frontier()
    for count in counts:
        leaves = [leaf_hash(bytes([number])) for number in range(count)]
        together.extend(leaves)
        for leaf in leaves:
            single.append(leaf)
        assert together.roots == single.roots


@given(st.data(), st.integers(0, 3), st.integers(1, 90))
def test_a_leaf_is_proved_by_the_roots_of_subtrees_as_by_all_leaves(data: st.DataObject, level: int, size: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    cut = {index >> level, size >> level} | data.draw(st.sets(st.integers(0, size >> level)))
    nodes: list[tuple[int, bytes]] = []
    for start in range(0, size, 1 << level):
        part = leaves[start : start + (1 << level)]
        whole = Tree(part).root()
        nodes += [(0, leaf) for leaf in part] if start >> level in cut else [(level, whole)]
    assert inclusion_by(nodes, index, size) == inclusion_of(leaves, index, size)
    assert inclusion_of(leaves, index, size) == (Tree(leaves).inclusion(index), Tree(leaves).root())


def test_a_subtree_that_hides_the_leaf_or_begins_nowhere_is_refused() -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(4)]
    pair = (1, Tree(leaves[:2]).root())
    for nodes, index, size in (
        ([pair, pair], 1, 4),
        ([pair, pair], 0, 3),
        ([(0, leaves[0]), pair], 0, 3),
        ([pair], 2, 4),
    ):
        with pytest.raises(ValueError, match=r"leaf|leaves"):
            inclusion_by(nodes, index, size)


@given(st.integers(0, 20), st.integers(0, 20), st.lists(st.binary(min_size=32, max_size=32), max_size=6))
def test_made_up_proofs_prove_nothing(index: int, size: int, proof: list[bytes]) -> None:
    root = sha256(b"made up").digest()
    assert not verify_inclusion(leaf_hash(b"x"), index, size, proof, root)
    assert not verify_consistency(index, sha256(b"old").digest(), size, root, proof)


def test_what_is_not_in_the_tree_cannot_be_asked_for() -> None:
    tree = Tree([leaf_hash(b"")])
    for ask in (
        lambda: tree.inclusion(1),
        lambda: tree.consistency(0),
        lambda: tree.consistency(2),
        lambda: tree.root(2),
    ):
        with pytest.raises(ValueError, match=r"leaf|leaves"):
            ask()
