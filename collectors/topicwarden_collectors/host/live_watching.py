"""Which new processes are looked at closely, in the moments in which short ones connect: within a share of a processor.

A `mosquitto_pub` is connected for less than a millisecond some milliseconds after it was started: looking ten times a
second finds no such connection with its process. So for a while after its start a process's descriptors are looked at
all the time, which costs little, and connections are as soon as it has a socket, which costs more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from topicwarden.events import Process

SHARE: Final = 0.1
"""How much of one processor close looks at likely programs may take."""
OTHERS_SHARE: Final = 0.03
"""How much those at all others may."""
_SAVED_S: Final = 1.0
"""So much of it may be saved up."""
LIKELY_S: Final = 0.4
"""How long a program is watched that is likely to speak to a broker, or runs a script that may."""
OTHER_S: Final = 0.03
"""How long any other is, when there is nothing better to do."""
MAX_WATCHED: Final = 256
MAX_LOOKS: Final = 24
"""How often connections are looked at for a socket of a process that is not likely; it may be connected only later."""
_MAX_SOCKETS: Final = 4096
_LOOKED_AT: Final = 4096
_LIKELY_PROGRAM: Final = re.compile(
    r"mosquitto_|mqtt|amqp|rabbitmq|stomp|xmpp|(?:^|/)(?:nc|netcat|ncat|socat|telnet|openssl|curl)(?:\.\w+)?$"
    r"|(?:^|/)(?:python|perl|ruby|node|php|lua|java)[\d.]*$"
)
_LIKELY_ARGUMENT: Final = re.compile(r"mosquitto_|mqtt|amqp|rabbit|stomp|xmpp|paho|pika|/dev/tcp/")


def likely(process: Process) -> bool:
    """Whether a process is likely to connect to a broker, or to be a script that may, by its name and arguments."""
    if _LIKELY_PROGRAM.search(process.executable) is not None:
        return True
    left = _LOOKED_AT
    for argument in process.arguments:
        if _LIKELY_ARGUMENT.search(argument) is not None:
            return True
        left -= len(argument)
        if left <= 0:
            break
    return False


class _Allowance:
    """Time that may be spent: a share of all time, saved up to a bound."""

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._left = _SAVED_S
        self._at = now

    def left(self, now: float) -> float:
        """Return the seconds that may be spent now."""
        self._left = min(_SAVED_S, self._left + max(0.0, now - self._at) * self._share)
        self._at = now
        return self._left

    def spend(self, seconds: float) -> None:
        self._left -= seconds


class Watching:
    """The processes that are watched, and what of our share is left. No clock: times are given, in seconds."""

    def __init__(self, now: float, *, share: float = SHARE, others_share: float = OTHERS_SHARE) -> None:
        self.passed_over = 0
        """Processes that were not watched, or not to the end, because our share was used up."""
        self._for_likely = _Allowance(share, now)
        self._for_others = _Allowance(others_share, now)
        self._pays = self._for_others
        self._likely: dict[int, float] = {}
        self._others: dict[int, float] = {}
        self._looks: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._likely) + len(self._others)

    def __iter__(self) -> Iterator[int]:
        """Yield the processes that are watched."""
        yield from self._likely
        yield from self._others

    def worth(self, owners: Mapping[int, int]) -> bool:
        """Whether connections are worth looking at now; `owners`: the sockets of those watched, by inode."""
        worth = bool(self._likely)
        for inode, pid in owners.items():
            if pid in self._others:
                looks = self._looks.get(inode, 0)
                if looks < MAX_LOOKS:
                    worth = True
                    if not looks and len(self._looks) >= _MAX_SOCKETS:
                        del self._looks[next(iter(self._looks))]
                    self._looks[inode] = looks + 1
        return worth

    def started(self, process: Process, now: float) -> None:
        """Watch a process that has just been started, if there is time for it."""
        self.ended(process.pid)  # it may have been another program, so that the first to end stay first
        if likely(process):
            if len(self._likely) < MAX_WATCHED:
                self._likely[process.pid] = now + LIKELY_S
            else:
                self.passed_over += 1
        elif self._for_others.left(now) > 0 and len(self._others) < MAX_WATCHED:
            self._others[process.pid] = now + OTHER_S

    def ended(self, pid: int) -> None:
        """Watch a process no longer."""
        self._likely.pop(pid, None)
        self._others.pop(pid, None)

    def spent(self, seconds: float) -> None:
        """Take what a look has cost."""
        self._pays.spend(seconds)

    def watched(self, now: float) -> bool:
        """Whether there is somebody to watch, and time to."""
        for table, allowance in ((self._likely, self._for_likely), (self._others, self._for_others)):
            while table and next(iter(table.values())) < now:
                del table[next(iter(table))]
            if allowance.left(now) <= 0:
                self.passed_over += len(table)
                table.clear()
        self._pays = self._for_likely if self._likely else self._for_others
        return bool(self)
