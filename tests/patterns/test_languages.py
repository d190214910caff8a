"""Sets of names in whatever notation, compared with each other and with the definitions of each notation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.patterns.dotted_cases import FEW, bindings, defined, keys, split
from tests.patterns.regex_cases import found, regexes
from tests.patterns.strategies import filters, topics
from topicwarden.patterns import (
    Answer,
    Anything,
    Covered,
    FilterUnion,
    KeyPattern,
    KeyUnion,
    LevelPattern,
    Names,
    NameUnion,
    Regex,
    Special,
    SpecialWord,
    Undecided,
    Witness,
    bind,
    bind_key,
    key_matches,
    literal_key,
    matches,
    names_match,
    names_overlap,
    parse,
    parse_binding,
)
from topicwarden.patterns.automata import AutomatonUnion, Domain
from topicwarden.patterns.pattern_automata import EVERY_NAME, NO_NAME, key_automaton, level_automaton

KEYS = tuple("".join(letters) for length in range(6) for letters in itertools.product("ab.\n", repeat=length))
"""All keys of up to five of four bytes, shortest first."""
TOPIC_KEYS = Domain()
TOPICS = Domain(topics=True)

key_sets: st.SearchStrategy[Names] = st.one_of(
    bindings(FEW, max_words=4).map(parse_binding),
    st.sampled_from(["a", "a.b", "", ".", "a\n", "b.a\n"]).map(literal_key),
    regexes.map(Regex),
    st.sampled_from([r"^a\..*$", r"^a(\.|$)", r"\.", r"^[^.]*$", r"^(a|b)\.(a|b)$", r"\.b$"]).map(Regex),
    st.just(Anything()),
)


def fits(f: str, topic: str) -> bool:
    """Whether a plain filter matches; `%u` in it is an ordinary level."""
    return matches(f, topic, "%u")


def held(names: Names, key: str) -> bool:
    """Whether a set holds a key, by the notation's own definition."""
    match names:
        case KeyPattern():
            return key_matches(names, key)
        case Regex(text):
            return found(text, key)
        case LevelPattern(text):
            return fits(text, key)
        case Anything():
            return True


def check(answer: Answer, wanted: Sequence[Names], by: Sequence[Names], every: Sequence[str]) -> None:
    """Hold an answer to trying every short name."""
    first = next(
        (name for name in every if all(held(each, name) for each in wanted) and not any(held(o, name) for o in by)),
        None,
    )
    match answer:
        case Covered():
            assert first is None
        case Witness(name):
            assert all(held(each, name) for each in wanted)
            assert not any(held(other, name) for other in by)
            regexes_only = any(isinstance(each, Regex) for each in (*wanted, *by))
            assert first is None or not regexes_only or len(name.encode()) <= len(first)
        case Undecided(reason):
            pytest.fail(reason)


@settings(max_examples=300, deadline=None)
@given(st.lists(key_sets, min_size=1, max_size=3), st.lists(key_sets, max_size=4), st.booleans(), st.booleans())
@example([parse_binding("#")], [Regex("^.*$")], True, True)
@example([Regex(".*")], [parse_binding("#")], True, True)
@example([Regex("^a$")], [literal_key("a")], True, True)
@example([parse_binding("a.#"), parse_binding("#.b")], [parse_binding("a.b"), parse_binding("a.*.b")], True, True)
@example([Anything()], [parse_binding("*.#")], True, False)
@example([Regex("^$")], [], False, False)
def test_any_mixture_agrees_with_trying_every_short_key(
    wanted: list[Names], by: list[Names], newlines: bool, empty: bool
) -> None:
    every = [key for key in KEYS if (newlines or "\n" not in key) and (empty or key)]
    answer = NameUnion(by).uncovered(*wanted, newlines=newlines, empty=empty)
    check(answer, wanted, by, every)
    if isinstance(answer, Witness):
        assert newlines or "\n" not in answer.topic
        assert empty or answer.topic
    assert NameUnion([*by, wanted[0]]).uncovered(*wanted, newlines=newlines, empty=empty) == Covered()


@settings(max_examples=200, deadline=None)
@given(key_sets, key_sets)
def test_sets_of_keys_overlap_when_a_key_is_in_both(a: Names, b: Names) -> None:
    shared = any(held(a, key) and held(b, key) for key in KEYS)
    overlap = names_overlap(a, b)
    assert overlap is names_overlap(b, a)
    assert overlap or not shared
    if overlap:
        answer = NameUnion([]).uncovered(a, b)
        assert isinstance(answer, Witness)
        assert held(a, answer.topic)
        assert held(b, answer.topic)


@given(bindings(), keys(max_words=5))
@settings(max_examples=300)
def test_a_binding_keys_automaton_matches_what_the_binding_key_matches(pattern: str, key: str) -> None:
    name = key.encode("utf-8", "surrogateescape")
    assert key_automaton(parse_binding(pattern)).accepts(name) is defined(pattern, key)


@given(filters(), topics())
@settings(max_examples=300)
def test_a_filters_automaton_matches_what_the_filter_matches(f: str, topic: str) -> None:
    assert level_automaton(parse(f)).accepts(topic.encode()) is fits(f, topic)
    assert names_match(parse(f), topic) is fits(f, topic)


@given(bindings(), st.lists(bindings(), max_size=5))
@settings(max_examples=300, deadline=None)
def test_automata_and_words_agree_about_binding_keys(pattern: str, by: list[str]) -> None:
    bytewise = AutomatonUnion([key_automaton(parse_binding(other)) for other in by]).uncovered(
        [key_automaton(parse_binding(pattern))], TOPIC_KEYS
    )
    wordwise = KeyUnion(by).uncovered(pattern)
    assert isinstance(bytewise, Covered) is isinstance(wordwise, Covered)
    if isinstance(bytewise, Witness) and isinstance(wordwise, Witness):
        assert len(bytewise.topic.encode()) <= len(wordwise.topic.encode())
        assert len(split(wordwise.topic)) <= len(split(bytewise.topic))
        assert defined(pattern, bytewise.topic)
        assert not any(defined(other, bytewise.topic) for other in by)


@given(filters(), st.lists(filters(), max_size=5))
@settings(max_examples=300, deadline=None)
def test_automata_and_levels_agree_about_filters(f: str, by: list[str]) -> None:
    bytewise = AutomatonUnion([level_automaton(parse(other)) for other in by]).uncovered(
        [level_automaton(parse(f))], TOPICS
    )
    levelwise = FilterUnion(by).uncovered(f)
    assert isinstance(bytewise, Covered) is isinstance(levelwise, Covered)
    if isinstance(bytewise, Witness):
        assert fits(f, bytewise.topic)
        assert not any(fits(other, bytewise.topic) for other in by)


@given(st.lists(filters(), min_size=1, max_size=3), st.lists(filters(), max_size=5), st.booleans())
@settings(max_examples=200, deadline=None)
@example(["#"], ["+/#"], True)
@example(["a/#", "+/b"], ["a/b"], True)
def test_topics_that_several_filters_share_are_compared_as_automata_compare_them(
    wanted: list[str], by: list[str], anything: bool
) -> None:
    answer = NameUnion([parse(other) for other in by]).uncovered(
        *[parse(f) for f in wanted], *([Anything()] if anything else [])
    )
    bytewise = AutomatonUnion([level_automaton(parse(other)) for other in by]).uncovered(
        [level_automaton(parse(f)) for f in wanted], TOPICS
    )
    assert isinstance(answer, Covered) is isinstance(bytewise, Covered)
    if isinstance(answer, Witness):
        assert all(fits(f, answer.topic) for f in wanted)
        assert not any(fits(other, answer.topic) for other in by)


@given(st.lists(filters(), max_size=6))
@example(["#"])
@example(["#", "$SYS/#", "$/#", "$x/#"])
@example(["#", "$/#", "$x", "+"])
def test_no_filters_cover_every_topic_because_of_names_that_begin_with_a_dollar(by: list[str]) -> None:
    answer = NameUnion([parse(other) for other in by]).uncovered(Anything())
    assert isinstance(answer, Witness)
    assert answer.topic
    assert not any(fits(other, answer.topic) for other in by)
    if "#" in by:
        assert answer.topic.startswith("$")


def test_filters_and_expressions_are_compared_among_topics() -> None:
    union = NameUnion([Regex("^a/"), Regex("^a$")])
    assert union.uncovered(parse("a/#")) == Covered()
    assert union.uncovered(parse("+/b")) == Witness("/b")
    assert union.uncovered(parse("#"), Regex(r"^\z")) == Covered()
    assert NameUnion([parse("#")]).uncovered(Regex("^.")) == Witness("$")
    assert NameUnion([parse("#")]).uncovered(Regex(r"^[+#\0]")) == Covered()
    assert names_overlap(parse("$SYS/#"), Regex("^.S")) is True
    assert names_overlap(parse("#"), Regex(r"^\$")) is False


def test_everything_covers_everything_and_is_covered_by_nothing_less() -> None:
    assert NameUnion([Anything()]).uncovered(Anything()) == Covered()
    assert NameUnion([Anything()]).uncovered(parse("#")) == Covered()
    assert NameUnion([Anything(), Regex("(")]).uncovered(Regex("(")) == Covered()
    assert NameUnion([parse_binding("#")]).uncovered(Anything()) == Covered()
    assert NameUnion([Regex("")]).uncovered(Anything()) == Covered()
    assert NameUnion([Regex(".*")]).uncovered() == Covered()
    assert NameUnion([Regex("^.*$")]).uncovered(Anything(), newlines=False) == Covered()
    assert isinstance(NameUnion([Regex("^.*$")]).uncovered(Anything()), Witness)
    assert isinstance(NameUnion([]).uncovered(Anything()), Witness)
    assert isinstance(NameUnion([]).uncovered(), Witness)


def test_the_empty_permission_admits_no_name_where_the_empty_name_is_none() -> None:
    assert NameUnion([]).uncovered(Regex("^$")) == Witness("")
    assert NameUnion([]).uncovered(Regex("^$"), newlines=False, empty=False) == Covered()
    assert NameUnion([]).uncovered(Regex("^$"), empty=False) == Witness("\n")
    assert NameUnion([]).uncovered(parse_binding("#"), empty=False) == Witness("a")
    assert NameUnion([parse_binding("*.#")]).uncovered(parse_binding("#"), empty=False) == Covered()


def test_without_line_feeds_dollar_and_dot_have_nothing_to_differ_in() -> None:
    union = NameUnion([literal_key("a")])
    assert union.uncovered(Regex("^a$")) == Witness("a\n")
    assert union.uncovered(Regex("^a$"), newlines=False) == Covered()
    assert union.uncovered(literal_key("a\n"), newlines=False) == Covered()
    assert union.uncovered(literal_key("a\n")) == Witness("a\n")
    assert NameUnion([parse("a")]).uncovered(parse("a/b\r"), newlines=False) == Covered()


UNKNOWN = Regex(r"^((?!amq\.).+|(?!.)x)$")
"""All but `amq.` and what begins so. Matched by PCRE2, and more than an automaton here can say."""
WHY = "it looks ahead within a group or a repeat"


def test_an_unknown_expression_in_the_union_matters_only_where_a_witness_may_be_in_it() -> None:
    assert NameUnion([UNKNOWN, Regex("^amq")]).uncovered(Regex(r"^amq\.x$"), newlines=False) == Covered()
    assert NameUnion([UNKNOWN]).uncovered(Regex(r"^amq\.x")) == Witness("amq.x")
    assert NameUnion([UNKNOWN]).uncovered(literal_key("amq.x")) == Witness("amq.x")
    reason = Undecided(f"{UNKNOWN.text!r}: {WHY}")
    assert NameUnion([UNKNOWN]).uncovered(Regex("^a")) == reason
    assert NameUnion([Regex(r"(a)\1")]).uncovered(Regex("^b$")) == Undecided(
        r"'(a)\\1': it refers back to what a group matched, or uses a number like that"
    )


def test_an_unknown_expression_that_is_wanted_is_covered_by_what_covers_more_and_shown_by_what_it_matches() -> None:
    assert NameUnion([parse_binding("#")]).uncovered(UNKNOWN) == Covered()
    assert NameUnion([Regex("^a")]).uncovered(UNKNOWN, Regex("^ab")) == Covered()
    assert NameUnion([literal_key("")]).uncovered(UNKNOWN) == Witness("a")
    assert NameUnion([]).uncovered(UNKNOWN, Regex(r"^amq\.")) == Undecided(f"{UNKNOWN.text!r}: {WHY}")
    assert NameUnion([]).uncovered(Regex("(?R)?a")) == Undecided(
        "'(?R)?a': it has a condition, a recursion or another special group"
    )
    assert names_overlap(UNKNOWN, literal_key("orders")) is True
    assert names_overlap(UNKNOWN, literal_key("amq.topic")) is None
    assert names_overlap(UNKNOWN, Regex("a^")) is False


def test_whether_a_name_is_in_a_set_is_none_where_it_cannot_be_told() -> None:
    assert names_match(Anything(), "\n") is True
    assert names_match(parse_binding("a.#"), "a") is True
    assert names_match(literal_key("a.#"), "a") is False
    assert names_match(UNKNOWN, "amq.x") is False
    assert names_match(UNKNOWN, "x") is True
    assert names_match(Regex(r"(a)\1"), "aa") is None
    assert names_match(LevelPattern("+", ("+",)), "+") is False
    assert names_match(parse("#"), "$SYS") is False
    assert names_match(parse("#"), "") is False
    assert names_match(bind("a/%u", "+", None), "a/b") is False


@given(filters(placeholders=True), topics(), st.sampled_from(["a", "+", None, "é"]))
def test_bound_filters_hold_what_the_matcher_says(f: str, topic: str, user: str | None) -> None:
    assert names_match(bind(f, user, "b"), topic) is matches(f, topic, user, "b")


def test_patterns_that_nothing_can_match_have_no_names() -> None:
    assert key_automaton(bind_key("a.%u", "b.c", None)) is NO_NAME
    assert level_automaton(bind("a/%u", "b/c", None)) is NO_NAME
    assert key_automaton(parse_binding("#.#")) is EVERY_NAME
    assert NameUnion([]).uncovered(bind_key("a.%u", None, None), Regex("")) == Covered()
    assert NameUnion([]).uncovered(Regex("a^")) == Covered()
    assert NameUnion([]).uncovered(literal_key("a" * 300), Regex("a")) == Undecided(
        "the names that would show it are longer than 255 bytes"
    )


def test_placeholders_nobody_bound_and_two_notations_at_once_are_refused() -> None:
    key, f = parse_binding("a.%u", placeholders=True), parse("a/%c", placeholders=True)
    for names in (key, f, KeyPattern("%c", (SpecialWord.CLIENT,)), LevelPattern("%u", (Special.USER,))):
        with pytest.raises(ValueError, match="bind it"):
            NameUnion([names])
        with pytest.raises(ValueError, match="bind it"):
            NameUnion([]).uncovered(names)
        with pytest.raises(ValueError, match="bind it"):
            names_match(names, "a")
        with pytest.raises(ValueError, match="bind it"):
            names_overlap(names, Regex("a"))
    with pytest.raises(ValueError, match="nothing in common"):
        NameUnion([parse("a"), parse_binding("a")])
    with pytest.raises(ValueError, match="nothing in common"):
        NameUnion([parse("a")]).uncovered(parse_binding("a"))


def test_keys_that_are_no_utf_8_are_compared_as_bytes() -> None:
    odd = literal_key("a.\udcff")
    assert NameUnion([Regex(r"^a\.\xff$")]).uncovered(odd) == Covered()
    assert NameUnion([Regex("^b")]).uncovered(odd) == Undecided("only names that are not valid UTF-8 would show it")
    assert NameUnion([odd]).uncovered(odd) == Covered()
    assert names_match(Regex(r"^a\.\xff$"), "a.\udcff") is True
    assert names_overlap(odd, Regex(r"\xff")) is None


def test_one_union_answers_the_same_however_often_and_in_whatever_order_it_is_asked() -> None:
    by: list[Names] = [parse_binding("a.#"), Regex(r"^b\.[a-z]+$"), literal_key("c.d")]
    asked: list[Names] = [Regex("^a"), Regex(r"^b\.x$"), parse_binding("c.*"), Regex("d"), literal_key("b.é")]
    union = NameUnion(by)
    for names in [*asked, *reversed(asked)]:
        assert union.uncovered(names) == NameUnion(by).uncovered(names)


def test_a_union_that_forgets_what_it_built_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    by: list[Names] = [parse_binding("a.#"), Regex(r"^b\.[a-z]+$"), literal_key("c.d")]
    asked: list[Names] = [Regex("^a"), Regex(r"^b\.x$"), Regex("d")]
    union = NameUnion(by)
    expected = [union.uncovered(names) for names in asked]
    monkeypatch.setattr("topicwarden.patterns.subsets._KEPT", 0)
    assert [union.uncovered(names) for names in asked] == expected
    monkeypatch.setattr("topicwarden.patterns.regex._CACHED_STATES", 0)
    assert [NameUnion(by).uncovered(names) for names in asked] == expected
