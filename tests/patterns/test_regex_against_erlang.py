"""The same expressions and names go to us and to Erlang's `re`, which is what RabbitMQ asks; the answers must agree."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pcre2  # type: ignore[import-untyped] # ships no types
import pytest

from tests.patterns.regex_cases import NAMES, Erlang
from topicwarden.patterns.byte_sets import ESCAPES, POSIX, folded, members
from topicwarden.patterns.lookahead import expression_automaton, lookahead_problem
from topicwarden.patterns.regex_syntax import parse_regex

TOKENS = (
    *[b"a", b"b", b"a", b"b", b".", b"\n", b"\\n", b"A", b"1", b"-", b" ", b"#", b"\xc3\xa9", b"\xe9", b"\\x41"],
    *[b"^", b"$", b"$", b"\\z", b"\\Z", b"\\A", b"\\G", b"\\b", b"\\K", b"\\R", b"\\1", b"\\y", b"\\e", b"\\t", b"\\."],
    *[b"(", b"(?:", b")", b")", b"(?i)", b"(?s)", b"(?m)", b"(?U)", b"(?x)", b"(?i:", b"(?-i)", b"(?s-i:", b"|", b"|"],
    *[b"*", b"+", b"?", b"*?", b"++", b"{2}", b"{1,2}", b"{,2}", b"{0}", b"{1,}", b"{1, 2}", b"{", b"}"],
    *[b"[ab]", b"[^a]", b"[", b"]", b"[^", b"[a-", b"b-a", b"[:", b":]", b"[.", b".]", b"[[:alpha:]]", b"[[:^lower:]"],
    *[b"\\d", b"\\w", b"\\W", b"\\s", b"\\S", b"\\h", b"\\H", b"\\v", b"\\N", b"\\-", b"\\]", b"\\", b"\\Q", b"\\E"],
    *[b"\\x4", b"\\x{e9}", b"\\0", b"\\012", b"(?#c)", b"(?|", b"(?<n>", b"(?P<m>", b"(?'k'", b"(?=", b"(?!", b"(?<="],
    *[b"(?>", b"^(?!", b"(?!a)", b"(?=b)", b"^(?=", b"^(?=b)"],
)
SUBJECTS = (
    *[name.encode() for name in NAMES if len(name) <= 3],
    *b"A|aA|B|a\nb\n|abab|\xc3\xa9|\xe9|\xc9|a\xe9|\xaa|\xb5|\xdf|\xff|\xa0|\x85|1|-|]|[|\\|:|[a]|a]|{|}|{1, 2}".split(
        b"|"
    ),
    *b"a{,2}|{,2}|\t| |\r|\0|\x04|\x0b|x|c|.|#|\x1b|n|y|ab-|Q|E|\n\n\n|ba\n|\xd7|\xf7|(|)".split(b"|"),
)


@pytest.fixture(scope="module")
def erlang() -> Iterator[Erlang]:
    with Erlang() as running:
        yield running


def random_regex(source: random.Random) -> bytes:
    """Return a few tokens, in half of the cases with brackets that are closed."""
    text = b"".join(source.choices(TOKENS, k=source.randint(1, 9)))
    if source.random() < 0.5:
        text += b"]" * (text.count(b"[") > text.count(b"]"))
        text += b")" * (text.count(b"(") - text.count(b")"))
    return text


@pytest.mark.parametrize("seed", range(4))
def test_what_is_taken_apart_matches_what_erlang_says_and_what_erlang_refuses_is_never_taken(
    erlang: Erlang, seed: int
) -> None:
    source = random.Random(seed)
    compared = 0
    for _ in range(2_500):
        regex = random_regex(source)
        read = parse_regex(regex)
        if read.tree is None and not read.portable:
            continue
        answers = erlang.ask(regex, SUBJECTS)
        assert not isinstance(answers, str), f"{regex!r}: Erlang says {answers}"
        if None in answers:
            continue
        if read.tree is not None and lookahead_problem(read.tree) is None:
            compared += 1
            names = expression_automaton(read.tree)
            assert [names.accepts(name) for name in SUBJECTS] == answers, repr(regex)
        if read.portable:
            search = pcre2.compile(regex).search
            for name, answer in zip(SUBJECTS, answers, strict=True):
                if name.isascii() or not read.latin1:
                    assert (search(name) is not None) is answer, f"{regex!r} {name!r}"
    assert compared > 400


def test_every_named_set_of_bytes_is_erlangs(erlang: Erlang) -> None:
    every = [bytes([byte]) for byte in range(256)]
    sets = {b"[[:" + name + b":]]": one for name, one in POSIX.items()}
    sets |= {b"\\" + bytes([letter]): one for letter, one in ESCAPES.items()}
    sets |= {b"(?i)\\x{%x}" % byte: folded(1 << byte) for byte in range(256)}
    sets |= {b"(?i)[[:upper:]]": POSIX[b"alpha"], b"(?i)[[:lower:]]": POSIX[b"alpha"]}
    for regex, one in sets.items():
        assert erlang.ask(regex, every) == [byte in set(members(one)) for byte in range(256)], regex
        read = parse_regex(b"^" + regex + b"\\z")
        assert read.tree is not None
        names = expression_automaton(read.tree)
        assert [names.accepts(name) for name in every] == erlang.ask(regex, every), regex
