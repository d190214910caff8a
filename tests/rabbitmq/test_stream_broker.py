"""The collector of the plugin's stream before a real node."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.error
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.spec import BasicProperties

from tests.brokers import wait_for
from tests.collector_contract import PAYLOAD_MARK, CollectorContract
from tests.collector_contract import Stage as ContractStage
from tests.rabbitmq.stock_clients import Stomp, mqtt
from tests.rabbitmq.stream_stage import ALICE, Seen, Stage, follow, stage
from topicwarden.errors import ObservationError
from topicwarden.sources import Collector
from topicwarden_collectors.rabbitmq.address import parse_address
from topicwarden_collectors.rabbitmq.stream import StreamCollector
from topicwarden_collectors.rabbitmq.stream_layout import EXCHANGE


@pytest.fixture(scope="module")
def hive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("hive")) as running:
        yield running


def done(channel: Any) -> None:
    """Return when the broker has worked off what was sent on a channel, or closed it."""
    with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
        channel.basic_qos(prefetch_count=1)


def at_once(channel: Any, keys: Iterable[str]) -> None:
    """Publish without looking after each message whether the broker has closed the channel."""
    for key in keys:
        channel._impl.basic_publish("amq.topic", key, b"x")


class TestPluginStream(CollectorContract):
    """The contract of every collector."""

    @pytest.fixture(autouse=True)
    def _on_hive(self, hive: Stage) -> None:
        self.hive = hive

    @contextlib.contextmanager
    def stage(self, folder: Path) -> Iterator[ContractStage]:
        def act() -> None:
            with self.hive.channel() as channel:
                channel.basic_publish("amq.topic", "plant.contract", PAYLOAD_MARK.encode())
            self.hive.mqtt("mosquitto_pub", "contract", "-t", "plant/contract", "-m", PAYLOAD_MARK)

        yield ContractStage(
            collector=self.hive.collector(),
            act=act,
            shows=lambda rows: (
                {"plant.contract", "plant/contract"} <= {(row.get("resource") or {}).get("name") for row in rows}
            ),
        )

    def build_on_nothing(self, folder: Path) -> Collector:
        return StreamCollector(parse_address("amqp://127.0.0.1:1", self.hive.options(password_file=None)))


def test_amqp_mqtt_and_stomp_clients_are_seen_with_who_they_are(hive: Stage) -> None:
    ports: list[int] = []

    def act() -> None:
        with hive.channel() as channel:
            channel.queue_declare("alices", exclusive=True)
            channel.queue_bind("alices", "amq.topic", "plant.#")
            channel.queue_bind("alices", "amq.fanout", "whatever")
            channel.queue_bind("alices", "amq.direct", "straight")
            channel.basic_publish("amq.topic", "plant.a", b"12345", BasicProperties(delivery_mode=2))
            channel.basic_publish("", "alices", b"1")
            channel.basic_get("alices", auto_ack=True)
            channel.basic_consume("alices", lambda *_: None, consumer_tag="c")
            channel.basic_cancel("c")
            channel.queue_unbind("alices", "amq.direct", "straight")
            channel.exchange_declare("alices.x", "topic", auto_delete=True)
            channel.exchange_bind("alices.x", "amq.topic", "plant.x.*")
            channel.queue_purge("alices")
        hive.mqtt("mosquitto_sub", "dev1", "-t", "plant/+/#", "-W", "1", "-q", "1")
        hive.mqtt("mosquitto_pub", "dev2", "-t", "plant/b/c", "-m", "x", "-q", "1")
        stomp = Stomp(hive.node.ports.stomp, "/", ALICE, "pw-alice")
        ports.append(stomp.port)
        stomp.send("SUBSCRIBE", {"id": "1", "destination": "/topic/plant.s.*"})
        stomp.send("SEND", {"destination": "/topic/plant.s.t"}, "hello")
        stomp.close()
        hive.node.api(
            "POST",
            "/exchanges/%2F/amq.topic/publish",
            {"properties": {}, "routing_key": "plant.http", "payload": "x", "payload_encoding": "string"},
            auth=(ALICE, "pw-alice"),
        )

    seen = follow(hive.collector(), act, lambda seen: seen.of(name="plant.http"))
    assert not seen.notices
    assert {row["outcome"] for row in seen.rows} == {"allowed"}
    rows = [
        (row["client"]["protocol"], row["action"], (row.get("resource") or {}).get("kind"), row["resource"]["name"])
        for row in seen.rows
        if row.get("resource")
    ]
    assert [row[1:] for row in rows if row[0] == "amqp"] == [
        ("configure", "queue", "alices"),
        ("subscribe", "binding", "plant.#"),
        ("subscribe", "binding", "#"),
        ("subscribe", "key", "straight"),
        ("publish", "key", "plant.a"),
        ("publish", "key", "alices"),
        ("subscribe", "queue", "alices"),
        ("subscribe", "queue", "alices"),
        ("unsubscribe", "key", "straight"),
        ("configure", "exchange", "alices.x"),
        ("subscribe", "binding", "plant.x.*"),
        ("configure", "exchange", "alices.x"),
        ("configure", "queue", "alices"),
    ]
    # Of what the gateways do for their clients only the clients' own subscriptions are left.
    assert [row[1:] for row in rows if row[0] == "mqtt"] == [
        ("subscribe", "topic", "plant/+/#"),
        ("publish", "topic", "plant/b/c"),
    ]
    assert ("stomp", "publish", "key", "plant.s.t") in rows
    assert ("stomp", "subscribe", "binding", "plant.s.*") in rows
    assert not [row for row in rows if "-subscription-" in row[3]]
    (publish,) = seen.of(action="publish", name="plant.a")
    assert publish["size"] == 5
    assert publish["resource"]["within"] == "amq.topic"
    assert {row["client"]["client_id"] for row in seen.of(protocol="mqtt")} == {"dev1", "dev2"}
    assert {row["client"]["port"] for row in seen.of(protocol="stomp")} == set(ports)
    for row in seen.rows:
        client = row["client"]
        assert (client["broker"], client["user"], client["identity"], client["vhost"]) == (
            "hive",
            ALICE,
            "verified",
            "/",
        )
        assert client.get("address") == (None if client["protocol"] == "direct" else "127.0.0.1")


def test_what_is_refused_is_denied_exactly_and_what_waited_behind_it_never_happened(hive: Stage) -> None:
    collector = hive.collector()

    def act() -> None:
        with hive.channel() as channel:
            # All in one piece, so that the broker reads the rest before it refuses the second.
            at_once(channel, ["plant.1", "secret.2", "plant.3", "plant.4"])
            done(channel)
            for name in ("bobs.queue", "bobs.other"):
                again = channel.connection.channel()
                with pytest.raises(pika.exceptions.ChannelClosedByBroker):
                    again.queue_declare(name)
            again = channel.connection.channel()
            again.basic_publish("no such exchange", "k", b"x")
            done(again)
            again = channel.connection.channel()
            again.basic_publish(EXCHANGE, "k", b"x")
            done(again)
        hive.mqtt("mosquitto_pub", "dev3", "-t", "secret/m", "-m", "x")
        hive.mqtt("mosquitto_pub", "dev4", "-t", "plant/m", "-m", "x", password="wrong")
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError), hive_vhost(hive, "closed"):
            pika.BlockingConnection(pika.URLParameters(hive.node.url(ALICE, "closed", "pw-alice")))

    seen = follow(collector, act, lambda seen: seen.of(action="connect", outcome="denied"))
    keys = [
        (row["resource"]["name"], row["outcome"], row["certainty"]) for row in seen.of(action="publish", kind="key")
    ]
    assert keys == [
        ("plant.1", "allowed", "exact"),
        ("secret.2", "denied", "exact"),
        ("k", "denied", "inferred"),
        ("k", "denied", "inferred"),
    ]
    assert collector.counters.source["attempts_not_carried_out"] >= 2
    denied = seen.of(action="configure", outcome="denied", certainty="exact")
    assert [row["resource"]["name"] for row in denied] == ["bobs.queue", "bobs.other"]
    (topic,) = seen.of(protocol="mqtt", outcome="denied", action="publish")
    assert (topic["resource"], topic["client"]["client_id"]) == ({"kind": "topic", "name": "secret/m"}, "dev3")
    (login,) = seen.of(action="authenticate")
    assert (login["outcome"], login["client"]["user"], login["client"]["identity"]) == ("denied", ALICE, "claimed")
    (vhost,) = seen.of(action="connect", outcome="denied")
    assert (vhost["client"]["vhost"], vhost["client"]["user"], vhost["client"]["identity"]) == (
        "closed",
        ALICE,
        "verified",
    )


@contextlib.contextmanager
def hive_vhost(hive: Stage, name: str) -> Iterator[None]:
    hive.node.add_vhost(name)
    try:
        yield
    finally:
        hive.node.api("DELETE", f"/vhosts/{name}")


def test_further_keys_rolled_back_transactions_and_unroutable_messages(hive: Stage) -> None:
    collector = hive.collector()

    def act() -> None:
        with hive.channel() as channel:
            headers: dict[str, Any] = {"CC": ["plant.cc", "secret.unchecked"], "BCC": ["plant.bcc"]}
            channel.basic_publish("amq.topic", "plant.main", b"x", BasicProperties(headers=headers))
            channel.basic_publish("amq.topic", "plant.nobody.reads", b"x")
            channel.queue_declare("alices.passive", auto_delete=True)
            channel.queue_declare("alices.passive", passive=True)
            inside = channel.connection.channel()
            inside.tx_select()
            inside.basic_publish("amq.topic", "plant.rolled.back", b"x")
            inside.tx_rollback()
            channel.queue_delete("alices.passive")

    seen = follow(collector, act, lambda seen: seen.of(action="disconnect"))
    published = [(row["resource"]["name"], row["outcome"], row["certainty"]) for row in seen.of(action="publish")]
    assert published == [
        ("plant.main", "allowed", "exact"),
        ("plant.cc", "allowed", "exact"),
        ("secret.unchecked", "allowed", "exact"),
        ("plant.bcc", "allowed", "exact"),
        ("plant.nobody.reads", "allowed", "exact"),
        ("plant.rolled.back", "allowed", "inferred"),
    ]
    assert len(seen.of(name="alices.passive")) == 2
    assert collector.counters.source["passive_declares"] == 1


def test_mqtt_topics_are_what_the_broker_makes_of_them(hive: Stage) -> None:
    """RabbitMQ 3.10.8: a dot and a slash are the same to it, empty levels stay."""
    topics = ["plant/a.b/c", "plant//x/", "plant/ä", "plant/*"]

    def act() -> None:
        with mqtt(hive.node.ports.mqtt, "dev5", ALICE, "pw-alice") as wire:
            wire.subscribe(("plant/+/x.y/#", 0))
            for topic in topics:
                wire.publish(topic, qos=1)

    seen = follow(hive.collector(), act, lambda seen: len(seen.of(action="publish")) == len(topics))
    assert [row["resource"]["name"] for row in seen.of(action="publish")] == [
        "plant/a/b/c",
        "plant//x/",
        "plant/ä",
        "plant/*",
    ]
    assert [row["resource"]["name"] for row in seen.of(action="subscribe")] == ["plant/+/x/y/#"]


def test_nothing_of_a_forged_stream_reaches_the_batches_and_each_way_is_told(hive: Stage) -> None:
    """With configure and write rights on everything: exchange binding, alternate and dead letter exchange."""
    from tests.rabbitmq import stream_writer as wire

    forged = wire.batch([wire.actor(1, "ghost"), wire.resource(2, "key", "forged", "x")], [wire.event(1)], first=True)

    def act() -> None:
        with hive.channel("operator") as channel:
            channel.exchange_declare("mallory", "topic", auto_delete=True)
            channel.exchange_bind(EXCHANGE, "mallory", "#")
            channel.basic_publish("mallory", "x", forged)
            channel.exchange_unbind(EXCHANGE, "mallory", "#")
            channel.exchange_declare("lost", "topic", arguments={"alternate-exchange": EXCHANGE})
            channel.basic_publish("lost", "x", forged)
            channel.exchange_delete("lost")
            arguments = {"x-dead-letter-exchange": EXCHANGE, "x-message-ttl": 0}
            channel.queue_declare("dying", auto_delete=True, arguments=arguments)
            channel.basic_publish("", "dying", forged)
            channel.queue_delete("dying")
        # Nobody but the plugin can take the exchange away, or put another one in its place.
        with hive.channel("operator") as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="system"):
            channel.exchange_delete(EXCHANGE)
        message = {"properties": {}, "routing_key": "x", "payload": "x", "payload_encoding": "string"}
        with pytest.raises(urllib.error.HTTPError) as refused:
            hive.node.api("POST", f"/exchanges/%2F/{EXCHANGE}/publish", message)
        refused.value.close()

    seen = follow(hive.collector(), act, lambda seen: len(seen.told("TW907")) >= 3)
    assert "ghost" not in repr(seen.rows)
    assert "forged" not in repr(seen.rows)
    assert {notice.scope for notice in seen.told("TW907")} == {EXCHANGE}
    assert {notice.evidence["exchange"] for notice in seen.told("TW907")} == {EXCHANGE}
    witnesses = " ".join(str(notice.witness) for notice in seen.told("TW907"))
    assert all(name in witnesses for name in ("'mallory'", "'lost'", "'dying'"))


def test_a_change_of_a_grant_comes_with_who_made_it_and_what_it_means(hive: Stage) -> None:
    def act() -> None:
        with hive.channel() as channel:
            channel.basic_publish("amq.topic", "plant.granted", b"x")
            done(channel)
            hive.node.permit_topics(ALICE, "/", "amq.topic", "^nothing$", "^plant\\.")
            done(channel)
        hive.node.permit_topics(ALICE, "/", "amq.topic", "^plant\\.", "^plant\\.")

    seen = follow(hive.collector(), act, lambda seen: len(seen.changes) == 2)
    change = seen.changes[1]
    assert (change.grantee.user, change.grantee.vhost, change.what) == (ALICE, "/", "topic permission")
    assert change.by is not None
    assert change.by.user == "operator"
    actions = [row["action"] for row in seen.rows]
    assert actions.count("grant_change") == 2
    assert actions.index("publish") < actions.index("grant_change")


def test_our_own_doings_are_no_events(hive: Stage) -> None:
    with contextlib.ExitStack():
        collector = hive.collector()
        seen = follow(collector, lambda: None, lambda seen: collector.counters.source.get("our_own", 0) >= 1)
    assert not seen.of(user="auditor")


def test_every_message_of_a_fast_publisher_is_counted_exactly(hive: Stage) -> None:
    collector, count = hive.collector(), 20_000

    def act() -> None:
        with hive.channel() as channel:
            at_once(channel, (f"plant.fast.{turn % 7}" for turn in range(count)))
            done(channel)

    seen = follow(collector, act, lambda seen: seen.of(action="disconnect"))
    published = seen.of(action="publish", outcome="allowed")
    assert len(published) == count
    # Now and then the broker lets a publisher wait for longer than we do.
    assert sum(row["certainty"] == "exact" for row in published) > count * 0.99
    assert (collector.counters.lost, collector.counters.unresolved, collector.counters.decode_errors) == (0, 0, {})


def test_our_queue_deleted_under_us_is_a_gap_and_reading_goes_on(hive: Stage) -> None:
    collector = hive.collector()

    def act() -> None:
        link = collector._link
        assert link is not None
        (queue,) = link.own_queues
        delete = (
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
            'rabbit_amqqueue:delete(Q, false, false, <<"somebody">>).'
        )
        hive.node.script("rabbitmqctl", "eval", delete)
        wait_for(lambda: collector.counters.source.get("link_subscribed", 0) == 2, "our new queue")
        with hive.channel() as channel:
            channel.basic_publish("amq.topic", "plant.after", b"x")

    seen = follow(collector, act, lambda seen: seen.of(name="plant.after"))
    assert next(notice.scope for notice in seen.told("TW901")) == "queue-gone"
    assert collector.counters.gaps >= 1


def test_a_wrong_password_and_a_missing_plugin_are_one_clear_error_each(hive: Stage) -> None:
    def refusal(collector: StreamCollector) -> str:
        with pytest.raises(ObservationError) as caught:
            follow(collector, lambda: None, lambda _: True)
        (problem,) = caught.value.problems
        assert problem.hint
        return problem.message

    wrong = hive.options(password_file=hive.folder / "wrong.pw")
    address = parse_address(f"amqp://auditor@127.0.0.1:{hive.node.ports.amqp}", wrong)
    assert "does not let us in as 'auditor'" in refusal(StreamCollector(address, wrong))
    with hive_vhost(hive, "plain"):
        hive.node.permit("auditor", "plain", ".*", ".*", ".*")
        address = parse_address(f"amqp://auditor@127.0.0.1:{hive.node.ports.amqp}/plain", hive.options())
        assert f"there is no exchange '{EXCHANGE}'" in refusal(StreamCollector(address, hive.options()))


@pytest.mark.parametrize(
    ("authority", "host", "words"),
    [
        ("other.pem", "localhost", "is not trusted"),
        ("ca.pem", "127.0.0.1", "is not trusted"),
        (None, "localhost", "is not trusted"),
    ],
)
def test_a_certificate_we_do_not_trust_or_for_another_host_is_one_clear_error(
    hive: Stage, authority: str | None, host: str, words: str
) -> None:
    cafile = None if authority is None else hive.folder / authority
    collector = StreamCollector(hive.address("amqps", host, cafile=cafile), hive.options())
    with pytest.raises(ObservationError, match=words) as caught:
        follow(collector, lambda: None, lambda _: True)
    assert "--cafile" in str(caught.value.problems[0].hint)


def test_over_tls_the_stream_is_read_like_any_other(hive: Stage) -> None:
    collector = StreamCollector(hive.address("amqps", "localhost", cafile=hive.folder / "ca.pem"), hive.options())

    def act() -> None:
        with hive.channel() as channel:
            channel.basic_publish("amq.topic", "plant.tls", b"x")

    follow(collector, act, lambda seen: seen.of(name="plant.tls"))
    assert collector.title.startswith("rabbitmq plugin")
    assert "amqps://localhost" in collector.title


def test_a_plugin_that_is_switched_off_is_told_and_seen_again_when_it_comes_back(hive: Stage) -> None:
    collector = hive.collector(silent_s=1.6)

    def silent() -> bool:
        return any("no sign of life" in spot.what for spot in collector.blind_spots())

    def switch(on: bool) -> None:
        hive.node.script("rabbitmq-plugins", "enable" if on else "disable", "topicwarden_audit")

    def act() -> None:
        switch(False)
        wait_for(silent, "the blind spot")
        switch(True)
        wait_for(lambda: not silent(), "a sign of life")
        with hive.channel() as channel:
            channel.basic_publish("amq.topic", "plant.again", b"x")

    seen = follow(collector, act, lambda seen: seen.of(name="plant.again"), seconds=120)
    (notice,) = seen.told("TW908")
    assert notice.scope == "plugin"
    assert str(notice.evidence["what"]).startswith("the plugin")
    assert "plugin" in {notice.scope for notice in seen.told("TW901")}


def test_a_broker_that_goes_and_comes_back_is_followed(hive: Stage) -> None:
    collector = hive.collector()

    def act() -> None:
        with hive.channel() as channel:
            channel.basic_publish("amq.topic", "plant.before", b"x")
        hive.node.stop(at_once=True)
        hive.node.start()
        wait_for(lambda: collector.counters.source.get("link_connected", 0) == 2, "our connection")

    def again(seen: Seen) -> bool:
        if seen.told("TW906"):
            with hive.channel() as channel:
                channel.basic_publish("amq.topic", "plant.after", b"x")
        return bool(seen.of(name="plant.after"))

    seen = follow(collector, act, again, seconds=90)
    assert "connection" in {notice.scope for notice in seen.told("TW901")}
    (restarted,) = seen.told("TW906")
    assert restarted.evidence["node"] == hive.node.name
    assert not seen.told("TW908")


def test_nothing_is_left_when_the_collector_is_never_read(hive: Stage) -> None:
    async def work() -> None:
        collector = hive.collector()
        await collector.close()
        assert [batch async for batch in collector.batches()] == []

    asyncio.run(work())
