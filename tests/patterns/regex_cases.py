"""Regular expressions drawn so that they meet often, names to try them on, and Erlang's PCRE to ask."""

from __future__ import annotations

import base64
import itertools
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import pcre2  # type: ignore[import-untyped] # ships no types
from hypothesis import strategies as st

NAMES = tuple("".join(letters) for length in range(6) for letters in itertools.product("ab\n", repeat=length))
"""All names of up to five of three letters, shortest first."""


def _joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quantified = st.tuples(parts, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{2,}", "*?", "??"])).map(
        lambda pair: f"(?:{pair[0]}){pair[1]}"
    )
    return st.one_of(
        st.lists(parts, min_size=2, max_size=3).map("".join),
        st.lists(parts, min_size=2, max_size=3).map(lambda branches: f"({'|'.join(branches)})"),
        quantified,
        parts.map(lambda part: f"^{part}$"),
        parts.map(lambda part: f"(?i:{part})"),
    )


def _plainly_joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(parts, min_size=2, max_size=4).map("".join),
        st.lists(parts, min_size=2, max_size=3).map(lambda branches: f"({'|'.join(branches)})"),
        st.tuples(parts, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{2,}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    )


_LETTERS = ["a", "b", "a", "b", "A", ".", "[ab]", "[^a]", "\\n", "\n", "\\N", "[^\\n]", "\\w", "\\W", "\\Qa\\E", ""]
_ANCHORS = ["^", "$", "$", "\\z", "\\Z", "\\A", "\\G", "(^|b)", "($|a)", "(?:$|\\n)", "(?s)", "(?-i)"]
_AHEAD = ["^(?!{})", "^(?={})", "(?!{})", "a(?!{})", ".*(?={})"]
plain_regexes = st.recursive(st.sampled_from(["a", "b", "c", "[ab]", "[^a]", "."]), _plainly_joined, max_leaves=8)
"""What every library for automata understands, which match names as a whole."""
regexes = st.recursive(st.sampled_from([*_LETTERS, *_ANCHORS]), _joined, max_leaves=6)
"""Anchors at every place, flags, line feeds; all of it supported."""
looking_ahead = st.lists(
    st.tuples(regexes, st.sampled_from(_AHEAD), regexes).map(lambda drawn: drawn[1].format(drawn[0]) + drawn[2]),
    min_size=1,
    max_size=2,
).map("|".join)
"""Lookaheads at the top, of which not all can be compared."""


def found(regex: str, name: str) -> bool:
    """Whether PCRE2 finds an expression in a name's bytes."""
    return bool(compiled(regex).search(name.encode()))


def compiled(regex: str) -> Any:
    """Return an expression as PCRE2 has it."""
    return pcre2.compile(regex.encode())


_SERVER = """
Ask = fun(Regex, Names) ->
  case re:compile(Regex) of
    {ok, _} -> [case re:run(Name, Regex, [{capture, none}, report_errors]) of
                  match -> $1; nomatch -> $0; _ -> $? end || Name <- Names];
    {error, {Text, _}} -> ["error ", Text]
  end
end,
Serve = fun Serve() ->
  case io:get_line("") of
    eof -> halt();
    Line ->
      [Regex | Names] = [base64:decode(Part) || Part <- string:split(string:trim(Line, trailing, "\\n"), " ", all)],
      io:put_chars([Ask(Regex, Names), "\\n"]),
      Serve()
  end
end,
Serve().
"""


class Erlang:
    """A running Erlang, which evaluates expressions as RabbitMQ does; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["erl", "-noshell", "-eval", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def ask(self, regex: bytes, names: Sequence[bytes] = ()) -> list[bool | None] | str:
        """Return for each name whether the expression is found in it, None: it gave up; or what is wrong with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = b" ".join(base64.b64encode(part) for part in (regex, *names))
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().decode().rstrip("\n")
        if answer.startswith("error "):
            return answer.removeprefix("error ")
        return [{"1": True, "0": False}.get(letter) for letter in answer]
