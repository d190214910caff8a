"""Which connections a session may have come by: the rules that `topicwarden.hosts.join` writes down."""

from __future__ import annotations

import ntpath
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from topicwarden.events import Client, Endpoint, Process
from topicwarden.hosts.addresses import in_words, is_loopback, normalised
from topicwarden.hosts.join_kept import MAX_LOOKED, ByTime, Dials, Sessions, Whole, compatible, peer_of
from topicwarden.hosts.join_places import AddressOwners, Dial, Place, Places, same_host
from topicwarden.hosts.processes import ProcessTable

SETUP_NS: Final = 5_000_000_000
"""How long after its connection a session may begin: handshakes, and clients that take their time."""
TWIN_NS: Final = 200_000_000
"""Two sources of one host, whose clock they share, tell of one connection within this."""
ROUNDING_NS: Final = 1_000_000
"""Sources cut times to milliseconds."""
_EVER: Final = 1 << 63


class How(IntEnum):
    """What a session and a connection have in common, the strongest first."""

    CONNECTION = 1
    TRANSLATED = 2
    UNLOCATED = 3
    SAME_HOST = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A session at a time."""

    client: Client
    address: str
    begin_ns: int
    """When it began; where that was not told, when it was first seen."""
    told: bool
    """Whether its beginning was told."""
    time_ns: int
    """The time it is asked for."""
    place: Place

    @property
    def port(self) -> int | None:
        """The peer's port."""
        return self.client.port


@dataclass(slots=True)
class Pool:
    """The connections that one may have come by."""

    how: How
    asked: Asked
    dials: list[Dial]
    doubts: list[str] = field(default_factory=list)
    """Why it is weak; none: exact, as far as the connection goes."""

    @property
    def with_process(self) -> list[Dial]:
        """Those whose process is told."""
        return [dial for dial in self.dials if dial.pid is not None]


Key = tuple[str, int, str, tuple[str, ...]]


class Rules:
    """Applies the rules to what is kept. It changes nothing."""

    def __init__(
        self,
        dials: Dials,
        sessions: Sessions,
        places: Places,
        owners: AddressOwners,
        processes: ProcessTable,
        skew_ns: int,
    ) -> None:
        self._dials = dials
        self._sessions = sessions
        self._places = places
        self._owners = owners
        self._processes = processes
        self._skew_ns = skew_ns

    def asked(self, client: Client, time_ns: int) -> Asked | None:
        """Return the session that a client's act at a time belongs to; None when the client has no IP address."""
        address = normalised(client.address or "")
        if address is None:
            return None
        place = self._places.of(client.broker)
        listed = self._sessions.by_peer.all(peer_of(client, address))
        of_broker = [one for one in listed if one.client.broker == client.broker]
        begun = [one for one in of_broker if one.began and one.time_ns <= time_ns]
        if begun:
            latest = [one for one in begun if one.time_ns == begun[-1].time_ns]
            if any(compatible(one.client, client) for one in latest):
                return Asked(client, address, begun[-1].time_ns, True, time_ns, place)
            # Another client has been here since, so this one's own beginning was not told.
            return Asked(client, address, time_ns, False, time_ns, place)
        fitting = [one for one in of_broker if compatible(one.client, client)]
        begin = min((one.time_ns for one in fitting if not one.began and one.time_ns <= time_ns), default=time_ns)
        if any(begin < one.time_ns <= time_ns and not compatible(one.client, client) for one in of_broker):
            begin = time_ns
        return Asked(client, address, begin, False, time_ns, place)

    def asked_of(self, session: Whole) -> Asked:
        """Return a session as it is asked for when it began."""
        place = self._places.of(session.client.broker)
        return Asked(session.client, session.address, session.time_ns, session.began, session.time_ns, place)

    def pool(self, asked: Asked) -> Pool | None:
        """Return the connections whose processes it may be, else those that are its own but of no known process."""
        connection = self.connection(asked)
        if connection is not None and connection.with_process:
            return connection
        return next((pool for pool in self.likely(asked, connection) if pool.with_process), connection)

    def likely(self, asked: Asked, connection: Pool | None) -> Iterator[Pool]:
        """Yield what has less in common than a connection, the strongest first."""
        yield self.translated(asked)
        yield self.unlocated(asked, connection)
        yield self.same_host(asked)

    def connection(self, asked: Asked) -> Pool | None:
        """Return those from the same address and port; None: there is none."""
        if asked.port is None:
            return None
        key, skew = (asked.address, asked.port), self._skew_ns
        until = max(asked.begin_ns, asked.time_ns) + skew
        listed = self._dials.by_local.between(key, asked.begin_ns - skew - SETUP_NS, until, asked.begin_ns)
        fitting = [dial for dial in listed if self._may_lead(asked, dial)]
        near = [dial for dial in fitting if self._near(asked, dial)]
        if any(dial.time_ns > asked.begin_ns + skew for dial in fitting):
            keys = {self._key(dial) for dial in fitting}
            if not near or len(keys) > 1 or None in keys:
                # The port changed hands since the session began; what is asked for belongs to one not seen to begin.
                asked, near = replace(asked, begin_ns=asked.time_ns, told=False), []
        pool = Pool(How.CONNECTION, asked, near)
        if not (asked.told and near):
            listed = self._dials.by_local.between(key, -_EVER, asked.begin_ns + skew, asked.begin_ns)
            fitting = [dial for dial in listed if self._may_lead(asked, dial)]
            pool.dials = [
                dial
                for dial in fitting
                if not self._over(asked, dial) and not any(self._supersedes(asked, dial, other) for other in fitting)
            ]
        if not pool.dials:
            return None
        if len(listed) > MAX_LOOKED:
            pool.doubts.append(f"more than {MAX_LOOKED} connections from there")
        self._doubt(pool)
        return pool

    def translated(self, asked: Asked) -> Pool:
        """Return those from the same port whose address may have been replaced on the way."""
        pool = Pool(How.TRANSLATED, asked, [], ["address translated"])
        if asked.port is None or is_loopback(asked.address):
            return pool
        for dial in self._window(self._dials.by_port, asked.port, asked):
            if (
                dial.local is not None
                and dial.local.address != asked.address
                and self._elsewhere(asked, dial)
                and self._may_have(dial, asked.address)
            ):
                pool.dials.append(dial)
        return pool

    def unlocated(self, asked: Asked, connection: Pool | None) -> Pool:
        """Return those of which the source did not tell the near end. `connection`: what is known without a process."""
        pool = Pool(How.UNLOCATED, asked, [], ["same host and server, but its source does not tell the port"])
        looped = is_loopback(asked.address)
        keys: Sequence[str | None] = [None] if looped else self._owners.at(asked.address, asked.begin_ns)
        remotes = None if connection is None else {dial.remote for dial in connection.dials}
        for key in keys:
            pool.dials += [
                dial
                for dial in self._window(self._dials.unlocated, key, asked)
                if is_loopback(dial.remote.address) == looped
                and asked.place.confirms(dial, asked.client.protocol)
                and (remotes is None or dial.remote in remotes)
                and not self._told_elsewhere(asked, dial)
            ]
        return pool

    def same_host(self, asked: Asked) -> Pool:
        """Return those of a host that has the address, whatever port they came from."""
        pool = Pool(How.SAME_HOST, asked, [], ["same host and time only, from another address or port"])
        for host in self._owners.at(asked.address, asked.begin_ns):
            for dial in self._window(self._dials.located, host, asked):
                if dial.local is None or (dial.local.address == asked.address) != (asked.port is None):
                    continue
                if dial.local.port != asked.port and self._elsewhere(asked, dial):
                    pool.dials.append(dial)
        return pool

    def doubt_connection(self, pool: Pool, dial: Dial) -> None:
        """Note what speaks against being sure that a session came by this one of its connections."""
        if not self._certain(pool.asked, dial) or not all(self.twins(dial, one) for one in pool.dials):
            pool.doubts.append("another connection from there")

    def twins(self, one: Dial, other: Dial) -> bool:
        """Whether two sources may have told of one connection."""
        apart = TWIN_NS if one.host == other.host else self._skew_ns
        return one.remote == other.remote and abs(one.time_ns - other.time_ns) <= apart

    def process_behind(self, dial: Dial) -> Process | None:
        """Return the process of a connection; what the connection's own source says of it comes first."""
        if dial.pid is None:
            return None
        told = dial.event.executable
        for time_ns in (dial.time_ns, dial.time_ns + ROUNDING_NS, dial.time_ns - ROUNDING_NS):
            found = self._processes.at(dial.host, dial.pid, time_ns)
            if found is not None and (not told or not found.executable or _program(told) == _program(found.executable)):
                return found
        return Process(dial.host, dial.pid, told or "", user=dial.event.user)

    def by_user(self, pool: Pool, hints: Sequence[str]) -> tuple[Process, Dial] | None:
        """Return the one process of a connection's user that it can be, when there is one."""
        for dial in pool.dials:
            user, told = dial.event.user, dial.event.executable
            if user is None:
                continue
            running = self._processes.running(dial.host, dial.time_ns, user)
            if told:
                running = [one for one in running if _program(one.executable) == _program(told)]
            if len(running) > 1:
                running = [one for one in running if mentions(one, (dial.remote.address, *hints))]
            if len(running) == 1:
                return running[0], dial
        return None

    def processes(self, dials: Iterable[Dial]) -> dict[Key, list[Dial]]:
        """Return connections by their processes; those without one are left out."""
        found: dict[Key, list[Dial]] = {}
        for dial in dials:
            key = self._key(dial)
            if key is not None:
                found.setdefault(key, []).append(dial)
        return found

    def _key(self, dial: Dial) -> Key | None:
        process = self.process_behind(dial)
        if process is None:
            return None
        return dial.host.lower().partition(".")[0], process.pid, process.executable, process.arguments

    def _may_lead(self, asked: Asked, dial: Dial) -> bool:
        """Whether nothing speaks against a connection's being to the session's broker."""
        if not dial.may_stand or asked.place.contradicts(dial):
            return False
        return not (is_loopback(asked.address) and asked.place.host is not None) or asked.place.is_host(dial.host)

    def _near(self, asked: Asked, dial: Dial) -> bool:
        since = asked.begin_ns - dial.time_ns
        return -self._skew_ns <= since <= self._skew_ns + SETUP_NS and not self._ended(asked, dial)

    def _ended(self, asked: Asked, dial: Dial) -> bool:
        return dial.end_ns is not None and dial.end_ns + self._skew_ns < asked.begin_ns

    def _over(self, asked: Asked, dial: Dial) -> bool:
        """Whether a connection, or its process, had ended when the session was there."""
        if self._ended(asked, dial):
            return True
        if dial.pid is None or self._near(asked, dial):
            return False
        end = self._processes.exit_ns(dial.host, dial.pid, dial.time_ns)
        return end is not None and end + self._skew_ns < asked.begin_ns

    def _supersedes(self, asked: Asked, dial: Dial, other: Dial) -> bool:
        """Whether another connection between the same ends had followed one; two sources tell of one a little apart."""
        return (
            other.remote == dial.remote
            and dial.time_ns + 2 * self._skew_ns < other.time_ns <= asked.begin_ns - self._skew_ns
        )

    def _certain(self, asked: Asked, dial: Dial) -> bool:
        """Whether the session can only have been on this connection: it began with it, or while it was held."""
        if self._near(asked, dial):
            return True
        held = dial.end_ns is not None and asked.begin_ns <= dial.end_ns - self._skew_ns
        return held and dial.time_ns + self._skew_ns <= asked.begin_ns

    def _doubt(self, pool: Pool) -> None:
        """Note what speaks against being sure of a connection."""
        asked, processes = pool.asked, self.processes(pool.dials)
        if len(processes) > 1:
            pool.doubts.append(f"{len(processes)} processes connected from there")
        known = pool.with_process or pool.dials
        nearest = min(known, key=lambda dial: dial.nearness(asked.begin_ns))
        others = known if pool.with_process else [nearest]
        if not all(dial.pid is not None or any(self.twins(dial, one) for one in others) for dial in pool.dials):
            pool.doubts.append("another connection from there, of a process not known")
        if not self._certain(asked, nearest):
            pool.doubts.append("the session was not seen to begin with the connection")
        if asked.place.is_host(nearest.host):
            return
        if nearest.to_itself or is_loopback(asked.address):
            pool.doubts.append("on which host the broker runs is not known")
        hosts = {dial.host for dial in pool.dials if dial.host != asked.address}
        owners = self._owners.at(asked.address, nearest.time_ns)
        if any(not same_host(one, other) for one in owners for other in hosts or owners):
            pool.doubts.append("several hosts have this address")

    def _elsewhere(self, asked: Asked, dial: Dial) -> bool:
        """Whether a connection whose near end is not the session's may be the session's all the same."""
        if dial.local is None or is_loopback(dial.local.address) or is_loopback(dial.remote.address):
            return False
        if not dial.may_stand or not asked.place.confirms(dial, asked.client.protocol):
            return False
        # Where the broker saw the near end itself, nothing replaced it.
        first, last = dial.time_ns - self._skew_ns, dial.time_ns + self._skew_ns + SETUP_NS
        begins = self._sessions.begins((dial.local.address, dial.local.port), asked.client.broker)
        return not any(first <= time_ns <= last for time_ns in begins)

    def _may_have(self, dial: Dial, address: str) -> bool:
        """Whether an address may stand for a connection's host: it is that host's, or nobody's that we know."""
        owners = self._owners.at(address, dial.time_ns)
        return not owners or any(same_host(one, dial.host) for one in owners)

    def _told_elsewhere(self, asked: Asked, dial: Dial) -> bool:
        """Whether another source told the near end of the same connection, and it is not the session's."""
        around = self._dials.located.between(dial.host, dial.time_ns - TWIN_NS, dial.time_ns + TWIN_NS, dial.time_ns)
        own = Endpoint(asked.address, asked.port or 0)
        return any(one.pid == dial.pid and one.remote == dial.remote and one.local != own for one in around)

    def _window(self, index: ByTime[Dial], key: Hashable, asked: Asked) -> list[Dial]:
        """Return those of a key that the session may have begun with."""
        first, last = asked.begin_ns - self._skew_ns - SETUP_NS, asked.begin_ns + self._skew_ns
        listed = index.between(key, first, last, asked.begin_ns)
        return [dial for dial in listed if self._may_lead(asked, dial) and self._near(asked, dial)]


def mentions(process: Process, hints: Iterable[str]) -> int:
    """Return how many of the hints stand in a command line; short ones count only as a word of their own."""
    return sum(any(_mentions(argument, hint) for argument in process.arguments) for hint in set(hints) if hint)


def _mentions(argument: str, hint: str) -> bool:
    if len(hint) >= 6 and not hint.isdigit():
        return hint in argument
    return argument == hint or argument.endswith((f":{hint}", f"={hint}"))


def _program(executable: str) -> str:
    return ntpath.basename(executable.removesuffix(" (deleted)"))


def reason_of(pool: Pool, dial: Dial) -> str:
    """Return in words why a session and a connection are joined."""
    asked = pool.asked
    apart = _span(abs(asked.begin_ns - dial.time_ns))
    peer = in_words(Endpoint(asked.address, asked.port)) if asked.port is not None else asked.address
    if pool.how is How.CONNECTION:
        if not pool.doubts:
            return f"same connection {peer}, {apart} apart"
        return f"same address and port {peer}, {apart} apart; {'; '.join(pool.doubts)}"
    remote, doubts = in_words(dial.remote), "; ".join(pool.doubts)
    if pool.how is How.TRANSLATED and dial.local is not None:
        return f"same port {asked.port}, {apart} apart; {doubts}: {dial.local.address} to {asked.address}"
    return f"connected to {remote}, {apart} apart; {doubts}"


def _span(time_ns: int) -> str:
    if time_ns < 10_000_000_000:
        return f"{time_ns // 1_000_000} ms"
    return f"{time_ns // 1_000_000_000} s"
