"""Who did what to which name, how often, from when to when: events added up, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from topicwarden.events.batch import Action, EventBatch, Outcome
from topicwarden.events.tables import Client, Resource

CAPACITY: Final = 2_000_000
"""Different (client, action, name) kept; some 400 bytes each."""
_ACTIONS: Final = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)


@dataclass(slots=True)
class Seen:
    """One client's one action on one name."""

    count: int
    denied: int
    """How many of them the broker refused."""
    first_ns: int
    last_ns: int


_Key = tuple[Client, Action, Resource]


class Observed:
    """What was observed over a period."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.overflow = 0
        """Events not kept because there were too many different ones."""
        self.events = 0
        """PUBLISH, SUBSCRIBE and CONFIGURE events added."""
        self.lost = 0
        """Events known to have happened and not seen."""
        self.first_ns: int | None = None
        """The first and last event of any kind."""
        self.last_ns: int | None = None
        self._rows: dict[_Key, Seen] = {}
        self._clients: dict[Client, Client] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[Client, Action, Resource, Seen]]:
        for (client, action, resource), seen in self._rows.items():
            yield client, action, resource, seen

    @property
    def brokers(self) -> frozenset[str]:
        """The names of the brokers at which something was seen."""
        return frozenset(client.broker for client, _, _ in self._rows)

    def at(self, broker: str) -> Observed:
        """Return what was seen at one broker; the period and what was lost stay those of all."""
        part = Observed(self.capacity)
        part._rows = {key: seen for key, seen in self._rows.items() if key[0].broker == broker}
        part.events = sum(seen.count for seen in part._rows.values())
        part.overflow, part.lost, part.first_ns, part.last_ns = self.overflow, self.lost, self.first_ns, self.last_ns
        return part

    def add(self, batch: EventBatch) -> None:
        """Add a batch's events; clients are told apart by broker, protocol, virtual host, user and client id only."""
        self.lost += sum(notice.count for notice in batch.notices if notice.code == "TW901")
        if not len(batch):
            return
        first, last = int(batch.time_ns.min()), int(batch.time_ns.max())
        self.first_ns = first if self.first_ns is None else min(first, self.first_ns)
        self.last_ns = last if self.last_ns is None else max(last, self.last_ns)
        rows = np.flatnonzero(np.isin(batch.action, _ACTIONS))
        if not len(rows):
            return
        columns = np.stack([batch.client[rows], batch.resource[rows], batch.action[rows]]).astype(np.int64)
        keys, inverse = np.unique(columns, axis=1, return_inverse=True)
        inverse = inverse.ravel()
        count = batch.count[rows].astype(np.int64)
        counts = np.bincount(inverse, count, keys.shape[1]).astype(np.int64)
        denials = np.bincount(inverse, count * (batch.outcome[rows] == Outcome.DENIED), keys.shape[1]).astype(np.int64)
        times = batch.time_ns[rows]
        firsts = np.full(keys.shape[1], np.iinfo(np.int64).max)
        lasts = np.full(keys.shape[1], np.iinfo(np.int64).min)
        np.minimum.at(firsts, inverse, times)
        np.maximum.at(lasts, inverse, times)
        self.events += int(count.sum())
        clients, resources = batch.tables.clients.entries, batch.tables.resources.entries
        for number, (who, what, action) in enumerate(keys.T.tolist()):
            client, resource = clients[who], resources[what]
            if client is not None and resource is not None:
                seen = Seen(int(counts[number]), int(denials[number]), int(firsts[number]), int(lasts[number]))
                self._add((self._who(client), Action(action), resource), seen)

    def put(self, client: Client, action: Action, resource: Resource, seen: Seen) -> None:
        """Add what was added up elsewhere."""
        self.events += seen.count
        self._add((self._who(client), action, resource), seen)

    def merge(self, other: Observed) -> None:
        """Add all that another one has."""
        for (client, action, resource), seen in other._rows.items():
            self._add((client, action, resource), seen)
        self.events += other.events
        self.lost += other.lost
        self.overflow += other.overflow
        firsts = [moment for moment in (self.first_ns, other.first_ns) if moment is not None]
        lasts = [moment for moment in (self.last_ns, other.last_ns) if moment is not None]
        self.first_ns, self.last_ns = min(firsts, default=None), max(lasts, default=None)

    def _add(self, key: _Key, more: Seen) -> None:
        seen = self._rows.get(key)
        if seen is not None:
            seen.count += more.count
            seen.denied += more.denied
            seen.first_ns = min(seen.first_ns, more.first_ns)
            seen.last_ns = max(seen.last_ns, more.last_ns)
        elif len(self._rows) < self.capacity:
            self._rows[key] = more
        else:
            self.overflow += more.count

    def _who(self, client: Client) -> Client:
        """Return the client without where it came from."""
        found = self._clients.get(client)
        if found is None:
            if len(self._clients) >= 1 << 17:
                self._clients.clear()
            found = self._clients[client] = replace(client, address=None, port=None)
        return found
