"""Command lines made to break their readers: whatever they hold, nothing is raised, and time stays bounded."""

# ruff: noqa: E501 - one line a kind reads best

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS, Process
from topicwarden.hosts.code import LIBRARIES
from topicwarden.hosts.commands import read_command
from topicwarden.hosts.commands_mentions import mentions
from topicwarden.hosts.commands_payload import without_payloads
from topicwarden.hosts.commands_payload_joined import joined_without_payloads
from topicwarden.hosts.tools import TOOLS

PIECES = [
    *TOOLS,
    *("sh", "bash", "-c", "-e", "-m", "-h", "-p", "-t", "-L", "--", "-", "", "python3", "perl", "node", "sudo", "env", "xargs"),
    *("import paho", "import socket;", "c.connect(", "publish('a', 'b'", "mqtt://", "amqp://u:p@h", "/dev/tcp/h/1883", "payload=x"),
    *("$(", "`", "'", '"', "\\", "<<E\n", "E\n", "<<<", "| nc h 1883", "echo x", "{", "}", "(", ")", "case x in", "esac", "for", "do"),
    *("done", ";", "\n", "$'", "${", "$((", "<(", "&>", ">&", "<payload>", "<payload:mqtt>", "***", "=", "==", "=>", "[", "]", ","),
    *("\0", "\udcff", "\ud800", "é", "\U0001f600", "\r", "1" * 5000, "٣", "-" * 9, "TCP:", "!!", ":", "[::", "user-property", "-D"),
]  # fmt: skip
WORD = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=9).map("".join)
ONE = st.one_of(st.sampled_from(PIECES), WORD)
EXECUTABLE = st.sampled_from(
    ["", *(f"/usr/bin/{name}" for name in TOOLS), "/bin/sh", "/usr/bin/python3.11", "/bin/busybox"]
)


@settings(max_examples=300, deadline=None)
@given(EXECUTABLE, st.lists(ONE, max_size=9), st.booleans())
@example("", ["sh", "-c", "$'\\ud800' mosquitto_pub"], False)
def test_any_words_raise_nothing_and_what_is_read_is_bounded(executable: str, words: list[str], cut: bool) -> None:
    command = read_command(Process("h", 1, executable, tuple(words), cut))
    if command is not None:
        assert command.port is None or 0 < command.port < 65536
        assert command.host is None or 0 < len(command.host) <= 255
        assert len(command.names) <= 16


@settings(max_examples=300, deadline=None)
@given(EXECUTABLE, st.lists(ONE, max_size=9))
def test_taking_payloads_out_of_any_words_raises_nothing_and_twice_is_once(executable: str, words: list[str]) -> None:
    taken = without_payloads(words, executable)
    assert len(taken.words) == len(words)
    joined_without_payloads(" ".join(words), executable)


MANY = 60_000
HOSTILE = {
    "a payload of 2 MiB": ["mosquitto_pub", "-t", "a", "-m", "x" * (2 << 20)],
    "many options": ["mosquitto_pub", *["-m", "x"] * MANY],
    "many operands": ["nc", *["1883"] * MANY],
    "a cluster": ["amqp-publish", "-" + "p" * (1 << 20)],
    "substitutions": ["sh", "-c", "nc " + "$(" * MANY],
    "closed substitutions": ["sh", "-c", "nc " + "$(" * MANY + ")" * MANY],
    "backticks": ["sh", "-c", "nc " + "`" * MANY],
    "groups": ["sh", "-c", "nc;" + "{ ( " * MANY],
    "pipes": ["sh", "-c", "echo a | nc b | " * MANY],
    "documents": ["sh", "-c", "nc " + "<<a " * MANY + "\n" + "x\n" * MANY],
    "quotes": ["sh", "-c", "nc " + "\"'\\" * MANY],
    "assignments": ["sh", "-c", "nc;" + "A=$A$A " * MANY + "; nc $A"],
    "doubling variables": ["sh", "-c", "A=aaaaaaaa;" + "A=$A$A;" * MANY + "mosquitto_pub -h $A"],
    "cases": ["sh", "-c", "nc;" + "case a in " * MANY],
    "shells": ["sh", "-c", "nc " + "sh -c '" * MANY],
    "brackets": ["python3", "-c", "import paho\n" + "c.publish(" * MANY],
    "minuses": ["python3", "-c", "import paho;x=" + "-" * MANY + "1"],
    "attributes": ["python3", "-c", "import paho;x=" + "a." * MANY + "b"],
    "calls": ["python3", "-c", "import paho\n" + "c.publish('a', 'b');" * MANY],
    "sums": ["python3", "-c", "import paho;c.publish(" + "'a'+" * MANY + "'b')"],
    "names of names": ["python3", "-c", "import paho;" + "a=a+a;" * MANY + "c.publish(a, a)"],
    "open strings": ["python3", "-c", "import paho\n" + "f('" * MANY],
    "triple quotes": ["python3", "-c", "import paho\n" + '"""a' * MANY],
    "imports": ["python3", "-c", "import paho," + "a," * MANY],
    "colons": ["perl", "-e", "use mqtt;" + "A::" * MANY],
    "equals": ["node", "-e", "require('mqtt'); a(" + "=x " * MANY],
    "objects": ["node", "-e", "require('mqtt');" + "a({b:" * MANY],
    "an address": ["mosquitto_pub", "-L", "mqtt://" + "@:" * MANY],
    "socat's": ["socat", "TCP:" + "[\\" * MANY, "TCP:" + '"' * MANY],
    "wrappers": ["sudo"] * MANY,
    "digits": ["nc", "h", "1" * MANY],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(name: str) -> None:
    words = HOSTILE[name]
    began = time.process_time()
    without_payloads(words[:256])
    joined_without_payloads(" ".join(words)[: 64 * MAX_ARGUMENT])
    read_command(Process("h", 1, "", tuple(word[:MAX_ARGUMENT] for word in words[:MAX_ARGUMENTS]), True))
    # About 100 ms each on a busy machine; what is not bounded takes minutes.
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", [*TOOLS, *LIBRARIES])
def test_each_name_that_matters_is_noticed(name: str) -> None:
    assert mentions((name,))
    assert mentions(("sh", "-c", f"true;{name} x"))
    assert mentions((f"/opt/x/{name[0]}''{name[1:]}",))


def test_a_script_that_makes_pythons_parser_warn_is_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    for text in (
        "import paho; c.connect('b'); x='\\d'",
        "import paho; c.connect('b'); 1if 1else 2",
        "import paho; c.connect('b'); 1 is 1",
    ):
        command = read_command(Process("h", 1, "", ("python3", "-c", text)))
        assert command is not None
        assert command.host == "b"
    assert not recwarn.list
