"""What there is to watch this machine with, as far as we may: opened together, closed together."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from topicwarden.errors import ObservationError, Problem
from topicwarden.sources import BlindSpot, Counters
from topicwarden_collectors.host import procfs
from topicwarden_collectors.host.attributor import Attributor
from topicwarden_collectors.host.live_blind_spots import Means, live_blind_spots
from topicwarden_collectors.host.netlink_process import ProcessEvents
from topicwarden_collectors.host.procfs_net import ListedSockets
from topicwarden_collectors.host.sock_diag import ClosedSockets, SocketDump


class LiveSources:
    """The kernel's interfaces and, where it is wanted, the helper that brokers ask. What is None is not to be had."""

    def __init__(self, ports: Collection[int]) -> None:
        """Open what we may; raises ObservationError when that is nothing at all."""
        self.events: ProcessEvents | None = None
        self.ended: ClosedSockets | None = None
        self.sockets: SocketDump | ListedSockets | None = None
        self.attributor: Attributor | None = None
        self._ports = frozenset(ports)
        self._refused: ObservationError | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            self.events = ProcessEvents()
        except ObservationError as refused:
            self._refused = refused
        with contextlib.suppress(OSError):
            self.ended = ClosedSockets(self._ports)
        try:
            self.sockets = SocketDump(self._ports)
        except OSError:
            with contextlib.suppress(OSError):
                self.sockets = ListedSockets(self._ports)
        if self.events is None and self.sockets is None and not _sees_processes():
            raise ObservationError(
                Problem(
                    "nothing of this machine can be seen: neither its processes nor its connections",
                    hint="run it as root on the host itself, with /proc mounted",
                )
            )

    def attribute(self, socket: Path, counters: Counters, host: str) -> None:
        """Start the helper that Mosquitto's plugin asks at `socket`; raises as `Attributor` does."""
        self.attributor = Attributor(socket, counters, host=host)

    @property
    def title(self) -> str:
        """What is seen, in a few words."""
        processes = "processes as the kernel tells of them" if self.events is not None else "processes that last"
        if self.sockets is None:
            return f"this machine, {processes}"
        connections = "all connections" if self.ended is not None else "connections that last"
        return f"this machine, {processes}, {connections} to {len(self._ports)} ports"

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What cannot be seen with these."""
        return live_blind_spots(
            Means(
                events=self.events is not None,
                events_refused=self._refused,
                ends=self.ended is not None,
                sockets=self.sockets is not None,
                privileged=procfs.may_trace(),
                attributed=self.attributor is not None and self.attributor.running,
                ports=self._ports,
            )
        )

    def close(self) -> None:
        """Close all; may be called again."""
        for source in (self.events, self.ended, self.sockets, self.attributor):
            if source is not None:
                source.close()


def _sees_processes() -> bool:
    try:
        return bool(procfs.pids())
    except OSError:
        return False
