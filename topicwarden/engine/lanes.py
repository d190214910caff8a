"""What the engine keeps for each source: arrays indexed by the numbers in the source's tables, and meters' slots."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from topicwarden.engine.clock import SteadyClock
from topicwarden.engine.grouping import Int64
from topicwarden.events import Client, EventBatch, Resource, Tables

UNCLASSIFIED: Final = -1


class SlotPool:
    """Runs of meter state (`tat`, see gcra.py) that keys hold while somebody refers to them."""

    def __init__(self) -> None:
        self.tat: Int64 = np.zeros(1024, np.int64)
        self._used = 0
        self._held: dict[Hashable, tuple[int, int, int]] = {}
        self._free: dict[int, list[int]] = {}

    def acquire(self, key: Hashable, size: int) -> int:
        """Return the first of `size` slots that belong to `key`, and count one more holder."""
        base, held_size, holders = self._held.get(key, (-1, size, 0))
        if base < 0:
            free = self._free.get(size)
            if free:
                base = free.pop()
            else:
                base = self._used
                self._used += size
                while self._used > len(self.tat):
                    self.tat = np.concatenate([self.tat, np.zeros_like(self.tat)])
            self.tat[base : base + size] = 0
        self._held[key] = (base, held_size, holders + 1)
        return base

    def release(self, key: Hashable) -> None:
        """Count one holder less; the last one's slots are given to others."""
        base, size, holders = self._held[key]
        if holders > 1:
            self._held[key] = (base, size, holders - 1)
        else:
            del self._held[key]
            self._free.setdefault(size, []).append(base)


class ScoreColumns:
    """What scoring keeps of each resource and client; only there where publishes are scored."""

    def __init__(self) -> None:
        self.scored = np.zeros(4096, bool)
        """Whether the columns below are known of a resource."""
        self.name: npt.NDArray[np.float64] = np.zeros(4096)
        """How unusual its name is, 0 to 1."""
        self.firm: npt.NDArray[np.float64] = np.zeros(4096)
        """The same once many users have used what is new about it."""
        self.novelty = np.zeros(4096, np.int32)
        """Number of what is new about the name; 0: nothing, or nothing that is kept."""
        self.usual = np.zeros(4096, np.int32)
        """Number of the usual topic that the name is of; 0: none."""
        self.user_bit: npt.NDArray[np.uint64] = np.zeros(1024, np.uint64)
        """The bit of each client's user, for counting users; 0: it has none that counts."""
        self.known_client = np.zeros(1024, bool)

    def begin(self, batch: EventBatch) -> None:
        """Forget what was known of numbers that mean something else now, and make room for new ones."""
        while len(batch.tables.clients.entries) > len(self.known_client):
            self.user_bit, self.known_client = _doubled(self.user_bit, 0), _doubled(self.known_client, 0)
        while len(batch.tables.resources.entries) > len(self.scored):
            self.scored, self.novelty, self.usual = (
                _doubled(self.scored, 0),
                _doubled(self.novelty, 0),
                _doubled(self.usual, 0),
            )
            self.name, self.firm = _doubled(self.name, 0), _doubled(self.firm, 0)
        if batch.new_clients:
            self.known_client[np.asarray(batch.new_clients)] = False
        if batch.new_resources:
            self.scored[np.asarray(batch.new_resources)] = False


class Lane:
    """The state for one run of batches over the same tables. Bounded by the tables' own capacity."""

    def __init__(self, tables: Tables, *, scoring: bool = False) -> None:
        self.tables = tables
        self.scores = ScoreColumns() if scoring else None
        self.clock = SteadyClock()
        self.slots = SlotPool()
        self.identity = np.full(1024, UNCLASSIFIED, np.int32)
        """Identity class of each client."""
        self.base: Int64 = np.zeros(1024, np.int64)
        """First meter slot of each client's principal; equal for clients that are the same principal."""
        self.rates: Int64 = np.zeros(1024, np.int64)
        """First slot of each client's meters for the policy's rates."""
        self.logins: Int64 = np.zeros(1024, np.int64)
        """Slot of the meter for failed logins from the client's address with its user name."""
        self.user_hash: Int64 = np.zeros(1024, np.int64)
        self.client_hash: Int64 = np.zeros(1024, np.int64)
        self.client_keys: dict[int, tuple[Hashable, ...]] = {}
        """The slot keys each client number holds."""
        self.topic_class = np.full(4096, UNCLASSIFIED, np.int32)
        self.flags: npt.NDArray[np.uint8] = np.zeros(4096, np.uint8)
        """Of each resource: bits of `names.Flag`."""
        self.inspected = np.zeros(4096, bool)
        """Whether `flags` and `naming` are known."""
        self.naming = np.zeros(4096, np.int32)
        """Number of the naming problem of each topic; 0: none."""
        self.owner_user: Int64 = np.zeros(4096, np.int64)
        self.owner_client: Int64 = np.zeros(4096, np.int64)
        self.published = np.zeros(4096, bool)
        """Whether somebody published on the topic since it got its number."""
        self.registered = np.zeros(4096, bool)
        """Whether the topic is known to the look-alikes."""
        self.suspect = np.zeros(4096, bool)
        """Whether it looked like another one when it was registered."""
        self.unsafe: npt.NDArray[np.uint8] = np.zeros(4096, np.uint8)
        """What is unsafe about each name: an index of `names.UNSAFE`."""
        self.evicted = (tables.clients.evicted, tables.resources.evicted)

    def begin(self, batch: EventBatch) -> None:
        """Forget what was known of numbers that mean something else now, and make room for new ones."""
        clients, resources = len(self.tables.clients.entries), len(self.tables.resources.entries)
        while clients > len(self.identity):
            self.identity = _doubled(self.identity, UNCLASSIFIED)
            self.base, self.rates, self.logins = (
                _doubled(self.base, 0),
                _doubled(self.rates, 0),
                _doubled(self.logins, 0),
            )
            self.user_hash, self.client_hash = _doubled(self.user_hash, 0), _doubled(self.client_hash, 0)
        while resources > len(self.topic_class):
            self.topic_class = _doubled(self.topic_class, UNCLASSIFIED)
            self.flags, self.naming = _doubled(self.flags, 0), _doubled(self.naming, 0)
            self.inspected = _doubled(self.inspected, 0)
            self.owner_user, self.owner_client = _doubled(self.owner_user, 0), _doubled(self.owner_client, 0)
            self.published, self.registered = _doubled(self.published, 0), _doubled(self.registered, 0)
            self.suspect, self.unsafe = _doubled(self.suspect, 0), _doubled(self.unsafe, 0)
        if batch.new_clients:
            self.identity[np.asarray(batch.new_clients)] = UNCLASSIFIED
            for number in batch.new_clients:
                for key in self.client_keys.pop(number, ()):
                    self.slots.release(key)
        if batch.new_resources:
            renewed = np.asarray(batch.new_resources)
            self.topic_class[renewed] = UNCLASSIFIED
            self.published[renewed] = False
            self.inspected[renewed] = False
            self.registered[renewed] = False
            self.suspect[renewed] = False
        if self.scores is not None:
            self.scores.begin(batch)

    def client(self, number: int) -> Client:
        """Return client `number`; a batch that refers to one its tables do not hold is its producer's error."""
        entry = self.tables.clients.entries[number]
        if entry is None:
            raise ValueError(f"a batch refers to client {number}, which its tables do not hold")
        return entry

    def resource(self, number: int) -> Resource:
        """Return resource `number`; raises ValueError likewise."""
        entry = self.tables.resources.entries[number]
        if entry is None:
            raise ValueError(f"a batch refers to resource {number}, which its tables do not hold")
        return entry

    def hold(self, number: int, keys: Iterable[tuple[Hashable, int]]) -> list[int]:
        """Acquire slots for a client number until that number means somebody else; returns each key's first slot."""
        wanted = list(keys)
        self.client_keys[number] = tuple(key for key, _ in wanted)
        return [self.slots.acquire(key, size) for key, size in wanted]


Kind = TypeVar("Kind", bound=np.generic)


def _doubled(array: npt.NDArray[Kind], fill: int) -> npt.NDArray[Kind]:
    return np.concatenate([array, np.full(len(array), fill, array.dtype)])
