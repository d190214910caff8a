"""Inclusion of regular expressions, held to trying every short name and to two other libraries."""

from __future__ import annotations

from itertools import pairwise

import pytest
from automata.fa.dfa import DFA
from automata.fa.nfa import NFA
from greenery import parse as greenery_parse  # type: ignore[import-untyped] # ships no types
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.patterns.regex_cases import NAMES, compiled, found, looking_ahead, plain_regexes, regexes
from topicwarden.patterns import Answer, Covered, NameUnion, Regex, Undecided, Witness, names_overlap, regex_problem

ABC = Regex(r"^[abc]*\z")


def compare(wanted: list[str], by: list[str], newlines: bool = True) -> Answer:
    """Ask, and check what is answered with PCRE2 and every short name."""
    answer = NameUnion([Regex(regex) for regex in by]).uncovered(*map(Regex, wanted), newlines=newlines)
    lefts = [compiled(regex).search for regex in wanted]
    rights = [compiled(regex).search for regex in by]

    def shows_it(name: str) -> bool:
        subject = name.encode()
        return all(search(subject) for search in lefts) and not any(search(subject) for search in rights)

    names = (name for name in NAMES if newlines or "\n" not in name)
    shortest = next((name for name in names if shows_it(name)), None)
    match answer:
        case Covered():
            assert shortest is None, (wanted, by)
        case Witness(name):
            assert shows_it(name), (wanted, by)
            assert newlines or not ("\n" in name or "\r" in name)
            assert shortest is None or len(name.encode()) <= len(shortest), (wanted, by)
        case Undecided(reason):
            pytest.fail(reason)
    return answer


@settings(max_examples=120, deadline=None)
@given(st.lists(regexes, min_size=6, max_size=6))
@example(["^a$", r"^a\z", "a$\n", "a$\n$", "^(a|b)$", "^a$|^b$"])
@example(["a$b", "(a$|b)*", r"(?:$|\n)*\z", "($|a)$", "^$", r"\Z\n\z"])
@example(["(^|b)a", "^^a", "b^a", "(?:^|a){2}b", r"\Ga", "(^a|b)*$"])
@example([".*", "(?s).*", "^.*$", r"^.*\z", r"^[^\n]*\z", ""])
@example(["[^a]$", "^[^a]$", r"\W", "[^a]", "(?i)A", "(?i)[^A]"])
def test_inclusion_of_pairs_agrees_with_trying_every_short_name_both_ways(drawn: list[str]) -> None:
    different = list(dict.fromkeys(drawn))
    for a in different:
        for b in different:
            answer = compare([a], [b])
            assert a != b or answer == Covered()


@settings(max_examples=150, deadline=None)
@given(st.lists(regexes, min_size=1, max_size=3), st.lists(regexes, max_size=4), st.booleans())
def test_inclusion_of_shared_names_in_unions_agrees_with_trying_every_short_name(
    wanted: list[str], by: list[str], newlines: bool
) -> None:
    compare(wanted, by, newlines)
    answer = compare(wanted, [*by, wanted[0]], newlines)
    assert answer == Covered()


@settings(max_examples=150, deadline=None)
@given(looking_ahead, regexes)
@example("^(?!a$)", "^a$")
@example("(?!a)", "^a*$")
@example("a(?!b)|^(?=b)", "^b|a")
def test_inclusion_of_what_looks_ahead_agrees_with_trying_every_short_name_both_ways(ahead: str, other: str) -> None:
    assume(regex_problem(ahead) is None)
    compare([ahead], [other])
    compare([other], [ahead])
    assert compare([ahead], [ahead]) == Covered()


@settings(max_examples=150, deadline=None)
@given(regexes, regexes)
def test_expressions_overlap_when_a_name_is_found_by_both(a: str, b: str) -> None:
    shared = any(found(a, name) and found(b, name) for name in NAMES)
    overlap = names_overlap(Regex(a), Regex(b))
    assert overlap is names_overlap(Regex(b), Regex(a))
    assert overlap is not None
    assert overlap or not shared


@settings(max_examples=60, deadline=None)
@given(st.lists(plain_regexes, min_size=4, max_size=4))
def test_inclusion_agrees_with_automata_lib(drawn: list[str]) -> None:
    machines = [DFA.from_nfa(NFA.from_regex(regex, input_symbols=set("abc"))) for regex in drawn]
    ours = [Regex(rf"^(?:{regex})\z") for regex in drawn]
    for (a, b), (left, right) in zip(pairwise(machines), pairwise(ours), strict=True):
        difference = a.difference(b)
        answer = NameUnion([right]).uncovered(left, ABC)
        if isinstance(answer, Witness):
            assert difference.accepts_input(answer.topic)
            assert len(answer.topic) == difference.minimum_word_length()
        else:
            assert answer == Covered()
            assert difference.isempty()


@settings(max_examples=40, deadline=None)
@given(st.lists(plain_regexes, min_size=3, max_size=3))
def test_inclusion_in_a_union_agrees_with_greenery(drawn: list[str]) -> None:
    every = greenery_parse("[abc]*").to_fsm()
    first, *others = (greenery_parse(regex).to_fsm() for regex in drawn)
    difference = first & every
    for other in others:
        difference = difference.difference(other)
    ours = [Regex(rf"^(?:{regex})\z") for regex in drawn]
    answer = NameUnion(ours[1:]).uncovered(ours[0], ABC)
    if isinstance(answer, Witness):
        assert difference.accepts(answer.topic)
    else:
        assert answer == Covered()
        assert difference.empty()


@pytest.mark.parametrize(
    ("wanted", "by", "witness"),
    [
        # The most readable of the shortest: letters, digits, then _-./, then what can be printed.
        (["^.$"], [], "a"),
        (["^.$"], ["^[a-z]$"], "0"),
        (["^.$"], ["^[a-z0-9]$"], "A"),
        (["^.$"], ["^[a-zA-Z0-9]"], "_"),
        (["^.$"], ["^[a-zA-Z0-9_./-]"], "!"),
        (["^.$"], [r"^[!-~]"], " "),
        (["^.$"], [r"^[ -~]"], "\0"),
        (["(?s)^.$"], [r"^[ -~]", r"^[\0-\x09\x0b-\x1f\x7f]$"], "\n"),
        (["^..$"], [r"^[\0-\x7f]"], "é"),
        (["^...$"], [r"^[\0-\x7f]"], "éa"),
        (["^...$"], [r"[\0-\x7f]"], "橩"),
        (["^[a-z]+$"], ["^.{0,3}$"], "aaaa"),
        (["^(b|c|xyz)$"], ["^c$"], "b"),
        (["orders"], ["^orders"], "aorders"),
        (["^dev-12\\..*$"], ["^dev-12\\.[a-z]"], "dev-12."),
    ],
)
def test_the_witness_is_the_most_readable_of_the_shortest(wanted: list[str], by: list[str], witness: str) -> None:
    assert NameUnion(list(map(Regex, by))).uncovered(*map(Regex, wanted)) == Witness(witness)


def test_names_are_utf_8_and_what_only_other_bytes_would_show_is_undecided() -> None:
    nothing = NameUnion([])
    assert nothing.uncovered(Regex(r"^[^\0-\x7f]$")) == Undecided("only names that are not valid UTF-8 would show it")
    assert nothing.uncovered(Regex(r"^[^\0-\x7f]+\z")) == Witness("é")
    assert NameUnion([Regex(r"^[^\0-\x7f]$")]).uncovered(Regex(r"^[^\0-\x7f]$")) == Covered()
    for lead in range(0x80, 0x100):
        for length in range(1, 5):
            answer = nothing.uncovered(Regex(rf"^\x{lead:02x}[\x80-\xbf]{{{length - 1}}}\z"))
            valid = 0xC2 <= lead <= 0xF4 and length == (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
            assert isinstance(answer, Witness) is valid, (hex(lead), length)
    # Surrogates, overlong forms and what is beyond U+10FFFF are none.
    for bytes_ in [r"\xed\xa0\x80", r"\xc0\x80", r"\xe0\x9f\xbf", r"\xf0\x8f\xbf\xbf", r"\xf4\x90\x80\x80"]:
        assert isinstance(nothing.uncovered(Regex(rf"^{bytes_}\z")), Undecided)
    for bytes_, text in [(r"\xed\x9f\xbf", "\ud7ff"), (r"\xf4\x8f\xbf\xbf", "\U0010ffff"), (r"\xe0\xa0\x80", "\u0800")]:
        assert nothing.uncovered(Regex(rf"^{bytes_}\z")) == Witness(text)


def test_a_witness_longer_than_a_name_can_be_is_undecided_and_inclusion_holds_all_the_same() -> None:
    too_long = Undecided("the names that would show it are longer than 255 bytes")
    assert NameUnion([]).uncovered(Regex("^a{256}$")) == too_long
    assert NameUnion([Regex("^.{0,255}$")]).uncovered(Regex("^a*$"), newlines=False) == too_long
    assert NameUnion([]).uncovered(Regex("^a{255}$")) == Witness("a" * 255)
    assert NameUnion([Regex("^a+$")]).uncovered(Regex("^a{256}$")) == Covered()


HARD = [
    (["^(a|b)*a(a|b){14}$"], ["^(a|b)*b(a|b){14}$", "^(a|b)*a(a|b){13}$"]),
    (["^(a|b|c)*$"], ["^(a|b|c)*a(a|b|c){20}$", "^(a|b|c)*b(a|b|c){19}$"]),
    ([".*a.{200}b"], [".*b.{150}a", ".*a.{180}c"]),
    (["^(a{1,200}b){1,50}$"], ["^(a{1,199}b){1,50}$"]),
]


@pytest.mark.parametrize(("wanted", "by"), HARD)
def test_what_is_made_to_be_hard_ends_at_the_budget_and_is_never_called_covered(
    wanted: list[str], by: list[str]
) -> None:
    answer = NameUnion(list(map(Regex, by))).uncovered(*map(Regex, wanted), budget=100_000)
    assert not isinstance(answer, Covered)
    if isinstance(answer, Witness):
        assert all(found(regex, answer.topic) for regex in wanted)
        assert not any(found(regex, answer.topic) for regex in by)


def test_a_budget_too_small_gives_undecided() -> None:
    union = NameUnion([Regex(f"^a{number}") for number in range(50)])
    assert isinstance(union.uncovered(Regex("^a[0-9]+$"), budget=3), Undecided)
    assert union.uncovered(Regex("^a[0-9]+$")) == Covered()
    by = ["^(a|b)*a(a|b){7}$", "^(a|b)*b(a|b){7}$", "^(a|b){0,7}$"]
    assert isinstance(NameUnion(list(map(Regex, by))).uncovered(Regex("^[ab]*$"), budget=1_000), Undecided)
    assert NameUnion(list(map(Regex, by))).uncovered(Regex("^[ab]*$")) == Covered()
