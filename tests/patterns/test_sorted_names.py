"""Many names at once against each by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patterns.strategies import filters
from topicwarden.patterns import Anything, Names, Regex, SortedNames, literal_key, names_match, parse, parse_binding

PARTS = ("", "a", "b", "ab", "$a", "+", "#", "é", "\ud800", "\U0010ffff", "a\n", "%u")
names = st.one_of(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join),
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map(".".join),
)
keys = st.lists(st.sampled_from(("", "a", "b", "*", "#", "é")), min_size=1, max_size=4).map(".".join)
expressions = st.sampled_from(
    (
        "^a",
        "^a/b",
        "^ab?",
        "^a.*b$",
        "b",
        "",
        "^$",
        "^é",
        "^(a|ab)/",
        "^a{2}",
        "(?=a)b",
        "^a(?!b)",
        "^\U0010ffff",
        "^a\\C",
    )
)
patterns: st.SearchStrategy[Names] = st.one_of(
    filters(max_levels=4).map(parse),
    keys.map(parse_binding),
    keys.map(literal_key),
    expressions.map(Regex),
    st.just(Anything()),
)


@given(st.lists(names, max_size=30), patterns, st.data())
def test_what_matches_is_what_matches_one_by_one(given_names: list[str], pattern: Names, data: st.DataObject) -> None:
    held = SortedNames(given_names)
    assert held.names == sorted(set(given_names))
    among = np.array(
        sorted(data.draw(st.sets(st.sampled_from(range(len(held)))) if len(held) else st.just(set()))), int
    )
    sure, unsure = held.matching(pattern, among)
    answers = {place: names_match(pattern, held.names[place]) for place in among.tolist()}
    assert sure.tolist() == [place for place, answer in answers.items() if answer is True]
    assert unsure.tolist() == [place for place, answer in answers.items() if answer is None]
    assert set(sure.tolist()) <= set(held.candidates(pattern, among).tolist())


@given(st.lists(names, min_size=1, max_size=30))
def test_a_name_stands_at_its_place(given_names: list[str]) -> None:
    held = SortedNames(given_names)
    assert [held.place(name) for name in held.names] == list(range(len(held)))
    with pytest.raises(KeyError):
        held.place("not there")


def test_only_names_that_begin_like_the_pattern_are_looked_at() -> None:
    held = SortedNames(f"plant/{area}/{device}" for area in "abc" for device in range(100))
    everywhere = np.arange(len(held))
    assert len(held.candidates(parse("plant/b/+"), everywhere)) == 100
    assert len(held.candidates(parse("plant/b/7"), everywhere)) <= 11
    assert len(held.candidates(Regex("^plant/c"), everywhere)) == 100
    assert len(held.candidates(parse("+/b/7"), everywhere)) == 300
