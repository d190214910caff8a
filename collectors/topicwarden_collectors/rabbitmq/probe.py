"""Whether a node runs our plugin: asked once, before a mode is chosen."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pika.channel import Channel

from topicwarden.errors import ObservationError
from topicwarden_collectors.rabbitmq import exchanges
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.link_problems import connection_problem
from topicwarden_collectors.rabbitmq.link_session import LinkFailed, Session

_ANSWER_S: Final = 20.0


def has_plugin(address: Address) -> bool:
    """Whether the plugin's exchange is in the address's virtual host; asking needs no permission.

    Must not be called while an event loop runs in this thread. Raises ObservationError when the node cannot be asked.
    """
    return asyncio.run(_has_plugin(address))


async def _has_plugin(address: Address) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_S):
            session = await Session.open(address, address.vhost)
            try:
                return await _is_there(session)
            finally:
                await session.close()
    except LinkFailed as failed:
        raise ObservationError(connection_problem(address, address.vhost, failed.cause)) from failed
    except TimeoutError as error:
        raise ObservationError(connection_problem(address, address.vhost, error)) from error


async def _is_there(session: Session) -> bool:
    """Declare the exchange passively: RabbitMQ closes the channel (404) when there is none."""
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def settle(found: bool) -> None:
        if not answer.done():
            answer.set_result(found)

    def opened(channel: Channel) -> None:
        channel.add_on_close_callback(lambda _channel, _reason: settle(False))
        channel.exchange_declare(exchanges.AUDIT, passive=True, callback=lambda _frame: settle(True))

    if session.connection is None:
        raise LinkFailed(ConnectionError("closed"))
    session.connection.channel(on_open_callback=opened)
    first: list[asyncio.Future[Any]] = [answer, session.ended]
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        raise LinkFailed(session.ended.result())
    return answer.result()
