"""Who did what to which name, how often, from when to when: events added up, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events.batch import Action, EventBatch, Outcome
from topicwarden.events.tables import Client, Resource

CAPACITY: Final = 8_000_000
"""Different (client, action, name) kept; 40 bytes each, and as much again while they are added up."""
MOST_NAMED: Final = 2_000_000
"""Different clients, and different names, kept; some 400 bytes each."""
_ACTIONS: Final = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)
_KINDS: Final = {action.value: action for action in _ACTIONS}
_CLIENT_SHIFT: Final = 34
_RESOURCE_SHIFT: Final = 3
_RESOURCES: Final = (1 << (_CLIENT_SHIFT - _RESOURCE_SHIFT)) - 1
_WAITING: Final = 1 << 18
_REMEMBERED: Final = 1 << 17

Numbers = npt.NDArray[np.int64]


@dataclass(slots=True)
class Seen:
    """One client's one action on one name."""

    count: int
    denied: int
    """How many of them the broker refused."""
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Uses:
    """Columns of equal length, an entry for each (client, action, name); int64 each."""

    client: Numbers
    """Place in the list of clients."""
    resource: Numbers
    """Place in the list of resources."""
    action: Numbers
    count: Numbers
    denied: Numbers
    """How many of them the broker refused."""
    first_ns: Numbers
    last_ns: Numbers

    def __len__(self) -> int:
        return len(self.client)


class Observed:
    """What was observed over a period."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """`capacity`: different (client, action, name) that are kept."""
        self.capacity = capacity
        self.events = 0
        """PUBLISH, SUBSCRIBE and CONFIGURE events added."""
        self.lost = 0
        """Events known to have happened and not seen."""
        self.first_ns: int | None = None
        """The first and last event of any kind."""
        self.last_ns: int | None = None
        self.clients: list[Client] = []
        """Who was seen, in the order of being seen first, without where they came from."""
        self.resources: list[Resource] = []
        """What was acted on, in the order of being seen first."""
        self._overflow = 0
        self._client_places: dict[Client, int] = {}
        self._resource_places: dict[Resource, int] = {}
        self._came_from: dict[Client, int] = {}
        """Places of clients with where they came from, as long as there are few."""
        self._sums = _NONE
        """One row a key, by key."""
        self._parts: list[_Sums] = []
        """What has to be added to them."""
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._whole().key)

    def __iter__(self) -> Iterator[tuple[Client, Action, Resource, Seen]]:
        uses = self.uses
        columns = (uses.client, uses.action, uses.resource, uses.count, uses.denied, uses.first_ns, uses.last_ns)
        for client, action, resource, *seen in zip(*(column.tolist() for column in columns), strict=True):
            yield self.clients[client], _KINDS[action], self.resources[resource], Seen(*seen)

    @property
    def uses(self) -> Uses:
        """What was seen, ordered by client, name and action."""
        sums = self._whole()
        return Uses(
            sums.key >> _CLIENT_SHIFT,
            (sums.key >> _RESOURCE_SHIFT) & _RESOURCES,
            (sums.key & ((1 << _RESOURCE_SHIFT) - 1)) + _FIRST_ACTION,
            sums.count,
            sums.denied,
            sums.first_ns,
            sums.last_ns,
        )

    @property
    def overflow(self) -> int:
        """Events not kept because there were too many different ones."""
        self._whole()
        return self._overflow

    @property
    def principals(self) -> int:
        """Different clients as rates and findings are counted by."""
        return len({self.clients[place].principal for place in np.unique(self.uses.client).tolist()})

    @property
    def let_pass(self) -> list[Client]:
        """Who did something that the broker did not refuse."""
        uses = self.uses
        return [self.clients[place] for place in np.unique(uses.client[uses.count > uses.denied]).tolist()]

    @property
    def names(self) -> int:
        """Different names that were acted on."""
        return len(np.unique(self.uses.resource))

    @property
    def denied(self) -> int:
        """Events that a broker refused."""
        return int(self.uses.denied.sum())

    @property
    def brokers(self) -> frozenset[str]:
        """The names of the brokers at which something was seen."""
        return frozenset(self.clients[place].broker for place in np.unique(self.uses.client).tolist())

    def at(self, broker: str) -> Observed:
        """Return what was seen at one broker; the period and what was lost stay those of all."""
        part = Observed(self.capacity)
        uses = self.uses
        there = np.array([client.broker == broker for client in self.clients], bool)
        rows = np.flatnonzero(there[uses.client])
        part.put(self.clients, self.resources, _taken(uses, rows))
        part._overflow, part.lost, part.first_ns, part.last_ns = self.overflow, self.lost, self.first_ns, self.last_ns
        return part

    def add(self, batch: EventBatch) -> None:
        """Add a batch's events; clients are told apart by broker, protocol, virtual host, user and client id only."""
        self.lost += sum(notice.count for notice in batch.notices if notice.code == "TW901")
        if not len(batch):
            return
        self._covers(int(batch.time_ns.min()), int(batch.time_ns.max()))
        rows = np.flatnonzero(np.isin(batch.action, _ACTIONS))
        count, times = batch.count[rows].astype(np.int64), batch.time_ns[rows].astype(np.int64)
        uses = Uses(
            batch.client[rows].astype(np.int64),
            batch.resource[rows].astype(np.int64),
            batch.action[rows].astype(np.int64),
            count,
            count * (batch.outcome[rows] == Outcome.DENIED),
            times,
            times,
        )
        self.put(batch.tables.clients.entries, batch.tables.resources.entries, uses)

    def put(self, clients: Sequence[Client | None], resources: Sequence[Resource | None], uses: Uses) -> None:
        """Add what was seen elsewhere; `clients` and `resources` are what the places in `uses` stand for."""
        if not len(uses):
            return
        self.events += int(uses.count.sum())
        who = _placed(uses.client, lambda place: self._client_place(clients[place]))
        what = _placed(uses.resource, lambda place: self._resource_place(resources[place]))
        known = (who >= 0) & (what >= 0)
        self._overflow += int(uses.count[~known].sum())
        key = (who << _CLIENT_SHIFT) | (what << _RESOURCE_SHIFT) | (uses.action - _FIRST_ACTION)
        part = _Sums(key, uses.count, uses.denied, uses.first_ns, uses.last_ns)
        part = _summed(part if known.all() else part.at(np.flatnonzero(known)))
        self._parts.append(part)
        self._waiting += len(part.key)
        if self._waiting > max(_WAITING, len(self._sums.key)):
            self._whole()

    def merge(self, other: Observed) -> None:
        """Add all that another one has."""
        self.put(other.clients, other.resources, other.uses)
        self.events += other.events - int(other.uses.count.sum())
        self.lost += other.lost
        self._overflow += other.overflow
        if other.first_ns is not None and other.last_ns is not None:
            self._covers(other.first_ns, other.last_ns)

    def _covers(self, first_ns: int, last_ns: int) -> None:
        self.first_ns = first_ns if self.first_ns is None else min(first_ns, self.first_ns)
        self.last_ns = last_ns if self.last_ns is None else max(last_ns, self.last_ns)

    def _whole(self) -> _Sums:
        """Add up what waits. What came first stays when there are too many."""
        if self._parts:
            parts = [self._sums, *self._parts]
            self._parts, self._waiting = [], 0
            columns = zip(*(part.columns for part in parts), strict=True)
            joined = _Sums(*(np.concatenate(column) for column in columns))
            self._sums = _summed(joined, self.capacity)
            self._overflow += int(joined.count.sum() - self._sums.count.sum())
        return self._sums

    def _client_place(self, client: Client | None) -> int:
        """Return a client's place in our list; -1: it is full, or that was no client."""
        if client is None:
            return -1
        place = self._came_from.get(client)
        if place is None:
            bare = replace(client, address=None, port=None)
            place = _place_of(bare, self._client_places, self.clients)
            if len(self._came_from) >= _REMEMBERED:
                self._came_from.clear()
            self._came_from[client] = place
        return place

    def _resource_place(self, resource: Resource | None) -> int:
        return -1 if resource is None else _place_of(resource, self._resource_places, self.resources)


_FIRST_ACTION: Final = min(_ACTIONS)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Columns of equal length; a key is a client's place, a resource's and the action."""

    key: Numbers
    count: Numbers
    denied: Numbers
    first_ns: Numbers
    last_ns: Numbers

    @property
    def columns(self) -> tuple[Numbers, ...]:
        """All of them."""
        return (self.key, self.count, self.denied, self.first_ns, self.last_ns)

    def at(self, rows: Numbers) -> _Sums:
        """Return some rows."""
        return _Sums(*(column[rows] for column in self.columns))


def _empty() -> Numbers:
    return np.empty(0, np.int64)


_NONE: Final = _Sums(_empty(), _empty(), _empty(), _empty(), _empty())


def _summed(sums: _Sums, capacity: int | None = None) -> _Sums:
    """Return one row a key, by key; of more than `capacity` keys, those that stand first."""
    if not len(sums.key):
        return sums
    order = np.argsort(sums.key, kind="stable")
    key = sums.key[order]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    summed = _Sums(
        key[starts],
        np.add.reduceat(sums.count[order], starts),
        np.add.reduceat(sums.denied[order], starts),
        np.minimum.reduceat(sums.first_ns[order], starts),
        np.maximum.reduceat(sums.last_ns[order], starts),
    )
    if capacity is None or len(starts) <= capacity:
        return summed
    return summed.at(np.sort(np.argsort(order[starts])[:capacity]))


def _taken(uses: Uses, rows: Numbers) -> Uses:
    return Uses(*(getattr(uses, name)[rows] for name in Uses.__slots__))


def _placed(places: Numbers, place_of: Any) -> Numbers:
    """Return other places for these, asking once for each that is different."""
    different, back = np.unique(places, return_inverse=True)
    return np.array([place_of(place) for place in different.tolist()], np.int64)[back.ravel()]


def _place_of(entry: Any, places: dict[Any, int], entries: list[Any]) -> int:
    place = places.get(entry)
    if place is None:
        if len(entries) >= MOST_NAMED:
            return -1
        place = places[entry] = len(entries)
        entries.append(entry)
    return place
