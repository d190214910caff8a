"""AMQP connections to a node's audit exchanges, over its restarts: what pika's callbacks say, as lists to be awaited.

Each subscription reads an exclusive queue of its own, named by the server and bounded: when we are too slow the broker
drops its oldest messages, and never waits for us. Messages are acknowledged once their reader is done with them, a
whole list at a time, so that at most `PREFETCH` of each subscription are in our memory and nothing piles up in the
broker's connection process, as it would without acknowledgements. That costs us a tenth more processor time than to
read without (RabbitMQ 3.10.8, pika 1.4.4, 40 000 messages of 1 KiB with a firehose's headers: 19.8 against 18.0 us;
with 64 instead of 1000 on their way it would be a quarter more).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pika.spec import BasicProperties

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.link_backlog import Backlog
from topicwarden_collectors.rabbitmq.link_problems import connection_problem, subscription_problem
from topicwarden_collectors.rabbitmq.link_session import Consumer, LinkFailed, Session

PREFETCH: Final = 1000
"""Most messages of a subscription that are on their way or in our memory."""
FIRST_ANSWER_S: Final = 15.0
"""How long the first connection may take, all virtual hosts together."""
_SHORTEST_S: Final = 0.2
_LONGEST_S: Final = 5.0
_SCARCE_S: Final = 5.0
"""Between attempts at an exchange that is no longer there: each makes the broker log an error."""
_OPTIONAL_S: Final = 60.0
"""Between attempts at one that need not be there."""
_LOOK_S: Final = 1.0
"""How often a bounded queue's length is asked for."""

# Without a handler Python prints warnings of libraries to stderr; ours to tell is what `LinkChange` tells.
logging.getLogger("pika").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to read: the messages that an exchange routes to a binding key."""

    vhost: str
    exchange: str
    binding_key: str = "#"
    max_length: int | None = None
    """Most messages that wait at the broker; the oldest are dropped."""
    max_bytes: int | None = None
    """Most bytes of bodies that wait at the broker; the oldest are dropped."""
    max_body: int | None = None
    """Longest body that is kept; of a longer one only the length."""
    optional: bool = False
    """Whether to go on without it when the exchange is not there or may not be read."""
    prefetch: int = PREFETCH


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message. Names are the broker's; what is no UTF-8 in them is surrogate-escaped."""

    subscription: Subscription
    exchange: str
    """Where it was first published to, which need not be the exchange subscribed to."""
    routing_key: str
    redelivered: bool
    properties: BasicProperties
    """Header names and values come as str, or as bytes when they are no UTF-8."""
    body: bytes
    size: int
    """The body's length, also when it was not kept."""


class LinkKind(StrEnum):
    """What changed."""

    CONNECTED = "connected"
    """All that is required of a virtual host is being read (again)."""
    LOST = "lost"
    """The connection of a virtual host ended; it is being made anew."""
    SUBSCRIBED = "subscribed"
    """One subscription is being read (again)."""
    QUEUE_GONE = "queue-gone"
    """Our queue was deleted, or the broker ended its channel; it is being declared anew."""
    QUEUE_FULL = "queue-full"
    """Our queue held all it may, or so nearly that nobody can tell: messages may have been dropped."""
    REFUSED = "refused"
    """The broker refused a subscription, or to let us in again; it is tried again."""


@dataclass(frozen=True, slots=True)
class LinkChange:
    """Something that happened to the link itself."""

    kind: LinkKind
    vhost: str
    reason: str
    """In words; may quote the broker."""
    time_ns: int
    """By our own clock."""
    subscription: Subscription | None = None
    """Whose queue it is about; None: the whole virtual host."""


News = Delivery | LinkChange


class AmqpLink:
    """Reads subscriptions of one node, with one connection a virtual host.

    `open`, then `take` again and again (or iterate), then `close`; all within one running event loop.
    """

    def __init__(
        self, address: Address, subscriptions: Sequence[Subscription], *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """`clock`: nanoseconds since the epoch, for `LinkChange.time_ns`."""
        self.address = address
        self._clock = clock
        self._inbox: deque[tuple[News, Consumer | None, int]] = deque()
        self._taken: dict[Consumer, int] = {}
        self._wake = asyncio.Event()
        self._closed = False
        self._sessions: set[Session] = set()
        self._hosts = [
            _Host(self, vhost, [one for one in subscriptions if one.vhost == vhost])
            for vhost in dict.fromkeys(one.vhost for one in subscriptions)
        ]

    async def open(self) -> None:
        """Connect and subscribe to everything; raises ObservationError with the first thing that stands in the way."""
        try:
            async with asyncio.timeout(FIRST_ANSWER_S):
                for host in self._hosts:
                    await host.begin()
        except TimeoutError as error:
            await self.close()
            problem = f"{self.address.text} does not answer like a RabbitMQ node"
            raise ObservationError(
                Problem(problem, hint="check the port: AMQP 0-9-1 is on 5672, TLS listeners need amqps://")
            ) from error
        except BaseException:
            await self.close()
            raise

    async def take(self, seconds: float, *, limit: int = 512) -> list[News]:
        """Return what has come, at most `limit`; waits for something, at most so many seconds.

        What was taken before counts as done with: it is acknowledged.
        """
        self._acknowledge()
        if not self._inbox and not self._closed:
            self._wake.clear()
            # Not wait_for: that of Python 3.11 swallows a cancellation that comes together with the news.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        taken: list[News] = []
        while self._inbox and len(taken) < limit:
            news, consumer, tag = self._inbox.popleft()
            taken.append(news)
            if consumer is not None:
                self._taken[consumer] = tag
        return taken

    async def __aiter__(self) -> AsyncIterator[list[News]]:
        """Yield lists as they come, until closed."""
        while not self._closed:
            if taken := await self.take(60.0):
                yield taken

    @property
    def own_connections(self) -> frozenset[str]:
        """What the broker calls the connections we have now (`192.0.2.7:49242 -> 192.0.2.1:5672`), unless a proxy or
        NAT stands between us."""
        return frozenset(name for session in self._sessions if (name := session.name) is not None)

    @property
    def server_version(self) -> str | None:
        """Which RabbitMQ answers (`3.10.8`); None when it does not say, or nodes of a cluster differ."""
        versions = {session.server_version for session in self._sessions}
        return versions.pop() if len(versions) == 1 else None

    @property
    def own_queues(self) -> frozenset[str]:
        """The names of the queues of these connections; the server makes them up, nobody else can get one."""
        return frozenset(name for session in self._sessions for name in session.queues)

    @property
    def closed(self) -> bool:
        """Whether `close` was called; `take` then returns what is left and no longer waits."""
        return self._closed

    def wake(self) -> None:
        """Make a waiting `take` return."""
        self._wake.set()

    def finish(self) -> None:
        """Wait no longer: `closed` is true from now on, and `rest` has what came; `close` is still to be called."""
        self._closed = True
        self._wake.set()

    def rest(self) -> list[News]:
        """Return all that came and was not taken."""
        rest = [news for news, _, _ in self._inbox]
        self._inbox.clear()
        return rest

    def renew(self, subscription: Subscription) -> None:
        """Declare and bind a subscription's queue anew: its exchange may be another one by now."""
        for host in self._hosts:
            host.renew(subscription)

    async def close(self) -> None:
        """End all connections, within two seconds whatever the broker does; more than once is no error."""
        self.finish()
        await asyncio.gather(*(host.end() for host in self._hosts))

    def _acknowledge(self) -> None:
        for consumer, tag in self._taken.items():
            consumer.acknowledge(tag)
        self._taken.clear()

    def _put(self, news: News, consumer: Consumer | None = None, tag: int = 0) -> None:
        self._inbox.append((news, consumer, tag))
        self._wake.set()

    def _tell(self, kind: LinkKind, vhost: str, reason: str, subscription: Subscription | None = None) -> None:
        self._put(LinkChange(kind, vhost, reason, self._clock(), subscription))


class _Host:
    """One virtual host's connection, made again whenever it ends."""

    def __init__(self, link: AmqpLink, vhost: str, subscriptions: Sequence[Subscription]) -> None:
        self._link = link
        self._vhost = vhost
        self._subscriptions = subscriptions
        self._session: Session | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._consumers: dict[Subscription, Consumer] = {}

    def renew(self, subscription: Subscription) -> None:
        """Let go of a subscription's queue; it is declared anew at once."""
        consumer = self._consumers.pop(subscription, None)
        if consumer is not None:
            consumer.let_go("it is bound anew")

    async def begin(self) -> None:
        """Make the first connection; raises ObservationError."""
        try:
            await self._connect()
        except LinkFailed as error:
            raise ObservationError(connection_problem(self._link.address, self._vhost, error.cause)) from error
        self._task = asyncio.create_task(self._stay())

    async def end(self) -> None:
        """Stop everything of this virtual host."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._disconnect()

    async def _stay(self) -> None:
        """Wait for the connection to end, and make it again, for ever."""
        while True:
            session = self._session
            if session is not None:
                # Not awaited itself: to be cancelled while waiting for it would cancel it.
                await asyncio.wait([session.ended])
                reason = session.ended.result()
                self._link._tell(LinkKind.LOST, self._vhost, str(reason) or type(reason).__name__)
            await self._disconnect()
            pause, told = _SHORTEST_S, ""
            while True:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_S, pause * 2)
                try:
                    await self._connect()
                    break
                except LinkFailed as error:
                    problem = connection_problem(self._link.address, self._vhost, error.cause)
                except ObservationError as error:
                    problem = error.problems[0]
                await self._disconnect()
                if problem.message != told:
                    told = problem.message
                    self._link._tell(LinkKind.REFUSED, self._vhost, told)

    async def _connect(self) -> None:
        """Connect and subscribe; raises LinkFailed, or ObservationError for a refused subscription."""
        self._session = session = await Session.open(self._link.address, self._vhost, self._link._sessions)
        for subscription in self._subscriptions:
            consumer = None
            try:
                consumer = await self._subscribe(session, subscription)
            except LinkFailed as error:
                if session.ended.done():
                    raise
                problem = subscription_problem(self._link.address, subscription, error.cause)
                if not subscription.optional:
                    raise ObservationError(problem) from error
                self._link._tell(LinkKind.REFUSED, self._vhost, problem.message, subscription)
            self._readers.append(asyncio.create_task(self._read(session, subscription, consumer)))
        self._link._tell(LinkKind.CONNECTED, self._vhost, self._link.address.text)

    async def _subscribe(self, session: Session, subscription: Subscription) -> Consumer:
        def receive(
            consumer: Consumer,
            tag: int,
            exchange: str,
            key: str,
            redelivered: bool,
            properties: BasicProperties,
            body: bytes,
        ) -> None:
            size = len(body)
            if subscription.max_body is not None and size > subscription.max_body:
                body = b""
            delivery = Delivery(subscription, exchange, key, redelivered, properties, body, size)
            self._link._put(delivery, consumer, tag)

        arguments: dict[str, str | int] = {}
        if subscription.max_length is not None:
            arguments["x-max-length"] = subscription.max_length
        if subscription.max_bytes is not None:
            arguments["x-max-length-bytes"] = subscription.max_bytes
        if arguments:
            arguments["x-overflow"] = "drop-head"
        backlog = Backlog(subscription.max_length, subscription.max_bytes, subscription.prefetch)
        consumer = await Consumer.open(
            session, subscription.exchange, subscription.binding_key, arguments, subscription.prefetch, receive, backlog
        )
        self._consumers[subscription] = consumer
        self._link._tell(LinkKind.SUBSCRIBED, self._vhost, subscription.exchange, subscription)
        return consumer

    async def _read(self, session: Session, subscription: Subscription, consumer: Consumer | None) -> None:
        """Keep one subscription going as long as the connection stands."""
        pause, told = _SHORTEST_S, ""
        while True:
            if consumer is not None:
                reason = await self._watch_length(consumer, subscription)
                if session.ended.done():
                    return
                self._link._tell(LinkKind.QUEUE_GONE, self._vhost, reason, subscription)
                await consumer.close()
                consumer, pause, told = None, _SHORTEST_S, ""
            await asyncio.sleep(_OPTIONAL_S if told and subscription.optional else pause)
            pause = min(_SCARCE_S, pause * 2)
            try:
                consumer = await self._subscribe(session, subscription)
            except LinkFailed as error:
                if session.ended.done():
                    return
                problem = subscription_problem(self._link.address, subscription, error.cause)
                if problem.message != told:
                    told = problem.message
                    self._link._tell(LinkKind.REFUSED, self._vhost, told, subscription)

    async def _watch_length(self, consumer: Consumer, subscription: Subscription) -> str:
        """Return why the consumer ended; until then tell when its queue may have dropped messages."""
        while True:
            done, _ = await asyncio.wait([consumer.ended], timeout=_LOOK_S)
            if done:
                return str(consumer.ended.result())
            if subscription.max_length is None and subscription.max_bytes is None:
                continue
            with contextlib.suppress(LinkFailed):
                if consumer.backlog.looked(await consumer.waiting()):
                    limits = ((subscription.max_length, "messages"), (subscription.max_bytes, "bytes"))
                    words = " or ".join(f"{limit} {what}" for limit, what in limits if limit is not None)
                    self._link._tell(LinkKind.QUEUE_FULL, self._vhost, words, subscription)

    async def _disconnect(self) -> None:
        readers, self._readers = self._readers, []
        self._consumers.clear()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()
