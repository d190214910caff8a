"""Joins what a broker saw to what a host saw: the process behind a session, and the session behind a connection.

Sure is only what both sides name alike: the client's address and port at a time when one process had them. All else is
weak, and says why: an address that was translated on the way, a source that tells no port, a clock that is off by more
than two connections are apart.

The rules. A *session* is what a broker tells of one client's connection: the peer's address and port (without a port,
the client id and user), and when it began or, where that was not told, when it was first seen. A *connection* is what a
host tells (`Dialled`). `skew` is how far any two clocks may be apart; a session is *near* a connection when it began
from `skew` before it to `skew` and SETUP_NS after it, and not more than `skew` after its end.

Nothing is joined against the evidence: a connection that failed, that is not TCP, that leads to an address or port
where the broker is known not to be, that is to loopback on a host where the broker is known not to run, or that ended,
by its own end or its process's, before the session was there.

The same address and port (`How.CONNECTION`). Of a session that was told to begin, the connections near it count. When
another process, or nobody knows who, connected from there later and before the time asked for, the session that began
is not the one asked for; that one counts as first seen at the time asked for. Of a session not told to begin, all
connections from there count that were made before it was seen, but not those that another one between the same ends
followed, surely before. It is exact when

- all that count are of one process; one of which no process is told, as by a network sensor, is taken for another's
  that leads to the same place and was made within `skew` of it, else it is of another process;
- the session is near one of them, or was first seen between its beginning and its end, `skew` within either;
- the connection does not stay on its host (loopback, or from an address to itself), or the host is the broker's own;
- no other host had the address within an hour of that time, or the host is the broker's own.

Else it is weak. With no process told, the one process of the connection's user that ran then, or the only one whose
command line names the place, is weakly joined.

Where no process has the same address and port, the first of these that any process fits, and all are weak. The server
must be where the broker is known to be; where nothing is known of it, on a port usual for the protocol.

- The same port from another address, near in time (`How.TRANSLATED`): network address translation. The session's
  address must be nobody's that we know, or of the connection's own host, and the broker did not see the connection's
  own address and port itself.
- A connection whose near end was not told, near in time, from a host that had the session's address within an hour
  (`How.UNLOCATED`); for a session from loopback, any that leads to loopback. Not when another source told its near end,
  and not to another place than where a network sensor saw the session's connection lead.
- A connection from another address and port of such a host, near in time (`How.SAME_HOST`); or, when the broker tells
  no port, from the same address.

Of several processes the likeliest is given: whose command line names more of the broker, its port, the client id and
what else the asker knows; then the nearest in time. Command lines never make a join exact.

What exact rests on, whatever else is lost, late or out of order: clocks are within `skew`; a broker that tells of a
beginning does so within SETUP_NS of the connection; an address is one host's, except where we saw otherwise; one local
port does not lead to two servers of whom nothing is known at once; the same two ends are not connected again by another
process within 2 `skew` + SETUP_NS (TCP waits for a minute), or both connections were told; of a later connection
between the same ends, either the host told the connection or the broker its beginning; and no process number is given
again within TWIN_NS. For the process's command line, see `ProcessTable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from topicwarden.events import Client, Dialled, Endpoint, Process
from topicwarden.hosts.addresses import is_loopback, normalised
from topicwarden.hosts.join_kept import Dials, SeenSession, Sessions, Whole
from topicwarden.hosts.join_places import AddressOwners, BrokerPlace, Dial, Places
from topicwarden.hosts.join_rules import SETUP_NS, Pool, Rules, mentions, reason_of
from topicwarden.hosts.processes import ProcessTable

CAPACITY: Final = 1 << 17
KEEP_NS: Final = 24 * 3600 * 1_000_000_000
MAX_LIKELY: Final = 16
"""Sessions that are looked at for a connection that has none from its own address and port: the nearest in time."""
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_NOWHERE: Final[Mapping[str, BrokerPlace]] = MappingProxyType({})
_NOBODY: Final[Mapping[str, Iterable[str]]] = MappingProxyType({})

__all__ = ["Attribution", "BrokerPlace", "Joined", "Joiner", "Session", "SessionJoin", "Sureness"]


class Sureness(StrEnum):
    """How sure a join is."""

    EXACT = "exact"
    """The same connection: addresses, ports and time agree, and no other process could be meant."""
    WEAK = "weak"
    """The same host, or the same port, at about the same time; it may be another's."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The process behind what a client did at a broker."""

    process: Process
    sureness: Sureness
    reason: str
    """Why it is joined, in words without full stop: `same connection 10.0.0.7:51432, 3 ms apart`."""
    time_ns: int
    """When the host saw it connect, by the host's clock."""
    remote: Endpoint | None
    """The broker's end; None where the host's telemetry tells of no connection."""
    local: Endpoint | None = None
    candidates: int = 1
    """How many processes it could be; `process` is the likeliest of them."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a broker knows of one connection."""

    client: Client
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class SessionJoin:
    """The broker session behind a connection that a host made."""

    session: Session
    sureness: Sureness
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """How many broker sessions were joined to the process behind them."""

    exact: int
    weak: int
    none: int
    """Sessions with a known address for which no process was found."""
    dropped: int
    """Connections, sessions, processes and events that were let go because a table was full."""


class Joiner:
    """Keeps what both sides told and answers for either. Bounded; what was dropped is counted.

    The order in which things are told does not matter to what is answered once all is told; before that, an answer may
    be None, or change.
    """

    def __init__(
        self,
        processes: ProcessTable,
        *,
        skew_ns: int,
        broker_hosts: Mapping[str, str] = _NOTHING,
        brokers: Mapping[str, BrokerPlace] = _NOWHERE,
        addresses: Mapping[str, Iterable[str]] = _NOBODY,
        capacity: int = CAPACITY,
        keep_ns: int = KEEP_NS,
    ) -> None:
        """`skew_ns`: how far clocks may be apart.

        `brokers`: what is known of where brokers are, by their names; `broker_hosts`: the host a broker runs on, for
        those of which that is all that is known. `addresses`: addresses by host, as far as they are known beforehand;
        those that connections come from are learnt. At most `capacity` connections and as many sessions are kept, each
        for `keep_ns` since it was last told or asked for.
        """
        if skew_ns < 0:
            raise ValueError(f"clocks cannot be {skew_ns} ns apart")
        known = {name: BrokerPlace(host=host) for name, host in broker_hosts.items()}
        for name, place in brokers.items():
            host = place.host or broker_hosts.get(name)
            known[name] = BrokerPlace(host, place.addresses, place.ports)
        self._dials = Dials(capacity, keep_ns)
        self._sessions = Sessions(capacity, keep_ns)
        self._owners = AddressOwners(addresses, capacity)
        self._rules = Rules(self._dials, self._sessions, Places(known), self._owners, processes, skew_ns)
        self._skew_ns = skew_ns

    @property
    def dropped(self) -> int:
        """Connections, sessions and owners of addresses that were forgotten to make room, or as too old."""
        return self._dials.dropped + self._sessions.dropped + self._owners.dropped

    def dialled(self, event: Dialled) -> None:
        """Keep a connection that a host made."""
        dial = Dial(event)
        self._owners.learn(dial)
        self._dials.add(dial)

    def session(self, client: Client, first_ns: int, last_ns: int, *, began: bool = False) -> None:
        """Keep, or prolong, a session that a broker saw. `client` has the peer's address and port.

        `began`: whether the broker told that the session began at `first_ns`; else it is merely the first time the
        client is seen in a stretch of events, and the session is the one that had begun last or, if that was not told
        either, everything that this client was seen to do. Without beginnings a port that is used again is noticed only
        by the host's connections.
        """
        address = normalised(client.address or "")
        if address is not None:
            self._sessions.add(client, address, first_ns, last_ns, began=began)

    def sessions(self) -> Iterator[Session]:
        """Yield the sessions kept, each connection once, also where its client was known less at first."""
        for peer in self._sessions.peers():
            for one in self._sessions.whole(peer):
                yield Session(one.client, one.time_ns, one.last_ns)

    def process_of(self, client: Client, time_ns: int, *, words: Iterable[str] = ()) -> Attribution | None:
        """Return the process behind what a client did at a broker at a time (the broker's clock); None: none as yet.

        `words`: what else a command line would have that did it, such as the topic; they choose among the likely.
        """
        asked = self._rules.asked(client, time_ns)
        pool = None if asked is None else self._rules.pool(asked)
        if pool is None:
            return None
        hints = [*pool.asked.place.names, client.client_id, client.user or "", *words]
        if not pool.with_process:
            return self._by_user(pool, hints)
        found = self._rules.processes(pool.dials)
        ranked = []
        for dials in found.values():
            dial = min(dials, key=lambda one: one.nearness(pool.asked.begin_ns))
            process = self._rules.process_behind(dial)
            if process is not None:
                said = mentions(process, (*hints, dial.remote.address, str(dial.remote.port)))
                ranked.append(((-said, *dial.nearness(pool.asked.begin_ns)), dial, process))
        _, dial, process = min(ranked, key=lambda one: one[0])
        self._dials.touch(dial, time_ns)
        sureness = Sureness.WEAK if pool.doubts else Sureness.EXACT
        return Attribution(process, sureness, reason_of(pool, dial), dial.time_ns, dial.remote, dial.local, len(ranked))

    def session_of(self, event: Dialled) -> SessionJoin | None:
        """Return the session behind a connection; None: none as yet."""
        dial = Dial(event)
        if not dial.may_stand:
            return None
        found = self._own_session(dial)
        return self._likely_session(dial) if found is None else found

    def _by_user(self, pool: Pool, hints: list[str]) -> Attribution | None:
        found = self._rules.by_user(pool, hints)
        if found is None:
            return None
        process, dial = found
        pool.doubts.append(f"the only process of its user {dial.event.user} that it can be")
        return Attribution(process, Sureness.WEAK, reason_of(pool, dial), dial.time_ns, dial.remote, dial.local)

    def _own_session(self, dial: Dial) -> SessionJoin | None:
        """Return the session from a connection's own address and port."""
        if dial.local is None:
            return None
        found: list[tuple[Whole, Pool]] = []
        for one in self._sessions.whole((dial.local.address, dial.local.port)):
            pool = self._rules.connection(self._rules.asked_of(one))
            if pool is not None and any(kept.event == dial.event for kept in pool.dials):
                self._rules.doubt_connection(pool, dial)
                found.append((one, pool))
        if not found:
            return None
        session, pool = min(found, key=lambda one: (bool(one[1].doubts), *_rank(one[0], dial)))
        if len(found) > 1:
            pool.doubts.append(f"{len(found)} sessions from there")
        return _joined(session, pool, dial)

    def _likely_session(self, dial: Dial) -> SessionJoin | None:
        first, last = dial.time_ns - self._skew_ns, dial.time_ns + self._skew_ns + SETUP_NS
        listed: list[SeenSession] = []
        if dial.local is not None:
            listed += self._sessions.by_port.between(dial.local.port, first, last, dial.time_ns)
        looped = is_loopback(dial.remote.address)
        for address in (None,) if looped else self._owners.of(dial.host, dial.time_ns):
            listed += self._sessions.by_address.between(address, first, last, dial.time_ns)
        listed.sort(key=lambda one: abs(one.time_ns - dial.time_ns))
        found: list[tuple[Whole, Pool]] = []
        for peer in list(dict.fromkeys(one.peer for one in listed))[:MAX_LIKELY]:
            found += [
                (whole, pool)
                for whole in self._sessions.whole(peer)
                if first <= whole.time_ns <= last and (pool := self._likely_pool(whole, dial)) is not None
            ]
        if not found:
            return None
        session, pool = min(found, key=lambda one: (one[1].how, *_rank(one[0], dial)))
        if len(found) > 1:
            pool.doubts.append(f"one of {len(found)} sessions")
        return _joined(session, pool, dial)

    def _likely_pool(self, session: Whole, dial: Dial) -> Pool | None:
        """Return the connections a session may have come by when this is one of them, and none is its own."""
        asked = self._rules.asked_of(session)
        connection = self._rules.connection(asked)
        if connection is not None and connection.with_process:
            return None
        for pool in self._rules.likely(asked, connection):
            if any(kept.event == dial.event for kept in pool.dials):
                return pool
            if pool.with_process:
                break
        return None


def _joined(session: Whole, pool: Pool, dial: Dial) -> SessionJoin:
    told = Session(session.client, session.time_ns, session.last_ns)
    return SessionJoin(told, Sureness.WEAK if pool.doubts else Sureness.EXACT, reason_of(pool, dial))


def _rank(session: Whole, dial: Dial) -> tuple[int, int, str, str]:
    client = session.client
    return abs(session.time_ns - dial.time_ns), session.time_ns, client.broker, client.client_id
