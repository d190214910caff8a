"""The connections that this machine makes to the ports that matter, each told once. No input or output, no clock.

What is open is looked at every now and then; the kernel tells of each that ends. A connection that both show is told
by its cookie to be the same. It is told to others as soon as it is known whose it is and whether it came to stand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from topicwarden.events import Dialled, Endpoint
from topicwarden_collectors.host.sock_diag import State, TcpSocket

PUBSUB_PORTS: Final = frozenset(
    {
        *(1883, 8883),  # MQTT
        *(8080, 8083, 8084, 9001, 15675),  # over WebSocket; not 80 and 443, which are everybody's
        *(5671, 5672),  # AMQP
        *(61613, 61614),  # STOMP
        *(5222, 5223, 5269),  # XMPP
    }
)
"""The ports that publish/subscribe protocols have by default."""
MAX_OPEN: Final = 1 << 16
MAX_TOLD: Final = 4096
"""Connections that another source told, kept in mind so that they are not told again."""
SCANS: Final = 3
"""How often its process is looked for among all, before a connection is told without."""
_SETTLING_NS: Final = 2 * 10**9
"""How long a connection that does not come to stand is waited for before it is told."""
_WORD_NS: Final = 2 * 10**9
"""How long after a connection is gone the kernel's word on its end is waited for."""
_CLAIM_NS: Final = 10**8
"""How long after a connection has ended another source may still tell whose it was."""
_LATE_NS: Final = 10**9
"""How long after a connection has ended another source may still date it; its port is not another's so soon."""
_TOLD_NS: Final = 30 * 10**9
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a listening socket says, not one of ours


class Ends(NamedTuple):
    """A connection by its ends: only one has them at a time."""

    local: Endpoint
    remote: Endpoint


@dataclass(slots=True)
class Connection:
    """A connection that is open, or ended a moment ago, as far as it is known."""

    ends: Ends
    first_ns: int
    inode: int
    uid: int | None
    state: State
    pid: int | None = None
    scans: int = 0
    told: bool = False
    gone_ns: int | None = None
    """Since when it is not among those open."""

    @property
    def wanted(self) -> bool:
        """Whether its process is still to be looked for."""
        return self.pid is None and self.inode != 0 and self.scans < SCANS and self.gone_ns is None


class Told(NamedTuple):
    """A connection to be told, with what is not in the event yet."""

    dialled: Dialled
    uid: int | None


class LiveConnections:
    """Keeps the connections that are open, and says which to tell."""

    def __init__(
        self,
        host: str,
        ports: Collection[int],
        *,
        own_pid: int,
        ends_told: bool,
        others_tell: bool = False,
        capacity: int = MAX_OPEN,
    ) -> None:
        """`own_pid`: whose connections are left out. `ends_told`: the kernel tells of each connection that ends.

        `others_tell`: another source tells connections too, with their processes, perhaps a moment after they ended.
        """
        self._host = host
        self._ports = frozenset(ports)
        self._own_pid = own_pid
        self._word_ns = _WORD_NS if ends_told else 0
        self._others_tell = others_tell
        self._capacity = capacity
        self._unclaimed: dict[Ends, tuple[int, Told]] = {}
        self._open: dict[int, Connection] = {}
        self._by_ends: dict[Ends, Connection] = {}
        self._untold: dict[int, Connection] = {}
        self._listening: dict[int, set[str]] = {}
        self._elsewhere: dict[Ends, int] = {}
        self._ended: dict[Ends, int] = {}
        """When connections ended that were told with their processes; another source may come too late with them."""
        self.overflowed = 0
        """Connections that were not kept because there were too many; they are not told."""

    def __len__(self) -> int:
        return len(self._open)

    def listening(self, sockets: Iterable[TcpSocket]) -> None:
        """Take all sockets that listen now."""
        found: dict[int, set[str]] = {}
        for one in sockets:
            found.setdefault(one.local_port, set()).add(one.local_address)
        self._listening = found

    def looked(self, sockets: Sequence[TcpSocket], now_ns: int, *, complete: bool = True) -> None:
        """Take the sockets that are connected now; if these are all, others are over."""
        for one in sockets:
            if self._dials(one):
                self._see(one, now_ns)
        if not complete:
            return
        cookies = {one.cookie for one in sockets}
        for cookie in self._open.keys() - cookies:
            gone = self._open[cookie]
            if gone.gone_ns is None:
                gone.gone_ns = now_ns
            elif gone.told and now_ns - gone.gone_ns > self._word_ns:
                self._forget(cookie)

    def wanted(self) -> set[int]:
        """Return the inodes whose processes are to be looked for."""
        return {one.inode for one in self._untold.values() if one.wanted}

    def owned(self, owners: Mapping[int, int], *, scanned: bool) -> None:
        """Take processes by the inodes of their sockets; `scanned`: all processes were looked at for them."""
        for one in self._untold.values():
            if one.wanted:
                one.pid = owners.get(one.inode)
                one.scans += scanned

    def ready(self, now_ns: int, *, last: bool = False) -> Iterator[Told]:
        """Yield what can be told now; `last`: whatever may still become known of it."""
        for ends in [ends for ends, (until_ns, _) in self._unclaimed.items() if last or until_ns <= now_ns]:
            yield self._unclaimed.pop(ends)[1]
        for cookie in [cookie for cookie, one in self._untold.items() if last or self._settled(one, now_ns)]:
            one = self._untold.pop(cookie)
            one.told = True
            established = True if one.state is not State.SYN_SENT else None
            if one.gone_ns is not None and established is None and self._word_ns and not last:
                established = False  # the kernel says nothing of what never came to stand
            yield from self._tell(one, established)

    def closed(self, one: TcpSocket, now_ns: int) -> Iterator[Told]:
        """Take the kernel's word that a connection has ended; yield what can be told now."""
        known = self._open.get(one.cookie)
        if known is not None:
            self._forget(one.cookie)
            duration_ns = now_ns - known.first_ns
            established = True if one.acknowledged or known.state is not State.SYN_SENT else None
        elif self._dials(one):
            known, duration_ns = Connection(_ends(one), now_ns, 0, None, one.state), None
            known.told = self._told_elsewhere(known.ends, now_ns)
            established = None if one.acknowledged is None else one.acknowledged > 0
            self._elsewhere.pop(known.ends, None)
        if known is None:
            return
        if self._others_tell and known.pid is not None:
            _keep(self._ended, known.ends, now_ns)
        if known.told:
            return
        for told in self._tell(known, established, sent=one.sent, duration_ns=duration_ns):
            if known.pid is None and self._others_tell and len(self._unclaimed) < MAX_TOLD:
                earlier = self._unclaimed.pop(known.ends, None)
                if earlier is not None:
                    yield earlier[1]
                self._unclaimed[known.ends] = (now_ns + _CLAIM_NS, told)
            else:
                yield told

    def told_by_another(self, event: Dialled) -> bool:
        """Take a connection that another source tells; whether it is news, because we did not know whose it is."""
        if event.local is None or event.remote.port == 0:
            return True
        if event.pid is None and event.remote.port in self._ports:
            return False  # we see it too, and may see more
        ends = Ends(event.local, event.remote)
        if self._unclaimed.pop(ends, None) is not None:
            return True
        if (ended_ns := self._ended.pop(ends, None)) is not None and -_LATE_NS < ended_ns - event.time_ns < _TOLD_NS:
            return False
        known = self._by_ends.get(ends)
        if known is not None:
            news = not known.told or known.pid is None
            known.told, known.pid = True, event.pid
            self._untold = {cookie: one for cookie, one in self._untold.items() if not one.told}
            return news
        _keep(self._elsewhere, ends, event.time_ns)
        return True

    def _see(self, one: TcpSocket, now_ns: int) -> None:
        connection = self._open.get(one.cookie)
        if connection is None:
            if not one.inode:
                return  # its process has let go of it, so its end will be told; or it is no socket but a TIME_WAIT
            if len(self._open) >= self._capacity:
                self.overflowed += 1
                return
            connection = Connection(_ends(one), now_ns, one.inode, one.uid, one.state)
            self._open[one.cookie] = self._by_ends[connection.ends] = connection
            if self._told_elsewhere(connection.ends, now_ns):
                connection.told = True
            else:
                self._untold[one.cookie] = connection
        connection.state, connection.gone_ns = one.state, None
        if one.inode:
            connection.inode, connection.uid = one.inode, one.uid

    def _settled(self, one: Connection, now_ns: int) -> bool:
        """Whether nothing more will be known of it soon."""
        if one.gone_ns is not None:
            return now_ns - one.gone_ns >= self._word_ns
        return not one.wanted and (one.state is not State.SYN_SENT or now_ns - one.first_ns > _SETTLING_NS)

    def _forget(self, cookie: int) -> None:
        connection = self._open.pop(cookie)
        self._untold.pop(cookie, None)
        if self._by_ends.get(connection.ends) is connection:
            del self._by_ends[connection.ends]
        self._elsewhere.pop(connection.ends, None)

    def _tell(
        self, one: Connection, established: bool | None, *, sent: int | None = None, duration_ns: int | None = None
    ) -> Iterator[Told]:
        if one.pid == self._own_pid:
            return
        event = Dialled(
            one.first_ns,
            self._host,
            one.ends.remote,
            one.ends.local,
            pid=one.pid,
            established=established,
            sent=sent,
            duration_ns=duration_ns,
        )
        yield Told(event, one.uid)

    def _told_elsewhere(self, ends: Ends, now_ns: int) -> bool:
        time_ns = self._elsewhere.get(ends)
        return time_ns is not None and abs(now_ns - time_ns) < _TOLD_NS

    def _dials(self, one: TcpSocket) -> bool:
        """Whether a socket connected to a port that matters is the end that dialled.

        The other end of a connection on this machine has such a port itself, and as its remote port the dialler's,
        which may be one that matters too: it is then the one that has the address and port of a listening socket.
        """
        if one.remote_port not in self._ports:
            return False
        listening = self._listening.get(one.local_port)
        return listening is None or not (one.local_address in listening or listening & _ANY)


def _keep(table: dict[Ends, int], ends: Ends, time_ns: int) -> None:
    table.pop(ends, None)
    while len(table) >= MAX_TOLD:
        del table[next(iter(table))]
    table[ends] = time_ns


def _ends(one: TcpSocket) -> Ends:
    return Ends(Endpoint(one.local_address, one.local_port), Endpoint(one.remote_address, one.remote_port))
