"""The collector that needs nothing at the broker but RabbitMQ's own plugins: event exchange, log exchange, firehose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import EventBatch, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.link import AmqpLink, LinkChange, News, Subscription
from topicwarden_collectors.rabbitmq.management import take_snapshot
from topicwarden_collectors.rabbitmq.stock_blind_spots import EVENTS, FIREHOSE_COST, LOG, TRACE, blind_spots
from topicwarden_collectors.rabbitmq.stock_decode import StockDecoder

T = TypeVar("T")

EVENT_VHOST: Final = "/"
"""Where the event and log exchanges are: RabbitMQ's `default_vhost` unless configured."""
_WAIT_S: Final = 0.1
_LISTED_AFTER_S: Final = 7.0
"""When a connection is in the management API's list: RabbitMQ 3.10.8 adds it up to 5 s later (its
`collect_statistics_interval`), as seen by connecting and asking."""
_FEW: Final = 64
_GATHER_S: Final = 0.01
"""How long messages gather after a few came."""
_FIRST_PAUSE_S: Final = 0.5
_LAST_PAUSE_S: Final = 5.0
_WAITING: Final = 200_000
"""Most messages that wait in one of our queues at the broker."""
_WAITING_BYTES: Final = 256 * 1024 * 1024
_LONGEST_LOG: Final = 1 << 20


class StockCollector:
    """Follows a node's own audit exchanges over outages; `topicwarden.sources.Collector`."""

    def __init__(
        self,
        address: Address,
        options: SourceOptions | None = None,
        *,
        tables: Tables | None = None,
        clock: Callable[[], int] = time.time_ns,
        wait_s: float = _WAIT_S,
    ) -> None:
        """Read the definitions, if the address names some; raises ConfigurationError. Connects when `batches` is asked.

        `clock`: nanoseconds since the epoch, for the firehose, which has no times, and for the lag.
        """
        options = options or SourceOptions()
        self.broker = options.broker or address.host
        self.counters = Counters()
        self._address = address
        self._clock = clock
        self._wait_s = wait_s
        grants = None
        if address.definitions is not None:
            grants = Grants(self.broker)
            grants.load(read_definitions(address.definitions))
        self._decoder = StockDecoder(tables or Tables(), self.broker, self.counters, address.firehose, grants)
        self._link: AmqpLink | None = None
        self._closed = asyncio.Event()
        self._list_again: float | None = None

    @property
    def title(self) -> str:
        """The mode in a few words, with its cost where it has one."""
        parts = "event and log exchange"
        if self._address.firehose:
            vhosts = ", ".join(map(repr, self._address.firehose))
            parts += f", firehose of {vhosts} at {FIREHOSE_COST}"
        return f"rabbitmq stock mode: {parts} ({self._address.text})"

    @property
    def observing(self) -> bool:
        """Whether a queue of ours is bound."""
        sight = self._decoder.sight
        return sight.events is None or sight.log is None

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What is not seen as things stand."""
        return blind_spots(self._decoder.sight)

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed; raises ObservationError when nothing at all can be observed."""
        if self._is_closing():
            return
        decoder = self._decoder
        self._link = link = self._new_link()
        try:
            await self._unless_closed(link.open())
            first = True
            while not self._is_closing():
                news = await link.take(self._wait_s)
                decoder.ours(link.own_connections, link.own_queues)
                decoder.served_by(link.server_version)
                # The snapshot comes before the events, which tell what ended since.
                changes = _last_change(news)
                decoder.feed(news[:changes], self._clock())
                if first:
                    self._insist()
                    first = False
                if decoder.stale or self._is_due():
                    await self._list()
                decoder.feed(news[changes:], self._clock())
                decoder.pass_time(self._clock())
                for batch in self._take():
                    yield batch
                if 0 < len(news) < _FEW:
                    # A batch for each message would cost several times the messages.
                    await asyncio.sleep(_GATHER_S)
                if decoder.take_unbound():
                    await link.close()
                    link = await self._reopened()
            decoder.feed(await link.take(0, limit=_WAITING), self._clock())
            decoder.finish()
            for batch in self._take():
                yield batch
        finally:
            self._link = None
            await link.close()

    async def close(self) -> None:
        """Stop; `batches` hands over what has come, and ends."""
        self._closed.set()
        if self._link is not None:
            self._link.wake()

    async def _unless_closed(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what `work` gives; None as soon as we are closed."""
        working, closing = asyncio.ensure_future(work), asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait([working, closing], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            closing.cancel()
            if not working.done():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    def _new_link(self) -> AmqpLink:
        return AmqpLink(self._address, self._subscriptions(), clock=self._clock)

    async def _reopened(self) -> AmqpLink:
        """Return a link with new queues; tries until it works or we are closed."""
        pause = _FIRST_PAUSE_S
        while True:
            self._link = link = self._new_link()
            try:
                await self._unless_closed(link.open())
            except ObservationError:
                await self._unless_closed(asyncio.sleep(pause))
                pause = min(2 * pause, _LAST_PAUSE_S)
            else:
                return link
            if self._is_closing():
                return link

    def _is_closing(self) -> bool:
        return self._closed.is_set()

    def _subscriptions(self) -> list[Subscription]:
        def bounded(vhost: str, exchange: str, **more: Any) -> Subscription:
            return Subscription(vhost, exchange, max_length=_WAITING, max_bytes=_WAITING_BYTES, **more)

        return [
            bounded(EVENT_VHOST, EVENTS, optional=True, max_body=0),
            bounded(EVENT_VHOST, LOG, optional=True, max_body=_LONGEST_LOG),
            # The body is the message's own: not a byte of it stays.
            *(bounded(vhost, TRACE, max_body=0) for vhost in self._address.firehose),
        ]

    def _is_due(self) -> bool:
        return self._list_again is not None and time.monotonic() >= self._list_again

    async def _list(self) -> None:
        """Ask the management API who is there, if we may: at once, and again when it knows all that was there then."""
        complete, self._list_again = self._is_due() and not self._decoder.stale, None
        if self._address.management is None:
            self._decoder.stale = False
            return
        if not complete:
            self._list_again = time.monotonic() + _LISTED_AFTER_S
        snapshot = await self._unless_closed(asyncio.to_thread(take_snapshot, self._address))
        if snapshot is not None:
            self._decoder.listed(snapshot, complete=complete)

    def _insist(self) -> None:
        """Raise ObservationError when there is nothing to read."""
        sight = self._decoder.sight
        if sight.events is None or sight.log is None or sight.firehose:
            return
        where = self._address.text
        raise ObservationError(
            Problem(
                f"nothing can be observed at {where}: {sight.events}; {sight.log}",
                hint="rabbitmq-plugins enable rabbitmq_event_exchange; in rabbitmq.conf log.exchange = true and "
                "log.exchange.formatter = json; read permission on ^amq\\.rabbitmq\\.(event|log)$ in virtual host /",
            )
        )

    def _take(self) -> Iterator[EventBatch]:
        for batch in self._decoder.take():
            if len(batch):
                self.counters.lag_ns = max(0, self._clock() - int(batch.time_ns[-1]))
            yield batch


def _last_change(news: Sequence[News]) -> int:
    """Return how many of the news there are up to the last change of the link itself."""
    return max((number for number, one in enumerate(news, 1) if isinstance(one, LinkChange)), default=0)
