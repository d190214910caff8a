from __future__ import annotations

from pathlib import Path

import pytest

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq.address import Address, parse_address

NOBODY = SourceOptions()


def refused(source: str, options: SourceOptions = NOBODY) -> Problem:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(source, options)
    (problem,) = caught.value.problems
    assert problem.hint
    return problem


@pytest.mark.parametrize(
    ("source", "host", "port", "vhost", "text"),
    [
        ("amqp://h", "h", 5672, "/", "amqp://h:5672"),
        ("amqp://h/", "h", 5672, "/", "amqp://h:5672"),
        ("amqp://h/%2F", "h", 5672, "/", "amqp://h:5672"),
        ("amqp://h:7/prod", "h", 7, "prod", "amqp://h:7/prod"),
        ("amqp://h/a%2Fb%20c", "h", 5672, "a/b c", "amqp://h:5672/a%2Fb%20c"),
        ("amqp://[::1]:9", "::1", 9, "/", "amqp://[::1]:9"),
        ("amqps://h", "h", 5671, "/", "amqps://h:5671"),
    ],
)
def test_an_address_says_host_port_and_virtual_host(source: str, host: str, port: int, vhost: str, text: str) -> None:
    address = parse_address(source, NOBODY)
    assert (address.host, address.port, address.vhost, address.text) == (host, port, vhost, text)
    assert (address.tls is not None) == source.startswith("amqps")
    assert (address.mode, address.firehose, address.definitions, address.management) == ("auto", (), None, None)


def test_parameters_say_what_to_observe() -> None:
    address = parse_address(
        "amqp://h/x?mode=stock&firehose=prod,a%2Cb,prod,&definitions=%2Fetc%2Fd.json&management=http://h:15672/", NOBODY
    )
    assert address.mode == "stock"
    assert address.firehose == ("prod", "a,b")
    assert address.definitions == Path("/etc/d.json")
    assert address.management == "http://h:15672"
    assert address.parameters["mode"] == "stock"
    assert "mode" not in address.text


def test_user_and_password_come_from_the_address_the_options_and_the_file(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("s3cret\nsecond line")
    options = SourceOptions(username="from-options", password_file=tmp_path / "pw")
    address = parse_address("amqp://us%40er@h", options)
    assert (address.username, address.password) == ("us@er", "s3cret")
    assert parse_address("amqp://h", options).username == "from-options"
    assert "s3cret" not in repr(address) + address.text


@pytest.mark.parametrize(
    "source",
    [
        "amqp://user:s3cret@h",
        "amqp://user:s3cret@h:port",
        "amqp://user:s3cret@h/a/b",
        "amqp://user:s3cret@/",
        "http://user:s3cret@h",
        "amqp://user:s3cret@h?mode=x&password=s3cret",
        "amqp://h?management=http://user:s3cret@h:15672",
        "amqp://h?password=s3cret",
        "user:s3cret@h",
    ],
)
def test_no_message_repeats_a_password(source: str) -> None:
    assert "s3cret" not in str(refused(source))


def test_a_password_in_the_address_is_refused_with_the_way_to_give_one() -> None:
    problem = refused("amqp://user:s3cret@h")
    assert "password" in problem.message
    assert "--password-file" in str(problem.hint)


def test_an_unknown_parameter_is_refused_with_the_known_ones() -> None:
    problem = refused("amqp://h?tracing=on")
    assert "'tracing'" in problem.message
    assert problem.hint == "known are mode, firehose, definitions, management"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("amqp://h?mode=loud", "no mode"),
        ("amqp://h?mode=stock&mode=auto", "given twice"),
        ("amqp://h?definitions=", "has no value"),
        ("amqp://h?management=ftp://h", "management API"),
        ("amqp://h?management=http://[", "management API"),
        ("amqp://user@h", "no password for 'user'"),
        ("amqp://h:99999", "no address"),
        ("amqp://h#x", "no address"),
    ],
)
def test_what_makes_no_sense_is_said(source: str, words: str) -> None:
    assert words in refused(source).message


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert refused("amqp://u@h", SourceOptions(password_file=missing)).file == str(missing)
    assert refused("amqps://h", SourceOptions(cafile=missing)).file == str(missing)
    (tmp_path / "pw").write_bytes(b"\xff")
    assert "UTF-8" in refused("amqp://u@h", SourceOptions(password_file=tmp_path / "pw")).message
    (tmp_path / "pw").write_text("x")
    assert "without a user" in refused("amqp://h", SourceOptions(password_file=tmp_path / "pw")).message


def test_an_address_made_by_hand_has_no_surprises() -> None:
    assert Address("h", 5672).text == "amqp://h:5672"
