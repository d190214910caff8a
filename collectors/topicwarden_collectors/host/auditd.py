"""Decodes auditd's log (`/var/log/audit/audit.log`, `ausearch --raw`), raw or enriched, also of several nodes.

An event is several records with one time and serial number. Records of different events interleave (28 times among
2400 events on two processors with eight busy programs, kernel 6.18, auditd 3.0.9), and a relay may re-order them.
auditd writes no end-of-event record to its file. So an event is handed out as soon as it has what it needs: a start of
a program all its arguments, a connection its address. What never gets complete is handed out with what there is, when
events two seconds newer have come (auditd's own end_of_event_timeout), when the table is full, or at the end.

What the log cannot tell: whether a connect was of TCP (`getaddrinfo` connects datagram sockets to find its best
address, with the port of the real connection to come), so `established` stays unknown where it succeeded; the local
port; and programs started or connections made by io_uring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from topicwarden.events import MAX_ARGUMENTS, Dialled, Endpoint, Executed, Exited, HostEvent, Process
from topicwarden.sources import Counters
from topicwarden_collectors.host.auditd_records import (
    EINPROGRESS,
    INTERRUPTED,
    RECORD,
    Call,
    Syscall,
    argument_count,
    argument_parts,
    read_address,
    read_syscall,
    read_title,
)
from topicwarden_collectors.host.lines import LineDecoder
from topicwarden_collectors.host.redaction import RAW_ARGUMENT, seen_command

WAIT_NS: Final = 2 * 10**9
"""How much newer others must be before an incomplete event is handed out."""
CLOCK_SET_BACK_NS: Final = 60 * 10**9
"""A record that much older than the newest means that the clock was set back."""
MAX_PENDING: Final = 16_384
MAX_PENDING_BYTES: Final = 64 << 20
MAX_NODES: Final = 1024
_MAX_PARTS: Final = 16
"""Parts kept of one argument; the kernel's are some 7500 characters each."""


class Key(NamedTuple):
    """What the records of one event share."""

    node: bytes | None
    second: bytes
    fraction: bytes
    serial: bytes


@dataclass(slots=True)
class Arguments:
    """The arguments of one event, as far as its records have come."""

    count: int | None = None
    whole: int = 0
    """Arguments that came whole, those that are not kept too."""
    kept: dict[int, bytes] = field(default_factory=dict)
    parts: dict[int, dict[int, bytes]] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    """Characters that arguments in parts take in all."""
    came: dict[int, int] = field(default_factory=dict)
    """Characters of them that have come."""

    def add(self, body: bytes) -> int:
        """Add a record; return the bytes it takes."""
        count = argument_count(body)
        if count is not None:
            self.count = count
        found, others = argument_parts(body, MAX_ARGUMENTS)
        self.whole += others
        size = 0
        for part in found:
            number = part.argument
            if part.length is not None:
                self.lengths[number] = part.length
            elif part.part is None:
                self.whole += number not in self.kept
                self.kept[number] = part.value[: 4 * RAW_ARGUMENT]
                size += len(self.kept[number])
            else:
                self.came[number] = self.came.get(number, 0) + part.encoded
                if number < MAX_ARGUMENTS and part.part < _MAX_PARTS:
                    self.parts.setdefault(number, {})[part.part] = part.value
                    size += len(part.value)
        return size

    @property
    def complete(self) -> bool:
        """Whether every argument has come, and every part of those in parts."""
        if self.count is None:
            return False
        in_parts = sum(1 for number, length in self.lengths.items() if self.came.get(number, 0) >= length)
        return self.whole + in_parts >= self.count

    def texts(self) -> tuple[list[str], bool]:
        """Return the arguments in their places, '' for one that is missing, and whether any is missing or cut."""
        joined = dict(self.kept)
        whole = self.complete
        for number, parts in self.parts.items():
            pieces = []
            for place in range(len(parts)):
                if place not in parts:
                    break
                pieces.append(parts[place])
            joined[number] = b"".join(pieces)[: 4 * RAW_ARGUMENT]
        count = self.count if self.count is not None else max(joined, default=-1) + 1
        texts = [
            joined.get(number, b"").decode("utf-8", "surrogateescape") for number in range(min(count, MAX_ARGUMENTS))
        ]
        long = any(len(parts) >= _MAX_PARTS for parts in self.parts.values())
        long = long or any(len(value) >= 4 * RAW_ARGUMENT for value in joined.values())
        return texts, not whole or long or count > MAX_ARGUMENTS


@dataclass(slots=True)
class Pending:
    """An event of which some records have come."""

    time_ns: int
    done: bool = False
    """Handed out, or none of ours; kept so that its late records start no other."""
    syscall: Syscall | None = None
    arguments: Arguments | None = None
    title: tuple[list[str], bool] | None = None
    remote: Endpoint | None = None
    size: int = 0


class AuditdDecoder(LineDecoder):
    """Feed it bytes of an audit log; see `LineDecoder`."""

    def __init__(
        self,
        counters: Counters,
        *,
        host: str | None = None,
        max_pending: int = MAX_PENDING,
        max_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        """`host` names the machine in records that name no node."""
        super().__init__(counters, host=host)
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._pending: dict[Key, Pending] = {}
        self._newest: dict[bytes | None, int] = {}
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """Events that wait for more of their records."""
        return sum(not event.done for event in self._pending.values())

    def _line(self, line: bytes) -> Iterable[HostEvent]:
        match = RECORD.match(line)
        if match is None:
            self._count_if_cut(line)
            return ()
        key = Key(match[1], match[3], match[4], match[5])
        kind, body = match[2], line[match.end() :]
        event = self._pending.get(key)
        ready: list[HostEvent] = []
        if event is None:
            event = Pending(int(key.second) * 10**9 + int(key.fraction.ljust(9, b"0")))
            ready += self._make_room(key, event.time_ns)
            self._pending[key] = event
        if event.done:
            return ready
        if kind == b"EOE":
            ready += self._hand_out(key, event)
        else:
            self._add(event, kind, body)
            if self._complete(event):
                ready += self._hand_out(key, event)
        return ready

    def _count_if_cut(self, line: bytes) -> None:
        """Count a line that is no whole record; records of other kinds are none of ours."""
        if line and b": " not in line[:512] and not line.startswith((b"----", b"time->")):
            self.counters.error("record")

    def _add(self, event: Pending, kind: bytes, body: bytes) -> None:
        if kind == b"SYSCALL":
            syscall = read_syscall(body)
            if syscall is None:
                self.counters.error("syscall")
                event.done = True
            elif isinstance(syscall, Syscall):
                event.syscall = syscall
            else:
                event.done = True
            if event.done:
                self._forget(event)
        elif kind == b"EXECVE":
            event.arguments = event.arguments or Arguments()
            size = event.arguments.add(body)
            event.size += size
            self._bytes += size
        elif kind == b"PROCTITLE":
            event.title = read_title(body)
            if event.title is None:
                self.counters.error("proctitle")
        else:
            remote = read_address(body)
            if remote is False:
                self.counters.error("sockaddr")
            elif isinstance(remote, Endpoint):
                event.remote = remote
            if event.remote is None:
                event.done = True

    @staticmethod
    def _complete(event: Pending) -> bool:
        if event.syscall is None:
            return False
        if event.syscall.call is Call.EXECUTE:
            return event.arguments is not None and event.arguments.complete
        return event.syscall.call is Call.EXIT or event.remote is not None

    def _make_room(self, key: Key, time_ns: int) -> Iterator[HostEvent]:
        """Hand out what has waited long enough, or must go because the table is full."""
        newest = self._newest.pop(key.node, 0)
        if time_ns > newest or time_ns < newest - CLOCK_SET_BACK_NS:
            newest = time_ns
        self._newest[key.node] = newest
        if len(self._newest) > MAX_NODES:
            del self._newest[next(iter(self._newest))]
            self._count("audit_nodes_evicted")
        while self._pending:
            oldest = next(iter(self._pending))
            event = self._pending[oldest]
            age = self._newest.get(oldest.node, time_ns) - event.time_ns
            full = len(self._pending) >= self._max_pending or self._bytes > self._max_bytes
            if age <= WAIT_NS and not full:
                break
            if not event.done:
                if age <= WAIT_NS:
                    self._count("audit_events_evicted")
                yield from self._hand_out(oldest, event)
            del self._pending[oldest]

    def _hand_out(self, key: Key, event: Pending) -> Iterator[HostEvent]:
        event.done = True
        syscall = event.syscall
        host = self.host if key.node is None else key.node.decode("utf-8", "surrogateescape")
        if syscall is None:
            if event.arguments is not None:
                self.counters.error("incomplete")
        elif syscall.call is Call.EXECUTE:
            yield Executed(event.time_ns, self._process(host, event, syscall))
        elif syscall.call is Call.EXIT:
            yield Exited(event.time_ns, host, syscall.pid)
        elif event.remote is None:
            self.counters.error("incomplete")
        else:
            unknown = syscall.success or syscall.result == EINPROGRESS or syscall.result in INTERRUPTED
            yield Dialled(
                event.time_ns,
                host,
                event.remote,
                pid=syscall.pid,
                executable=syscall.executable,
                user=syscall.user,
                established=None if unknown else False,
            )
        self._forget(event)

    def _process(self, host: str, event: Pending, syscall: Syscall) -> Process:
        if event.arguments is not None:
            texts, cut = event.arguments.texts()
        elif event.title is not None:
            texts, cut = event.title
            self._count("audit_titles_used")
        else:
            texts, cut = [], True
        if event.arguments is not None and not event.arguments.complete:
            self.counters.error("arguments")
        seen = seen_command(texts, cut=cut, executable=syscall.executable)
        return Process(
            host,
            syscall.pid,
            syscall.executable,
            seen.arguments,
            seen.cut,
            parent_pid=syscall.parent_pid,
            user=syscall.user,
            login_user=syscall.login_user,
            terminal=syscall.terminal,
            payload=seen.payload,
        )

    def _forget(self, event: Pending) -> None:
        """Let go of what an event holds; what is left of it tells its late records that they are late."""
        self._bytes -= event.size
        event.size = 0
        event.syscall = event.arguments = event.title = event.remote = None

    def _count(self, name: str) -> None:
        self.counters.source[name] = self.counters.source.get(name, 0) + 1

    def _waiting(self) -> Iterable[HostEvent]:
        for key, event in self._pending.items():
            if not event.done:
                yield from self._hand_out(key, event)

    def _rest(self) -> Iterable[HostEvent]:
        yield from self._waiting()
        self._pending.clear()
