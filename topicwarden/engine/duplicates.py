"""Tells when two sources told the same thing: the kernel and auditd, or the helper beside a broker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from topicwarden.events import Dialled, Executed, HostEvent

MAX_KNOWN: Final = 1 << 14


class Duplicates:
    """Remembers what was told of late. What looks the same and is told for nearly the same time is told once.

    A connection is the same when both its ends are, or, where one source tells no local port, when its process and the
    other end are. A program is the same when it has the same number and command line.
    """

    def __init__(self, apart_ns: int) -> None:
        """`apart_ns`: how far apart two sources may tell the same."""
        self.seen = 0
        """Events that were told before."""
        self._apart_ns = apart_ns
        self._known: OrderedDict[Hashable, int] = OrderedDict()

    def has(self, event: HostEvent) -> bool:
        """Whether another source told it already; from now on it was told."""
        if isinstance(event, Executed):
            process = event.process
            keys: list[Hashable] = [("exec", process.host, process.pid, process.arguments)]
            again = self._near(keys[0], event.time_ns)
        elif isinstance(event, Dialled):
            by_ends = ("ends", event.host, event.local, event.remote)
            by_process = ("process", event.host, event.pid, event.remote)
            bare = ("bare", event.host, event.pid, event.remote)
            if event.local is None:
                # Two that tell no port may be two connections; one that tells it was the same.
                keys = [] if event.pid is None else [bare]
                again = event.pid is not None and self._take(by_process, event.time_ns)
            else:
                keys = [by_ends] if event.pid is None else [by_ends, by_process]
                again = self._near(by_ends, event.time_ns)
                again = again or (event.pid is not None and self._take(bare, event.time_ns))
        else:
            return False
        for key in keys:
            self._known[key] = event.time_ns
            self._known.move_to_end(key)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self.seen += again
        return again

    def _near(self, key: Hashable, time_ns: int) -> bool:
        known = self._known.get(key)
        return known is not None and abs(known - time_ns) <= self._apart_ns

    def _take(self, key: Hashable, time_ns: int) -> bool:
        """Whether it is near, and then no longer: it stands for one connection only."""
        if not self._near(key, time_ns):
            return False
        del self._known[key]
        return True
