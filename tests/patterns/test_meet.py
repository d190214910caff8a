"""What two filters have in common, against matching one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.patterns import Covered, matches, overlap, parse, uncovered
from topicwarden.patterns.meet import meet

LEVELS = st.sampled_from(["a", "b", "", "$SYS", "+"])
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *(["#"] if rest else [])]) or "a",
    st.lists(LEVELS, max_size=4),
    st.booleans(),
)
TOPICS = st.lists(st.sampled_from(["a", "b", "", "$SYS", "c"]), min_size=1, max_size=6).map("/".join).filter(bool)


@pytest.mark.parametrize(
    ("a", "b", "common"),
    [
        ("plant/#", "+/a", "plant/a"),
        ("plant/#", "plant", "plant"),
        ("plant/#", "plant/+/#", "plant/+/#"),
        ("#", "+/#", "+/#"),
        ("#", "#", "#"),
        ("+/x", "$SYS/x", None),
        ("#", "$SYS/#", None),
        ("a/+", "a/+/b", None),
        ("a/b", "a/c", None),
    ],
)
def test_known_cases(a: str, b: str, common: str | None) -> None:
    found = meet(parse(a), parse(b))
    assert (None if found is None else found.text) == common


@given(FILTERS, FILTERS, TOPICS)
def test_a_topic_is_in_both_filters_when_it_is_in_what_they_have_in_common(a: str, b: str, topic: str) -> None:
    common = meet(parse(a), parse(b))
    assert (matches(a, topic) and matches(b, topic)) == (common is not None and matches(common.text, topic))


@given(FILTERS, FILTERS)
def test_there_is_nothing_in_common_exactly_when_filters_do_not_overlap(a: str, b: str) -> None:
    common = meet(parse(a), parse(b))
    if common is None:
        assert overlap(a, b) is None
    else:
        assert isinstance(uncovered(common, [a]), Covered)
        assert isinstance(uncovered(common, [b]), Covered)
