from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.patterns.strategies import NAMES, filters
from topicwarden.patterns import (
    MAX_BYTES,
    Answer,
    Covered,
    FilterUnion,
    LevelPattern,
    Special,
    Undecided,
    Witness,
    bind,
    matches,
    overlap,
    topic_problem,
    uncovered,
)

ALPHABET = ("", "a", "b", "$a", "~")
"""Enough: `~` stands for every name no filter spells out."""
EVERY_TOPIC = [
    topic
    for length in range(1, 6)
    for levels in itertools.product(ALPHABET, repeat=length)
    if (topic := "/".join(levels))
]
plain = filters(names=("", "a", "b", "$a", "$SYS", "é"))
few = filters(max_levels=3, names=("", "a", "b", "$a"))


def holds(answer: Answer, f: str, by: Sequence[str]) -> bool:
    """Whether a claimed witness is one."""
    assert isinstance(answer, Witness)
    topic = answer.topic
    return topic_problem(topic) is None and matches(f, topic) and not any(matches(other, topic) for other in by)


@settings(max_examples=300, deadline=None)
@given(few, st.lists(few, max_size=6))
@example("#", ["+/#"])
@example("/#", ["/+", "/+/+/#"])
@example("+/+", ["a/+", "+/a", "$a/#"])
@example("$a/+", ["+/+", "#"])
@example("#", ["+", "+/+", "+/+/#"])
def test_inclusion_agrees_with_trying_every_topic_and_witnesses_are_shortest(f: str, by: list[str]) -> None:
    brute = [t for t in EVERY_TOPIC if matches(f, t) and not any(matches(other, t) for other in by)]
    answer = uncovered(f, by)
    if isinstance(answer, Covered):
        assert brute == []
    else:
        assert holds(answer, f, by)
        assert isinstance(answer, Witness)
        assert answer.topic.count("/") == min(topic.count("/") for topic in brute)


@given(plain, st.lists(plain, max_size=12))
def test_every_witness_is_matched_by_the_filter_and_by_none_of_the_others(f: str, by: list[str]) -> None:
    answer = uncovered(f, by)
    assert isinstance(answer, Covered) or holds(answer, f, by)


@given(filters(), st.lists(filters(), max_size=6))
def test_a_filter_is_always_covered_by_a_union_that_holds_it(f: str, by: list[str]) -> None:
    assert uncovered(f, [*by, f]) == Covered()


@settings(max_examples=300, deadline=None)
@given(few, few)
@example("/#", "+")
@example("/#", "/#")
@example("#", "#")
@example("+/#", "$a")
def test_overlap_agrees_with_trying_every_topic(a: str, b: str) -> None:
    both = [topic for topic in EVERY_TOPIC if matches(a, topic) and matches(b, topic)]
    witness = overlap(a, b)
    if witness is None:
        assert both == []
    else:
        assert topic_problem(witness) is None
        assert matches(a, witness)
        assert matches(b, witness)
        assert witness.count("/") == min(topic.count("/") for topic in both)


@given(
    filters(placeholders=True),
    filters(placeholders=True),
    *[st.sampled_from([None, "+", "#", "/", "a/b", "\0", "\ud800", *NAMES])] * 2,
)
def test_bound_filters_mean_what_the_plain_matcher_means(
    f: str, other: str, user: str | None, client_id: str | None
) -> None:
    answer = uncovered(bind(f, user, client_id), [bind(other, user, client_id)])
    if isinstance(answer, Witness):
        assert matches(f, answer.topic, user, client_id)
        assert not matches(other, answer.topic, user, client_id)
    shared = overlap(bind(f, user, client_id), bind(other, user, client_id))
    assert shared is None or (matches(f, shared, user, client_id) and matches(other, shared, user, client_id))


@pytest.mark.parametrize("name", ["+", "#", "a/#", "", None, "a/b", "\0"])
def test_a_client_gains_nothing_by_its_name(name: str | None) -> None:
    granted = bind("plant/%u/command", name, name)
    assert uncovered(granted, []) == Covered()
    assert overlap(granted, "#") is None
    for wanted in ["plant/+/command", "plant/x/command", "#"]:
        assert isinstance(uncovered(wanted, [granted]), Witness)


def test_a_user_named_like_a_placeholder_is_that_text_only() -> None:
    assert uncovered(bind("p/%u", "%c", "a"), ["p/a"]) == Witness("p/%c")


def test_a_literal_level_that_looks_like_a_wildcard_is_no_wildcard() -> None:
    assert isinstance(uncovered("a/b", [LevelPattern("a/+", ("a", "+"))]), Witness)
    assert uncovered(LevelPattern("a/+", ("a", "+")), []) == Covered()


def test_a_placeholder_nobody_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="bind it"):
        uncovered(LevelPattern("%u", (Special.USER,)), [])
    with pytest.raises(ValueError, match="bind it"):
        FilterUnion([LevelPattern("%c", (Special.CLIENT,))])


def test_a_plain_filter_may_hold_a_level_that_looks_like_a_placeholder() -> None:
    assert uncovered("p/%u", ["p/alice"]) == Witness("p/%u")


def test_witnesses_are_readable_and_avoid_the_names_the_others_spell_out() -> None:
    assert uncovered("plant/+/s1/#", ["plant/x/s1/#", "plant/y/#", "plant/+/s1"]) == Witness("plant/z/s1/x")
    every_letter = [f"plant/{name}" for name in "xyzabcdefghijklmnopqrstuvw0123456789"]
    assert uncovered("plant/+", [*every_letter, "plant/x0"]) == Witness("plant/x1")


def test_filters_as_long_as_mqtt_allows_are_decided() -> None:
    pluses = "/".join(["+"] * 32768)
    assert uncovered(pluses, ["a/#"]) == Witness("/".join(["x"] * 32768))
    assert uncovered(pluses, [pluses]) == Covered()
    assert uncovered("#", [pluses]) == Witness("x")
    long = "a" * (MAX_BYTES - 2)
    assert uncovered(f"+/{long}", [f"{letter}/#" for letter in "xyz"]) == Witness(f"a/{long}")
    assert overlap(f"{long}/+", f"+/{long}") is None


def test_where_every_name_that_would_show_it_is_too_long_the_answer_is_undecided() -> None:
    long = "a" * (MAX_BYTES - 2)
    short = [f"{chr(code)}/#" for code in range(1, 128) if chr(code) not in "+#/"]
    assert uncovered(f"+/{long}", short) == Witness(f"/{long}")
    assert isinstance(uncovered(f"+/{long}", [*short, "/#"]), Undecided)


def test_a_budget_too_small_gives_undecided_and_never_covered() -> None:
    by = [f"a/{i}/c/+" for i in range(50)] + ["+/+/+/b"]
    assert isinstance(uncovered("a/+/c/d", by, budget=3), Undecided)
    assert uncovered("a/+/c/d", by) == Witness("a/x/c/d")
