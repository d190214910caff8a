"""Secrets in command lines: whatever they are and wherever they stand, no event has them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS
from topicwarden.hosts.commands_targets import PAYLOAD, mosquitto_url
from topicwarden_collectors.host.redaction import command_line, joined_command_line, redacted
from topicwarden_collectors.host.redaction_options import MASK
from topicwarden_collectors.host.redaction_words import names_secret

MARK = "zQ7w"
"""In every generated secret, and nowhere else."""


def secrets(alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    part = st.text(alphabet, max_size=12)
    return st.builds(lambda before, after: before + MARK + after + MARK, part, part)


ANY = secrets(st.characters(exclude_characters="\0"))
"""What an argument of its own may be."""
WORD = secrets(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'\\;|&<>()`$#"))
"""What needs no quotes in a shell."""
IN_URL = secrets(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'\\ `")).filter(
    # That would be a port, and a host; an address with such a password in it works nowhere.
    lambda secret: re.match(r"\d{1,5}[/?#]|.*@.*[/?#]", secret) is None
)

POSITIONS: dict[str, Callable[[str], list[str]]] = {
    "mosquitto -P": lambda s: ["mosquitto_pub", "-h", "h", "-P", s, "-t", "plant/a"],
    "mosquitto -P attached": lambda s: ["/usr/bin/mosquitto_sub", f"-P{s}", "-t", "plant/a"],
    "mosquitto --pw": lambda s: ["mosquitto_rr", "--pw", s, "-t", "plant/a"],
    "mosquitto --pw=": lambda s: ["mosquitto_rr", f"--pw={s}", "-t", "plant/a"],
    "mosquitto --psk": lambda s: ["mosquitto_pub", "--psk", s, "-t", "plant/a"],
    "behind sudo": lambda s: ["sudo", "-u", "x", "timeout", "5", "mosquitto_pub", "-P", s, "-t", "plant/a"],
    "a topic that is a program": lambda s: ["mosquitto_pub", "-t", "curl", "-P", s, "plant/a"],
    "mosquitto_passwd": lambda s: ["mosquitto_passwd", "-b", "plant/a", "alice", s],
    "mosquitto_ctrl": lambda s: ["mosquitto_ctrl", "dynsec", "setClientPassword", "plant/a", s],
    "amqp --password=": lambda s: ["amqp-publish", f"--password={s}", "-r", "plant/a"],
    "amqp --password": lambda s: ["amqp-consume", "--password", s, "-q", "plant/a"],
    "rabbitmqadmin -p": lambda s: ["python3", "/usr/sbin/rabbitmqadmin", "-u", "a", "-p", s, "publish", "plant/a"],
    "rabbitmqctl": lambda s: ["rabbitmqctl", "add_user", "plant/a", s],
    "curl -u": lambda s: ["curl", "-u", f"alice:{s}", "http://h/plant/a"],
    "curl -u attached": lambda s: ["curl", f"-ualice:{s}", "http://h/plant/a"],
    "curl -sSu": lambda s: ["curl", "-sSu", f"alice:{s}", "http://h/plant/a"],
    "curl --user=": lambda s: ["curl", f"--user=alice:{s}", "http://h/plant/a"],
    "--token": lambda s: ["anything", "--token", s, "plant/a"],
    "--mqtt-passwd=": lambda s: ["anything", f"--mqtt-passwd={s}", "plant/a"],
    "--secret": lambda s: ["anything", "--secret", s, "plant/a"],
    "--api-key": lambda s: ["anything", "--api-key", s, "plant/a"],
    "--key-pass": lambda s: ["anything", "--key-pass", s, "plant/a"],
    "-pw": lambda s: ["mqtt", "pub", "-pw", s, "plant/a"],
    "assignment": lambda s: ["env", f"MQTT_PASSWORD={s}", "plant/a"],
    "private key": lambda s: ["x", f"-----BEGIN EC PRIVATE KEY-----\n{s}", "plant/a"],
    "python username_pw_set": lambda s: ["python3", "-c", f"c.username_pw_set('alice', {s!r}) # plant/a"],
    "python PlainCredentials": lambda s: [
        "python3",
        "-c",
        f'x = PlainCredentials ( "alice" , {s!r} )\nprint("plant/a")',
    ],
    "python password=": lambda s: ["python3", "-c", f"f(host='plant/a', password={s!r})"],
    "python password by parts": lambda s: ["python3", "-c", f"f('plant/a', password={s!r} {s!r} + {s!r})"],
    "python raw triple": lambda s: ["python3", "-c", f"f('plant/a', passwd=b'''{repr(s)[1:-1]}''')"],
    "python dict": lambda s: ["python3", "-c", f"{{'topic': 'plant/a', 'token': {s!r}}}"],
    "shell -P": lambda s: ["sh", "-c", f"true;mosquitto_pub -t plant/a -P {shlex.quote(s)}"],
    "shell assignment": lambda s: ["bash", "-lc", f"echo plant/a; PASSWORD={shlex.quote(s)} run"],
    "shell --password=": lambda s: ["bash", "-c", f"run plant/a --password={shlex.quote(s)}"],
    "shell curl": lambda s: ["sh", "-c", f"curl plant/a -u alice:{shlex.quote(s)}"],
    "shell in ssh": lambda s: ["ssh", "host", f"mosquitto_pub -t plant/a -P {shlex.quote(s)}"],
}
WORD_POSITIONS: dict[str, Callable[[str], list[str]]] = {
    "nested shells": lambda s: ["sh", "-c", f"echo plant/a; bash -c 'sh -c \"mosquitto_pub -P {s}\"'"],
    "nested python": lambda s: ["sh", "-c", f'echo plant/a; python3 -c "c.username_pw_set(\\"u\\", \\"{s}\\")"'],
    "nested python keyword": lambda s: ["sh", "-c", f'echo plant/a; python3 -c "f(password=\\"{s} x{s}\\")"'],
    "bearer": lambda s: ["curl", "-H", f"Authorization: Bearer {s}", "plant/a"],
    "yaml": lambda s: ["x", f"password: {s}", "plant/a"],
    "json": lambda s: ["x", f'{{"topic": "plant/a", "password": "{s}"}}'],
    "command substitution": lambda s: ["sh", "-c", f"echo plant/a $(mosquitto_pub -P {s})"],
}
URL_POSITIONS: dict[str, Callable[[str], list[str]]] = {
    "url": lambda s: ["mosquitto_pub", "-L", f"mqtt://alice:{s}@h:1883/plant/a"],
    "url attached": lambda s: ["amqp-publish", f"--url=amqp://alice:{s}@h/plant/a"],
    "url in text": lambda s: ["sh", "-c", f"run mqtts://alice:{s}@h/plant/a now"],
}


def occurs(arguments: Sequence[str]) -> bool:
    return any(MARK in argument for argument in arguments)


@settings(max_examples=60, deadline=None)
@given(ANY)
@example(f"-{MARK}")
@example(f" {MARK} {MARK}")
@example(f"'{MARK}\"{MARK}\\")
@example(f"a=b {MARK}")
def test_no_secret_is_in_the_output_wherever_it_stands(secret: str) -> None:
    for name, line in POSITIONS.items():
        arguments = line(secret)
        assert occurs(arguments), name
        assert not occurs(redacted(arguments)), (name, arguments, redacted(arguments))
        assert not occurs(command_line(arguments)[0]), name


@settings(max_examples=60, deadline=None)
@given(WORD, IN_URL)
def test_no_secret_is_in_the_output_in_nested_text_and_addresses(word: str, in_url: str) -> None:
    for secret, positions in ((word, WORD_POSITIONS), (in_url, URL_POSITIONS)):
        for name, line in positions.items():
            arguments = line(secret)
            assert not occurs(redacted(arguments)), (name, arguments, redacted(arguments))


def test_what_is_no_secret_stays() -> None:
    for name, line in {**POSITIONS, **WORD_POSITIONS, **URL_POSITIONS}.items():
        assert "plant/a" in " ".join(redacted(line(MARK))), (name, redacted(line(MARK)))


@settings(max_examples=60, deadline=None)
@given(secrets(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'\\")))
@example(f"W.{MARK}")
def test_no_secret_is_in_a_joined_command_line(secret: str) -> None:
    for name in (
        "mosquitto -P",
        "mosquitto -P attached",
        "mosquitto --pw=",
        "behind sudo",
        "mosquitto_passwd",
        "amqp --password=",
        "rabbitmqadmin -p",
        "curl -u",
        "--token",
        "python username_pw_set",
        "private key",
    ):
        kept, _ = joined_command_line(" ".join(POSITIONS[name](secret)))
        assert not occurs(kept), (name, kept)


def test_a_secret_of_several_words_in_a_joined_command_line_ends_at_the_next_option() -> None:
    kept, cut = joined_command_line("mosquitto_pub -P my old secret -t a/b -m hello")
    assert (kept, cut) == (("mosquitto_pub", "-P", *[MASK] * 3, "-t", "a/b", "-m", PAYLOAD), False)


@pytest.mark.parametrize("length", [MAX_ARGUMENT - 60, MAX_ARGUMENT - 20, 8 * MAX_ARGUMENT - 40, 8 * MAX_ARGUMENT - 25])
def test_an_address_that_is_cut_in_its_password_keeps_none_of_it(length: int) -> None:
    assert not occurs(command_line(["x", "y" * length + f" mqtt://alice:{MARK * 20}@h"])[0])


def test_an_address_is_not_made_to_name_another_host() -> None:
    assert redacted(["mosquitto_pub", "-L", "mqtt://evil:1883/t@good/t"])[2] == "mqtt://evil:1883/t@good/t"


@pytest.mark.parametrize(
    "address",
    [
        "mqtt://evil:1883x/t@good/t",  # atoi takes 1883x for a port
        "mqtt://u:p@evil:1883x@good/t",  # mosquitto takes the first @, RFC 3986 the last
        "mqtt://a@evil:1883@good/t",
    ],
)
def test_what_is_taken_out_of_an_address_makes_no_other_host_of_it_for_a_program_that_reads_it_otherwise(
    address: str,
) -> None:
    kept = redacted(["mosquitto_pub", "-L", address])[2]
    read = mosquitto_url(kept)
    assert read is None or read[0].host in (None, "evil")


def test_a_title_cut_in_a_password_keeps_none_of_it() -> None:
    assert command_line(["x", f"mqtt://alice:{MARK}"], cut=True) == (("x", "mqtt://alice:***"), True)
    assert command_line(["x", "mqtt://host:1883"]) == (("x", "mqtt://host:1883"), False)


def test_arguments_are_bounded() -> None:
    arguments, cut = command_line(["x"] * MAX_ARGUMENTS)
    assert (len(arguments), cut) == (MAX_ARGUMENTS, False)
    arguments, cut = command_line(["x"] * (MAX_ARGUMENTS + 1))
    assert (len(arguments), cut) == (MAX_ARGUMENTS, True)
    arguments, cut = command_line(["x", "y" * MAX_ARGUMENT])
    assert (len(arguments[1]), cut) == (MAX_ARGUMENT, False)
    arguments, cut = command_line(["x", "y" * (2 << 20)])
    assert (len(arguments[1]), cut) == (MAX_ARGUMENT, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("mosquitto_pub", "-h", "h", "-p", "1883", "-t", "token/passwords", "-m", "password"),
        ("mosquitto_sub", "-u", "alice", "--password-file", "/etc/x", "-t", "a"),
        ("mosquitto_pub", "-L", "mqtt://h:1883/a@b"),
        ("nc", "-w", "1", "10.0.0.1", "5222"),
        ("mosquitto_pub", "--id", "a", "-m", '{"t": 1}'),
        ("python3", "-c", "c.connect('h', 1883); c.publish('a/b', 'x')"),
        ("docker", "run", "--no-password", "x"),
    ],
)
def test_a_line_without_secrets_is_not_changed(arguments: tuple[str, ...]) -> None:
    assert redacted(arguments) == arguments


@pytest.mark.parametrize("name", ["--password", "MQTT_PASSWORD", "db.passwd", "apiKey", "pw", "--client-secret", "-pw"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize("name", ["--password-file", "topic", "PWD_DIR", "--no-password", "--passwd-stdin", "port"])
def test_names_of_other_things_are_not_secrets(name: str) -> None:
    assert not names_secret(name)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(), max_size=12), st.booleans())
def test_any_arguments_raise_nothing_and_keep_their_places(arguments: list[str], program: bool) -> None:
    line = ["mosquitto_pub", *arguments] if program else arguments
    assert len(redacted(line)) == len(line)
    joined_command_line(" ".join(line))
