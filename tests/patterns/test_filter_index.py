from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.patterns.strategies import NAMES, filters, topics
from topicwarden.patterns import NO_MATCHES, BoundMatch, Constraint, FilterIndex, Matches, matches

identities = st.sampled_from([None, "+", "#", "a/b", "%c", *NAMES])


@given(st.lists(filters(placeholders=True), max_size=12), topics(), identities, identities)
@example(["%u/#", "%c"], "$SYS", "$SYS", "+")
@example(["#", "+/#", "/#", "+"], "/", None, None)
@example(["%u"], "+", "+", None)
def test_the_index_matches_exactly_what_each_filter_matches(
    many: list[str], topic: str, user: str | None, client_id: str | None
) -> None:
    expected = [number for number, f in enumerate(many) if matches(f, topic, user, client_id)]
    assert FilterIndex(many).match(topic).for_client(user, client_id) == expected


@given(st.lists(filters(placeholders=True), max_size=6), st.text("+#/a\0", max_size=6))
def test_the_index_agrees_on_texts_that_are_no_topic_names(many: list[str], text: str) -> None:
    expected = [number for number, f in enumerate(many) if matches(f, text, "a", "a")]
    assert FilterIndex(many).match(text).for_client("a", "a") == expected


def test_a_placeholder_says_who_must_be_called_what() -> None:
    index = FilterIndex(["p/%u/t", "p/+/t", "p/%u/%c", "p/%c/#", "p/%u/%u"])
    assert index.match("p/s1/t") == Matches(
        (1,),
        (
            BoundMatch(0, (Constraint("user", "s1"),)),
            BoundMatch(2, (Constraint("user", "s1"), Constraint("client", "t"))),
            BoundMatch(3, (Constraint("client", "s1"),)),
        ),
    )
    assert index.match("p/t/t").for_client("t", None) == [0, 1, 4]


def test_topics_of_the_same_class_have_equal_hashable_answers() -> None:
    index = FilterIndex(["a/+", "b"])
    assert len({index.match(f"a/{i}") for i in range(50)}) == 1
    assert index.match("c") is NO_MATCHES


def test_an_index_of_a_filter_that_is_not_valid_is_refused() -> None:
    with pytest.raises(ValueError, match="last level"):
        FilterIndex(["a", "#/b"])


def test_a_topic_of_65535_levels_costs_no_more_than_the_deepest_filter() -> None:
    index = FilterIndex(["/".join(["+"] * depth) for depth in range(1, 30)] + ["+/#", "/".join(["", *["+"] * 20, "#"])])
    deep, shallow = "/" * 65535, "/" * 40
    assert index.match(deep) == index.match(shallow) == Matches((29, 30))

    def cost(topic: str) -> float:
        start = time.perf_counter()
        for _ in range(200):
            index.match(topic)
        return time.perf_counter() - start

    # Splitting it whole would cost hundreds of times as much.
    assert min(cost(deep) for _ in range(5)) < 20 * min(cost(shallow) for _ in range(5))


def test_filters_and_topics_as_deep_as_mqtt_allows_are_handled_without_recursion() -> None:
    deep = "/" * 65535
    assert FilterIndex([deep, "/" * 65533 + "#", "/" * 65533 + "%u"]).match(deep) == Matches((0, 1))
