"""The collector that reads our plugin's stream: every attempt and decision, over restarts and broken connections."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

from topicwarden.events import EventBatch, Notice, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.genuine import origin_of_forgery
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.link import AmqpLink, Delivery, LinkChange, LinkKind, News, Subscription
from topicwarden_collectors.rabbitmq.stream_blind_spots import stream_blind_spots
from topicwarden_collectors.rabbitmq.stream_decode import Actor
from topicwarden_collectors.rabbitmq.stream_events import StreamDecoder
from topicwarden_collectors.rabbitmq.stream_layout import EXCHANGE

FORGED: Final = "TW907"
SWITCHED_OFF: Final = "TW908"

_SETTLE_S: Final = 0.03
"""An attempt that nothing followed for so long was allowed; the plugin hands on what it has every 20 ms."""
_SILENT_S: Final = 5.0
"""The plugin says something at least every second."""
_IDLE_S: Final = 1.0
_MAX_LENGTH: Final = 2000
"""Batches that may wait at the broker: 40 s of a node at full speed."""
_MAX_BYTES: Final = 64 << 20
_MAX_BODY: Final = 32 << 20
"""A batch of 1000 events with a long name each takes 11 MiB."""
_PREFETCH: Final = 64
_MOST_ORIGINS: Final = 16
_OWN_CONNECTIONS: Final = 4


class StreamCollector:
    """Reads the plugin's stream from the address's virtual host; `topicwarden.sources.Collector`."""

    def __init__(
        self,
        address: Address,
        options: SourceOptions | None = None,
        *,
        tables: Tables | None = None,
        clock: Callable[[], int] = time.time_ns,
        silent_s: float = _SILENT_S,
    ) -> None:
        """Connects when `batches` is asked; raises ConfigurationError when the address's definitions cannot be read.

        `clock`: nanoseconds since the epoch, for the lag and for notices; `silent_s`: how long the plugin may say
        nothing.
        """
        options = options or SourceOptions()
        self.address = address
        self.broker = options.broker or address.host
        self.counters = Counters()
        self._clock = clock
        self._silent_s = silent_s
        self._grants = Grants(self.broker, default_vhost="/")
        if address.definitions is not None:
            self._grants.load(read_definitions(address.definitions))
        self._decoder = StreamDecoder(
            tables or Tables(),
            self.broker,
            self._grants,
            counters=self.counters,
            ours=self._is_ours,
            started_ns=clock(),
        )
        self._subscription = Subscription(
            address.vhost,
            EXCHANGE,
            "",
            max_length=_MAX_LENGTH,
            max_bytes=_MAX_BYTES,
            max_body=_MAX_BODY,
            prefetch=_PREFETCH,
        )
        self._link: AmqpLink | None = None
        self._closed = False
        self._heard = time.monotonic()
        self._silent = False
        self._connected = False
        self._own: dict[str, None] = {}
        """What the broker called our last connections."""

    @property
    def title(self) -> str:
        """The mode in a few words."""
        return f"rabbitmq plugin, every attempt and decision ({self.address.text})"

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What the plugin cannot show as the broker runs now."""
        spots = stream_blind_spots(self._decoder.notes)
        if self._silent:
            silent = BlindSpot(
                "the plugin gives no sign of life although the broker runs: nothing is seen",
                "rabbitmq-plugins enable topicwarden_audit; this collector goes on by itself",
            )
            return (silent, *spots)
        return spots

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed, over restarts of the broker; raises ObservationError when we cannot begin."""
        if self._closed:
            return
        self._link = link = AmqpLink(self.address, [self._subscription], clock=self._clock)
        try:
            await link.open()
            self._heard = time.monotonic()
            while not link.closed:
                waiting = self._decoder.waiting > 0
                taken = await link.take(_SETTLE_S if waiting else min(_IDLE_S, self._silent_s / 2), limit=_PREFETCH)
                for batch in self._step(taken, waiting):
                    yield self._measured(batch)
            for batch in self._end(link):
                yield self._measured(batch)
        finally:
            self._link = None
            await link.close()

    async def close(self) -> None:
        """Stop; `batches` hands over what has come, and ends."""
        self._closed = True
        if self._link is not None:
            self._link.finish()

    def _is_ours(self, actor: Actor) -> bool:
        """Whether a channel or connection is our link's, now or until a moment ago."""
        if self._link is not None:
            for name in self._link.own_connections:
                self._own[name] = None
            while len(self._own) > _OWN_CONNECTIONS:
                del self._own[next(iter(self._own))]
        return actor.connection in self._own

    def _step(self, taken: Sequence[News], waiting: bool) -> Iterator[EventBatch]:
        """Work off what came, in order."""
        bodies: list[bytes] = []
        forged: Counter[str] = Counter()
        for news in taken:
            if isinstance(news, Delivery):
                origin = origin_of_forgery(news, EXCHANGE)
                if origin is not None:
                    forged[origin if len(forged) < _MOST_ORIGINS else "many places"] += 1
                else:
                    bodies.append(news.body)
                continue
            if bodies:
                yield from self._decode(bodies)
                bodies = []
            yield from self._changed(news)
        self._report(forged)
        if bodies:
            yield from self._decode(bodies)
        elif waiting and not taken:
            # Nothing came for a while, not even the next batch: no refusal is on its way.
            yield from self._decoder.settle(everything=True)
        else:
            yield from self._look()
            yield from self._decoder.settle()

    def _decode(self, bodies: list[bytes]) -> Iterator[EventBatch]:
        self._heard = time.monotonic()
        if self._silent:
            self._silent = False
            yield from self._decoder.gap(self._clock(), "plugin", "the plugin was switched off")
        yield from self._decoder.decode(bodies)

    def _changed(self, change: LinkChange) -> Iterator[EventBatch]:
        """Take in what happened to the connection."""
        match change.kind:
            case LinkKind.CONNECTED | LinkKind.SUBSCRIBED:
                self._connected = True
                self._heard = time.monotonic()
            case LinkKind.LOST:
                self._connected = False
                yield from self._decoder.gap(change.time_ns, "connection", f"the connection was lost: {change.reason}")
            case LinkKind.QUEUE_GONE if not self._silent:
                yield from self._decoder.gap(change.time_ns, "queue-gone", f"our queue went away: {change.reason}")
            case _:
                pass  # full: what was lost is counted by the batches' numbers; refused: told by what came before
        if change.kind is not LinkKind.QUEUE_FULL:
            name = f"link_{change.kind.value.replace('-', '_')}"
            self.counters.source[name] = self.counters.source.get(name, 0) + 1

    def _look(self) -> Iterator[EventBatch]:
        """Notice when the plugin says nothing."""
        if not self._connected or time.monotonic() - self._heard < self._silent_s:
            return
        self._heard = time.monotonic()
        # A plugin that was enabled again has an exchange that knows nothing of our queue.
        if self._link is not None:
            self._link.renew(self._subscription)
        if self._silent:
            return
        self._silent = True
        yield from self._decoder.settle(everything=True)
        evidence: dict[str, str | int | float] = {"what": "the plugin", "silent_seconds": round(self._silent_s)}
        self._decoder.notice(Notice(SWITCHED_OFF, self._clock(), self.broker, scope="plugin", evidence=evidence))

    def _report(self, forged: Counter[str]) -> None:
        for origin, count in forged.items():
            self._decoder.notice(
                Notice(
                    FORGED,
                    self._clock(),
                    self.broker,
                    scope=EXCHANGE,
                    count=count,
                    witness=origin,
                    evidence={"exchange": EXCHANGE},
                )
            )
            self.counters.source["forged_messages"] = self.counters.source.get("forged_messages", 0) + count

    def _end(self, link: AmqpLink) -> Iterator[EventBatch]:
        """Hand over what is left."""
        yield from self._step(link.rest(), waiting=False)
        yield from self._decoder.settle(everything=True)

    def _measured(self, batch: EventBatch) -> EventBatch:
        if len(batch):
            self.counters.lag_ns = max(0, self._clock() - int(batch.time_ns[-1]))
        return batch
