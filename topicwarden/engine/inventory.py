"""Who was there and what they did: counts by client and topic, for the summary and for watching without a policy.

Bounded: clients past the capacity are counted together, numbers of different topics come from a bitmap of fixed size
and so are a little low when there are millions, and topics forgotten by a source's table start anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.engine.clock import SECOND
from topicwarden.engine.grouping import Int64, group_rows
from topicwarden.events import Action, Client, EventBatch, Outcome, Tables

CAPACITY: Final = 1 << 17
MAX_LANES: Final = 64
_BITS: Final = 26
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_LATE: Final = np.iinfo(np.int64).max
_COUNTS: Final = ("publishes", "bytes", "denied", "subscriptions", "topics", "max_rate", "_second", "_in_second")


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """One client (broker, virtual host, user, client id) as it was observed."""

    client: Client
    """As it was seen first; address and port may have changed since."""
    publishes: int
    """Publishes the broker did not refuse."""
    bytes: int
    """Payload bytes of these, as far as known."""
    denied: int
    """Publishes, subscriptions and logins the broker refused."""
    subscriptions: int
    topics: int
    """Different topics and filters it used; may be a little low."""
    first_ns: int
    last_ns: int
    max_rate: int
    """Most publishes within one second of the clock."""

    @property
    def mean_rate(self) -> float:
        """Publishes per second between first and last sight; 0 when seen at one instant only."""
        seen = self.last_ns - self.first_ns
        return self.publishes * SECOND / seen if seen > 0 else 0.0


@dataclass(slots=True)
class _Lane:
    """What belongs to one source's numbers."""

    tables: Tables
    row: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(1024, -1, np.int32))
    """Row of each client; -1: not looked up yet."""
    name_hash: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(4096, np.uint64))
    """Hash of each resource's name; 0: not computed yet."""
    published: Int64 = field(default_factory=lambda: np.zeros(4096, np.int64))
    """Publishes on each resource."""


class Inventory:
    """Counts by client and topic over any number of sources."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.topics = 0
        """Different topics and filters seen; may be a little low."""
        self._rows: dict[object, int] = {}
        self._clients: list[Client] = []
        self._lanes: dict[int, _Lane] = {}
        self._bitmap = np.zeros(1 << (_BITS - 3), np.uint8)
        self._counts: dict[str, Int64] = {name: np.zeros(256, np.int64) for name in _COUNTS}
        self._first: Int64 = np.full(256, _LATE, np.int64)
        self._last: Int64 = np.zeros(256, np.int64)

    @property
    def clients(self) -> int:
        """Different clients seen, at most `capacity` + 1."""
        return len(self._clients)

    def update(self, batch: EventBatch) -> None:
        """Count one batch."""
        lane = self._lane(batch)
        if not len(batch):
            return
        rows = lane.row.take(batch.client)
        if (rows < 0).any():
            for number in np.unique(batch.client[rows < 0]).tolist():
                lane.row[number] = self._row(lane, number)
            rows = lane.row.take(batch.client)
        size = len(self._first)
        weight = batch.count.astype(np.float64)
        accepted, publish = batch.outcome != Outcome.DENIED, batch.action == Action.PUBLISH
        sent = publish & accepted
        self._counts["publishes"] += _totals(rows, weight * sent, size)
        self._counts["bytes"] += _totals(rows, weight * (sent * np.maximum(batch.size, 0)), size)
        if not accepted.all():
            self._counts["denied"] += _totals(rows, weight * ~accepted, size)
        subscribe = batch.action == Action.SUBSCRIBE
        if subscribe.any():
            self._counts["subscriptions"] += _totals(rows, weight * (subscribe & accepted), size)
        if sent.any():
            used = np.bincount(batch.resource[sent], weights=weight[sent])
            lane.published[: len(used)] += used.astype(np.int64)
            self._count_seconds(rows[sent], batch.time_ns[sent], batch.count[sent].astype(np.int64))
        self._count_topics(lane, batch, rows, publish | subscribe)
        order, starts = group_rows(rows)
        time, who = batch.time_ns[order], rows[order[starts]]
        self._first[who] = np.minimum(self._first[who], np.minimum.reduceat(time, starts))
        self._last[who] = np.maximum(self._last[who], np.maximum.reduceat(time, starts))

    def top_clients(self, count: int) -> Sequence[ClientEntry]:
        """Return the clients with most publishes, busiest first, then those with most refusals, then by first sight."""
        known = len(self._clients)
        order = np.lexsort((self._first[:known], -self._counts["denied"][:known], -self._counts["publishes"][:known]))
        return [self._entry(row) for row in order[:count].tolist()]

    def top_topics(self, count: int) -> Sequence[tuple[str, int]]:
        """Return the topics with most publishes, and how many; counted since their source's table last took them in."""
        totals: dict[str, int] = {}
        for lane in self._lanes.values():
            number = min(count, len(lane.published))
            for resource in np.argpartition(-lane.published, number - 1)[:number].tolist():
                entry = lane.tables.resources.entries[resource] if lane.published[resource] else None
                if entry is not None:
                    totals[entry.label] = totals.get(entry.label, 0) + int(lane.published[resource])
        return sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:count]

    def _entry(self, row: int) -> ClientEntry:
        values = {name: int(self._counts[name][row]) for name in _COUNTS if not name.startswith("_")}
        return ClientEntry(
            client=self._clients[row], first_ns=int(self._first[row]), last_ns=int(self._last[row]), **values
        )

    def _lane(self, batch: EventBatch) -> _Lane:
        tables = batch.tables
        lane = self._lanes.pop(id(tables), None) or _Lane(tables)
        self._lanes[id(tables)] = lane
        if len(self._lanes) > MAX_LANES:
            del self._lanes[next(iter(self._lanes))]
        while len(tables.clients.entries) > len(lane.row):
            lane.row = np.concatenate([lane.row, np.full(len(lane.row), -1, np.int32)])
        while len(tables.resources.entries) > len(lane.name_hash):
            lane.name_hash = np.concatenate([lane.name_hash, np.zeros_like(lane.name_hash)])
            lane.published = np.concatenate([lane.published, np.zeros_like(lane.published)])
        if batch.new_clients:
            lane.row[np.asarray(batch.new_clients)] = -1
        if batch.new_resources:
            lane.name_hash[np.asarray(batch.new_resources)] = 0
            lane.published[np.asarray(batch.new_resources)] = 0
        return lane

    def _row(self, lane: _Lane, number: int) -> int:
        client = lane.tables.clients.entries[number]
        if client is None:
            raise ValueError(f"a batch refers to client {number}, which its tables do not hold")
        row = self._rows.get(client.principal)
        if row is None:
            row = len(self._clients)
            if row > self.capacity:
                return self.capacity
            if row == self.capacity:
                client = Client(client.broker, client.protocol, "(further clients)")
            else:
                self._rows[client.principal] = row
            self._clients.append(client)
            if row >= len(self._first):
                self._counts = {name: np.concatenate([c, np.zeros_like(c)]) for name, c in self._counts.items()}
                self._first = np.concatenate([self._first, np.full_like(self._first, _LATE)])
                self._last = np.concatenate([self._last, np.zeros_like(self._last)])
        return row

    def _count_seconds(self, rows: npt.NDArray[np.int32], time_ns: Int64, count: Int64) -> None:
        """Keep each client's largest number of publishes in one second; a second may span batches."""
        second = time_ns // SECOND
        low = int(second.min())
        span = int(second.max()) - low + 1
        if span > 1 << 30:  # timestamps years apart: not worth a number
            return
        order, starts = group_rows(rows.astype(np.int64) * span + (second - low))
        head = order[starts]
        who, when = rows[head], second[head]
        total = np.add.reduceat(count[order], starts)
        going_on = when == self._counts["_second"][who]
        total += np.where(going_on, self._counts["_in_second"][who], 0)
        np.maximum.at(self._counts["max_rate"], who, total)
        last = np.append(who[1:] != who[:-1], True)
        self._counts["_second"][who[last]], self._counts["_in_second"][who[last]] = when[last], total[last]

    def _count_topics(
        self, lane: _Lane, batch: EventBatch, rows: npt.NDArray[np.int32], which: npt.NDArray[np.bool_]
    ) -> None:
        """Count each client's different topics by marking (client, topic) in a bitmap."""
        resource, who = batch.resource[which], rows[which]
        names = lane.name_hash.take(resource)
        if not names.all():
            fresh = np.unique(resource[names == 0])
            for number in fresh.tolist():
                entry = lane.tables.resources.entries[number]
                lane.name_hash[number] = (hash(entry.label if entry else "") & 0xFFFFFFFFFFFFFFFF) | 1
            self.topics += len(self._mark(lane.name_hash[fresh]))
            names = lane.name_hash.take(resource)
        marked = self._mark(names ^ ((who.astype(np.uint64) + np.uint64(1)) * _MIX))
        np.add.at(self._counts["topics"], who[marked], 1)

    def _mark(self, keys: npt.NDArray[np.uint64]) -> Int64:
        """Mark keys in the bitmap; return the indices of those that were not marked before."""
        position = (keys * _MIX) >> np.uint64(64 - _BITS)
        byte, bit = (position >> np.uint64(3)).astype(np.int64), position.astype(np.uint8) & np.uint8(7)
        fresh = np.flatnonzero(((self._bitmap.take(byte) >> bit) & np.uint8(1)) == 0)
        if not len(fresh):
            return fresh
        _, first = np.unique(position[fresh], return_index=True)
        fresh = fresh[first]
        np.bitwise_or.at(self._bitmap, byte[fresh], np.uint8(1) << bit[fresh])
        return fresh


def _totals(rows: npt.NDArray[np.int32], weights: npt.NDArray[np.float64], size: int) -> Int64:
    return np.bincount(rows, weights=weights, minlength=size).astype(np.int64)
