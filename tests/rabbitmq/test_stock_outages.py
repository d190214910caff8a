"""The stock collector over restarts and outages of a node of its own; and what it says of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPError

from tests.brokers import wait_for
from tests.rabbitmq.stock_record import CLOCK_NS, CONFIG, started
from tests.rabbitmq.stock_watching import AUDITOR, collector, permit_auditor, watching
from topicwarden_collectors.rabbitmq.link import LinkChange, LinkKind, Subscription
from topicwarden_collectors.rabbitmq.node import Node, running_node

VHOST = "plant"
PLUGINS = ("rabbitmq_management", "rabbitmq_event_exchange")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("outages"), plugins=PLUGINS, config=CONFIG) as running:
        # A node declares it up to 5 s after its first start (3.10.8, `rabbit_logger_exchange_h:setup_proc`).
        wait_for(lambda: _has_log_exchange(running), "the log exchange")
        running.add_vhost(VHOST)
        running.add_user("bob", "pw")
        running.permit("bob", VHOST, ".*", ".*", ".*")
        permit_auditor(running, VHOST, tags="monitoring")
        yield running


def _has_log_exchange(node: Node) -> bool:
    return "amq.rabbitmq.log" in {row["name"] for row in node.api("GET", "/exchanges/%2F")}


def publish(node: Node, key: str) -> None:
    """Publish once as bob, on a connection of its own."""
    parameters = pika.URLParameters(node.url("bob", VHOST, "pw"))
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        connection.channel().basic_publish("amq.topic", key, b"")


def test_a_queue_of_ours_that_an_operator_deletes_is_a_gap_and_is_replaced(node: Node, tmp_path: Path) -> None:
    node.trace(VHOST, True)
    with watching(collector(node, tmp_path, firehose=[VHOST])) as watch:
        publish(node, "before")
        watch.wait(lambda: "before" in watch.names("bob", "publish"), "the first publish")
        (queue,) = [row["name"] for row in node.api("GET", f"/queues/{VHOST}")]
        # Over AMQP and HTTP an exclusive queue is locked for everybody else; not for who is on the machine.
        node.script(
            "rabbitmqctl",
            "eval",
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{VHOST}">>, queue, <<"{queue}">>)), '
            'rabbit_amqqueue:delete(Q, false, false, <<"somebody">>).',
        )
        watch.wait(lambda: watch.told("TW901", f"queue amq.rabbitmq.trace {VHOST}"), "the gap")
        watch.wait(lambda: watch.told("TW908", f"queue {VHOST}"), "who did it")
        (notice,) = watch.told("TW908", f"queue {VHOST}")
        assert notice.client is not None
        assert notice.client.user == "somebody"
        watch.wait(lambda: _seen_again(node, watch.names), "the firehose again")


def _seen_again(node: Node, names: object) -> bool:
    assert callable(names)
    publish(node, "after")
    return "after" in names("bob", "publish")


def test_a_restart_is_a_gap_and_a_restart_and_leaves_tracing_off(node: Node, tmp_path: Path) -> None:
    """Tracing does not outlive a restart (3.10.8), unless `trace_vhosts` in advanced.config names the virtual host."""
    node.trace(VHOST, True)
    url = f"http://127.0.0.1:{node.ports.management}"
    with watching(collector(node, tmp_path, firehose=[VHOST], management=url)) as watch:
        publish(node, "before")
        watch.wait(lambda: "before" in watch.names("bob", "publish"), "the first publish")
        node.stop()
        watch.wait(lambda: watch.told("TW901", "connection /"), "the gap")
        node.start()
        watch.wait(lambda: watch.told("TW908", f"tracing {VHOST}"), "what the restart switched off", 40)
        watch.wait(lambda: watch.told("TW906"), "the restart")
        publish(node, "unseen")
        assert {notice.scope for notice in watch.told("TW906")} == {node.name}
        assert any("tracing is off" in spot.what for spot in watch.collector.blind_spots())
        node.trace(VHOST, True)
        publish(node, "after")
        watch.wait(lambda: "after" in watch.names("bob", "publish"), "publishes after the restart")
        assert watch.names("bob", "publish") == ["before", "after"]
        assert not any("tracing is off" in spot.what for spot in watch.collector.blind_spots())
        assert watch.of(AUDITOR) == []
        connects = watch.of("bob", "connect")
        assert len({row["client"]["port"] for row in connects}) == len(connects) == 3


def test_a_node_that_dies_and_comes_back_is_followed(node: Node, tmp_path: Path) -> None:
    with watching(collector(node, tmp_path)) as watch:
        node.stop(at_once=True)
        watch.wait(lambda: watch.told("TW901", "connection /"), "the gap")
        node.start()
        watch.wait(lambda: watch.told("TW906"), "the restart", 40)
        publish(node, "x")
        watch.wait(lambda: watch.of("bob", "connect"), "a client after it")
        assert watch.collector.counters.gaps == 1


def test_a_policy_that_makes_our_queue_drop_messages_is_told_with_its_author(node: Node, tmp_path: Path) -> None:
    with watching(collector(node, tmp_path)) as watch:
        policy = {"pattern": ".*", "definition": {"max-length": 1}, "apply-to": "queues"}
        node.api("PUT", "/policies/%2F/blinding", policy)
        try:
            watch.wait(lambda: watch.told("TW908", "queue /"), "the notice")
        finally:
            node.api("DELETE", "/policies/%2F/blinding")
        notice = watch.told("TW908", "queue /")[0]
        assert notice.witness == "user 'operator' set a policy on our queue: max-length"


def test_an_event_exchange_that_is_disabled_under_us_is_told_and_the_rest_goes_on(node: Node, tmp_path: Path) -> None:
    """The exchange goes with our binding, and nothing but its last event says so (3.10.8)."""
    with watching(collector(node, tmp_path)) as watch:
        node.script("rabbitmq-plugins", "disable", "rabbitmq_event_exchange")
        try:
            watch.wait(lambda: watch.told("TW908", "amq.rabbitmq.event"), "the notice")
            spots = watch.collector.blind_spots
            watch.wait(lambda: any("amq.rabbitmq.event is not read" in spot.what for spot in spots()), "a blind spot")
            watch.wait(lambda: _refused(node) and watch.of("bob", "authenticate"), "what the log says of a login")
            (row, *_) = watch.of("bob", "authenticate")
            assert (row["outcome"], row["client"]["identity"]) == ("denied", "claimed")
            assert "port" in row["client"]
        finally:
            node.script("rabbitmq-plugins", "enable", "rabbitmq_event_exchange")


def _refused(node: Node) -> bool:
    with contextlib.suppress(AMQPError):
        pika.BlockingConnection(pika.URLParameters(node.url("bob", VHOST, "wrong")))
    return True


def test_a_firehose_silent_after_an_outage_is_told_of() -> None:
    """Without the management API nothing says whether tracing is on again: but that nothing came can be said."""
    decoder = started()
    trace = Subscription("plant", "amq.rabbitmq.trace")
    decoder.sight.firehose["plant"].on = True
    lost = LinkChange(LinkKind.LOST, "plant", "shutdown", CLOCK_NS)
    back = LinkChange(LinkKind.SUBSCRIBED, "plant", "", CLOCK_NS + 10**9, trace)
    decoder.feed([lost, back], CLOCK_NS + 10**9)
    decoder.pass_time(CLOCK_NS + 9 * 10**9)
    assert "TW908" not in [notice.code for batch in decoder.take() for notice in batch.notices]
    decoder.pass_time(CLOCK_NS + 11 * 10**9)
    notices = [notice for batch in decoder.take() for notice in batch.notices]
    assert [(notice.code, notice.scope) for notice in notices] == [("TW908", "tracing plant")]
    assert "a restart switches it off" in str(notices[0].evidence["why"])


def test_a_full_queue_is_a_gap_of_unknown_size_and_connections_are_forgotten() -> None:
    decoder = started()
    events = Subscription("/", "amq.rabbitmq.event", max_length=10)
    decoder.feed([LinkChange(LinkKind.QUEUE_FULL, "/", "10 messages", CLOCK_NS, events)], CLOCK_NS)
    (notice,) = [notice for batch in decoder.take() for notice in batch.notices]
    assert (notice.code, notice.scope) == ("TW901", "queue amq.rabbitmq.event /")
    assert "uncounted" in str(notice.evidence["why"])
    assert decoder.sink.counters.gaps == 1
    assert decoder.stale


def test_an_exchange_that_can_no_longer_be_read_was_switched_off() -> None:
    decoder = started()
    log = Subscription("/", "amq.rabbitmq.log")
    decoder.feed([LinkChange(LinkKind.REFUSED, "/", "there is no exchange", CLOCK_NS, log)], CLOCK_NS)
    (notice,) = [notice for batch in decoder.take() for notice in batch.notices]
    assert (notice.code, notice.scope) == ("TW908", "amq.rabbitmq.log /")
