"""One AMQP connection and its consumers: pika's callbacks as futures. `link.py` keeps them alive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.link_backlog import Backlog
from topicwarden_collectors.rabbitmq.link_headers import read_frame

_CONNECT_S: Final = 5
_HANDSHAKE_S: Final = 10
_STEP_S: Final = 10.0
_GOODBYE_S: Final = 1.0
_HEARTBEAT_S: Final = 20
"""A broker that went away without a word is noticed after about twice that."""


class LinkFailed(Exception):  # noqa: N818 - it is handled where it is raised, and never shown
    """A step towards reading failed; `cause` is what pika gave as reason."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Connection(AsyncioConnection):
    """pika's connection, which a header that pika cannot decode does not end."""

    def _read_frame(self) -> tuple[int, Any]:
        """Return the next frame and its length; overrides pika's own."""
        return read_frame(self._frame_buffer)  # type: ignore[attr-defined] # the stubs leave it out


class Session:
    """A connection to one virtual host. `ended` is done, with the reason, when it stands no longer."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connection: AsyncioConnection | None = None
        self.queues: set[str] = set()
        """Our queues, by the names the server gave them."""

    @classmethod
    async def open(cls, address: Address, vhost: str, sessions: set[Session] | None = None) -> Session:
        """Connect and log in; raises LinkFailed. `sessions` holds it from before the login until it has ended."""
        session = cls()
        if sessions is not None:
            sessions.add(session)
            session.ended.add_done_callback(lambda _: sessions.discard(session))
        session.connection = _Connection(
            _parameters(address, vhost),
            on_open_callback=session._on_open,
            on_open_error_callback=session._on_end,
            on_close_callback=session._on_end,
            custom_ioloop=asyncio.get_running_loop(),
        )
        first: list[asyncio.Future[Any]] = [session._opened, session.ended]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await session.close()
            raise
        if not session._opened.done():
            raise LinkFailed(session.ended.result())
        return session

    @property
    def server_version(self) -> str | None:
        """Which RabbitMQ the broker says it is (`3.10.8`); None before there is a connection, or when it is silent."""
        properties = getattr(self.connection, "server_properties", None)
        version = properties.get("version") if isinstance(properties, dict) else None
        return version if isinstance(version, str) else None

    @property
    def name(self) -> str | None:
        """What the broker calls the connection if nothing between us translates addresses; None before there is one."""
        # pika has no public way to the socket.
        connected = getattr(getattr(self.connection, "_transport", None), "_sock", None)
        try:
            return (
                None
                if connected is None
                else " -> ".join(map(_end, (connected.getsockname(), connected.getpeername())))
            )
        except OSError:
            return None

    async def close(self) -> None:
        """End the connection: politely, and after a second anyhow."""
        connection = self.connection
        if connection is None or self.ended.done():
            return
        with contextlib.suppress(AMQPError):
            connection.close()
        await asyncio.wait([self.ended], timeout=_GOODBYE_S)
        if self.ended.done():
            return
        # The broker does not answer; pika has no public way to let go of the socket.
        transport = getattr(connection, "_transport", None)
        if transport is not None:
            transport.abort()
            await asyncio.wait([self.ended], timeout=_GOODBYE_S / 2)

    def _on_open(self, _connection: object) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _on_end(self, _connection: object, reason: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


Receive = Callable[["Consumer", int, str, str, bool, BasicProperties, bytes], None]
"""Takes a message: its consumer, delivery tag, exchange, routing key, whether redelivered, properties, body."""


class Consumer:
    """An exclusive queue, bound and consumed from on a channel of its own. `ended` gives the reason when it ends."""

    def __init__(self, session: Session, receive: Receive, backlog: Backlog) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._session = session
        self._receive = receive
        self._channel: Channel | None = None
        self._closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._queue = ""
        self.backlog = backlog
        """What was delivered, and whether something may be missing."""

    @classmethod
    async def open(
        cls,
        session: Session,
        exchange: str,
        binding_key: str,
        arguments: Mapping[str, str | int],
        prefetch: int,
        receive: Receive,
        backlog: Backlog,
    ) -> Consumer:
        """Declare, bind and consume; raises LinkFailed with the broker's reason."""
        consumer = cls(session, receive, backlog)
        try:
            await consumer._open(exchange, binding_key, arguments, prefetch)
        except BaseException:
            await consumer.close()
            raise
        return consumer

    async def _open(self, exchange: str, key: str, arguments: Mapping[str, str | int], prefetch: int) -> None:
        connection = self._session.connection
        if connection is None or not connection.is_open:
            raise LinkFailed(self._session.ended.result() if self._session.ended.done() else ConnectionError())

        def opening(done: Callable[[Any], None]) -> None:
            self._channel = connection.channel(on_open_callback=done)
            self._channel.add_on_close_callback(self._on_close)

        await self._step(opening)
        channel = self._channel
        if channel is None:
            raise LinkFailed(ConnectionError("no channel"))
        channel.add_on_cancel_callback(self._on_cancel)
        await self._step(lambda done: channel.basic_qos(prefetch_count=prefetch, callback=done))
        declared = await self._step(
            lambda done: channel.queue_declare("", exclusive=True, arguments=arguments, callback=done)
        )
        self._queue = queue = str(declared.method.queue)
        self._session.queues.add(queue)
        await self._step(lambda done: channel.queue_bind(queue, exchange, key, callback=done))
        await self._step(
            lambda done: (channel.basic_consume(queue, self._on_message, exclusive=True, callback=done), None)[1]
        )

    async def waiting(self) -> int:
        """Return how many messages wait in the queue; raises LinkFailed."""
        channel = self._channel
        if channel is None or not channel.is_open:
            raise LinkFailed(ConnectionError("the channel is closed"))
        queue = self._queue
        # A passive declare needs no permission.
        declared = await self._step(lambda done: channel.queue_declare(queue, passive=True, callback=done))
        return int(declared.method.message_count)

    def acknowledge(self, tag: int) -> None:
        """Be done with all deliveries up to `tag`."""
        if self._channel is not None and self._channel.is_open:
            self._channel.basic_ack(tag, multiple=True)

    def let_go(self, reason: str) -> None:
        """Be done with the queue, for our own reasons."""
        self._end(reason)

    async def close(self) -> None:
        """Close the channel, which may be closed already; the queue goes with the connection or by itself."""
        channel = self._channel
        if channel is None:
            return
        with contextlib.suppress(AMQPError):
            if channel.is_open and self._queue:
                channel.queue_delete(self._queue)
            if channel.is_open:
                channel.close()
        await asyncio.wait([self._closed, self._session.ended], timeout=1, return_when=asyncio.FIRST_COMPLETED)

    async def _step(self, start: Callable[[Callable[[Any], None]], None]) -> Any:
        """Start an operation and return the broker's answer to it; raises LinkFailed when the channel closes."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(frame: Any) -> None:
            if not answer.done():
                answer.set_result(frame)

        try:
            start(done)
        except AMQPError as error:
            raise LinkFailed(self._closed.result() if self._closed.done() else error) from error
        finished, _ = await asyncio.wait(
            [answer, self._closed, self._session.ended], timeout=_STEP_S, return_when=asyncio.FIRST_COMPLETED
        )
        if answer.done():
            return answer.result()
        for ended in (self._closed, self._session.ended):
            if ended in finished:
                raise LinkFailed(ended.result())
        raise LinkFailed(TimeoutError(f"no answer within {_STEP_S:.0f} s"))

    def _on_message(self, _channel: object, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self.backlog.delivered(len(body))
        self._receive(
            self,
            method.delivery_tag or 0,
            _text(method.exchange or ""),
            _text(method.routing_key or ""),
            method.redelivered,
            properties,
            body,
        )

    def _on_cancel(self, _frame: object) -> None:
        self._end("our queue was deleted")

    def _on_close(self, _channel: object, reason: BaseException) -> None:
        if not self._closed.done():
            self._closed.set_result(reason)
        self._end(str(reason) or type(reason).__name__)

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


def _end(address: tuple[Any, ...]) -> str:
    """Return one end of a connection as RabbitMQ writes it (`rabbit_net:connection_string`, 3.10.8)."""
    host = str(address[0]).partition("%")[0].removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def _text(name: str | bytes) -> str:
    """Return a name as text; pika gives bytes when they are no UTF-8."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def _parameters(address: Address, vhost: str) -> pika.ConnectionParameters:
    credentials: pika.PlainCredentials | pika.credentials.ExternalCredentials
    if address.username is None and address.client_certificate:
        credentials = pika.credentials.ExternalCredentials()
    elif address.username is None:
        credentials = pika.PlainCredentials("guest", "guest")
    else:
        credentials = pika.PlainCredentials(address.username, address.password or "")
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=vhost,
        credentials=credentials,
        heartbeat=_HEARTBEAT_S,
        ssl_options=None if address.tls is None else pika.SSLOptions(address.tls, address.host),
        socket_timeout=_CONNECT_S,
        stack_timeout=_HANDSHAKE_S,
        client_properties={"connection_name": "topicwarden", "product": "topicwarden"},
    )
