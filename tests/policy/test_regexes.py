from __future__ import annotations

import re
import signal
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.policy.regexes import regex_problem


@pytest.mark.parametrize(
    "pattern",
    [
        "plant",
        "",
        "^a$",
        "[a-z][a-z0-9-]{1,31}",
        "[a-z0-9-]+",
        "telemetry|command|status",
        "[a-z]+(-[a-z]+)*",
        r"\d{4}-\d\d-\d\d",
        "([0-9a-f]{2}:?){6}",
        "([0-9a-f]{2}:){5}[0-9a-f]{2}",
        "[^/]+",
        "temp(erature)?",
        r"\S+\s?",
        ".+-temp",
        ".{0,64}sensor.*",
        "(?P<site>[A-Z]{2,4})[0-9]{3,6}",
        "(a|ab)*",
        r"(\D|x)*",
        "[a-z]{1,1000000}",
        "日本|[а-я]+",
    ],
)
def test_patterns_that_people_write_for_levels_are_accepted(pattern: str) -> None:
    assert regex_problem(pattern) is None


EXPONENTIAL = "it can take exponential time on a hostile name"
SQUARE = "its time can grow with the square of a hostile name's length"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a+)+", EXPONENTIAL),
        ("(a|a)*", EXPONENTIAL),
        ("(a|b|ab)*c", EXPONENTIAL),
        ("(.|a)+", EXPONENTIAL),
        (r"(\w+\s?)*", EXPONENTIAL),
        (r"([^\d]|x)*", EXPONENTIAL),
        ("([a-z0-9]+-?)*", EXPONENTIAL),
        ("(a{1,20}){1,20}b", EXPONENTIAL),
        ("(a*)*", "a part that can be empty is repeated"),
        ("(a?){30}a{30}", "a part that can be empty is repeated"),
        ("a?" * 30 + "a" * 30, "it can take very long on a hostile name: several parts can match the same"),
        ("(a|a)" * 30, "it can take very long on a hostile name: several parts can match the same"),
        ("(||||)" * 30, "it has too many alternatives"),
        (".*a.*b", SQUARE),
        ("[a-z]+[a-z0-9]*", SQUARE),
        (r"(a)\1", "references to groups are not supported"),
        ("(?P<n>a)(?(n)b|c)", "references to groups are not supported"),
        ("(?=a)b", "lookahead and lookbehind are not supported"),
        ("(?<!a)b", "lookahead and lookbehind are not supported"),
        ("a++", "possessive repeat is not supported"),
        ("(?>a)", "atomic group is not supported"),
        ("(?i)a", "flags such as (?i) are not supported"),
        ("(?a:a)", "flags such as (?i:…) are not supported"),
        ("x" * 201, "longer than 200 characters"),
        ("a{400}b{400}", "it has more than 500 characters once repeats are written out"),
        ("(", "not a regular expression: missing ), unterminated subpattern at position 0"),
        ("[[:alpha:]]", "not a regular expression: Possible nested set at position 1"),
        ("(" * 150 + ")" * 50, "not a regular expression: missing ), unterminated subpattern at position 99"),
        ("a{99999999999}", "not a regular expression: the repetition number is too large"),
    ],
)
def test_patterns_that_could_take_long_or_mean_something_else_are_refused(pattern: str, said: str) -> None:
    assert str(regex_problem(pattern)) == said


pieces = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "[^a]", ".", r"\w", r"\D", "-"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,20}", "*?"])).map(
            lambda part: f"({part[0]}){part[1]}"
        ),
    ),
    max_leaves=12,
)
names = st.tuples(st.text("ab-", min_size=1, max_size=6), st.sampled_from(["", "!", "\n", "a", "b"]))


@settings(max_examples=400, deadline=None)
@given(pieces, names)
def test_whatever_is_accepted_fails_fast_on_long_repetitive_names(pattern: str, name: tuple[str, str]) -> None:
    if regex_problem(pattern) is not None:
        return
    compiled = re.compile(pattern)

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"{pattern!r} takes long on many {name[0]!r} and {name[1]!r}")

    before = signal.signal(signal.SIGALRM, give_up)
    # Time proportional to the length stays far below; the square of it would take hours, an exponent for ever.
    signal.setitimer(signal.ITIMER_REAL, 10)
    try:
        compiled.fullmatch(name[0] * 2000 + name[1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@settings(max_examples=300, deadline=None)
@given(st.text("ab()|*+?{}[]^-,12\\wd.$", max_size=40))
def test_any_text_is_judged(pattern: str) -> None:
    if regex_problem(pattern) is None:
        assert re.compile(pattern).pattern == pattern


def test_what_is_said_of_an_expression_holds_no_control_characters() -> None:
    problem = regex_problem("[a-\t]")
    assert problem is not None
    assert str(problem).isprintable()
