"""RabbitMQ's own files: read as its own code reads them, and whatever is in them."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.errors import ConfigurationError
from topicwarden_collectors.rabbitmq import conf
from topicwarden_collectors.rabbitmq.conf import read_configuration
from topicwarden_collectors.rabbitmq.conf_lines import read_lines
from topicwarden_collectors.rabbitmq.conf_terms import Atom, Term, TermError, read_terms
from topicwarden_collectors.rabbitmq.node import packaged_plugins

LINES = (
    "# comment",
    "  # indented comment",
    "",
    "   \t ",
    "listeners.tcp.default = 5672",
    "a.b=1",
    "\tc.d  =  two words   ",
    "e = it''s",
    "f = a#b",
    "g = a # b",
    "h = \\ backslash",
    "my\\.key.z = 1",
    "a = ",
    "a",
    "= 1",
    "a b = 1",
    "a..b = 1",
    ".a = 1",
    "a. = 1",
    "a = = b",
    "a = b = c",
    "a-b_c.D9 = x",
    "é = 1",
    "k = é",
    "k = $(VAR)",
    "k = encrypted:AbC==",
    "a = 1\r",
    "a = 1\r\r",
    "include other.conf",
    "include",
    "includes = 1",
    'k = "quoted"',
    "k = 'a' b",
    "k = \u2028x",
    "k = \x0bx",
)


def cuttlefish(files: Sequence[Path]) -> list[list[list[str]] | None]:
    """What RabbitMQ's own reader makes of files: keys and values, None for a file it refuses."""
    plugins = packaged_plugins()
    if plugins is None:
        pytest.skip("RabbitMQ is not installed")
    (folder,) = plugins.glob("cuttlefish-*/ebin")
    listed = ",".join(json.dumps(str(path)) for path in files)
    program = f"""
      Show = fun(F) -> case cuttlefish_conf:file(F) of
        {{errorlist, _}} -> "null";
        L -> ["[", lists:join(",", [io_lib:format("[~w,~w]", [lists:join($., K), V]) || {{K, V}} <- L]), "]"] end end,
      io:put_chars(["[", lists:join(",", [Show(F) || F <- [{listed}]]), "]"]), halt()."""
    done = subprocess.run(
        ["erl", "-noshell", "-pa", str(folder), "-eval", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers = json.loads(done.stdout)
    return [
        None
        if answer is None
        else [["".join(map(chr, flat(key))), bytes(value).decode("latin-1")] for key, value in answer]
        for answer in answers
    ]


def flat(value: list[object] | int) -> list[int]:
    return [value] if isinstance(value, int) else [one for inner in value for one in flat(inner)]  # type: ignore[arg-type] # lists in lists


def test_lines_are_read_as_rabbitmqs_own_reader_reads_them(tmp_path: Path) -> None:
    dice = random.Random(5)
    (tmp_path / "other.conf").write_text("other = 1\n")
    texts = [line + "\n" for line in LINES]
    plain = [line for line in LINES if not line.startswith(("include", "a = 1\r"))]
    texts += ["\n".join(dice.choices(plain, k=dice.randint(1, 6))) + dice.choice(["", "\n"]) for _ in range(200)]
    alphabet = "ab.=# '\\\t\r-_0"
    texts += ["".join(dice.choices(alphabet, k=dice.randint(1, 14))) for _ in range(400)]
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"{number}.conf")
        files[-1].write_bytes(text.encode())
    accepted = 0
    for text, file, theirs in zip(texts, files, cuttlefish(files), strict=True):
        ours = read_configuration(str(file)) if text.strip() else None
        if ours is None:
            continue
        assert bool(ours.refused) is (theirs is None), (text, theirs, ours.refused)
        if theirs is not None and "'" not in text and "é" not in text and "\u2028" not in text:
            accepted += 1
            # Blanks at the very end of a file without a last newline belong to the value there.
            values = {key: value.rstrip(" \t") for key, value in theirs}
            assert {key: one.value for key, one in ours.settings.items()} == values, text
    assert accepted > 60


def test_a_value_in_single_quotes_is_what_newer_versions_take_it_for() -> None:
    (setting,) = read_lines(b"default_pass = 'a # b'  # why\n", "x").settings
    assert setting.value == "a # b"
    (setting,) = read_lines(b"a = 'b' c # d\n", "x").settings
    assert setting.value == "'b' c"


def test_files_are_read_in_the_nodes_order_and_the_last_of_equal_keys_counts(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "rabbitmq.conf").write_text("include inner/*.conf\na = main\nb = main\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "x.conf").write_text("a = inner\nc = inner\n")
    (tmp_path / "conf.d" / "10-x.conf").write_text("b = ten\nd = ten\n")
    (tmp_path / "conf.d" / "20-x.conf").write_text("d = twenty\n")
    (tmp_path / "conf.d" / ".hidden.conf").write_text("d = hidden\n")
    (tmp_path / "conf.d" / "30-x.txt").write_text("d = no\n")
    (tmp_path / "advanced.config").write_text(
        '%% a comment\n[{rabbit, [{trace_vhosts, [<<"prod">>, <<"a">>]}, flag]},\n {other, []}].\n'
    )
    (tmp_path / "enabled_plugins").write_text("[rabbitmq_management,'rabbitmq_mqtt'].\n")
    found = read_configuration(str(tmp_path))
    assert {key: one.value for key, one in found.settings.items()} == {
        "a": "main",
        "b": "ten",
        "c": "inner",
        "d": "twenty",
    }
    assert found.settings["b"].file.endswith("10-x.conf")
    assert found.term("rabbit", "trace_vhosts") == ["prod", "a"]
    assert found.term("rabbit", "flag") == "true"
    assert found.plugins == frozenset({"rabbitmq_management", "rabbitmq_mqtt"})
    assert (found.refused, found.unread) == ([], [])
    for name in ("rabbitmq.conf", "advanced.config", "enabled_plugins", "conf.d/10-x.conf"):
        assert read_configuration(str(tmp_path / name)).files


def test_a_file_that_includes_itself_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "rabbitmq.conf").write_text("include rabbitmq.conf\ninclude none.conf\na = 1\n")
    found = read_configuration(str(tmp_path))
    assert found.settings["a"].value == "1"
    assert [problem.line for problem in found.unread] == [2]


def test_what_cannot_be_understood_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "rabbitmq.conf").write_text("a = 1\nnonsense\nb = 2\n")
    (tmp_path / "advanced.config").write_text("[{rabbit, fun() -> ok end}].\n")
    (tmp_path / "enabled_plugins").write_text("rabbitmq_mqtt.\n")
    (tmp_path / "rabbitmq-env.conf").write_text("# CONFIG_FILE=/no\nNODENAME=x\nCONFIG_FILE=/other\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "binary.conf").write_bytes(b"\x7fELF\0")
    found = read_configuration(str(tmp_path))
    assert [(problem.file, problem.line) for problem in found.refused] == [(str(tmp_path / "rabbitmq.conf"), 2)]
    assert {Path(problem.file or "").name: problem.line for problem in found.unread} == {
        "advanced.config": 1,
        "enabled_plugins": None,
        "rabbitmq-env.conf": 3,
        "binary.conf": None,
    }
    assert set(found.settings) == {"a", "b"}
    assert found.plugins is None


def test_files_too_large_and_too_many_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "MAX_FILE_BYTES", 10)
    monkeypatch.setattr(conf, "MAX_FILES", 2)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "rabbitmq.conf").write_text("a = " + "1" * 20)
    for number in range(4):
        (tmp_path / "conf.d" / f"{number}.conf").write_text("b = 1\n")
    found = read_configuration(str(tmp_path))
    assert len(found.files) == 2
    assert "larger than" in found.unread[0].message
    assert "more than 2 files" in found.unread[1].message


def test_a_place_without_a_configuration_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("hello")
    for path in (tmp_path / "none", tmp_path, tmp_path / "README"):
        with pytest.raises(ConfigurationError) as caught:
            read_configuration(str(path))
        assert caught.value.problems[0].hint


TERMS = (
    "[].",
    '[a, \'b c\', "d\\n", <<"e">>, <<>>, <<1,2,255>>, 1, -2, 3.5, 1.0e-3, 16#ff, $a, {}, {a, [b]}, #{a => 1}].',
    '[{rabbit, [{tcp_listeners, [{"127.0.0.1", 5672}]}]}]. % end',
    "a.\nb.\n",
    '"one" "two".',
    "'it\\'s'.",
    '["\\x{e9}", "\\t\\\\\\"", $\\n].',
)


def rendered(term: Term) -> str:
    match term:
        case Atom():
            return "'" + "".join(f"\\x{{{ord(letter):x}}}" for letter in term) + "'"
        case str():
            return "[" + ",".join(str(ord(letter)) for letter in term) + "]"
        case bool() | int() | float():
            return repr(term)
        case tuple():
            return "{" + ",".join(map(rendered, term)) + "}"
        case list():
            return "[" + ",".join(map(rendered, term)) + "]"
        case dict():
            return "#{" + ",".join(f"{rendered(key)} => {rendered(value)}" for key, value in term.items()) + "}"


def test_terms_are_read_as_erlang_reads_them(tmp_path: Path) -> None:
    for number, text in enumerate(TERMS):
        (tmp_path / f"{number}.a").write_text(text)
        (tmp_path / f"{number}.b").write_text("".join(rendered(term) + ".\n" for term in read_terms(text)))
    # A binary is text to us, so binaries are turned into strings before the two are compared.
    program = f"""
      Plain = fun P(B) when is_binary(B) -> binary_to_list(B); P([H|T]) -> [P(H)|P(T)];
                  P(T) when is_tuple(T) -> list_to_tuple(P(tuple_to_list(T)));
                  P(M) when is_map(M) -> maps:map(fun(_, V) -> P(V) end, M); P(X) -> X end,
      Same = fun(N) ->
        {{ok, A}} = file:consult("{tmp_path}/" ++ integer_to_list(N) ++ ".a"),
        {{ok, B}} = file:consult("{tmp_path}/" ++ integer_to_list(N) ++ ".b"),
        Plain(A) =:= Plain(B) end,
      io:format("~w", [[Same(N) || N <- lists:seq(0, {len(TERMS) - 1})]]), halt()."""
    done = subprocess.run(
        ["erl", "-noshell", "-eval", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "[" + ",".join(["true"] * len(TERMS)) + "]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[a", 1),
        ("a", 1),
        ("[a,\n,b].", 2),
        ("fun() -> ok end.", 1),
        ("[A].", 1),
        ('"open', 1),
        ("\n\n<<256>>.", 3),
        ("#{[] => 1}.", 1),
        ("[" * 100 + "].", 1),
        ("<<a>>.", 1),
    ],
)
def test_what_is_no_plain_term_is_an_error_with_its_line(text: str, line: int) -> None:
    with pytest.raises(TermError) as caught:
        read_terms(text)
    assert caught.value.line == line


@given(st.text(alphabet="[]{}#=><,.'\"ab1$%\\ \n_@^x-", max_size=60))
def test_any_text_is_terms_or_a_term_error(text: str) -> None:
    try:
        assert isinstance(read_terms(text), list)
    except TermError as error:
        assert error.line >= 1  # noqa: PT017 - most texts are one or the other


@given(st.binary(max_size=120))
def test_any_bytes_are_lines(data: bytes) -> None:
    found = read_lines(data, "f")
    assert all(one.key and one.value for one in found.settings)
