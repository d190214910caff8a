"""The $SYS collector against real brokers: log lines by topic, counts, TLS, refusals, outages."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import Mosquitto, free_port, mosquitto, wait_for
from tests.collector_contract import PAYLOAD_MARK, CollectorContract, Stage
from tests.mosquitto.logs.record import ROOT, Certificates, password_file, rows_of
from tests.mosquitto.logs.wire import Wire
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.sources import Collector, SourceOptions
from topicwarden_collectors.mosquitto.sys_link import QUEUE_LENGTH, SysLink, read_address
from topicwarden_collectors.mosquitto.sys_topics import SysCollector

CONFIG = [*ROOT, "log_dest topic", "log_dest stderr", "log_type all", "sys_interval 1"]

Rows = list[dict[str, Any]]


def source(broker: Mosquitto) -> str:
    return f"mqtt://127.0.0.1:{broker.port}"


class Watching:
    def __init__(self, collector: SysCollector) -> None:
        self.collector = collector
        self.rows: Rows = []

    @property
    def events(self) -> Rows:
        return [row for row in self.rows if "action" in row]

    @property
    def notices(self) -> Rows:
        return [row for row in self.rows if "notice" in row]

    async def drain(self) -> None:
        async for batch in self.collector.batches():
            self.rows += rows_of(batch)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        for _ in range(4000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"waited in vain for {what}: {self.rows[-3:]} {self.collector.counters}")

    async def connected(self) -> None:
        # Its own connecting is the first thing the broker tells it, as a count or a log line.
        await self.until(lambda: self.collector.counters.source, "the first counts")


@contextlib.asynccontextmanager
async def watching(source: str, **options: Any) -> AsyncIterator[Watching]:
    collector = SysCollector(source, SourceOptions(broker="b", **options), backoff_s=0.05)
    watch = Watching(collector)
    task = asyncio.ensure_future(watch.drain())
    try:
        yield watch
    finally:
        await collector.close()
        await asyncio.wait_for(task, 5)
    assert collector.counters.events == len(watch.events)


def act(broker: Mosquitto) -> None:
    client = Wire(broker.port, version=5)
    client.connect("actor", "me")
    client.subscribe(("a/#", 1), ("b 1 c", 0))
    client.publish("a/topic", PAYLOAD_MARK.encode(), qos=1)
    client.unsubscribe("a/#")
    client.disconnect()


def test_connections_and_subscriptions_come_by_topic_and_publishes_never_do(tmp_path: Path) -> None:
    with mosquitto(tmp_path, CONFIG) as broker:

        async def run() -> None:
            async with watching(source(broker)) as watch:
                await watch.connected()
                await asyncio.to_thread(act, broker)
                await watch.until(lambda: any(row["action"] == "disconnect" for row in watch.events), "the end")
            assert [(row["action"], row["outcome"], row["certainty"]) for row in watch.events] == [
                ("connect", "allowed", "exact"),
                ("subscribe", "allowed", "exact"),
                ("unsubscribe", "unknown", "unknown"),
                ("disconnect", "unknown", "unknown"),
            ]
            assert [row["resource"]["name"] for row in watch.events if "resource" in row] == ["a/#", "a/#"]
            assert {row["client"]["client_id"] for row in watch.events} == {"actor"}
            assert {row["client"]["user"] for row in watch.events} == {"me"}
            assert any("never publishes log lines of type debug" in spot.what for spot in watch.collector.blind_spots())

        asyncio.run(run())


def test_a_filter_that_makes_a_line_ambiguous_is_counted(tmp_path: Path) -> None:
    with mosquitto(tmp_path, CONFIG) as broker:

        async def run() -> None:
            async with watching(source(broker)) as watch:
                await watch.connected()
                await asyncio.to_thread(act, broker)
                await watch.until(lambda: any(row["action"] == "disconnect" for row in watch.events), "the end")
            # `actor 0 b 1 c`: the client may be `actor` or `actor 0 b`, and we did not see the broker start.
            assert watch.collector.counters.decode_errors == {"ambiguous": 1}
            assert [(row["notice"], row["scope"]) for row in watch.notices] == [("TW903", "ambiguous")]

        asyncio.run(run())


def test_the_brokers_own_counts_are_served(tmp_path: Path) -> None:
    with mosquitto(tmp_path, CONFIG) as broker:

        async def run() -> None:
            async with watching(source(broker)) as watch:
                await watch.until(lambda: watch.collector.counters.source.get("clients/connected"), "the counts")
                client = Wire(broker.port)
                await asyncio.to_thread(client.connect, "another")
                await watch.until(lambda: watch.collector.counters.source["clients/connected"] == 2, "both clients")
                client.close()
            assert "publish/messages/dropped" in watch.collector.counters.source
            assert "messages/received" in watch.collector.counters.source

        asyncio.run(run())


def test_our_own_coming_and_going_is_no_event(tmp_path: Path) -> None:
    with mosquitto(tmp_path, CONFIG) as broker:

        async def run() -> None:
            async with watching(source(broker)) as first:
                await first.connected()
                async with watching(source(broker)) as second:
                    await second.connected()
                await first.until(lambda: len(first.events) >= 3, "the other's coming and going")
            assert {row["client"]["client_id"] for row in first.events} == {second.collector._decoder.sink.ignored}
            assert not second.events

        asyncio.run(run())


def test_a_refused_login_is_seen(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    config = [*CONFIG, f"password_file {password_file(tmp_path)}"]
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    with mosquitto(tmp_path / "broker", config, allow_anonymous=False) as broker:

        async def run() -> None:
            address = f"mqtt://alice@127.0.0.1:{broker.port}"
            async with watching(address, password_file=secret) as watch:
                await watch.connected()
                wrong = Wire(broker.port)
                await asyncio.to_thread(wrong.connect, "x", "alice", "guess")
                wrong.close()
                await watch.until(lambda: watch.events, "the refusal")
            (row,) = watch.events
            assert (row["action"], row["outcome"]) == ("authenticate", "denied")

        asyncio.run(run())


def failure(source: str, **options: Any) -> str:
    async def run() -> None:
        async for _ in SysCollector(source, SourceOptions(**options)).batches():
            pass

    before = set(threading.enumerate())
    with pytest.raises(ObservationError) as caught:
        asyncio.run(run())
    assert set(threading.enumerate()) <= before
    (problem,) = caught.value.problems
    assert problem.hint
    return problem.message


def test_a_wrong_password_is_one_clear_error(tmp_path: Path) -> None:
    config = [*CONFIG, f"password_file {password_file(tmp_path)}"]
    (tmp_path / "wrong").write_text("guess\n")
    with mosquitto(tmp_path / "broker", config, allow_anonymous=False) as broker:
        said = failure(f"mqtt://alice@127.0.0.1:{broker.port}", password_file=tmp_path / "wrong")
        assert "does not let us in as 'alice': Not authorized" in said
        assert "without a user name" in failure(source(broker))


def test_nobody_there_and_nobody_who_speaks_mqtt_are_told_apart() -> None:
    assert "Connection refused" in failure(f"mqtt://127.0.0.1:{free_port()}")
    assert "is not known" in failure("mqtt://no-such-host.invalid")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        said = failure(f"mqtts://127.0.0.1:{deaf.getsockname()[1]}")
    assert "no answer in time" in said or "timed out" in said


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("tls"))
    made.issue("client", "auditor")
    return made


def test_tls_with_a_client_certificate(tmp_path: Path, certificates: Certificates) -> None:
    config = [*CONFIG, *certificates.listener("require_certificate true", "use_identity_as_username true")]
    folder = certificates.folder
    with mosquitto(tmp_path, config, listener=False) as broker:
        address = f"mqtts://localhost:{broker.port}"
        own = {"certfile": folder / "client.crt", "keyfile": folder / "client.key"}

        async def run() -> None:
            async with watching(address, cafile=folder / "ca.crt", **own) as watch:
                await watch.connected()

        asyncio.run(run())
        assert "is not trusted" in failure(address)
        said = failure(address, cafile=folder / "ca.crt")
        assert "ended the connection" in said or "no TLS connection" in said or "cannot be reached" in said


def test_tls_to_a_listener_without_it_is_said(tmp_path: Path, certificates: Certificates) -> None:
    with mosquitto(tmp_path, CONFIG) as broker:
        said = failure(f"mqtts://localhost:{broker.port}", cafile=certificates.folder / "ca.crt")
        assert "no TLS connection" in said or "cannot be reached" in said


def test_a_lost_connection_is_a_gap_and_is_taken_up_again(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "first", CONFIG) as broker:

        async def run() -> None:
            async with watching(source(broker)) as watch:
                await watch.connected()
                first_id = watch.collector._decoder.sink.ignored
                await asyncio.to_thread(broker.stop)
                await watch.until(lambda: watch.notices, "the gap")
                again = [*CONFIG, f"listener {broker.port} 127.0.0.1"]
                with mosquitto(tmp_path / "again", again) as successor:
                    await watch.until(lambda: watch.collector.counters.source.get("reconnects"), "the reconnection")
                    assert watch.collector._decoder.sink.ignored != first_id
                    client = Wire(successor.port)
                    await asyncio.to_thread(client.connect, "after")
                    await watch.until(
                        lambda: any(row["client"]["client_id"] == "after" for row in watch.events), "an event after it"
                    )
                    client.close()
                    await watch.collector.close()
            assert [(row["notice"], row["scope"]) for row in watch.notices] == [("TW901", "connection")]
            assert watch.collector.counters.gaps == 1

        asyncio.run(run())


def test_an_account_that_may_not_read_sys_is_told_by_a_blind_spot(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read other/#\n")
    with mosquitto(tmp_path / "broker", [*CONFIG, f"acl_file {acl}"]) as broker:

        async def run() -> None:
            async with watching(source(broker)) as watch:
                await watch.until(lambda: watch.collector._link is not None, "the connection")
                await asyncio.to_thread(act, broker)
            spots = [spot.what for spot in watch.collector.blind_spots()]
            assert any("nothing has come from $SYS/broker/log" in spot for spot in spots)
            assert any("nothing has come from $SYS" in spot and "counts" in spot for spot in spots)

        asyncio.run(run())


def test_a_queue_that_overflows_drops_counts_and_says_so(tmp_path: Path) -> None:
    collector = SysCollector("mqtt://h", SourceOptions(broker="b"))
    link = SysLink(collector._address)

    class Message:
        topic = "$SYS/broker/log/M/subscribe"
        payload = b"1700000000: c 0 t"
        retain = False

    collector._decoder.sink.ignored = "we"
    Message.payload = b"1700000000: we 0 $SYS/#"
    link._on_message(link._client, None, Message)  # type: ignore[arg-type]  # as below
    Message.payload = b"1700000000: c 0 t"
    for _ in range(QUEUE_LENGTH - 1 + 100):
        link._on_message(link._client, None, Message)  # type: ignore[arg-type]  # as much of a message as is looked at
    Message.payload = b"x" * 100_000
    link._on_message(link._client, None, Message)  # type: ignore[arg-type]  # as above
    rows = [row for batch in collector._step(link) for row in rows_of(batch)]
    assert sum("action" in row for row in rows) == QUEUE_LENGTH - 1
    assert [(row["notice"], row["scope"], row["count"]) for row in rows if "notice" in row] == [("TW901", "queue", 100)]
    assert (collector.counters.lost, collector.counters.decode_errors) == (100, {"too_long": 1})


def test_it_can_be_cancelled_at_any_moment(tmp_path: Path) -> None:
    # asyncio.wait_for of Python 3.11 swallows a cancellation that comes together with a message.
    with mosquitto(tmp_path, CONFIG) as broker:

        async def run(seconds: float) -> None:
            watch = Watching(SysCollector(source(broker)))
            task = asyncio.ensure_future(watch.drain())
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.wait({task}, timeout=5)
            assert task.cancelled()

        before = set(threading.enumerate())
        for step in range(150):
            asyncio.run(run(step % 15 / 1000))
        assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    "source",
    ["mqtt://", "http://h", "mqtt://h:x", "mqtt://h:99999", "mqtt://h/topic", "mqtt://user:secret@h", "mqtt://[::1"],
)
def test_a_wrong_address_is_a_configuration_error_that_shows_no_password(source: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SysCollector(source)
    (problem,) = caught.value.problems
    assert problem.hint
    assert "secret" not in str(problem)


def test_an_address_is_read(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("sécret\nmore\n")
    options = SourceOptions(username="other", password_file=tmp_path / "password")
    address = read_address("mqtt://al%40ice@[::1]:1884", options)
    assert (address.host, address.port, address.username, address.password) == ("::1", 1884, "al@ice", "sécret")
    assert address.text == "mqtt://[::1]:1884"
    assert read_address("mqtt://h", options).username == "other"
    assert read_address("mqtts://h", SourceOptions()).port == 8883
    for wrong in (
        SourceOptions(password_file=tmp_path / "password"),
        SourceOptions(username="u", password_file=tmp_path / "missing"),
        SourceOptions(username="u", password_file=tmp_path),
    ):
        with pytest.raises(ConfigurationError):
            read_address("mqtt://h", wrong)
    with pytest.raises(ConfigurationError):
        read_address("mqtts://h", SourceOptions(cafile=tmp_path / "password"))


class TestTheContract(CollectorContract):
    @contextlib.contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        with mosquitto(folder / "broker", CONFIG) as broker:
            collector = SysCollector(source(broker), SourceOptions(broker="b"))

            def when_connected() -> None:
                wait_for(lambda: collector.counters.source, "the collector's first counts")
                act(broker)

            yield Stage(collector, when_connected, shows_the_end)

    def build_on_nothing(self, folder: Path) -> Collector:
        return SysCollector(f"mqtt://127.0.0.1:{free_port()}")


def shows_the_end(rows: Rows) -> bool:
    return any(row["action"] == "disconnect" and row["client"]["client_id"] == "actor" for row in rows)
