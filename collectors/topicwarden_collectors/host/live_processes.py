"""The processes of this machine as they come and go, told as events of hosts: bounded, each start once.

A process is told when it starts a program, or, if it was there before us, or goes on as a copy of its parent and then
connects to somebody, when it is first met. Only of a process that was told its end is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

from topicwarden.events import Executed, Exited, HostEvent, Process
from topicwarden.sources import Counters
from topicwarden_collectors.host import procfs
from topicwarden_collectors.host.netlink_process import Happened, ProcessEvent
from topicwarden_collectors.host.procfs import ProcessState
from topicwarden_collectors.host.redaction import seen_command

MAX_PROCESSES: Final = 1 << 16
"""Processes kept in mind; and as many that have not started a program of their own yet."""
MAX_NAME: Final = 15
"""The kernel keeps so much of a program's name: one as long may have been cut."""
T = TypeVar("T")
_MAX_COPIES: Final = 16
_MAX_ENDED: Final = 1024
_SAME_NS: Final = 10**8
"""Starts of one number that are nearer are one, told by two sources; in that time no number is given twice."""
_STARTING_NS: Final = 10**9
_TICKS_NS: Final = 20_000_000
"""The start of a process is told in steps of 10 ms, and rounded down."""


class Known(NamedTuple):
    """What is kept in mind of a process that was told."""

    executable: str
    started_ns: int | None
    """As `ProcessState.started_ns`; None: it was gone before it could be looked at."""
    parent: int | None
    met_ns: int = 0
    """When `met` began to look at it, by the monotonic clock; what it did before was told then."""


class LiveProcesses:
    """Makes events of what the kernel says of processes and what /proc shows of them."""

    def __init__(
        self, host: str, counters: Counters, tell: Callable[[HostEvent], None], *, capacity: int = MAX_PROCESSES
    ) -> None:
        """`tell` takes each event, in order."""
        self._host = host
        self._counters = counters
        self._tell = tell
        self._capacity = capacity
        self._known: dict[int, Known] = {}
        self._parents: dict[int, int] = {}
        self._kernel: set[int] = set()
        self._ended: dict[int, Known] = {}
        self.evicted = 0
        """Processes forgotten because there were too many."""

    def __contains__(self, pid: int) -> bool:
        return pid in self._known or pid in self._kernel

    @property
    def newest(self) -> Iterator[int]:
        """The processes that were told or began last, the latest first."""
        yield from reversed(self._parents)
        yield from reversed(self._known)

    def executable(self, pid: int | None) -> str | None:
        """Return the program of a process; None: not known. A copy that started none of its own runs its parent's."""
        for _ in range(_MAX_COPIES):
            if pid is None:
                return None
            known = self._known.get(pid)
            if known is not None:
                return known.executable or None
            pid = self._parents.get(pid)
        return None

    @staticmethod
    def look(event: ProcessEvent) -> ProcessState | None:
        """Return what a process is that has just started a program: at once, for it may be gone the next moment."""
        if event.happened is not Happened.EXEC:
            return None
        state = procfs.read_process(event.pid)
        if state is not None and state.started_ns > _since_start(event.monotonic_ns) + _TICKS_NS:
            return None  # its number is another's already
        return state

    def happened(self, event: ProcessEvent, state: ProcessState | None, offset_ns: int) -> Process | None:
        """Take an event of the kernel, and what `look` found; return the process when it started a program.

        `offset_ns`: what to add to the event's time for nanoseconds since the epoch.
        """
        pid = event.pid
        if event.happened is Happened.FORK:
            if event.parent_pid is not None:
                self._keep(self._parents, pid, event.parent_pid)
            return None
        if event.happened is Happened.EXIT:
            self._parents.pop(pid, None)
            known = self._known.pop(pid, None)
            if known is not None:
                self._ended.pop(pid, None)
                if len(self._ended) >= _MAX_ENDED:
                    del self._ended[next(iter(self._ended))]
                self._ended[pid] = known
                self._tell(Exited(event.monotonic_ns + offset_ns, self._host, pid))
            return None
        known = self._known.get(pid)
        if known is not None and event.monotonic_ns < known.met_ns:
            return None
        return self._executed(pid, event.monotonic_ns + offset_ns, state)

    def met(self, pid: int) -> bool:
        """Tell of a process that was not told yet, if it is there; whether it was told now."""
        if pid in self:
            return False
        now_ns = time.monotonic_ns()
        state = procfs.read_process(pid)
        if state is None or state.ended:
            return False
        age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - state.started_ns
        if not state.arguments and not state.kernel and age_ns < _STARTING_NS:
            return False  # it is just starting a program: that has a path before it has arguments
        if state.kernel:
            self._kernel.add(pid)
            return False
        self._executed(pid, procfs.utc_of_start(state.started_ns), state, met_ns=now_ns)
        return True

    def compare(self, present: Collection[int], suspect: Iterable[int] | None = None) -> None:
        """Take which processes are there now, where the kernel did not tell: others have ended.

        Those of `suspect` (None: all) that are there may be others by now, or run other programs; `met` tells those.
        """
        there = frozenset(present)
        self._kernel &= there
        for table in (self._known, self._parents):
            for pid in table.keys() - there:
                del table[pid]
                if table is self._known:
                    self._tell(Exited(time.time_ns(), self._host, pid))
        for pid in list(self._known) if suspect is None else suspect:
            known = self._known.get(pid)
            if known is not None and self._replaced(pid, known):
                del self._known[pid]

    @staticmethod
    def _replaced(pid: int, known: Known) -> bool:
        started_ns = procfs.started_ns(pid)
        if started_ns is None:
            return False  # it ends just now
        if known.started_ns is not None and started_ns != known.started_ns:
            return True
        executable = procfs.executable_of(pid)
        return executable is not None and executable != known.executable

    def told_by_another(self, event: Executed) -> bool:
        """Take a start that another source tells, perhaps late; whether it is news, because we do not know as much."""
        pid = event.process.pid
        known = self._known.get(pid)
        last = known or self._ended.get(pid)
        if last is not None and last.started_ns is not None and "/" in last.executable:
            apart_ns = abs(procfs.utc_of_start(last.started_ns) - event.time_ns)
            if known is not None or apart_ns < _SAME_NS:
                return False
        started_ns = procfs.started_ns(pid)
        if started_ns is not None:
            parent = event.process.parent_pid
            self._keep(self._known, pid, Known(event.process.executable, started_ns, parent, time.monotonic_ns()))
        return True

    def _executed(self, pid: int, time_ns: int, state: ProcessState | None, *, met_ns: int = 0) -> Process:
        before = self._known.pop(pid, None)  # so that the newest are last
        # Who started it; /proc tells who has it now: when its parent has ended, another.
        parent = self._parents.pop(pid, None)
        if parent is None and state is not None:
            same = before is not None and before.started_ns == state.started_ns
            parent = before.parent if before is not None and same else state.parent_pid or None
        process = self._process(pid, parent, state)
        started_ns = None if state is None else state.started_ns
        self._keep(self._known, pid, Known(process.executable, started_ns, parent, met_ns))
        self._tell(Executed(time_ns, process))
        return process

    def _process(self, pid: int, parent: int | None, state: ProcessState | None) -> Process:
        parent_executable = self.executable(parent)
        if parent_executable is None and parent is not None:
            parent_executable = procfs.executable_of(parent)  # it was there before us, and was not met yet
        if state is None or state.ended:
            self._count("processes_gone")
        if state is None:
            return Process(self._host, pid, cut=True, parent_pid=parent, parent_executable=parent_executable)
        executable = state.executable
        if executable is None:
            # Of a process that has ended, or is not ours to see, there is its name: the last part of the path, unless
            # it gave itself another since.
            executable = state.name if len(state.name) < MAX_NAME else ""
        seen = seen_command(state.arguments, cut=state.cut, executable=executable)
        return Process(
            self._host,
            pid,
            executable,
            seen.arguments,
            seen.cut or state.ended,
            parent_pid=parent,
            parent_executable=parent_executable,
            user=None if state.uid is None else procfs.user_name(state.uid),
            login_user=None if state.login_uid is None else procfs.user_name(state.login_uid),
            terminal=state.terminal,
            container=state.container,
            payload=seen.payload,
        )

    def _keep(self, table: dict[int, T], pid: int, value: T) -> None:
        if len(table) >= self._capacity and pid not in table:
            del table[next(iter(table))]
            self.evicted += 1
        table[pid] = value

    def _count(self, name: str) -> None:
        self._counters.source[name] = self._counters.source.get(name, 0) + 1


def _since_start(monotonic_ns: int) -> int:
    """Return nanoseconds from the start of the machine, sleep included, of a time of the monotonic clock."""
    return monotonic_ns + time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
