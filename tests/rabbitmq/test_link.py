from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import BasicProperties

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.rabbitmq import link as link_module
from topicwarden_collectors.rabbitmq import link_session as session_module
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.genuine import is_genuine, origin_of_forgery
from topicwarden_collectors.rabbitmq.link import AmqpLink, Delivery, LinkChange, LinkKind, News, Subscription
from topicwarden_collectors.rabbitmq.link_headers import read_properties
from topicwarden_collectors.rabbitmq.node import Node, quoted

T = TypeVar("T")
TRACE = "amq.rabbitmq.trace"


@dataclass
class Place:
    """A virtual host of the test's own, and an administrator there."""

    node: Node
    vhost: str

    def address(self, **changes: Any) -> Address:
        settings = {"username": "operator", "password": self.node.password, "vhost": self.vhost}
        return Address("127.0.0.1", changes.pop("port", self.node.ports.amqp), **{**settings, **changes})

    def link(self, *subscriptions: Subscription, **changes: Any) -> AmqpLink:
        return AmqpLink(self.address(**changes), subscriptions)

    @contextlib.contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url(vhost=self.vhost)))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def publish(self, *bodies: bytes, key: str = "k", properties: BasicProperties | None = None) -> None:
        with self.channel() as channel:
            for body in bodies:
                channel.basic_publish("amq.topic", key, body, properties)


@pytest.fixture
def place(rabbit: Node) -> Iterator[Place]:
    vhost = f"link {uuid.uuid4().hex[:8]}/ä"
    rabbit.add_vhost(vhost)
    try:
        yield Place(rabbit, vhost)
    finally:
        rabbit.api("DELETE", f"/vhosts/{quoted(vhost)}")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run and see to it that nothing is left behind."""

    async def watched() -> T:
        try:
            return await work()
        finally:
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(watched(), debug=False)


@contextlib.asynccontextmanager
async def opened(link: AmqpLink) -> AsyncIterator[AmqpLink]:
    try:
        await link.open()
        yield link
    finally:
        await link.close()


async def until(link: AmqpLink, found: Callable[[list[News]], object], seconds: float = 10.0) -> list[News]:
    """Take news until they hold what is looked for."""
    news: list[News] = []
    async with asyncio.timeout(seconds):
        while not found(news):
            news += await link.take(0.5)
    return news


def deliveries(news: list[News]) -> list[Delivery]:
    return [one for one in news if isinstance(one, Delivery)]


def kinds(news: list[News]) -> list[LinkKind]:
    return [one.kind for one in news if isinstance(one, LinkChange)]


def refusal(link: AmqpLink) -> Problem:
    """Why a link cannot be opened: one problem, with a hint, said nowhere else."""

    async def work() -> None:
        await link.open()

    with pytest.raises(ObservationError) as caught:
        run(work)
    (problem,) = caught.value.problems
    assert problem.hint
    return problem


# What stands in the way at first ---------------------------------------------------------------------------------


def test_a_wrong_password_is_one_clear_line_and_nothing_on_stderr(
    place: Place, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL):
        problem = refusal(place.link(Subscription(place.vhost, TRACE), password="s3cret"))
    assert "does not let us in as 'operator': login refused" in problem.message
    assert "--password-file" in str(problem.hint)
    assert "s3cret" not in str(problem)
    assert capfd.readouterr() == ("", "")


def test_a_virtual_host_that_is_not_there_and_one_that_is_closed_to_us_are_told_apart(place: Place) -> None:
    assert "has no virtual host 'nowhere'" in refusal(place.link(Subscription("nowhere", TRACE))).message
    place.node.add_user("link-outsider", "pw")
    problem = refusal(place.link(Subscription(place.vhost, TRACE), username="link-outsider", password="pw"))
    assert "lets the user 'link-outsider' not into the virtual host" in problem.message
    assert "set_permissions" in str(problem.hint)


def test_a_port_where_nobody_listens_or_something_else_does(place: Place) -> None:
    subscription = Subscription(place.vhost, TRACE)
    assert "cannot be reached: Connection refused" in refusal(place.link(subscription, port=1)).message
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        problem = refusal(place.link(subscription, port=server.getsockname()[1]))
        thread.join()
    assert "does not answer like a RabbitMQ node" in problem.message
    nowhere = AmqpLink(Address("no-such-host.invalid", 5672), [subscription])
    assert "is not known" in refusal(nowhere).message


@pytest.mark.parametrize(
    ("module", "limit"), [(link_module, "FIRST_ANSWER_S"), (session_module, "_HANDSHAKE_S")], ids=["all", "handshake"]
)
def test_a_port_that_accepts_and_says_nothing_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch, module: ModuleType, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 0.3)

    async def work() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            with pytest.raises(ObservationError, match="does not answer like a RabbitMQ node"):
                await place.link(Subscription(place.vhost, TRACE), port=port).open()
        finally:
            server.close()
            await asyncio.sleep(0.01)

    run(work)


def test_an_exchange_that_is_not_there_is_named_with_what_brings_it(place: Place) -> None:
    problem = refusal(place.link(Subscription(place.vhost, "amq.topicwarden.audit")))
    assert "there is no exchange 'amq.topicwarden.audit'" in problem.message
    assert "topicwarden_audit" in str(problem.hint)
    assert "rabbitmq_event_exchange" in str(refusal(place.link(Subscription(place.vhost, "amq.rabbitmq.event"))).hint)


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        (("^amq\\.gen-", "^amq\\.gen-", "^amq\\.gen-"), "read on 'amq.rabbitmq.trace' is missing"),
        (("", "", ".*"), "configure, write and read on '^amq\\.gen-.*$' is missing"),
        (("^amq\\.gen-", "", ".*"), "configure, write and read on '^amq\\.gen-.*$' is missing"),
    ],
)
def test_a_missing_permission_is_said_with_the_line_that_gives_it(
    place: Place, rights: tuple[str, str, str], missing: str
) -> None:
    place.node.add_user("link-reader", "pw")
    place.node.permit("link-reader", place.vhost, *rights)
    link = place.link(Subscription(place.vhost, TRACE), username="link-reader", password="pw")
    problem = refusal(link)
    assert missing in problem.message
    assert "'^(amq\\.gen-.*|amq\\.rabbitmq\\.trace)$'" in str(problem.hint)


def test_the_least_rights_are_enough(place: Place) -> None:
    place.node.add_user("link-least", "pw")
    place.node.permit("link-least", place.vhost, "^amq\\.gen-.*$", "^amq\\.gen-.*$", "^(amq\\.gen-.*|amq\\.topic)$")

    async def work() -> list[News]:
        link = place.link(Subscription(place.vhost, "amq.topic", "#"), username="link-least", password="pw")
        async with opened(link):
            await asyncio.to_thread(place.publish, b"x")
            return await until(link, deliveries)

    assert [one.body for one in deliveries(run(work))] == [b"x"]


# Reading ----------------------------------------------------------------------------------------------------------


def test_messages_come_in_order_and_are_acknowledged_when_their_reader_is_done_with_them(place: Place) -> None:
    bodies = [b"%d" % i for i in range(700)]
    subscription = Subscription(place.vhost, "amq.topic", "k", prefetch=50)

    async def work() -> list[News]:
        link = place.link(subscription)
        async with opened(link):
            await asyncio.to_thread(place.publish, *bodies)
            await asyncio.sleep(0.05)
            # So many at most are with us until something is acknowledged.
            assert len(deliveries(await link.take(1, limit=1000))) <= 50
            return await until(link, lambda news: len(deliveries(news)) >= 650)

    news = deliveries(run(work))
    assert [one.body for one in news] == bodies[-len(news) :]
    assert len(news) >= 650
    assert {(one.exchange, one.routing_key, one.subscription) for one in news} == {("amq.topic", "k", subscription)}


def test_a_body_that_is_too_long_is_not_kept(place: Place) -> None:
    async def work() -> list[News]:
        link = place.link(Subscription(place.vhost, "amq.topic", max_body=4))
        async with opened(link):
            await asyncio.to_thread(place.publish, b"1234", b"12345")
            return await until(link, lambda news: len(deliveries(news)) == 2)

    assert [(one.body, one.size) for one in deliveries(run(work))] == [(b"1234", 4), (b"", 5)]


def test_several_virtual_hosts_are_read_at_once_and_the_iteration_ends_with_close(place: Place) -> None:
    place.node.add_vhost("link-second")
    second = Place(place.node, "link-second")

    async def work() -> set[str]:
        link = place.link(Subscription(place.vhost, "amq.topic"), Subscription("link-second", "amq.topic"))
        seen: set[str] = set()
        async with opened(link):
            await asyncio.to_thread(place.publish, b"1")
            await asyncio.to_thread(second.publish, b"2")
            async for news in link:
                seen |= {one.subscription.vhost for one in deliveries(news)}
                if len(seen) == 2:
                    link.finish()
        return seen

    try:
        assert run(work) == {place.vhost, "link-second"}
    finally:
        place.node.api("DELETE", "/vhosts/link-second")


def test_a_slow_reader_is_told_that_its_queue_is_full_and_the_broker_keeps_only_so_much(place: Place) -> None:
    async def work() -> list[News]:
        link = place.link(Subscription(place.vhost, "amq.topic", max_length=10, prefetch=2))
        async with opened(link):
            await asyncio.to_thread(place.publish, *[b"%d" % i for i in range(500)])
            async with asyncio.timeout(10):
                # To take anything would acknowledge it.
                while LinkKind.QUEUE_FULL not in kinds([one for one, _, _ in link._inbox]):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            return await until(link, lambda news: deliveries(news) and deliveries(news)[-1].body == b"499")

    news = run(work)
    assert len(deliveries(news)) <= 2 + 10 + 2
    (full,) = [one for one in news if isinstance(one, LinkChange) and one.kind is LinkKind.QUEUE_FULL]
    assert full.reason == "10 messages"


def test_an_exchange_we_can_do_without_is_told_and_the_rest_is_read(place: Place) -> None:
    missing = Subscription(place.vhost, "no such exchange", optional=True)

    async def work() -> list[News]:
        link = place.link(missing, Subscription(place.vhost, "amq.topic"))
        async with opened(link):
            await asyncio.to_thread(place.publish, b"x")
            return await until(link, deliveries)

    news = run(work)
    (change,) = [one for one in news if isinstance(one, LinkChange) and one.kind is LinkKind.REFUSED]
    assert change.subscription == missing
    assert "there is no exchange 'no such exchange'" in change.reason
    assert len(deliveries(news)) == 1


# Hostile messages -------------------------------------------------------------------------------------------------


class RawProperties(BasicProperties):
    """Properties whose headers are what a client that is no pika would send."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self._table = table

    def encode(self) -> list[bytes]:
        """Flags for headers only, then the table."""
        return [struct.pack(">H", 1 << 13), struct.pack(">I", len(self._table)), self._table]


def header(kind: bytes, value: bytes, name: bytes = b"x") -> bytes:
    return bytes([len(name)]) + name + kind + value


def nested(depth: int) -> bytes:
    table = header(b"S", struct.pack(">I", 1) + b"!")
    for _ in range(depth):
        table = header(b"F", struct.pack(">I", len(table)) + table)
    return table


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (header(b"T", b"\xff" * 8), {"x": None}),
        (header(b"T", struct.pack(">Q", 253402300800)), {"x": None}),
        (nested(1200), None),
    ],
)
def test_a_header_that_has_no_value_in_python_does_not_end_the_connection(
    place: Place, table: bytes, expected: dict[str, Any] | None
) -> None:
    async def work() -> list[News]:
        link = place.link(Subscription(place.vhost, "amq.topic"))
        async with opened(link):
            await asyncio.to_thread(place.publish, b"poison", properties=RawProperties(table))
            await asyncio.to_thread(place.publish, b"after")
            return await until(link, lambda news: len(deliveries(news)) == 2)

    news = run(work)
    assert LinkKind.LOST not in kinds(news)
    poison, after = deliveries(news)
    assert (poison.body, after.body) == (b"poison", b"after")
    headers = poison.properties.headers
    assert headers is not None
    assert headers == expected if expected is not None else list(headers) == ["x"]


def test_names_that_are_no_utf8_come_surrogate_escaped(place: Place) -> None:
    async def work() -> list[News]:
        link = place.link(Subscription(place.vhost, "amq.topic"))
        async with opened(link):
            await asyncio.to_thread(place.publish, b"x", key=b"\xff\xfe")  # type: ignore[arg-type] # pika takes bytes
            return await until(link, deliveries)

    assert deliveries(run(work))[0].routing_key == "\udcff\udcfe"


def test_properties_of_any_bytes_are_read_without_raising() -> None:
    for seed in range(3000):
        data = bytes((seed * 7919 + i * 104729) >> 3 & 0xFF for i in range(seed % 40))
        read_properties(b"\xff\xff" + data)
        read_properties(data)


# Forgeries --------------------------------------------------------------------------------------------------------


def test_only_what_the_broker_itself_published_is_genuine(place: Place) -> None:
    """Exchange binding, alternate exchange and dead letter exchange, against RabbitMQ's own tracing."""
    node, vhost = place.node, place.vhost
    node.trace(vhost, True)

    def forge(channel: BlockingChannel) -> None:
        channel.exchange_declare("mallory", "topic")
        channel.exchange_bind(TRACE, "mallory", "#")
        channel.basic_publish("mallory", "publish.mallory", b"binding", BasicProperties(headers={"user": "admin"}))
        channel.exchange_unbind(TRACE, "mallory", "#")
        channel.exchange_declare("lost", "topic", arguments={"alternate-exchange": TRACE})
        channel.basic_publish("lost", "publish.lost", b"alternate")
        channel.queue_declare("dying", arguments={"x-dead-letter-exchange": TRACE, "x-message-ttl": 0})
        mine = BasicProperties(headers={"x-death": "none", "user": "admin"})
        channel.basic_publish("", "dying", b"dead", mine)
        channel.basic_publish(TRACE, "publish.x", b"direct")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="internal exchange"):
            channel.queue_declare("dying", passive=True)

    def forge_all() -> None:
        with place.channel() as channel:
            forge(channel)
        place.publish(b"genuine")

    async def work() -> list[News]:
        link = place.link(Subscription(vhost, TRACE))
        async with opened(link):
            await asyncio.to_thread(forge_all)
            return await until(
                link, lambda news: any(one.routing_key == "publish.amq.topic" for one in deliveries(news))
            )

    news = deliveries(run(work))
    genuine = [one for one in news if is_genuine(one, TRACE)]
    assert {one.body for one in genuine} == {b"binding", b"alternate", b"dead", b"genuine"}
    assert all(one.properties.headers is not None and "exchange_name" in one.properties.headers for one in genuine)
    origins = {one.body: origin_of_forgery(one, TRACE) for one in news if not is_genuine(one, TRACE)}
    assert origins == {
        b"binding": "published to exchange 'mallory', key 'publish.mallory'",
        b"alternate": "published to exchange 'lost', key 'publish.lost'",
        b"dead": "dead-lettered from queue 'dying', exchange ''",
    }


# Ends -------------------------------------------------------------------------------------------------------------


class Proxy:
    """Stands between us and the broker: breaks connections, or lets nothing through any more."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.frozen = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.stop()
        await asyncio.sleep(0.02)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, far_writer]
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self.frozen:
                    writer.write(data)
        writer.transport.abort()


def test_a_broken_connection_is_told_and_made_anew(place: Place) -> None:
    async def work() -> list[News]:
        async with Proxy(place.node.ports.amqp) as proxy:
            link = place.link(Subscription(place.vhost, "amq.topic"), port=proxy.port)
            async with opened(link):
                proxy.cut()
                news = await until(link, lambda news: kinds(news).count(LinkKind.CONNECTED) == 2)
                await asyncio.to_thread(place.publish, b"x")
                return news + await until(link, deliveries)

    news = run(work)
    assert kinds(news) == [
        LinkKind.SUBSCRIBED,
        LinkKind.CONNECTED,
        LinkKind.LOST,
        LinkKind.SUBSCRIBED,
        LinkKind.CONNECTED,
    ]
    assert [one.body for one in deliveries(news)] == [b"x"]


def test_while_the_broker_is_gone_it_is_tried_again_and_told_once(place: Place) -> None:
    async def work() -> list[News]:
        async with Proxy(place.node.ports.amqp) as proxy:
            link = place.link(Subscription(place.vhost, "amq.topic"), port=proxy.port)
            async with opened(link):
                proxy.stop()
                news = await until(link, lambda news: LinkKind.REFUSED in kinds(news))
                await asyncio.sleep(0.7)
                async with proxy:
                    return news + await until(link, lambda news: LinkKind.CONNECTED in kinds(news))

    news = run(work)
    assert [kind for kind in kinds(news) if kind in (LinkKind.LOST, LinkKind.REFUSED)] == [
        LinkKind.LOST,
        LinkKind.REFUSED,
    ]


def test_our_queue_deleted_under_us_is_told_and_declared_anew(place: Place) -> None:
    async def work() -> list[News]:
        link = place.link(Subscription(place.vhost, "amq.topic"))
        async with opened(link):
            (queue,) = link.own_queues
            vhost = ",".join(map(str, place.vhost.encode()))
            delete = (
                f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<{vhost}>>, queue, <<"{queue}">>)), '
                'rabbit_amqqueue:delete(Q, false, false, <<"somebody">>).'
            )
            await asyncio.to_thread(place.node.script, "rabbitmqctl", "eval", delete)
            news = await until(link, lambda news: kinds(news).count(LinkKind.SUBSCRIBED) == 2)
            await asyncio.to_thread(place.publish, b"x")
            return news + await until(link, deliveries)

    news = run(work)
    assert LinkKind.QUEUE_GONE in kinds(news)
    assert LinkKind.LOST not in kinds(news)
    assert [one.body for one in deliveries(news)] == [b"x"]


def test_a_subscription_can_be_made_anew_because_its_exchange_is_another(place: Place) -> None:
    subscription = Subscription(place.vhost, "moved")

    def declare() -> None:
        with place.channel() as channel:
            channel.exchange_delete("moved")
            channel.exchange_declare("moved", "topic")

    def publish() -> None:
        with place.channel() as channel:
            channel.basic_publish("moved", "k", b"x")

    async def work() -> list[News]:
        await asyncio.to_thread(declare)
        link = place.link(subscription)
        async with opened(link):
            await asyncio.to_thread(declare)
            link.renew(subscription)
            await until(link, lambda news: kinds(news).count(LinkKind.SUBSCRIBED) == 2)
            await asyncio.to_thread(publish)
            return await until(link, deliveries)

    assert len(deliveries(run(work))) == 1


def test_closing_ends_within_two_seconds_though_the_broker_no_longer_answers(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    async def work() -> float:
        async with Proxy(place.node.ports.amqp) as proxy:
            link = place.link(Subscription(place.vhost, "amq.topic"), port=proxy.port)
            await link.open()
            proxy.frozen = True
            begun = asyncio.get_running_loop().time()
            await link.close()
            await link.close()
            return asyncio.get_running_loop().time() - begun

    assert run(work) < 2
    assert capfd.readouterr() == ("", "")


def test_closing_while_it_is_being_opened_or_before_leaves_nothing(place: Place) -> None:
    async def work() -> None:
        await place.link(Subscription(place.vhost, "amq.topic")).close()
        for wait in (0, 0.001, 0.01, 0.03):
            link = place.link(Subscription(place.vhost, "amq.topic"))
            task = asyncio.create_task(link.open())
            await asyncio.sleep(wait)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await link.close()

    run(work)
    address = place.address()
    assert place.node.password not in repr(address)
    assert isinstance(address.definitions, Path | None)
