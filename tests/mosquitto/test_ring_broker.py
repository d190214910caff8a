from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import Mosquitto, mosquitto, wait_for
from tests.collector_contract import PAYLOAD_MARK, CollectorContract, Stage
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_cases import password_line
from topicwarden.events import Notice
from topicwarden.events.rows import to_rows
from topicwarden.sources import Collector
from topicwarden_collectors.mosquitto.ring import RingCollector

ACL = "user alice\ntopic readwrite plant/#\n"


@contextlib.contextmanager
def watched_broker(folder: Path, options: Sequence[str] = ()) -> Iterator[Mosquitto]:
    """Run a broker with the plugin, a password for alice, and an acl_file that lets her use plant/#."""
    (folder / "password").write_text(password_line("alice", "right"))
    (folder / "password").chmod(0o600)
    (folder / "acl").write_text(ACL)
    config = [
        "user root",  # pytest's folders are closed to the account a broker started by root changes to
        f"plugin {build_plugin()}",
        f"plugin_opt_ring {folder / 'm.ring'}",
        *options,
        f"password_file {folder / 'password'}",
        f"acl_file {folder / 'acl'}",
    ]
    with mosquitto(folder / "broker", config) as broker:
        yield broker


def client(broker: Mosquitto, program: str, client_id: str, *arguments: str, password: str = "right") -> int:
    """Run one of Mosquitto's own clients as alice and return its exit status."""
    login = ["-p", str(broker.port), "-i", client_id, "-u", "alice", "-P", password]
    return subprocess.run([program, *login, *arguments], capture_output=True, timeout=20, check=False).returncode


def rows_so_far(collector: RingCollector) -> tuple[list[dict[str, Any]], list[Notice]]:
    """Read what the collector's ring holds by now, and close it."""
    rows: list[dict[str, Any]] = []
    notices: list[Notice] = []

    async def collect() -> None:
        async for batch in collector.batches():
            rows.extend(to_rows(batch))
            notices.extend(batch.notices)

    async def run() -> None:
        task = asyncio.create_task(collect())
        await asyncio.sleep(0)
        await collector.close()
        await task

    asyncio.run(run())
    return rows, notices


def told(rows: list[dict[str, Any]], client_id: str) -> list[tuple[str, str, str | None]]:
    return [
        (row["action"], row["outcome"], row.get("resource", {}).get("name"))
        for row in rows
        if row["client"]["client_id"] == client_id
    ]


def test_what_real_clients_do_at_a_real_broker_comes_out_as_rows(tmp_path: Path) -> None:
    with watched_broker(tmp_path, ["plugin_opt_deliver all"]) as broker:
        collector = RingCollector(tmp_path / "m.ring")
        received: list[bytes] = []
        paho_client = paho.Client(CallbackAPIVersion.VERSION2, "listener", protocol=paho.MQTTv5)
        paho_client.username_pw_set("alice", "right")
        paho_client.on_message = lambda _client, _data, message: received.append(bytes(message.payload))
        subscribed: list[int] = []
        paho_client.on_subscribe = lambda *_: subscribed.append(1)
        paho_client.connect("127.0.0.1", broker.port)
        paho_client.loop_start()
        paho_client.subscribe("plant/+", qos=1)
        wait_for(lambda: subscribed, "the subscription")
        assert client(broker, "mosquitto_pub", "sensor", "-t", "plant/1", "-m", '{"t": 21}', "-q", "1", "-r") == 0
        client(broker, "mosquitto_pub", "sensor", "-t", "secret/x", "-m", "hello")
        assert client(broker, "mosquitto_pub", "guesser", "-t", "plant/1", "-m", "x", password="wrong") != 0
        assert client(broker, "mosquitto_sub", "reader", "-t", "plant/ä/#", "-E") == 0
        wait_for(lambda: received, "the message")
        paho_client.disconnect()
        paho_client.loop_stop()
        wait_for(lambda: b"listener disconnected" in broker.log.read_bytes(), "the end of the listener")
        rows, notices = rows_so_far(collector)

    assert told(rows, "sensor") == [
        ("authenticate", "allowed", None),
        ("publish", "allowed", "plant/1"),
        ("disconnect", "allowed", None),
        ("authenticate", "allowed", None),
        ("publish", "denied", "secret/x"),
        ("disconnect", "allowed", None),
    ]
    assert told(rows, "guesser") == [("authenticate", "denied", None)]
    assert ("subscribe", "allowed", "plant/ä/#") in told(rows, "reader")
    assert ("subscribe", "allowed", "plant/+") in told(rows, "listener")
    assert [name for action, _, name in told(rows, "listener") if action == "deliver"] == ["plant/1"]
    (published,) = [
        row for row in rows if row.get("resource", {}).get("name") == "plant/1" and row["action"] == "publish"
    ]
    assert published["client"] == {
        "broker": "m",
        "protocol": "mqtt",
        "client_id": "sensor",
        "user": "alice",
        "address": "127.0.0.1",
        "identity": "verified",
    }
    assert {key: published[key] for key in ("size", "shape", "qos", "retain")} == {
        "size": 9,
        "shape": "json",
        "qos": 1,
        "retain": 1,
    }
    assert 0 < published["entropy"] <= 8
    guessed = next(row["client"] for row in rows if row["client"]["client_id"] == "guesser")
    assert guessed["identity"] == "claimed"
    assert [row["time_ns"] for row in rows] == sorted(row["time_ns"] for row in rows)
    assert not notices


def test_a_real_brokers_restart_is_followed_and_told(tmp_path: Path) -> None:
    with watched_broker(tmp_path) as broker:
        collector = RingCollector(tmp_path / "m.ring", look_s=0)
        client(broker, "mosquitto_pub", "before", "-t", "plant/1", "-m", "x")
        broker.stop()
    rows: list[dict[str, Any]] = []
    notices: list[Notice] = []

    async def run(second: Mosquitto) -> None:
        acting = asyncio.create_task(
            asyncio.to_thread(client, second, "mosquitto_pub", "after", "-t", "plant/1", "-m", "x")
        )
        async for batch in collector.batches():
            rows.extend(to_rows(batch))
            notices.extend(batch.notices)
            if any(row["client"]["client_id"] == "after" and row["action"] == "publish" for row in rows):
                await collector.close()
        await acting

    with watched_broker(tmp_path) as broker:
        asyncio.run(asyncio.wait_for(run(broker), 20))
    publishers = [row["client"]["client_id"] for row in rows if row["action"] == "publish"]
    assert publishers == ["before", "after"]
    assert [notice.code for notice in notices] == ["TW906"]
    assert (collector.counters.lost, collector.counters.unresolved, collector.counters.decode_errors) == (0, 0, {})


def test_a_slow_consumer_of_a_small_ring_under_load_accounts_for_every_event(tmp_path: Path) -> None:
    messages = 20_000
    rows: list[dict[str, Any]] = []
    notices: list[Notice] = []

    async def collect(collector: RingCollector, loading: asyncio.Task[None]) -> None:
        async for batch in collector.batches():
            rows.extend(to_rows(batch))
            notices.extend(batch.notices)
            lapped = collector._ring.head + 3 * 1024
            while not loading.done() and collector._ring.head < lapped:  # noqa: ASYNC110 - nothing signals the head
                await asyncio.sleep(0.001)

    async def run(broker: Mosquitto, collector: RingCollector) -> None:
        loading = asyncio.create_task(asyncio.to_thread(_load, broker, messages))
        task = asyncio.create_task(collect(collector, loading))
        await loading
        await asyncio.to_thread(wait_for, lambda: b"load disconnected" in broker.log.read_bytes(), "the load's end")
        await collector.close()
        await task

    with watched_broker(tmp_path, ["plugin_opt_slots 1024"]) as broker:
        collector = RingCollector(tmp_path / "m.ring")
        asyncio.run(asyncio.wait_for(run(broker, collector), 40))
    counters = collector.counters
    assert counters.decode_errors == {}
    assert counters.lost > 0
    # A login, the publishes, the disconnect.
    assert counters.events + counters.lost + counters.unresolved == messages + 2
    assert sum(notice.count for notice in notices if notice.code == "TW901") == counters.lost + counters.unresolved
    assert len(rows) == counters.events
    assert [row["time_ns"] for row in rows] == sorted(row["time_ns"] for row in rows)


def _load(broker: Mosquitto, messages: int) -> None:
    """Publish as fast as one client can."""
    lines = "".join(f"message {i}\n" for i in range(messages))
    login = ["-p", str(broker.port), "-i", "load", "-u", "alice", "-P", "right"]
    subprocess.run(
        ["mosquitto_pub", *login, "-t", "plant/load", "-q", "1", "-l"], input=lines.encode(), timeout=30, check=True
    )


class TestRealBroker(CollectorContract):
    """The contract of every collector, on a broker with the plugin."""

    @contextlib.contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        with watched_broker(folder) as broker:

            def act() -> None:
                client(broker, "mosquitto_pub", "sensor", "-t", "plant/1", "-m", PAYLOAD_MARK)

            yield Stage(
                collector=RingCollector(folder / "m.ring"),
                act=act,
                shows=lambda rows: ("publish", "allowed", "plant/1") in told(rows, "sensor"),
            )

    def build_on_nothing(self, folder: Path) -> Collector:
        return RingCollector(folder / "no.ring")
