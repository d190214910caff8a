from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.patterns import MAX_BYTES, filter_problem, matches, parse, strip_share, topic_problem


@pytest.mark.parametrize("name", ["a", "/", "//", "a/b", "$SYS/x", "a b", "%u", "é" * 32767, "a" * MAX_BYTES])
def test_valid_names_are_valid_filters_too(name: str) -> None:
    assert topic_problem(name) is None
    assert filter_problem(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "a topic name cannot be empty"),
        ("a/+", "a topic name cannot hold the wildcard '+'"),
        ("a#", "a topic name cannot hold the wildcard '#'"),
        ("a\0", "a topic name cannot hold the character NUL"),
        ("\ud800", "a topic name cannot hold lone surrogates: it is not valid UTF-8"),
        ("é" * 32768, "a topic name cannot be longer than 65535 bytes of UTF-8, not 65536"),
    ],
)
def test_each_way_a_name_can_be_wrong_is_said(name: str, said: str) -> None:
    assert topic_problem(name) == said


@pytest.mark.parametrize(
    ("f", "said"),
    [
        ("", "a topic filter cannot be empty"),
        ("a#", "'#' must be a whole level, not part of 'a#'"),
        ("a/##", "'#' must be a whole level, not part of '##'"),
        ("a/+b/c", "'+' must be a whole level, not part of '+b'"),
        ("a/++", "'+' must be a whole level, not part of '++'"),
        ("#/a", "'#' must be the last level"),
        ("a/#/", "'#' must be the last level"),
        ("a\0", "a topic filter cannot hold the character NUL"),
        ("a/" * 40000, "a topic filter cannot be longer than 65535 bytes of UTF-8, not 80000"),
        ("$share", "a shared subscription is written $share/group/filter"),
        ("$share/g", "a shared subscription is written $share/group/filter"),
        ("$share/g/", "a shared subscription is written $share/group/filter"),
        ("$share//a", "a shared subscription is written $share/group/filter"),
        ("$share/+/a", "the group of a shared subscription cannot hold a wildcard, not '+'"),
        ("$share/g/a#", "'#' must be a whole level, not part of 'a#'"),
    ],
)
def test_each_way_a_filter_can_be_wrong_is_said(f: str, said: str) -> None:
    assert filter_problem(f) == said
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(f)


def test_placeholders_must_be_whole_levels_where_they_mean_something() -> None:
    assert filter_problem("a/x%u") is None
    assert filter_problem("a/%u/%c", placeholders=True) is None
    assert filter_problem("a/x%u", placeholders=True) == "'%u' must be a whole level, not part of 'x%u'"
    assert filter_problem("%c%c", placeholders=True) == "'%c' must be a whole level, not part of '%c%c'"


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        ("$share/g/a/#", ("g", "a/#")),
        ("$share/g//", ("g", "/")),
        ("$share/g/$SYS/#", ("g", "$SYS/#")),
        ("$share/g", (None, "$share/g")),
        ("$share", (None, "$share")),
        ("$shared/g/a", (None, "$shared/g/a")),
        ("a/$share/b", (None, "a/$share/b")),
    ],
)
def test_a_share_prefix_is_told_from_what_only_resembles_it(f: str, expected: tuple[str | None, str]) -> None:
    assert strip_share(f) == expected


@pytest.mark.parametrize(
    ("f", "topic", "expected"),
    [  # the examples of MQTT 5.0, section 4.7.1 and 4.7.2, then its corners
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/", True),
        ("$SYS/#", "$SYS", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("ACCOUNTS", "Accounts", False),
        ("+/#", "a", True),
        ("+/#", "$a", False),
        ("/#", "/", True),
        ("a/+", "a/$b", True),
        ("a/+/#", "a", False),
        ("a//b", "a/b", False),
        ("a/", "a", False),
        ("#", "", False),
        ("#", "a/+", False),
        ("a/+", "a/\0", False),
    ],
)
def test_the_specifications_examples_hold(f: str, topic: str, expected: bool) -> None:
    assert matches(f, topic) is expected


@pytest.mark.parametrize(
    ("f", "topic", "user", "client_id", "expected"),
    [
        ("p/%u/t", "p/bob/t", "bob", None, True),
        ("p/%u/t", "p/bob/t", "eve", "bob", False),
        ("p/%c/t", "p/bob/t", "eve", "bob", True),
        ("p/%u/t", "p/bob/t", None, None, False),
        ("p/%u/t", "p/bob/t", "+", "#", False),
        ("p/%u/t", "p//t", "", "", False),
        ("p/%u", "p/a/b", "a/b", None, False),
        ("p/%u/#", "p/bob", "bob", None, True),
        ("p/%u", "p/%u", None, None, False),
        ("p/%u", "p/%c", "%c", "bob", True),
        ("%c/#", "$SYS/x", None, "$SYS", True),
    ],
)
def test_placeholders_equal_a_whole_level_and_nothing_else(
    f: str, topic: str, user: str | None, client_id: str | None, expected: bool
) -> None:
    assert matches(f, topic, user, client_id) is expected


@given(st.text(), st.booleans())
def test_whatever_text_comes_is_judged_and_valid_filters_can_be_taken_apart(text: str, placeholders: bool) -> None:
    topic_problem(text)
    problem = filter_problem(text, placeholders=placeholders)
    if problem is None:
        assert parse(text, placeholders=placeholders).levels
    else:
        assert problem.isprintable()
