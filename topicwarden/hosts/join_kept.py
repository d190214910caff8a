"""The connections and the sessions that are kept, bounded, and found by what they have in common."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Generic, Protocol, TypeVar

from topicwarden.events import Client
from topicwarden.hosts.addresses import is_loopback
from topicwarden.hosts.event_time import EventTime
from topicwarden.hosts.join_places import Dial

MAX_LOOKED: Final = 64
"""How many connections or sessions that have something in common are looked at, those nearest in time before others."""

SOON_NS: Final = 1_000_000_000
"""Within this a broker tells all that belongs to a session's beginning: peer, credentials, session."""


class _Timed(Protocol):
    @property
    def time_ns(self) -> int: ...

    @property
    def number(self) -> int: ...


T = TypeVar("T", bound=_Timed)
_TIME: Final = attrgetter("time_ns")
_ORDER: Final = attrgetter("time_ns", "number")


class ByTime(Generic[T]):
    """Things by a key, each key's sorted by time."""

    def __init__(self) -> None:
        self._lists: dict[Hashable, list[T]] = {}

    def add(self, key: Hashable, one: T) -> None:
        """Add one."""
        into = self._lists.get(key)
        if into is None:
            self._lists[key] = [one]
        elif into[-1].time_ns <= one.time_ns and into[-1].number < one.number:
            into.append(one)
        else:
            insort(into, one, key=_ORDER)

    def remove(self, key: Hashable, one: T) -> None:
        """Remove one that was added with this time."""
        of_key = self._lists[key]
        del of_key[bisect_left(of_key, (one.time_ns, one.number), key=_ORDER)]
        if not of_key:
            del self._lists[key]

    def keys(self) -> Iterator[Hashable]:
        """Yield the keys."""
        return iter(self._lists)

    def all(self, key: Hashable) -> list[T]:
        """Return all of a key, to be read only."""
        return self._lists.get(key, [])

    def between(self, key: Hashable, first_ns: int, last_ns: int, near_ns: int) -> list[T]:
        """Return those of a span, at most MAX_LOOKED and one more: then the nearest to a time on either side of it."""
        of_key = self._lists.get(key)
        if of_key is None:
            return []
        start = bisect_left(of_key, first_ns, key=_TIME)
        stop = bisect_right(of_key, last_ns, start, key=_TIME)
        if stop - start > MAX_LOOKED:
            middle = bisect_left(of_key, near_ns, start, stop, key=_TIME)
            start = max(start, min(middle - MAX_LOOKED // 2, stop - MAX_LOOKED - 1))
            stop = start + MAX_LOOKED + 1
        return of_key[start:stop]


class Dials:
    """The connections that hosts told."""

    def __init__(self, capacity: int, keep_ns: int) -> None:
        self.dropped = 0
        self.by_local: ByTime[Dial] = ByTime()
        """By address and port of the near end."""
        self.by_port: ByTime[Dial] = ByTime()
        """By port of the near end."""
        self.located: ByTime[Dial] = ByTime()
        """Those of a host of which the near end is told."""
        self.unlocated: ByTime[Dial] = ByTime()
        """Those of a host of which it is not; those to loopback are also under None, as in `meeting_place`."""
        self._capacity = capacity
        self._keep_ns = keep_ns
        self._kept: OrderedDict[int, Dial] = OrderedDict()
        self._next = 0
        self._time = EventTime()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, dial: Dial) -> None:
        """Keep one; what was neither told nor asked for in `keep_ns`, or does not fit, is dropped and counted."""
        dial.number = self._next
        self._next += 1
        self._time.saw(dial.time_ns)
        self._kept[dial.number] = dial
        for index, key in self._keys(dial):
            index.add(key, dial)
        old = self._time.before(self._keep_ns)
        while self._kept and (len(self._kept) > self._capacity or next(iter(self._kept.values())).relevant_ns < old):
            _, gone = self._kept.popitem(last=False)
            for index, key in self._keys(gone):
                index.remove(key, gone)
            self.dropped += 1

    def touch(self, dial: Dial, time_ns: int) -> None:
        """Note that a connection still mattered at a time."""
        dial.relevant_ns = max(dial.relevant_ns, time_ns)
        if dial.number in self._kept:
            self._kept.move_to_end(dial.number)

    def _keys(self, dial: Dial) -> list[tuple[ByTime[Dial], Hashable]]:
        if dial.local is not None:
            return [
                (self.by_local, (dial.local.address, dial.local.port)),
                (self.by_port, dial.local.port),
                (self.located, dial.host),
            ]
        if is_loopback(dial.remote.address):
            return [(self.unlocated, dial.host), (self.unlocated, None)]
        return [(self.unlocated, dial.host)]


class SeenSession:
    """A session as a broker told it, or, where its beginning was not told, all that one client did from one place."""

    __slots__ = ("address", "began", "client", "last_ns", "number", "peer", "port", "time_ns")

    def __init__(self, client: Client, address: str, time_ns: int, last_ns: int, *, began: bool, number: int) -> None:
        self.client = client
        self.address = address
        self.port = client.port
        self.peer = peer_of(client, address)
        self.time_ns = time_ns
        self.last_ns = last_ns
        self.began = began
        self.number = number


def peer_of(client: Client, address: str) -> Hashable:
    """Return what a session is known by: the peer's address and port; without a port also by who it is."""
    return (address, client.port) if client.port is not None else (address, None, client.client_id, client.user)


def meeting_place(address: str) -> str | None:
    """Return an address; None for all those of loopback, which a host uses as it likes."""
    return None if is_loopback(address) else address


def compatible(one: Client, other: Client) -> bool:
    """Whether two may be one client of one connection, as it was known before and after it said who it is."""
    return (
        one.broker == other.broker
        and (one.client_id == other.client_id or not one.client_id or not other.client_id)
        and (one.user == other.user or one.user is None or other.user is None)
    )


@dataclass(slots=True)
class Whole:
    """A session put together from all that was told of it."""

    client: Client
    """As it was known best."""
    address: str
    time_ns: int
    """When it began; where that was not told, when it was first seen."""
    last_ns: int
    began: bool

    def takes(self, one: SeenSession) -> bool:
        """Whether what was told next is of this session."""
        if not compatible(self.client, one.client):
            return False
        return not one.began or one.time_ns - self.time_ns <= SOON_NS


class Sessions:
    """The sessions that brokers told."""

    def __init__(self, capacity: int, keep_ns: int) -> None:
        self.dropped = 0
        self.by_peer: ByTime[SeenSession] = ByTime()
        """By `peer_of`."""
        self.by_port: ByTime[SeenSession] = ByTime()
        self.by_address: ByTime[SeenSession] = ByTime()
        """By `meeting_place` of the address."""
        self._capacity = capacity
        self._keep_ns = keep_ns
        self._kept: OrderedDict[int, SeenSession] = OrderedDict()
        self._next = 0
        self._time = EventTime()

    def __len__(self) -> int:
        return len(self._kept)

    def whole(self, peer: Hashable) -> list[Whole]:
        """Return the sessions of a peer, by broker and time."""
        by_broker: dict[str, list[Whole]] = {}
        for one in sorted(self.by_peer.all(peer), key=lambda one: (one.time_ns, not one.began, _known_of(one.client))):
            found = by_broker.setdefault(one.client.broker, [])
            latest = found[-1] if found else None
            if latest is not None and latest.takes(one):
                latest.last_ns = max(latest.last_ns, one.last_ns)
                latest.began |= one.began
                latest.client = max(latest.client, one.client, key=_known_of)
                continue
            if not one.began and any(other.began for other in found):
                continue  # its beginning was lost; that of which only the first and last time is kept tells no more
            following = Whole(one.client, one.address, one.time_ns, one.last_ns, one.began)
            if latest is not None and latest.last_ns >= one.time_ns:
                # What was told before the next was known to have begun had been taken for the one before.
                if compatible(latest.client, one.client):
                    following.last_ns = max(following.last_ns, latest.last_ns)
                    following.client = max(following.client, latest.client, key=_known_of)
                latest.last_ns = one.time_ns - 1
            found.append(following)
        return [one for _, found in sorted(by_broker.items()) for one in found]

    def begins(self, peer: Hashable, broker: str) -> list[int]:
        """Return when sessions of a peer began, or were first seen when none had been told to begin."""
        listed = [one for one in self.by_peer.all(peer) if one.client.broker == broker]
        begun = min((one.time_ns for one in listed if one.began), default=None)
        return [one.time_ns for one in listed if one.began or begun is None or one.time_ns < begun]

    def peers(self) -> Iterator[Hashable]:
        """Yield all peers."""
        return self.by_peer.keys()

    def add(self, client: Client, address: str, first_ns: int, last_ns: int, *, began: bool) -> None:
        """Keep one, or prolong it."""
        self._time.saw(last_ns)
        found = self._known(client, peer_of(client, address), first_ns, began=began)
        if found is not None:
            found.last_ns = max(found.last_ns, last_ns)
            self._kept.move_to_end(found.number)
            if first_ns < found.time_ns:
                self._unlist(found)
                found.time_ns = first_ns
                self._list(found)
            return
        found = SeenSession(client, address, first_ns, last_ns, began=began, number=self._next)
        self._next += 1
        self._kept[found.number] = found
        self._list(found)
        of_peer = self.by_peer.all(found.peer)
        if len(of_peer) > MAX_LOOKED:
            self._drop(of_peer[0])
        old = self._time.before(self._keep_ns)
        while self._kept and (len(self._kept) > self._capacity or next(iter(self._kept.values())).last_ns < old):
            self._drop(next(iter(self._kept.values())))

    def _known(self, client: Client, peer: Hashable, first_ns: int, *, began: bool) -> SeenSession | None:
        """Return the session that this is about: by when it began, else the client's last that had, else the client."""
        begun = False
        for one in reversed(self.by_peer.all(peer)):
            same = one.client is client or one.client == client
            if began:
                if same and one.began and one.time_ns == first_ns:
                    return one
            elif one.began:
                if not begun and one.time_ns <= first_ns and one.client.broker == client.broker:
                    begun = True
                    if same:
                        return one
            elif same:
                return one
        return None

    def _list(self, one: SeenSession) -> None:
        self.by_peer.add(one.peer, one)
        self.by_port.add(one.port, one)
        self.by_address.add(meeting_place(one.address), one)

    def _unlist(self, one: SeenSession) -> None:
        self.by_peer.remove(one.peer, one)
        self.by_port.remove(one.port, one)
        self.by_address.remove(meeting_place(one.address), one)

    def _drop(self, one: SeenSession) -> None:
        del self._kept[one.number]
        self._unlist(one)
        self.dropped += 1


def _known_of(client: Client) -> tuple[object, ...]:
    """How much is known of a client; of two known as well it decides the same whatever came first."""
    return (
        bool(client.client_id),
        client.user is not None,
        client.vhost is not None,
        client.protocol,
        client.client_id,
        client.user or "",
        client.vhost or "",
        client.tls_subject or "",
        client.identity,
    )
