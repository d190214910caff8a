from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.patterns.dotted_cases import WORDS, bindings, defined, defined_for, keys
from topicwarden.patterns import (
    KEY_MAX_BYTES,
    KeyPattern,
    SpecialWord,
    bind_key,
    binding_problem,
    key_matches,
    key_problem,
    literal_key,
    parse_binding,
)


@pytest.mark.parametrize("key", ["", ".", "a.b", "*", "a.#", "a*", "a\0\n", "%u", "é" * 127, "." * KEY_MAX_BYTES])
def test_keys_the_broker_takes_have_no_problem(key: str) -> None:
    assert key_problem(key) is None
    assert binding_problem(key) is None


@pytest.mark.parametrize("key", ["a" * 256, "é" * 128])
def test_a_key_too_long_for_a_method_is_said_to_be(key: str) -> None:
    assert key_problem(key) == "a routing key cannot be longer than 255 bytes, not 256"
    assert binding_problem(key) == "a binding key cannot be longer than 255 bytes, not 256"


def test_a_routing_key_can_be_any_bytes_and_a_binding_key_must_be_utf_8() -> None:
    assert key_problem("\udcff" * KEY_MAX_BYTES) is None
    assert key_problem("\udcff" * 256) == "a routing key cannot be longer than 255 bytes, not 256"
    assert key_problem("\ud800") == "a routing key cannot hold lone surrogates that stand for no byte"
    for key in ("\udcff", "\ud800"):
        assert binding_problem(key) == "a binding key cannot hold lone surrogates: it is not valid UTF-8"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a.x%u", "'%u' must be a whole word, not part of 'x%u'"),
        ("%c%c", "'%c' must be a whole word, not part of '%c%c'"),
        ("#.%u.#.%c", "'#' cannot stand both ahead of '%u' and '%c' and between them"),
        ("a.#.%c.b.#.%u.%c.#", "'#' cannot stand both ahead of '%u' and '%c' and between them"),
    ],
)
def test_placeholders_are_refused_where_they_mean_nothing_or_too_much(pattern: str, said: str) -> None:
    assert binding_problem(pattern) is None
    assert binding_problem(pattern, placeholders=True) == said
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_binding(pattern, placeholders=True)
    with pytest.raises(ValueError, match=re.escape(said)):
        bind_key(pattern, "a", "b")


@pytest.mark.parametrize("pattern", ["%u.#.%c.#", "#.%u.*.%c.#", "#.%u.#.%u.#", "%u", "a.%c.%u", "#", ""])
def test_placeholders_are_welcome_elsewhere(pattern: str) -> None:
    assert binding_problem(pattern, placeholders=True) is None


def test_a_long_pattern_is_no_binding_key_to_write_and_can_be_taken_apart_all_the_same() -> None:
    # RabbitMQ 3.10.8 makes such bindings of MQTT filters and takes them over HTTP.
    long = "a" * 300 + ".#"
    assert binding_problem(long) is not None
    assert key_matches(long, "a" * 300 + ".b")


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [  # the tutorial's examples, then corners; test_dotted_against_rabbitmq asks the broker
        ("*.orange.*", "quick.orange.rabbit", True),
        ("*.orange.*", "quick.orange.new.rabbit", False),
        ("lazy.#", "lazy.orange.new.rabbit", True),
        ("lazy.#", "lazy", True),
        ("#", "", True),
        ("", "", True),
        ("*", "", False),
        ("*.#", "", False),
        ("", ".", False),
        ("*.*", ".", True),
        ("*", ".", False),
        ("a.*.b", "a..b", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.b.y.b", True),
        ("a.#.b", "a.x.b.y", False),
        ("#.a.#.b.#", "b.a.a", False),
        ("#.a.#.b.#", "x.a.y.b.z", True),
        ("a*", "ab", False),
        ("a*", "a*", True),
        ("#a", "x.a", False),
        ("*", "#", True),
        ("a", "*", False),
        ("%u", "%u", True),
    ],
)
def test_a_topic_exchange_routes_so(pattern: str, key: str, expected: bool) -> None:
    assert key_matches(pattern, key) is expected
    assert defined(pattern, key) is expected


@given(bindings(), keys())
@example("#.a.*.#.b", "a.a.b.b")
def test_the_matcher_agrees_with_the_definition(pattern: str, key: str) -> None:
    assert key_matches(pattern, key) is defined(pattern, key)


names = st.sampled_from([None, "a.b", ".", "%c", *WORDS])


@given(bindings(placeholders=True), keys(), names, names)
@example("%u", "*", "*", None)
@example("%u.%c", "#.%c", "#", "%c")
@example("a.%u", "a.", "", None)
@example("%u", "a.b", "a.b", None)
def test_a_placeholder_equals_one_word_and_nothing_else(
    pattern: str, key: str, user: str | None, client_id: str | None
) -> None:
    if binding_problem(pattern, placeholders=True) is None:
        assert key_matches(bind_key(pattern, user, client_id), key) is defined_for(pattern, key, user, client_id)


@pytest.mark.parametrize("name", [None, "", "a.b", ".", "..."])
def test_a_name_that_can_be_no_word_binds_to_nothing(name: str | None) -> None:
    bound = bind_key("#.%u.#", name, name)
    assert bound.words == (SpecialWord.MANY, SpecialWord.NOTHING, SpecialWord.MANY)
    assert not any(key_matches(bound, key) for key in ["", ".", "a", "a.b", "a.b.c", "(nothing)"])


@given(keys(), keys())
def test_a_literal_key_matches_itself_alone(key: str, other: str) -> None:
    assert key_matches(literal_key(key), other) is (key == other)


def test_a_pattern_made_by_hand_cannot_hold_what_is_no_word() -> None:
    for words in [("a.b",), ("",)]:
        with pytest.raises(ValueError, match="no word"):
            KeyPattern("x", words)
    assert KeyPattern("", ()) == parse_binding("") == literal_key("")


def test_a_placeholder_nobody_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="bind it"):
        key_matches(parse_binding("a.%u", placeholders=True), "a.b")


def test_many_hashes_cost_no_more_than_the_product_of_the_words() -> None:
    # RabbitMQ 3.10.8 spends 24 s on the like with five `a` and 64 words.
    pattern = ".".join(["#", "a"] * 60 + ["b"])
    start = time.perf_counter()
    assert not key_matches(pattern, ".".join("a" * 128))
    assert key_matches(pattern, ".".join("a" * 127 + "b"))
    assert time.perf_counter() - start < 2


@given(st.text(), st.booleans())
def test_whatever_text_comes_is_judged_and_valid_patterns_can_be_taken_apart(text: str, placeholders: bool) -> None:
    key_problem(text)
    problem = binding_problem(text, placeholders=placeholders)
    if problem is None:
        assert len(parse_binding(text, placeholders=placeholders).words) == (text.count(".") + 1 if text else 0)
    else:
        assert problem.isprintable()
