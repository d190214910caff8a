"""The expressions an export writes match what the policy's patterns mean, nothing more and nothing less."""

from __future__ import annotations

import pcre2  # type: ignore[import-untyped] # ships no types
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.patterns import (
    Covered,
    KeyUnion,
    Regex,
    bind_key,
    key_matches,
    literal_key,
    names_match,
    parse_binding,
)
from topicwarden_collectors.rabbitmq.export_expressions import (
    NOTHING,
    bindings_expression,
    escaped,
    keys_expression,
    names_expression,
)
from topicwarden_collectors.rabbitmq.permissions import allows, why_unsure

PATTERNS = st.lists(st.sampled_from(["", "a", "b", "amq", "*", "#", "*", "#"]), max_size=5).map(".".join)
NAMES = st.lists(st.sampled_from(["", "a", "b", "*", "#", "amq", "gen-x", "a#"]), max_size=6).map(".".join) | st.text(
    "ab.*#\n", max_size=6
)
EXAMPLES = settings(max_examples=250, deadline=None)


def found(expression: str, name: str) -> bool:
    """Search as RabbitMQ does; our own reading of expressions must agree."""
    answer = pcre2.compile((expression or "^$").encode()).search(name.encode()) is not None
    assert allows(expression, name) is answer
    assert names_match(Regex(expression or "^$"), name) in (answer, None)
    return answer


@EXAMPLES
@given(st.lists(PATTERNS, min_size=1, max_size=3), NAMES)
def test_keys_are_matched_by_an_expression_exactly_when_a_pattern_matches_them(patterns: list[str], key: str) -> None:
    expression = keys_expression(map(parse_binding, patterns))
    assert found(expression, key) == any(key_matches(pattern, key) for pattern in patterns)


@EXAMPLES
@given(PATTERNS, NAMES)
def test_a_binding_key_is_allowed_exactly_when_all_it_lets_through_is_in_the_pattern(pattern: str, key: str) -> None:
    within = isinstance(KeyUnion([parse_binding(pattern)]).uncovered(key), Covered)
    allowed = found(bindings_expression([parse_binding(pattern)]), key)
    if [word for word in key.split(".") if word != "#"] == [""]:
        # `#.` stands for `*.#.`, for no key is one empty word; such spellings may be denied.
        assert within or not allowed
    else:
        assert allowed == within


@EXAMPLES
@given(PATTERNS, NAMES.filter(lambda name: name and "\n" not in name))
def test_names_are_matched_but_for_reserved_ones_that_no_client_can_declare(pattern: str, name: str) -> None:
    reserved = name.startswith("amq.") and not (name.startswith("amq.gen-") and name.count(".") == 1)
    expected = key_matches(pattern, name) and not reserved
    assert found(names_expression([parse_binding(pattern)]), name) == expected


@EXAMPLES
@given(st.text(min_size=1, max_size=12), st.text(max_size=12))
def test_a_name_of_any_characters_is_matched_alone(name: str, other: str) -> None:
    name, other = (text.encode("utf-8", "replace").decode() for text in (name, other))
    for key in (name, other, f"{name}\n", f"x{name}", f"{name}x"):
        assert allows(keys_expression([literal_key(name)]), key) is (key == name)


def test_what_rabbitmq_would_replace_in_a_topic_permission_is_escaped() -> None:
    assert "{username}" not in escaped("{username}")
    assert found(keys_expression([literal_key("{client_id}")]), "{client_id}")


def test_nothing_at_all_is_matched_by_no_key_not_even_the_empty_one() -> None:
    assert keys_expression([]) == bindings_expression([]) == NOTHING
    for key in ("", "a", "\n", "é", "\x00"):
        assert not found(NOTHING, key)
    assert names_expression([]) == ""


def test_a_user_named_like_a_wildcard_may_bind_nothing_by_that_name() -> None:
    for user in ("*", "#"):
        pattern = bind_key("dev.%u", user, None)
        assert found(keys_expression([pattern]), f"dev.{user}")
        assert not found(keys_expression([pattern]), "dev.x")
        assert bindings_expression([pattern]) == NOTHING


def test_what_a_wider_pattern_has_is_not_written_again() -> None:
    both = keys_expression([parse_binding("a.#"), parse_binding("a.b"), parse_binding("a.*.c")])
    assert both == keys_expression([parse_binding("a.#")])
    assert keys_expression([parse_binding("#.*"), parse_binding("*.#")]) != NOTHING
    assert keys_expression([parse_binding("a"), parse_binding("#")]) == ".*"


def test_every_expression_is_one_we_can_judge() -> None:
    for pattern in ("#", "*", "#.a.*", "*.#.b", "a.*.#", "amq.*", "é.#"):
        for write in (keys_expression, bindings_expression, names_expression):
            assert why_unsure(write([parse_binding(pattern)])) is None
