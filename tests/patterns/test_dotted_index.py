from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.patterns.dotted_cases import UTF8, WORDS, bindings, defined_for, keys
from topicwarden.patterns import NO_MATCHES, BoundMatch, Constraint, DottedIndex, Matches, binding_problem, key_matches
from topicwarden.patterns.dotted import parse_binding
from topicwarden.patterns.dotted_index import KeySets, build_key_trie

identities = st.sampled_from([None, "a.b", "%c", *WORDS])
valid = bindings(UTF8, placeholders=True).filter(lambda pattern: binding_problem(pattern, placeholders=True) is None)


@given(st.lists(valid, max_size=12), st.lists(keys(), min_size=1, max_size=6), identities, identities)
@example(["%u.#", "#.%c", "%u.*"], ["*.#", "", "."], "*", "#")
@example(["a.%u", "#.%c.b"], ["a.", "a..b"], "", "")
@example(["#.%u.#.%u.#", "#.%u.%c.#"], ["a.b.a.b"], "a", "b")
@example(["#.%u.*.a", "#.*.%u.#"], ["a.b.a", ".a."], "a", None)
def test_the_index_matches_exactly_what_each_pattern_matches(
    many: list[str], asked: list[str], user: str | None, client_id: str | None
) -> None:
    index = DottedIndex(many)
    for key in [*asked, *asked]:
        expected = [number for number, pattern in enumerate(many) if defined_for(pattern, key, user, client_id)]
        assert index.match(key).for_client(user, client_id) == expected


@given(st.lists(valid, max_size=6), keys())
def test_no_pattern_is_named_twice_under_the_same_constraints(many: list[str], key: str) -> None:
    found = DottedIndex(many).match(key)
    assert len(set(found.bound)) == len(found.bound)
    assert len(set(found.always)) == len(found.always)
    assert list(found.always) == sorted(found.always)


def test_a_placeholder_says_who_must_be_called_what() -> None:
    index = DottedIndex(["p.%u.t", "p.*.t", "p.%u.%c", "p.%c.#", "p.%u.%u", "#.%c"])
    assert index.match("p.s1.t") == Matches(
        (1,),
        (
            BoundMatch(0, (Constraint("user", "s1"),)),
            BoundMatch(2, (Constraint("user", "s1"), Constraint("client", "t"))),
            BoundMatch(3, (Constraint("client", "s1"),)),
            BoundMatch(5, (Constraint("client", "t"),)),
        ),
    )
    assert index.match("p.t.t").for_client("t", None) == [0, 1, 4]


def test_keys_of_the_same_class_have_equal_hashable_answers() -> None:
    index = DottedIndex(["a.*", "b"])
    assert len({index.match(f"a.{i}") for i in range(50)}) == 1
    assert index.match("c") is NO_MATCHES


def test_an_index_of_a_pattern_that_is_not_valid_is_refused() -> None:
    with pytest.raises(ValueError, match="whole word"):
        DottedIndex(["a", "x%u"])


@given(st.lists(bindings(max_words=4), max_size=6), st.lists(keys(), min_size=1, max_size=20), st.integers(0, 40))
def test_forgetting_the_sets_of_nodes_changes_no_answer(many: list[str], asked: list[str], room: int) -> None:
    sets = KeySets(build_key_trie(map(parse_binding, many)), room)
    for key in asked:
        current = sets.start
        for word in key.split(".") if key else []:
            current = sets.step(current, word)
        assert list(current.matches.always) == [i for i, pattern in enumerate(many) if key_matches(pattern, key)]


def test_what_an_index_remembers_is_bounded_whatever_keys_come() -> None:
    # `#.a.*.*.…`: each of the last words was an `a` or was not, so there are 2 ** 14 sets of nodes.
    index = DottedIndex([".".join(["#", "a", *["*"] * 13, "b"])])
    index._sets = KeySets(build_key_trie([parse_binding(index.filters[0])]), 5_000)
    source = random.Random(3)
    most = 0
    for _ in range(300):
        words = source.choices("ab", k=40)
        assert index.match(".".join(words)).always == ((0,) if words[-15] == "a" and words[-1] == "b" else ())
        most = max(most, sum(len(nodes) + 8 for nodes in index._sets._known))
    assert 2_000 < most <= 5_000 + 100


def test_hostile_keys_and_patterns_are_decided_in_bounded_time() -> None:
    hashes = [".".join(["#", letter] * 60) + ".#.z" for letter in "abc"]
    placeholders = ["#.%u.#.%u.#.x", "#.%u.*.%c.#", "%u.#.%c.#.y", "#.%c.#"]
    index = DottedIndex([*hashes, *placeholders])
    source = random.Random(5)
    different = [chr(code) for code in range(1, 128) if chr(code) != "."]
    asked = [".".join("abc"[i % 3] for i in range(128)), "." * 255, ".".join(different), ".".join(different[:126] * 2)]
    asked += [".".join(source.choices("abcz", k=128)) for _ in range(20)]
    start = time.perf_counter()
    for key in asked:
        found = index.match(key)
        assert len(found.bound) <= 4 * 256
    assert (time.perf_counter() - start) / len(asked) < 0.2


def test_a_key_longer_than_a_method_can_carry_is_still_matched() -> None:
    # Such keys come by the CC header and by MQTT.
    index = DottedIndex(["long.*", "long.#", "long.%u"])
    word = "x" * 400
    assert index.match(f"long.{word}") == Matches((0, 1), (BoundMatch(2, (Constraint("user", word),)),))
    assert index.match("long" + "." * 65000).always == (1,)


def test_a_key_of_very_many_words_does_not_make_every_word_a_name_to_remember() -> None:
    index = DottedIndex(["#.%u.#", "#.%u.#.%u.#.x", "%u.#.%c.#.y.#", "%u.#.z"])
    words = [chr(0x4E00 + number) for number in range(16_000)]
    start = time.perf_counter()
    found = index.match(".".join([*words, "z"]))
    assert len(found.bound) == 256 + 1
    for end in ("x", "y.x"):
        assert len(index.match(".".join([*words[:8_000], *words[:8_000], end])).bound) < 1_000
    assert time.perf_counter() - start < 3
    assert found.for_client(words[0], None) == [0, 3]
    assert found.for_client(words[255], None) == [0]
    assert found.for_client(words[256], None) == []


def test_every_short_key_over_a_small_alphabet_is_matched_as_one_by_one() -> None:
    patterns = [
        ".".join(words) for length in range(4) for words in itertools.product(["a", "*", "#", ""], repeat=length)
    ]
    index = DottedIndex(patterns)
    for length in range(5):
        for words in itertools.product(["a", "", "b"], repeat=length):
            key = ".".join(words)
            assert index.match(key).always == tuple(i for i, p in enumerate(patterns) if key_matches(p, key))
