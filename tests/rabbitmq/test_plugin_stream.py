"""The plugin's stream, against a real node, read by a reader of the test's own."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from typing import Any

import pika
import pytest
from pika.exceptions import AMQPError, ChannelClosedByBroker

from tests.rabbitmq.plugin_node import erlang, wait_until_recording
from tests.rabbitmq.plugin_stream import (
    ATTEMPTED,
    BINDING,
    CONFIGURE,
    CONNECT,
    COPY,
    DISCONNECT,
    EXCHANGE,
    EXCHANGES,
    GET,
    KEY,
    NO_EXCHANGE,
    PASSIVE,
    PERSISTENT,
    PUBLISH,
    QUEUE,
    SUBSCRIBE,
    TRANSACTION,
    UNSUBSCRIBE,
    Event,
    connection,
    decode,
    reading,
)
from topicwarden_collectors.rabbitmq.node import Node, quoted

PASSWORD = "s3cret-of-alice"


pytest_plugins = ["tests.rabbitmq.plugin_fixtures"]


@pytest.fixture(scope="module")
def node(audited: Node) -> Node:
    return audited


@pytest.fixture
def vhost(node: Node, request: pytest.FixtureRequest) -> str:
    name = f"v-{request.node.name[5:45]}"
    node.add_vhost(name)
    node.add_user("alice", PASSWORD)
    node.permit("alice", name, ".*", ".*", ".*")
    return name


def brief(event: Event) -> tuple[object, ...]:
    resource = event.resource
    what = None if resource is None else (resource.kind, resource.within.decode(), resource.name.decode())
    return event.action, event.method, what, event.flags, event.outcome


def test_every_operation_of_an_amqp_client_is_recorded_with_what_it_was_on(node: Node, vhost: str) -> None:
    with reading(node) as stream:
        with connection(node, "alice", PASSWORD, vhost) as link:
            channel = link.channel()
            channel.exchange_declare("ex", "topic")
            channel.exchange_declare("to", "fanout")
            channel.exchange_bind("to", "ex", "e.#")
            channel.queue_declare("q")
            channel.queue_declare("q", passive=True)
            channel.queue_bind("q", "ex", "a.*")
            channel.basic_publish("ex", "a.b", b"12345", pika.BasicProperties(delivery_mode=2))
            channel.basic_publish("", "q", b"")
            channel.basic_get("q", auto_ack=True)
            tag = channel.basic_consume("q", lambda *_: None)
            channel.basic_cancel(tag)
            channel.queue_purge("q")
            channel.queue_unbind("q", "ex", "a.*")
            channel.exchange_unbind("to", "ex", "e.#")
            channel.queue_delete("q")
            channel.exchange_delete("ex")
        stream.until(lambda s: s.of("alice", DISCONNECT), "the end of the connection")
        assert [brief(event) for event in stream.of("alice")] == [
            (CONNECT, (0, 0), None, 0, ATTEMPTED),
            (CONFIGURE, (40, 10), (EXCHANGES, "", "ex"), 0, ATTEMPTED),
            (CONFIGURE, (40, 10), (EXCHANGES, "", "to"), 0, ATTEMPTED),
            (SUBSCRIBE, (40, 30), (BINDING, "ex", "e.#"), 0, ATTEMPTED),
            (CONFIGURE, (40, 30), (EXCHANGES, "", "to"), 0, ATTEMPTED),
            (CONFIGURE, (50, 10), (QUEUE, "", "q"), 0, ATTEMPTED),
            (CONFIGURE, (50, 10), (QUEUE, "", "q"), PASSIVE, ATTEMPTED),
            (SUBSCRIBE, (50, 20), (BINDING, "ex", "a.*"), 0, ATTEMPTED),
            (PUBLISH, (60, 40), (KEY, "ex", "a.b"), PERSISTENT, ATTEMPTED),
            (PUBLISH, (60, 40), (KEY, "amq.default", "q"), 0, ATTEMPTED),
            (SUBSCRIBE, (60, 70), (QUEUE, "", "q"), GET, ATTEMPTED),
            (SUBSCRIBE, (60, 20), (QUEUE, "", "q"), 0, ATTEMPTED),
            (UNSUBSCRIBE, (60, 30), None, 0, ATTEMPTED),
            (CONFIGURE, (50, 30), (QUEUE, "", "q"), 0, ATTEMPTED),
            (UNSUBSCRIBE, (50, 50), (BINDING, "ex", "a.*"), 0, ATTEMPTED),
            (UNSUBSCRIBE, (40, 40), (BINDING, "ex", "e.#"), 0, ATTEMPTED),
            (CONFIGURE, (40, 40), (EXCHANGES, "", "to"), 0, ATTEMPTED),
            (CONFIGURE, (50, 40), (QUEUE, "", "q"), 0, ATTEMPTED),
            (CONFIGURE, (40, 20), (EXCHANGES, "", "ex"), 0, ATTEMPTED),
            (DISCONNECT, (0, 0), None, 0, ATTEMPTED),
        ]
        assert [event.size for event in stream.of("alice", PUBLISH)] == [5, 0]
        assert {
            event.resource.exchange_type
            for event in stream.of("alice")
            if event.resource and event.resource.within == b"ex"
        } == {2}


def test_a_channel_has_the_whole_identity_of_its_connection(node: Node, vhost: str) -> None:
    with reading(node) as stream:
        with connection(node, "alice", PASSWORD, vhost, name="alice's own name") as link:
            port = link._impl._transport._sock.getsockname()[1]  # type: ignore[attr-defined]
            link.channel(7).basic_publish("amq.topic", "k", b"x")
        stream.until(lambda s: s.of("alice", DISCONNECT), "the end of the connection")
    (published,) = stream.of("alice", PUBLISH)
    actor = published.actor
    assert actor.connection == f"127.0.0.1:{port} -> 127.0.0.1:{node.ports.amqp}".encode()
    assert (actor.channel, actor.port, actor.address, actor.flags) == (7, port, b"127.0.0.1", 0)
    assert (actor.user, actor.vhost, actor.protocol) == (b"alice", vhost.encode(), b"amqp")
    assert (actor.client_id, actor.subject, actor.mechanism) == (b"", b"", b"PLAIN")
    assert actor.provided_name == b"alice's own name"
    (connected,) = stream.of("alice", CONNECT)
    assert (connected.actor.channel, connected.actor.connection) == (0, actor.connection)


def test_twenty_thousand_messages_of_four_publishers_are_twenty_thousand_events(node: Node, vhost: str) -> None:
    with reading(node) as stream:

        def publish(name: str) -> None:
            with connection(node, "alice", PASSWORD, vhost) as link:
                channel = link.channel()
                for index in range(5000):
                    channel.basic_publish("amq.topic", f"{name}.{index % 50}", b"x" * (index % 7))

        threads = [threading.Thread(target=publish, args=(f"p{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        stream.until(lambda s: len(s.of("alice", DISCONNECT)) == 4, "all publishers", 60)
        for thread in threads:
            thread.join()
        published = stream.of("alice", PUBLISH)
        assert Counter(event.name for event in published) == {
            f"p{number}.{key}".encode(): 100 for number in range(4) for key in range(50)
        }
        assert sum(event.size for event in published) == 4 * sum(index % 7 for index in range(5000))
        assert (stream.gaps, stream.unresolved, stream.batches[-1].dropped) == (0, 0, 0)
        # Of one channel, in its order.
        for number in range(4):
            mine = [event for event in published if event.name and event.name.startswith(f"p{number}.".encode())]
            assert [event.size for event in mine] == [index % 7 for index in range(5000)]
            assert len({event.actor.number for event in mine}) == 1


def test_every_one_of_many_different_keys_is_named(node: Node, vhost: str) -> None:
    with reading(node) as stream:
        with connection(node, "alice", PASSWORD, vhost) as link:
            channel = link.channel()
            for index in range(5000):
                channel.basic_publish("amq.topic", f"key.{index}", b"")
        stream.until(lambda s: s.of("alice", DISCONNECT), "the end of the connection")
        assert [event.name for event in stream.of("alice", PUBLISH)] == [f"key.{i}".encode() for i in range(5000)]


def test_further_keys_in_cc_and_bcc_are_events_of_their_own(node: Node, vhost: str) -> None:
    with reading(node) as stream:
        with connection(node, "alice", PASSWORD, vhost) as link:
            channel = link.channel()
            headers: dict[str, Any] = {"CC": ["c1", "c2"], "BCC": ["b1"], "other": ["no"]}
            channel.queue_declare("c2")
            channel.basic_publish("", "main", b"body", pika.BasicProperties(headers=headers))
            # What the broker delivers is what was sent: BCC goes, nothing else is touched.
            method, properties, body = channel.basic_get("c2", auto_ack=True)
            assert method is not None
            assert properties is not None
            assert (method.routing_key, body) == ("main", b"body")
            assert properties.headers == {"CC": ["c1", "c2"], "other": ["no"]}
        stream.until(lambda s: s.of("alice", DISCONNECT), "the end of the connection")
        assert [(event.name, event.flags, event.size) for event in stream.of("alice", PUBLISH)] == [
            (b"main", 0, 4),
            (b"c1", COPY, 4),
            (b"c2", COPY, 4),
            (b"b1", COPY, 4),
        ]


def test_a_publish_in_a_transaction_says_so_and_others_do_not(node: Node, vhost: str) -> None:
    with reading(node) as stream:
        with connection(node, "alice", PASSWORD, vhost) as link:
            plain, channel = link.channel(), link.channel()
            channel.basic_publish("amq.topic", "before", b"")
            channel.tx_select()
            channel.basic_publish("amq.topic", "before", b"")
            channel.tx_rollback()
            channel.basic_publish("amq.topic", "before", b"")
            channel.tx_commit()
            plain.basic_publish("amq.topic", "before", b"")
        stream.until(lambda s: s.of("alice", DISCONNECT), "the end of the connection")
        flags = {n: [e.flags for e in stream.of("alice", PUBLISH) if e.actor.channel == n] for n in (1, 2)}
        assert flags == {1: [0], 2: [0, TRANSACTION, TRANSACTION]}


def test_an_exchange_that_is_not_there_or_internal_takes_no_publish_until_it_is(node: Node, vhost: str) -> None:
    with reading(node) as stream:
        for key in ("missing", "internal", "there", "gone"):
            with connection(node, "alice", PASSWORD, vhost) as link:
                channel = link.channel()
                if key == "internal":
                    channel.exchange_declare("hidden", "topic", internal=True)
                if key == "there":
                    channel.exchange_declare("late", "topic")
                if key == "gone":
                    channel.exchange_delete("late")
                    stream.until(
                        lambda s: any(c.name == "exchange.deleted" for c in s.changes), "the exchange to have gone"
                    )
                channel.basic_publish("hidden" if key == "internal" else "late", key, b"")
                if key != "there":
                    with pytest.raises(ChannelClosedByBroker):
                        channel.queue_declare("")
        stream.until(lambda s: len(s.of("alice", DISCONNECT)) == 4, "the ends of the connections")
        assert {event.name: event.outcome for event in stream.of("alice", PUBLISH)} == {
            b"missing": NO_EXCHANGE,
            b"internal": NO_EXCHANGE,
            b"there": ATTEMPTED,
            b"gone": NO_EXCHANGE,
        }


def test_hostile_names_arrive_as_the_broker_has_them(node: Node, vhost: str) -> None:
    names = ["k" * 255, "line\nbreak\r\x00\x1b[2J", "", "ключ", "#", "*.x"]
    with reading(node) as stream:
        with connection(node, "alice", PASSWORD, vhost) as link:
            channel = link.channel()
            for name in names:
                channel.basic_publish("amq.topic", name, b"")
            # librabbitmq sends bytes as they are.
            subprocess.run(
                [
                    "amqp-publish",
                    "-u",
                    node.url("alice", vhost, PASSWORD),
                    "-e",
                    "amq.topic",
                    "-r",
                    b"\xff\xfe",
                    "-b",
                    "x",
                ],
                check=True,
                timeout=30,
            )
            channel.exchange_declare("two\nlines")
        stream.until(lambda s: len(s.of("alice", DISCONNECT)) == 2, "the ends of the connections")
        published = sorted(event.name or b"" for event in stream.of("alice", PUBLISH))
        assert published == sorted([*(name.encode() for name in names), b"\xff\xfe"])
        # The broker strips line ends from names that are declared.
        assert [event.name for event in stream.of("alice", CONFIGURE)] == [b"twolines"]
        created = [change.pairs[b"name"] for change in stream.changes if change.name == "exchange.created"]
        assert created == [b"twolines"]


def test_the_http_api_publishes_as_its_user(node: Node, vhost: str) -> None:
    node.add_user("carol", PASSWORD, "management")
    node.permit("carol", vhost, "", "^amq\\.topic$", "")
    body = {"properties": {}, "routing_key": "over.http", "payload": "abc", "payload_encoding": "string"}
    with reading(node) as stream:
        path = f"/exchanges/{quoted(vhost)}/amq.topic/publish"
        assert node.api("POST", path, body, auth=("carol", PASSWORD)) == {"routed": False}
        stream.until(lambda s: s.of("carol", PUBLISH), "the publish")
        (event,) = stream.of("carol", PUBLISH)
        assert (event.name, event.size, event.outcome) == (b"over.http", 3, ATTEMPTED)
        assert (event.actor.protocol, event.actor.vhost, event.actor.port) == (b"direct", vhost.encode(), 0)


def test_changes_of_grants_name_who_made_them_and_no_password_ever_appears(node: Node, vhost: str) -> None:
    bodies: list[bytes] = []
    with reading(node) as stream:
        node.add_user("dave", "s3cret-of-dave", "monitoring")
        node.permit("dave", vhost, "c.*", "w.*", "r.*")
        node.permit_topics("dave", vhost, "amq.topic", "wt", "rt")
        node.add_user("dave", "an0ther-s3cret", "")
        secret = {
            "value": {
                "src-uri": "amqp://u:pass-of-shovel@h",
                "src-queue": "a",
                "dest-queue": "b",
                "dest-uri": "amqp://",
            }
        }
        node.api("PUT", f"/policies/{quoted(vhost)}/pol", {"pattern": "^x", "definition": {"max-length": 5}})
        node.api("PUT", "/global-parameters/some-parameter", secret)
        node.api("DELETE", f"/topic-permissions/{quoted(vhost)}/dave")
        node.api("DELETE", f"/permissions/{quoted(vhost)}/dave")
        node.api("DELETE", "/users/dave")
        stream.until(lambda s: any(c.name == "user.deleted" for c in s.changes), "the last change")
        by_name = {change.name: change.pairs for change in stream.changes}
        assert by_name["permission.created"][b"configure"] == b"c.*"
        assert by_name["topic.permission.created"][b"exchange"] == b"amq.topic"
        assert by_name["user.tags.set"][b"tags"] == b""
        assert by_name["policy.set"][b"definition"] == b"max-length=5"
        assert by_name["policy.set"][b"pattern"] == b"^x"
        assert set(by_name) >= {
            "user.created",
            "user.password.changed",
            "user.tags.set",
            "permission.created",
            "permission.deleted",
            "topic.permission.created",
            "topic.permission.deleted",
            "policy.set",
            "parameter.set",
            "user.deleted",
        }
        assert {pairs[b"user_who_performed_action"] for pairs in by_name.values()} == {b"operator"}
        bodies = [repr(change).encode() for change in stream.changes]
        assert not any(s in body for body in bodies for s in (b"s3cret", b"pass-of-shovel", b"password_hash"))


def test_two_readers_read_the_same_and_the_second_skips_nothing_it_needs(node: Node, vhost: str) -> None:
    with reading(node) as early, connection(node, "alice", PASSWORD, vhost) as link:
        channel = link.channel()
        channel.basic_publish("amq.topic", "one", b"")
        early.until(lambda s: s.of("alice", PUBLISH), "the first publish")
        with reading(node) as late:
            channel.basic_publish("amq.topic", "one", b"")
            late.until(lambda s: s.of("alice", PUBLISH), "the publish with its definitions repeated")
            early.until(lambda s: len(s.of("alice", PUBLISH)) == 2, "the second publish")
            assert [event.name for event in late.of("alice", PUBLISH)] == [b"one"]
            assert late.batches[0].first
            assert late.batches[0].boot == early.batches[0].boot
            assert late.batches[0].epoch > early.batches[0].epoch
        # An actor keeps its number over epochs.
        assert len({event.actor.number for event in early.of("alice", PUBLISH)}) == 1
        assert (early.gaps, early.unresolved, late.unresolved) == (0, 0, 0)


def test_nothing_is_recorded_or_counted_while_nobody_reads(node: Node, vhost: str) -> None:
    with connection(node, "alice", PASSWORD, vhost) as link:
        channel = link.channel()
        with reading(node) as stream:
            channel.basic_publish("amq.topic", "seen", b"")
            stream.until(lambda s: s.of("alice", PUBLISH), "the publish")
            last = stream.batches[-1]
        wait_until_recording(node, False)
        for _ in range(100):
            channel.basic_publish("amq.topic", "unseen", b"")
        channel.queue_declare("", exclusive=True)
        with reading(node) as stream:
            channel.basic_publish("amq.topic", "seen again", b"")
            stream.until(lambda s: s.of("alice", PUBLISH), "the publish")
            assert [event.name for event in stream.of("alice", PUBLISH)] == [b"seen again"]
            first = stream.batches[0]
            assert first.boot == last.boot
            # Only the end of the other reader was recorded meanwhile.
            assert first.first_event - last.first_event - len(last.events) < 10


def test_a_quiet_stream_says_so_every_second(node: Node) -> None:
    with reading(node) as stream:
        stream.until(lambda s: len([b for b in s.batches if not b.events]) >= 3, "empty batches", 6)


def test_who_deletes_the_exchange_is_refused_and_it_takes_no_message_but_ours(node: Node) -> None:
    with connection(node) as link:
        with pytest.raises(ChannelClosedByBroker) as refused:
            link.channel().exchange_delete(EXCHANGE)
        assert refused.value.reply_code == 403
        channel = link.channel()
        channel.basic_publish(EXCHANGE, "", b"forged")
        with pytest.raises(ChannelClosedByBroker) as refused:
            channel.queue_declare("")
        assert refused.value.reply_code == 403
    (exchange,) = [x for x in node.api("GET", "/exchanges/%2F") if x["name"] == EXCHANGE]
    assert (exchange["type"], exchange["internal"], exchange["durable"]) == ("fanout", True, False)


def test_a_reader_whose_queue_is_deleted_binds_another_and_goes_on(node: Node, vhost: str) -> None:
    with reading(node) as stream:
        number = stream.batches[-1].number
        boot = stream.batches[-1].boot
        with connection(node) as link, pytest.raises(ChannelClosedByBroker):
            link.channel().queue_delete(stream.queue)
        stream.channel.queue_delete(stream.queue)
    with reading(node) as stream:
        assert stream.batches[0].boot == boot
        assert stream.batches[0].number > number


def test_the_minimal_account_of_a_reader_suffices_and_no_more_is_asked(node: Node) -> None:
    node.add_user("auditor", PASSWORD)
    own = r"^amq\.gen-.*$"
    node.permit("auditor", "/", own, own, r"^(amq\.gen-.*|amq\.topicwarden\.audit)$")
    with connection(node, "auditor", PASSWORD) as link:
        channel = link.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, EXCHANGE)
        for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=10):
            assert body is not None
            if decode(body).first:
                break


def test_what_fails_inside_the_recording_is_counted_and_the_client_notices_nothing(node: Node, vhost: str) -> None:
    with reading(node) as stream, connection(node, "alice", PASSWORD, vhost) as link:
        channel = link.channel()
        erlang(node, "ets:delete(element(4, topicwarden_audit_ring:current()))")
        channel.queue_declare("survives")
        channel.basic_publish("", "survives", b"x")
        assert channel.basic_get("survives", auto_ack=True)[2] == b"x"
        stream.until(lambda s: any(n.code == "failures" for n in s.notes), "the note")
        # A new sink puts everything in its place; the channel stays what it was.
        before = stream.batches[-1].boot
        erlang(node, "exit(whereis(topicwarden_audit_sink), kill)")
        stream.until(lambda s: s.batches[-1].boot != before, "the new sink")
        channel.basic_publish("", "survives", b"y")
        stream.until(lambda s: s.of("alice", PUBLISH), "the publish")


def test_a_node_that_dies_and_comes_back_starts_a_stream_of_its_own(node: Node) -> None:
    with reading(node) as stream:
        boot = stream.batches[-1].boot
        node.stop(at_once=True)
        with pytest.raises(AMQPError):
            stream.until(lambda _: False, "the end of the stream")
    node.start()
    with reading(node) as stream, connection(node):
        assert stream.batches[0].boot != boot
        assert stream.batches[0].number < 5
        stream.until(lambda s: s.of("operator", CONNECT), "the connection")
