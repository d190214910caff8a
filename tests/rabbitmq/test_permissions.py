"""What RabbitMQ decides from a permission is asked of RabbitMQ; where we cannot know, we say so."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden_collectors.rabbitmq.node import Node
from topicwarden_collectors.rabbitmq.permissions import (
    MAX_NAME_BYTES,
    MAX_REGEX_BYTES,
    Expressions,
    allows,
    expanded,
    why_unsure,
)

USUAL = (
    "",
    ".*",
    "^$",
    "^amq\\.default$",
    "^(amq\\.gen.*|amq\\.default)$",
    "^amq\\.gen-.*$",
    "orders",
    "^orders\\.",
    "orders$",
    "^orders-[0-9]+$",
    "^(?!amq\\.).*$",
    "^(?!amq\\.rabbitmq\\.).+",
    "(?i)^ORDERS",
    "^(orders|billing)(\\..*)?$",
    "^\\w+\\.\\d{1,3}$",
    "^[^.]+$",
    "^[[:alpha:]]+$",
    "^a.c$",
    "^a\\.b$",
    "^\\Qa.b\\E$",
    "^.{0,3}$",
    "x?",
    "^(a|b|c){2,}$",
    "^[a-z0-9_-]+(\\.[a-z0-9_-]+)*$",
    "(?<=orders\\.)new",
    "(?<!orders\\.)new",
    "^\\x61b",
    "\\bnew\\b",
    "^(?:topic|queue)/",
    "plain text with { a brace",
    "{client_id}",
    "^é",
    "[é]$",
    "\\Aorders\\Z",
    "^orders\\z",
    "a++b",
    "(?>a+)b",
    "(?m)^second$",
    "(?s)^first.second$",
    "^first.second$",
    "\\.",
    "[]a]",
    "[^]a]",
    "[a\\]]",
    "a|",
    "()",
)
NAMES = (
    "",
    "amq.default",
    "amq.gen-aB3_x",
    "amq.rabbitmq.trace",
    "amq.topic",
    "orders",
    "orders\n",
    "orders\n\n",
    "orders.new",
    "ordersXnew",
    "ORDERS.1",
    "billing.7",
    "a.b",
    "a.b\n",
    "aXb",
    "abc",
    "aab",
    "cab",
    "é",
    "né",
    "first\nsecond",
    "queue/x",
    "]",
    "plain text with { a brace",
    "x" * 255,
    "{client_id}",
    "\x00",
    "\x7f",
)
UNSURE = (
    "(*UTF)a",
    "(*ACCEPT)",
    "(a)\\1",
    "(?R)?a",
    "(?<n>a)(?&n)",
    "(?(1)a|b)",
    "(?|a|b)",
    "(?x) a",
    "(?C1)a",
    "(?#note)a",
    "\\p{L}",
    "\\Ra",
    "\\Ca",
    "\\Xa",
    "\\x{41}",
    "\\012",
    "\\cA",
    "a\\K",
    "a{,3}",
    "a{ 1, 2}",
    "(?<=a+)b",
    "(?<=a{2})b",
    "[[.a.]]",
    "[a",
    "a\\",
    "a)",
    "(" * 60 + ")" * 60,
    "a{70000}",
    "a" * (MAX_REGEX_BYTES + 1),
    "nul\x00",
)


def ask(
    node: Node, folder: Path, questions: Sequence[tuple[str, Mapping[str, str] | None, Sequence[str]]]
) -> list[str]:
    """Set each expression as a permission of a user of the node and ask its own code about each name.

    With variables the expression is a topic permission. Returns for each a text of y and n; an expression RabbitMQ
    does not take gives ''.
    """

    def text(value: str) -> str:
        return base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()

    rows = [
        [text(regex), [[text(k), text(v)] for k, v in (variables or {}).items()], [text(name) for name in names]]
        for regex, variables, names in questions
    ]
    (folder / "questions.json").write_text(json.dumps(rows))
    user, vhost = "asked-user", "asked-vhost"
    node.add_user(user, "x")
    node.add_vhost(vhost)
    program = f"""
      {{ok, Text}} = file:read_file(<<"{folder}/questions.json">>),
      U = <<"{user}">>, V = <<"{vhost}">>, X = <<"x">>, By = <<"test">>,
      B = fun base64:decode/1,
      M = rabbit_auth_backend_internal,
      User = {{auth_user, U, [], none}},
      Ask = fun([R, Vars, Names]) ->
        Map = maps:from_list([{{B(K), B(W)}} || [K, W] <- Vars]),
        try
          case Vars of
            [] ->
              ok = M:set_permissions(U, V, B(R), <<>>, <<>>, By),
              [M:check_resource_access(User, {{resource, V, queue, B(N)}}, configure, #{{}}) || N <- Names];
            _ ->
              ok = M:set_topic_permissions(U, V, X, B(R), B(R), By),
              [M:check_topic_access(User, {{resource, V, topic, X}}, write,
                 #{{routing_key => B(N), variable_map => Map}}) || N <- Names]
          end
        of L -> [case A of true -> $y; false -> $n end || A <- L]
        catch _:_ -> [] end end,
      ok = file:write_file(<<"{folder}/answers">>,
        [[Ask(Q), $\\n] || Q <- rabbit_json:decode(Text)]).
    """
    try:
        node.script("rabbitmqctl", "eval", program)
    finally:
        node.api("DELETE", f"/users/{user}")
        node.api("DELETE", f"/vhosts/{vhost}")
    answers = (folder / "answers").read_text().split("\n")[:-1]
    assert len(answers) == len(questions)
    return answers


def made_up(count: int) -> list[str]:
    """Expressions of the plain kind, put together by chance."""
    dice = random.Random(20261123)
    atoms: tuple[str, ...] = (
        "a",
        "b",
        ".",
        "\\.",
        "[ab]",
        "[^a]",
        "\\w",
        "\\d",
        "(a|b)",
        "(?:ab)?",
        "^",
        "$",
        "x",
        "\\b",
    )
    atoms += ("[a-c.]", "(?=a)", "(?!b)", "\\n", "[[:digit:]]", "\\S", "\\Q.\\E", "(?i:A)", "|", "é")
    repeats = ("", "", "", "*", "+", "?", "*?", "{2}", "{1,2}", "{0,}")
    fixed = ("^", "$", "\\b", "|", "(?=a)", "(?!b)")
    made = []
    for _ in range(count):
        parts = [dice.choice(atoms) for _ in range(dice.randint(1, 6))]
        made.append("".join(part if part in fixed else part + dice.choice(repeats) for part in parts))
    return made


def test_rabbitmq_answers_as_we_do_for_thousands_of_expressions_and_names(rabbit: Node, tmp_path: Path) -> None:
    dice = random.Random(7)
    names = [*NAMES, *("".join(dice.choices("ab.x1\n", k=dice.randint(1, 6))) for _ in range(12)), "a\udcffb", "\udce9"]
    regexes = [*USUAL, *made_up(160), *UNSURE]
    answers = ask(rabbit, tmp_path, [(regex, None, names) for regex in regexes])
    expressions = Expressions()
    asked = told = 0
    for regex, answer in zip(regexes, answers, strict=True):
        for name, broker in zip(names, answer, strict=bool(answer)):
            ours = expressions.allows(regex, name)
            asked += 1
            told += ours is not None
            assert ours is None or ours == (broker == "y"), (regex, name, broker)
            if regex in USUAL and name.isascii():
                assert ours is not None, (regex, name)
        if not answer:
            assert allows(regex, "a") is None, f"RabbitMQ does not take {regex!r}"
    assert told > 6000, (told, asked)


def test_topic_permissions_are_spliced_as_rabbitmq_splices_them(rabbit: Node, tmp_path: Path) -> None:
    keys = ("dev.d1.temp", "dev.d2.temp", "other", "dev..*.temp", "x.anything", "dev.{client_id}.x", "", "alice", "v")
    permissions = ("^dev\\.{client_id}\\.", "^{username}$", "^({vhost}|{username})", "", "^{unknown}", "{client_id}")
    people = [
        {"username": name, "vhost": "v", **({} if client is None else {"client_id": client})}
        for name in ("alice", "a.*", "{vhost}")
        for client in (None, "d1", ".*", "x.|", "d1$", "{username}")
    ]
    questions = [(regex, variables, keys) for regex in permissions for variables in people]
    answers = ask(rabbit, tmp_path, questions)
    for (regex, variables, _), answer in zip(questions, answers, strict=True):
        ours = "".join("y" if allows(expanded(regex, variables), key) else "n" for key in keys)
        assert ours == answer, (regex, variables)


def test_a_client_id_breaks_out_of_its_topic_permission_unless_the_server_escapes_it() -> None:
    regex = "^dev\\.{client_id}\\."
    for hostile in (".*", "x.|", "d1|"):
        assert allows(expanded(regex, {"client_id": hostile}), "dev.other.temp")
        assert not allows(expanded(regex, {"client_id": hostile}, escapes="\\^$.|?*+()[]{}"), "dev.other.temp")
    assert allows(expanded("^[{client_id}]$", {"client_id": "a-z"}, escapes="\\^$.|?*+()[]{}"), "q")
    assert not allows(expanded("^[{client_id}]$", {"client_id": "a-z"}, escapes="\\^$.|?*+()[]{}-"), "q")


@pytest.mark.parametrize("regex", UNSURE)
def test_what_pcre_and_pcre2_may_see_differently_is_not_answered(regex: str) -> None:
    assert allows(regex, "a") is None
    if regex not in ("[a", "a\\", "a)"):
        assert why_unsure(regex)


def test_letters_beyond_ascii_are_not_judged_by_tables_we_do_not_have() -> None:
    # Erlang's PCRE has the tables of ISO 8859-1: there byte E9 is a letter.
    for regex in ("^\\w", "^[[:alpha:]]", "(?i)^É", "\\bn"):
        assert allows(regex, "é") is None
        assert allows(regex, "n") is not None
    assert allows("^é$", "é") is True
    assert allows("^..$", "é") is True  # bytes


def test_a_catastrophic_expression_is_given_up_soon() -> None:
    expressions = Expressions()
    started = time.process_time()
    answers = {expressions.allows("^(a+)+$", "a" * 60 + "!" * (number % 3 + 1)) for number in range(5000)}
    assert answers == {None}
    assert time.process_time() - started < 2


def test_hopeless_lengths_are_not_answered() -> None:
    assert allows("^a", "a" * (MAX_NAME_BYTES + 1)) is None
    assert allows(".*", "a" * (MAX_NAME_BYTES + 1)) is True


def test_memory_is_bounded_however_many_expressions_there_are() -> None:
    expressions = Expressions(kept=8)
    assert all(expressions.allows(f"^{number}$", str(number)) for number in range(100))
    assert len(expressions._compiled) == 8


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_expression_and_no_name_is_an_error(regex: str, name: str) -> None:
    assert allows(regex, name) in (True, False, None)


@given(st.text(alphabet="ab(){}[]?*+|^$\\.:!<=>,19QEdwxK-", max_size=30), st.text(alphabet="ab19.", max_size=12))
def test_nothing_made_of_syntax_is_an_error(regex: str, name: str) -> None:
    assert allows(regex, name) in (True, False, None)
