from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.patterns.dotted_cases import FEW, UTF8, WORDS, bindings, defined, keys, split
from topicwarden.patterns import (
    Answer,
    Covered,
    KeyPattern,
    KeyUnion,
    SpecialWord,
    Undecided,
    Witness,
    bind_key,
    binding_problem,
    key_matches,
    key_overlap,
    key_problem,
    literal_key,
    parse_binding,
)

EVERY_KEY = sorted(
    {".".join(words) for length in range(7) for words in itertools.product(("", "a", "b", "~"), repeat=length)},
    key=lambda key: len(split(key)),
)
"""Up to six words, fewest first; `~` stands for every word no pattern spells out."""
few = bindings(FEW, max_words=3)
longer = bindings(("", "a", "b", "c"), max_words=6)


def holds(answer: Answer, p: str, by: Sequence[str]) -> bool:
    """Whether a claimed witness is one."""
    assert isinstance(answer, Witness)
    key = answer.topic
    return key_problem(key) is None and defined(p, key) and not any(defined(other, key) for other in by)


@settings(max_examples=200, deadline=None)
@given(few, st.lists(few, max_size=6))
@example("#", ["*.#"])
@example("#", ["", "*", "*.*", "*.*.*"])
@example("#", ["#.a.#", "#.b", "", "*"])
@example("#.a.#", ["a.#", "*.a.#", "#.a", "#.a.*"])
@example("*.*", [".*", "*.", "a.b"])
@example("*", [""])
@example(".#", [])
@example("#.", [])
@example("#..#", ["a"])
@example(".#", [".*.#"])
@example("#", ["", "*", ".*.#", "a.*.#"])
def test_inclusion_agrees_with_trying_every_key_and_witnesses_are_shortest(p: str, by: list[str]) -> None:
    first = next((k for k in EVERY_KEY if key_matches(p, k) and not any(key_matches(other, k) for other in by)), None)
    answer = KeyUnion(by).uncovered(p)
    if isinstance(answer, Covered):
        assert first is None
    else:
        assert holds(answer, p, by)
        assert isinstance(answer, Witness)
        assert len(split(answer.topic)) == (len(split(first)) if first is not None else 7)


def subsets_tried(p: str, by: Sequence[str]) -> int | None:
    """The fewest words of a key that `p` matches and `by` do not, by complete subset construction; None: there is none.

    Knows nothing of fresh words, tries or antichains: every literal is tried at every word.
    """
    patterns = [split(pattern) for pattern in [p, *by]]
    alphabet = {word for pattern in patterns for word in pattern} - {"*", "#"} | {"~"}

    def closed(places: set[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        for number, at in sorted(places):
            while at < len(patterns[number]) and patterns[number][at] == "#":
                at += 1
                places.add((number, at))
        return frozenset(places)

    layer = {(closed({(number, 0) for number in range(len(patterns))}), False)}
    seen = set(layer)
    length = 0
    while layer:
        following = set()
        for places, lone_empty_word in layer:
            ends = {number for number, at in places if at == len(patterns[number])}
            if ends == {0} and not lone_empty_word:
                return length
            for word in alphabet:
                reached = set()
                for number, at in places:
                    wanted = patterns[number][at] if at < len(patterns[number]) else None
                    if wanted == "#":
                        reached.add((number, at))
                    elif wanted in ("*", word):
                        reached.add((number, at + 1))
                following.add((closed(reached), length == 0 and word == ""))
        layer = {state for state in following - seen if any(number == 0 for number, _ in state[0])}
        seen |= layer
        length += 1
    return None


@settings(max_examples=150, deadline=None)
@given(longer, st.lists(longer, max_size=4))
@example("#.a.#.b.#", ["#.a.b.#", "#.a.*.b.#", "#.a.*.*.#.b.#"])
@example("#.a.#.a.#", ["a.#", "*.a.#", "#.a.*.a.#", "#.a.a.#"])
def test_inclusion_agrees_with_complete_subset_construction(p: str, by: list[str]) -> None:
    answer = KeyUnion(by).uncovered(p)
    expected = subsets_tried(p, by)
    if expected is None:
        assert answer == Covered()
    else:
        assert holds(answer, p, by)
        assert isinstance(answer, Witness)
        assert len(split(answer.topic)) == expected


@given(bindings(), st.lists(bindings(), max_size=12))
def test_every_witness_is_matched_by_the_pattern_and_by_none_of_the_others(p: str, by: list[str]) -> None:
    answer = KeyUnion(by).uncovered(p)
    assert isinstance(answer, Covered) or holds(answer, p, by)


@given(bindings(), st.lists(bindings(), max_size=6), keys())
def test_a_pattern_is_covered_by_a_union_that_holds_it_and_so_is_every_key_it_matches(
    p: str, by: list[str], key: str
) -> None:
    union = KeyUnion([*by, p])
    assert union.uncovered(p) == Covered()
    if defined(p, key):
        assert union.uncovered(literal_key(key)) == Covered()


@settings(max_examples=200, deadline=None)
@given(few, few)
@example("#", "#")
@example("", "*")
@example("#.a.#", "b.#.b")
@example(".#", "#")
@example(".#", "*")
@example("#.", ".#")
@example("#.", "#")
@example("a.#.b", "#.a.b.#")
def test_overlap_agrees_with_trying_every_key(a: str, b: str) -> None:
    first = next((key for key in EVERY_KEY if key_matches(a, key) and key_matches(b, key)), None)
    shared = key_overlap(a, b)
    # Patterns of three words that share a key share one of six.
    assert (shared is None) is (first is None)
    if shared is not None and first is not None:
        assert key_problem(shared) is None
        assert defined(a, shared)
        assert defined(b, shared)
        assert len(split(shared)) == len(split(first))


@given(longer, longer, keys(("", "a", "b", "c", "~"), max_words=8))
def test_overlap_is_found_wherever_a_key_shows_it(a: str, b: str, key: str) -> None:
    shared = key_overlap(a, b)
    assert shared == key_overlap(b, a) or (shared is not None and len(shared) == len(key_overlap(b, a) or ""))
    if shared is None:
        assert not (defined(a, key) and defined(b, key))
    else:
        assert defined(a, shared)
        assert defined(b, shared)


placed = bindings(UTF8, placeholders=True).filter(lambda pattern: binding_problem(pattern, placeholders=True) is None)


@given(placed, placed, *[st.sampled_from([None, "a.b", "~", "%c", *WORDS])] * 2)
def test_bound_patterns_mean_what_the_matcher_means(
    p: str, other: str, user: str | None, client_id: str | None
) -> None:
    bound, by = bind_key(p, user, client_id), bind_key(other, user, client_id)
    answer = KeyUnion([by]).uncovered(bound)
    if isinstance(answer, Witness):
        assert key_matches(bound, answer.topic)
        assert not key_matches(by, answer.topic)
    shared = key_overlap(bound, by)
    assert shared is None or (key_matches(bound, shared) and key_matches(by, shared))


@pytest.mark.parametrize("name", [None, "", "a.b", "."])
def test_a_name_that_can_be_no_word_grants_nothing(name: str | None) -> None:
    granted = bind_key("plant.%u.#", name, name)
    assert KeyUnion([]).uncovered(granted) == Covered()
    assert key_overlap(granted, "#") is None
    for wanted in ["plant.*.command", "plant.a.b", "#"]:
        assert isinstance(KeyUnion([granted]).uncovered(wanted), Witness)


@pytest.mark.parametrize("name", ["*", "#"])
def test_a_client_called_like_a_wildcard_is_granted_that_word_only(name: str) -> None:
    granted = KeyUnion([bind_key("plant.%u", name, None)])
    assert granted.uncovered(literal_key(f"plant.{name}")) == Covered()
    assert granted.uncovered(f"plant.{name}") == Witness("plant.x" if name == "*" else "plant")


def test_literal_words_that_look_like_wildcards_are_none() -> None:
    assert KeyUnion([literal_key("a.#")]).uncovered("a.b") == Witness("a.b")
    assert KeyUnion(["a.*"]).uncovered(literal_key("a.#")) == Covered()
    assert key_overlap(literal_key("*"), "a") is None


def test_a_placeholder_nobody_bound_is_refused() -> None:
    open_pattern = parse_binding("a.%u", placeholders=True)
    with pytest.raises(ValueError, match="bind it"):
        KeyUnion([open_pattern])
    with pytest.raises(ValueError, match="bind it"):
        KeyUnion([]).uncovered(KeyPattern("%c", (SpecialWord.CLIENT,)))
    with pytest.raises(ValueError, match="bind it"):
        key_overlap("a", open_pattern)


def test_a_plain_pattern_may_hold_a_word_that_looks_like_a_placeholder() -> None:
    assert KeyUnion(["p.alice"]).uncovered("p.%u") == Witness("p.%u")


def test_witnesses_are_readable_and_avoid_the_words_the_others_spell_out() -> None:
    by = ["plant.x.s1.#", "plant.y.#", "plant.*.s1"]
    assert KeyUnion(by).uncovered("plant.*.s1.#") == Witness("plant.z.s1.x")
    every_letter = [f"plant.{name}" for name in "xyzabcdefghijklmnopqrstuvw0123456789"]
    assert KeyUnion([*every_letter, "plant.x0"]).uncovered("plant.*") == Witness("plant.x1")


def test_a_union_that_covers_word_by_word_is_seen_through() -> None:
    # Covered by no single one of them.
    assert KeyUnion(["", "a.#", "*", "*.*.#"]).uncovered("#") == Covered()
    assert KeyUnion(["#.a.b.#", "#.a.*.b.#", "#.a.*.*.#.b.#"]).uncovered("#.a.#.b.#") == Covered()
    assert KeyUnion(["#.a.b.#", "#.a.*.*.#.b.#"]).uncovered("#.a.#.b.#") == Witness("a.x.b")


STARS = [".".join(["*"] * number) for number in range(129)]
"""All keys of up to 128 words."""


def test_a_witness_too_long_for_a_key_is_spelled_with_empty_words() -> None:
    assert KeyUnion(STARS).uncovered("#") == Witness("." * 128)
    assert key_overlap("#." + ".".join(["*"] * 128), "*.#") == ".".join("x" * 128)
    long = "a" * 126
    assert key_overlap(f"{long}.*.#", f"*.{long}.*.#") == f"{long}.{long}.x"
    assert key_overlap(f"{long}a.*.#", f"*.{long}.*.#") == f"{long}a.{long}."


def test_where_every_key_that_would_show_it_is_too_long_the_answer_is_undecided() -> None:
    no_empty_word = "#..#"
    assert isinstance(KeyUnion([*STARS, no_empty_word]).uncovered("#"), Undecided)
    assert isinstance(KeyUnion([]).uncovered("a" * 300), Undecided)
    assert KeyUnion(["a" * 300]).uncovered("a" * 300) == Covered()
    half = "a" * 128
    assert key_overlap(f"{half}.#", f"#.b{half}") is None


def test_overlap_prefers_few_words_and_takes_more_where_those_are_too_long() -> None:
    long = "l" * 100
    # Two long words shared and the short ones apart: fewer bytes than the other way round.
    a, b = f"#.s.t.u.{long}.{long}.#", f"#.{long}.{long}.s.t.u.#"
    assert key_overlap(a, b) == f"s.t.u.{long}.{long}.s.t.u"


def test_a_budget_too_small_gives_undecided_and_never_covered() -> None:
    by = [f"a.{i}.c.*" for i in range(50)] + ["*.*.*.b"]
    assert isinstance(KeyUnion(by).uncovered("a.*.c.d", budget=3), Undecided)
    assert KeyUnion(by).uncovered("a.*.c.d") == Witness("a.x.c.d")


def test_patterns_made_to_be_hard_end_at_the_budget() -> None:
    by = [".".join(["#", "a", *["*"] * gap, "a", "#"]) for gap in range(24)] + [".".join(["*"] * n) for n in range(90)]
    p = ".".join(["#", "a"] * 20 + ["#"])
    answer = KeyUnion(by).uncovered(p, budget=200_000)
    assert isinstance(answer, Undecided) or holds(answer, p, by)
