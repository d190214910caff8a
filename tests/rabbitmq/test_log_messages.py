"""Single log messages: their envelope, the forms no node of 3.10.8 wrote for us, and the joining of two."""

from __future__ import annotations

import json

import pytest

from tests.rabbitmq.log_rendering import CONNECTION, PID
from topicwarden.events import NO_RESOURCE, Action, Resource, ResourceKind
from topicwarden_collectors.rabbitmq.log_facts import (
    ConnectionAccepted,
    Fact,
    LoginRefused,
    NodeStarted,
    NodeStopping,
    Refused,
    Suspicious,
    UserAuthenticated,
)
from topicwarden_collectors.rabbitmq.log_messages import (
    JOIN_CAPACITY,
    JOIN_NS,
    MAX_BODY_BYTES,
    LogJoiner,
    LogMessage,
    Undecodable,
    decode_log,
    facts,
    parse_time,
)
from topicwarden_collectors.rabbitmq.log_spelling import Spelling, name_of, printed_string, spelling_of

SECOND = 10**9


def say(text: str, pid: str = PID, time_ns: int = SECOND) -> LogMessage:
    return LogMessage(time_ns, "error", text, "rabbitmq", pid)


def one(text: str, spelling: Spelling = Spelling.BYTES) -> Fact:
    (fact,) = facts(say(text), spelling)
    return fact


def test_a_message_has_time_level_text_domain_and_process() -> None:
    body = (
        b'{"time":"2026-11-23 12:23:37.513396+00:00","level":"info","msg":"a\\nb","domain":"rabbitmq","pid":"<0.1.0>"}'
    )
    assert decode_log(body) == LogMessage(1795436617513396000, "info", "a\nb", "rabbitmq", "<0.1.0>")


def test_crash_reports_have_no_domain() -> None:
    assert decode_log(b'{"time":"2026-11-23 12:00:00+00:00","level":"error","msg":"","pid":"<0.1.0>"}') == LogMessage(
        1795435200 * SECOND, "error", "", "", "<0.1.0>"
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"msg":"x"}', b'{"time":"2026-11-23 12:00:00+00:00"}', b'{"time":"now","msg":"x"}',
     b'{"time":"2026-11-23 12:00:00+00:00","msg":1}', b'{"time":true,"msg":"x"}', b"\xff\xfe", b"[" * 100_000,
     b'{"msg":"' + b"x" * MAX_BODY_BYTES + b'"}'],
    ids=lambda body: str(body[:20]),
)  # fmt: skip
def test_what_is_no_log_message_is_undecodable(body: bytes) -> None:
    assert isinstance(decode_log(body), Undecodable)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-23 12:00:00.000001+00:00", 1795435200 * SECOND + 1000),
        ("2026-11-23T14:00:00.5+02:00", 1795435200 * SECOND + SECOND // 2),
        ("2026-11-23T12:00:00Z", 1795435200 * SECOND),
        (1795435200, 1795435200 * SECOND),
        (1795435200000001, 1795435200 * SECOND + 1000),
        ("2026-13-23 12:00:00+00:00", None),
        ("2026-11-23 12:00:00", None),
        (-1, None),
        (None, None),
        (1.5, None),
    ],
)
def test_times_in_the_formatters_own_formats(value: object, expected: int | None) -> None:
    assert parse_time(value) == expected


def test_later_versions_say_which_permission_was_missing() -> None:
    """RabbitMQ 3.13 and later: read, not run."""
    head = f"Channel error on connection {PID} ({CONNECTION}, vhost: 'v', user: 'u'), channel 1:\n"
    fact = one(
        f"{head}operation queue.bind caused a channel exception access_refused:"
        " write access to queue 'q' in vhost 'v' refused for user 'u'",
        Spelling.TEXT,
    )
    assert isinstance(fact, Refused)
    assert (fact.permission, fact.resource) == ("write", Resource(ResourceKind.QUEUE, "q"))


@pytest.mark.parametrize(
    ("text", "action", "resource", "permission"),
    [
        ("MQTT topic access refused: write access to topic 'k' in exchange 'x' in vhost 'v' refused for user 'u'",
         Action.PUBLISH, Resource(ResourceKind.KEY, "k", within="x"), "topic"),
        ("MQTT topic access refused: read access to topic 'k' in exchange 'x' in vhost 'v' refused for user 'u'",
         Action.SUBSCRIBE, Resource(ResourceKind.BINDING, "k", within="x"), "topic"),
        ("MQTT resource access refused: configure access to queue 'q' in vhost 'v' refused for user 'u'",
         Action.CONFIGURE, Resource(ResourceKind.QUEUE, "q"), "configure"),
        ("MQTT resource access refused: write access to exchange 'x' in vhost 'v' refused for user 'u'",
         Action.PUBLISH, Resource(ResourceKind.EXCHANGE, "x"), "write"),
    ],
)  # fmt: skip
def test_later_versions_mqtt(text: str, action: Action, resource: Resource, permission: str) -> None:
    """RabbitMQ 3.13 and later: read, not run."""
    fact = one(text, Spelling.TEXT)
    assert isinstance(fact, Refused)
    assert (fact.action, fact.resource, fact.permission) == (action, resource, permission)


def test_later_versions_leave_the_process_out_of_connection_messages() -> None:
    """RabbitMQ 4: read, not run."""
    fact = one(f"connection {CONNECTION}: user 'ü' authenticated and granted access to vhost '/'", Spelling.TEXT)
    assert fact == UserAuthenticated(SECOND, PID, CONNECTION, "amqp", "ü", "/")
    fact = one(f"connection {CONNECTION} - a (b: user 'u' authenticated and granted access to vhost '/'", Spelling.TEXT)
    assert fact == UserAuthenticated(SECOND, PID, CONNECTION, "amqp", "u", "/")


@pytest.mark.parametrize("peer", ["[::1]:5", "[fe80::1%eth0]:5", "client-7.example:5", "10.1.2.3:65535"])
def test_peers_by_ipv6_and_by_name(peer: str) -> None:
    fact = one(f"accepting AMQP connection {PID} ({peer} -> {peer})")
    assert fact == ConnectionAccepted(SECOND, PID, f"{peer} -> {peer}", "amqp")


def test_a_backend_that_cannot_answer_refuses() -> None:
    fact = one(
        f"Channel error on connection {PID} ({CONNECTION}, vhost: 'v', user: 'u'), channel 1:\n"
        "operation basic.get caused a channel exception access_refused: access to queue 'q' in vhost 'v'"
        " refused for user 'u', backend rabbit_auth_backend_http returned an error: {timeout,1}"
    )
    assert isinstance(fact, Refused)
    assert (fact.resource, fact.reason) == (Resource(ResourceKind.QUEUE, "q"), "permission")


def test_a_refusal_for_a_reason_we_do_not_know_names_no_resource() -> None:
    fact = one(
        f"Channel error on connection {PID} ({CONNECTION}, vhost: 'v', user: 'u'), channel 1:\n"
        "operation basic.get caused a channel exception access_refused: it is raining"
    )
    assert isinstance(fact, Refused)
    assert (fact.resource, fact.reason, fact.permission) == (NO_RESOURCE, "other", None)


def test_a_channel_error_in_no_known_form_is_told_and_not_read() -> None:
    (fact,) = facts(say("Channel error on connection something else entirely"))
    assert isinstance(fact, Suspicious)
    assert fact.kind == "unreadable"


def test_the_node_starts_and_stops() -> None:
    assert one("\n Starting RabbitMQ 3.10.8 on Erlang 25.2.3 [jit]\n Copyright") == NodeStarted(
        SECOND, PID, None, "3.10.8"
    )
    assert one("RabbitMQ is asked to stop...") == NodeStopping(SECOND, PID, None)


@pytest.mark.parametrize(
    ("version", "spelling"),
    [("3.10.8", Spelling.BYTES), ("3.9", Spelling.BYTES), ("3.11.3", Spelling.UNKNOWN), ("3.12.0", Spelling.TEXT),
     ("4.1.0-rc.1", Spelling.TEXT), ("", Spelling.UNKNOWN), (None, Spelling.UNKNOWN), ("x", Spelling.UNKNOWN)],
)  # fmt: skip
def test_how_a_version_spells_names(version: str | None, spelling: Spelling) -> None:
    assert spelling_of(version) is spelling


def test_names_beyond_ascii() -> None:
    assert name_of("Ã©", Spelling.BYTES) == "é"
    assert name_of("Ã©", Spelling.TEXT) == "Ã©"
    assert name_of("Ã©", Spelling.UNKNOWN) is None
    assert name_of("\xff", Spelling.BYTES) == "\udcff"
    assert name_of("€", Spelling.BYTES) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [('"a\\"b\\\\\\n"', 'a"b\\\n'), ("[97,98,\n  99]", "abc"), ("[]", ""), ('"ab"\n   "cd"', "abcd"),
     ('<<"ab">>', "ab"),
     ('<<"ab"/utf8>>', "ab"), ("<<97,98>>", "ab"), ('"a" x', None), ("[97,x]", None), ('"a', None), ("", None),
     ("[99999999]", None), ('"\\x{41}\\101"', "AA")],
)  # fmt: skip
def test_strings_as_erlang_prints_them(text: str, expected: str | None) -> None:
    assert printed_string(text) == expected


MQTT_LOGIN = "MQTT login failed for user 'u', authentication failed: Refused"
CLOSING = f"MQTT connection {CONNECTION} is closing due to an authentication failure"


def test_an_mqtt_login_waits_for_its_connection() -> None:
    joiner = LogJoiner()
    assert not joiner.feed(say(MQTT_LOGIN))
    assert joiner.feed(say(CLOSING, "<0.9.0>"))[0].pid == "<0.9.0>"
    login, _ = joiner.feed(say(CLOSING))
    assert isinstance(login, LoginRefused)
    assert (login.connection, login.quoted_user) == (CONNECTION, "u")


def test_a_half_without_its_other_is_given_as_it_is_after_a_while() -> None:
    joiner = LogJoiner()
    joiner.feed(say(MQTT_LOGIN))
    assert not joiner.feed(say("something", "<0.9.0>", SECOND + JOIN_NS))
    (late,) = joiner.feed(say("something", "<0.9.0>", SECOND + JOIN_NS + 1))
    assert late.connection is None


def test_the_end_gives_what_still_waits_and_only_once() -> None:
    joiner = LogJoiner()
    joiner.feed(say(MQTT_LOGIN))
    assert len(joiner.flush()) == 1
    assert not joiner.flush()


def test_a_stomp_login_has_the_connection_its_process_accepted() -> None:
    joiner = LogJoiner()
    joiner.feed(say(f"accepting STOMP connection {PID} ({CONNECTION})"))
    (login,) = joiner.feed(say("STOMP login failed for user 'u': authentication failed"))
    assert login.connection == CONNECTION


def test_what_a_joiner_keeps_is_bounded_and_nothing_that_waits_is_lost() -> None:
    joiner = LogJoiner()
    given = 0
    for number in range(JOIN_CAPACITY + 100):
        joiner.feed(say(f"accepting STOMP connection <0.{number}.1> ({CONNECTION})", f"<0.{number}.1>"))
        given += len(joiner.feed(say(MQTT_LOGIN, f"<0.{number}.0>")))
    assert joiner.forgotten == 200
    assert given == 100
    assert len(joiner.flush()) == JOIN_CAPACITY


def test_one_process_that_fails_without_end_is_bounded_too() -> None:
    joiner = LogJoiner()
    given = sum(len(joiner.feed(say(MQTT_LOGIN))) for _ in range(100))
    assert given + len(joiner.flush()) == 100


def test_a_start_of_the_node_teaches_how_it_spells() -> None:
    joiner = LogJoiner()
    joiner.feed(say("\n Starting RabbitMQ 3.10.8 on Erlang 25.2.3"))
    (fact,) = joiner.feed(say("HTTP access denied: user 'Ã©' - invalid credentials"))
    assert isinstance(fact, LoginRefused)
    assert fact.quoted_user == "é"


def test_a_message_that_says_nothing_to_us_gives_nothing() -> None:
    body = json.dumps({"time": 1, "msg": "Created user 'Channel error on connection'", "pid": PID}).encode()
    message = decode_log(body)
    assert isinstance(message, LogMessage)
    assert not facts(message)


@pytest.mark.parametrize(("vhost", "user"), [("v", "w"), ("w", "u")])
def test_an_explanation_about_somebody_else_than_its_own_beginning_names_nothing(vhost: str, user: str) -> None:
    fact = one(
        f"Channel error on connection {PID} ({CONNECTION}, vhost: 'v', user: 'u'), channel 1:\n"
        f"operation basic.get caused a channel exception access_refused: access to queue 'q' in vhost '{vhost}'"
        f" refused for user '{user}'"
    )
    assert isinstance(fact, Refused)
    assert (fact.resource, fact.reason) == (NO_RESOURCE, "other")
