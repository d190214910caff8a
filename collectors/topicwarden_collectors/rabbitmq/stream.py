"""The collector that reads our plugin's stream: every attempt and decision, over restarts and broken connections."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.events import COLUMNS, EventBatch, Notice, Tables, finish_batch
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.genuine import origin_of_forgery
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.link import AmqpLink, LinkChange, LinkKind, News, Subscription
from topicwarden_collectors.rabbitmq.stream_blind_spots import stream_blind_spots
from topicwarden_collectors.rabbitmq.stream_decode import Actor
from topicwarden_collectors.rabbitmq.stream_events import LOST, StreamDecoder
from topicwarden_collectors.rabbitmq.stream_layout import EXCHANGE

FORGED: Final = "TW907"
SWITCHED_OFF: Final = "TW908"

_SETTLE_S: Final = 0.025
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
_MOST_NODES: Final = 64
_NAME_MAX: Final = 255


@dataclass(slots=True)
class _Node:
    """One node of the cluster: each has a stream of its own."""

    decoder: StreamDecoder
    heard: float
    silent: bool = False


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
        self._tables = tables or Tables()
        self._nodes: dict[str, _Node] = {}
        """By the name of each node of the cluster."""
        self._notices: list[Notice] = []
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
        """When the last batch of any node came, or when we began to listen."""
        self._silent = False
        """Whether no node ever said anything, for too long."""
        self._renewed = False
        """Whether our queue goes away because we let go of it."""
        self._connected = False
        self._own: dict[str, None] = {}
        """What the broker called our last connections."""

    @property
    def title(self) -> str:
        """The mode in a few words."""
        return f"rabbitmq plugin, every attempt and decision ({self.address.text})"

    @property
    def observing(self) -> bool:
        """Whether the plugin of a node is understood: it records nothing until it knows of our queue."""
        return any(node.decoder.joined for node in self._nodes.values())

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What the plugin cannot show as the broker runs now."""
        spots: list[BlindSpot] = []
        silent = [node.decoder.node for node in self._nodes.values() if node.silent]
        if silent or self._silent:
            where = f" on {', '.join(sorted(silent))}" if silent else ""
            what = f"the plugin gives no sign of life{where} although the broker runs: nothing is seen there"
            spots.append(BlindSpot(what, "rabbitmq-plugins enable topicwarden_audit; this collector goes on by itself"))
        for node in self._nodes.values():
            spots += [spot for spot in stream_blind_spots(node.decoder.notes) if spot not in spots]
        return spots or stream_blind_spots({})

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed, over restarts of the broker; raises ObservationError when we cannot begin."""
        if self._closed:
            return
        self._link = link = AmqpLink(self.address, [self._subscription], clock=self._clock)
        try:
            await link.open()
            self._heard = time.monotonic()
            while not link.closed:
                waiting = any(node.decoder.waiting for node in self._nodes.values())
                taken = await link.take(_SETTLE_S if waiting else min(_IDLE_S, self._silent_s / 2), limit=_PREFETCH)
                for batch in self._step(taken):
                    yield self._measured(batch)
            for batch in self._step(link.rest()):
                yield self._measured(batch)
            for batch in self._settle(everything=True):
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

    def _step(self, taken: Sequence[News]) -> Iterator[EventBatch]:
        """Work off what came, in order."""
        bodies: dict[str, list[bytes]] = {}
        forged: Counter[str] = Counter()
        for news in taken:
            if isinstance(news, LinkChange):
                yield from self._decode(bodies)
                bodies = {}
                yield from self._changed(news)
                continue
            origin = origin_of_forgery(news, EXCHANGE)
            if origin is None:
                bodies.setdefault(news.routing_key, []).append(news.body)
            else:
                forged[origin if origin in forged or len(forged) < _MOST_ORIGINS else "many places"] += 1
        self._report(forged)
        yield from self._decode(bodies)
        # Nothing came for a while, not even the next batch: no refusal is on its way.
        yield from self._settle(everything=not taken)
        yield from self._look()
        if self._notices:
            yield self._only_notices()

    def _decode(self, bodies: Mapping[str, list[bytes]]) -> Iterator[EventBatch]:
        """Hand each node's messages to its decoder."""
        now = time.monotonic()
        for name, messages in bodies.items():
            node = self._nodes.get(name)
            if node is None:
                if len(self._nodes) >= _MOST_NODES:
                    self.counters.error("node", len(messages))
                    continue
                node = self._nodes[name] = _Node(self._new_decoder(name), now)
            if node.silent or self._silent:
                yield from node.decoder.unsure()
                self._gap(self._clock(), "plugin", f"the plugin on {name} was switched off")
            node.silent = self._silent = False
            node.heard = self._heard = now
            yield from node.decoder.decode(messages)

    def _new_decoder(self, name: str) -> StreamDecoder:
        return StreamDecoder(
            self._tables,
            self.broker,
            self._grants,
            node=name[:_NAME_MAX],
            counters=self.counters,
            ours=self._is_ours,
            started_ns=self._clock(),
        )

    def _settle(self, *, everything: bool) -> Iterator[EventBatch]:
        for node in self._nodes.values():
            yield from node.decoder.settle(everything=everything)

    def _changed(self, change: LinkChange) -> Iterator[EventBatch]:
        """Take in what happened to the connection."""
        now = time.monotonic()
        match change.kind:
            case LinkKind.CONNECTED | LinkKind.SUBSCRIBED:
                self._connected = True
                self._grants.served_by(self._link.server_version if self._link is not None else None)
                self._heard = max(self._heard, now) if not self._silent else self._heard
            case LinkKind.LOST:
                self._connected = False
                yield from self._unsure()
                self._gap(change.time_ns, "connection", f"the connection was lost: {change.reason}")
            case LinkKind.QUEUE_GONE if not self._renewed:
                yield from self._unsure()
                self._gap(change.time_ns, "queue-gone", f"our queue went away: {change.reason}")
            case _:
                pass  # full: what was lost the batches' numbers tell; refused: told by what came before
        self._renewed = False
        self.counters.source[f"link_{change.kind.value.replace('-', '_')}"] = (
            self.counters.source.get(f"link_{change.kind.value.replace('-', '_')}", 0) + 1
        )

    def _unsure(self) -> Iterator[EventBatch]:
        for node in self._nodes.values():
            yield from node.decoder.unsure()

    def _gap(self, time_ns: int, scope: str, why: str) -> None:
        """Something was not seen, and nobody counted how much."""
        self.counters.gaps += 1
        self._notices.append(Notice(LOST, time_ns, self.broker, scope=scope, evidence={"why": why}))

    def _look(self) -> Iterator[EventBatch]:
        """Notice when the plugin of a node, or of all, says nothing."""
        now = time.monotonic()
        if not self._connected:
            for node in self._nodes.values():
                node.heard = now
            self._heard = now
            return
        for name, node in self._nodes.items():
            if not node.silent and now - node.heard >= self._silent_s:
                node.silent = True
                yield from node.decoder.unsure()
                self._switched_off(f"the plugin on {name[:_NAME_MAX]}")
        if now - self._heard >= self._silent_s:
            self._heard = now
            if not self._nodes and not self._silent:
                self._silent = True
                self._switched_off("the plugin")
            # A plugin that was enabled again has a new exchange, which knows nothing of our queue.
            if self._link is not None:
                self._renewed = True
                self._link.renew(self._subscription)

    def _switched_off(self, what: str) -> None:
        evidence: dict[str, str | int | float] = {"what": what, "silent_seconds": round(self._silent_s)}
        self._notices.append(Notice(SWITCHED_OFF, self._clock(), self.broker, scope="plugin", evidence=evidence))

    def _report(self, forged: Counter[str]) -> None:
        for origin, count in forged.items():
            evidence: dict[str, str | int | float] = {"exchange": EXCHANGE}
            self._notices.append(
                Notice(
                    FORGED, self._clock(), self.broker, scope=EXCHANGE, count=count, witness=origin, evidence=evidence
                )
            )
            self.counters.source["forged_messages"] = self.counters.source.get("forged_messages", 0) + count

    def _only_notices(self) -> EventBatch:
        notices, self._notices = self._notices, []
        return finish_batch(self._tables, dict.fromkeys(COLUMNS, ()), notices)

    def _measured(self, batch: EventBatch) -> EventBatch:
        if len(batch):
            self.counters.lag_ns = max(0, self._clock() - int(batch.time_ns[-1]))
        return batch
