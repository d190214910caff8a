"""The log decoder line by line: what each line makes, and what it must not."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mosquitto.logs.record import FOLDER, decode, rows_of
from topicwarden.events import Table, Tables
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.log_blind_spots import log_blind_spots
from topicwarden_collectors.mosquitto.log_decode import LogDecoder

PROOF = "Received SUBSCRIBE from w\n\tx (QoS 0)\nw 0 x\nSending SUBACK to w\n"
"""Lines that prove that the log has debug lines, and that it has lines of type subscribe."""


class Decoding:
    """One decoder fed text, and what came of it."""

    def __init__(self, **options: Any) -> None:
        self.counters = Counters()
        options.setdefault("base_ns", 7)
        self.decoder = LogDecoder(Tables(), "b", zone=options.pop("zone", UTC), counters=self.counters, **options)
        self.rows: list[dict[str, Any]] = []

    def feed(self, text: str | bytes, stamp: str = "1700000000: ") -> Decoding:
        data = text if isinstance(text, bytes) else text.encode()
        if stamp:
            data = b"".join(stamp.encode() + line + b"\n" for line in data.removesuffix(b"\n").split(b"\n"))
        self.decoder.feed(data)
        self._take()
        return self

    def _take(self) -> None:
        while True:
            self.rows += rows_of(self.decoder.take())
            if not self.decoder.backlog:
                return

    def end(self) -> list[dict[str, Any]]:
        self.decoder.finish()
        self._take()
        return self.rows

    @property
    def events(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "action" in row]

    @property
    def publishes(self) -> list[tuple[str, str, str, str]]:
        return [
            (row["client"]["client_id"], row["resource"]["name"], row["outcome"], row["certainty"])
            for row in self.events
            if row["action"] == "publish"
        ]

    @property
    def notices(self) -> list[tuple[str, str]]:
        return [(row["notice"], row["scope"]) for row in self.rows if "notice" in row]


def decoded(text: str | bytes, stamp: str = "1700000000: ", **options: Any) -> Decoding:
    decoding = Decoding(**options).feed(text, stamp)
    decoding.end()
    return decoding


def publish(client_id: str = "c", topic: str = "t", qos: int = 0, mid: int = 0, verb: str = "Received") -> str:
    return f"{verb} PUBLISH from {client_id} (d0, q{qos}, r0, m{mid}, '{topic}', ... (5 bytes))"


NOON = 1_795_435_200
"""2026-11-23T12:00:00Z."""


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1795435200: ", NOON),
        ("12: ", 12),
        ("2026-11-23T12:00:00: ", NOON),
        ("2026-11-23 12:00:00: ", NOON),
        ("2026-11-23T12:00:00Z: ", NOON),
        ("2026-11-23T14:00:00+0200: ", NOON),
        ("2026-11-23T07:30:00-04:30: ", NOON),
        ("23.11.2026 12:00:00: ", NOON),
        ("Nov 23 12:00:00: ", NOON),
        ("Nov 23 12:00:00 host mosquitto[123]: ", NOON),
        ("<29>Nov  3 12:00:00 host mosquitto[1]: ", NOON - 20 * 86400),
        ("2026-11-23T12:00:00.250000+00:00 host mosquitto[123]: ", NOON + 0.25),
        ("Nov 23 11:59:59 host mosquitto[123]: 1795435200: ", NOON),
        ("Nov 23 11:59:59 host mosquitto[123]: 2026-11-23T12:00:00: ", NOON),
    ],
)
def test_a_timestamp_is_understood(stamp: str, seconds: float) -> None:
    decoding = decoded(publish(), stamp, base_ns=NOON * 10**9)
    assert [row["time_ns"] for row in decoding.events] == [round(seconds * 1000) * 10**6]
    assert not decoding.counters.decode_errors


def test_a_time_without_zone_is_in_the_zone_given() -> None:
    decoding = decoded(publish(), "2026-07-01T12:00:00: ", zone=ZoneInfo("Europe/Berlin"))
    assert [row["time_ns"] for row in decoding.events] == [1_782_900_000 * 10**9]


def test_a_log_without_times_gets_the_base_and_is_said_to() -> None:
    decoding = decoded(publish(), "", base_ns=42)
    assert [row["time_ns"] for row in decoding.events] == []  # no line feed: an unfinished line
    decoding = decoded(publish() + "\n", "", base_ns=42)
    assert [row["time_ns"] for row in decoding.events] == [42]
    assert any("carry no time" in spot.what for spot in log_blind_spots(decoding.decoder))


def test_a_syslog_year_is_the_one_that_is_not_in_the_future() -> None:
    for stamp, seconds in (("Dec 31 23:59:59", 1_767_225_599), ("Jan  1 00:00:00", 1_767_225_600)):
        decoding = decoded(publish(), f"{stamp} host mosquitto[1]: ", base_ns=1_767_225_700 * 10**9)
        assert [row["time_ns"] for row in decoding.events] == [seconds * 10**9]


def test_other_programs_in_syslog_are_passed_over() -> None:
    line = "Nov 23 12:00:00 host {}[1]: " + publish() + "\n"
    log = line.format("mosquitto") + line.format("evil") + line.format("mosquitto")
    decoding = decoded(log, "", base_ns=NOON * 10**9)
    assert len(decoding.publishes) == 2
    assert not decoding.counters.decode_errors


def test_nothing_read_from_syslog_is_exact() -> None:
    decoding = Decoding(base_ns=NOON * 10**9)
    for line in (PROOF + publish("w") + "\n").splitlines():
        escaped = line.replace("\t", "#011")
        decoding.feed(f"Nov 23 12:00:00 host mosquitto[1]: {escaped}\n", "")
    decoding.end()
    assert {row["certainty"] for row in decoding.events} == {"inferred"}
    assert len(decoding.events) == 2


@pytest.mark.parametrize(
    "stamp", ["99999999999999999999: ", "9999999999: ", "2026-13-45T99:99:99: ", "Foo 99 12:00:00: "]
)
def test_a_time_that_cannot_be_is_counted_not_raised(stamp: str) -> None:
    decoding = decoded(publish(), stamp)
    assert not decoding.events
    assert decoding.counters.decode_errors == {"format": 1}


def test_a_line_in_another_format_than_the_log_is_no_line_of_the_brokers() -> None:
    log = f"1700000000: {publish('a')}\n{publish('forged')}\n2026-11-23T12:00:00: {publish('forged')}\n"
    decoding = decoded(log, "")
    assert [client_id for client_id, *_ in decoding.publishes] == ["a"]
    assert decoding.counters.decode_errors == {"format": 2}


def test_a_restarted_broker_may_write_another_format() -> None:
    restart = "2026-11-23T12:00:00: mosquitto version 2.0.11 starting\n"
    decoding = decoded(f"1700000000: {publish('a')}\n{restart}2026-11-23T12:00:01: {publish('b')}\n", "")
    assert [client_id for client_id, *_ in decoding.publishes] == ["a", "b"]


def test_a_format_that_changes_unsaid_is_taken_up_after_a_while() -> None:
    log = f"1700000000: {publish('a')}\n" + f"2026-11-23T12:00:00: {publish('b')}\n" * 100
    assert len(decoded(log, "").publishes) > 60


def test_a_broker_that_begins_to_write_times_is_followed_after_a_while() -> None:
    log = f"{publish('a')}\n" * 3 + f"1700000000: {publish('b')}\n" * 100 + f"{publish('c')}\n" * 3
    decoding = decoded(log, "")
    clients = [client_id for client_id, *_ in decoding.publishes]
    assert clients.count("a") == 3
    assert clients.count("b") > 60
    assert clients.count("c") == 0


def test_only_line_feeds_end_a_line() -> None:
    topic = "a\u2028Received PUBLISH from x\u0085\x0b\x0c\r\x1c\u2029b"
    decoding = decoded(publish("c", topic))
    assert [name for _, name, *_ in decoding.publishes] == [topic]


def test_exact_only_after_a_tabbed_line_has_proved_that_debug_lines_are_on() -> None:
    decoding = decoded(publish() + "\n" + PROOF + publish())
    assert [certainty for *_, certainty in decoding.publishes] == ["inferred", "exact"]


def test_a_reload_takes_the_proof_back() -> None:
    decoding = decoded(PROOF + publish() + "\nReloading config.\n" + publish())
    assert [certainty for *_, certainty in decoding.publishes] == ["exact", "inferred"]


CONNECT = (
    "New connection from 127.0.0.1:5 on port 1883.\nNew client connected from 127.0.0.1:5 as {} (p2, c1, k60{}).\n"
)


def test_a_debug_line_is_forged_when_connect_lines_show_that_there_are_none() -> None:
    decoding = decoded(CONNECT.format("a", "") + "New connection from 127.0.0.1:6 on port 1883.\n" + publish())
    assert not decoding.publishes
    assert decoding.notices == [("TW905", "log-type")]


def test_a_connect_line_with_its_will_line_takes_the_disproof_back() -> None:
    log = CONNECT.format("a", "") + CONNECT.format("b", "") + "No will message specified.\n" + publish("b")
    assert [client_id for client_id, *_ in decoded(log).publishes] == ["b"]


def test_a_plugin_that_refuses_what_the_acl_allowed_makes_one_denied_event() -> None:
    first, second = publish("c", "a", 1, 4), publish("c", "a", 1, 4, verb="Denied")
    decoding = decoded(f"{PROOF}{first}\n{second}\nSending PUBACK to c (m4, rc135)\n")
    assert decoding.publishes == [("c", "a", "denied", "exact")]
    assert decoding.counters.source["denied_after_acl"] == 1


def test_of_two_equal_publishes_of_qos_0_the_first_may_be_the_one_denied() -> None:
    decoding = decoded(PROOF + publish() + "\n" + publish(verb="Denied"))
    assert decoding.publishes == [("c", "t", "unknown", "unknown"), ("c", "t", "denied", "exact")]


def test_two_publishes_that_differ_are_two_events() -> None:
    decoding = decoded(PROOF + publish("c", "a") + "\n" + publish("c", "b", verb="Denied"))
    assert [(name, outcome) for _, name, outcome, _ in decoding.publishes] == [("a", "allowed"), ("b", "denied")]


def test_a_publish_acknowledged_before_an_equal_one_is_denied_stays_allowed() -> None:
    first, second = publish("c", "a", 1, 4), publish("c", "a", 1, 4, verb="Denied")
    decoding = decoded(f"{PROOF}{first}\nSending PUBACK to c (m4, rc0)\n{second}\nSending PUBACK to c (m4, rc135)\n")
    assert [(outcome, certainty) for *_, outcome, certainty in decoding.publishes] == [
        ("allowed", "exact"),
        ("denied", "exact"),
    ]


@pytest.mark.parametrize(
    "log",
    [
        publish("c", "t", 1, 4) + "\nSending PUBACK to c (m4, rc151)",
        publish("c", "t") + "\nRejected PUBLISH from c, quota exceeded.",
        publish("c", "t", verb="Dropped too large"),
    ],
)
def test_a_publish_dropped_for_another_reason_is_neither_allowed_nor_denied(log: str) -> None:
    decoding = decoded(PROOF + log)
    assert decoding.publishes == [("c", "t", "unknown", "unknown")]


TWO = publish("victim (d0, q1, r0, m7, 'a", "b", 1, 9)
"""Read in another way: client `victim`, topic `a (d0, q1, r0, m9, 'b`, message id 7."""


def test_a_line_with_two_readings_is_no_event_without_more_to_go_by() -> None:
    decoding = decoded(PROOF + TWO)
    assert not decoding.publishes
    assert decoding.counters.decode_errors == {"ambiguous": 1}
    assert decoding.notices == [("TW903", "ambiguous")]


@pytest.mark.parametrize(("client_id", "mid"), [("victim", 7), ("victim (d0, q1, r0, m7, 'a", 9)])
def test_the_acknowledgement_tells_which_reading_is_right(client_id: str, mid: int) -> None:
    decoding = decoded(f"{PROOF}{TWO}\nSending PUBLISH to other (d0, q0, r0, m0, 'x', ... (5 bytes))\n"
                       f"Sending PUBACK to {client_id} (m{mid}, rc0)")  # fmt: skip
    assert [(who, certainty) for who, _, _, certainty in decoding.publishes] == [(client_id, "inferred")]


def test_an_acknowledgement_of_another_message_does_not_decide() -> None:
    assert not decoded(f"{PROOF}{TWO}\nSending PUBACK to victim (m8, rc0)").publishes


START = "mosquitto version 2.0.11 starting\n"


def test_who_is_connected_tells_which_reading_is_right_if_all_connections_are_known() -> None:
    log = PROOF + CONNECT.format("victim", "") + "No will message specified.\nSending CONNACK to victim (0, 0)\n" + TWO
    assert [who for who, *_ in decoded(START + log).publishes] == ["victim"]
    assert not decoded(log).publishes


def test_message_ids_rule_out_readings_that_cannot_be() -> None:
    decoding = decoded(PROOF + publish("victim (d0, q0, r0, m7, 'a", "b"))
    assert [who for who, *_ in decoding.publishes] == ["victim (d0, q0, r0, m7, 'a"]


def line_of(length: int, begin: str, fill: str = "x") -> bytes:
    """Return a message that with its stamp is so many bytes long, cut in the middle of a character if need be."""
    return (begin + fill * length).encode()[: length - len("1700000000: ")]


def test_a_cut_topic_is_marked_as_cut_and_keeps_whole_characters() -> None:
    log = START + PROOF + CONNECT.format("c", "") + "No will message specified.\nSending CONNACK to c (0, 0)\n"
    decoding = decoded(log.encode() + line_of(999, "Received PUBLISH from c (d0, q0, r0, m0, 'aa", "é"))
    (row,) = [row for row in decoding.events if row["action"] == "publish"]
    name = row["resource"]["name"]
    assert set(name) == {"a", "é"}
    assert row["resource"]["length"] > len(name.encode())
    assert "size" not in row


def test_a_cut_line_may_be_one_long_client_id_and_is_no_event_then() -> None:
    decoding = decoded(PROOF.encode() + line_of(999, "Received PUBLISH from victim (d0, q0, r0, m0, 'a"))
    assert not decoding.publishes
    assert decoding.counters.decode_errors == {"ambiguous": 1}


def test_a_short_line_without_its_end_is_counted() -> None:
    decoding = decoded(PROOF + "Received PUBLISH from c (d0, q0, r0, m0, 'a")
    assert not decoding.publishes
    assert decoding.counters.decode_errors == {"unreadable": 1}


def test_a_line_too_long_for_any_broker_is_dropped_and_the_next_one_read() -> None:
    decoding = decoded("x" * 200_000 + "\n" + PROOF + publish())
    assert len(decoding.publishes) == 1
    assert decoding.counters.decode_errors == {"too_long": 1}


def test_an_unfinished_line_too_long_keeps_no_memory() -> None:
    decoding = Decoding()
    for _ in range(100):
        decoding.feed(b"y" * 10_000, "")
        assert decoding.decoder.unfinished <= 1 << 16
    decoding.feed("\n" + publish() + "\n", "")
    assert decoding.counters.decode_errors["too_long"] == 1


def test_a_subscription_without_its_grant_is_denied_if_this_log_shows_grants() -> None:
    log = "Received SUBSCRIBE from c\n\ta (QoS 1)\n\tb (QoS 1)\nc 1 b\nSending SUBACK to c\n"
    subscribed = [
        (row["resource"]["name"], row["outcome"], row["certainty"])
        for row in decoded(PROOF + log).events
        if row["client"]["client_id"] == "c"
    ]
    assert subscribed == [("a", "denied", "inferred"), ("b", "allowed", "exact")]
    without = decoded(log.replace("c 1 b\n", ""))
    assert {row["outcome"] for row in without.events} == {"unknown"}


def test_mosquitto_2_1_says_that_it_denied_a_subscription() -> None:
    log = "Received SUBSCRIBE from c\n\ta (denied)\n\tb (denied) (QoS 1)\nc 1 b (denied)\nSending SUBACK to c\n"
    assert [(row["resource"]["name"], row["outcome"], row["certainty"]) for row in decoded(log).events] == [
        ("a", "denied", "exact"),
        ("b (denied)", "allowed", "exact"),
    ]


def test_a_delivery_within_a_subscription_does_not_break_it_off() -> None:
    sending = "Sending PUBLISH to c (d0, q0, r1, m0, 'a', ... (5 bytes))\n"
    decoding = decoded(f"Received SUBSCRIBE from c\n\ta (QoS 1)\n{sending}c 1 a\nSending SUBACK to c\n")
    assert [row["outcome"] for row in decoding.events] == ["allowed"]
    assert decoding.counters.source["deliveries"] == 1


def test_deliveries_are_events_when_asked_for() -> None:
    sending = "Sending PUBLISH to c (d0, q2, r1, m8, 'a', ... (5 bytes))\n"
    (row,) = decoded(sending, deliveries=True).events
    assert (row["action"], row["outcome"], row["size"], row["qos"], row["retain"]) == ("deliver", "allowed", 5, 2, 1)


def test_a_unix_socket_has_a_path_and_no_port() -> None:
    log = (
        "New connection from /run/m q.sock:0 on port 0.\n"
        "New client connected from /run/m q.sock:0 as c (p2, c1, k60).\n"
    )
    (row,) = decoded(log).events
    assert row["client"]["address"] == "/run/m q.sock"
    assert "port" not in row["client"]


def test_an_ipv6_address_keeps_its_colons() -> None:
    (row,) = decoded("New client connected from fe80::1%eth0:1234 as c (p2, c1, k60, u'me').\n").events
    assert (row["client"]["address"], row["client"]["port"], row["client"]["user"]) == ("fe80::1%eth0", 1234, "me")


def test_a_user_name_with_two_readings_is_decided_by_the_acknowledgement() -> None:
    line = CONNECT.format("a", ", u'b (p2, c1, k60, u'c'") + "No will message specified.\n"
    assert not decoded(line).events
    (row,) = decoded(line + "Sending CONNACK to a (p2, c1, k60, u'b (0, 0)").events
    assert (row["client"]["client_id"], row["client"]["user"]) == ("a (p2, c1, k60, u'b", "c")


def test_a_cut_connect_line_whose_client_id_the_acknowledgement_confirms_has_no_user() -> None:
    line = line_of(999, "New client connected from 127.0.0.1:5 as c (p2, c1, k60, u'")
    (row,) = decoded(line + b"\nNo will message specified.\nSending CONNACK to c (0, 0)").events
    assert "user" not in row["client"]
    assert row["client"]["identity"] == "unknown"


def test_a_refusal_has_its_connections_port() -> None:
    log = (
        START + "New connection from 10.0.0.9:77 on port 1883.\nSending CONNACK to 10.0.0.9 (0, 5)\n"
        "Client <unknown> disconnected, not authorised.\n"
    )
    (row,) = decoded(log).events
    assert (row["action"], row["outcome"]) == ("authenticate", "denied")
    assert (row["client"]["address"], row["client"]["port"], row["client"]["client_id"]) == ("10.0.0.9", 77, "")


def test_a_refusal_under_the_id_of_a_connected_client_leaves_that_client_alone() -> None:
    log = (
        START + PROOF + CONNECT.format("admin", ", u'root'") + "No will message specified.\n"
        "Sending CONNACK to admin (0, 0)\nNew connection from 10.0.0.9:77 on port 1883.\n"
        "Sending CONNACK to admin (0, 5)\nClient admin [10.0.0.9:77] disconnected: not authorised.\n" + publish("admin")
    ).replace("2.0.11", "2.1.2")
    decoding = decoded(log)
    refused = decoding.events[-2]
    assert (refused["action"], refused["client"]["address"]) == ("authenticate", "10.0.0.9")
    assert "user" not in refused["client"]
    assert refused["client"]["identity"] == "claimed"
    assert decoding.events[-1]["client"]["user"] == "root"


def test_connections_turned_away_are_denied() -> None:
    (row,) = decoded("Client connection from 10.0.0.9 denied: max_connections exceeded.").events
    assert (row["action"], row["outcome"], row["client"]["address"]) == ("connect", "denied", "10.0.0.9")


def test_only_mosquitto_2_1_puts_the_address_behind_the_client_id() -> None:
    connect = CONNECT.format("a", "") + "No will message specified.\n"
    end = "Client a [127.0.0.1:5] disconnected."
    old = decoded(START + connect + end)
    assert [row["client"]["client_id"] for row in old.events] == ["a", "a [127.0.0.1:5]"]
    new = decoded(START.replace("2.0.11", "2.1.2") + connect + end)
    assert [row["client"]["client_id"] for row in new.events] == ["a", "a"]


def test_an_end_by_a_system_error_is_understood() -> None:
    connect = CONNECT.format("a disconnected", "") + "No will message specified.\n"
    decoding = decoded(connect + "Client a disconnected disconnected: Connection reset by peer.")
    assert [row["action"] for row in decoding.events] == ["connect", "disconnect"]
    assert decoding.events[1]["client"]["client_id"] == "a disconnected"


def test_clients_are_forgotten_when_there_are_too_many_and_that_is_counted() -> None:
    decoding = Decoding(capacity=10)
    for number in range(100):
        decoding.feed(
            CONNECT.format(f"c{number}", ", u'u'").replace(":5 ", f":{number + 1} ") + "No will message specified."
        )
    decoding.end()
    assert len(decoding.decoder.sessions) == 10
    assert decoding.decoder.sessions.forgotten == 90


def test_a_client_named_like_a_start_of_the_broker_does_not_blind_us() -> None:
    forged = CONNECT.format("mosquitto version", "") + "mosquitto version 9 starting\n"
    decoding = decoded(CONNECT.format("a", ", u'me'") + forged + "a 0 t\n")
    assert [row["action"] for row in decoding.events] == ["connect", "connect", "subscribe"]
    assert decoding.events[-1]["client"]["user"] == "me"
    assert decoding.notices == [("TW903", "ambiguous")]


def test_a_protocol_name_with_line_breaks_grants_nothing() -> None:
    log = CONNECT.format("a", "") + 'Invalid protocol "x\na 0 t" in CONNECT from 10.0.0.9.\n'
    decoding = decoded(log, "")
    assert [row["action"] for row in decoding.events] == ["connect"]
    assert decoding.notices == [("TW905", "protocol-name")]


def test_a_message_of_the_log_topics_is_what_its_topic_says() -> None:
    decoding = Decoding()
    decoding.decoder.message("N", b"1700000000: New client connected from 10.0.0.9:7 as New (p2, c1, k60, u'me').")
    forged = b"1700000000: New client connected from 1.1.1.1:1 as admin (p2, c1, k60, u'x 0 root')."
    decoding.decoder.message("M/subscribe", forged)
    decoding.decoder.message("M/unsubscribe", b"1700000000: New t")
    decoding.decoder.message("M/subscribe", b"1700000000: New 1 t")
    decoding.end()
    assert [(row["action"], row["client"]["client_id"], row["certainty"]) for row in decoding.events] == [
        ("connect", "New", "exact"),
        ("subscribe", "New client connected from 1.1.1.1:1 as admin (p2, c1, k60, u'x", "exact"),
        ("unsubscribe", "New", "unknown"),
        ("subscribe", "New", "exact"),
    ]


def test_a_line_break_in_a_message_of_the_log_topics_stays_in_the_name() -> None:
    decoding = Decoding()
    line = b"1700000000: New client connected from 10.0.0.9:7 as c (p2, c1, k60, u'evil\n1700000000: forged')."
    decoding.decoder.message("N", line)
    decoding.end()
    assert [row["client"]["user"] for row in decoding.events] == ["evil\n1700000000: forged"]
    assert decoding.notices == [("TW905", "user-name")]


def test_small_tables_only_make_smaller_batches() -> None:
    decoder = LogDecoder(Tables(Table(48), Table(48)), "b", zone=UTC)
    log = (FOLDER / "hostile.log").read_bytes()
    decoder.feed(log)
    rows = []
    batches = 0
    while decoder.backlog:
        rows += rows_of(decoder.take())
        batches += 1
    decoder.finish()
    rows += rows_of(decoder.take())
    assert batches > 1
    wanted = [row for row in decode(log)[0] if "action" in row]
    assert [row["action"] for row in rows if "action" in row] == [row["action"] for row in wanted]


def test_a_gap_is_said_and_takes_back_what_was_proved() -> None:
    decoding = Decoding().feed(PROOF + publish())
    decoding.decoder.gap(5, "log", why="a test")
    decoding.feed(publish())
    decoding.end()
    assert [certainty for *_, certainty in decoding.publishes] == ["exact", "inferred"]
    assert decoding.notices == [("TW901", "log")]
    assert decoding.counters.gaps == 1


def test_notices_are_bounded_and_what_is_left_out_is_counted() -> None:
    decoding = Decoding()
    for number in range(200):
        decoding.decoder.sink.notice("TW903", f"scope {number}", 1)
    decoding.end()
    assert len(decoding.notices) == 64
    assert decoding.counters.source["notices_dropped"] == 136


WORDS = [
    b"1700000000: ",
    b"\n",
    b"\t",
    b"Received PUBLISH from ",
    b"Denied PUBLISH from ",
    b" (d0, q0, r0, m0, '",
    b" (d0, q1, r0, m1, '",
    b"', ... (5 bytes))",
    b"Sending PUBACK to ",
    b" (m1, rc0)",
    b"Received SUBSCRIBE from ",
    b" (QoS 0)",
    b" 0 ",
    b"Sending SUBACK to ",
    b"New client connected from ",
    b"1.2.3.4:5 as ",
    b" (p2, c1, k60",
    b", u'",
    b"').",
    b").",
    b"No will message specified.",
    b"Will message specified (5 bytes) (r0, q0).",
    b"Client ",
    b" disconnected.",
    b" closed its connection.",
    b"<unknown>",
    b" disconnected, not authorised.",
    b"\xff",
    b"\xe2\x80",
    b"mosquitto version 2.0.11 starting",
    b"Reloading config.",
    b"Sending CONNACK to ",
    b" (0, 0)",
    b" (0, 5)",
    b"a",
    b"b",
    b'Invalid protocol "',
    b'" in CONNECT from ',
    b"x" * 990,
    b"x" * 70000,
    b"New connection from ",
    b" on port 1.",
    b"\x00",
    b" already connected, closing old connection.",
    b"Nov 23 08:00:00 h mosquitto[1]: ",
    b"2026-11-23T08:00:00: ",
    b"Sending PUBLISH to ",
    b"Received UNSUBSCRIBE from ",
    b"Sending UNSUBACK to ",
    b"Rejected PUBLISH from ",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=8)), max_size=60), st.booleans())
def test_no_bytes_raise_and_no_name_is_made_up(words: list[bytes], stamped: bool) -> None:
    data = b"".join(words)
    if stamped:
        data = b"1700000000: " + data.replace(b"\n", b"\n1700000000: ")
    decoding = Decoding()
    decoding.feed(data, "")
    decoding.decoder.settle()
    decoding.end()
    for row in decoding.events:
        for name in (row["client"]["client_id"], row["client"].get("user"), row.get("resource", {}).get("name")):
            assert name is None or name.encode("utf-8", "surrogateescape") in data
    assert decoding.counters.events == len(decoding.events)
    assert not decoding.decoder.waiting


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["N", "M/subscribe", "M/unsubscribe", "E", "WS", ""]), st.sampled_from(WORDS),
                          st.sampled_from(WORDS), st.binary(max_size=20)), max_size=20))  # fmt: skip
def test_no_message_of_the_log_topics_raises(messages: list[tuple[str, bytes, bytes, bytes]]) -> None:
    decoding = Decoding()
    for level, *words in messages:
        decoding.decoder.message(level, b"1700000000: " + b"".join(words))
    decoding.end()
