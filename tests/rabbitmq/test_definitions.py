"""Definitions as RabbitMQ exports them, as older versions did, and as nobody should."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.errors import ConfigurationError
from topicwarden_collectors.rabbitmq import definitions as module
from topicwarden_collectors.rabbitmq.definitions import User, read_definitions
from topicwarden_collectors.rabbitmq.node import Node, quoted
from topicwarden_collectors.rabbitmq.permissions import Permission, TopicPermission

GOLDEN = Path(__file__).with_name("golden_definitions")
EXPORTS = sorted(path for path in GOLDEN.glob("*.json") if ".read" not in path.name and ".advice" not in path.name)


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_an_export_is_read_as_its_golden_file_says(path: Path) -> None:
    read = json.loads(json.dumps(asdict(read_definitions(path, name=path.name))))
    assert read == json.loads(path.with_suffix(".read.json").read_text())


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_no_password_hash_survives_the_reading(path: Path) -> None:
    hashes = [user.get("password_hash") for user in json.loads(path.read_text()).get("users", ())]
    read = repr(read_definitions(path))
    assert not any(hash_ and hash_[:12] in read for hash_ in hashes)


def test_passwords_that_are_guest_or_the_users_own_name_are_told_by_their_hash(rabbit: Node) -> None:
    people = {"def-guest": "guest", "def-same": "def-same", "def-good": "k2!", "def-none": None}
    try:
        for name, password in people.items():
            body = {"password_hash": "", "tags": ""} if password is None else {"password": password, "tags": "a, b"}
            rabbit.api("PUT", f"/users/{name}", body)
        read = read_definitions(json.dumps(rabbit.api("GET", "/definitions")))
    finally:
        for name in people:
            rabbit.api("DELETE", f"/users/{name}")
    assert {user for user in read.users if user.name in people} == {
        User("def-guest", ("a", "b"), True, "guest"),
        User("def-same", ("a", "b"), True, "def-same"),
        User("def-good", ("a", "b"), True, None),
        User("def-none", (), False, None),
    }


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "md5"])
def test_every_hashing_algorithm_of_rabbitmq_is_known(rabbit: Node, algorithm: str) -> None:
    module_name = f"rabbit_password_hashing_{algorithm}"
    # The node hashes with the algorithm it is told, so the hash is its own work.
    hashed = rabbit.script(
        "rabbitmqctl", "eval", f'base64:encode(rabbit_password:hash({module_name}, <<"guest">>)).'
    ).strip()
    text = json.dumps(
        {"users": [{"name": "a", "password_hash": hashed.strip('<>"'), "hashing_algorithm": module_name}]}
    )
    assert read_definitions(text).users == [User("a", (), True, "guest")]


def test_what_the_node_has_is_what_is_read(rabbit: Node) -> None:
    vhost = "def'initions\n\"é"
    rabbit.add_vhost(vhost)
    try:
        rabbit.api("PUT", f"/exchanges/{quoted(vhost)}/x", {"type": "topic", "internal": True, "durable": True})
        rabbit.permit_topics("operator", vhost, "x", "^a", "")
        read = read_definitions(json.dumps(rabbit.api("GET", "/definitions")))
        alone = read_definitions(json.dumps(rabbit.api("GET", f"/definitions/{quoted(vhost)}")), vhost=vhost)
    finally:
        rabbit.api("DELETE", f"/vhosts/{quoted(vhost)}")
    (granted,) = (one for one in read.permissions if one.vhost == vhost)
    assert (granted.user, granted.permission) == ("operator", Permission(".*", ".*", ".*"))
    (topic,) = (one for one in read.topic_permissions if one.vhost == vhost)
    assert (topic.exchange, topic.permission) == ("x", TopicPermission("^a", ""))
    (exchange,) = (one for one in read.exchanges if one.vhost == vhost)
    assert (exchange.name, exchange.type, exchange.internal) == ("x", "topic", True)
    assert not alone.whole
    assert list(alone.exchanges) == [exchange]
    assert [one.name for one in alone.vhosts] == [vhost]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "it is no JSON", 1),
        ("{\n!", "it is no JSON", 2),
        ("[]", "no definitions", None),
        ("{}", "no definitions", None),
        ("7", "no definitions", None),
        ('{"rabbit_version": NaN}', "no JSON", None),
        ("[" * 100_000, "nested too deeply", None),
        ('{"users": 1}', "users is no list", None),
        ('{"users": [1]}', "entry 1 of users is no object", None),
        ('{"users": [{"name": "a"}, {}]}', "entry 2 of users lacks 'name'", None),
        ('{"users": [{"name": 1}]}', "has no text as 'name'", None),
        ('{"users": [{"name": "a", "tags": 5}]}', "'tags'", None),
        ('{"users": [{"name": "a", "tags": [5]}]}', "'tags'", None),
        ('{"permissions": [{"user": "a", "vhost": "/", "configure": "", "write": ""}]}', "lacks 'read'", None),
        ('{"vhosts": [], "queues": [{"name": "a"}]}', "entry 1 of queues lacks 'vhost'", None),
        ('{"vhosts": [], "queues": [{"name": "a", "vhost": "/", "arguments": 3}]}', "'arguments'", None),
        (b"\xff\xfe\xfd", "no JSON in UTF-8", None),
        ('{"rabbit_version": ' + "9" * 5000 + "}", "no JSON", None),
    ],
)
def test_what_is_no_export_is_an_error_that_says_where(text: str, message: str, line: int | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_definitions(text, name="defs.json")
    problem = caught.value.problems[0]
    assert message in problem.message
    assert (problem.file, problem.line) == ("defs.json", line)
    assert problem.hint


def test_all_problems_of_a_file_are_told_at_once_but_not_without_end() -> None:
    rows: list[dict[str, str]] = [{} for _ in range(1000)]
    with pytest.raises(ConfigurationError) as caught:
        read_definitions(json.dumps({"users": rows, "queues": rows}))
    assert len(caught.value.problems) == module.MAX_PROBLEMS


def test_files_and_lists_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    with pytest.raises(ConfigurationError, match="more than 3 entries"):
        read_definitions(json.dumps({"users": [{"name": "a"}] * 2, "vhosts": [{"name": "a"}] * 2}))
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    (tmp_path / "d.json").write_text(json.dumps({"users": []}))
    with pytest.raises(ConfigurationError, match="larger than"):
        read_definitions(tmp_path / "d.json")


def test_a_path_that_is_no_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigurationError) as caught:
            read_definitions(path)
        assert caught.value.problems[0].hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("name", "tags", "vhost", "user", "configure", "write", "read", "exchange", "type", "arguments", "source")
MORE_KEYS = ("destination", "destination_type", "routing_key", "password_hash", "hashing_algorithm")
ROWS = st.dictionaries(st.sampled_from([*KEYS, *MORE_KEYS]), JSON, max_size=8)
SECTIONS = st.sampled_from([*module._SECTIONS, "rabbit_version"])


@given(st.dictionaries(SECTIONS, st.lists(ROWS | JSON, max_size=4) | JSON, max_size=5))
def test_any_other_content_is_read_or_refused_cleanly(document: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigurationError):
        read_definitions(json.dumps(document))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_cleanly(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read_definitions(data)
