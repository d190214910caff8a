"""What the log says against what the publishers were told: a real broker, hostile names, an ACL that denies half."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers import mosquitto
from tests.mosquitto.logs.record import ROOT, decode
from tests.mosquitto.logs.wire import Wire
from topicwarden.events import Tables
from topicwarden_collectors.mosquitto.log_blind_spots import log_blind_spots
from topicwarden_collectors.mosquitto.log_decode import LogDecoder

PARTS = [
    "a",
    "bc",
    "é",
    "\u2028",
    "\u202e",
    " ",
    "'",
    "')",
    "', ... (5 bytes))",
    " (d0, q0, r0, m0, '",
    " (d0, q1, r0, m1, '",
    " (p2, c1, k60, u'",
    "').",
    " 0 ",
    " disconnected.",
    "Received PUBLISH from ",
    "Denied PUBLISH from ",
    "Sending PUBACK to ",
    " (m1, rc0)",
    "%s%n",
    "x" * 200,
    "\\n",
    '"',
]
PUBLISHES = 400


def some_name(chance: random.Random) -> str:
    return "".join(chance.choice(PARTS) for _ in range(chance.randint(1, 6)))


@pytest.mark.parametrize("seed", [1, 2])
def test_decoded_decisions_are_those_the_publishers_were_told(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    (tmp_path / "acl").write_text("topic write yes/#\ntopic read #\n")
    truth: Counter[tuple[str, str, int, str]] = Counter()
    subscribed: Counter[tuple[str, str]] = Counter()
    with mosquitto(tmp_path / "broker", [*ROOT, "log_type all", f"acl_file {tmp_path / 'acl'}"]) as broker:
        clients = {}
        for client_id in {f"{number}{some_name(chance)}" for number in range(12)}:
            clients[client_id] = Wire(broker.port, version=5)
            assert clients[client_id].connect(client_id) == 0
        listening = Wire(broker.port)
        listening.connect("listening")
        listening.subscribe(("nothing", 0))
        for _ in range(PUBLISHES):
            client_id = chance.choice(list(clients))
            topic = chance.choice(["yes/", "no/"]) + some_name(chance)
            reason = clients[client_id].publish(topic, b"12345", qos=chance.choice([1, 1, 2]))
            assert reason in (0, 16, 135)
            truth[client_id, topic, 5, "denied" if reason == 135 else "allowed"] += 1
            if chance.random() < 0.1:
                filter_ = some_name(chance)
                clients[client_id].subscribe((filter_, 0))
                subscribed[client_id, filter_] += 1
        for client in [*clients.values(), listening]:
            client.disconnect()
    rows, counters = decode(broker.log.read_bytes())
    seen = Counter(
        (row["client"]["client_id"], row["resource"]["name"], row.get("size", -1), row["outcome"])
        for row in rows
        if row.get("action") == "publish" and "length" not in row["resource"]
    )
    cut = [row for row in rows if row.get("action") == "publish" and "length" in row["resource"]]
    # Nothing that did not happen; of what happened nothing is missing, for the broker names each publisher once more
    # when it answers; and what is missing of long lines is counted.
    assert not seen - truth
    missing = truth - seen
    assert sum(missing.values()) == len(cut) + sum(counters.decode_errors.values())
    for row in cut:
        assert any(
            client_id == row["client"]["client_id"] and topic.startswith(row["resource"]["name"])
            for client_id, topic, *_ in missing
        )
    assert sum(seen.values()) > PUBLISHES * 0.9
    assert min(Counter(outcome for *_, outcome in seen.elements()).values()) > PUBLISHES / 3
    granted = Counter(
        (row["client"]["client_id"], row["resource"]["name"])
        for row in rows
        if row.get("action") == "subscribe" and row["client"]["client_id"] != "listening"
    )
    assert granted == subscribed


def blind(log: bytes) -> str:
    decoder = LogDecoder(Tables(), "b")
    decoder.feed(log)
    while decoder.backlog:
        decoder.take()
    return "\n".join(spot.what for spot in log_blind_spots(decoder))


@pytest.mark.parametrize(
    ("types", "missing"),
    [
        (["all"], []),
        (["error", "warning", "notice", "information"], ["line of type debug has", "line of type subscribe has"]),
        (["debug", "notice"], ["line of type subscribe has"]),
        (["debug", "subscribe"], ["no connect line"]),
    ],
)
def test_the_missing_log_types_are_named_as_blind_spots(tmp_path: Path, types: list[str], missing: list[str]) -> None:
    with mosquitto(tmp_path / "broker", [*ROOT, *(f"log_type {kind}" for kind in types)]) as broker:
        client = Wire(broker.port)
        client.connect("c")
        client.subscribe(("t", 0))
        client.publish("t", qos=1)
        client.disconnect()
    text = blind(broker.log.read_bytes())
    assert [
        what for what in ("line of type debug has", "line of type subscribe has", "no connect line") if what in text
    ] == missing
    assert "payloads" in text
