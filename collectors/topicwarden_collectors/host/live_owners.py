"""Finds the processes that have sockets, by what their descriptors are; bounded, for there is no index of them.

A process's children may have its sockets too. The one that dialled is then the eldest of those in one line: children
get what their parents have, not the other way round.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import Final

from topicwarden_collectors.host import procfs

MAX_DESCRIPTORS: Final = 65_536
"""Descriptors looked at of one process; a larger one is looked at in part."""
FEW: Final = 48
"""The newest processes, which are looked at first."""
_FEW_DESCRIPTORS: Final = 64
"""Descriptors looked at of a process that is watched closely."""
SCAN_S: Final = 0.05
"""How long all processes are looked at; the rest are looked at the next time."""
_MAX_ANCESTORS: Final = 32


class SocketOwners:
    """Finds who has sockets, and counts what it cost."""

    def __init__(self, *, scan_s: float = SCAN_S) -> None:
        self.unfinished = 0
        """How often there was no time to look at all processes."""
        self._scan_s = scan_s
        self._left: list[int] = []

    def among(self, inodes: set[int], candidates: Iterable[int]) -> dict[int, int]:
        """Return the processes among a few candidates that have these sockets, by inode."""
        return self._find(inodes, islice(candidates, FEW), None)

    def sockets(self, pids: Iterable[int]) -> dict[int, int]:
        """Return the sockets that processes have, by inode; of each process the first few."""
        return {inode: pid for pid in pids for inode in procfs.socket_inodes(pid, _FEW_DESCRIPTORS)}

    def anywhere(self, inodes: set[int]) -> tuple[dict[int, int], bool]:
        """Return the processes that have these sockets, by inode, and whether all processes were looked at.

        The newest first; when there was no time for all, the next call goes on where this one ended.
        """
        if not self._left:
            try:
                self._left = procfs.pids()
            except OSError:
                return {}, True
            self._left.reverse()
        found = self._find(inodes, self._take(), time.monotonic() + self._scan_s)
        done = not self._left or len(found) == len(inodes)
        if done:
            self._left = []
        else:
            self.unfinished += 1
        return found, done

    def _take(self) -> Iterable[int]:
        while self._left:
            yield self._left.pop()

    def _find(self, inodes: set[int], candidates: Iterable[int], deadline: float | None) -> dict[int, int]:
        found: dict[int, int] = {}
        missing = set(inodes)
        for pid in candidates:
            if not missing:
                break
            for inode in procfs.socket_inodes(pid, MAX_DESCRIPTORS):
                if inode in missing:
                    missing.discard(inode)
                    found[inode] = eldest(pid, inode)
                    if not missing:
                        break
            if deadline is not None and time.monotonic() > deadline:
                break
        return found


def eldest(pid: int, inode: int) -> int:
    """Return the farthest ancestor, in an unbroken line, that has the socket too."""
    for _ in range(_MAX_ANCESTORS):
        parent = procfs.parent_of(pid)
        if not parent or inode not in procfs.socket_inodes(parent, MAX_DESCRIPTORS):
            break
        pid = parent
    return pid
