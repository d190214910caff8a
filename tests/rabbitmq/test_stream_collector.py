"""What the collector does with messages, without a broker: clusters, floods of forgeries, silence."""

from __future__ import annotations

from typing import Any

import pytest
from pika.spec import BasicProperties

from tests.rabbitmq import stream_writer as wire
from tests.rabbitmq.stream_stage import Seen
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.link import Delivery, LinkChange, LinkKind, News, Subscription
from topicwarden_collectors.rabbitmq.stream import StreamCollector
from topicwarden_collectors.rabbitmq.stream_layout import EXCHANGE

SUBSCRIPTION = Subscription("/", EXCHANGE, "")


def message(body: bytes, node: str = "n1", exchange: str = EXCHANGE, headers: dict[str, Any] | None = None) -> Delivery:
    return Delivery(SUBSCRIPTION, exchange, node, False, BasicProperties(headers=headers), body, len(body))


def link_change(kind: LinkKind) -> LinkChange:
    return LinkChange(kind, "/", "reason", 1, SUBSCRIPTION)


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr("topicwarden_collectors.rabbitmq.stream.time.monotonic", lambda: self.seconds)


def step(collector: StreamCollector, *news: News) -> Seen:
    seen = Seen()
    for batch in collector._step(news):
        seen.take(batch)
    return seen


def collector() -> StreamCollector:
    return StreamCollector(Address("hive", 5672))


def test_the_nodes_of_a_cluster_are_told_apart_by_their_routing_keys() -> None:
    reader = collector()
    first, second = wire.Producer(boot=1), wire.Producer(boot=2)
    key = wire.resource(2, "key", "k", "e")
    rows = []
    for turn in range(4):
        definitions = ([wire.actor(1, "alice"), key], [wire.actor(1, "bob"), key]) if turn == 0 else ([], [])
        seen = step(
            reader,
            message(first.batch(definitions[0], [wire.event(wire.START_US + turn)]), "n1"),
            message(second.batch(definitions[1], [wire.event(wire.START_US + turn)]), "n2"),
        )
        assert not seen.notices
        rows += seen.rows
    rows += step(reader).rows
    assert [row["client"]["user"] for row in rows].count("alice") == 4
    assert [row["client"]["user"] for row in rows].count("bob") == 4
    assert reader.counters.lost == 0


def test_more_nodes_than_a_cluster_has_are_an_error_and_take_no_room() -> None:
    reader = collector()
    step(reader, *(message(wire.Producer(boot=i).batch(), f"n{i}") for i in range(200)))
    assert len(reader._nodes) <= 64
    assert reader.counters.decode_errors["node"] == 200 - len(reader._nodes)


def test_a_flood_of_forgeries_makes_few_notices_that_count_them_all() -> None:
    seen = step(collector(), *(message(b"x", exchange=f"mallory-{i}") for i in range(500)))
    assert sum(notice.count for notice in seen.told("TW907")) == 500
    assert len(seen.told("TW907")) <= 17
    assert all(notice.evidence["exchange"] == EXCHANGE for notice in seen.told("TW907"))


def test_a_dead_letter_is_forged_whatever_its_header_holds() -> None:
    deaths: list[Any] = ["none", [], [1], [{"queue": "q\x1b[31m", "exchange": None}], {}, None]
    seen = step(collector(), *(message(b"x", headers={"x-death": death}) for death in deaths))
    assert sum(notice.count for notice in seen.told("TW907")) == len(deaths)
    assert not seen.rows


def test_a_node_that_falls_silent_is_told_once_and_only_while_we_are_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reader = Clock(monkeypatch), collector()
    first, second = wire.Producer(boot=1), wire.Producer(boot=2)
    step(reader, link_change(LinkKind.CONNECTED), message(first.batch(), "n1"), message(second.batch(), "n2"))
    for _ in range(4):
        clock.seconds += 2
        seen = step(reader, message(first.batch(), "n1"))
        if seen.notices:
            break
    (notice,) = seen.told("TW908")
    assert (notice.scope, notice.evidence["what"]) == ("plugin", "the plugin on n2")
    assert any("on n2" in spot.what for spot in reader.blind_spots())
    clock.seconds += 4
    assert not step(reader, message(first.batch(), "n1")).notices
    seen = step(reader, message(second.batch(), "n2"))
    assert [notice.scope for notice in seen.told("TW901")] == ["plugin"]
    assert not any("no sign of life" in spot.what for spot in reader.blind_spots())
    step(reader, link_change(LinkKind.LOST))
    clock.seconds += 60
    assert not step(reader).told("TW908")


def test_a_plugin_that_never_says_anything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reader = Clock(monkeypatch), collector()
    step(reader, link_change(LinkKind.CONNECTED))
    clock.seconds += 4
    assert not step(reader).notices
    clock.seconds += 2
    (notice,) = step(reader).told("TW908")
    assert notice.evidence["what"] == "the plugin"
    assert "no sign of life" in reader.blind_spots()[0].what


def test_what_the_plugin_notes_about_itself_becomes_blind_spots() -> None:
    reader = collector()
    plain = reader.blind_spots()
    assert len(plain) > 5
    notes = [
        wire.note("channels-before", "12"),
        wire.note("connections-before", "3"),
        wire.note("overlap", "other_plugin: basic.publish"),
        wire.note("backend", "rabbit_auth_backend_x"),
        wire.note("failures", "2"),
        wire.note("something-new", "x"),
    ]
    step(reader, message(wire.Producer().batch(notes)))
    more = [spot.what for spot in reader.blind_spots() if spot not in plain]
    assert len(more) == 5
    assert all(word in " ".join(more) for word in ("12", "other_plugin: basic.publish", "rabbit_auth_backend_x"))
