"""What is supported of regular expressions, and what is said of the rest; see `test_regex_against_erlang` too."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.patterns.regex_cases import NAMES, found, regexes
from topicwarden.patterns import Regex, Witness, dollar_newline, names_match, regex_problem, unanchored
from topicwarden.patterns.nfa import Reading, regex_automaton
from topicwarden.patterns.regex import regex_beginning, regex_matches, regex_names, regex_syntax
from topicwarden.patterns.regex_syntax import MAX_REGEX_BYTES

UNSUPPORTED = [
    (r"^((?!amq\.).*|x)$", "it looks ahead within a group or a repeat", True),
    (r"^((?!b)a)*$", "it looks ahead within a group or a repeat", True),
    (r"^(?!a(?!b))", "it looks ahead within a group or a repeat", True),
    (r"^a$(?!b)", "it looks ahead from the end", True),
    (r"^(a|b\z)(?!b)", "it looks ahead from the end", True),
    (r"(?!^)a", "it looks ahead and then for the start", True),
    (r"(?!b)^a", "it looks ahead and then for the start", True),
    (r"a?(?!b)(^a|c)", "it looks ahead and then for the start", True),
    (r"(?=a)*", "it repeats a look ahead", False),
    (r"^(?=a)*", "it repeats a look ahead", True),
    (r"(?=b) *b", "it looks ahead without a ^ at its start", False),
    (r"^(?=b) *b|(?=b)", "it looks ahead without a ^ at its start", False),
    (r"(?<=a)b", "it looks behind", True),
    (r"(?<!a)b", "it looks behind", True),
    (r"(?<=a+)b", "it looks behind for something of no fixed length", False),
    (r"(?<=(a|bc))d", "it looks behind for something of no fixed length", False),
    (r"\bnew\b", "it asks for the border of a word", True),
    (r"a\B", "it asks for the border of a word", True),
    (r"(?>a+)b", "it has an atomic group, which gives nothing back", True),
    (r"a++b", "it has a possessive repeat, which gives nothing back", True),
    (r"x{2}+", "it has a possessive repeat, which gives nothing back", True),
    (r"(?m)^a$", "it searches line by line (?m)", True),
    (r"\S*\h", r"it uses \S together with \h or \v", True),
    (r"a{1001}", "it repeats something more than 1000 times", False),
    (r"a{2,1001}", "it repeats something more than 1000 times", False),
    (r"a{99999999999999999999}", "it repeats something more than 1000 times", False),
    (r"(a)\1", "it refers back to what a group matched, or uses a number like that", False),
    (r"(?<n>a)\k<n>", "it refers back to what a group matched, or uses a number like that", False),
    (r"(a)\g1", "it refers back to what a group matched, or uses a number like that", False),
    (r"(?P<n>a)(?P=n)", "it has a condition, a recursion or another special group", False),
    (r"(a)(?(1)b|c)", "it has a condition, a recursion or another special group", False),
    (r"(?R)?a", "it has a condition, a recursion or another special group", False),
    (r"(a)(?1)", "it has a condition, a recursion or another special group", False),
    (r"(?&n)", "it has a condition, a recursion or another special group", False),
    (r"(?C1)a", "it has a condition, a recursion or another special group", False),
    (r"(?^i)a", "it has a condition, a recursion or another special group", False),
    (r"(*UTF8)a", "it begins with a verb of PCRE", False),
    (r"a(*FAIL)", "it has a verb of PCRE", False),
    (r"(?x)a b", "it sets the flag x", False),
    (r"(?<n>a)(?<n>b)", "it has two groups of the same name", False),
    (r"\p{Lu}", r"it uses \p", False),
    (r"\X", r"it uses \X", False),
    (r"\R", r"it uses \R", False),
    (r"a\Kb", r"it uses \K", False),
    (r"\C", r"it uses \C", False),
    (r"\N{U+41}", r"it uses \N", False),
    (r"\o{101}", r"it uses \o", False),
    (r"\cA", r"it uses \c", False),
    (r"\y", r"it uses \y", False),
    (r"[\R]", r"it uses \R", False),
    (r"\x{100}", "it has a \\x{...} that is no byte", False),
    (r"\x{}", "it has a \\x{...} that is no byte", False),
    (r"[[:<:]]a", "it has [: [. or [= in a character class that is not known", False),
    (r"[[:foo:]]", "it has [: [. or [= in a character class that is not known", False),
    (r"[a[.x.]]", "it has [: [. or [= in a character class that is not known", False),
    (r"[:alpha:]", "it has [: [. or [= outside of a character class", False),
    (r"[..]", "it has [: [. or [= outside of a character class", False),
    (r"[a-\d]", "it has a range that ends with a set", False),
    (r"[a-[:digit:]]", "it has a range that ends with a set", False),
    (r"[z-a]", "it has a range out of order", False),
    (r"a{2,1}", "it has a count out of order", False),
    (r"[a", "it has a character class that does not end", False),
    (r"[]", "it has a character class that does not end", False),
    (r"(a", "it has a ( that is not closed", False),
    (r"a)", "it has a ) too many", False),
    (r"(?#a", "it has a comment that does not end", False),
    ("a\\", "it ends with a backslash", False),
    ("[a\\", "it ends with a backslash", False),
    (r"*a", "it has a * with nothing to repeat", False),
    (r"a|+", "it has a + with nothing to repeat", False),
    (r"^?", "it has a ? with nothing to repeat", False),
    (r"{1}", "it has a count with nothing to repeat", False),
    (r"$*", "it has a * with nothing to repeat", False),
    (r"a**", "it repeats a repeat", False),
    (r"a{2}{3}", "it repeats a repeat", False),
    ("a\0b", "it holds a zero byte, after which PCRE reads nothing", False),
    ("a" * (MAX_REGEX_BYTES + 1), f"it is longer than {MAX_REGEX_BYTES} bytes", False),
    ("(" * 41 + ")" * 41, "its groups are nested more than 40 deep", False),
    (r"((a{1000}){1000}){1000}", "it is too large: it needs too many states", True),
    (r"(a?b?c?d?){1000}", "it is too large: it needs too many states", True),
]


@pytest.mark.parametrize(("regex", "problem", "matched"), UNSUPPORTED)
def test_what_is_not_supported_has_its_reason_and_is_still_matched_where_pcre2_knows(
    regex: str, problem: str, matched: bool
) -> None:
    assert regex_problem(regex) == problem
    assert regex_syntax(regex).portable is matched
    if not matched:
        assert names_match(Regex(regex), "ab") is None


@pytest.mark.parametrize(
    ("regex", "yes", "no"),
    [
        (r"", ["", "a"], []),
        (r"^$", ["", "\n"], ["a", "\n\n"]),
        (r"^a$", ["a", "a\n"], ["a\n\n", "ab", "ba"]),
        (r"^a\z", ["a"], ["a\n"]),
        (r"^a\Z", ["a", "a\n"], ["a\n\n"]),
        (r"a$\n", ["a\n", "ba\n"], ["a", "a\n\n"]),
        (r"^a$|^b$", ["a", "b", "b\n"], ["ab", "c"]),
        (r"(^|\.)x($|\.)", ["x", "a.x", "x.a", "a.x\n"], ["ax", "xa"]),
        (r"^(a|b|)$", ["a", "b", "", "\n"], ["ab"]),
        (r"a^b", [], ["ab", "b"]),
        (r"^.$", ["a", "a\n", "\0"], ["\n", "é", ""]),
        (r"(?s)^.$", ["a", "\n", "\n\n"], ["", "é"]),
        (r"^..$", ["é"], ["ée", "e"]),
        (r"^a{,2}$", ["a{,2}"], ["a", "aa"]),
        (r"^a{1, 2}$", ["a{1, 2}"], ["a", "aa"]),
        (r"^{a}}$", ["{a}}"], []),
        (r"^\Qa.*\E+$", ["a.*", "a.***"], ["ab", "a.*a.*"]),
        (r"^\Qa.b", ["a.bc"], ["axb"]),
        (r"^[\Qa-]\E]$", ["a", "-", "]"], ["b"]),
        (r"^[]a]$", ["]", "a"], ["b"]),
        (r"^[^]a]$", ["b"], ["]", "a"]),
        (r"^[a\]-]$", ["a", "]", "-"], ["b"]),
        (r"^[\d-z]$", ["5", "-", "z"], ["x"]),
        (r"^[[:alpha:]_]+$", ["aB_"], ["1", "a1"]),
        (r"^[[:^alpha:]]$", ["1"], ["a"]),
        (r"^[.]$", ["."], ["a"]),
        (r"^\x41\x4\x{42}\012\0$", ["A\4B\n\0"], []),
        (r"^\_\-\<\é$", ["_-<é"], []),
        (r"^(?i)a(?-i)b$", ["Ab", "ab"], ["aB"]),
        (r"^(a(?i)b|c)$", ["aB", "C"], ["AB"]),
        (r"^(?i:é)$", ["é"], ["É"]),
        (r"^(?|(a)|(b))(?<n>c)(?P<m>d)(?'o'e)(?#a comment)?$", ["acde", "bcd"], ["cde"]),
        (r"^a(?#c)*\Q\E$", ["", "aaa"], ["b"]),
        (r"^\w+$", ["a_1"], ["-", "é"]),
        (r"^\h\H\v\V\N\s\d\D\W$", ["\ta\nax 1a-"], []),
        (r"^(?!amq\.).*$", ["", "amq", "x.amq.", "amq\n"], ["amq.", "amq.x", "amq.x\n", "\nb"]),
        (r"^(?!a$)(?!b)a?b?c?$", ["ab", "c", "", "\n", "abc"], ["a", "a\n", "b", "bc"]),
        (r"^(?=.*b)(?=a).{2}$", ["ab", "ab\n"], ["ba", "aa", "abb"]),
        (r"a(?!b)", ["a", "aba", "ac"], ["ab", "b", "abab"]),
        (r"^dev\.(?!x|y\z)[^.]+$|^z$", ["dev.a", "dev.yy", "z", "dev.y\n"], ["dev.x", "dev.y", "dev.xa", "dev."]),
        (r"^(?:(?!a)(?i)B)$", ["b", "B"], ["a", "ab"]),
        (r"^(?!a\n)(?:a|^b)$", ["a", "b", "b\n"], ["a\n", "ab"]),
        (r"^\S\s\D$", ["a\tb"], ["  b"]),
        (r"^(a*)*(b+|c?)+$", ["", "aab", "c"], ["ac!"]),
    ],
)
def test_what_is_supported_matches_what_pcre_matches(regex: str, yes: list[str], no: list[str]) -> None:
    names = regex_names(regex)
    assert names is not None
    for name in yes + no:
        assert names.accepts(name.encode()) is (name in yes), name
        assert names_match(Regex(regex), name) is (name in yes), name


def test_letters_above_ascii_are_those_of_iso_8859_1_byte_by_byte() -> None:
    # é is C3 A9, and C3 is a letter there (Ã), A9 is none (©).
    assert names_match(Regex(r"^\w\W$"), "é") is True
    assert names_match(Regex(r"^[[:upper:]][[:punct:]]$"), "é") is True
    assert names_match(Regex("(?i)^É"), "é") is False
    assert names_match(Regex(r"(?i)^\xe3"), "é") is True


@given(st.lists(regexes, min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_the_automaton_matches_what_pcre2_matches(drawn: list[str]) -> None:
    for regex in drawn:
        names = regex_names(regex)
        assert names is not None
        for name in NAMES:
            assert names.accepts(name.encode()) is found(regex, name), (regex, name)


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
@example("\ud800")
@example("(?i)" * 200)
@example("(" * 2000)
@example("[" * 2000)
@example("\\Q" * 1000 + "\\E" * 1000)
@example("(a*)*" * 400)
@example("(((a{30}){30}){30}|b?){20}")
@example("^" + "(a|b)?" * 600)
@example("a?" * 1000 + "a" * 1000)
@example("(?:" * 40 + "a?" * 50 + "){1000}" * 40)
def test_no_text_makes_reading_or_matching_raise(text: str) -> None:
    problem = regex_problem(text)
    assert (problem is None) is (regex_names(text) is not None)
    assert names_match(Regex(text), "a" * 300) in (True, False, None)
    unanchored(Regex(text))
    dollar_newline(Regex(text))


@given(st.lists(st.sampled_from([*r"()[]{}|*+?^$\.-:=!<>#,0129abdwWsSQEzZxnPiK", "[:", ":]", "(?", "\n"]), max_size=20))
@settings(max_examples=500, deadline=None)
def test_no_heap_of_special_characters_makes_reading_raise(parts: list[str]) -> None:
    text = "".join(parts)
    names = regex_names(text)
    if names is None:
        assert regex_problem(text)
        return
    for name in NAMES[:40]:
        answer = names_match(Regex(text), name)
        assert answer is None or answer is names.accepts(name.encode())


@pytest.mark.parametrize(
    ("regex", "witness"),
    [
        (r"orders", "aorders"),
        (r"^orders", "ordersa"),
        (r"orders$", "aorders"),
        (r"^orders$|new", "anew"),
        (r"^a|b$", "aa"),
        (r"^(a|b)$|c", "ac"),
        (r"(^|\.)x$", "a.x"),
        (r"^dev-12\.", "dev-12.a"),
        (r"", "a"),
        (r"a{2}", "aaa"),
        (r"^orders$", None),
        (r"\Aorders\z", None),
        (r"^(a|b)$", None),
        (r"^a$|^b$", None),
        (r"^dev-12\..*$", None),
        (r"^dev-12\..*", None),
        (r".*", None),
        (r"^.*", None),
        (r"(.*)", None),
        (r".*\.orders\..*", None),
        (r"^$", None),
        (r"a^b", None),
        (r"a+", "aab"),
        (r"^(?!amq\.).*$", None),
        (r"^(?!amq\.)", "a"),
        (r"^(?!amq\.)a", "aa"),
        (r"(?<!a)b", None),
    ],
)
def test_a_name_shows_what_an_expression_admits_for_want_of_anchors(regex: str, witness: str | None) -> None:
    found = unanchored(Regex(regex))
    assert (found is None) is (witness is None)
    if found is not None and witness is not None:
        assert len(found.topic) == len(witness) or regex == "a+"
        assert names_match(Regex(regex), found.topic) is True
        assert names_match(Regex(rf"\A(?:{regex})\z"), found.topic) is False


@given(regexes)
@settings(max_examples=150, deadline=None)
def test_what_shows_a_missing_anchor_is_matched_by_the_search_alone(regex: str) -> None:
    whole = rf"\A(?:{regex})(?:\z|\n\z)"
    shown = unanchored(Regex(regex))
    assert shown is None or (found(regex, shown.topic) and not found(rf"\A(?:{regex})\z", shown.topic))
    if shown is None:
        for name in NAMES:
            if "\n" not in name and found(regex, name):
                assert found(whole, name), name


@pytest.mark.parametrize(
    ("regex", "witness"),
    [
        (r"^a$", "a\n"),
        (r"^a\Z", "a\n"),
        (r"a$", "a\n"),
        (r"^(a|)$", "\n"),
        (r"^a\z", None),
        (r"^a", None),
        (r".*$", None),
        (r"^.*$", "a\n"),
        (r"^(?s).*$", None),
        (r"^[^b]*$", None),
        (r"\ba$", None),
        (r"^(?!b).$", "a\n"),
    ],
)
def test_a_line_feed_at_the_end_that_only_a_dollar_tolerates_is_found(regex: str, witness: str | None) -> None:
    shown = dollar_newline(Regex(regex))
    assert (shown is None) is (witness is None)
    if shown is not None:
        assert shown.endswith("\n")
        assert names_match(Regex(regex), shown) is True
        assert names_match(Regex(regex.replace("$", r"\z").replace(r"\Z", r"\z")), shown) is False


def test_a_witness_of_missing_anchors_is_a_witness() -> None:
    assert unanchored(Regex("orders")) == Witness("aorders")


def test_a_name_too_long_to_search_gets_no_answer() -> None:
    assert names_match(Regex("a$"), "a" * 65537) is None
    assert names_match(Regex("(a+)+$"), "a" * 5000 + "b") is None
    assert names_match(Regex(r"^a{,2}(a|b)*\w*c"), "é" * 30000) is False


def test_an_automaton_reads_names_whole_or_strictly_when_asked_to() -> None:
    tree = regex_syntax("a$").tree
    assert tree is not None
    assert regex_automaton(tree, Reading(anywhere=False, whole=True)).accepts(b"a\n")
    assert not regex_automaton(tree, Reading(anywhere=False, whole=True)).accepts(b"ba")
    assert not regex_automaton(tree, Reading(strict_end=True)).accepts(b"a\n")
    assert regex_automaton(tree, Reading(strict_end=True)).accepts(b"ba")


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("^abc", b"abc"),
        ("^abc$", b"abc"),
        ("^ab?c", b"a"),
        ("^ab+c", b"ab"),
        ("^(orders|order-line)$", b"order"),
        ("^(a|b)c", b""),
        ("^(ab|ab)c", b"abc"),
        ("^a(?i)bc", b"a"),
        ("abc", b""),
        ("^a|^b", b""),
        ("^(?!x)abc", b""),
        ("^a$b", b"ab"),
        ("^$", b""),
    ],
)
def test_what_an_expression_begins_with(text: str, beginning: bytes) -> None:
    assert regex_beginning(text) == beginning


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "(a|ab)", "(?:b|ba)", "a?", "b+", "[ab]", ".", "$", "(a|b|)"]), max_size=5))
def test_every_name_begins_with_what_the_expression_begins_with(pieces: list[str]) -> None:
    text = "^" + "".join(pieces)
    beginning = regex_beginning(text).decode()
    for size in range(5):
        for letters in itertools.product("ab", repeat=size):
            name = "".join(letters)
            if regex_matches(text, name):
                assert name.startswith(beginning), (text, name)
