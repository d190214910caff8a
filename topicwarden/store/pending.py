"""Rows that were handed over and are not sealed yet, and the numbers of the clients and resources in them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from topicwarden.events import COLUMNS, EventBatch, Executed, Tables
from topicwarden.events.host_rows import host_row
from topicwarden.events.rows import change_row, notice_row
from topicwarden.store.files import HOUR_NS
from topicwarden.store.model import Kind
from topicwarden.store.rows import (
    client_fields,
    client_id,
    resource_fields,
    resource_id,
    rows_table,
    shown,
    table_of,
)

MAX_LANES: Final = 64
MAX_KNOWN: Final = 1 << 20
"""Clients and resources of one hour that are remembered to have been written; past that they are written again."""
KNOWN_HOURS: Final = 3
MAX_PARTS: Final = 256
"""Parts of a segment."""
MAX_NAMES: Final = 1 << 18
"""Bytes of brokers' names, written as JSON, in a segment's entry."""

PartKey = tuple[Kind, str, int]
"""Kind, broker, hour."""


@dataclass(slots=True)
class Rows:
    """Rows that wait to be sealed."""

    events: dict[PartKey, list[Mapping[str, npt.NDArray[Any]]]] = field(default_factory=dict)
    others: dict[PartKey, list[Mapping[str, Any]]] = field(default_factory=dict)
    count: int = 0
    bytes: int = 0
    """Roughly how much memory they take."""

    def pieces(self) -> Iterator[Rows]:
        """Yield the rows in pieces whose parts fit in one entry of the log, clients and resources before events."""
        piece, size = Rows(), 0
        for key, rows in [*self.others.items(), *self.events.items()]:
            names = 6 * len(key[1])
            if size and (len(piece.events) + len(piece.others) >= MAX_PARTS or size + names > MAX_NAMES):
                yield piece
                piece, size = Rows(), 0
            if key in self.others:
                piece.others[key] = self.others[key]
                piece.count += len(rows)
            else:
                piece.events[key] = self.events[key]
                piece.count += sum(len(one["time_ns"]) for one in self.events[key])
            size += names + 1
        if size:
            yield piece

    def has(self, hour: int) -> bool:
        """Whether any of the rows are of this hour."""
        return any(key[2] == hour for rows in (self.events, self.others) for key in rows)

    def tables(self, segment: int) -> Iterator[tuple[PartKey, pa.Table]]:
        """Yield each part's rows."""
        for key, pieces in self.events.items():
            yield key, table_of(key[0], segment, {name: np.concatenate([p[name] for p in pieces]) for name in COLUMNS})
        for key, rows in self.others.items():
            yield key, rows_table(key[0], segment, rows)


class _Lane:
    """What the numbers of one run of batches stand for in the store."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.clients: npt.NDArray[np.uint64] = np.zeros(1024, np.uint64)
        self.brokers: npt.NDArray[np.int32] = np.zeros(1024, np.int32)
        self.resources: npt.NDArray[np.uint64] = np.zeros(1024, np.uint64)
        self.known = np.zeros(1024, bool)
        """Whether a resource's number is known: that of none is 0."""
        self._seen: OrderedDict[tuple[Kind, int], npt.NDArray[np.bool_]] = OrderedDict()

    def unseen(self, kind: Kind, hour: int, numbers: npt.NDArray[np.uint32]) -> list[int]:
        """Return those numbers of clients or resources that were not asked for in this hour before, once each.

        So that the many that were cost no Python: whether an hour has their rows is looked up only for the others.
        """
        size = len(self.clients if kind is Kind.CLIENTS else self.resources)
        seen = self._seen.pop((kind, hour), None)
        if seen is None or len(seen) < size:
            seen = np.concatenate([np.zeros(0, bool) if seen is None else seen, np.zeros(size, bool)])[:size]
        self._seen[kind, hour] = seen
        if len(self._seen) > 2 * KNOWN_HOURS:
            self._seen.popitem(last=False)
        fresh = numbers[~seen[numbers]]
        if not len(fresh):
            return []
        seen[fresh] = True
        found: list[int] = np.unique(fresh).tolist()
        return found

    def forget(self, hour: int | None = None) -> None:
        """Have all numbers be unseen again, of one hour or all."""
        for key in [key for key in self._seen if hour is None or key[1] == hour]:
            del self._seen[key]

    def begin(self, batch: EventBatch) -> None:
        """Forget numbers that mean something else now, and make room for new ones."""
        while len(self.tables.clients.entries) > len(self.clients):
            self.clients = np.concatenate([self.clients, np.zeros_like(self.clients)])
            self.brokers = np.concatenate([self.brokers, np.zeros_like(self.brokers)])
        while len(self.tables.resources.entries) > len(self.resources):
            self.resources = np.concatenate([self.resources, np.zeros_like(self.resources)])
            self.known = np.concatenate([self.known, np.zeros_like(self.known)])
        if batch.new_clients:
            self.clients[np.asarray(batch.new_clients)] = 0
            self._unsee(Kind.CLIENTS, batch.new_clients)
        if batch.new_resources:
            self.known[np.asarray(batch.new_resources)] = False
            self._unsee(Kind.RESOURCES, batch.new_resources)

    def _unsee(self, kind: Kind, numbers: Sequence[int]) -> None:
        for (of, _), seen in self._seen.items():
            if of is kind:
                changed = np.asarray(numbers)
                seen[changed[changed < len(seen)]] = False


class Pending:
    """Collects rows of batches. Numbers, splits and copies; the rest is for whoever seals them. Not for two threads."""

    def __init__(self, salt: bytes) -> None:
        self.rows = Rows()
        self._salt = salt
        self._lanes: dict[int, _Lane] = {}
        self._brokers: dict[str, int] = {}
        self._written: OrderedDict[tuple[Kind, int], set[int]] = OrderedDict()
        """Numbers of clients and resources that an hour already has."""

    def take(self) -> Rows:
        """Return what has come since the last call."""
        rows, self.rows = self.rows, Rows()
        return rows

    def forget(self) -> None:
        """Write clients and resources again when they come: rows of theirs may have been let go."""
        self._written.clear()
        for lane in self._lanes.values():
            lane.forget()

    def forget_hour(self, hour: int) -> None:
        """Write the clients and resources of an hour again when they come: it is retired."""
        self._written.pop((Kind.CLIENTS, hour), None)
        self._written.pop((Kind.RESOURCES, hour), None)
        for lane in self._lanes.values():
            lane.forget(hour)

    def skip(self, batch: EventBatch) -> None:
        """Learn which numbers mean something else from now on, of a batch whose rows are not kept."""
        lane = self._lanes.get(id(batch.tables))
        if lane is not None:
            lane.begin(batch)

    def add(self, batch: EventBatch) -> None:
        """Add a batch; nothing of it is needed afterwards."""
        for notice in batch.notices:
            self.document(Kind.NOTICES, notice.time_ns, notice.broker, notice.code, notice_row(notice))
        for change in batch.changes:
            self.document(Kind.CHANGES, change.time_ns, change.grantee.broker, change.what, change_row(change))
        for event in batch.hosts:
            host = event.process.host if isinstance(event, Executed) else getattr(event, "host", None)
            about = getattr(event, "sensor", "") if host is None else host
            self.document(Kind.HOSTS, event.time_ns, about, type(event).__name__.lower(), host_row(event))
        if len(batch):
            self._events(batch)
        else:
            self.skip(batch)

    def document(self, kind: Kind, time_ns: int, about: str, what: str, document: Mapping[str, Any]) -> None:
        """Add a row of notices, changes, hosts or findings."""
        text = json.dumps(document, separators=(",", ":"))
        row = {"time_ns": time_ns, "about": shown(about), "what": shown(what), "document": text}
        self._other((kind, "", time_ns // HOUR_NS), row, len(text) + 64)

    def _other(self, key: PartKey, row: Mapping[str, Any], size: int) -> None:
        self.rows.others.setdefault(key, []).append(row)
        self.rows.count += 1
        self.rows.bytes += size

    def _events(self, batch: EventBatch) -> None:
        lane = self._lanes.pop(id(batch.tables), None) or _Lane(batch.tables)
        self._lanes[id(batch.tables)] = lane
        if len(self._lanes) > MAX_LANES:
            del self._lanes[next(iter(self._lanes))]
        lane.begin(batch)
        self._number(lane, batch)
        columns: dict[str, npt.NDArray[Any]] = {name: getattr(batch, name) for name in COLUMNS}
        columns["client"], columns["resource"] = lane.clients[batch.client], lane.resources[batch.resource]
        hour = batch.time_ns // HOUR_NS
        broker = lane.brokers[batch.client]
        if (hour == hour[0]).all() and (broker == broker[0]).all():
            self._part(lane, batch, columns, int(broker[0]), int(hour[0]), None)
            return
        pairs, inverse = np.unique(np.stack([broker.astype(np.int64), hour]), axis=1, return_inverse=True)
        for place, (name, when) in enumerate(pairs.T.tolist()):
            self._part(lane, batch, columns, name, when, np.flatnonzero(inverse.ravel() == place))

    def _part(
        self,
        lane: _Lane,
        batch: EventBatch,
        columns: Mapping[str, npt.NDArray[Any]],
        broker: int,
        hour: int,
        rows: npt.NDArray[np.intp] | None,
    ) -> None:
        name = next(name for name, number in self._brokers.items() if number == broker)
        # Copied: the producer may use its arrays again.
        part = {key: column.copy() if rows is None else column[rows] for key, column in columns.items()}
        self.rows.events.setdefault((Kind.EVENTS, name, hour), []).append(part)
        self.rows.count += len(part["time_ns"])
        self.rows.bytes += 64 * len(part["time_ns"])
        clients = batch.client if rows is None else batch.client[rows]
        resources = batch.resource if rows is None else batch.resource[rows]
        for number in lane.unseen(Kind.CLIENTS, hour, clients):
            identity = int(lane.clients[number])
            if self._is_new(Kind.CLIENTS, hour, identity):
                client = lane.tables.clients.entries[number]
                assert client is not None
                self._other((Kind.CLIENTS, "", hour), client_fields(identity, client), 256)
        for number in lane.unseen(Kind.RESOURCES, hour, resources):
            identity = int(lane.resources[number])
            if identity and self._is_new(Kind.RESOURCES, hour, identity):
                resource = lane.tables.resources.entries[number]
                assert resource is not None
                self._other((Kind.RESOURCES, "", hour), resource_fields(identity, resource), 64 + len(resource.name))

    def _is_new(self, kind: Kind, hour: int, identity: int) -> bool:
        known = self._written.get((kind, hour))
        if known is None:
            known = self._written[kind, hour] = set()
            if len(self._written) > 2 * KNOWN_HOURS:
                self._written.popitem(last=False)
        if identity in known:
            return False
        if len(known) >= MAX_KNOWN:
            known.clear()
        known.add(identity)
        return True

    def _number(self, lane: _Lane, batch: EventBatch) -> None:
        """Give numbers to the clients and resources of a batch that have none yet."""
        fresh = lane.clients[batch.client] == 0
        if fresh.any():
            for number in np.unique(batch.client[fresh]).tolist():
                client = lane.tables.clients.entries[number]
                if client is None:
                    raise ValueError(f"a batch refers to client {number}, which its tables do not hold")
                lane.clients[number] = client_id(self._salt, client)
                lane.brokers[number] = self._brokers.setdefault(client.broker, len(self._brokers))
        fresh = ~lane.known[batch.resource]
        if fresh.any():
            for number in np.unique(batch.resource[fresh]).tolist():
                resource = lane.tables.resources.entries[number]
                if resource is None:
                    raise ValueError(f"a batch refers to resource {number}, which its tables do not hold")
                lane.resources[number] = resource_id(self._salt, resource)
                lane.known[number] = True
