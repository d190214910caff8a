"""The collector that subscribes to Mosquitto's `$SYS` topics: its log lines, if it publishes them, and its counts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

from topicwarden.errors import ObservationError
from topicwarden.events import EventBatch, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.mosquitto.log_blind_spots import SYS_BLIND_SPOTS, SYS_NO_COUNTS, SYS_NO_LOG
from topicwarden_collectors.mosquitto.log_decode import LogDecoder
from topicwarden_collectors.mosquitto.log_read import batches_of, zone_of
from topicwarden_collectors.mosquitto.log_sink import LOST
from topicwarden_collectors.mosquitto.sys_link import SysLink, read_address

LOG_PREFIX: Final = "$SYS/broker/log/"
_PREFIX: Final = "$SYS/broker/"
_COUNT: Final = re.compile(
    r"clients/\w+|messages/\w+|publish/(?:messages|bytes)/\w+|bytes/\w+|subscriptions/count|shared_subscriptions/count"
    r"|retained messages/count|store/messages/(?:count|bytes)|heap/(?:current|maximum)(?: size)?"
)
_NUMBER: Final = re.compile(rb"\d{1,18}")
_VERSION: Final = re.compile(rb"mosquitto version (\S{1,40})")
_WAIT_S: Final = 0.5
_FIRST_BACKOFF_S: Final = 0.5
_LAST_BACKOFF_S: Final = 30.0


class SysCollector:
    """Follows `$SYS/#` over outages; `topicwarden.sources.Collector`."""

    def __init__(
        self,
        source: str,
        options: SourceOptions | None = None,
        *,
        tables: Tables | None = None,
        clock: Callable[[], int] = time.time_ns,
        backoff_s: float = _FIRST_BACKOFF_S,
    ) -> None:
        """Read address, password and certificates; raises ConfigurationError. Connects when `batches` is asked.

        `clock`: nanoseconds since the epoch, for the lag, for lines without a time and for notices; `backoff_s`: the
        first pause before connecting again, doubled each time up to 30 seconds.
        """
        options = options or SourceOptions()
        self._address = read_address(source, options)
        self.broker = options.broker or self._address.host
        self.counters = Counters()
        self._clock = clock
        self._backoff_s = backoff_s
        self._decoder = LogDecoder(
            tables or Tables(), self.broker, zone=zone_of(options.timezone), base_ns=clock(), counters=self.counters
        )
        self._link: SysLink | None = None
        self._closed = asyncio.Event()
        self._log_seen = self._counts_seen = False
        self._subscribed = False

    @property
    def title(self) -> str:
        """The mode in a few words."""
        return f"mosquitto $SYS topics ({self._address.text})"

    @property
    def observing(self) -> bool:
        """Whether the broker has taken our subscription."""
        return self._subscribed

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What `$SYS` does not show; until the first message came, that is everything."""
        spots = list(SYS_BLIND_SPOTS)
        if not self._log_seen:
            spots.insert(0, SYS_NO_LOG)
        if not self._counts_seen:
            spots.append(SYS_NO_COUNTS)
        return spots

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed; raises ObservationError when the first connection cannot be had."""
        try:
            if not self._is_closing():
                await self._connect()
            while not self._is_closing():
                link = self._link
                if link is None:
                    await self._reconnect()
                    continue
                await link.wait(_WAIT_S)
                ended = link.ended
                for batch in self._step(link):
                    yield batch
                if ended is not None and not self._is_closing():
                    await link.close()
                    self._link = None
                    self._decoder.gap(self._clock(), "connection", why=f"the connection was lost: {ended}")
                    for batch in batches_of(self._decoder):
                        yield batch
            if self._link is not None:
                for batch in self._step(self._link):
                    yield batch
        finally:
            await self._release()

    async def close(self) -> None:
        """Stop; `batches` hands over what has come, and ends."""
        self._closed.set()
        if self._link is not None:
            self._link.wake()

    def _is_closing(self) -> bool:
        return self._closed.is_set()

    async def _release(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connect(self) -> None:
        self._link = link = SysLink(self._address)
        # Our own coming and going is not the broker's users' doing.
        self._decoder.sink.ignored = link.client_id
        await link.open()
        self._subscribed = True

    async def _reconnect(self) -> None:
        """Try again until it works or we are closed."""
        pause = self._backoff_s
        while not self._is_closing():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closed.wait()
                return
            try:
                await self._connect()
            except ObservationError:
                await self._release()
                pause = min(pause * 2, _LAST_BACKOFF_S)
            else:
                self._decoder.sink.count("reconnects")
                return

    def _step(self, link: SysLink) -> Iterator[EventBatch]:
        messages, dropped = link.take()
        decoder = self._decoder
        decoder.clock.base_ns = self._clock()
        for topic, payload, retained in messages:
            if not topic.startswith(LOG_PREFIX):
                self._count(topic, payload)
            elif not retained:
                self._log_seen = True
                decoder.message(topic.removeprefix(LOG_PREFIX), payload)
        if link.too_long:
            for _ in range(link.too_long):
                decoder.sink.error("too_long")
            link.too_long = 0
        if dropped:
            self.counters.lost += dropped
            self.counters.gaps += 1
            why = {"why": "messages came faster than they were read"}
            decoder.sink.notice(LOST, "queue", self._clock(), count=dropped, evidence=why)
        for batch in batches_of(decoder):
            if len(batch):
                self.counters.lag_ns = self._clock() - int(batch.time_ns[-1])
            yield batch

    def _count(self, topic: str, payload: bytes) -> None:
        """Take one of the broker's own counts: `clients/connected` and the like, as they stand."""
        name = topic.removeprefix(_PREFIX)
        if _COUNT.fullmatch(name) and _NUMBER.fullmatch(payload):
            self._counts_seen = True
            self.counters.source[name] = int(payload)
        elif name == "version":
            match = _VERSION.match(payload)
            if match is not None:
                self._decoder.version = match[1]
